"""The stages of user-interactive authentication that this server has.

Matrix v1.19, Client-Server API, "Authentication types" ([C3.05], [C3.08], T097).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from matrixbox.accounts import addresses, sessions
from matrixbox.accounts.addresses import Proof
from matrixbox.accounts.throttle import MAIL_CHECKS, REGISTRATION_ADDRESS
from matrixbox.accounts.uia import Action, Refused, Stage, TooEarly
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.session import identified
from matrixbox.core.identifiers import UserId, localpart_of
from matrixbox.errors import BadJson, Forbidden, ThreepidRefused
from matrixbox.store.addresses import Purpose

DUMMY, TOKEN, PASSWORD = "m.login.dummy", "m.login.registration_token", "m.login.password"
EMAIL = "m.login.email.identity"


async def nothing(auth: parse.Body) -> None:
    """The dummy stage asks for nothing."""


def token_stage(call: Call) -> Stage:
    """The stage that asks for the registration token."""

    async def check(auth: parse.Body) -> None:
        call.services.throttle.take(REGISTRATION_ADDRESS, call.address)
        if not is_registration_token(call, parse.text(auth, "token")):
            raise Forbidden("That is not a registration token of this server.")

    return check


def is_registration_token(call: Call, token: str) -> bool:
    """Whether a word is the registration token of this server."""
    known = call.services.settings.registration.token
    return bool(known) and hmac.compare_digest(
        known.encode(), token.encode("utf-8", "surrogatepass")
    )


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
        if identified(call, auth) != localpart:
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


def email_stage(call: Call, purpose: Purpose) -> Stage:
    """The stage that is passed when a link in a message was opened; it gives the proof."""
    services = call.services

    async def check(auth: parse.Body) -> Proof:
        creds = auth.get("threepid_creds", auth.get("threepidCreds"))
        if not isinstance(creds, Mapping):
            raise BadJson("`threepid_creds` is an object.")
        services.throttle.take(MAIL_CHECKS, call.address)
        proof = Proof(parse.text(creds, "sid"), parse.text(creds, "client_secret"), purpose)
        try:
            services.store.read(addresses.require_proven, proof, services.env.clock.now_ms())
        except ThreepidRefused as error:
            raise TooEarly(error.text) from error
        return proof

    return check


def sends_mail(call: Call) -> bool:
    """Whether addresses of people are kept, and messages sent to them."""
    settings = call.services.settings
    return bool(settings.features.third_party_ids and settings.email.smtp_host)
