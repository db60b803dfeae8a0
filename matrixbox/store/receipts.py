"""Read receipts: one row per user, kind and thread of a room."""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen

from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx


class Kind(IntEnum):
    """What a receipt says, and to whom."""

    READ = 1
    READ_PRIVATE = 2


@frozen
class Receipt:
    """How far a user has read."""

    user: UserNid
    kind: Kind
    thread: str  # "": not about a thread
    event_id: str
    point: tuple[int, int]  # the event's place in the timeline
    ts: int
    pos: int


def put(tx: Tx, room: RoomNid, receipt: Receipt) -> None:
    """Store a receipt over the one it follows."""
    tx.run(
        "INSERT INTO receipt (room_nid, user_nid, kind, thread, event_id, event_pos, event_sub,"
        " ts, pos) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (room_nid, user_nid, kind, thread) DO UPDATE SET"
        " event_id = excluded.event_id, event_pos = excluded.event_pos,"
        " event_sub = excluded.event_sub, ts = excluded.ts, pos = excluded.pos",
        room,
        receipt.user,
        int(receipt.kind),
        receipt.thread,
        receipt.event_id,
        *receipt.point,
        receipt.ts,
        receipt.pos,
    )


def of_user(tx: Tx, room: RoomNid, user: UserNid) -> list[Receipt]:
    """One user's receipts in a room."""
    rows = tx.run(
        "SELECT user_nid, kind, thread, event_id, event_pos, event_sub, ts, pos FROM receipt"
        " WHERE room_nid = ? AND user_nid = ?",
        room,
        user,
    )
    return [_receipt(row) for row in rows]


def since(tx: Tx, room: RoomNid, after: int, until: int) -> list[Receipt]:
    """The receipts of a room that were set at positions in (after, until]."""
    rows = tx.run(
        "SELECT user_nid, kind, thread, event_id, event_pos, event_sub, ts, pos FROM receipt"
        " WHERE room_nid = ? AND pos > ? AND pos <= ?",
        room,
        after,
        until,
    )
    return [_receipt(row) for row in rows]


def _receipt(row: tuple[object, ...]) -> Receipt:
    user, kind, thread, event_id, event_pos, event_sub, ts, pos = row
    return Receipt(
        UserNid(user),  # type: ignore[arg-type]
        Kind(kind),  # type: ignore[arg-type]
        str(thread),
        str(event_id),
        (event_pos, event_sub),  # type: ignore[arg-type]
        ts,  # type: ignore[arg-type]
        pos,  # type: ignore[arg-type]
    )
