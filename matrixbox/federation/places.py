"""Whose turn it is: a bounded number of transactions on the way, and none kept waiting by others.

Threats T083, T155.  Destinations that took something fast of late have places of their own, so that
slow, dead and unknown ones, however many, do not keep them waiting.  What nobody waits for comes
after events.
"""

from __future__ import annotations

import trio
from attrs import define, field

from matrixbox.core.identifiers import ServerName
from matrixbox.federation.destinations import Destinations

AT_ONCE = 16
"""Transactions on the way."""
SLOW_AT_ONCE = 12
"""Of these, to destinations that are slow, or not known to be fast."""
SLOW_S = 2.0
IMPATIENT_S = 5.0
"""With all places taken, what is on the way so long makes room for a destination that is fast."""
KNOWN_QUICK_S = 3600.0


@define(eq=False)
class Attempt:
    """A destination that has a place."""

    server: ServerName
    quick: bool
    began: float
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    given_up: bool = False


@define(eq=False)
class Places:
    """Destinations in line, and those that are being worked on."""

    destinations: Destinations
    busy: dict[ServerName, Attempt] = field(factory=dict)
    # Something urgent: for fast destinations, for others; what nobody waits for, likewise.
    _lines: tuple[dict[ServerName, None], ...] = field(factory=lambda: ({}, {}, {}, {}))
    _line_of: dict[ServerName, int] = field(factory=dict)
    _quick: dict[ServerName, float] = field(factory=dict)
    _slow: dict[ServerName, None] = field(factory=dict)

    def clear(self) -> None:
        """Forget who waits and who is served."""
        self.busy.clear()
        self._line_of.clear()
        for line in self._lines:
            line.clear()

    @property
    def anybody_waits(self) -> bool:
        """Whether there is somebody in line."""
        return bool(self._line_of)

    def waits(self, server: ServerName, *, urgently: bool = False) -> bool:
        """Whether a destination is in line."""
        number = self._line_of.get(server)
        return number is not None and (number < 2 or not urgently)

    def line_up(self, server: ServerName, *, urgent: bool) -> None:
        """Put a destination at the end of its line."""
        before = self._line_of.get(server)
        if before is not None:
            del self._lines[before][server]
        number = (0 if urgent else 2) + (0 if self.is_quick(server) else 1)
        self._lines[number][server] = None
        self._line_of[server] = number

    def next(self) -> Attempt | None:
        """Give a place to the first in line for whom there is one."""
        now = trio.current_time()
        if len(self.busy) >= AT_ONCE:
            return None
        slow = sum(not one.quick or now - one.began > SLOW_S for one in self.busy.values())
        for number, line in enumerate(self._lines):
            quick = number % 2 == 0
            if line and (quick or slow < SLOW_AT_ONCE):
                server = next(iter(line))
                del line[server], self._line_of[server]
                attempt = self.busy[server] = Attempt(server, quick, now)
                return attempt
        return None

    def make_room(self) -> None:
        """Break off what takes longest, when fast destinations wait and no place is free."""
        if len(self.busy) < AT_ONCE:
            return
        longest = sorted(self.busy.values(), key=lambda one: one.began)
        for attempt in longest[: len(self._lines[0])]:
            if trio.current_time() - attempt.began >= IMPATIENT_S:
                attempt.given_up = True
                attempt.scope.cancel()

    # --- who is fast

    def is_quick(self, server: ServerName) -> bool:
        """Whether a destination can be expected to take something within little time."""
        if server in self._slow or self.destinations.failures(server):
            return False
        known = self._quick.get(server, float("-inf")) >= trio.current_time() - KNOWN_QUICK_S
        return known or self.destinations.heard_within(server, KNOWN_QUICK_S)

    def note_speed(self, server: ServerName, took_s: float) -> None:
        """How long a destination took for a transaction; 0: it did so before this run."""
        if took_s > SLOW_S:
            self._slow[server] = None
            self._quick.pop(server, None)
        else:
            self._slow.pop(server, None)
            self._quick[server] = trio.current_time()
