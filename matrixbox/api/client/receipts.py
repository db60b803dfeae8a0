"""Receipts and read markers.

Matrix v1.19, Client-Server API, "Receipts", "Fully read markers" ([C13.01] to [C13.06]).
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.places import known_room
from matrixbox.api.routes import Auth, BodyKind, Mount, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import InvalidParam
from matrixbox.rooms import receipts
from matrixbox.rooms.receipts import FULLY_READ, KINDS, Marks

routes = RouteTable()

MARKERS = (FULLY_READ, *KINDS)


def _thread(body: parse.Body, kind: str) -> str | None:
    """The thread that a receipt is about; None for all of them, which matrix-nio says with null."""
    thread = body.get("thread_id")
    if thread is None:
        return None
    if not isinstance(thread, str) or not thread:
        raise InvalidParam("`thread_id` is a string that is not empty.")
    if kind == FULLY_READ:
        raise InvalidParam("The fully-read marker is not about a thread.")
    return thread


@routes.post(
    "/_matrix/client/v3/rooms/{room_id}/receipt/{receipt_type}/{event_id}",
    auth=Auth.USER,
    body=BodyKind.JSON_OR_EMPTY,
    mount=Mount.ASGI,
)
async def receipt(call: Call) -> dict[str, Json]:
    """Say how far one has read."""
    kind = call.path["receipt_type"]
    if kind not in MARKERS:
        raise InvalidParam(f"The type of a receipt is one of {', '.join(MARKERS)}.")
    thread = _thread(await call.json(), kind)
    marks = Marks({kind: parse.event_id(call.path["event_id"])}, thread)
    await call.services.write(receipts.mark, call.requester, known_room(call), marks)
    return {}


@routes.post("/_matrix/client/v3/rooms/{room_id}/read_markers", auth=Auth.USER)
async def read_markers(call: Call) -> dict[str, Json]:
    """Set several markers at once."""
    body = await call.json()
    given = {kind: parse.optional_text(body, kind) for kind in MARKERS}
    marks = {kind: parse.event_id(value) for kind, value in given.items() if value is not None}
    await call.services.write(receipts.mark, call.requester, known_room(call), Marks(marks))
    return {}
