"""What rings for a user who waits for news."""

from __future__ import annotations

from attrs import define, field, frozen

from matrixbox.rooms.typing import TYPING
from matrixbox.store import members
from matrixbox.store.caches import Lru, Session
from matrixbox.store.changes import Key, StreamPos, inbox_key, receipts_key, room_key, user_key
from matrixbox.store.database import Store
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import UserNid


@frozen
class Keys:
    """What a user listens to, found out at a stream position; pacing.py says how soon."""

    since: int
    inbox: Key
    urgent: frozenset[Key]  # rooms, and what concerns the user alone
    soon: frozenset[Key]  # and to-device messages; nudges for who types
    all: frozenset[Key]  # everything: receipts and presence too


@define(eq=False)
class Listening:
    """What rings for each user: the user, and the rooms that the user is in."""

    store: Store
    _keys: Lru[UserNid, Keys] = field(factory=lambda: Lru(1_000))

    def keys(self, who: Session, now: int) -> Keys:
        """The keys of a user."""
        mine = user_key(who.user)
        known = self._keys.get(who.user)
        if known is None or self.store.doorbell.has_news(StreamPos(known.since), mine):
            found = self.store.read(members.rooms_of, who.user)
            joined = [m.room for m in found if m.membership is Membership.JOIN]
            inbox = inbox_key(who.user)
            urgent = frozenset([mine, *map(room_key, joined)])
            known = Keys(
                since=now,
                inbox=inbox,
                urgent=urgent,
                soon=urgent | {inbox, TYPING},
                all=urgent.union([inbox], map(receipts_key, joined)),
            )
            self._keys.put(who.user, known)
        return known
