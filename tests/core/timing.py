"""Time limits in tests."""

from __future__ import annotations

import sys


def within(seconds: float) -> float:
    """A time limit, wider while every line is traced for coverage."""
    return seconds if sys.gettrace() is None else 25 * seconds
