"""Stream positions, what a commit changed for whom, and the doorbell.

A commit is announced as a position and whom it concerns, never as data: a listener wakes, reads
the database beyond its own position, and waits again. So a ring that is missed does no harm, and
nothing has to be replayed after a restart.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import NewType

import trio
from attrs import frozen

from matrixbox.store.nids import RoomNid

StreamPos = NewType("StreamPos", int)
"""1, 2, 3 … in the order of commits, one count over everything."""

Key = int | str
"""Whom a change concerns: made by one of the four functions below, or the name of a topic."""

MAX_REMEMBERED_KEYS = 20_000
"""Keys remembered with the position of their last ring. A household has a few thousand rooms and
users; beyond the bound the oldest are forgotten, which costs a needless wake-up."""


def room_key(room_nid: int) -> Key:
    """The key of a room, from its number (rooms and users are numbered apart)."""
    return room_nid << 2


def user_key(user_nid: int) -> Key:
    """The key of a user, from the user's number."""
    return user_nid << 2 | 1


def receipts_key(room_nid: int) -> Key:
    """The key of a room's receipts, which listeners need not learn at once (T084)."""
    return room_nid << 2 | 2


def inbox_key(user_nid: int) -> Key:
    """The key of the to-device messages for a user's devices, which wait for company too (T084)."""
    return user_nid << 2 | 3


def changed_rooms(keys: Iterable[Key]) -> list[RoomNid]:
    """The rooms among the keys, in order (a set has none of its own)."""
    return sorted(RoomNid(key >> 2) for key in keys if isinstance(key, int) and key & 3 == 0)


def read_rooms(keys: Iterable[Key]) -> list[RoomNid]:
    """The rooms whose receipts are among the keys, in order."""
    return sorted(RoomNid(key >> 2) for key in keys if isinstance(key, int) and key & 3 == 2)


def loud_rooms(keys: Iterable[Key]) -> set[RoomNid]:
    """The rooms that are among the keys, or whose receipts are."""
    return {RoomNid(key >> 2) for key in keys if isinstance(key, int) and not key & 1}


@frozen
class Change:
    """One commit as seen from outside: its highest position and whom it concerns."""

    position: StreamPos
    keys: frozenset[Key]


class _Waiter:
    __slots__ = ("keys", "task")

    def __init__(self, task: trio.lowlevel.Task, keys: AbstractSet[Key]) -> None:
        self.task = task
        self.keys = keys


class Doorbell:
    """Tells waiting tasks that the database has news for them. Belongs to the Trio thread.

    `position` is the highest position that is committed, synced, and known to the caches. A
    reader that wants a stable answer takes it first and reads rows up to it: a commit that has
    just become visible may already show rows beyond.
    """

    def __init__(self, position: StreamPos) -> None:
        self._position = position
        self._forgotten = position  # keys not in _last rang at or before this position
        self._last: dict[Key, StreamPos] = {}
        self._waiters: dict[_Waiter, None] = {}  # a dict: the same order in every run

    @property
    def position(self) -> StreamPos:
        """The highest committed stream position."""
        return self._position

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._waiters)

    def has_news(self, since: StreamPos, keys: Key | AbstractSet[Key]) -> bool:
        """Whether something beyond `since` may concern one of `keys`; never wrongly False."""
        if since >= self._position:
            return False
        if since < self._forgotten:
            return True
        last = self._last
        if isinstance(keys, int | str):
            return last.get(keys, since) > since
        if self._position - since >= len(keys):
            return any(last.get(key, since) > since for key in keys)
        for key, position in reversed(last.items()):  # the newest first: there are few
            if position <= since:
                break
            if key in keys:
                return True
        return False

    def rung_since(self, since: StreamPos) -> AbstractSet[Key] | None:
        """The keys that rang beyond `since`; None: that is not remembered, it may be any.

        The newest rings are looked at first, so it costs as much as there is news.
        """
        if since < self._forgotten:
            return None
        found: set[Key] = set()
        for key, position in reversed(self._last.items()):
            if position <= since:
                break
            found.add(key)
        return found

    async def beyond(self, since: StreamPos, keys: Key | AbstractSet[Key]) -> StreamPos:
        """Wait until something beyond `since` concerns one of `keys`; return the position.

        May return without news (a nudge, forgotten keys): callers read, and wait again. The set
        is used as it is, without a copy: a caller may keep one set per user.
        """
        if self.has_news(since, keys):
            await trio.lowlevel.checkpoint()
            return self._position
        wanted = frozenset((keys,)) if isinstance(keys, int | str) else keys
        waiter = _Waiter(trio.lowlevel.current_task(), wanted)
        self._waiters[waiter] = None

        def give_up(_: object) -> trio.lowlevel.Abort:
            del self._waiters[waiter]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)
        return self._position

    def ring(self, change: Change) -> None:
        """Announce a commit. Called by the writer alone, once the commit is durable."""
        self._position = max(self._position, change.position)
        last = self._last
        for key in change.keys:
            last.pop(key, None)  # to the end: the dict is in the order of the last rings
            last[key] = change.position
        while len(last) > MAX_REMEMBERED_KEYS:
            oldest = next(iter(last))
            self._forgotten = max(self._forgotten, last.pop(oldest))
        self.nudge(change.keys)

    def nudge(self, keys: Iterable[Key]) -> None:
        """Wake who waits for one of `keys` now, without a position.

        For what lives in memory only (typing, presence): the sleeper compares its own counter
        just before it waits, without a checkpoint in between, so no nudge is lost.
        """
        rung = keys if isinstance(keys, AbstractSet) else frozenset(keys)
        if not rung:
            return
        # A scan, not an index by key: a waiter for 500 rooms would pay 500 insertions at each
        # wait, while isdisjoint looks at the smaller side only (about 0.1 us per waiter).
        woken = [waiter for waiter in self._waiters if not rung.isdisjoint(waiter.keys)]
        for waiter in woken:
            del self._waiters[waiter]
            trio.lowlevel.reschedule(waiter.task)
