"""Signing in and out: tokens, devices, passwords.

Matrix v1.19, Client-Server API, "Legacy API", "Device management" ([C2.01] to [C2.09], [C18.01]).
"""

from __future__ import annotations

import ipaddress
import secrets
import string

from attrs import frozen

from matrixbox.accounts import refreshing
from matrixbox.accounts.hashing import hash_token, new_token
from matrixbox.accounts.passwords import Passwords
from matrixbox.accounts.throttle import SIGN_IN_ACCOUNT, SIGN_IN_ADDRESS, Throttle
from matrixbox.core.identifiers import DeviceId, UserId
from matrixbox.errors import (
    Forbidden,
    InvalidParam,
    NotFound,
    UnknownToken,
    UserDeactivated,
    UserLocked,
)
from matrixbox.store import accounts, keys
from matrixbox.store.accounts import Account, AccountState, Device
from matrixbox.store.caches import Session
from matrixbox.store.database import Store
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

MAX_DEVICES = 200
MAX_DEVICE_ID = 255
MAX_DISPLAY_NAME = 255
_DEVICE_ID_LETTERS = string.ascii_uppercase

_HOME_IPV4 = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")
_HOME_IPV6 = ("::1/128", "fc00::/7", "fe80::/10")
_HOME_NETWORKS = tuple(map(ipaddress.ip_network, _HOME_IPV4 + _HOME_IPV6))


@frozen
class SignedIn:
    """A session that was just opened."""

    user_id: UserId
    device_id: DeviceId
    access_token: str
    refresh_token: str | None = None
    expires_in_ms: int | None = None


def new_device_id() -> DeviceId:
    """A device id for a client that brought none."""
    return DeviceId("".join(secrets.choice(_DEVICE_ID_LETTERS) for _ in range(10)))


def authenticate(tx: Tx, token: str, now_ms: int = 0) -> Session:
    """Whom a token stands for; raises UnknownToken."""
    session = accounts.session(tx, hash_token(token)) if token else None
    if session is None or session.deactivated:
        raise UnknownToken
    if session.expires_ms is not None and session.expires_ms <= now_ms:
        raise UnknownToken(soft_logout=True)  # [C2.08]
    return session


def parse_device_id(text: str | None) -> DeviceId | None:
    """A device id that a client chose; raises InvalidParam."""
    if text is None:
        return None
    if not 0 < len(text.encode("utf-8", "surrogatepass")) <= MAX_DEVICE_ID or "\0" in text:
        raise InvalidParam(f"A device id has 1 to {MAX_DEVICE_ID} bytes.")
    return DeviceId(text)


def open_session(
    tx: Tx,
    account: Account,
    device_id: DeviceId | None,
    display_name: str | None,
    refreshable_ms: int | None = None,
) -> SignedIn:
    """Sign a device in; one that was signed in gets a new token for its old one ([C2.03]).

    ``refreshable_ms`` is the time, for a client that takes refresh tokens ([C2.04]).
    """
    chosen = device_id or new_device_id()
    if keys.is_cross_signing_key(tx, account.user, chosen):
        raise InvalidParam("A cross-signing key of yours has that name.")  # [C17.08]
    present = accounts.device(tx, account.user, chosen)
    if present is not None:
        accounts.remove_tokens(tx, present.nid)
    elif len(accounts.devices(tx, account.user)) >= MAX_DEVICES:
        raise Forbidden(f"An account has at most {MAX_DEVICES} devices; sign some out first.")
    name = None if display_name is None else display_name[:MAX_DISPLAY_NAME]
    device = accounts.put_device(tx, account.user, chosen, name)
    if refreshable_ms is None:
        token = new_token()
        accounts.add_token(tx, hash_token(token), device, account.user)
        return SignedIn(account.user_id, chosen, token)
    pair = refreshing.new_pair(tx, device, account.user, refreshable_ms)
    return SignedIn(
        account.user_id, chosen, pair.access_token, pair.refresh_token, pair.expires_in_ms
    )


async def check_password(
    store: Store,
    passwords: Passwords,
    throttle: Throttle,
    localpart: str,
    password: str,
    address: str,
) -> Account:
    """The account that this password opens.

    Raises Forbidden without saying what was wrong, UserDeactivated only to who knows the password
    (there is none any more: Forbidden), LimitExceeded before anything is hashed (T093, T094).
    """
    throttle.require(SIGN_IN_ADDRESS, address)
    # Strangers who guess must not lock out who is at home (T093).
    guesser = (localpart, address if is_at_home(address) else "elsewhere")
    throttle.take(SIGN_IN_ACCOUNT, guesser)
    throttle.take(SIGN_IN_ADDRESS, address)
    account = store.read(accounts.find, localpart)
    known = None if account is None else account.password_hash
    if not await passwords.verify(known, password) or account is None:
        if account is not None and account.state is AccountState.DEACTIVATED:
            raise UserDeactivated("This account has been deactivated.")
        raise Forbidden("Wrong user name or password.")
    throttle.give_back(SIGN_IN_ACCOUNT, guesser)
    throttle.give_back(SIGN_IN_ADDRESS, address)
    if account.locked:
        raise UserLocked
    return account


def is_at_home(address: str) -> bool:
    """Whether an address is of this machine or of a private network."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(parsed in network for network in _HOME_NETWORKS)


def log_out(tx: Tx, who: Session) -> None:
    """End a session and remove its device ([C2.09])."""
    accounts.remove_device(tx, who.device)
    tx.changed(users=(who.user,))


def log_out_everywhere(tx: Tx, user: UserNid, keep: Session | None = None) -> None:
    """End all sessions of a user, or all but one."""
    for device in accounts.devices(tx, user):
        if keep is None or device.nid != keep.device:
            accounts.remove_device(tx, device.nid)
    tx.changed(users=(user,))


def remove_devices(tx: Tx, user: UserNid, device_ids: list[DeviceId]) -> None:
    """Remove devices; those that are gone already do not matter ([C18.01])."""
    for device_id in device_ids:
        present = accounts.device(tx, user, device_id)
        if present is not None:
            accounts.remove_device(tx, present.nid)
    tx.changed(users=(user,))


def require_open(tx: Tx, who: Session, now_ms: int) -> None:
    """Raise UnknownToken or UserLocked when a session has ended while its request waits (T103)."""
    account = accounts.get(tx, who.user)
    if account is not None and account.locked:
        raise UserLocked
    if not accounts.is_open(tx, who.device, now_ms):
        raise UnknownToken(soft_logout=accounts.is_signed_in(tx, who.device))


def rename_device(tx: Tx, user: UserNid, device_id: DeviceId, name: str | None) -> None:
    """Set what people call a device; raises NotFound."""
    accounts.rename_device(tx, own_device(tx, user, device_id).nid, name)


def own_device(tx: Tx, user: UserNid, device_id: DeviceId) -> Device:
    """One of the user's devices; raises NotFound."""
    present = accounts.device(tx, user, device_id)
    if present is None:
        raise NotFound("You have no such device.")
    return present
