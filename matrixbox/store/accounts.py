"""Accounts of this server, their devices, tokens and transaction identifiers."""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen

from matrixbox.core.identifiers import DeviceId, UserId
from matrixbox.store import (
    account_data,
    dehydrated,
    device_lists,
    keys,
    names,
    pushers,
    sliding,
    to_device,
)
from matrixbox.store.caches import Session
from matrixbox.store.nids import DeviceNid, EventNid, RoomNid, UserNid
from matrixbox.store.transaction import Tx


class AccountState(IntEnum):
    """Whether the account can be used."""

    ACTIVE = 0
    DEACTIVATED = 1


@frozen
class Account:
    """An account of this server."""

    user: UserNid
    user_id: UserId
    localpart: str
    password_hash: str | None
    created_ms: int
    admin: bool
    guest: bool
    state: AccountState
    locked: bool
    suspended: bool


@frozen
class Device:
    """A signed-in client."""

    nid: DeviceNid
    device_id: DeviceId
    display_name: str | None
    seen_ms: int | None
    seen_ip: str | None


def add(
    tx: Tx,
    user_id: UserId,
    localpart: str,
    password_hash: str | None,
    now_ms: int,
    *,
    admin: bool = False,
    guest: bool = False,
) -> UserNid:
    """Make an account; the name must be free."""
    user = names.add_user(tx, user_id)
    tx.run(
        "INSERT INTO account (user_nid, localpart, password_hash, created_ms, admin, guest)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        user,
        localpart,
        password_hash,
        now_ms,
        int(admin),
        int(guest),
    )
    return user


def get(tx: Tx, user: UserNid) -> Account | None:
    """An account by its user."""
    row = tx.one(
        "SELECT user_nid, user_id, localpart, password_hash, created_ms, admin, guest, state,"
        " locked, suspended FROM account JOIN user USING (user_nid) WHERE user_nid = ?",
        user,
    )
    return None if row is None else _account(row)


def find(tx: Tx, localpart: str) -> Account | None:
    """An account by its localpart; deactivated ones are found too, their names stay taken."""
    row = tx.one(
        "SELECT user_nid, user_id, localpart, password_hash, created_ms, admin, guest, state,"
        " locked, suspended FROM account JOIN user USING (user_nid) WHERE localpart = ?",
        localpart,
    )
    return None if row is None else _account(row)


def everybody(tx: Tx) -> list[Account]:
    """All accounts, by name."""
    rows = tx.run(
        "SELECT user_nid, user_id, localpart, password_hash, created_ms, admin, guest, state,"
        " locked, suspended FROM account JOIN user USING (user_nid) ORDER BY localpart"
    )
    return [_account(row) for row in rows]


def _account(row: tuple[object, ...]) -> Account:
    user, user_id, localpart, password_hash, created_ms, admin, guest, state, *moderated = row
    locked, suspended = moderated
    return Account(
        UserNid(user),  # type: ignore[arg-type]
        UserId(str(user_id)),
        str(localpart),
        None if password_hash is None else str(password_hash),
        created_ms,  # type: ignore[arg-type]
        bool(admin),
        bool(guest),
        AccountState(state),  # type: ignore[arg-type]
        bool(locked),
        bool(suspended),
    )


def set_password(tx: Tx, user: UserNid, password_hash: str | None) -> None:
    """Replace the password; None: no password signs in any more."""
    tx.run("UPDATE account SET password_hash = ? WHERE user_nid = ?", password_hash, user)


def set_state(tx: Tx, user: UserNid, state: AccountState) -> None:
    """Set whether the account can be used."""
    tx.run("UPDATE account SET state = ? WHERE user_nid = ?", int(state), user)
    tx.after_commit(tx.caches.sessions.clear)


def set_locked(tx: Tx, user: UserNid, *, locked: bool) -> None:
    """Set whether the account's sessions rest."""
    tx.run("UPDATE account SET locked = ? WHERE user_nid = ?", int(locked), user)
    tx.after_commit(tx.caches.sessions.clear)


