"""Tokens by which a user proves to a service who they are.

Matrix v1.19, Client-Server API, "OpenID" ([C18.02]).
"""

from __future__ import annotations

from matrixbox.accounts import openid
from matrixbox.accounts.throttle import MESSAGES
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, BodyKind, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden

routes = RouteTable()


@routes.post(
    "/_matrix/client/v3/user/{user_id}/openid/request_token",
    auth=Auth.USER,
    body=BodyKind.JSON_OR_EMPTY,
    secret=True,
)
async def request_token(call: Call) -> dict[str, Json]:
    """A token for oneself."""
    await call.json()
    services, who = call.services, call.requester
    if parse.user_id(call.path["user_id"]) != who.user_id:
        raise Forbidden("A token can be had for oneself only.")
    services.throttle.take(MESSAGES, who.user_id)
    now_ms = services.env.clock.now_ms()
    return {
        "access_token": await services.store.write(openid.new_token, who.user, now_ms),
        "token_type": "Bearer",
        "matrix_server_name": services.env.server_name,
        "expires_in": openid.LIFETIME_S,
    }
