"""Making accounts: of people, and of guests.

Matrix v1.19, Client-Server API, "Account registration and management", "Guest Access" ([C4.01] to
[C4.04], [C11.09], T096).
"""

from __future__ import annotations

from attrs import frozen

from matrixbox.accounts import addresses, registration, sessions
from matrixbox.accounts.addresses import Proof
from matrixbox.accounts.sessions import SignedIn
from matrixbox.accounts.throttle import GUESTS_ADDRESS, REGISTRATION_ADDRESS
from matrixbox.accounts.uia import Action, Flow
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.session import signed_in, wants_refreshing
from matrixbox.api.client.stages import (
    DUMMY,
    EMAIL,
    TOKEN,
    email_stage,
    is_registration_token,
    nothing,
    sends_mail,
    token_stage,
)
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.identifiers import DeviceId
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden, GuestAccessForbidden, InvalidParam, MissingParam
from matrixbox.store.accounts import Account
from matrixbox.store.addresses import Purpose
from matrixbox.store.transaction import Tx

routes = RouteTable()

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
    if sends_mail(call):
        flows += [tuple(EMAIL if one == DUMMY else one for one in flow) for flow in flows]
    return flows


@routes.post("/_matrix/client/v3/register", auth=Auth.NONE, secret=True)
async def register(call: Call) -> dict[str, Json]:
    """Make an account, or give one to a guest."""
    body = await call.json()
    kind = call.param("kind") or "user"
    if kind == "guest":
        return await _register_guest(call, body)
    if kind != "user":
        raise InvalidParam("`kind` is `user` or `guest`.")
    services = call.services
    flows = registration_flows(call)
    if not flows:
        raise Forbidden(CLOSED)
    guest_token = parse.optional_text(body, "guest_access_token")
    localpart = _wanted_localpart(call, body, guest_token)
    password = parse.optional_text(body, "password")
    if password is not None:
        services.passwords.check_new(password)
    action = Action.of("", "register", body)
    stages = {
        DUMMY: nothing,
        TOKEN: token_stage(call),
        EMAIL: email_stage(call, Purpose.REGISTER),
    }
    passed = await services.uia.require(action, body.get("auth"), flows, stages)
    proof = passed.get(EMAIL)
    if password is None:
        raise MissingParam("`password` is missing.")
    services.throttle.take(REGISTRATION_ADDRESS, call.address)
    device = None if parse.flag(body, "inhibit_login") else _first_device(body)
    wanted = Wanted(
        localpart or services.store.read(registration.free_localpart),
        await services.passwords.hash(password),
        device,
        wants_refreshing(call, body),
        guest_token,
        proof if isinstance(proof, Proof) else None,
    )
    account, opened = await services.store.write(_make, call, wanted)
    if opened is None:
        return {"user_id": account.user_id, "home_server": services.env.server_name}
    return signed_in(call, opened)


@frozen
class Wanted:
    """An account that somebody may have."""

    localpart: str
    password_hash: str
    device: tuple[DeviceId | None, str | None] | None
    refreshable_ms: int | None
    guest_token: str | None
    proof: Proof | None  # of an e-mail address


def _make(tx: Tx, call: Call, wanted: Wanted) -> tuple[Account, SignedIn | None]:
    now_ms = call.services.env.clock.now_ms()
    rest = (wanted.password_hash, now_ms, wanted.device, wanted.refreshable_ms)
    if wanted.guest_token is not None:
        made = registration.upgrade(tx, wanted.guest_token, wanted.localpart, *rest)
    else:
        server_name = call.services.env.server_name
        made = registration.register(tx, server_name, wanted.localpart, *rest)
    if wanted.proof is not None:
        addresses.give(tx, made[0].user, wanted.proof, now_ms)
    return made


async def _register_guest(call: Call, body: parse.Body) -> dict[str, Json]:
    """An account for a guest, who says nothing but what the device is called ([C4.01])."""
    services = call.services
    if not services.settings.registration.guests:
        raise GuestAccessForbidden("This server has no guest accounts.")
    name = parse.optional_text(body, "initial_device_display_name")
    services.throttle.take(GUESTS_ADDRESS, call.address)
    opened = await services.store.write(
        registration.register_guest,
        services.env.server_name,
        services.env.clock.now_ms(),
        name,
    )
    return signed_in(call, opened)


def _wanted_localpart(call: Call, body: parse.Body, guest_token: str | None = None) -> str | None:
    """The name the client wants, if it is one and free: asked before anything else ([C4.02]).

    Of a guest it is the name that the guest has.
    """
    services = call.services
    wanted = parse.optional_text(body, "username")
    if not wanted:
        if guest_token is not None:
            raise MissingParam("`username` is missing: the name that the guest has.")
        return None
    localpart = registration.parse_localpart(wanted, services.env.server_name)
    if guest_token is None:
        services.store.read(registration.require_free, localpart)
    else:
        now_ms = services.env.clock.now_ms()
        services.store.read(registration.guest, guest_token, localpart, now_ms)
    return localpart


def _first_device(body: parse.Body) -> tuple[DeviceId | None, str | None]:
    device_id = sessions.parse_device_id(parse.optional_text(body, "device_id"))
    return device_id, parse.optional_text(body, "initial_device_display_name")


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
    return {"valid": is_registration_token(call, token)}
