"""Threads that a user follows.

MSC4306 and MSC4308, under their unstable prefixes.
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.messages import reader_of, room_of_event
from matrixbox.api.routes import Auth, BodyKind, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import InvalidParam
from matrixbox.rooms import thread_subscriptions
from matrixbox.rooms.tokens import SlidingToken
from matrixbox.store import thread_subscriptions as store
from matrixbox.store.transaction import Tx

routes = RouteTable()

UNSTABLE = "/_matrix/client/unstable"
ONE = f"{UNSTABLE}/io.element.msc4306/rooms/{{room_id}}/thread/{{event_id}}/subscription"
ALL = f"{UNSTABLE}/io.element.msc4308/thread_subscriptions"


@routes.get(ONE, auth=Auth.USER)
async def subscription(call: Call) -> dict[str, Json]:
    """Whether one follows a thread automatically; 404 for one that is not followed."""
    room, root = room_of_event(call), parse.event_id(call.path["event_id"])

    def read(tx: Tx) -> dict[str, Json]:
        return thread_subscriptions.subscription(reader_of(tx, call, room), root)

    found: dict[str, Json] = call.services.store.read(read)
    return found


@routes.put(ONE, auth=Auth.USER, body=BodyKind.JSON_OR_EMPTY)
async def subscribe(call: Call) -> dict[str, Json]:
    """Follow a thread, by decision or because of an event."""
    room, root = room_of_event(call), parse.event_id(call.path["event_id"])
    given = parse.optional_text(await call.json(), "automatic")
    cause = None if given is None else parse.event_id(given)

    def write(tx: Tx) -> None:
        thread_subscriptions.subscribe(reader_of(tx, call, room), root, cause)

    await call.services.store.write(write)
    return {}


@routes.delete(ONE, auth=Auth.USER)
async def unsubscribe(call: Call) -> dict[str, Json]:
    """Follow a thread no longer."""
    room, root = room_of_event(call), parse.event_id(call.path["event_id"])

    def write(tx: Tx) -> None:
        thread_subscriptions.unsubscribe(reader_of(tx, call, room), root)

    await call.services.store.write(write)
    return {}


@routes.get(ALL, auth=Auth.USER)
async def subscriptions(call: Call) -> dict[str, Json]:
    """All changes between two positions, the newest first."""
    parse.query_choice(call.param("dir"), "dir", ("b",))
    start = _position(call.param("from"), 2**62)
    until = _position(call.param("to"), 0)
    most = thread_subscriptions.MAX_LISTED
    limit = min(parse.query_integer(call.param("limit"), "limit", most, 1, most), most)
    user = call.requester.user

    def read(tx: Tx) -> dict[str, Json]:
        found = store.changed(tx, user, until, start, limit + 1)
        answer = thread_subscriptions.listed(tx, found[:limit])
        if len(found) > limit:
            answer["end"] = str(found[limit].pos)
        return answer

    found: dict[str, Json] = call.services.store.read(read)
    return found


def _position(token: str | None, default: int) -> int:
    if token is None:
        return default
    sliding = SlidingToken.parse(token)
    if sliding is not None:
        return sliding.pos
    if not (token.isascii() and token.isdigit() and len(token) <= 16):
        raise InvalidParam("That is no token of this server.")
    return int(token)
