"""Tests of the protocol core: plain functions, no I/O."""
