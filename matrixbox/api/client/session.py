"""Signing in and out.

Matrix v1.19, Client-Server API, "Login", "Logout" ([C2.01] to [C2.09]).
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.accounts import sessions
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, BodyKind, RouteTable
from matrixbox.core.identifiers import InvalidIdentifier, localpart_of, parse_user_id, server_of
from matrixbox.core.json import Json
from matrixbox.errors import BadJson, Forbidden, Unknown

routes = RouteTable()

PASSWORD = "m.login.password"  # noqa: S105 (the name of a kind of login)
WRONG = "Wrong user name or password."


@routes.get("/_matrix/client/v3/login", auth=Auth.NONE)
async def flows(call: Call) -> dict[str, Json]:
    """The kinds of login."""
    return {"flows": [{"type": PASSWORD}]}


@routes.post("/_matrix/client/v3/login", auth=Auth.NONE)
async def login(call: Call) -> dict[str, Json]:
    """Sign in with a password."""
    body = await call.json()
    if parse.text(body, "type") != PASSWORD:
        raise Unknown("This server knows only login by password.")
    services = call.services
    localpart = local_name(identified(body), services.env.server_name)
    password = parse.text(body, "password")
    device_id = sessions.parse_device_id(parse.optional_text(body, "device_id"))
    name = parse.optional_text(body, "initial_device_display_name")
    account = await sessions.check_password(
        services.store,
        services.passwords,
        services.throttle,
        localpart,
        password,
        call.address,
    )
    opened = await services.store.write(sessions.open_session, account, device_id, name)
    well_known = {"m.homeserver": {"base_url": services.base_url}}
    return {**signed_in(call, opened), "well_known": well_known}


def signed_in(call: Call, opened: sessions.SignedIn) -> dict[str, Json]:
    """What a client learns about the session it has opened."""
    return {
        "user_id": opened.user_id,
        "access_token": opened.access_token,
        "device_id": opened.device_id,
        "home_server": call.services.env.server_name,
    }


def identified(body: parse.Body) -> str:
    """The user that a login or a stage of authentication names."""
    identifier = body.get("identifier")
    if identifier is None:
        return parse.text(body, "user")
    if not isinstance(identifier, Mapping):
        raise BadJson("`identifier` is an object.")
    if parse.text(identifier, "type") != "m.id.user":
        raise Forbidden(WRONG)  # we keep no addresses or numbers of people
    return parse.text(identifier, "user")


def local_name(user: str, server_name: str) -> str:
    """The localpart of a user of ours, given as such or as a whole id."""
    if not user.startswith("@"):
        return user.lower()
    try:
        user_id = parse_user_id(user)
    except InvalidIdentifier as error:
        raise Forbidden(WRONG) from error
    if server_of(user_id) != server_name:
        raise Forbidden(WRONG)
    return localpart_of(user_id).lower()


@routes.post("/_matrix/client/v3/logout", auth=Auth.USER, guest_ok=True, body=BodyKind.NONE)
async def logout(call: Call) -> dict[str, Json]:
    """End this session."""
    await call.services.store.write(sessions.log_out, call.requester)
    return {}


@routes.post("/_matrix/client/v3/logout/all", auth=Auth.USER, guest_ok=True, body=BodyKind.NONE)
async def logout_all(call: Call) -> dict[str, Json]:
    """End all sessions of the user."""
    await call.services.store.write(sessions.log_out_everywhere, call.requester.user)
    return {}
