"""Dehydrated devices.

MSC3814, under its unstable prefix.
"""

from __future__ import annotations

from attrs import evolve

from matrixbox.accounts import sessions
from matrixbox.api import bounds, parse
from matrixbox.api.call import Call
from matrixbox.api.client.keys import parse_upload
from matrixbox.api.routes import Auth, BodyKind, RouteTable
from matrixbox.core.json import Json, decode_stored
from matrixbox.e2ee import dehydrated
from matrixbox.e2ee.dehydrated import NewDevice
from matrixbox.errors import MissingParam

routes = RouteTable()

DEVICE = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"


@routes.put(DEVICE, auth=Auth.USER, body_limit=bounds.BODY_KEYS)
async def put(call: Call) -> dict[str, Json]:
    """Leave a device behind, in the place of the one there was."""
    body = await call.json()
    device_id = sessions.parse_device_id(parse.text(body, "device_id"))
    assert device_id is not None
    data = parse.optional_object(body, "device_data")
    if data is None or body.get("device_keys") is None:
        raise MissingParam("`device_data` and `device_keys` are both needed.")
    new = NewDevice(
        device_id,
        parse.optional_text(body, "initial_device_display_name"),
        dehydrated.data(data),
        parse_upload(body, evolve(call.requester, device_id=device_id)),
    )
    await call.services.store.write(dehydrated.put, call.requester, new)
    return {"device_id": device_id}


@routes.get(DEVICE, auth=Auth.USER)
async def get(call: Call) -> dict[str, Json]:
    """The device that was left behind."""
    found: dict[str, Json] = call.services.store.read(dehydrated.get, call.requester)
    return found


@routes.delete(DEVICE, auth=Auth.USER)
async def delete(call: Call) -> dict[str, Json]:
    """Remove it."""
    return {"device_id": await call.services.store.write(dehydrated.delete, call.requester)}


@routes.post(f"{DEVICE}/{{device_id}}/events", auth=Auth.USER, body=BodyKind.JSON_OR_EMPTY)
async def events(call: Call) -> dict[str, Json]:
    """Messages for it, from a place on."""
    body = await call.json()
    return _messages(call, parse.optional_text(body, "next_batch"))


@routes.get(f"{DEVICE}/{{device_id}}/events", auth=Auth.USER)
async def get_events(call: Call) -> dict[str, Json]:
    """The same as newer drafts ask for it."""
    return _messages(call, call.param("from") or call.param("next_batch"))


def _messages(call: Call, after: str | None) -> dict[str, Json]:
    found, end = call.services.store.read(
        dehydrated.messages, call.requester, call.path["device_id"], after
    )
    return {"events": [decode_stored(json) for json in found], "next_batch": end}
