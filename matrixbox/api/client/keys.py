"""Keys of devices and users.

Matrix v1.19, Client-Server API, "Key management API", "Cross-signing", "Tracking the device list
for a user" ([C17.01] to [C17.10]).
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.api import bounds, parse
from matrixbox.api.call import Call
from matrixbox.api.client.stages import require_password
from matrixbox.api.routes import Auth, Mount, RouteTable
from matrixbox.core.identifiers import UserId
from matrixbox.core.json import Json
from matrixbox.e2ee import asking, cross_signing, device_keys, shapes
from matrixbox.e2ee.cross_signing import ConsentNeeded, Keys
from matrixbox.e2ee.device_keys import Upload
from matrixbox.errors import BadJson, InvalidParam, MissingParam
from matrixbox.rooms.tokens import SyncToken
from matrixbox.store.caches import Session
from matrixbox.sync import encryption

routes = RouteTable()

KEYS = "/_matrix/client/v3/keys"
DEFAULT_TIMEOUT_MS = 10_000


def parse_upload(body: parse.Body, who: Session) -> Upload:
    """The keys that a device publishes."""
    identity = body.get("device_keys")
    return Upload(
        None if identity is None else shapes.device_keys(identity, who.user_id, who.device_id),
        shapes.prekeys(parse.optional_object(body, "one_time_keys") or {}, "one_time_keys"),
        shapes.prekeys(parse.optional_object(body, "fallback_keys") or {}, "fallback_keys"),
    )


@routes.post(
    f"{KEYS}/upload",
    auth=Auth.USER,
    guest_ok=True,
    body_limit=bounds.BODY_KEYS,
    mount=Mount.ASGI,
)
async def upload(call: Call) -> dict[str, Json]:
    """Publish keys of the caller's device."""
    wanted = parse_upload(await call.json(), call.requester)
    counts = await call.services.store.write(device_keys.upload, call.requester, wanted)
    return {"one_time_key_counts": {"signed_curve25519": 0, **counts}}


def _timeout_s(body: parse.Body) -> float:
    timeout_ms = parse.optional_integer(body, "timeout")
    if timeout_ms is not None and timeout_ms < 0:
        raise InvalidParam("`timeout` is at least 0.")
    wanted_s = (DEFAULT_TIMEOUT_MS if timeout_ms is None else timeout_ms) / 1000
    return min(wanted_s, asking.MAX_WAIT_S)


def wanted_devices(body: parse.Body) -> dict[UserId, list[str]]:
    """The users and devices of a query."""
    asked = parse.optional_object(body, "device_keys")
    if asked is None:
        raise MissingParam("`device_keys` is missing.")
    if len(asked) > asking.MAX_USERS:
        raise InvalidParam(f"A query is about at most {asking.MAX_USERS} users.")
    # An empty object stands for all devices with clients of old.
    return {
        parse.user_id(user): parse.texts(asked, user) if ids else [] for user, ids in asked.items()
    }


def wanted_claims(body: parse.Body) -> dict[UserId, dict[str, str]]:
    """The users, devices and algorithms of a claim."""
    asked = parse.optional_object(body, "one_time_keys")
    if asked is None:
        raise MissingParam("`one_time_keys` is missing.")
    found: dict[UserId, dict[str, str]] = {}
    for user, devices in asked.items():
        if not isinstance(devices, Mapping):
            raise BadJson("`one_time_keys` holds objects by device.")
        found[parse.user_id(user)] = {name: parse.text(devices, name) for name in devices}
    if sum(map(len, found.values())) > asking.MAX_CLAIMS:
        raise InvalidParam(f"A claim is about at most {asking.MAX_CLAIMS} devices.")
    return found


@routes.post(f"{KEYS}/query", auth=Auth.USER, guest_ok=True, mount=Mount.ASGI)
async def query(call: Call) -> dict[str, Json]:
    """The keys of users and their devices."""
    body = await call.json()
    wanted = wanted_devices(body)
    keys = call.services.federation.keys
    found: dict[str, Json] = await keys.query(call.requester, wanted, _timeout_s(body))
    return found


@routes.post(f"{KEYS}/claim", auth=Auth.USER, guest_ok=True, mount=Mount.ASGI)
async def claim(call: Call) -> dict[str, Json]:
    """One-time keys, to begin conversations with devices."""
    body = await call.json()
    wanted = wanted_claims(body)
    claimed: dict[str, Json] = await call.services.federation.keys.claim(wanted, _timeout_s(body))
    return claimed


@routes.get(f"{KEYS}/changes", auth=Auth.USER)
async def changes(call: Call) -> dict[str, Json]:
    """Whose keys have changed since a token."""
    since, until = call.param("from"), call.param("to")
    if since is None or until is None:
        raise MissingParam("`from` and `to` are both needed.")
    SyncToken.parse(until)  # what came after it is told as well
    doorbell = call.services.store.doorbell
    start = min(SyncToken.parse(since).pos, doorbell.position)
    found = call.services.store.read(
        encryption.device_list_changes, call.requester.user, start, doorbell.position, None
    )
    if found is None:
        return {"changed": [], "left": []}
    return dict(found)


@routes.post(
    f"{KEYS}/device_signing/upload",
    "/_matrix/client/unstable/keys/device_signing/upload",
    auth=Auth.USER,
)
async def upload_cross_signing(call: Call) -> dict[str, Json]:
    """Publish cross-signing keys; to replace any, the user has to authenticate."""
    body = await call.json()
    new: Keys = cross_signing.parse(body, call.requester.user_id)
    write = call.services.store.write
    try:
        await write(cross_signing.upload, call.requester, new, False)
    except ConsentNeeded:
        await require_password(call, body, "keys/device_signing/upload")
        await write(cross_signing.upload, call.requester, new, True)
    return {}


@routes.post(
    f"{KEYS}/signatures/upload",
    "/_matrix/client/unstable/keys/signatures/upload",
    auth=Auth.USER,
)
async def upload_signatures(call: Call) -> dict[str, Json]:
    """Publish signatures on keys."""
    body = await call.json()
    cross_signing.check_signed(body)
    others = [parse.user_id(user) for user in body if user != call.requester.user_id]
    await call.services.federation.keys.fetch(others)
    failures = await call.services.store.write(cross_signing.add_signatures, call.requester, body)
    return {"failures": failures}
