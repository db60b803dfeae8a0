"""`POST /sync`, in the form that clients use and in that of the merged proposal.

MSC4186, simplified sliding sync.
"""

from __future__ import annotations

from contextlib import nullcontext

from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.call import Call
from matrixbox.api.client import sliding_body
from matrixbox.api.client.sync import MAX_TIMEOUT_MS, PRESENCE
from matrixbox.api.routes import Auth, BodyKind, Mount, RouteTable
from matrixbox.errors import InvalidParam
from matrixbox.store.presence import WORDS
from matrixbox.sync.sliding_request import Form, SlidingRequest

routes = RouteTable()


@routes.post(
    "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
    auth=Auth.USER,
    guest_ok=True,
    body=BodyKind.JSON_OR_EMPTY,
    mount=Mount.ASGI,
)
async def unstable_sync(call: Call) -> Response:
    """What is new, with `pos`, `timeout` and `set_presence` in the query."""
    timeout_ms = parse.query_integer(call.param("timeout"), "timeout", 0, 0, MAX_TIMEOUT_MS)
    presence = call.param("set_presence")
    return await _sync(call, Form.UNSTABLE, call.param("pos"), timeout_ms, presence)


@routes.post("/_matrix/client/v4/sync", auth=Auth.USER, guest_ok=True, mount=Mount.ASGI)
async def sync(call: Call) -> Response:
    """What is new, with all parameters in the body."""
    body = await call.json()
    timeout_ms = parse.optional_integer(body, "timeout") or 0
    if timeout_ms < 0:
        raise InvalidParam("`timeout` is not negative.")
    pos = parse.optional_text(body, "pos")
    return await _sync(call, Form.V4, pos, timeout_ms, parse.optional_text(body, "set_presence"))


async def _sync(
    call: Call, form: Form, pos: str | None, timeout_ms: int, presence_word: str | None
) -> Response:
    body = await call.json()
    who = call.requester
    conn_id = parse.optional_text(body, "conn_id") or ""
    txn_id = parse.optional_text(body, "txn_id")
    if len(conn_id) > sliding_body.MAX_NAME or len(txn_id or "") > sliding_body.MAX_NAME:
        raise InvalidParam("`conn_id` or `txn_id` is too long.")
    request = SlidingRequest(
        who=who,
        form=form,
        conn_id=conn_id,
        pos=pos or None,
        timeout_s=min(timeout_ms, MAX_TIMEOUT_MS) / 1000,
        lists=sliding_body.lists(body, form, who.user_id),
        subscriptions=sliding_body.subscriptions(body, form, who.user_id),
        extensions=sliding_body.extensions(body, form),
        txn_id=txn_id,
    )
    word = parse.query_choice(presence_word, "set_presence", PRESENCE) or "online"
    presence = call.services.env.presence
    with nullcontext() if presence is None else presence.syncing(who.user_id, WORDS[word]):
        answer = await call.services.sliding.sync(request, call.waiting)
    return Response(body=answer, headers=JSON_HEADERS)
