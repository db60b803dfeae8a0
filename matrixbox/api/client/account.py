"""Accounts: who am I, change of password, deactivation, tokens for signing in.

Matrix v1.19, Client-Server API, "Account registration and management" ([C4.08] to [C4.11]).
"""

from __future__ import annotations

from functools import partial

from attrs import frozen

from matrixbox.accounts import addresses, sessions
from matrixbox.accounts.addresses import Proof
from matrixbox.accounts.login_tokens import LIFETIME_S
from matrixbox.accounts.throttle import LOGIN_TOKENS
from matrixbox.accounts.uia import Action, Flow
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.stages import (
    EMAIL,
    PASSWORD,
    email_stage,
    password_stage,
    require_password,
    sends_mail,
)
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden, MissingToken, UserLocked
from matrixbox.household.departures import close_account
from matrixbox.observe import log
from matrixbox.store import accounts
from matrixbox.store import addresses as stored_addresses
from matrixbox.store.accounts import AccountState
from matrixbox.store.addresses import Purpose
from matrixbox.store.caches import Session
from matrixbox.store.transaction import Tx

routes = RouteTable()


@routes.get("/_matrix/client/v3/account/whoami", auth=Auth.USER, guest_ok=True)
async def whoami(call: Call) -> dict[str, Json]:
    """Whose token this is."""
    who = call.requester
    return {"user_id": who.user_id, "device_id": who.device_id, "is_guest": who.guest}


@routes.post("/_matrix/client/v3/account/password", auth=Auth.OPTIONAL)
async def change_password(call: Call) -> dict[str, Json]:
    """Set a new password; the old one is asked for, or a message is sent ([C4.08])."""
    body = await call.json()
    services, who = call.services, call.requester
    flows: list[Flow] = []
    if who is not None:
        flows.append((PASSWORD,))
    if sends_mail(call):
        flows.append((EMAIL,))
    if not flows:
        raise MissingToken
    new = parse.text(body, "new_password")
    call.services.passwords.check_new(new)
    others = parse.flag(body, "logout_devices", default=True)
    stages = {EMAIL: email_stage(call, Purpose.PASSWORD)}
    if who is not None:
        stages[PASSWORD] = password_stage(call, who.user_id)
    action = Action.of("" if who is None else who.user_id, "account/password", body)
    passed = await services.uia.require(action, body.get("auth"), flows, stages)
    proof = passed.get(EMAIL)
    change = NewPassword(
        await services.passwords.hash(new), others, proof if isinstance(proof, Proof) else None
    )
    await services.store.write(_set_password, who, change, services.env.clock.now_ms())
    return {}


@frozen
class NewPassword:
    """A password, and how it was allowed."""

    hashed: str
    logs_out_others: bool
    proof: Proof | None  # None: by the one before


def _set_password(tx: Tx, who: Session | None, change: NewPassword, now_ms: int) -> None:
    user = None if who is None else who.user
    if change.proof is not None:
        address = addresses.use(tx, change.proof, now_ms).address
        owner = stored_addresses.owner(tx, address)
        if owner is None or user not in (None, owner):
            raise Forbidden("The account does not have that address.")
        user = owner
    account = None if user is None else accounts.get(tx, user)
    if account is None or account.state is AccountState.DEACTIVATED:
        raise Forbidden("That account has ended.")
    if account.locked:
        raise UserLocked
    accounts.set_password(tx, account.user, change.hashed)
    if change.logs_out_others:
        sessions.log_out_everywhere(tx, account.user, keep=who)


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
