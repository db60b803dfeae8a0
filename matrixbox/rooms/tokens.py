"""Tokens of /sync and of pagination: positions that clients hold.

A sync token names a stream position and the serial number of what lives in memory.  A pagination
token names a place between two events of a room's timeline.  Each endpoint accepts both, since
clients hand one to the other ([C8.06]).
"""

from __future__ import annotations

import re

from attrs import frozen

from matrixbox.errors import InvalidParam

_SYNC = re.compile(r"s(\d{1,16})_(\d{1,16})", re.ASCII)
_PLACE = re.compile(r"t(\d{1,16})_(-?\d{1,16})", re.ASCII)


@frozen(order=True)
class SyncToken:
    """Everything up to ``pos``, and the typing lists up to ``serial``."""

    pos: int
    serial: int

    def __str__(self) -> str:
        return f"s{self.pos}_{self.serial}"

    @classmethod
    def parse(cls, text: str) -> SyncToken:
        """Raises InvalidParam (T082)."""
        found = _SYNC.fullmatch(text)
        if found is None:
            raise InvalidParam("That is not a sync token of this server.")
        return cls(int(found[1]), int(found[2]))


@frozen(order=True)
class Place:
    """Just after the event at (pos, sub) of a room's timeline, whether there is one or not."""

    pos: int
    sub: int

    def __str__(self) -> str:
        return f"t{self.pos}_{self.sub}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """A pagination or sync token; raises InvalidParam."""
        found = _PLACE.fullmatch(text)
        if found is None:
            return cls(SyncToken.parse(text).pos, 0)
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def before(cls, pos: int, sub: int) -> Place:
        """Just before the event at (pos, sub)."""
        return cls(pos, sub - 1)
