"""Joining, inviting, leaving, kicking, banning, knocking, forgetting.

Matrix v1.19, Client-Server API, "Room membership" ([C11.01] to [C11.06]).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matrixbox.accounts.throttle import INVITES, JOINS
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.room_state import known_room
from matrixbox.api.routes import Auth, BodyKind, RouteTable
from matrixbox.core.identifiers import RoomId, UserId
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden
from matrixbox.rooms import directory, membership
from matrixbox.store.nids import RoomNid

routes = RouteTable()

OPTIONAL_BODY = BodyKind.JSON_OR_EMPTY


def _with_reason(body: parse.Body) -> dict[str, Json]:
    reason = parse.optional_text(body, "reason")
    return {} if reason is None else {"reason": reason}


def _target(body: parse.Body) -> UserId:
    return parse.user_id(parse.text(body, "user_id"))


async def _join(call: Call, room_id: RoomId) -> dict[str, Json]:
    body = await call.json()
    call.services.throttle.take(JOINS, call.requester.user_id)
    room = call.services.store.read(membership.resident_room, room_id)
    await call.services.write(membership.join, call.requester, room, _with_reason(body))
    return {"room_id": room_id}


@routes.post(
    "/_matrix/client/v3/rooms/{room_id}/join", auth=Auth.USER, guest_ok=True, body=OPTIONAL_BODY
)
async def join_by_id(call: Call) -> dict[str, Json]:
    """Join a room by its id."""
    return await _join(call, parse.room_id(call.path["room_id"]))


@routes.post(
    "/_matrix/client/v3/join/{room_id_or_alias}",
    auth=Auth.USER,
    guest_ok=True,
    body=OPTIONAL_BODY,
)
async def join(call: Call) -> dict[str, Json]:
    """Join a room by its id or an alias."""
    return await _join(call, _named_room(call))


def _named_room(call: Call) -> RoomId:
    named = call.path["room_id_or_alias"]
    if named.startswith("#"):
        alias = parse.room_alias(named)
        found: RoomId = call.services.store.read(directory.resolve_alias, alias)[0]
        return found
    return parse.room_id(named)


@routes.post("/_matrix/client/v3/knock/{room_id_or_alias}", auth=Auth.USER, body=OPTIONAL_BODY)
async def knock(call: Call) -> dict[str, Json]:
    """Ask to be let in."""
    room_id = _named_room(call)
    reason = _with_reason(await call.json())
    call.services.throttle.take(JOINS, call.requester.user_id)
    room = call.services.store.read(membership.resident_room, room_id)
    await call.services.write(membership.knock, call.requester, room, reason)
    return {"room_id": room_id}


@routes.post("/_matrix/client/v3/rooms/{room_id}/invite", auth=Auth.USER)
async def invite(call: Call) -> dict[str, Json]:
    """Invite a user."""
    body = await call.json()
    if "medium" in body:
        raise Forbidden("This server cannot invite by e-mail or telephone number.")
    call.services.throttle.take(INVITES, call.requester.user_id)
    await _upon(call, membership.invite, body)
    return {}


async def _upon(call: Call, function: Callable[..., Any], body: parse.Body) -> None:
    room: RoomNid = known_room(call)
    target = _target(body)
    await call.services.write(function, call.requester, room, target, _with_reason(body))


@routes.post("/_matrix/client/v3/rooms/{room_id}/kick", auth=Auth.USER)
async def kick(call: Call) -> dict[str, Json]:
    """Make somebody leave."""
    await _upon(call, membership.kick, await call.json())
    return {}


@routes.post("/_matrix/client/v3/rooms/{room_id}/ban", auth=Auth.USER)
async def ban(call: Call) -> dict[str, Json]:
    """Keep somebody out."""
    await _upon(call, membership.ban, await call.json())
    return {}


@routes.post("/_matrix/client/v3/rooms/{room_id}/unban", auth=Auth.USER)
async def unban(call: Call) -> dict[str, Json]:
    """End a ban."""
    await _upon(call, membership.unban, await call.json())
    return {}


@routes.post(
    "/_matrix/client/v3/rooms/{room_id}/leave", auth=Auth.USER, guest_ok=True, body=OPTIONAL_BODY
)
async def leave(call: Call) -> dict[str, Json]:
    """Leave, refuse an invitation, take back a knock."""
    reason = _with_reason(await call.json())
    await call.services.write(membership.leave, call.requester, known_room(call), reason)
    return {}


@routes.post("/_matrix/client/v3/rooms/{room_id}/forget", auth=Auth.USER, body=BodyKind.NONE)
async def forget(call: Call) -> dict[str, Json]:
    """Hide a room that was left."""
    room_id = parse.room_id(call.path["room_id"])
    await call.services.write(membership.forget, call.requester, room_id)
    return {}
