"""Accounts: registration, who am I, change of password, deactivation, tokens for signing in.

Matrix v1.19, Client-Server API, "Account registration and management" ([C4.01] to [C4.11]).
"""

from __future__ import annotations

import hmac
from functools import partial

from matrixbox.accounts import registration, sessions
from matrixbox.accounts.login_tokens import LIFETIME_S
from matrixbox.accounts.passwords import check_new_password
from matrixbox.accounts.throttle import LOGIN_TOKENS, REGISTRATION_ADDRESS
from matrixbox.accounts.uia import Action, Flow, Refused, Stage
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.session import identified, local_name, signed_in, wants_refreshing
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.identifiers import DeviceId, UserId, localpart_of
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden, GuestAccessForbidden, InvalidParam, MissingParam
from matrixbox.household.departures import close_account
from matrixbox.observe import log
from matrixbox.store import accounts
from matrixbox.store.caches import Session
from matrixbox.store.transaction import Tx

routes = RouteTable()

DUMMY, TOKEN, PASSWORD = "m.login.dummy", "m.login.registration_token", "m.login.password"
CLOSED = "This server makes no accounts for strangers. Ask its household for one."


def registration_flows(call: Call) -> list[Flow]:
    """The ways of registering that the configuration allows."""
    settings = call.services.settings.registration
    flows: list[Flow] = []
    if settings.open:
        flows.append((DUMMY,))
    if settings.token:
        # The dummy stage says nothing, but matrix-nio can only register where it follows the token.
        flows.append((TOKEN, DUMMY))
    return flows


@routes.post("/_matrix/client/v3/register", auth=Auth.NONE, secret=True)
async def register(call: Call) -> dict[str, Json]:
    """Make an account."""
    body = await call.json()
    kind = call.param("kind") or "user"
    if kind == "guest":
        raise GuestAccessForbidden("This server has no guest accounts.")
    if kind != "user":
        raise InvalidParam("`kind` is `user` or `guest`.")
    services = call.services
    flows = registration_flows(call)
    if not flows:
        raise Forbidden(CLOSED)
    localpart = _wanted_localpart(call, body)
    password = parse.optional_text(body, "password")
    if password is not None:
        check_new_password(password)
    action = Action.of("", "register", body)
    stages = {DUMMY: _nothing, TOKEN: token_stage(call)}
    await services.uia.require(action, body.get("auth"), flows, stages)
    if password is None:
        raise MissingParam("`password` is missing.")
    services.throttle.take(REGISTRATION_ADDRESS, call.address)
    device = None if parse.flag(body, "inhibit_login") else _first_device(body)
    account, opened = await services.store.write(
        registration.register,
        services.env.server_name,
        localpart or services.store.read(registration.free_localpart),
        await services.passwords.hash(password),
        services.env.clock.now_ms(),
        device,
        wants_refreshing(call, body),
    )
    if opened is None:
        return {"user_id": account.user_id, "home_server": services.env.server_name}
    return signed_in(call, opened)


def _wanted_localpart(call: Call, body: parse.Body) -> str | None:
    """The name the client wants, if it is one and free: asked before anything else ([C4.02])."""
    wanted = parse.optional_text(body, "username")
    if not wanted:
        return None
    localpart = registration.parse_localpart(wanted, call.services.env.server_name)
    call.services.store.read(registration.require_free, localpart)
    return localpart


def _first_device(body: parse.Body) -> tuple[DeviceId | None, str | None]:
    device_id = sessions.parse_device_id(parse.optional_text(body, "device_id"))
    return device_id, parse.optional_text(body, "initial_device_display_name")


async def _nothing(auth: parse.Body) -> None:
    """The dummy stage asks for nothing."""


def token_stage(call: Call) -> Stage:
    """The stage that asks for the registration token."""

    async def check(auth: parse.Body) -> None:
        call.services.throttle.take(REGISTRATION_ADDRESS, call.address)
        if not _is_registration_token(call, parse.text(auth, "token")):
            raise Forbidden("That is not a registration token of this server.")

    return check


def _is_registration_token(call: Call, token: str) -> bool:
    known = call.services.settings.registration.token
    return bool(known) and hmac.compare_digest(
        known.encode(), token.encode("utf-8", "surrogatepass")
    )


