"""Profiles of our users, for other servers.

Matrix v1.19, Server-Server API, "Querying for information" ([B13.01], T094).
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.api.server.events import V1
from matrixbox.core.identifiers import server_of
from matrixbox.core.json import Json
from matrixbox.errors import MissingParam, NotFound
from matrixbox.rooms import profiles

routes = RouteTable()


@routes.get(f"{V1}/query/profile", auth=Auth.FEDERATION)
async def profile(call: Call) -> dict[str, Json]:
    """A profile, or one field of it."""
    given, field = call.param("user_id"), call.param("field")
    if given is None:
        raise MissingParam("`user_id` is missing.")
    user_id = parse.user_id(given)
    if server_of(user_id) != call.services.env.server_name:
        raise NotFound("That is no user of this server.")
    found: dict[str, Json] = call.services.store.read(profiles.of_account, user_id)
    if field is None:
        return found
    return {field: found[field]} if field in found else {}
