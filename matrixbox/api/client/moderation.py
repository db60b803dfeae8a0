"""Locking and suspending accounts, by those who administer the server, and where devices are.

Matrix v1.19, Client-Server API, "Server Administration" ([C6.03], [C6.04]).  Whether the caller may
is decided before anything is looked up.
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.identifiers import UserId, localpart_of, server_of
from matrixbox.core.json import Json
from matrixbox.errors import BadJson, Forbidden, InvalidParam, MissingParam, NotFound
from matrixbox.observe import log
from matrixbox.store import accounts
from matrixbox.store.accounts import Account, AccountState
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

routes = RouteTable()

LOCK = "/_matrix/client/v1/admin/lock/{user_id}"
SUSPEND = "/_matrix/client/v1/admin/suspend/{user_id}"


@routes.get(LOCK, auth=Auth.USER)
async def is_locked(call: Call) -> dict[str, Json]:
    """Whether an account is locked."""
    return {"locked": _subject(call).locked}


@routes.put(LOCK, auth=Auth.USER)
async def lock(call: Call) -> dict[str, Json]:
    """Lock an account, or open it again: all its sessions rest meanwhile."""
    locked = await _wanted(call, "locked")
    await call.services.store.write(_lock, _other(call).user, locked)
    _tell(call, "account locked" if locked else "account unlocked")
    return {"locked": locked}


def _lock(tx: Tx, user: UserNid, locked: bool) -> None:
    accounts.set_locked(tx, user, locked=locked)
    tx.changed(users=(user,))


@routes.get(SUSPEND, auth=Auth.USER)
async def is_suspended(call: Call) -> dict[str, Json]:
    """Whether an account is suspended."""
    return {"suspended": _subject(call).suspended}


@routes.put(SUSPEND, auth=Auth.USER)
async def suspend(call: Call) -> dict[str, Json]:
    """Suspend an account, or let it act again."""
    suspended = await _wanted(call, "suspended")
    await call.services.store.write(_suspend, _other(call).user, suspended)
    _tell(call, "account suspended" if suspended else "account acts again")
    return {"suspended": suspended}


def _suspend(tx: Tx, user: UserNid, suspended: bool) -> None:
    accounts.set_suspended(tx, user, suspended=suspended)


@routes.get("/_matrix/client/v3/admin/whois/{user_id}", auth=Auth.USER)
async def whois(call: Call) -> dict[str, Json]:
    """From where one's own devices were last used, or for an administrator those of another."""
    if parse.user_id(call.path["user_id"]) == call.requester.user_id:
        user = call.requester.user
    else:
        user = _subject(call).user
    devices: dict[str, Json] = {}
    for device in call.services.store.read(accounts.devices, user):
        seen: list[Json] = []
        if device.seen_ms is not None and device.seen_ip is not None:
            seen.append({"ip": device.seen_ip, "last_seen": device.seen_ms})
        devices[device.device_id] = {"sessions": [{"connections": seen}]}
    return {"user_id": call.path["user_id"], "devices": devices}


async def _wanted(call: Call, key: str) -> bool:
    body = await call.json()
    parse.user_id(call.path["user_id"])
    _require_admin(call)
    if key not in body:
        raise MissingParam(f"`{key}` is missing.")
    wanted = body[key]
    if not isinstance(wanted, bool):
        raise BadJson(f"`{key}` is true or false.")
    return wanted


def _require_admin(call: Call) -> None:
    if not call.requester.admin:
        raise Forbidden("You do not administer this server.")


def _subject(call: Call) -> Account:
    """The account that is meant; raises Forbidden, InvalidParam, NotFound."""
    user_id: UserId = parse.user_id(call.path["user_id"])
    _require_admin(call)
    if server_of(user_id) != call.services.env.server_name:
        raise InvalidParam("That is not a user of this server.")
    account: Account | None = call.services.store.read(accounts.find, localpart_of(user_id))
    if account is None or account.state is AccountState.DEACTIVATED:
        raise NotFound("There is no such account.")
    return account


def _other(call: Call) -> Account:
    """The same, who must not be the caller or another administrator."""
    account = _subject(call)
    if account.user == call.requester.user:
        raise Forbidden("You cannot do that to yourself.")
    if account.admin:
        raise Forbidden("You cannot do that to others who administer this server.")
    return account


def _tell(call: Call, what: str) -> None:
    log.info(what, user_id=call.path["user_id"], by=call.requester.user_id)
