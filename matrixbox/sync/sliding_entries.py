"""What a connection of sliding sync knows of a room, and how that is written down.

A track is one kind of news about a room: it was never sent (NEVER), is sent with each answer, so
that it is known up to the position of the last one (LIVE), or was sent up to a position and then
left out, when the room slid out of what the client looks at.  So rooms that are looked at all the
time cost no writing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import astuple, evolve, frozen

from matrixbox.core.json import Json, decode_stored, encode
from matrixbox.store.nids import RoomNid
from matrixbox.sync.sliding_request import Required, Wanted

Track = int

NEVER: Track = -2
LIVE: Track = -1

NOTHING_SHOWN = 2**53
"""As the start of a timeline: the client has none of it."""


def since(track: Track, base: int) -> int:
    """Up to where a track is known, when the client has everything of the position ``base``."""
    if track == LIVE:
        return base
    return max(track, 0)


def left(track: Track, base: int) -> Track:
    """A track that is not sent this time."""
    return base if track == LIVE else track


@frozen
class Entry:
    """One room as the client knows it."""

    room: Track = NEVER  # timeline, state and the like
    data: Track = NEVER
    receipts: Track = NEVER
    typing: Track = NEVER
    joined: bool = False  # it was shown as a room that the user is in
    is_dm: bool = False
    limit: int = 0  # the client has so many of the newest events,
    start: tuple[int, int] = (NOTHING_SHOWN, 0)  # all after this place
    config: int = 0  # the number of what was wanted of its state

    def left(self, base: int) -> Entry:
        """The entry of a room that is not looked at any more."""
        if LIVE not in (self.room, self.data, self.receipts, self.typing):
            return self
        return evolve(
            self,
            room=left(self.room, base),
            data=left(self.data, base),
            receipts=left(self.receipts, base),
            typing=left(self.typing, base),
        )

    def pack(self) -> list[Json]:
        """As JSON."""
        *facts, start, config = astuple(self, recurse=False)
        return [*map(int, facts), *start, config]

    @classmethod
    def unpack(cls, packed: list[int]) -> Entry:
        """Back from JSON."""
        room, data, receipts, typing, joined, is_dm, limit, pos, sub, config = packed
        flags = bool(joined), bool(is_dm)
        return cls(room, data, receipts, typing, *flags, limit, (pos, sub), config)


UNKNOWN = Entry()


@frozen
class Wide:
    """What is known that is not about one room."""

    data: Track = NEVER
    devices: Track = NEVER
    threads: Track = NEVER

    def pack(self) -> list[Json]:
        """As JSON."""
        return [self.data, self.devices, self.threads]


Entries = Mapping[RoomNid, Entry]
Changes = Mapping[RoomNid, Entry | None]
"""Rooms that are known otherwise than before; None: not at all any more."""


@frozen
class Knowledge:
    """What has to be remembered in addition when the client has got an answer."""

    rooms: Changes
    wide: Wide

    def encode(self) -> bytes:
        """As bytes."""
        rooms: dict[str, Json] = {
            str(room): None if entry is None else entry.pack() for room, entry in self.rooms.items()
        }
        return encode({"rooms": rooms, "wide": self.wide.pack()})

    @classmethod
    def decode(cls, stored: bytes) -> Knowledge:
        """Back from bytes."""
        found = _stored(stored)
        rooms = {
            RoomNid(int(room)): None if entry is None else Entry.unpack(entry)
            for room, entry in found["rooms"].items()
        }
        return cls(rooms, Wide(*found["wide"]))


def encode_entry(entry: Entry | None) -> bytes | None:
    """A room's entry as bytes."""
    return None if entry is None else encode(entry.pack())


def decode_entry(stored: bytes) -> Entry:
    """Back from bytes."""
    return Entry.unpack(_stored(stored))


def encode_configs(configs: Iterable[Wanted]) -> bytes:
    """All that was wanted of rooms' state, in the order of their numbers, which begin at 1."""
    packed: list[Json] = [
        [[[*map(list, one.include)], [*map(list, one.exclude)], one.lazy] for one in wanted]
        for wanted in configs
    ]
    return encode(packed)


def decode_configs(stored: bytes) -> list[Wanted]:
    """Back from bytes."""
    return [
        tuple(
            Required(tuple(map(tuple, include)), tuple(map(tuple, exclude)), lazy)
            for include, exclude, lazy in wanted
        )
        for wanted in _stored(stored)
    ]


def _stored(stored: bytes) -> Any:
    return decode_stored(stored)
