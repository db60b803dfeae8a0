"""What calls and bridges ask a server for besides rooms.

Matrix v1.19, Client-Server API, "Voice over IP" and "Third-party networks" ([C18.03], [C18.04]).
"""

from __future__ import annotations

import base64
import hmac

from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json

routes = RouteTable()


@routes.get("/_matrix/client/v3/voip/turnServer", auth=Auth.USER, secret=True)
async def turn_server(call: Call) -> dict[str, Json]:
    """Where calls find each other, and a password for a while; nothing without such a server.

    The password is what TURN servers work out from the user name and a secret that they share with
    us (draft-uberti-behave-turn-rest).
    """
    turn = call.services.settings.turn
    if not turn.uris or not turn.shared_secret:
        return {}
    lifetime_s = turn.lifetime_minutes * 60
    expires_s = call.services.env.clock.now_ms() // 1000 + lifetime_s
    username = f"{expires_s}:{call.requester.user_id}"
    mac = hmac.new(turn.shared_secret.encode(), username.encode(), "sha1").digest()
    return {
        "username": username,
        "password": base64.b64encode(mac).decode(),
        "uris": [*turn.uris],
        "ttl": lifetime_s,
    }


@routes.get("/_matrix/client/v3/thirdparty/protocols", auth=Auth.USER)
async def protocols(call: Call) -> dict[str, Json]:
    """The networks that bridges of this server reach: there are none without such bridges."""
    return {}
