"""Aliases and the list of public rooms.

Matrix v1.19, Client-Server API, "Room aliases", "Published room directory" ([C12.01] to [C12.04]).
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.accounts.throttle import LOOK_UPS, SEARCHES
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.identifiers import RoomAlias, server_of
from matrixbox.core.json import Json
from matrixbox.errors import (
    Forbidden,
    InvalidParam,
    MissingToken,
    NotFound,
    RemoteError,
)
from matrixbox.federation import failing
from matrixbox.federation.queries import AliasTarget
from matrixbox.rooms import directory, public_rooms
from matrixbox.rooms.public_rooms import Search
from matrixbox.store import names, rooms

routes = RouteTable()

_ASKED = ("limit", "since", "filter", "include_all_networks", "third_party_instance_id")

ALIAS = "/_matrix/client/v3/directory/room/{room_alias}"
LISTED = "/_matrix/client/v3/directory/list/room/{room_id}"


@routes.get(ALIAS, auth=Auth.NONE)
async def resolve(call: Call) -> dict[str, Json]:
    """The room behind an alias, of this server or another one."""
    found = await resolved(call, parse.room_alias(call.path["room_alias"]))
    return {"room_id": found.room_id, "servers": [*found.servers]}


async def resolved(call: Call, alias: RoomAlias) -> AliasTarget:
    """The room behind an alias; raises NotFound, and what becomes of RemoteErrors."""
    services, server = call.services, server_of(alias)
    if server == services.env.server_name:
        room_id, servers = services.store.read(directory.resolve_alias, alias)
        return AliasTarget(room_id, tuple(servers))
    services.throttle.take(LOOK_UPS, call.address)
    try:
        found: AliasTarget = await services.federation.queries.alias(alias)
    except RemoteError as error:
        raise failing.for_client(error) from error
    # The alias' server knows the room, or knows who does.
    return AliasTarget(found.room_id, tuple(dict.fromkeys((*found.servers, server))))


@routes.put(ALIAS, auth=Auth.USER)
async def add(call: Call) -> dict[str, Json]:
    """Point an alias to a room."""
    room_id = parse.room_id(parse.text(await call.json(), "room_id"))
    alias = parse.room_alias(call.path["room_alias"])
    await call.services.write(directory.add_alias, call.requester, alias, room_id)
    return {}


@routes.delete(ALIAS, auth=Auth.USER)
async def remove(call: Call) -> dict[str, Json]:
    """Forget an alias."""
    alias = parse.room_alias(call.path["room_alias"])
    await call.services.write(directory.remove_alias, call.requester, alias)
    return {}


@routes.get(LISTED, auth=Auth.NONE)
async def is_listed(call: Call) -> dict[str, Json]:
    """Whether the directory lists a room."""
    store = call.services.store
    room = store.read(names.room_nid, parse.room_id(call.path["room_id"]))
    if room is None:
        raise NotFound("This server does not know that room.")
    return {"visibility": "public" if store.read(rooms.is_published, room) else "private"}


@routes.put(LISTED, auth=Auth.USER)
async def list_room(call: Call) -> dict[str, Json]:
    """List a room, or take it out."""
    body = await call.json()
    visibility = parse.optional_text(body, "visibility") or "public"
    if visibility not in ("public", "private"):
        raise InvalidParam("`visibility` is public or private.")
    room_id = parse.room_id(call.path["room_id"])
    published = int(visibility == "public")
    if published and call.services.settings.rooms.publish == "nobody":
        raise Forbidden("This server publishes no rooms.")
    await call.services.write(directory.set_published, call.requester, room_id, published)
    return {}


@routes.get("/_matrix/client/v3/publicRooms", auth=Auth.OPTIONAL)
async def public(call: Call) -> dict[str, Json]:
    """The public rooms."""
    limit = parse.query_integer(call.param("limit"), "limit", 100, 0, public_rooms.MAX_LIMIT)
    since = call.param("since")
    if _is_elsewhere(call):
        return await _ask(call, {"limit": limit} | ({} if since is None else {"since": since}))
    return await _search(call, Search(limit=limit or public_rooms.MAX_LIMIT, since=since))


@routes.post("/_matrix/client/v3/publicRooms", auth=Auth.USER)
async def search(call: Call) -> dict[str, Json]:
    """Those that fit."""
    body = await call.json()
    wanted = parse.room_search(body, default=100)
    return await _ask(call, body) if _is_elsewhere(call) else await _search(call, wanted)


def _is_elsewhere(call: Call) -> bool:
    """Whether the directory of another server is asked for; raises MissingToken, too."""
    services, server = call.services, call.param("server")
    if server in (None, services.env.server_name):
        if call.requester is None and not services.settings.rooms.directory_without_login:
            raise MissingToken
        return False
    if call.requester is None:
        raise MissingToken  # strangers don't make us ask others
    return True


async def _search(call: Call, wanted: Search) -> dict[str, Json]:
    found: dict[str, Json] = await call.services.store.read_long(public_rooms.find, wanted)
    return found


async def _ask(call: Call, body: Mapping[str, Json]) -> dict[str, Json]:
    """A page of another server's directory ([C12.02])."""
    server = parse.server_name(call.param("server") or "")
    asked = {key: body[key] for key in _ASKED if body.get(key) is not None}
    call.services.throttle.take(SEARCHES, call.requester.user_id)
    try:
        found: dict[str, Json] = await call.services.federation.queries.public_rooms(server, asked)
    except RemoteError as error:
        raise failing.for_client(error) from error
    return found
