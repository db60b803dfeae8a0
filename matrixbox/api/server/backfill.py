"""The history of a room for other servers.

Matrix v1.19, Server-Server API, "Backfilling and retrieving missing events" ([B11.01], [B11.02],
[B11.06], T106).  The walk behind an answer ends after 500 events.
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.api.server import common
from matrixbox.api.server.events import V1, transaction
from matrixbox.core.events import Event
from matrixbox.core.identifiers import EventId, RoomId, ServerName
from matrixbox.core.json import encode
from matrixbox.errors import BadJson, MissingParam, NotFound
from matrixbox.rooms import serving, timeline
from matrixbox.rooms.serving import ServerReader
from matrixbox.store.transaction import Tx

routes = RouteTable()

MAX_NAMED = 100  # events that one request may name


@routes.get(f"{V1}/backfill/{{room_id}}", auth=Auth.FEDERATION)
async def backfill(call: Call) -> Response:
    """Events and what came before them."""
    room_id = common.room_id(call)
    start = common.query_event_ids(call, "v", MAX_NAMED)
    if call.param("limit") is None:
        raise MissingParam("`limit` is missing.")
    limit = parse.query_integer(call.param("limit"), "limit", 0, 1, serving.MAX_BACKFILL)
    found = await call.services.store.read_long(_backwards, call.origin, room_id, start, limit)
    if not found:
        raise NotFound(timeline.NO_EVENT)
    return transaction(call, [event.json for event in found])


def _backwards(
    tx: Tx, origin: ServerName, room_id: RoomId, start: list[EventId], limit: int
) -> list[Event]:
    room = common.shared_room(tx, room_id, origin)
    return serving.backwards(ServerReader(tx, room, origin), start, limit)


@routes.post(f"{V1}/get_missing_events/{{room_id}}", auth=Auth.FEDERATION)
async def get_missing_events(call: Call) -> Response:
    """What lies between some events and some later ones."""
    room_id = common.room_id(call)
    body = await call.json()
    limit = parse.optional_integer(body, "limit")
    min_depth = parse.optional_integer(body, "min_depth") or 0
    found = call.services.store.read(
        _between,
        call.origin,
        room_id,
        _event_ids(body, "earliest_events"),
        _event_ids(body, "latest_events"),
        10 if limit is None else max(0, min(limit, serving.MAX_MISSING)),
        min_depth,
    )
    return Response(body=encode({"events": [event.json for event in found]}), headers=JSON_HEADERS)


def _event_ids(body: parse.Body, key: str) -> list[EventId]:
    if key not in body:
        raise MissingParam(f"`{key}` is missing.")
    given = parse.texts(body, key)
    if len(given) > MAX_NAMED:
        raise BadJson(f"`{key}` names more than {MAX_NAMED} events.")
    return [EventId(one) for one in given]


def _between(
    tx: Tx,
    origin: ServerName,
    room_id: RoomId,
    earliest: list[EventId],
    latest: list[EventId],
    limit: int,
    min_depth: int,
) -> list[Event]:
    room = common.shared_room(tx, room_id, origin)
    reader = ServerReader(tx, room, origin)
    return serving.between(reader, earliest, latest, limit, min_depth)
