"""Aliases and the list of public rooms.

Matrix v1.19, Client-Server API, "Room aliases", "Published room directory" ([C12.01] to [C12.04]).
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import BadJson, Forbidden, InvalidParam, MissingToken, NotFound
from matrixbox.rooms import directory, public_rooms
from matrixbox.rooms.public_rooms import Search
from matrixbox.store import names, rooms

routes = RouteTable()

ALIAS = "/_matrix/client/v3/directory/room/{room_alias}"
LISTED = "/_matrix/client/v3/directory/list/room/{room_id}"


@routes.get(ALIAS, auth=Auth.NONE)
async def resolve(call: Call) -> dict[str, Json]:
    """The room behind an alias."""
    alias = parse.room_alias(call.path["room_alias"])
    room_id, servers = call.services.store.read(directory.resolve_alias, alias)
    return {"room_id": room_id, "servers": [*servers]}


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
    limit = parse.query_integer(call.param("limit"), "limit", 100, 0, 1000)
    return _search(call, Search(limit=limit, since=call.param("since")))


@routes.post("/_matrix/client/v3/publicRooms", auth=Auth.USER)
async def search(call: Call) -> dict[str, Json]:
    """Those that fit."""
    body = await call.json()
    wanted = parse.optional_object(body, "filter") or {}
    limit = parse.optional_integer(body, "limit")
    types = parse.optional_list(wanted, "room_types")
    if not all(kind is None or isinstance(kind, str) for kind in types):
        raise BadJson("`room_types` holds strings and null.")
    return _search(
        call,
        Search(
            limit=100 if limit is None else max(0, min(limit, 1000)),
            since=parse.optional_text(body, "since"),
            term=parse.optional_text(wanted, "generic_search_term"),
            room_types=None if wanted.get("room_types") is None else tuple(types),
        ),
    )


def _search(call: Call, wanted: Search) -> dict[str, Json]:
    services = call.services
    if call.requester is None and not services.settings.rooms.directory_without_login:
        raise MissingToken
    server = call.param("server")
    if server is not None and server != services.env.server_name:
        raise NotFound("This server cannot ask other servers yet.")
    return services.store.read(public_rooms.find, wanted)  # type: ignore[no-any-return]
