"""Joining, inviting, leaving, kicking, banning, knocking, forgetting.

Matrix v1.19, Client-Server API, "Room membership" ([C11.01] to [C11.06]).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from matrixbox.accounts.throttle import INVITES, JOINS
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.places import known_room
from matrixbox.api.client.room_state import whole_room
from matrixbox.api.routes import Auth, BodyKind, RouteTable
from matrixbox.core.identifiers import RoomId, ServerName, UserId, server_of
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden, RemoteError
from matrixbox.federation import failing
from matrixbox.federation.joins import Wanted
from matrixbox.rooms import directory, guests, membership
from matrixbox.store.caches import StoredEvent
from matrixbox.store.nids import RoomNid

routes = RouteTable()

OPTIONAL_BODY = BodyKind.JSON_OR_EMPTY


def _with_reason(body: parse.Body) -> dict[str, Json]:
    reason = parse.optional_text(body, "reason")
    return {} if reason is None else {"reason": reason}


def _target(body: parse.Body) -> UserId:
    return parse.user_id(parse.text(body, "user_id"))


MAX_VIA = 20
SET_BY_THE_SERVER = frozenset(
    ("membership", "third_party_signed", "third_party_invite", "join_authorised_via_users_server")
)


@frozen
class Place:
    """A room, and servers that may know it."""

    room_id: RoomId
    via: tuple[ServerName, ...] = ()


def _join_content(body: parse.Body) -> dict[str, Json]:
    """What a client says with its join: the reason, and all that is not the server's to say."""
    _with_reason(body)
    return {key: value for key, value in body.items() if key not in SET_BY_THE_SERVER}


async def _join(call: Call, place: Place) -> dict[str, Json]:
    content = _join_content(await call.json())
    services = call.services
    if call.requester.guest:
        services.store.read(guests.require_open_here, services.env, place.room_id)
    services.throttle.take(JOINS, call.requester.user_id)
    wanted = Wanted(call.requester, place.room_id, place.via, content)
    await services.federation.joins.join(wanted)
    return {"room_id": place.room_id}


@routes.post(
    "/_matrix/client/v3/rooms/{room_id}/join", auth=Auth.USER, guest_ok=True, body=OPTIONAL_BODY
)
async def join_by_id(call: Call) -> dict[str, Json]:
    """Join a room by its id."""
    return await _join(call, Place(parse.room_id(call.path["room_id"])))


@routes.post(
    "/_matrix/client/v3/join/{room_id_or_alias}",
    auth=Auth.USER,
    guest_ok=True,
    body=OPTIONAL_BODY,
)
async def join(call: Call) -> dict[str, Json]:
    """Join a room by its id or an alias."""
    return await _join(call, await _named_room(call))


async def _named_room(call: Call) -> Place:
    """The room of the path, with the servers that the client or the alias names ([C11.01])."""
    named = call.path["room_id_or_alias"]
    given = [*call.query.get("via", ()), *call.query.get("server_name", ())]
    via = tuple(parse.server_name(name) for name in given[:MAX_VIA])
    if not named.startswith("#"):
        return Place(parse.room_id(named), via)
    alias = parse.room_alias(named)
    services = call.services
    if server_of(alias) == services.env.server_name:
        room_id, servers = services.store.read(directory.resolve_alias, alias)
        return Place(room_id, (*via, *servers))
    try:
        found = await services.federation.queries.alias(alias)
    except RemoteError as error:
        raise failing.for_client(error) from error
    return Place(found.room_id, (*via, server_of(alias), *found.servers))


@routes.post("/_matrix/client/v3/knock/{room_id_or_alias}", auth=Auth.USER, body=OPTIONAL_BODY)
async def knock(call: Call) -> dict[str, Json]:
    """Ask to be let in."""
    place = await _named_room(call)
    content = _with_reason(await call.json())
    call.services.throttle.take(JOINS, call.requester.user_id)
    wanted = Wanted(call.requester, place.room_id, place.via, content)
    await call.services.federation.memberships.knock(wanted)
    return {"room_id": place.room_id}


@routes.post("/_matrix/client/v3/rooms/{room_id}/invite", auth=Auth.USER)
async def invite(call: Call) -> dict[str, Json]:
    """Invite a user."""
    body = await call.json()
    if "medium" in body:
        raise Forbidden("This server cannot invite by e-mail or telephone number.")
    call.services.throttle.take(INVITES, call.requester.user_id)
    await send_invite(call, known_room(call), _target(body), _with_reason(body))
    return {}


async def send_invite(
    call: Call, room: RoomNid, target: UserId, content: dict[str, Json]
) -> StoredEvent | None:
    """Invite somebody, at home here or elsewhere; None where an invitation stands already."""
    services = call.services
    found: StoredEvent | None
    if server_of(target) == services.env.server_name:
        found = await services.write(membership.invite, call.requester, room, target, content)
    else:
        memberships = services.federation.memberships
        found = await memberships.invite(call.requester, room, target, content)
    return found


async def _upon(call: Call, function: Callable[..., Any], body: parse.Body) -> None:
    room: RoomNid = await whole_room(call)
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
    room, room_id = known_room(call), parse.room_id(call.path["room_id"])
    if not await call.services.federation.memberships.leave(call.requester, room_id, reason):
        await call.services.write(membership.leave, call.requester, room, reason)
    return {}


@routes.post("/_matrix/client/v3/rooms/{room_id}/forget", auth=Auth.USER, body=BodyKind.NONE)
async def forget(call: Call) -> dict[str, Json]:
    """Hide a room that was left."""
    room_id = parse.room_id(call.path["room_id"])
    await call.services.write(membership.forget, call.requester, room_id)
    return {}
