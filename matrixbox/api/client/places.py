"""The rooms that requests are about."""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.errors import Forbidden
from matrixbox.store import names
from matrixbox.store.nids import RoomNid


def known_room(call: Call) -> RoomNid:
    """The room of the path.  Of an unknown room nothing is told but that one is not in it."""
    room_id = parse.room_id(call.path["room_id"])
    room: RoomNid | None = call.services.store.read(names.room_nid, room_id)
    if room is None:
        raise Forbidden("You are not in that room.")
    return room
