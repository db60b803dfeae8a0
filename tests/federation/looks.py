"""What servers of ours know of a room, in tests whose time is virtual."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from matrixbox.core.identifiers import RoomId
from matrixbox.store import events, names, rooms
from tests.federation.towns import Town

PATIENCE_S = 600.0


async def eventually(look: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so."""
    with trio.fail_after(PATIENCE_S):
        while not await look():
            await trio.sleep(1)


def state_ids(town: Town, room: str) -> dict[tuple[str, str], str]:
    """The current state of a room."""

    def read(tx: Any) -> dict[tuple[str, str], str]:
        nid = names.room_nid(tx, RoomId(room))
        assert nid is not None
        return {
            names.slot_key(tx, slot): events.by_nid(tx, one).event.event_id
            for slot, one in rooms.current_state(tx, nid).items()
        }

    return town.store.read(read)


def is_in(town: Town, room: str, user: str) -> bool:
    """Whether a server counts a user to a room's members."""
    return town.store.read(_word, room, user) == "join"


def _word(tx: Any, room: str, user: str) -> str | None:
    nid = names.room_nid(tx, RoomId(room))
    found = None if nid is None else rooms.current_event(tx, nid, ("m.room.member", user))
    return None if not found else str(events.by_nid(tx, found).event.content["membership"])


async def agree(room: str, *towns: Town) -> None:
    """Wait until all have the same state."""

    async def look() -> bool:
        first, *others = (state_ids(town, room) for town in towns)
        return all(first == other for other in others)

    await eventually(look)