def set_suspended(tx: Tx, user: UserNid, *, suspended: bool) -> None:
    """Set whether the account may only read and leave."""
    tx.run("UPDATE account SET suspended = ? WHERE user_nid = ?", int(suspended), user)
    tx.after_commit(tx.caches.sessions.clear)


# --- devices and tokens


def put_device(tx: Tx, user: UserNid, device_id: DeviceId, display_name: str | None) -> DeviceNid:
    """The device of that name, made when needed; the display name is for a new one only."""
    found = tx.one(
        "SELECT device_nid FROM device WHERE user_nid = ? AND device_id = ?", user, device_id
    )
    if found is not None:
        return DeviceNid(found[0])
    tx.run(
        "INSERT INTO device (user_nid, device_id, display_name) VALUES (?, ?, ?)",
        user,
        device_id,
        display_name,
    )
    return DeviceNid(tx.last_rowid)


def devices(tx: Tx, user: UserNid) -> list[Device]:
    """The devices of a user, oldest first."""
    rows = tx.run(
        "SELECT device_nid, device_id, display_name, seen_ms, seen_ip FROM device"
        " WHERE user_nid = ? ORDER BY device_nid",
        user,
    )
    return [
        Device(DeviceNid(nid), DeviceId(device_id), name, seen_ms, seen_ip)
        for nid, device_id, name, seen_ms, seen_ip in rows
    ]


def device(tx: Tx, user: UserNid, device_id: DeviceId) -> Device | None:
    """One device of a user."""
    row = tx.one(
        "SELECT device_nid, device_id, display_name, seen_ms, seen_ip FROM device"
        " WHERE user_nid = ? AND device_id = ?",
        user,
        device_id,
    )
    if row is None:
        return None
    return Device(DeviceNid(row[0]), DeviceId(row[1]), row[2], row[3], row[4])


def device_nid(tx: Tx, user: UserNid, device_id: str) -> DeviceNid | None:
    """The number of a user's device."""
    row = tx.one(
        "SELECT device_nid FROM device WHERE user_nid = ? AND device_id = ?", user, device_id
    )
    return None if row is None else DeviceNid(row[0])


def rename_device(tx: Tx, nid: DeviceNid, display_name: str | None) -> None:
    """Set what people call a device, of which others learn though it has no keys ([B7.06])."""
    tx.run("UPDATE device SET display_name = ? WHERE device_nid = ?", display_name, nid)
    device_lists.device_changed(tx, *_owner(tx, nid))


def device_seen(tx: Tx, nid: DeviceNid, seen_ms: int, seen_ip: str) -> None:
    """Note when and from where a device called."""
    tx.run("UPDATE device SET seen_ms = ?, seen_ip = ? WHERE device_nid = ?", seen_ms, seen_ip, nid)


def remove_device(tx: Tx, nid: DeviceNid) -> None:
    """Remove a device with all that hangs on it ([C17.15], T103)."""
    remove_tokens(tx, nid)
    to_device.remove_of_device(tx, nid)
    dehydrated.remove(tx, nid)
    sliding.remove_of_device(tx, nid)
    account_data.forget_device(tx, nid)
    if keys.remove_of_device(tx, nid):
        device_lists.device_changed(tx, *_owner(tx, nid))
    pushers.remove_of_device(tx, nid)
    tx.run("DELETE FROM client_transaction WHERE device_nid = ?", nid)
    tx.run("DELETE FROM device WHERE device_nid = ?", nid)


def _owner(tx: Tx, nid: DeviceNid) -> tuple[UserNid, DeviceId]:
    row = tx.one("SELECT user_nid, device_id FROM device WHERE device_nid = ?", nid)
    assert row is not None
    return UserNid(row[0]), DeviceId(row[1])


def add_token(
    tx: Tx,
    token_hash: bytes,
    device_nid: DeviceNid,
    user: UserNid,
    expires_ms: int | None = None,
    refresh: bytes | None = None,
) -> None:
    """Let a token open a device's session, perhaps until it expires."""
    tx.run(
        "INSERT INTO access_token (token_hash, device_nid, user_nid, expires_ms, refresh)"
        " VALUES (?, ?, ?, ?, ?)",
        token_hash,
        device_nid,
        user,
        expires_ms,
        refresh,
    )


