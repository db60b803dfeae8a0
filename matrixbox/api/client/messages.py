"""Reading a room's history.

Matrix v1.19, Client-Server API, "Getting events for a room", "Event context" ([C9.03] to [C9.08]).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import trio
from attrs import frozen

from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response, json_response
from matrixbox.api.call import Call
from matrixbox.api.client.places import known_room
from matrixbox.api.client.room_state import ROOM
from matrixbox.api.routes import Auth, Mount, RouteTable
from matrixbox.core.filters import EventFilter, InvalidFilter, parse_event_filter
from matrixbox.core.json import CLIENT, JsonError, decode, encode
from matrixbox.errors import Forbidden, InvalidParam, MissingParam, NotFound
from matrixbox.federation.backfill import MAX_ROUNDS, TOTAL_S
from matrixbox.rooms import history, state_reading, timeline
from matrixbox.rooms.formatting import Formatter
from matrixbox.rooms.history import Gap
from matrixbox.rooms.reading import Reader, ignored_users
from matrixbox.rooms.timeline import Context, Page
from matrixbox.rooms.tokens import Place
from matrixbox.store import rooms
from matrixbox.store.caches import StoredEvent
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

routes = RouteTable()

Span: TypeAlias = "tuple[Place, Place]"  # the older and the newer end of what is looked at

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


@frozen
class Extended:
    """Whether something came in from other servers, and whether something is still missing."""

    came: bool
    more: bool


@routes.get(f"{ROOM}/messages", auth=Auth.USER, guest_ok=True, mount=Mount.ASGI)
async def messages(call: Call) -> Response:
    """A page of history; what is missing of it here is fetched from other servers."""
    room = known_room(call)
    wanted = event_filter(call)
    back = parse.query_choice(call.param("dir"), "dir", ("b", "f"))
    if back is None:
        call.services.store.read(lambda tx: timeline.require_reader(reader_of(tx, call, room)))
        raise MissingParam("`dir` is missing.")
    limit = parse.query_integer(call.param("limit"), "limit", 10, 1, MAX_PAGE)
    limit = min(limit, wanted.limit or MAX_PAGE)
    start, until = call.param("from"), call.param("to")
    if start:
        place = Place.parse(start)
    elif back == "b":
        place = Place(call.services.store.doorbell.position, 0)
    else:
        place = timeline.BEGINNING
    border = Place.parse(until) if until else None

    def look(reader: Reader) -> Page:
        timeline.require_reader(reader)
        choose = partial(_wanted, wanted)
        return timeline.page(reader, place, border, limit, choose, back=back == "b")

    def span(reader: Reader) -> Span:
        reached = look(reader).reached
        return (reached, place) if back == "b" else (place, reached)

    extended = await _extend(call, room, span, back=back == "b")

    def read(tx: Tx) -> bytes:
        reader = reader_of(tx, call, room)
        page = look(reader)
        end = page.end
        if end is None and extended.more and (page.events or extended.came):
            # There is more than came in now; who asks again from here gives others another chance.
            end = timeline.before_oldest(reader) if back == "b" else page.after_last(back=False)
        answer: dict[str, Any] = {
            "start": start or str(place),
            "chunk": Formatter(reader, bundled=True).all(page.events),
        }
        if end is not None:
            answer["end"] = str(end)
        if wanted.lazy_load_members:
            answer["state"] = state_reading.senders(reader, page.events)
        return encode(answer)

    return Response(body=call.services.store.read(read), headers=JSON_HEADERS)


async def _extend(
    call: Call, room: RoomNid, span: Callable[[Reader], Span], *, back: bool
) -> Extended:
    """Fill gaps in what a request looks at, as far as that succeeds within its time ([C9.04])."""
    store, backfill = call.services.store, call.services.federation.backfill

    def looked_at(tx: Tx) -> Span | None:
        reader = reader_of(tx, call, room)
        return span(reader) if rooms.gaps(tx, room) and timeline.was_inside(reader) else None

    seen: Span | None = store.read(looked_at)
    came = False
    with trio.move_on_after(TOTAL_S):
        for _ in range(MAX_ROUNDS):
            if seen is None or not await backfill.extend(room, *seen, back=back):
                break
            came = True
            seen = store.read(looked_at)
    return Extended(came, seen is not None and store.read(partial(_is_open, room, seen)))


def _is_open(room: RoomNid, seen: Span, tx: Tx) -> bool:
    return bool(history.gaps(tx, room, *seen))


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

    def look(reader: Reader) -> Context:
        return timeline.context(reader, event_id, limit, partial(_wanted, wanted))

    def before(reader: Reader) -> Span:
        found = look(reader)
        return found.reached[0], found.here

    def after(reader: Reader) -> Span:
        found = look(reader)
        return found.here, found.reached[1]

    await _extend(call, room, before, back=True)
    await _extend(call, room, after, back=False)

    def read(tx: Tx) -> bytes:
        reader = reader_of(tx, call, room)
        found = look(reader)
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
    back = direction == "b"

    def read(tx: Tx) -> tuple[StoredEvent | None, Gap | None]:
        reader = reader_of(tx, call, room)
        timeline.require_reader(reader)
        gap = history.gap_at(reader, ts, back=back) if timeline.was_inside(reader) else None
        return timeline.nearest(reader, ts, back=back), gap

    store = call.services.store
    found, gap = store.read(read)
    if gap is not None and await _bring_nearer(call, gap, found, ts, back=back):
        found, _ = store.read(read)
    if found is None:
        raise NotFound("No event was found there.")
    return json_response(
        {"event_id": found.event.event_id, "origin_server_ts": found.event.origin_server_ts}
    )


async def _bring_nearer(
    call: Call, gap: Gap, found: StoredEvent | None, ts: int, *, back: bool
) -> bool:
    """Ask others for an event nearer to a time than what we found, and place it here ([B11.05])."""
    backfill = call.services.federation.backfill
    known = None if found is None else found.event.origin_server_ts
    with trio.move_on_after(TOTAL_S):
        return bool(await backfill.bring_nearer(gap, ts, known, back=back))
    return False
