"""Spaces and summaries of rooms.

Matrix v1.19, Client-Server API, "Spaces", "Room summaries" ([C12.05] to [C12.09], T107).
"""

from __future__ import annotations

from matrixbox.accounts.throttle import LOOK_UPS, SEARCHES
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.directory import resolved
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import NotFound
from matrixbox.federation.spaces import MAX_DEPTH, MAX_LIMIT

routes = RouteTable()

NHEKO = "im.nheko.summary"
"""The name of summaries before their release (MSC3266)."""


@routes.get("/_matrix/client/v1/rooms/{room_id}/hierarchy", auth=Auth.USER)
async def hierarchy(call: Call) -> dict[str, Json]:
    """The rooms in a space, and in the spaces in it."""
    room_id = parse.room_id(call.path["room_id"])
    limit = parse.query_integer(call.param("limit"), "limit", MAX_LIMIT, 1, MAX_LIMIT)
    max_depth = parse.query_integer(call.param("max_depth"), "max_depth", MAX_DEPTH, 0, MAX_DEPTH)
    suggested_only = parse.query_flag(call.param("suggested_only"), "suggested_only")
    services, who = call.services, call.requester
    services.throttle.take(SEARCHES, who.user_id)
    spaces = services.federation.spaces
    walk = spaces.begin(
        who.user,
        room_id,
        call.query.get("via", []),
        suggested_only=suggested_only,
        max_depth=max_depth,
    )
    token = call.param("from")
    if token is not None:
        walk = spaces.resume(token, walk)
    page = await spaces.page(walk, limit)
    return {"rooms": page.rooms} | (
        {} if page.next_batch is None else {"next_batch": page.next_batch}
    )


@routes.get("/_matrix/client/v1/room_summary/{room_id_or_alias}", auth=Auth.OPTIONAL)
async def summary(call: Call) -> dict[str, Json]:
    """What may be known of a room before joining it; strangers are told of rooms of ours only."""
    named, via = call.path["room_id_or_alias"], [*call.query.get("via", [])]
    services, who = call.services, call.requester
    if who is None:
        services.throttle.take(LOOK_UPS, call.address)
    else:
        services.throttle.take(SEARCHES, who.user_id)
    if named.startswith("#"):
        alias = parse.room_alias(named)
        if who is None and not alias.endswith(f":{services.env.server_name}"):
            raise NotFound("There is no such room, or you may not know of it.")
        found = await resolved(call, alias)
        room_id, via = found.room_id, [*via, *found.servers]
    else:
        room_id = parse.room_id(named)
    shown: dict[str, Json] = await services.federation.spaces.summary(
        None if who is None else who.user, room_id, via
    )
    return shown


@routes.get(
    f"/_matrix/client/unstable/{NHEKO}/summary/{{room_id_or_alias}}",
    f"/_matrix/client/unstable/{NHEKO}/rooms/{{room_id_or_alias}}/summary",
    auth=Auth.OPTIONAL,
)
async def early_summary(call: Call) -> dict[str, Json]:
    """The same under the names that some clients still use (MSC3266)."""
    shown = await summary(call)
    early = {f"{NHEKO}.{key}": shown[key] for key in ("room_version", "encryption") if key in shown}
    return {**shown, **early}