def remove_tokens(tx: Tx, device_nid: DeviceNid) -> None:
    """Close a device's session."""
    tx.run("DELETE FROM access_token WHERE device_nid = ?", device_nid)
    tx.run("DELETE FROM refresh_token WHERE device_nid = ?", device_nid)
    tx.after_commit(tx.caches.sessions.clear)


def session(tx: Tx, token_hash: bytes) -> Session | None:
    """Whom a token stands for."""
    found = tx.caches.sessions.get(token_hash)
    if found is None:
        row = tx.one(
            "SELECT user_nid, user_id, device_nid, device_id, admin, guest, state, locked,"
            " suspended, expires_ms, (SELECT r.token_hash FROM refresh_token AS r"
            "  WHERE r.token_hash = refresh AND r.state = 0)"
            " FROM access_token JOIN device USING (device_nid, user_nid)"
            " JOIN user USING (user_nid) JOIN account USING (user_nid) WHERE token_hash = ?",
            token_hash,
        )
        if row is None:
            return None
        found = Session(
            UserNid(row[0]),
            UserId(row[1]),
            DeviceNid(row[2]),
            DeviceId(row[3]),
            bool(row[4]),
            bool(row[5]),
            bool(row[6]),
            bool(row[7]),
            bool(row[8]),
            row[9],
            row[10],
        )
        tx.caches.sessions.put(token_hash, found)
    return found


def is_signed_in(tx: Tx, device_nid: DeviceNid) -> bool:
    """Whether some token opens a device's session."""
    row = tx.one("SELECT 1 FROM access_token WHERE device_nid = ? LIMIT 1", device_nid)
    return row is not None


def is_open(tx: Tx, device_nid: DeviceNid, now_ms: int) -> bool:
    """The same of tokens that have not expired."""
    row = tx.one(
        "SELECT 1 FROM access_token WHERE device_nid = ?"
        " AND (expires_ms IS NULL OR expires_ms > ?) LIMIT 1",
        device_nid,
        now_ms,
    )
    return row is not None


def guests_in_rooms(tx: Tx) -> list[tuple[UserNid, RoomNid]]:
    """The guests who are in rooms, with each of these."""
    rows = tx.run(
        "SELECT user_nid, room_nid FROM account JOIN member USING (user_nid)"
        " WHERE guest AND state = 0 AND membership = 1"
    )
    return [(UserNid(user), RoomNid(room)) for user, room in rows]


def end_guesthood(tx: Tx, user: UserNid, password_hash: str) -> None:
    """Make a guest's account one like others."""
    tx.run(
        "UPDATE account SET guest = 0, password_hash = ? WHERE user_nid = ?", password_hash, user
    )
    tx.after_commit(tx.caches.sessions.clear)


def other_admins(tx: Tx, user: UserNid) -> int:
    """How many others administer the server."""
    row = tx.one("SELECT COUNT(*) FROM account WHERE admin AND state = 0 AND user_nid != ?", user)
    assert row is not None
    return int(row[0])


# --- transaction identifiers of clients


def transaction(tx: Tx, device_nid: DeviceNid, key: bytes) -> EventNid | None:
    """The event that this transaction made, if it was seen before."""
    row = tx.one(
        "SELECT event_nid FROM client_transaction WHERE device_nid = ? AND key = ?",
        device_nid,
        key,
    )
    return None if row is None else EventNid(row[0])


def put_transaction(tx: Tx, device_nid: DeviceNid, key: bytes, event: EventNid) -> None:
    """Remember what a transaction made."""
    tx.run(
        "INSERT INTO client_transaction (device_nid, key, event_nid) VALUES (?, ?, ?)",
        device_nid,
        key,
        event,
    )


def prune_transactions(tx: Tx, before: int) -> None:
    """Forget transactions whose events are older than a stream position."""
    tx.run("DELETE FROM client_transaction WHERE event_nid < ?", before)
