"""Messages between devices.

Matrix v1.19, Client-Server API, "Send-to-Device messaging" ([C17.16]).
"""

from __future__ import annotations

import hashlib

from matrixbox.api import bounds, parse
from matrixbox.api.call import Call
from matrixbox.api.client.delayed import MAX_TXN_ID
from matrixbox.api.routes import Auth, Mount, RouteTable
from matrixbox.core.json import Json
from matrixbox.e2ee import to_device
from matrixbox.errors import InvalidParam, MissingParam

routes = RouteTable()

MAX_TYPE = 255


@routes.put(
    "/_matrix/client/v3/sendToDevice/{event_type}/{txn_id}",
    auth=Auth.USER,
    guest_ok=True,
    body_limit=bounds.BODY_KEYS,
    mount=Mount.ASGI,
)
async def send(call: Call) -> dict[str, Json]:
    """Send messages to devices."""
    body = await call.json()
    messages = parse.optional_object(body, "messages")
    if messages is None:
        raise MissingParam("`messages` is missing.")
    kind, txn_id = call.path["event_type"], call.path["txn_id"]
    if len(txn_id.encode()) > MAX_TXN_ID or len(kind.encode()) > MAX_TYPE:
        raise InvalidParam("The type or the transaction identifier is too long.")
    key = hashlib.blake2b(f"to_device\0{kind}\0{txn_id}".encode(), digest_size=16).digest()
    await call.services.store.write(
        to_device.send,
        call.services.env.server_name,
        call.requester,
        kind,
        to_device.parse(messages),
        key,
    )
    return {}
