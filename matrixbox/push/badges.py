"""How much each user has not read, over all rooms; kept up to date room by room.

Matrix v1.19, Push Gateway API, `counts` ([E.02]).  Every number comes from ``rooms.counts``; what
is kept here is which rooms have to be looked at again.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio
from attrs import define, field

from matrixbox.rooms import counts
from matrixbox.store import members
from matrixbox.store.database import Store
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx


@define(eq=False)
class _Badge:
    counts: dict[RoomNid, int] = field(factory=dict)  # without rooms that have nothing new
    stale: set[RoomNid] | None = None  # None: all
    counting: trio.Lock = field(factory=trio.Lock)


@define(eq=False)
class Badges:
    """The numbers of the users who have pushers."""

    store: Store
    _badges: dict[UserNid, _Badge] = field(factory=dict)

    def touch(self, user: UserNid, rooms: Iterable[RoomNid] | None) -> None:
        """Something happened in some rooms of a user, or, with None, perhaps in all."""
        badge = self._badges.get(user)
        if badge is None or badge.stale is None:
            return
        if rooms is None:
            badge.stale = None
        else:
            badge.stale.update(rooms)

    def keep(self, users: Iterable[UserNid]) -> None:
        """Forget everybody else."""
        wanted = set(users)
        self._badges = {user: one for user, one in self._badges.items() if user in wanted}

    async def unread(self, user: UserNid) -> int:
        """How many notifications a user has not read."""
        badge = self._badges.setdefault(user, _Badge())
        async with badge.counting:  # two pushers of one user
            if badge.stale is None:
                await self._count_all(user, badge)
            while badge.stale:
                room = badge.stale.pop()
                found = self.store.read(_in_room, user, room, self.store.doorbell.position)
                badge.counts[room] = found
                if not found:
                    del badge.counts[room]
            return sum(badge.counts.values())

    async def _count_all(self, user: UserNid, badge: _Badge) -> None:
        # Rooms that are touched from now on are counted again: the snapshot may be older.
        badge.stale = set()
        now = self.store.doorbell.position
        try:
            badge.counts = await self.store.read_long(_in_all_rooms, user, now)
        except BaseException:
            badge.stale = None
            raise


def _in_all_rooms(tx: Tx, user: UserNid, now: int) -> dict[RoomNid, int]:
    joined = [one.room for one in members.rooms_of(tx, user) if one.membership is Membership.JOIN]
    found = {room: counts.unread(tx, user, room, now).total.notifications for room in joined}
    return {room: count for room, count in found.items() if count}


def _in_room(tx: Tx, user: UserNid, room: RoomNid, now: int) -> int:
    present = members.get(tx, room, user)
    if present is None or present.membership is not Membership.JOIN:
        return 0
    return counts.unread(tx, user, room, now).total.notifications
