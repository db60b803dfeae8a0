"""Accounts: who am I, change of password, deactivation, tokens for signing in.

Matrix v1.19, Client-Server API, "Account registration and management" ([C4.08] to [C4.11]).
"""

from __future__ import annotations

from functools import partial

from matrixbox.accounts import sessions
from matrixbox.accounts.login_tokens import LIFETIME_S
from matrixbox.accounts.throttle import LOGIN_TOKENS
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.stages import require_password
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden
from matrixbox.household.departures import close_account
from matrixbox.observe import log
from matrixbox.store import accounts
from matrixbox.store.caches import Session
from matrixbox.store.transaction import Tx

routes = RouteTable()


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
    call.services.passwords.check_new(new)
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
