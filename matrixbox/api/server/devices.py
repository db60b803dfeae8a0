"""Devices and keys of our users, for other servers.

Matrix v1.19, Server-Server API, "Device Management", "End-to-End Encryption" ([B13.04], [B13.05],
T106, T124).
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.keys import wanted_claims, wanted_devices
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json
from matrixbox.e2ee import device_keys
from matrixbox.errors import NotFound

routes = RouteTable()


@routes.get("/_matrix/federation/v1/user/devices/{user_id}", auth=Auth.FEDERATION)
async def user_devices(call: Call) -> dict[str, Json]:
    """All devices of a user of ours."""
    user_id = parse.user_id(call.path["user_id"])
    found = call.services.store.read(device_keys.devices_for_peer, user_id)
    if found is None:
        raise NotFound("There is no such user.")
    return dict(found)


@routes.post("/_matrix/federation/v1/user/keys/query", auth=Auth.FEDERATION)
async def query(call: Call) -> dict[str, Json]:
    """Keys of users of ours."""
    wanted = wanted_devices(await call.json())
    found: dict[str, Json] = call.services.federation.keys.query_for_peer(wanted)
    return found


@routes.post("/_matrix/federation/v1/user/keys/claim", auth=Auth.FEDERATION)
async def claim(call: Call) -> dict[str, Json]:
    """One-time keys of devices of ours."""
    wanted = wanted_claims(await call.json())
    keys = call.services.federation.keys
    claimed: dict[str, Json] = await keys.claim_for_peer(wanted, call.origin)
    return claimed
