"""Whose token it is that a user of ours gave to some service.

Matrix v1.19, Server-Server API, "OpenID" ([B13.06]).  Services call it, not homeservers: there is
no other authentication than the token.
"""

from __future__ import annotations

from matrixbox.accounts import openid
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.api.server.events import V1
from matrixbox.core.json import Json
from matrixbox.errors import MissingParam

routes = RouteTable()


@routes.get(f"{V1}/openid/userinfo", auth=Auth.NONE)
async def userinfo(call: Call) -> dict[str, Json]:
    """The user behind a token."""
    token = call.param("access_token")
    if token is None:
        raise MissingParam("`access_token` is missing.")
    now_ms = call.services.env.clock.now_ms()
    return {"sub": call.services.store.read(openid.user_of, token, now_ms)}
