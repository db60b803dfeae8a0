"""Tokens of /sync and of pagination: positions that clients hold.

A sync token names a stream position, the serial number of what lives in memory and, while more
to-device messages wait than one answer takes, the last of those that were given.  A pagination
token names a place between two events of a room's timeline.  A position of sliding sync also names
the connection, and how much of its memory it stands for.  Each endpoint accepts them all, since
clients hand one to the other ([C8.06]).
"""

from __future__ import annotations

import re

from attrs import frozen

from matrixbox.errors import InvalidParam

_SYNC = re.compile(r"s(\d{1,16})_(\d{1,16})(?:_(\d{1,16}))?", re.ASCII)
_SLIDING = re.compile(r"x(\d{1,16})_(\d{1,16})_(\d{1,16})_(\d{1,16})", re.ASCII)
_PLACE = re.compile(r"t(\d{1,16})_(-?\d{1,16})", re.ASCII)


@frozen
class SyncToken:
    """Everything up to ``pos``, and the typing lists up to ``serial``; to-device messages up to
    ``behind`` only, where that is not None."""

    pos: int
    serial: int
    behind: int | None = None

    @property
    def inbox(self) -> int:
        """The position up to which the client has its to-device messages."""
        return self.pos if self.behind is None else min(self.behind, self.pos)

    def __str__(self) -> str:
        text = f"s{self.pos}_{self.serial}"
        return text if self.behind is None else f"{text}_{self.behind}"

    @classmethod
    def parse(cls, text: str) -> SyncToken:
        """Raises InvalidParam (T082)."""
        found = _SYNC.fullmatch(text)
        if found is None:
            raise InvalidParam("That is not a sync token of this server.")
        behind = None if found[3] is None else int(found[3])
        return cls(int(found[1]), int(found[2]), behind)


@frozen
class SlidingToken:
    """Where a connection of sliding sync stands: everything up to ``pos`` and ``serial``, in the
    rooms that the client knows by what was remembered under the number ``known``."""

    connection: int
    known: int
    pos: int
    serial: int

    def __str__(self) -> str:
        return f"x{self.connection}_{self.known}_{self.pos}_{self.serial}"

    @classmethod
    def parse(cls, text: str) -> SlidingToken | None:
        """The position, or None for what is none of this server."""
        found = _SLIDING.fullmatch(text)
        return None if found is None else cls(*map(int, found.groups()))


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
            sliding = SlidingToken.parse(text)
            return cls((sliding or SyncToken.parse(text)).pos, 0)
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def before(cls, pos: int, sub: int) -> Place:
        """Just before the event at (pos, sub)."""
        return cls(pos, sub - 1)
