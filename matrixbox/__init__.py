"""matrixbox: a Matrix homeserver for one household."""

__version__ = "0.1.0"
