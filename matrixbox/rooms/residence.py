"""Whether this server has a room's graph to itself, or at first hand: whether it is in the room.

When the last user of ours leaves a room, what is known of it stays, and grows old.  Nothing may be
built upon it then: the others have gone on.
"""

from __future__ import annotations

from matrixbox.core.identifiers import RoomId
from matrixbox.errors import NotFound
from matrixbox.rooms.env import Env
from matrixbox.store import joins, members, names, rooms
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx


def is_resident(tx: Tx, env: Env, room: RoomNid) -> bool:
    """Whether what is known of a room is what is so: a user of ours, or nobody, is in it."""
    if rooms.head(tx, room) is None:
        return False
    present = members.servers(tx, room)
    return env.server_name in present or not present


def resident_room(tx: Tx, env: Env, room_id: RoomId) -> RoomNid | None:
    """The number of a room that this server is in, or None."""
    room = names.room_nid(tx, room_id)
    return room if room is not None and is_resident(tx, env, room) else None


def required_room(tx: Tx, env: Env, room_id: RoomId) -> RoomNid:
    """The number of a room that this server is in; raises NotFound."""
    room = resident_room(tx, env, room_id)
    if room is None:
        raise NotFound("This server is not in that room.")
    return room


def whole_room(tx: Tx, env: Env, room_id: RoomId) -> RoomNid:
    """A room that this server is in and knows all members of; raises NotFound ([B8.05])."""
    room = required_room(tx, env, room_id)
    if joins.partial(tx, room) is not None:
        raise NotFound("This server does not know all of that room yet.")
    return room
