"""Read receipts: one row per user, kind and thread of a room."""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen

from matrixbox.core.identifiers import ServerName
from matrixbox.store.nids import RoomNid, ServerNid, UserNid
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


def newest(tx: Tx, room: RoomNid, me: UserNid, until: int, limit: int) -> list[Receipt]:
    """The last receipts of a room that were set up to a position, a user's own among them."""
    rows = tx.run(
        "SELECT user_nid, kind, thread, event_id, event_pos, event_sub, ts, pos FROM receipt"
        " WHERE room_nid = ? AND pos <= ? ORDER BY user_nid != ?, pos DESC LIMIT ?",
        room,
        until,
        me,
        limit,
    )
    return [_receipt(row) for row in rows]


def public_of_locals(tx: Tx, room: RoomNid, after: int, until: int) -> list[Receipt]:
    """What users of ours in a room tell everybody to have read, at positions in (after, until]."""
    rows = tx.run(
        "SELECT user_nid, kind, thread, event_id, event_pos, event_sub, ts, r.pos"
        " FROM member AS m CROSS JOIN receipt AS r USING (room_nid, user_nid)"
        " WHERE m.room_nid = ? AND m.is_local = 1 AND m.membership = 1"
        " AND r.kind = 1 AND r.pos > ? AND r.pos <= ? ORDER BY r.pos",
        room,
        after,
        until,
    )
    return [_receipt(row) for row in rows]


def rooms_owed(tx: Tx, server: ServerNid, after: int) -> list[RoomNid]:
    """The rooms of a server in which users of ours told everybody of reading beyond a position."""
    rows = tx.run(
        "SELECT room_nid FROM room_server AS s WHERE server_nid = ?1 AND EXISTS"
        " (SELECT 1 FROM member AS m CROSS JOIN receipt AS r USING (room_nid, user_nid)"
        "  WHERE m.room_nid = s.room_nid AND m.is_local = 1 AND m.membership = 1"
        "  AND r.kind = 1 AND r.pos > ?2 AND r.pos >= s.since)",
        server,
        after,
    )
    return [RoomNid(row[0]) for row in rows]


def owed(tx: Tx) -> list[ServerName]:
    """The servers that were not told yet of all that users of ours told everybody to have read."""
    rows = tx.run(
        "SELECT DISTINCT name FROM account JOIN receipt AS r USING (user_nid)"
        " JOIN room_server AS s USING (room_nid) JOIN server AS d USING (server_nid)"
        " WHERE r.kind = 1 AND r.pos > d.cursor AND r.pos >= s.since"
    )
    return [ServerName(row[0]) for row in rows]


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
