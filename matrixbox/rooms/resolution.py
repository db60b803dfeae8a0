"""State resolution that costs too much for the writer: done beside it, then written.

A transaction function that meets such branches raises NeedsResolution.  What they resolve to is
worked out in a reader's thread, out of events and snapshots that are durable and never change, and
kept by the branches; then the function runs again from the start and finds it.  No lock is held
meanwhile: if the room's end has moved, other branches are asked for (T029, T079).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

from matrixbox.errors import Unavailable
from matrixbox.rooms.policy import NeedsSignature
from matrixbox.rooms.state import MAX_EVENTS, Branches, NeedsResolution, TooCostly, resolution
from matrixbox.store import snapshots
from matrixbox.store.database import Store
from matrixbox.store.errors import ReadTooLong
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

MAX_ROUNDS = 20  # of one transaction

T = TypeVar("T")
Args = TypeVarTuple("Args")


class RoomTooCostly(Unavailable):
    """A room needs more for one event than a room may have (T029)."""

    def __init__(self, room: RoomNid | None) -> None:
        super().__init__("The state of this room costs too much to work out.")
        self.room = room


async def write(store: Store, function: Callable[[Tx, Unpack[Args]], T], *args: *Args) -> T:
    """``Store.write`` for functions that may resolve state, or need a policy server's signature.

    Raises RoomTooCostly, and what ``PolicyDesk.obtain`` raises.
    """
    for _ in range(MAX_ROUNDS):
        try:
            return await store.write(function, *args)
        except NeedsResolution as needed:
            room = needed.room
            await _provide(store, needed)
        except NeedsSignature as needed:
            room = None
            await needed.desk.obtain(needed)
    raise RoomTooCostly(room)


async def _provide(store: Store, needed: NeedsResolution) -> None:
    branches = needed.branches
    if needed.first is not None:
        branches = await write(store, needed.first)
    # The branches may come from a transaction of the same group, which commits before this one.
    if not await store.write(_are_durable, branches):
        return
    try:
        changes = await store.read_long(resolution, needed.room, branches, MAX_EVENTS)
    except (TooCostly, ReadTooLong) as error:
        raise RoomTooCostly(needed.room) from error
    store.caches.resolutions.put(branches, changes)


def _are_durable(tx: Tx, branches: Branches) -> bool:
    return all(snapshots.exists(tx, branch) for branch in branches)
