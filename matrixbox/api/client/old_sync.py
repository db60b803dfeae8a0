"""What clients used before `/sync`, and what previews of rooms are made of.

Matrix v1.19, Client-Server API, "Syncing", "Room previews" ([C8.32]).
"""

from __future__ import annotations

from contextlib import nullcontext

from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.call import Call
from matrixbox.api.client.places import known_room
from matrixbox.api.client.sync import MAX_TIMEOUT_MS
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.errors import Forbidden, GuestAccessForbidden
from matrixbox.rooms.tokens import Place
from matrixbox.store import names
from matrixbox.store.nids import RoomNid
from matrixbox.store.presence import WORDS
from matrixbox.store.transaction import Tx
from matrixbox.sync.old import Stream

routes = RouteTable()

BASE = "/_matrix/client/v3"
DEFAULT_LIMIT = 10
MAX_LIMIT = 100


@routes.get(f"{BASE}/events", auth=Auth.USER, guest_ok=True)
async def events(call: Call) -> Response:
    """The events after a token; of one room, also if it is only open to readers."""
    room: RoomNid | None = None
    given = call.param("room_id")
    if given is not None:
        room = call.services.store.read(names.room_nid, parse.room_id(given))
        if room is None:
            raise Forbidden("You are not in that room.")
    elif call.requester.guest:
        raise GuestAccessForbidden("Guests listen to one room at a time.")
    since = call.param("from")
    timeout_ms = parse.query_integer(call.param("timeout"), "timeout", 0, 0, MAX_TIMEOUT_MS)
    place = Place.parse(since).pos if since else None
    wanted = Stream(call.requester, place, timeout_ms / 1000, room)
    presence, who = call.services.env.presence, call.requester.user_id
    with nullcontext() if presence is None else presence.syncing(who, WORDS["online"]):
        body = await call.services.old_sync.events(wanted, call.waiting)
    return Response(body=body, headers=JSON_HEADERS)


@routes.get(f"{BASE}/events/{{event_id}}", auth=Auth.USER)
async def event(call: Call) -> Response:
    """One event, by its name alone."""
    event_id, old_sync = parse.event_id(call.path["event_id"]), call.services.old_sync

    def read(tx: Tx) -> bytes:
        found: bytes = old_sync.event(tx, call.requester, event_id)
        return found

    return Response(body=call.services.store.read(read), headers=JSON_HEADERS)


@routes.get(f"{BASE}/initialSync", auth=Auth.USER)
async def initial_sync(call: Call) -> Response:
    """All rooms with their newest events."""
    limit, old_sync = _limit(call), call.services.old_sync
    archived = parse.query_flag(call.param("archived"), "archived")

    def read(tx: Tx) -> bytes:
        found: bytes = old_sync.everything(tx, call.requester, limit, archived=archived)
        return found

    return Response(body=call.services.store.read(read), headers=JSON_HEADERS)


@routes.get(f"{BASE}/rooms/{{room_id}}/initialSync", auth=Auth.USER, guest_ok=True)
async def room_initial_sync(call: Call) -> Response:
    """One room with its newest events."""
    room, limit, old_sync = known_room(call), _limit(call), call.services.old_sync

    def read(tx: Tx) -> bytes:
        found: bytes = old_sync.one_room(tx, call.requester, room, limit)
        return found

    return Response(body=call.services.store.read(read), headers=JSON_HEADERS)


def _limit(call: Call) -> int:
    return parse.query_integer(call.param("limit"), "limit", DEFAULT_LIMIT, 0, MAX_LIMIT)
