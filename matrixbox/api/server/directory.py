"""Our aliases and our list of published rooms, for other servers.

Matrix v1.19, Server-Server API, "Querying for information", "Published room directory" ([B13.01],
[B13.02], T107).  The list is closed unless the household opens it.
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.api.server.events import V1
from matrixbox.core.identifiers import server_of
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden, MissingParam, NotFound
from matrixbox.rooms import directory, public_rooms
from matrixbox.rooms.public_rooms import MAX_LIMIT, Search

routes = RouteTable()


@routes.get(f"{V1}/query/directory", auth=Auth.FEDERATION)
async def alias(call: Call) -> dict[str, Json]:
    """The room behind one of our aliases, and servers that are in it."""
    given = call.param("room_alias")
    if given is None:
        raise MissingParam("`room_alias` is missing.")
    wanted = parse.room_alias(given)
    if server_of(wanted) != call.services.env.server_name:
        raise NotFound("That alias is not one of this server.")
    room_id, servers = call.services.store.read(directory.resolve_alias, wanted)
    return {"room_id": room_id, "servers": [*servers]}


@routes.get(f"{V1}/publicRooms", auth=Auth.FEDERATION)
async def public(call: Call) -> dict[str, Json]:
    """The published rooms."""
    limit = parse.query_integer(call.param("limit"), "limit", 0, 0, MAX_LIMIT)
    return await _search(call, Search(limit=limit or MAX_LIMIT, since=call.param("since")))


@routes.post(f"{V1}/publicRooms", auth=Auth.FEDERATION)
async def search(call: Call) -> dict[str, Json]:
    """Those that fit."""
    return await _search(call, parse.room_search(await call.json(), default=0))


async def _search(call: Call, wanted: Search) -> dict[str, Json]:
    services = call.services
    if not services.settings.rooms.directory_over_federation:
        raise Forbidden("This server does not show its list of rooms to other servers.")
    found: dict[str, Json] = await services.store.read_long(public_rooms.find, wanted)
    return found