@routes.get("/_matrix/client/v3/register/available", auth=Auth.NONE)
async def available(call: Call) -> dict[str, Json]:
    """Whether a name could be registered (T094: told only where registration is possible)."""
    if not registration_flows(call):
        raise Forbidden(CLOSED)
    wanted = call.param("username")
    if not wanted:
        raise MissingParam("`username` is missing.")
    _wanted_localpart(call, {"username": wanted})
    return {"available": True}


@routes.get("/_matrix/client/v1/register/m.login.registration_token/validity", auth=Auth.NONE)
async def token_validity(call: Call) -> dict[str, Json]:
    """Whether a registration token is one ([C3.10])."""
    if not call.services.settings.registration.token:
        raise Forbidden(CLOSED)
    token = call.param("token")
    if token is None:
        raise MissingParam("`token` is missing.")
    call.services.throttle.take(REGISTRATION_ADDRESS, call.address)
    return {"valid": _is_registration_token(call, token)}


@routes.get("/_matrix/client/v3/account/whoami", auth=Auth.USER, guest_ok=True)
async def whoami(call: Call) -> dict[str, Json]:
    """Whose token this is."""
    who = call.requester
    return {"user_id": who.user_id, "device_id": who.device_id, "is_guest": who.guest}


@routes.post("/_matrix/client/v3/account/password", auth=Auth.USER)
async def change_password(call: Call) -> dict[str, Json]:
    """Set a new password; the old one is asked for ([C4.08])."""
    body = await call.json()
    new = parse.text(body, "new_password")
    check_new_password(new)
    others = parse.flag(body, "logout_devices", default=True)
    await require_password(call, body, "account/password")
    hashed = await call.services.passwords.hash(new)
    await call.services.store.write(_set_password, call.requester, hashed, others)
    return {}


def _set_password(tx: Tx, who: Session, hashed: str, log_out_others: bool) -> None:
    accounts.set_password(tx, who.user, hashed)
    if log_out_others:
        sessions.log_out_everywhere(tx, who.user, keep=who)


@routes.post("/_matrix/client/v3/account/deactivate", auth=Auth.USER)
async def deactivate(call: Call) -> dict[str, Json]:
    """End the caller's account for good ([C4.09])."""
    body = await call.json()
    erase = parse.flag(body, "erase")
    await require_password(call, body, "account/deactivate")
    store, who = call.services.store, call.requester
    if who.admin and not store.read(accounts.other_admins, who.user):
        raise Forbidden("Nobody else administers this server.")  # T139
    account = store.read(accounts.get, who.user)
    assert account is not None
    await store.write(partial(close_account, erase=erase), account)
    log.info("account deactivated", user_id=who.user_id, erase=erase)
    return {"id_server_unbind_result": "no-support"}


@routes.post("/_matrix/client/v1/login/get_token", auth=Auth.USER, secret=True)
async def login_token(call: Call) -> dict[str, Json]:
    """A token with which another device of the caller signs in ([C2.06])."""
    body = await call.json()
    services, user = call.services, call.requester.user
    await require_password(call, body, "login/get_token")
    services.throttle.take(LOGIN_TOKENS, user)
    token = services.login_tokens.make(user)
    return {"login_token": token, "expires_in_ms": round(LIFETIME_S * 1000)}


async def require_password(call: Call, body: parse.Body, endpoint: str) -> None:
    """User-interactive authentication by the caller's own password ([C3.08])."""
    user_id = call.requester.user_id
    action = Action.of(user_id, endpoint, body)
    stages = {PASSWORD: password_stage(call, user_id)}
    await call.services.uia.require(action, body.get("auth"), [(PASSWORD,)], stages)


def password_stage(call: Call, user_id: str) -> Stage:
    """The stage that asks for one user's password."""
    services = call.services
    localpart = localpart_of(UserId(user_id))

    async def check(auth: parse.Body) -> None:
        if local_name(identified(auth), services.env.server_name) != localpart:
            raise Refused("That is another user.")
        await sessions.check_password(
            services.store,
            services.passwords,
            services.throttle,
            localpart,
            parse.text(auth, "password"),
            call.address,
        )

    return check
