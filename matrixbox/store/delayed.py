"""Events to be sent later, and what became of them (MSC4140)."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from matrixbox.store.caches import StoredEvent
from matrixbox.store.nids import DeviceNid, RoomNid, UserNid
from matrixbox.store.transaction import Tx


@frozen
class Delayed:
    """One event to be sent later; without `due_ms` it is over."""

    nid: int
    delay_id: str
    user: UserNid
    device: DeviceNid
    txn_id: str | None
    room: RoomNid
    type: str
    state_key: str | None
    content: bytes
    delay_ms: int
    since_ms: int  # scheduled, or restarted
    due_ms: int | None = None
    ended_ms: int | None = None
    event_id: str | None = None
    error: bytes | None = None


@frozen
class Timer:
    """When the event of a room is to be sent."""

    nid: int
    room: RoomNid
    due_ms: int
    delay_ms: int


def add(tx: Tx, new: Delayed, txn_key: bytes | None) -> None:
    """Store an event to be sent later; its `nid` is chosen here."""
    tx.run(
        "INSERT INTO delayed_event (delay_id, user_nid, device_nid, txn_key, txn_id, room_nid,"
        " type, state_key, content, delay_ms, since_ms, due_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        new.delay_id,
        new.user,
        new.device,
        txn_key,
        new.txn_id,
        new.room,
        new.type,
        new.state_key,
        new.content,
        new.delay_ms,
        new.since_ms,
        new.due_ms,
    )


def by_id(tx: Tx, delay_id: str) -> Delayed | None:
    """One event, scheduled or over."""
    row = tx.one(
        "SELECT nid, delay_id, user_nid, device_nid, txn_id, room_nid, type, state_key, content,"
        " delay_ms, since_ms, due_ms, ended_ms, event_id, error"
        " FROM delayed_event WHERE delay_id = ?",
        delay_id,
    )
    return None if row is None else _delayed(row)


def by_nid(tx: Tx, nid: int) -> Delayed | None:
    """The same by its number."""
    row = tx.one("SELECT delay_id FROM delayed_event WHERE nid = ?", nid)
    return None if row is None else by_id(tx, row[0])


def by_transaction(tx: Tx, device: DeviceNid, txn_key: bytes) -> str | None:
    """The identifier that was given to a transaction of a device."""
    row = tx.one(
        "SELECT delay_id FROM delayed_event WHERE device_nid = ? AND txn_key = ?", device, txn_key
    )
    return None if row is None else str(row[0])


def scheduled(tx: Tx, user: UserNid) -> list[Delayed]:
    """A user's events that are still to be sent, in that order."""
    rows = tx.run(
        "SELECT nid, delay_id, user_nid, device_nid, txn_id, room_nid, type, state_key, content,"
        " delay_ms, since_ms, due_ms, ended_ms, event_id, error FROM delayed_event"
        " WHERE user_nid = ? AND due_ms IS NOT NULL ORDER BY due_ms, nid",
        user,
    )
    return [_delayed(row) for row in rows]


def timers(tx: Tx) -> list[Timer]:
    """All events that are still to be sent, in that order."""
    rows = tx.run(
        "SELECT nid, room_nid, due_ms, delay_ms FROM delayed_event"
        " WHERE due_ms IS NOT NULL ORDER BY due_ms, nid"
    )
    return [Timer(nid, RoomNid(room), due_ms, delay_ms) for nid, room, due_ms, delay_ms in rows]


def load(tx: Tx, user: UserNid) -> tuple[int, int, int]:
    """How many events of a user are to be sent, their bytes, and when the next one is."""
    row = tx.one(
        "SELECT COUNT(*), COALESCE(SUM(LENGTH(content)), 0), COALESCE(MIN(due_ms), 0)"
        " FROM delayed_event WHERE user_nid = ? AND due_ms IS NOT NULL",
        user,
    )
    assert row is not None
    return int(row[0]), int(row[1]), int(row[2])


def restart(tx: Tx, nid: int, now_ms: int) -> None:
    """Begin the delay anew."""
    tx.run(
        "UPDATE delayed_event SET since_ms = ?, due_ms = ? + delay_ms WHERE nid = ?",
        now_ms,
        now_ms,
        nid,
    )


def sent(tx: Tx, one: Delayed, stored: StoredEvent, now_ms: int) -> None:
    """It has become an event."""
    tx.run(
        "UPDATE delayed_event SET due_ms = NULL, ended_ms = ?, event_id = ? WHERE nid = ?",
        now_ms,
        stored.event.event_id,
        one.nid,
    )
    tx.run(
        "INSERT OR IGNORE INTO was_delayed (event_nid, delay_id) VALUES (?, ?)",
        stored.nid,
        one.delay_id,
    )


def end(tx: Tx, nid: int, now_ms: int, error: bytes | None = None) -> None:
    """It will not be sent: its user wants so, or it cannot be."""
    tx.run(
        "UPDATE delayed_event SET due_ms = NULL, ended_ms = ?, error = ? WHERE nid = ?",
        now_ms,
        error,
        nid,
    )


def forget_user(tx: Tx, user: UserNid) -> None:
    """Nothing of a user is to be sent any more, and nothing is remembered of it."""
    tx.run("DELETE FROM delayed_event WHERE user_nid = ?", user)


def prune(tx: Tx, user: UserNid, most: int) -> None:
    """Keep only the newest ones of those of a user that are over."""
    tx.run(
        "DELETE FROM delayed_event WHERE nid IN (SELECT nid FROM delayed_event"
        " WHERE user_nid = ? AND due_ms IS NULL"
        " ORDER BY ended_ms DESC, nid DESC LIMIT -1 OFFSET ?)",
        user,
        most,
    )


def forget_older(tx: Tx, before_ms: int) -> None:
    """Forget what was over before a time."""
    tx.run("DELETE FROM delayed_event WHERE due_ms IS NULL AND ended_ms < ?", before_ms)


def id_of(tx: Tx, stored: StoredEvent) -> str:
    """Under which identifier an event was scheduled; empty for one that was not."""
    if stored.delay_id is None:
        row = tx.one("SELECT delay_id FROM was_delayed WHERE event_nid = ?", stored.nid)
        stored.delay_id = "" if row is None else str(row[0])
    return stored.delay_id


def _delayed(row: tuple[Any, ...]) -> Delayed:
    return Delayed(*row)
