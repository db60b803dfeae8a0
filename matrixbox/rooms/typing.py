"""Who is typing where.  Kept in memory only; ends by itself.

Matrix v1.19, Client-Server API, "Typing Notifications" ([C13.07], T084).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet

import trio
from attrs import define, field

from matrixbox.core.identifiers import UserId
from matrixbox.store.changes import Doorbell, Key, receipts_key
from matrixbox.store.nids import RoomNid

MAX_TIMEOUT_S = 60.0
TYPING = "typing"
"""The topic of changes in any room."""

TELL_AGAIN_S = 25.0
"""Other servers are told anew of who types on: some forget after half a minute."""


@define(eq=False)
class Typing:
    """The typing users of all rooms; each change of a room has a serial number.

    ``serial`` begins at a number that no earlier run of the server has used, so that sync tokens
    of an earlier run see a change.  ``on_change`` is told of everybody who begins, goes on for long
    or ends.
    """

    doorbell: Doorbell
    serial: int
    on_change: Callable[[RoomNid, UserId, bool], None] | None = None
    _told_at: dict[tuple[RoomNid, UserId], float] = field(factory=dict)
    _until: dict[RoomNid, dict[UserId, float]] = field(factory=dict)
    _changed: dict[RoomNid, int] = field(factory=dict)
    _ends: list[tuple[float, RoomNid, UserId]] = field(factory=list)
    _sooner: trio.Event = field(factory=trio.Event)

    def start(self, room: RoomNid, user: UserId, timeout_s: float) -> None:
        """A user types, for at most ``timeout_s`` seconds unless said again."""
        now = trio.current_time()
        until = now + min(timeout_s, MAX_TIMEOUT_S)
        users = self._until.setdefault(room, {})
        new = user not in users
        if not new and abs(users[user] - until) < 1.0:
            return  # said again and again (T084)
        users[user] = until
        heapq.heappush(self._ends, (until, room, user))
        self._sooner.set()
        if new:
            self._change(room)
        if new or self._told_at.get((room, user), now) <= now - TELL_AGAIN_S:
            self._tell(room, user, is_typing=True)

    def stop(self, room: RoomNid, user: UserId) -> None:
        """A user stopped typing."""
        users = self._until.get(room)
        if users and users.pop(user, None) is not None:
            if not users:
                del self._until[room]
            self._change(room)
            self._tell(room, user, is_typing=False)

    def _tell(self, room: RoomNid, user: UserId, *, is_typing: bool) -> None:
        if self.on_change is not None:
            self.on_change(room, user, is_typing)
        if is_typing:
            self._told_at[room, user] = trio.current_time()
        else:
            self._told_at.pop((room, user), None)

    def _change(self, room: RoomNid) -> None:
        self.serial += 1
        self._changed.pop(room, None)  # to the end: the newest is the last
        self._changed[room] = self.serial
        self.doorbell.nudge((receipts_key(room), TYPING))

    def users(self, room: RoomNid) -> list[UserId]:
        """Who types in a room now."""
        return list(self._until.get(room, ()))

    def changed_since(self, room: RoomNid, serial: int) -> bool:
        """Whether the list of a room is another than at that serial number."""
        return self._changed.get(room, 0) > serial

    def rooms_changed_since(self, serial: int) -> Iterator[RoomNid]:
        """The rooms whose lists are others than at that serial number, the newest first."""
        for room, changed in reversed(self._changed.items()):
            if changed <= serial:
                return
            yield room

    def any_changed_since(self, keys: AbstractSet[Key], serial: int) -> bool:
        """Whether the list of one of these rooms is another than at that serial number."""
        return any(receipts_key(room) in keys for room in self.rooms_changed_since(serial))

    async def run(self) -> None:
        """End what nobody renewed."""
        while True:
            now = trio.current_time()
            while self._ends and self._ends[0][0] <= now:
                _, room, user = heapq.heappop(self._ends)
                if self._until.get(room, {}).get(user, now + 1) <= now:
                    self.stop(room, user)
            self._sooner = trio.Event()
            wait = self._ends[0][0] - now if self._ends else float("inf")
            with trio.move_on_after(wait):
                await self._sooner.wait()
