"""Typing notifications.

Matrix v1.19, Client-Server API, "Typing Notifications" ([C13.07]).
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.filters import require_self
from matrixbox.api.client.places import known_room
from matrixbox.api.routes import Auth, Mount, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden, MissingParam
from matrixbox.store import members
from matrixbox.store.memberships import Membership

routes = RouteTable()

DEFAULT_MS = 30_000


@routes.put("/_matrix/client/v3/rooms/{room_id}/typing/{user_id}", auth=Auth.USER, mount=Mount.ASGI)
async def set_typing(call: Call) -> dict[str, Json]:
    """Say that one types, or has stopped."""
    require_self(call)
    body = await call.json()
    if "typing" not in body:
        raise MissingParam("`typing` is missing.")
    who, services, room = call.requester, call.services, known_room(call)
    present = services.store.read(members.get, room, who.user)
    if present is None or present.membership is not Membership.JOIN:
        raise Forbidden("You are not in that room.")
    timeout_ms = parse.optional_integer(body, "timeout")
    if parse.flag(body, "typing"):
        seconds = (DEFAULT_MS if timeout_ms is None else max(0, timeout_ms)) / 1000
        services.env.typing.start(room, who.user_id, seconds)
        if services.env.presence is not None:
            services.env.presence.active(who.user_id)
    else:
        services.env.typing.stop(room, who.user_id)
    return {}
