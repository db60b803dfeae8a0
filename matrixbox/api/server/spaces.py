"""Spaces, for other servers.

Matrix v1.19, Server-Server API, "Spaces" ([B13.03], T107).
"""

from __future__ import annotations

from functools import partial

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.api.server import common
from matrixbox.api.server.events import V1
from matrixbox.core.json import Json
from matrixbox.errors import NotFound
from matrixbox.rooms import spaces

routes = RouteTable()


@routes.get(f"{V1}/hierarchy/{{room_id}}", auth=Auth.FEDERATION)
async def hierarchy(call: Call) -> dict[str, Json]:
    """A space and the rooms in it, as far as the server may know of them."""
    suggested_only = parse.query_flag(call.param("suggested_only"), "suggested_only")
    found: dict[str, Json] | None = call.services.store.read(
        partial(spaces.for_server, suggested_only=suggested_only),
        common.room_id(call),
        call.origin,
    )
    if found is None:
        raise NotFound("This server does not know that room, or may not tell of it.")
    return found
