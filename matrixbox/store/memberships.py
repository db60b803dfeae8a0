"""Memberships, as stored."""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen

from matrixbox.store.nids import EventNid, RoomNid, UserNid


class Membership(IntEnum):
    """The value of ``content.membership``, as stored."""

    JOIN = 1
    INVITE = 2
    KNOCK = 3
    LEAVE = 4
    BAN = 5

    @property
    def word(self) -> str:
        """As the specification writes it."""
        return self.name.lower()

    @classmethod
    def of(cls, word: object) -> Membership:
        """The stored value of an accepted event's membership."""
        return cls[word.upper()] if isinstance(word, str) else cls.LEAVE


@frozen
class Member:
    """One user's membership in one room."""

    room: RoomNid
    user: UserNid
    membership: Membership
    event: EventNid  # 0: not in the room's graph here
    pos: int
    forgotten: bool
