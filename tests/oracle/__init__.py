"""Rooms judged three ways: `matrixbox.core`, the naive reference, and Synapse's own code."""
