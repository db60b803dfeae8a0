"""What the endpoints for servers about one room ask first.

Matrix v1.19, Server-Server API, "Server Access Control Lists (ACLs)", "Retrieving events"
([B11.06], [B11.07], [B13.12], T037, T106).
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.core.identifiers import EventId, RoomId, ServerName
from matrixbox.errors import Forbidden, InvalidParam, MissingParam, NotFound
from matrixbox.rooms import servers, serving
from matrixbox.store import names, rooms
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

NOT_IN_ROOM = "Your server is not in that room."


def room_id(call: Call) -> RoomId:
    """The room id of the path; raises InvalidParam."""
    return parse.room_id(call.path["room_id"])


def known_room(tx: Tx, of: RoomId) -> RoomNid:
    """A room whose graph is known here; raises NotFound."""
    room = names.room_nid(tx, of)
    if room is None or rooms.head(tx, room) is None:
        raise NotFound("This server does not know that room.")
    return room


def require_allowed(tx: Tx, room: RoomNid, origin: ServerName) -> None:
    """Raise Forbidden for a server that the room's access control list keeps out."""
    if not servers.is_allowed(tx, room, origin):
        raise Forbidden("Your server is kept out of that room by its access control list.")


def require_in_room(tx: Tx, room: RoomNid, origin: ServerName) -> None:
    """Raise Forbidden for a server without a user in the room."""
    if not servers.is_in_room(tx, room, origin):
        raise Forbidden(NOT_IN_ROOM)


def shared_room(tx: Tx, of: RoomId, origin: ServerName, at: EventId | None = None) -> RoomNid:
    """A room that the asking server is in, and that its access control list lets it see.

    `at` is the event whose surroundings it wants: those of its time in the room it may have too.
    Raises Forbidden; of unknown rooms and of those of others nothing more is told.
    """
    room = names.room_nid(tx, of)
    if room is None or rooms.head(tx, room) is None:
        raise Forbidden(NOT_IN_ROOM)
    require_allowed(tx, room, origin)
    if at is None or not serving.was_in_room(tx, room, origin, at):
        require_in_room(tx, room, origin)
    return room


def query_event_id(call: Call, name: str = "event_id") -> EventId:
    """An event id that the query must give; raises MissingParam, InvalidParam."""
    given = call.param(name)
    if given is None:
        raise MissingParam(f"`{name}` is missing.")
    return parse.event_id(given)


def query_event_ids(call: Call, name: str, most: int) -> list[EventId]:
    """Event ids of which the query gives at least one; raises MissingParam, InvalidParam."""
    given = call.query.get(name)
    if not given:
        raise MissingParam(f"`{name}` is missing.")
    if len(given) > most:
        raise InvalidParam(f"There are more than {most} of `{name}`.")
    return [parse.event_id(one) for one in dict.fromkeys(given)]
