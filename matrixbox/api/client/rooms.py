"""Making, upgrading and listing rooms.

Matrix v1.19, Client-Server API, "Room creation", "Room upgrades" ([A7.01] to [A7.11], [C9.09]).
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.accounts.throttle import ROOM_CREATIONS
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.places import known_room
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.identifiers import InvalidIdentifier, UserId, parse_room_alias, server_of
from matrixbox.core.json import Json
from matrixbox.errors import BadJson, Forbidden, InvalidParam, UnsupportedRoomVersion
from matrixbox.rooms import create, directory, upgrade
from matrixbox.rooms.create import PRESETS, RoomRequest, StateDraft
from matrixbox.store import members, names

routes = RouteTable()


@routes.post("/_matrix/client/v3/createRoom", auth=Auth.USER)
async def create_room(call: Call) -> dict[str, Json]:
    """Make a room."""
    request = parse_request(call, await call.json())
    call.services.throttle.take(ROOM_CREATIONS, call.requester.user_id)
    services = call.services
    room_id = await services.write(create.create_room, call.requester, request)
    extra: dict[str, Json] = {"is_direct": True} if request.is_direct else {}
    room = services.store.read(names.room_nid, room_id)
    for invitee in request.invites:
        if server_of(invitee) != services.env.server_name:
            await services.federation.memberships.invite(call.requester, room, invitee, extra)
    return {"room_id": room_id}


def parse_request(call: Call, body: parse.Body) -> RoomRequest:
    """Read the body of ``createRoom``."""
    visibility = parse.optional_text(body, "visibility") or "private"
    if visibility not in ("public", "private"):
        raise InvalidParam("`visibility` is public or private.")
    preset = parse.optional_text(body, "preset") or f"{visibility}_chat"
    if preset not in PRESETS:
        raise InvalidParam(f"`preset` is one of {', '.join(PRESETS)}.")
    version = parse.optional_text(body, "room_version")
    if "room_version" in body and version is None:
        raise UnsupportedRoomVersion("`room_version` is a string.")
    if parse.optional_list(body, "invite_3pid"):
        raise Forbidden("This server cannot invite by e-mail or telephone number.")
    published = visibility == "public"
    if published and not _may_publish(call):
        raise Forbidden("You may not publish rooms on this server.")
    return RoomRequest(
        version=call.services.env.default_version if version is None else version,
        preset=preset,
        published=published,
        name=parse.optional_text(body, "name"),
        topic=parse.optional_text(body, "topic"),
        alias=_alias(call, parse.optional_text(body, "room_alias_name")),
        invites=tuple(parse.user_id(user) for user in parse.texts(body, "invite")),
        is_direct=parse.flag(body, "is_direct"),
        initial_state=tuple(_state(entry) for entry in parse.optional_list(body, "initial_state")),
        creation_content=parse.optional_object(body, "creation_content") or {},
        power_levels=parse.optional_object(body, "power_level_content_override") or {},
    )


def _may_publish(call: Call) -> bool:
    publish: str = call.services.settings.rooms.publish
    return publish == "anyone" or (publish == "admins" and bool(call.requester.admin))


def _alias(call: Call, localpart: str | None) -> str | None:
    if localpart is None:
        return None
    try:
        if not localpart or ":" in localpart:
            raise InvalidIdentifier(localpart)
        return parse_room_alias(f"#{localpart}:{call.services.env.server_name}")
    except InvalidIdentifier as error:
        raise InvalidParam("`room_alias_name` cannot be the name of an alias.") from error


def _state(entry: Json) -> StateDraft:
    if not isinstance(entry, Mapping):
        raise BadJson("An entry of `initial_state` is an object.")
    content = parse.optional_object(entry, "content")
    if content is None:
        raise BadJson("An entry of `initial_state` has `content`.")
    state_key = parse.optional_text(entry, "state_key") or ""
    return StateDraft(parse.text(entry, "type"), state_key, content)


@routes.post("/_matrix/client/v3/rooms/{room_id}/upgrade", auth=Auth.USER)
async def upgrade_room(call: Call) -> dict[str, Json]:
    """Replace a room by one of another version."""
    body = await call.json()
    version = parse.text(body, "new_version")
    creators = tuple(
        UserId(parse.user_id(user)) for user in parse.texts(body, "additional_creators")
    )
    room = known_room(call)
    new = await call.services.write(upgrade.upgrade, call.requester, room, version, creators)
    return {"replacement_room": new}


@routes.get("/_matrix/client/v3/joined_rooms", auth=Auth.USER)
async def joined_rooms(call: Call) -> dict[str, Json]:
    """The rooms that the caller is in."""
    found: list[Json] = [*call.services.store.read(members.joined_rooms, call.requester.user)]
    return {"joined_rooms": found}


@routes.get("/_matrix/client/v3/rooms/{room_id}/aliases", auth=Auth.USER)
async def aliases(call: Call) -> dict[str, Json]:
    """The room's aliases on this server: for its members."""
    room = known_room(call)
    found: list[Json] = [*call.services.store.read(directory.aliases_for, call.requester, room)]
    return {"aliases": found}
