"""Joins, leaves, knocks and invitations that other servers ask for.

Matrix v1.19, Server-Server API, "Joining Rooms", "Knocking upon a room", "Inviting to a room",
"Leaving Rooms", "Third-party invites" ([B8.01] to [B10.03]; T030, T031, T034, T035).  Our
signature is put only on events whose every field was checked, and given away only when the room
has taken them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.bounds import BODY_FEDERATION_MEMBERSHIP
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.api.server import common
from matrixbox.core.events import Event, parse_event
from matrixbox.core.json import Json, encode
from matrixbox.core.room_versions import RoomRules
from matrixbox.core.signing import sign_redacted
from matrixbox.errors import InvalidParam, MissingParam, Unknown
from matrixbox.rooms import handshake, join_answer, stripped
from matrixbox.rooms.env import Env
from matrixbox.rooms.handshake import Submission, Wish
from matrixbox.rooms.join_answer import JoinAnswer
from matrixbox.rooms.remote import Signed
from matrixbox.rooms.residence import whole_room
from matrixbox.store import chains, rooms
from matrixbox.store.caches import StoredEvent
from matrixbox.store.database import Store
from matrixbox.store.nids import EventNid
from matrixbox.store.transaction import Tx

routes = RouteTable()

V1 = "/_matrix/federation/v1"
V2 = "/_matrix/federation/v2"
PIECE = 100  # events read at once


# --- templates


@routes.get(f"{V1}/make_join/{{room_id}}/{{user_id}}", auth=Auth.FEDERATION)
async def make_join(call: Call) -> dict[str, Json]:
    """What a join of a user of the asking server would look like."""
    return _template(call, "join", call.query.get("ver") or ["1"])


@routes.get(f"{V1}/make_knock/{{room_id}}/{{user_id}}", auth=Auth.FEDERATION)
async def make_knock(call: Call) -> dict[str, Json]:
    """What a knock would look like."""
    versions = call.query.get("ver")
    if not versions:
        raise MissingParam("`ver` is missing.")
    return _template(call, "knock", versions)


@routes.get(f"{V1}/make_leave/{{room_id}}/{{user_id}}", auth=Auth.FEDERATION)
async def make_leave(call: Call) -> dict[str, Json]:
    """What a refusal of an invitation, or the end of a knock, would look like."""
    return _template(call, "leave", None)


def _template(call: Call, membership: str, versions: Sequence[str] | None) -> dict[str, Json]:
    wish = Wish(call.origin, common.room_id(call), parse.user_id(call.path["user_id"]), membership)
    services = call.services
    made = services.store.read(handshake.template, services.env, wish, versions)
    return {"room_version": made.rules.version, "event": made.pdu}


# --- what comes back


@routes.put(
    f"{V2}/send_join/{{room_id}}/{{event_id}}",
    auth=Auth.FEDERATION,
    body_limit=BODY_FEDERATION_MEMBERSHIP,
)
async def send_join(call: Call) -> Response:
    """Let a user in, and tell the server about the room."""
    return Response(body=await _join(call), headers=JSON_HEADERS)


@routes.put(
    f"{V1}/send_join/{{room_id}}/{{event_id}}",
    auth=Auth.FEDERATION,
    body_limit=BODY_FEDERATION_MEMBERSHIP,
)
async def send_join_v1(call: Call) -> Response:
    """The same for old servers."""
    return Response(body=_in_a_pair(await _join(call)), headers=JSON_HEADERS)


async def _join(call: Call) -> AsyncIterator[bytes]:
    omit_members = parse.query_flag(call.param("omit_members"), "omit_members")
    stored = await _accepted(call, "join")
    store = call.services.store
    answer = await store.read_long(_answer, stored.nid, omit_members)
    return _pieces(store, answer)


def _answer(tx: Tx, nid: EventNid, omit_members: bool) -> JoinAnswer:
    return join_answer.answer(tx, nid, omit_members=omit_members)


async def _pieces(store: Store, answer: JoinAnswer) -> AsyncIterator[bytes]:
    head: dict[str, Json] = {
        "event": answer.join.json,
        "members_omitted": answer.servers is not None,
    }
    if answer.servers is not None:
        head["servers_in_room"] = [*answer.servers]
    opening = encode(head)[:-1] + b","
    for name, nids in (("state", answer.state), ("auth_chain", answer.auth_chain)):
        yield opening + b'"%b":[' % name.encode()
        for start in range(0, len(nids), PIECE):
            piece = store.read(_pdus, nids[start : start + PIECE])
            yield (b"," if start else b"") + piece
        opening = b"],"
    yield b"]}"


def _pdus(tx: Tx, nids: Sequence[EventNid]) -> bytes:
    return b",".join(chains.pdus(tx, nids))


async def _in_a_pair(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b"[200,"
    async for piece in pieces:
        yield piece
    yield b"]"


@routes.put(
    f"{V2}/send_leave/{{room_id}}/{{event_id}}",
    auth=Auth.FEDERATION,
    body_limit=BODY_FEDERATION_MEMBERSHIP,
)
async def send_leave(call: Call) -> dict[str, Json]:
    """An invitation is refused, or a knock taken back."""
    await _accepted(call, "leave")
    return {}


@routes.put(
    f"{V1}/send_leave/{{room_id}}/{{event_id}}",
    auth=Auth.FEDERATION,
    body_limit=BODY_FEDERATION_MEMBERSHIP,
)
async def send_leave_v1(call: Call) -> Response:
    """The same for old servers."""
    await _accepted(call, "leave")
    return Response(body=b"[200,{}]", headers=JSON_HEADERS)


@routes.put(
    f"{V1}/send_knock/{{room_id}}/{{event_id}}",
    auth=Auth.FEDERATION,
    body_limit=BODY_FEDERATION_MEMBERSHIP,
)
async def send_knock(call: Call) -> dict[str, Json]:
    """A user knocks; what may be known of the room."""
    stored = await _accepted(call, "knock")
    shown = call.services.store.read(handshake.stripped_events, stored.room, stripped.SHOWN)
    return {"knock_room_state": shown}


async def _accepted(call: Call, membership: str) -> StoredEvent:
    """The event of the body, once it is in the room."""
    services = call.services
    room_id = common.room_id(call)
    event_id = parse.event_id(call.path["event_id"])
    rules = services.store.read(_rules_for, services.env, call)
    submitted = Submission(call.origin, room_id, event_id, membership)
    event = handshake.read_event(rules, await call.json(), submitted)
    event = await _checked(call, event)
    stored: StoredEvent = await services.write(handshake.accept, event)
    return stored


def _rules_for(tx: Tx, env: Env, call: Call) -> RoomRules:
    room = whole_room(tx, env, common.room_id(call))
    common.require_allowed(tx, room, call.origin)
    return rooms.rules(tx, room)


async def _checked(call: Call, event: Event) -> Event:
    """The event with all signatures that it needs, ours among them where a user of ours vouches."""
    services = call.services
    if handshake.needs_our_signature(services.env, event):
        services.store.read(handshake.check_voucher, services.env, event)
        env = services.env
        signed = sign_redacted(event.rules, event.json, env.server_name, env.key)
        event = parse_event(event.rules, signed)
    await require_signed(call, event)
    return event


async def require_signed(call: Call, event: Event) -> None:
    """Raise InvalidParam unless everybody has signed an event who must."""
    keyring = call.services.federation.keyring
    (verdict,) = await keyring.verify(event.rules, [event.json])
    if verdict is Signed.UNKNOWN:
        raise Unknown("The keys of a server that signed the event could not be had.")
    if verdict is not Signed.VALID:
        raise InvalidParam("The event is not signed as it must be.")
