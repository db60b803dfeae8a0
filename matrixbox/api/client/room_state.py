"""The state of a room and its members.

Matrix v1.19, Client-Server API, "Getting events for a room", "Sending events to a room" ([C9.06],
[C9.07], [C10.02]).
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.call import Call
from matrixbox.api.client.delayed import delay_of, delay_state
from matrixbox.api.client.places import known_room
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.identifiers import UserId, server_of
from matrixbox.core.json import Json, encode
from matrixbox.rooms import partial, sending, state_reading
from matrixbox.rooms.reading import Reader
from matrixbox.rooms.state import CurrentState
from matrixbox.rooms.tokens import Place
from matrixbox.store.caches import StoredEvent
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

routes = RouteTable()

ROOM = "/_matrix/client/v3/rooms/{room_id}"
MEMBER = "m.room.member"
MEMBERS_S = 60.0
MEMBERSHIPS = ("join", "invite", "knock", "leave", "ban")


async def whole_room(call: Call) -> RoomNid:
    """The room of the path once its members are known, or as it is after a minute ([B8.05])."""
    room = known_room(call)
    completions = call.services.federation.joins.completions
    if call.services.store.read(partial.is_partial, room):
        async with call.waiting(MEMBERS_S):
            await completions.wait(room, MEMBERS_S)
    return room


def reader_of(tx: Tx, call: Call, room: RoomNid) -> Reader:
    """The caller, looking into a room."""
    who = call.requester
    now_ms = call.services.env.clock.now_ms()
    return Reader(tx, room, who.user, now_ms, who.device)


@routes.get(f"{ROOM}/state", auth=Auth.USER, guest_ok=True)
async def whole_state(call: Call) -> Response:
    """The current state, or that at the time of leaving."""
    room = known_room(call)

    def read(tx: Tx) -> bytes:
        return encode(state_reading.whole(reader_of(tx, call, room)))

    return Response(body=call.services.store.read(read), headers=JSON_HEADERS)


async def _get_state(call: Call, state_key: str) -> Response:
    room = known_room(call)
    kind = call.path["event_type"]
    wanted = parse.query_choice(call.param("format"), "format", ("content", "event"))

    def read(tx: Tx) -> bytes:
        reader = reader_of(tx, call, room)
        return state_reading.one(reader, (kind, state_key), whole_event=wanted == "event")

    return Response(body=call.services.store.read(read), headers=JSON_HEADERS)


@routes.get(f"{ROOM}/state/{{event_type}}/{{state_key}}", auth=Auth.USER, guest_ok=True)
async def state_with_key(call: Call) -> Response:
    """One entry of the state."""
    return await _get_state(call, call.path["state_key"])


@routes.get(f"{ROOM}/state/{{event_type}}/?", auth=Auth.USER, guest_ok=True)
async def state_without_key(call: Call) -> Response:
    """The entry with the empty key."""
    return await _get_state(call, "")


async def _invite(
    call: Call, room: RoomNid, state_key: str, content: dict[str, Json]
) -> StoredEvent | None:
    """Invite a user of another server; None for one of ours."""
    services = call.services
    target = parse.user_id(state_key)
    if server_of(target) == services.env.server_name:
        return None
    extra = {key: value for key, value in content.items() if key != "membership"}
    memberships = services.federation.memberships
    found: StoredEvent | None = await memberships.invite(call.requester, room, target, extra)
    return found or services.store.read(_standing, room, target)


def _standing(tx: Tx, room: RoomNid, target: UserId) -> StoredEvent | None:
    return CurrentState(tx, room).stored((MEMBER, target))


async def _put_state(call: Call, state_key: str) -> dict[str, Json]:
    if (delay_ms := delay_of(call)) is not None:
        return await delay_state(call, delay_ms, state_key)
    content = await call.json()
    room = known_room(call)
    kind = call.path["event_type"]
    if kind == MEMBER and content.get("membership") == "invite":
        found = await _invite(call, room, state_key, content)
        if found is not None:
            return {"event_id": found.event.event_id}
    stored = await call.services.write(
        sending.send_state, call.requester, room, kind, state_key, content
    )
    return {"event_id": stored.event.event_id}


@routes.put(f"{ROOM}/state/{{event_type}}/{{state_key}}", auth=Auth.USER, guest_ok=True)
async def put_state_with_key(call: Call) -> dict[str, Json]:
    """Set one entry of the state."""
    return await _put_state(call, call.path["state_key"])


@routes.put(f"{ROOM}/state/{{event_type}}/?", auth=Auth.USER, guest_ok=True)
async def put_state_without_key(call: Call) -> dict[str, Json]:
    """Set the entry with the empty key."""
    return await _put_state(call, "")


@routes.get(f"{ROOM}/members", auth=Auth.USER, guest_ok=True)
async def members_of_room(call: Call) -> Response:
    """The membership events, now or at a point, of some kinds or all."""
    room = await whole_room(call)
    wanted = parse.query_choice(call.param("membership"), "membership", MEMBERSHIPS)
    unwanted = parse.query_choice(call.param("not_membership"), "not_membership", MEMBERSHIPS)
    at = call.param("at")
    place = None if at is None else Place.parse(at)

    def read(tx: Tx) -> bytes:
        reader = reader_of(tx, call, room)
        return encode({"chunk": state_reading.members_at(reader, place, wanted, unwanted)})

    return Response(body=call.services.store.read(read), headers=JSON_HEADERS)


@routes.get(f"{ROOM}/joined_members", auth=Auth.USER)
async def joined_members(call: Call) -> dict[str, Json]:
    """Who is in the room, with names and pictures."""
    room = await whole_room(call)

    def read(tx: Tx) -> dict[str, Json]:
        return state_reading.joined(reader_of(tx, call, room))

    return {"joined": call.services.store.read(read)}
