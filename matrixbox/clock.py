"""The wall clock, and its simulated twin.

Durations and deadlines inside one run of the process come from `trio.current_time()`, which only
moves forward; the wall clock (`now_ms`) is for what is shown or stored, such as `origin_server_ts`.
It may step in either direction (threats T152, T153).
"""

from __future__ import annotations

import time
from typing import Protocol

import trio


class Clock(Protocol):
    """What time it is."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC by the wall clock."""

    def monotonic_s(self) -> float:
        """Seconds since some unknown moment, never going back; for differences only."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds of the machine's monotonic clock."""
        return time.monotonic()


class SimulatedClock:
    """A wall clock that follows Trio's time, which may be virtual (`trio.testing.MockClock`)."""

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._start_ms = start_ms
        self._started_s = trio.current_time()

    def now_ms(self) -> int:
        """The start, plus what has passed by Trio's clock, plus all steps."""
        return self._start_ms + round((trio.current_time() - self._started_s) * 1000)

    def monotonic_s(self) -> float:
        """Trio's time in seconds."""
        return trio.current_time()

    def step(self, by_ms: int) -> None:
        """Set the wall clock forward, or back with a negative number; durations don't notice."""
        self._start_ms += by_ms
