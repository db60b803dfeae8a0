"""Sending events and redacting them.

Matrix v1.19, Client-Server API, "Sending events to a room", "Redactions", "Transaction
identifiers" ([C1.03], [C10.01], [C10.05]).
"""

from __future__ import annotations

from functools import partial

from matrixbox.accounts.throttle import MESSAGES
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.delayed import (
    delay_message,
    delay_of,
    named_transaction,
    refuse_delay,
)
from matrixbox.api.client.places import known_room
from matrixbox.api.routes import Auth, Mount, RouteTable
from matrixbox.core.json import Json
from matrixbox.rooms import sending
from matrixbox.rooms.ingest import Transaction

routes = RouteTable()


def transaction(call: Call, endpoint: str) -> Transaction:
    """The transaction of a request: its identifier counts for one device, endpoint and path.

    The device's own `/sync` tells of the event after the request has been answered.
    """
    found = named_transaction(call, endpoint)
    sends = call.services.sync.sends
    call.when_answered(partial(sends.end, found.device, sends.begin(found.device)))
    return found


@routes.put(
    "/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}",
    auth=Auth.USER,
    guest_ok=True,
    mount=Mount.ASGI,
)
async def send(call: Call) -> dict[str, Json]:
    """Send an event that is not state."""
    if (delay_ms := delay_of(call)) is not None:
        return await delay_message(call, delay_ms, named_transaction(call, "send"))
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
    refuse_delay(call)
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
