"""The Matrix protocol as plain functions over values: no I/O, no clock, no randomness."""
