"""What other servers sent: answers to their transactions, and events that wait for others."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from attrs import frozen

from matrixbox.core.identifiers import EventId, ServerName
from matrixbox.core.json import Json, decode_stored, encode_canonical
from matrixbox.store import bodies
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

ANSWERS_KEPT = 20  # of each server; it has one transaction under way at a time ([B5.02])
MAX_WAITING_OF_ROOM = 1_000
MAX_WAITING_OF_ORIGIN = 2_000
MAX_WAITING = 10_000
MAX_COPIES = 12  # of one event: what is waiting may be a spoiled copy of it ...
MAX_COPIES_OF_ORIGIN = 2  # ... so others cannot keep those out that its own server sends


# --- answers to transactions


def answer(tx: Tx, origin: ServerName, txn_id: str) -> bytes | None:
    """What was answered to a server's transaction, or None if it is new."""
    row = tx.one(
        "SELECT answer FROM inbound_transaction WHERE origin = ? AND txn_id = ?", origin, txn_id
    )
    return None if row is None else bytes(row[0])


def put_answer(tx: Tx, origin: ServerName, txn_id: str, body: bytes) -> None:
    """Keep the answer to a transaction, and let go of that server's old ones."""
    tx.run(
        "INSERT INTO inbound_transaction (origin, txn_id, answer) VALUES (?, ?, ?)"
        " ON CONFLICT (origin, txn_id) DO NOTHING",
        origin,
        txn_id,
        body,
    )
    tx.run(
        "DELETE FROM inbound_transaction WHERE origin = ? AND nid <= (SELECT nid"
        " FROM inbound_transaction WHERE origin = ? ORDER BY nid DESC LIMIT 1 OFFSET ?)",
        origin,
        origin,
        ANSWERS_KEPT,
    )


# --- events that wait


@frozen
class Waiting:
    """One copy of an event that was acknowledged and is not in its room yet."""

    room: RoomNid
    event_id: EventId
    digest: bytes
    origin: ServerName
    signed: bool
    attempts: int
    pdu: Mapping[str, Json]


def wait(
    tx: Tx,
    room: RoomNid,
    event_id: EventId,
    origin: ServerName,
    pdu: Mapping[str, Json],
    now_ms: int,
    *,
    signed: bool,
) -> bool:
    """Keep an event until it can be let into its room.  False when too many wait already."""
    json = encode_canonical(pdu)
    digest = sha256(json).digest()[:16]
    row = tx.one(
        "SELECT (SELECT count(*) FROM inbound_pdu WHERE room_nid = ?),"
        " (SELECT count(*) FROM inbound_pdu WHERE origin = ?),"
        " (SELECT count(*) FROM inbound_pdu),"
        " (SELECT count(*) FROM inbound_pdu WHERE room_nid = ? AND event_id = ?),"
        " (SELECT count(*) FROM inbound_pdu WHERE room_nid = ? AND event_id = ? AND origin = ?)",
        room,
        origin,
        room,
        event_id,
        room,
        event_id,
        origin,
    )
    assert row is not None
    bounds = (
        MAX_WAITING_OF_ROOM,
        MAX_WAITING_OF_ORIGIN,
        MAX_WAITING,
        MAX_COPIES,
        MAX_COPIES_OF_ORIGIN,
    )
    if any(count >= bound for count, bound in zip(row, bounds, strict=True)):
        known = tx.one(
            "SELECT 1 FROM inbound_pdu WHERE room_nid = ? AND event_id = ? AND digest = ?",
            room,
            event_id,
            digest,
        )
        return known is not None
    tx.run(
        "INSERT INTO inbound_pdu (room_nid, event_id, digest, origin, signed, attempts,"
        " received_ms, due_ms, json) VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?)"
        " ON CONFLICT (room_nid, event_id, digest) DO UPDATE"
        " SET signed = max(signed, excluded.signed)",
        room,
        event_id,
        digest,
        origin,
        int(signed),
        now_ms,
        now_ms,
        bodies.pack(json),
    )
    return True


def due(tx: Tx, room: RoomNid, now_ms: int, limit: int) -> list[Waiting]:
    """The events of a room that are to be tried now, those with the fewest attempts first."""
    rows = tx.run(
        "SELECT event_id, digest, origin, signed, attempts, json FROM inbound_pdu"
        " WHERE room_nid = ? AND due_ms <= ? ORDER BY attempts, received_ms, event_id, digest"
        " LIMIT ?",
        room,
        now_ms,
        limit,
    )
    return [_waiting(room, *row) for row in rows]


