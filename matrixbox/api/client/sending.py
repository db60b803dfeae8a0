"""Sending events and redacting them.

Matrix v1.19, Client-Server API, "Sending events to a room", "Redactions", "Transaction
identifiers" ([C1.03], [C10.01], [C10.05]).
"""

from __future__ import annotations

import hashlib
from functools import partial

from matrixbox.accounts.throttle import MESSAGES
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.room_state import known_room
from matrixbox.api.routes import Auth, Mount, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import InvalidParam
from matrixbox.rooms import sending
from matrixbox.rooms.ingest import Transaction

routes = RouteTable()

MAX_TXN_ID = 255


def transaction(call: Call, endpoint: str) -> Transaction:
    """The transaction of a request: its identifier counts for one device, endpoint and path.

    The device's own `/sync` tells of the event after the request has been answered.
    """
    txn_id = call.path["txn_id"]
    if len(txn_id.encode()) > MAX_TXN_ID:
        raise InvalidParam(f"A transaction identifier has at most {MAX_TXN_ID} bytes.")
    sends, device = call.services.sync.sends, call.requester.device
    call.when_answered(partial(sends.end, device, sends.begin(device)))
    parts = "\0".join([endpoint, *(call.path[name] for name in sorted(call.path))])
    key = hashlib.blake2b(parts.encode(), digest_size=16).digest()
    return Transaction(device, key, txn_id)


@routes.put(
    "/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}",
    auth=Auth.USER,
    guest_ok=True,
    mount=Mount.ASGI,
)
async def send(call: Call) -> dict[str, Json]:
    """Send an event that is not state."""
    content = await call.json()
    room = known_room(call)
    call.services.throttle.take(MESSAGES, call.requester.user_id)
    stored = await call.services.write(
        sending.send_message,
        call.requester,
        room,
        call.path["event_type"],
        content,
        transaction(call, "send"),
    )
    return {"event_id": stored.event.event_id}


@routes.put("/_matrix/client/v3/rooms/{room_id}/redact/{event_id}/{txn_id}", auth=Auth.USER)
async def redact(call: Call) -> dict[str, Json]:
    """Take back what an event says."""
    body = await call.json()
    reason = parse.optional_text(body, "reason")
    room = known_room(call)
    stored = await call.services.write(
        sending.redact,
        call.requester,
        room,
        parse.event_id(call.path["event_id"]),
        {} if reason is None else {"reason": reason},
        transaction(call, "redact"),
    )
    return {"event_id": stored.event.event_id}
