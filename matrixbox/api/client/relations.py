"""Events that relate to another one, and the threads of a room.

Matrix v1.19, Client-Server API, "Relationships API", "Threading" ([C9.10], [C9.11]).
"""

from __future__ import annotations

from typing import Any

from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.call import Call
from matrixbox.api.client.messages import reader_of, room_of_event
from matrixbox.api.client.places import known_room
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import encode
from matrixbox.rooms import relations
from matrixbox.rooms.formatting import Formatter
from matrixbox.rooms.relations import Wanted
from matrixbox.rooms.tokens import Place
from matrixbox.store.transaction import Tx

routes = RouteTable()

BASE = "/_matrix/client/v1/rooms/{room_id}/relations/{event_id}"
MAX_PAGE = 100


@routes.get(BASE, f"{BASE}/{{rel_type}}", f"{BASE}/{{rel_type}}/{{event_type}}", auth=Auth.USER)
async def related(call: Call) -> Response:
    """The visible children of an event, of one kind or all."""
    room = room_of_event(call)
    parent = parse.event_id(call.path["event_id"])
    direction = parse.query_choice(call.param("dir"), "dir", ("b", "f")) or "b"
    start, until = call.param("from"), call.param("to")
    wanted = Wanted(
        rel_type=call.path.get("rel_type"),
        event_type=call.path.get("event_type"),
        recurse=parse.query_flag(call.param("recurse"), "recurse"),
        back=direction == "b",
        start=Place.parse(start) if start else None,
        until=Place.parse(until) if until else None,
        limit=parse.query_integer(call.param("limit"), "limit", 5, 1, MAX_PAGE),
    )

    def read(tx: Tx) -> bytes:
        reader = reader_of(tx, call, room)
        page = relations.children(reader, parent, wanted)
        answer: dict[str, Any] = {"chunk": Formatter(reader, bundled=True).all(page.events)}
        if page.end is not None:
            answer["next_batch"] = str(page.end)
        if start:
            answer["prev_batch"] = start
        if wanted.recurse:
            answer["recursion_depth"] = relations.MAX_DEPTH
        return encode(answer)

    return Response(body=call.services.store.read(read), headers=JSON_HEADERS)


@routes.get("/_matrix/client/v1/rooms/{room_id}/threads", auth=Auth.USER)
async def threads(call: Call) -> Response:
    """The roots of the room's threads, the one with the newest reply first."""
    room = known_room(call)
    include = parse.query_choice(call.param("include"), "include", ("all", "participated"))
    start = call.param("from")
    limit = parse.query_integer(call.param("limit"), "limit", 20, 1, MAX_PAGE)

    def read(tx: Tx) -> bytes:
        reader = reader_of(tx, call, room)
        page = relations.threads(
            reader,
            Place.parse(start) if start else None,
            limit,
            participated=include == "participated",
        )
        answer: dict[str, Any] = {"chunk": Formatter(reader, bundled=True).all(page.events)}
        if page.end is not None:
            answer["next_batch"] = str(page.end)
        return encode(answer)

    return Response(body=call.services.store.read(read), headers=JSON_HEADERS)
