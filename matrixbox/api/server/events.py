"""Single events for other servers.

Matrix v1.19, Server-Server API, "Retrieving events" ([B11.04], [B11.05], T106).
"""

from __future__ import annotations

from typing import Any

from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.api.server import common
from matrixbox.core.identifiers import EventId, RoomId, ServerName
from matrixbox.core.json import Json, encode
from matrixbox.errors import MissingParam, NotFound
from matrixbox.rooms import timeline
from matrixbox.rooms.serving import ServerReader
from matrixbox.store import events
from matrixbox.store.transaction import Tx

routes = RouteTable()

V1 = "/_matrix/federation/v1"
MAX_TS = 2**53 - 1


@routes.get(f"{V1}/event/{{event_id}}", auth=Auth.FEDERATION)
async def event(call: Call) -> Response:
    """One event, in redacted form where the server was not to see it then."""
    event_id = parse.event_id(call.path["event_id"])
    shown = call.services.store.read(_event, call.origin, event_id)
    return transaction(call, [shown])


def _event(tx: Tx, origin: ServerName, event_id: EventId) -> Any:
    stored = events.by_id(tx, event_id)
    if stored is None:
        raise NotFound(timeline.NO_EVENT)
    common.require_allowed(tx, stored.room, origin)
    shown = ServerReader(tx, stored.room, origin).shown(stored)
    if shown is None:
        raise NotFound(timeline.NO_EVENT)
    return shown.json


def transaction(call: Call, pdus: list[Any]) -> Response:
    """PDUs in the form of a transaction."""
    env = call.services.env
    answer: dict[str, Json] = {
        "origin": env.server_name,
        "origin_server_ts": env.clock.now_ms(),
        "pdus": pdus,
    }
    return Response(body=encode(answer), headers=JSON_HEADERS)


@routes.get(f"{V1}/timestamp_to_event/{{room_id}}", auth=Auth.FEDERATION)
async def timestamp_to_event(call: Call) -> dict[str, Json]:
    """The event nearest to a time that the server may see."""
    room_id = common.room_id(call)
    direction = parse.query_choice(call.param("dir"), "dir", ("f", "b"))
    if direction is None or call.param("ts") is None:
        raise MissingParam("`ts` or `dir` is missing.")
    ts = parse.query_integer(call.param("ts"), "ts", 0, 0, MAX_TS)
    found: dict[str, Json] = call.services.store.read(
        _nearest, call.origin, room_id, ts, direction == "b"
    )
    return found


def _nearest(tx: Tx, origin: ServerName, room_id: RoomId, ts: int, back: bool) -> dict[str, Json]:
    room = common.shared_room(tx, room_id, origin)
    found = timeline.nearest(ServerReader(tx, room, origin), ts, back=back)
    if found is None:
        raise NotFound("No event was found there.")
    event = found.event
    return {"event_id": event.event_id, "origin_server_ts": event.origin_server_ts}
