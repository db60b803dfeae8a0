"""Rooms that cost more than one room may, for the one who runs the server (T029).

Such a room takes no events of other servers; what is there can be read, and it can be left.  Tried
again, it goes on where others are: what came meanwhile is fetched like what any gap hides.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from matrixbox.core.identifiers import RoomId
from matrixbox.core.json import Json
from matrixbox.errors import NotFound
from matrixbox.household.control import Function, text_of
from matrixbox.observe import log
from matrixbox.store import events, inbound, names, rooms
from matrixbox.store.database import Store
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx


def functions(store: Store) -> dict[str, Function]:
    """What the control socket offers, by name."""
    return {"room.parked": partial(_list, store), "room.retry": partial(_retry, store)}


async def _list(store: Store, arguments: Mapping[str, Json]) -> Json:
    return store.read(_parked)


def _parked(tx: Tx) -> Json:
    return [
        {
            "room_id": names.room_id(tx, room),
            "name": _name(tx, room),
            "since_ms": since_ms,
            "reason": reason,
        }
        for room, since_ms, reason in inbound.parked_rooms(tx)
    ]


def _name(tx: Tx, room: RoomNid) -> str | None:
    nid = rooms.current_event(tx, room, ("m.room.name", ""))
    name = None if nid is None else events.by_nid(tx, nid).event.content.get("name")
    return name if isinstance(name, str) else None


async def _retry(store: Store, arguments: Mapping[str, Json]) -> Json:
    room_id = text_of(arguments, "room_id")
    if not await store.write(_unpark, room_id):
        raise NotFound(f"{room_id} is no room that takes no events")
    log.info("room tried again", room_id=room_id)
    return room_id


def _unpark(tx: Tx, room_id: str) -> bool:
    room = names.room_nid(tx, RoomId(room_id))
    if room is None or inbound.parked(tx, room) is None:
        return False
    inbound.unpark(tx, room)
    return True
