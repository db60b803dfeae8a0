"""Profiles.

Matrix v1.19, Client-Server API, "Profiles" ([C15.01] to [C15.04]).
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.accounts.throttle import LOOK_UPS
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.identifiers import server_of
from matrixbox.core.json import Json
from matrixbox.errors import (
    BadJson,
    Forbidden,
    GuestAccessForbidden,
    MissingParam,
    NotFound,
    RemoteError,
)
from matrixbox.federation import failing
from matrixbox.rooms import profiles, user_directory

routes = RouteTable()

PROFILE = "/_matrix/client/v3/profile/{user_id}"
TEXTS = ("displayname", "avatar_url")


async def _profile(call: Call) -> Mapping[str, Json]:
    """A profile, of a user of ours or of another server's: for everybody with an account here.

    Others are told of those in rooms that are open to all, or of everybody where the configuration
    opens the directory to them ([C15.01], T094).
    """
    services, user_id = call.services, parse.user_id(call.path["user_id"])
    if call.requester is None:
        services.throttle.take(LOOK_UPS, call.address)
        if not (
            services.settings.rooms.directory_without_login
            or services.store.read(user_directory.is_in_open_room, user_id)
        ):
            raise Forbidden("Sign in to see that profile.")
    if server_of(user_id) == services.env.server_name:
        local: dict[str, Json] = services.store.read(profiles.of_account, user_id)
        return local
    if call.requester is not None:
        services.throttle.take(LOOK_UPS, call.requester.user_id)
    try:
        found: Mapping[str, Json] = await services.federation.queries.profile(user_id)
    except RemoteError as error:
        raise failing.for_client(error) from error
    return found


@routes.get(PROFILE, auth=Auth.OPTIONAL)
async def get(call: Call) -> Mapping[str, Json]:
    """A whole profile."""
    return await _profile(call)


@routes.get(f"{PROFILE}/{{key}}", auth=Auth.OPTIONAL)
async def get_field(call: Call) -> dict[str, Json]:
    """One field of it."""
    key = call.path["key"]
    found = await _profile(call)
    if key not in found:
        raise NotFound("The profile has no such field.")
    return {key: found[key]}


def _own_field(call: Call) -> str:
    """The field of the caller's own profile; guests have their name alone ([C11.08])."""
    profiles.require_own(call.requester, parse.user_id(call.path["user_id"]))
    key = call.path["key"]
    if call.requester.guest and key != "displayname":
        raise GuestAccessForbidden("Guests may change their name only.")
    return key


@routes.put(f"{PROFILE}/{{key}}", auth=Auth.USER, guest_ok=True)
async def set_field(call: Call) -> dict[str, Json]:
    """Set one field of the own profile."""
    body = await call.json()
    key = _own_field(call)
    if key not in body:
        raise MissingParam(f"`{key}` is missing.")
    value = body[key]
    if key in TEXTS and value is not None and not isinstance(value, str):
        raise BadJson(f"`{key}` is a string.")
    keep = not (key in TEXTS and value in (None, ""))
    services = call.services
    await profiles.change(services.store, services.env, call.requester, key, value, keep=keep)
    return {}


@routes.delete(f"{PROFILE}/{{key}}", auth=Auth.USER, guest_ok=True)
async def remove_field(call: Call) -> dict[str, Json]:
    """Remove one field of the own profile."""
    services, key = call.services, _own_field(call)
    await profiles.change(services.store, services.env, call.requester, key, None, keep=False)
    return {}
