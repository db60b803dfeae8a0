"""Profiles.

Matrix v1.19, Client-Server API, "Profiles" ([C15.01] to [C15.04]).
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.identifiers import UserId
from matrixbox.core.json import Json
from matrixbox.errors import BadJson, MissingParam, NotFound
from matrixbox.rooms import profiles
from matrixbox.store import accounts, names
from matrixbox.store.accounts import AccountState
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

routes = RouteTable()

PROFILE = "/_matrix/client/v3/profile/{user_id}"
TEXTS = ("displayname", "avatar_url")


def _profile(tx: Tx, user_id: UserId) -> dict[str, Json]:
    user: UserNid | None = names.user_nid(tx, user_id)
    account = None if user is None else accounts.get(tx, user)
    if account is None or account.state is AccountState.DEACTIVATED:
        raise NotFound("There is no such user here.")
    return profiles.get(tx, account.user)


@routes.get(PROFILE, auth=Auth.USER)
async def get(call: Call) -> dict[str, Json]:
    """A whole profile: for everybody with an account here (T094)."""
    user_id = parse.user_id(call.path["user_id"])
    found: dict[str, Json] = call.services.store.read(_profile, user_id)
    return found


@routes.get(f"{PROFILE}/{{key}}", auth=Auth.USER)
async def get_field(call: Call) -> dict[str, Json]:
    """One field of it."""
    key = call.path["key"]
    found = call.services.store.read(_profile, parse.user_id(call.path["user_id"]))
    if key not in found:
        raise NotFound("The profile has no such field.")
    return {key: found[key]}


@routes.put(f"{PROFILE}/{{key}}", auth=Auth.USER, guest_ok=True)
async def set_field(call: Call) -> dict[str, Json]:
    """Set one field of the own profile."""
    body = await call.json()
    key = call.path["key"]
    profiles.require_own(call.requester, parse.user_id(call.path["user_id"]))
    if key not in body:
        raise MissingParam(f"`{key}` is missing.")
    value = body[key]
    if key in TEXTS and value is not None and not isinstance(value, str):
        raise BadJson(f"`{key}` is a string.")
    keep = not (key in TEXTS and value in (None, ""))
    services = call.services
    await profiles.change(services.store, services.env, call.requester, key, value, keep=keep)
    return {}


@routes.delete(f"{PROFILE}/{{key}}", auth=Auth.USER)
async def remove_field(call: Call) -> dict[str, Json]:
    """Remove one field of the own profile."""
    profiles.require_own(call.requester, parse.user_id(call.path["user_id"]))
    services = call.services
    key = call.path["key"]
    await profiles.change(services.store, services.env, call.requester, key, None, keep=False)
    return {}
