"""Making accounts.

Matrix v1.19, Client-Server API, "Account registration and management", "Guest Access" ([C4.01] to
[C4.04], [C11.09], T096).
"""

from __future__ import annotations

import secrets

from matrixbox.accounts import sessions
from matrixbox.accounts.sessions import SignedIn
from matrixbox.core.identifiers import (
    DeviceId,
    InvalidIdentifier,
    ServerName,
    UserId,
    check_new_localpart,
    localpart_of,
)
from matrixbox.errors import Forbidden, InvalidUsername, UnknownToken, UserInUse, UserLocked
from matrixbox.store import accounts
from matrixbox.store.accounts import Account
from matrixbox.store.caches import Session
from matrixbox.store.transaction import Tx


def parse_localpart(text: str, server_name: ServerName) -> str:
    """A name for a new account; capitals are lowered.  Raises InvalidUsername ([C4.02])."""
    localpart = text.lower()
    try:
        check_new_localpart(localpart)
    except InvalidIdentifier as error:
        raise InvalidUsername(
            "A user name holds only a-z, 0-9 and the characters . _ = - / +"
        ) from error
    if len(f"@{localpart}:{server_name}".encode()) > 255:
        raise InvalidUsername("That user name is too long.")
    return localpart


def require_free(tx: Tx, localpart: str) -> None:
    """Raise UserInUse when somebody has, or had, that name."""
    if accounts.find(tx, localpart) is not None:
        raise UserInUse("That user name is taken.")


def free_localpart(tx: Tx) -> str:
    """A name for an account whose owner gave none."""
    while True:
        localpart = secrets.token_hex(6)
        if accounts.find(tx, localpart) is None:
            return localpart


def make_account(
    tx: Tx,
    server_name: ServerName,
    localpart: str,
    password_hash: str | None,
    now_ms: int,
    *,
    admin: bool = False,
    guest: bool = False,
) -> Account:
    """Store an account.  Raises UserInUse."""
    require_free(tx, localpart)
    user_id = UserId(f"@{localpart}:{server_name}")
    user = accounts.add(tx, user_id, localpart, password_hash, now_ms, admin=admin, guest=guest)
    account = accounts.get(tx, user)
    assert account is not None
    return account


def register(
    tx: Tx,
    server_name: ServerName,
    localpart: str,
    password_hash: str | None,
    now_ms: int,
    device: tuple[DeviceId | None, str | None] | None,
    refreshable_ms: int | None = None,
) -> tuple[Account, SignedIn | None]:
    """Make an account and, unless ``device`` is None, sign its first device in."""
    account = make_account(tx, server_name, localpart, password_hash, now_ms)
    if device is None:
        return account, None
    return account, sessions.open_session(tx, account, *device, refreshable_ms)


def register_guest(
    tx: Tx, server_name: ServerName, now_ms: int, display_name: str | None
) -> SignedIn:
    """Make an account without a password, and sign its only device in ([C4.01])."""
    account = make_account(tx, server_name, free_localpart(tx), None, now_ms, guest=True)
    return sessions.open_session(tx, account, None, display_name)


def guest(tx: Tx, token: str, localpart: str, now_ms: int) -> Session:
    """The session of a guest who wants to have an account like others ([C11.09]).

    Raises Forbidden for a token of somebody who is no guest, or is called otherwise.
    """
    try:
        found = sessions.authenticate(tx, token, now_ms)
    except UnknownToken as error:
        raise Forbidden("`guest_access_token` is not of a guest.") from error
    if not found.guest or localpart_of(found.user_id) != localpart:
        raise Forbidden("`guest_access_token` is not of a guest of that name.")
    if found.locked:
        raise UserLocked
    return found


def upgrade(
    tx: Tx,
    token: str,
    localpart: str,
    password_hash: str,
    now_ms: int,
    device: tuple[DeviceId | None, str | None] | None,
    refreshable_ms: int | None = None,
) -> tuple[Account, SignedIn | None]:
    """Give a guest a password.  What was signed in without one is signed out."""
    user = guest(tx, token, localpart, now_ms).user
    accounts.end_guesthood(tx, user, password_hash)
    account = accounts.get(tx, user)
    assert account is not None
    chosen = None if device is None else device[0]
    for one in accounts.devices(tx, user):
        if one.device_id == chosen:
            accounts.remove_tokens(tx, one.nid)
        else:
            accounts.remove_device(tx, one.nid)
    tx.changed(users=(user,))
    if device is None:
        return account, None
    return account, sessions.open_session(tx, account, *device, refreshable_ms)
