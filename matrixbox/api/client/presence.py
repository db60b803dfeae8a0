"""Presence: who is there.

Matrix v1.19, Client-Server API, "Presence" ([C13.08]).
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.filters import require_self
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden, InvalidParam, MissingParam
from matrixbox.rooms.presence import MAX_STATUS
from matrixbox.store.presence import WORDS

routes = RouteTable()

PATH = "/_matrix/client/v3/presence/{user_id}/status"


@routes.get(PATH, auth=Auth.USER)
async def get_status(call: Call) -> dict[str, Json]:
    """How somebody is: oneself, or somebody who shares a room."""
    user_id = parse.user_id(call.path["user_id"])
    who, presence = call.requester, call.services.env.presence
    if presence is None:
        return {"presence": "offline"}
    if not call.services.store.read(presence.may_see, who.user, who.user_id, user_id):
        raise Forbidden("You share no room with that user.")
    found: dict[str, Json] = presence.content(user_id)
    return found


@routes.put(PATH, auth=Auth.USER)
async def set_status(call: Call) -> dict[str, Json]:
    """Say how one is."""
    require_self(call)
    body = await call.json()
    word, status = parse.optional_text(body, "presence"), parse.optional_text(body, "status_msg")
    if word is None:
        raise MissingParam("`presence` is missing.")
    if word not in WORDS:
        raise InvalidParam(f"`presence` is one of {', '.join(WORDS)}.")
    if status is not None and len(status) > MAX_STATUS:
        raise InvalidParam(f"`status_msg` has at most {MAX_STATUS} characters.")
    presence = call.services.env.presence
    if presence is not None:
        presence.set(call.requester.user_id, WORDS[word], status)
    return {}
