"""What clients keep at the server: account data, filters, profiles."""

from __future__ import annotations

from attrs import frozen

from matrixbox.store.nids import DeviceNid, RoomNid, UserNid
from matrixbox.store.transaction import Tx

GLOBAL = RoomNid(0)
LOCAL_NOTIFICATIONS = (
    "m.local_notification_settings.",
    "org.matrix.msc3890.local_notification_settings.",
)
"""What the types of entries about one device begin with."""


@frozen
class Entry:
    """One entry of account data."""

    room: RoomNid  # GLOBAL: of the account as a whole
    type: str
    json: bytes
    pos: int


def put(tx: Tx, user: UserNid, entry: Entry) -> None:
    """Store an entry over the one it replaces."""
    tx.run(
        "INSERT INTO account_data (user_nid, room_nid, type, pos, json) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (user_nid, room_nid, type) DO UPDATE"
        " SET pos = excluded.pos, json = excluded.json",
        user,
        entry.room,
        entry.type,
        entry.pos,
        entry.json,
    )


def get(tx: Tx, user: UserNid, room: RoomNid, kind: str) -> bytes | None:
    """The content of one entry."""
    row = tx.one(
        "SELECT json FROM account_data WHERE user_nid = ? AND room_nid = ? AND type = ?",
        user,
        room,
        kind,
    )
    return None if row is None else bytes(row[0])


def since(tx: Tx, user: UserNid, after: int, until: int) -> list[Entry]:
    """A user's entries, of all rooms and global, that were set at positions in (after, until]."""
    rows = tx.run(
        "SELECT room_nid, type, json, pos FROM account_data"
        " WHERE user_nid = ? AND pos > ? AND pos <= ?",
        user,
        after,
        until,
    )
    return [Entry(RoomNid(room), kind, bytes(json), pos) for room, kind, json, pos in rows]


def of_room(tx: Tx, user: UserNid, room: RoomNid, until: int) -> list[Entry]:
    """A user's entries for one room."""
    rows = tx.run(
        "SELECT room_nid, type, json, pos FROM account_data"
        " WHERE user_nid = ? AND room_nid = ? AND pos <= ?",
        user,
        room,
        until,
    )
    return [Entry(RoomNid(number), kind, bytes(json), pos) for number, kind, json, pos in rows]


def of_type(tx: Tx, user: UserNid, kind: str) -> list[Entry]:
    """A user's entries of one type, for all rooms and global."""
    rows = tx.run(
        "SELECT room_nid, json, pos FROM account_data WHERE user_nid = ? AND type = ?", user, kind
    )
    return [Entry(RoomNid(room), kind, bytes(json), pos) for room, json, pos in rows]


def count(tx: Tx, user: UserNid) -> int:
    """How many entries a user has made; push rules are kept here too, and are not counted."""
    row = tx.one(
        "SELECT COUNT(*) FROM account_data WHERE user_nid = ? AND type <> 'm.push_rules'", user
    )
    assert row is not None
    return int(row[0])


def forget_device(tx: Tx, device: DeviceNid) -> None:
    """Drop what its user keeps about one device: whether it notifies (MSC3890)."""
    tx.run(
        "DELETE FROM account_data WHERE room_nid = 0 AND (user_nid, type) IN"
        " (SELECT user_nid, prefix || device_id FROM device, (SELECT ? AS prefix UNION SELECT ?)"
        " WHERE device_nid = ?)",
        *LOCAL_NOTIFICATIONS,
        device,
    )


def users_with(tx: Tx, kind: str) -> list[UserNid]:
    """The users who have a global entry of that type."""
    rows = tx.run("SELECT user_nid FROM account_data WHERE room_nid = 0 AND type = ?", kind)
    return [UserNid(row[0]) for row in rows]


# --- filters


def add_filter(tx: Tx, user: UserNid, json: bytes) -> int:
    """Store a filter; the number of an equal one that is there already is given again."""
    row = tx.one("SELECT filter_id FROM filter WHERE user_nid = ? AND json = ?", user, json)
    if row is not None:
        return int(row[0])
    row = tx.one("SELECT COALESCE(MAX(filter_id), -1) + 1 FROM filter WHERE user_nid = ?", user)
    assert row is not None
    tx.run("INSERT INTO filter (user_nid, filter_id, json) VALUES (?, ?, ?)", user, row[0], json)
    return int(row[0])


def get_filter(tx: Tx, user: UserNid, filter_id: int) -> bytes | None:
    """A filter of that user."""
    row = tx.one("SELECT json FROM filter WHERE user_nid = ? AND filter_id = ?", user, filter_id)
    return None if row is None else bytes(row[0])


# --- profiles


def profile(tx: Tx, user: UserNid) -> dict[str, bytes]:
    """The fields of a profile, each as JSON."""
    rows = tx.run("SELECT key, json FROM profile WHERE user_nid = ?", user)
    return {key: bytes(json) for key, json in rows}


def set_profile_field(tx: Tx, user: UserNid, key: str, json: bytes) -> None:
    """Set one field."""
    tx.run(
        "INSERT INTO profile (user_nid, key, json) VALUES (?, ?, ?)"
        " ON CONFLICT (user_nid, key) DO UPDATE SET json = excluded.json",
        user,
        key,
        json,
    )


def remove_profile_field(tx: Tx, user: UserNid, key: str) -> None:
    """Remove one field, present or not."""
    tx.run("DELETE FROM profile WHERE user_nid = ? AND key = ?", user, key)
