"""Reading a room's history.

Matrix v1.19, Client-Server API, "Getting events for a room", "Event context" ([C9.03] to [C9.08]).
"""

from __future__ import annotations

from typing import Any

from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.call import Call
from matrixbox.api.client.room_state import ROOM, known_room
from matrixbox.api.routes import Auth, Mount, RouteTable
from matrixbox.core.filters import EventFilter, InvalidFilter, parse_event_filter
from matrixbox.core.json import CLIENT, JsonError, decode, encode
from matrixbox.errors import Forbidden, InvalidParam, MissingParam, NotFound
from matrixbox.rooms import state_reading, timeline
from matrixbox.rooms.formatting import Formatter
from matrixbox.rooms.reading import Reader, ignored_users
from matrixbox.rooms.tokens import Place
from matrixbox.store.caches import StoredEvent
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

routes = RouteTable()

MAX_PAGE = 1000


def event_filter(call: Call) -> EventFilter:
    """The filter of the query."""
    given = call.param("filter")
    if not given:
        return EventFilter()
    try:
        return parse_event_filter(decode(given.encode(), CLIENT))
    except (InvalidFilter, JsonError) as error:
        raise InvalidParam(f"`filter`: {error}") from error


def room_of_event(call: Call) -> RoomNid:
    """The room of the path; of an unknown room nothing is told but that there is no such event."""
    try:
        return known_room(call)
    except Forbidden as error:
        raise NotFound(timeline.NO_EVENT) from error


def reader_of(tx: Tx, call: Call, room: RoomNid) -> Reader:
    """The caller, looking into a room with the eyes shut to whom the caller ignores."""
    who, now_ms = call.requester, call.services.env.clock.now_ms()
    return Reader(tx, room, who.user, now_ms, who.device, ignored_users(tx, who.user))


def _wanted(wanted: EventFilter, stored: StoredEvent) -> bool:
    event = stored.event
    return wanted.allows(event.type, event.sender, event.content)


@routes.get(f"{ROOM}/messages", auth=Auth.USER, guest_ok=True, mount=Mount.ASGI)
async def messages(call: Call) -> Response:
    """A page of history."""
    room = known_room(call)
    wanted = event_filter(call)
    back = parse.query_choice(call.param("dir"), "dir", ("b", "f"))
    if back is None:
        raise MissingParam("`dir` is missing.")
    limit = parse.query_integer(call.param("limit"), "limit", 10, 1, MAX_PAGE)
    limit = min(limit, wanted.limit or MAX_PAGE)
    start, until = call.param("from"), call.param("to")

    def read(tx: Tx) -> bytes:
        reader = reader_of(tx, call, room)
        timeline.require_reader(reader)
        if start:
            place = Place.parse(start)
        elif back == "b":
            place = Place(call.services.store.doorbell.position, 0)
        else:
            place = timeline.BEGINNING
        page = timeline.page(
            reader,
            place,
            Place.parse(until) if until else None,
            limit,
            lambda stored: _wanted(wanted, stored),
            back=back == "b",
        )
        answer: dict[str, Any] = {
            "start": start or str(place),
            "chunk": Formatter(reader, bundled=True).all(page.events),
        }
        if page.end is not None:
            answer["end"] = str(page.end)
        if wanted.lazy_load_members:
            answer["state"] = state_reading.senders(reader, page.events)
        return encode(answer)

    return Response(body=call.services.store.read(read), headers=JSON_HEADERS)


@routes.get(f"{ROOM}/event/{{event_id}}", auth=Auth.USER, guest_ok=True)
async def event(call: Call) -> Response:
    """One event."""
    room = room_of_event(call)
    event_id = parse.event_id(call.path["event_id"])

    def read(tx: Tx) -> bytes:
        reader = reader_of(tx, call, room)
        return encode(Formatter(reader, bundled=True).event(timeline.event(reader, event_id)))

    return Response(body=call.services.store.read(read), headers=JSON_HEADERS)


@routes.get(f"{ROOM}/context/{{event_id}}", auth=Auth.USER, guest_ok=True)
async def context(call: Call) -> Response:
    """One event with its neighbours."""
    room = room_of_event(call)
    event_id = parse.event_id(call.path["event_id"])
    wanted = event_filter(call)
    limit = parse.query_integer(call.param("limit"), "limit", 10, 0, 100)

    def read(tx: Tx) -> bytes:
        reader = reader_of(tx, call, room)
        found = timeline.context(reader, event_id, limit, lambda stored: _wanted(wanted, stored))
        formatter = Formatter(reader, bundled=True)
        last = found.after[-1] if found.after else found.event
        shown = (*found.before, found.event, *found.after)
        senders = {stored.event.sender for stored in shown} if wanted.lazy_load_members else None
        return encode(
            {
                "event": formatter.event(found.event),
                "events_before": formatter.all(found.before),
                "events_after": formatter.all(found.after),
                "start": str(found.start),
                "end": str(found.end),
                "state": state_reading.around(reader, last, senders),
            }
        )

    return Response(body=call.services.store.read(read), headers=JSON_HEADERS)


@routes.get("/_matrix/client/v1/rooms/{room_id}/timestamp_to_event", auth=Auth.USER)
async def timestamp_to_event(call: Call) -> Response:
    """The visible event nearest to a time."""
    room = known_room(call)
    direction = parse.query_choice(call.param("dir"), "dir", ("f", "b"))
    if direction is None or call.param("ts") is None:
        raise MissingParam("`ts` or `dir` is missing.")
    ts = parse.query_integer(call.param("ts"), "ts", 0, 0, 2**53)

    def read(tx: Tx) -> bytes:
        reader = reader_of(tx, call, room)
        timeline.require_reader(reader)
        found = timeline.nearest(reader, ts, back=direction == "b").event
        return encode({"event_id": found.event_id, "origin_server_ts": found.origin_server_ts})

    return Response(body=call.services.store.read(read), headers=JSON_HEADERS)