def _waiting(
    room: RoomNid,
    event_id: str,
    digest: bytes,
    origin: str,
    signed: int,
    attempts: int,
    json: bytes,
) -> Waiting:
    pdu = decode_stored(bodies.unpack(json), exact_numbers=True)
    assert isinstance(pdu, Mapping)
    return Waiting(room, EventId(event_id), digest, ServerName(origin), bool(signed), attempts, pdu)


def rooms_due(tx: Tx, now_ms: int) -> list[RoomNid]:
    """The rooms with events that are to be tried now."""
    rows = tx.run("SELECT DISTINCT room_nid FROM inbound_pdu WHERE due_ms <= ?", now_ms)
    return sorted(RoomNid(row[0]) for row in rows)


def next_due(tx: Tx, now_ms: int) -> int | None:
    """When the next event is to be tried that is not due yet, in ms; None when there is none."""
    row = tx.one("SELECT min(due_ms) FROM inbound_pdu WHERE due_ms > ?", now_ms)
    return None if row is None or row[0] is None else int(row[0])


def settle(tx: Tx, room: RoomNid, event_id: EventId) -> None:
    """An event waits no longer, in any copy."""
    tx.run("DELETE FROM inbound_pdu WHERE room_nid = ? AND event_id = ?", room, event_id)


def discard(tx: Tx, waiting: Waiting) -> None:
    """One copy is of no use."""
    tx.run(
        "DELETE FROM inbound_pdu WHERE room_nid = ? AND event_id = ? AND digest = ?",
        waiting.room,
        waiting.event_id,
        waiting.digest,
    )


def postpone(tx: Tx, waiting: Waiting, due_ms: int) -> None:
    """Try an event again later."""
    tx.run(
        "UPDATE inbound_pdu SET attempts = attempts + 1, due_ms = ?"
        " WHERE room_nid = ? AND event_id = ? AND digest = ?",
        due_ms,
        waiting.room,
        waiting.event_id,
        waiting.digest,
    )


def has_later(tx: Tx, origin: ServerName, than_ms: int, attempts: int) -> bool:
    """Whether something that a server sent, tried so often at most, is due only after a time."""
    row = tx.one(
        "SELECT 1 FROM inbound_pdu WHERE origin = ? AND due_ms > ? AND attempts <= ? LIMIT 1",
        origin,
        than_ms,
        attempts,
    )
    return row is not None


def hasten(tx: Tx, origin: ServerName, due_ms: int, attempts: int) -> None:
    """Try no later than at a time what a server sent, and was tried so often at most."""
    tx.run(
        "UPDATE inbound_pdu SET due_ms = ? WHERE origin = ? AND due_ms > ? AND attempts <= ?",
        due_ms,
        origin,
        due_ms,
        attempts,
    )


def hasten_all(tx: Tx, due_ms: int) -> None:
    """Let nothing be due later than at a time: the clock has gone back (T153)."""
    tx.run("UPDATE inbound_pdu SET due_ms = ? WHERE due_ms > ?", due_ms, due_ms)


# --- rooms that cost too much


def park(tx: Tx, room: RoomNid, now_ms: int, reason: str) -> None:
    """Take no more events of a room from other servers (T029)."""
    tx.run(
        "INSERT OR IGNORE INTO parked_room (room_nid, since_ms, reason) VALUES (?, ?, ?)",
        room,
        now_ms,
        reason,
    )


def parked(tx: Tx, room: RoomNid) -> str | None:
    """Why a room is parked; None if it is not."""
    row = tx.one("SELECT reason FROM parked_room WHERE room_nid = ?", room)
    return None if row is None else str(row[0])


def unpark(tx: Tx, room: RoomNid) -> None:
    """Try again with a room."""
    tx.run("DELETE FROM parked_room WHERE room_nid = ?", room)


def parked_rooms(tx: Tx) -> list[tuple[RoomNid, int, str]]:
    """All parked rooms: number, since when (ms), why."""
    rows = tx.run("SELECT room_nid, since_ms, reason FROM parked_room ORDER BY room_nid")
    return [(RoomNid(row[0]), row[1], row[2]) for row in rows]
