"""Signing in and out.

Matrix v1.19, Client-Server API, "Login", "Logout" ([C2.01] to [C2.09]).
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.accounts import refreshing, sessions
from matrixbox.accounts.addresses import parse_email
from matrixbox.accounts.throttle import REFRESHING_ADDRESS, SIGN_IN_ADDRESS
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, BodyKind, RouteTable
from matrixbox.core.identifiers import InvalidIdentifier, localpart_of, parse_user_id, server_of
from matrixbox.core.json import Json
from matrixbox.errors import BadJson, Forbidden, InvalidParam, Unknown, UserDeactivated, UserLocked
from matrixbox.store import accounts, addresses
from matrixbox.store.accounts import Account, AccountState

routes = RouteTable()

PASSWORD = "m.login.password"  # noqa: S105 (the name of a kind of login)
TOKEN = "m.login.token"  # noqa: S105 (likewise)
WRONG = "Wrong user name or password."


@routes.get("/_matrix/client/v3/login", auth=Auth.NONE)
async def flows(call: Call) -> dict[str, Json]:
    """The kinds of login."""
    return {"flows": [{"type": PASSWORD}, {"type": TOKEN, "get_login_token": True}]}


@routes.post("/_matrix/client/v3/login", auth=Auth.NONE, secret=True)
async def login(call: Call) -> dict[str, Json]:
    """Sign in with a password, or with a token that another session asked for."""
    body = await call.json()
    kind = parse.text(body, "type")
    if kind not in (PASSWORD, TOKEN):
        raise Unknown("This server knows only login by password and by token.")
    services = call.services
    device_id = sessions.parse_device_id(parse.optional_text(body, "device_id"))
    name = parse.optional_text(body, "initial_device_display_name")
    refreshable_ms = wants_refreshing(call, body)
    account = await (_by_password(call, body) if kind == PASSWORD else _by_token(call, body))
    opened = await services.store.write(
        sessions.open_session, account, device_id, name, refreshable_ms
    )
    well_known = {"m.homeserver": {"base_url": services.base_url}}
    return {**signed_in(call, opened), "well_known": well_known}


async def _by_password(call: Call, body: parse.Body) -> Account:
    services = call.services
    localpart = identified(call, body)
    return await sessions.check_password(
        services.store,
        services.passwords,
        services.throttle,
        localpart,
        parse.text(body, "password"),
        call.address,
    )


async def _by_token(call: Call, body: parse.Body) -> Account:
    """Raises Forbidden, UserDeactivated, UserLocked, LimitExceeded."""
    services = call.services
    token = parse.text(body, "token")
    services.throttle.take(SIGN_IN_ADDRESS, call.address)
    user = services.login_tokens.take(token)
    account: Account | None = None if user is None else services.store.read(accounts.get, user)
    if account is None:
        raise Forbidden("That token signs nobody in; it may have been used.")
    if account.state is AccountState.DEACTIVATED:
        raise UserDeactivated("This account has been deactivated.")
    if account.locked:
        raise UserLocked
    services.throttle.give_back(SIGN_IN_ADDRESS, call.address)
    return account


def wants_refreshing(call: Call, body: parse.Body) -> int | None:
    """The time, if the client takes refresh tokens ([C2.04])."""
    wanted = parse.flag(body, "refresh_token")
    return call.services.env.clock.now_ms() if wanted else None


def signed_in(call: Call, opened: sessions.SignedIn) -> dict[str, Json]:
    """What a client learns about the session it has opened."""
    answer: dict[str, Json] = {
        "user_id": opened.user_id,
        "access_token": opened.access_token,
        "device_id": opened.device_id,
        "home_server": call.services.env.server_name,
    }
    if opened.refresh_token is not None:
        answer["refresh_token"] = opened.refresh_token
        answer["expires_in_ms"] = opened.expires_in_ms
    return answer


@routes.post("/_matrix/client/v3/refresh", auth=Auth.NONE, secret=True)
async def refresh(call: Call) -> dict[str, Json]:
    """A new access token for a refresh token."""
    body = await call.json()
    token = parse.text(body, "refresh_token")
    services = call.services
    services.throttle.take(REFRESHING_ADDRESS, call.address)
    pair = await refreshing.refresh(services.store, token, services.env.clock.now_ms())
    return {
        "access_token": pair.access_token,
        "refresh_token": pair.refresh_token,
        "expires_in_ms": pair.expires_in_ms,
    }


def identified(call: Call, body: parse.Body) -> str:
    """The localpart of the user that a login or a stage of authentication names ([C2.02]).

    For an address that nobody has it is a name that nobody has: whoever tries learns nothing.
    """
    identifier = body.get("identifier")
    if identifier is None:
        if "user" not in body and "medium" in body:
            return _owner(call, parse.text(body, "medium"), parse.text(body, "address"))
        return local_name(parse.text(body, "user"), call.services.env.server_name)
    if not isinstance(identifier, Mapping):
        raise BadJson("`identifier` is an object.")
    kind = parse.text(identifier, "type")
    if kind == "m.id.thirdparty":
        return _owner(call, parse.text(identifier, "medium"), parse.text(identifier, "address"))
    if kind != "m.id.user":
        return _owner(call, kind, "")  # nobody is known by a telephone number
    return local_name(parse.text(identifier, "user"), call.services.env.server_name)


def _owner(call: Call, medium: str, address: str) -> str:
    """The localpart of an address' owner; never that of anybody else."""
    found: str | None = None
    if medium == addresses.EMAIL:
        try:
            folded = parse_email(address)
        except InvalidParam as error:
            raise Forbidden(WRONG) from error
        found = call.services.store.read(addresses.localpart_of_owner, folded)
        address = folded
    return found if found is not None else f"\0{medium} {address}"


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
