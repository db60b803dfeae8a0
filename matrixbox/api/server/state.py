"""The state of a room at some point of its graph, for other servers.

Matrix v1.19, Server-Server API, "Retrieving events" ([B11.03], [B11.04], T106).  Answers with
whole events are sent as they are read, so that a large room takes no memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.api.server import common
from matrixbox.api.server.events import V1
from matrixbox.core.identifiers import EventId, RoomId, ServerName
from matrixbox.core.json import encode
from matrixbox.errors import NotFound
from matrixbox.rooms import serving, timeline
from matrixbox.rooms.serving import Whole
from matrixbox.store import chains, joins
from matrixbox.store.database import Store
from matrixbox.store.nids import EventNid
from matrixbox.store.transaction import Tx

routes = RouteTable()

PIECE = 100  # events read at once
MEMBERS_S = 15.0  # that another server waits for a state whose members are on their way


@routes.get(f"{V1}/state_ids/{{room_id}}", auth=Auth.FEDERATION)
async def state_ids(call: Call) -> Response:
    """The state before an event, by ids."""
    await _all_known(call)
    found = await call.services.store.read_long(
        _state_ids, call.origin, common.room_id(call), common.query_event_id(call)
    )
    return Response(body=found, headers=JSON_HEADERS)


def _state_ids(tx: Tx, origin: ServerName, room_id: RoomId, event_id: EventId) -> bytes:
    whole = _whole(tx, origin, room_id, event_id)
    return encode(
        {
            "pdu_ids": [*chains.event_ids(tx, whole.state)],
            "auth_chain_ids": [*chains.event_ids(tx, whole.auth_chain)],
        }
    )


async def _all_known(call: Call) -> None:
    """Wait a little for the members of a room that was joined without them ([B8.05])."""
    services = call.services
    room_id, at = common.room_id(call), common.query_event_id(call)
    room = services.store.read(common.shared_room, room_id, call.origin, at)
    await services.federation.joins.completions.wait(room, MEMBERS_S)


def _whole(tx: Tx, origin: ServerName, room_id: RoomId, event_id: EventId) -> Whole:
    room = common.shared_room(tx, room_id, origin, event_id)
    if joins.partial(tx, room) is not None:
        raise NotFound("This server does not know all of that room yet.")
    whole = serving.state_before(tx, room, event_id)
    if whole is None:
        raise NotFound(timeline.NO_EVENT)
    return whole


@routes.get(f"{V1}/state/{{room_id}}", auth=Auth.FEDERATION)
async def state(call: Call) -> Response:
    """The state before an event."""
    await _all_known(call)
    store = call.services.store
    whole = await store.read_long(
        _whole, call.origin, common.room_id(call), common.query_event_id(call)
    )
    pieces = _members(store, {"pdus": whole.state, "auth_chain": whole.auth_chain})
    return Response(body=pieces, headers=JSON_HEADERS)


@routes.get(f"{V1}/event_auth/{{room_id}}/{{event_id}}", auth=Auth.FEDERATION)
async def event_auth(call: Call) -> Response:
    """The auth chain of an event."""
    store = call.services.store
    event_id = parse.event_id(call.path["event_id"])
    chain = await store.read_long(_auth_chain, call.origin, common.room_id(call), event_id)
    return Response(body=_members(store, {"auth_chain": chain}), headers=JSON_HEADERS)


def _auth_chain(
    tx: Tx, origin: ServerName, room_id: RoomId, event_id: EventId
) -> Sequence[EventNid]:
    room = common.shared_room(tx, room_id, origin, event_id)
    chain = serving.auth_chain_of(tx, room, event_id)
    if chain is None:
        raise NotFound(timeline.NO_EVENT)
    return chain


async def _members(store: Store, members: dict[str, Sequence[EventNid]]) -> AsyncIterator[bytes]:
    """A JSON object with lists of events, piece by piece."""
    opening = b"{"
    for name, nids in members.items():
        yield opening + encode(name) + b":["
        for start in range(0, len(nids), PIECE):
            piece = store.read(_pdus, nids[start : start + PIECE])
            yield (b"," if start else b"") + piece
        opening = b"],"
    yield b"]}"


def _pdus(tx: Tx, nids: Sequence[EventNid]) -> bytes:
    return b",".join(chains.pdus(tx, nids))
