"""Devices.

Matrix v1.19, Client-Server API, "Device management" ([C18.01]).
"""

from __future__ import annotations

from matrixbox.accounts import sessions
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.stages import require_password
from matrixbox.api.routes import Auth, BodyKind, RouteTable
from matrixbox.core.identifiers import DeviceId
from matrixbox.core.json import Json
from matrixbox.errors import MissingParam
from matrixbox.store import accounts
from matrixbox.store.accounts import Device

routes = RouteTable()


def _shown(device: Device) -> dict[str, Json]:
    shown: dict[str, Json] = {"device_id": device.device_id}
    if device.display_name is not None:
        shown["display_name"] = device.display_name
    if device.seen_ms is not None:
        shown["last_seen_ts"] = device.seen_ms
        shown["last_seen_ip"] = device.seen_ip
    return shown


@routes.get("/_matrix/client/v3/devices", auth=Auth.USER, guest_ok=True)
async def list_devices(call: Call) -> dict[str, Json]:
    """The caller's devices."""
    found = call.services.store.read(accounts.devices, call.requester.user)
    return {"devices": [_shown(device) for device in found]}


@routes.get("/_matrix/client/v3/devices/{device_id}", auth=Auth.USER, guest_ok=True)
async def get_device(call: Call) -> dict[str, Json]:
    """One of them."""
    device_id = DeviceId(call.path["device_id"])
    return _shown(call.services.store.read(sessions.own_device, call.requester.user, device_id))


@routes.put("/_matrix/client/v3/devices/{device_id}", auth=Auth.USER, guest_ok=True)
async def rename_device(call: Call) -> dict[str, Json]:
    """Give it a name."""
    body = await call.json()
    name = parse.optional_text(body, "display_name")
    device_id = DeviceId(call.path["device_id"])
    if name is None:
        call.services.store.read(sessions.own_device, call.requester.user, device_id)
    else:
        await call.services.store.write(
            sessions.rename_device, call.requester.user, device_id, name
        )
    return {}


@routes.delete(
    "/_matrix/client/v3/devices/{device_id}", auth=Auth.USER, body=BodyKind.JSON_OR_EMPTY
)
async def delete_device(call: Call) -> dict[str, Json]:
    """Sign it out for good; the password is asked for."""
    body = await call.json()
    device_id = DeviceId(call.path["device_id"])
    await require_password(call, body, f"DELETE devices/{device_id}")
    await call.services.store.write(sessions.remove_devices, call.requester.user, [device_id])
    return {}


@routes.post("/_matrix/client/v3/delete_devices", auth=Auth.USER)
async def delete_devices(call: Call) -> dict[str, Json]:
    """Several at once."""
    body = await call.json()
    if "devices" not in body:
        raise MissingParam("`devices` is missing.")
    device_ids = [DeviceId(device) for device in parse.texts(body, "devices")]
    await require_password(call, body, "delete_devices")
    await call.services.store.write(sessions.remove_devices, call.requester.user, device_ids)
    return {}
