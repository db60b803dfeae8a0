"""Messages waiting for devices."""

from __future__ import annotations

from attrs import frozen

from matrixbox.core.identifiers import ServerName
from matrixbox.store.nids import DeviceNid
from matrixbox.store.transaction import Tx


@frozen
class Message:
    """A message in the order of arrival; ``json`` is the event as the client gets it."""

    pos: int
    json: bytes


def put(tx: Tx, device: DeviceNid, pos: int, origin: ServerName | None, json: bytes) -> None:
    """Leave a message for a device; one for each position."""
    tx.run(
        "INSERT INTO inbox (device_nid, pos, origin, json) VALUES (?, ?, ?, ?)",
        device,
        pos,
        origin,
        json,
    )


def waiting(tx: Tx, device: DeviceNid, after: int, until: int, limit: int) -> list[Message]:
    """The oldest messages at positions in (after, until]."""
    rows = tx.run(
        "SELECT pos, json FROM inbox WHERE device_nid = ? AND pos > ? AND pos <= ?"
        " ORDER BY pos LIMIT ?",
        device,
        after,
        until,
        limit,
    )
    return [Message(row[0], bytes(row[1])) for row in rows]


def has_until(tx: Tx, device: DeviceNid, until: int) -> bool:
    """Whether there are messages up to a position."""
    row = tx.one("SELECT 1 FROM inbox WHERE device_nid = ? AND pos <= ? LIMIT 1", device, until)
    return row is not None


def remove_until(tx: Tx, device: DeviceNid, until: int) -> None:
    """Remove the messages up to a position: the client has them."""
    tx.run("DELETE FROM inbox WHERE device_nid = ? AND pos <= ?", device, until)


def remove_of_device(tx: Tx, device: DeviceNid) -> None:
    """Remove all messages for a device."""
    tx.run("DELETE FROM inbox WHERE device_nid = ?", device)


def count(tx: Tx, device: DeviceNid) -> int:
    """How many messages wait for a device."""
    row = tx.one("SELECT COUNT(*) FROM inbox WHERE device_nid = ?", device)
    assert row is not None
    return int(row[0])


def count_of_origin(tx: Tx, device: DeviceNid, origin: ServerName) -> tuple[int, int]:
    """How many messages of another server wait for a device, and their bytes."""
    row = tx.one(
        "SELECT COUNT(*), COALESCE(SUM(LENGTH(json)), 0) FROM inbox"
        " WHERE device_nid = ? AND origin = ?",
        device,
        origin,
    )
    assert row is not None
    return int(row[0]), int(row[1])


def note_received(tx: Tx, origin: ServerName, message_id: str, now_ms: int) -> bool:
    """Remember a message of another server; False: it was received before."""
    tx.run(
        "INSERT OR IGNORE INTO received_message (origin, message_id, received_ms) VALUES (?, ?, ?)",
        origin,
        message_id,
        now_ms,
    )
    return tx.rows_changed > 0


def forget_received(tx: Tx, before_ms: int) -> None:
    """Forget which messages were received before a time."""
    tx.run("DELETE FROM received_message WHERE received_ms < ?", before_ms)
