"""`GET /sync`.

Matrix v1.19, Client-Server API, "Syncing" ([C8.01]).
"""

from __future__ import annotations

from contextlib import nullcontext

from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.call import Call
from matrixbox.api.client.filters import named_or_inline
from matrixbox.api.routes import Auth, Mount, RouteTable
from matrixbox.rooms.tokens import SyncToken
from matrixbox.store.presence import WORDS
from matrixbox.sync.building import SyncRequest

routes = RouteTable()

MAX_TIMEOUT_MS = 120_000
STATE_AFTER = ("state_after", "org.matrix.msc4222.state_after")
PRESENCE = tuple(WORDS)


@routes.get("/_matrix/client/v3/sync", auth=Auth.USER, guest_ok=True, mount=Mount.ASGI)
async def sync(call: Call) -> Response:
    """Everything that is new since a token."""
    wanted = parse.query_choice(call.param("set_presence"), "set_presence", PRESENCE)
    since = call.param("since")
    timeout_ms = parse.query_integer(call.param("timeout"), "timeout", 0, 0, MAX_TIMEOUT_MS)
    request = SyncRequest(
        who=call.requester,
        since=SyncToken.parse(since) if since else None,
        filter=named_or_inline(call, call.param("filter")),
        timeout_s=timeout_ms / 1000,
        full_state=parse.query_flag(call.param("full_state"), "full_state"),
        state_after=_wanted_names(call),
    )
    presence = call.services.env.presence
    state = WORDS[wanted or "online"]
    who = call.requester.user_id
    with nullcontext() if presence is None else presence.syncing(who, state):
        body = await call.services.sync.sync(request, call.waiting)
    return Response(body=body, headers=JSON_HEADERS)


def _wanted_names(call: Call) -> tuple[str, ...]:
    """The names under which the state at the timeline's end is wanted."""
    parameters = ("use_state_after", "org.matrix.msc4222.use_state_after")
    return tuple(
        name
        for name, parameter in zip(STATE_AFTER, parameters, strict=True)
        if parse.query_flag(call.param(parameter), parameter)
    )
