"""Events whose states other servers have told, and rooms whose states are to be worked out anew."""

from __future__ import annotations

from attrs import frozen

from matrixbox.store.nids import EventNid, RoomNid, SnapshotNid
from matrixbox.store.transaction import Tx

TOLD = "hearsay"
"""Rings when a state was told."""

REVISION = "revisions"
"""Rings when states are to be worked out anew."""


@frozen
class Told:
    """An event whose parents are not all here; the state before it is another server's word.

    ``pages`` is how many pages of history may be fetched to fill the gap before it, 0 where nobody
    looks for it by itself.
    """

    nid: EventNid
    room: RoomNid
    state: SnapshotNid  # as it was told
    pages: int = 0
    attempts: int = 0


def put(tx: Tx, told: Told, due_ms: int) -> None:
    """Note that the state before an event was told; the gap is tried at a time, if it is at all."""
    tx.run(
        "INSERT INTO hearsay (nid, room_nid, told_nid, pages, attempts, due_ms)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (nid) DO UPDATE SET told_nid = excluded.told_nid",
        told.nid,
        told.room,
        told.state,
        told.pages,
        told.attempts,
        due_ms if told.pages else None,
    )
    if told.pages:
        tx.changed(topics=(TOLD,))


def get(tx: Tx, nid: EventNid) -> Told | None:
    """What was told of an event; None where the state before it follows from others."""
    row = tx.one("SELECT nid, room_nid, told_nid, pages, attempts FROM hearsay WHERE nid = ?", nid)
    return None if row is None else Told(*row)


def of_room(tx: Tx, room: RoomNid) -> list[Told]:
    """All that was told of events of a room."""
    rows = tx.run(
        "SELECT nid, room_nid, told_nid, pages, attempts FROM hearsay WHERE room_nid = ?", room
    )
    return [Told(*row) for row in rows]


def is_any(tx: Tx, room: RoomNid) -> bool:
    """Whether the state before any event of a room was told."""
    return tx.one("SELECT 1 FROM hearsay WHERE room_nid = ? LIMIT 1", room) is not None


def drop(tx: Tx, nid: EventNid) -> None:
    """The state before an event follows from its parents now."""
    tx.run("DELETE FROM hearsay WHERE nid = ?", nid)


def due(tx: Tx, now_ms: int, limit: int) -> list[Told]:
    """The gaps that are to be tried now, those first that are due for longest."""
    rows = tx.run(
        "SELECT nid, room_nid, told_nid, pages, attempts FROM hearsay"
        " WHERE due_ms IS NOT NULL AND due_ms <= ? ORDER BY due_ms, nid LIMIT ?",
        now_ms,
        limit,
    )
    return [Told(*row) for row in rows]


def next_due(tx: Tx) -> int | None:
    """When the next gap is to be tried, in ms."""
    row = tx.one("SELECT min(due_ms) FROM hearsay WHERE due_ms IS NOT NULL")
    return None if row is None or row[0] is None else int(row[0])


def postpone(tx: Tx, nid: EventNid, due_ms: int | None) -> None:
    """Try the gap before an event again later; None: never again by itself."""
    tx.run("UPDATE hearsay SET attempts = attempts + 1, due_ms = ? WHERE nid = ?", due_ms, nid)


def is_later(tx: Tx, than_ms: int) -> bool:
    """Whether a gap is due only after a time."""
    return tx.one("SELECT 1 FROM hearsay WHERE due_ms > ? LIMIT 1", than_ms) is not None


def hasten(tx: Tx, due_ms: int) -> None:
    """Let no gap be due later than at a time: the clock has gone back (T153)."""
    tx.run("UPDATE hearsay SET due_ms = ? WHERE due_ms > ?", due_ms, due_ms)


def descending(tx: Tx, room: RoomNid) -> list[EventNid]:
    """The events of a room whose states descend from what was told, in the order of storing."""
    rows = tx.run("SELECT nid FROM event WHERE room_nid = ? AND status & 256 ORDER BY nid", room)
    return [EventNid(row[0]) for row in rows]


# --- events that failed by what may have been hearsay


def doubt(tx: Tx, room: RoomNid, nid: EventNid) -> None:
    """Judge an event again when the room's states are worked out anew."""
    tx.run("INSERT OR IGNORE INTO doubt (nid, room_nid) VALUES (?, ?)", nid, room)


def take_doubts(tx: Tx, room: RoomNid, limit: int) -> list[EventNid]:
    """Some events of a room that are to be judged again, which they are now."""
    rows = tx.run("SELECT nid FROM doubt WHERE room_nid = ? ORDER BY nid LIMIT ?", room, limit)
    tx.many("DELETE FROM doubt WHERE nid = ?", rows)
    return [EventNid(row[0]) for row in rows]


# --- rooms whose states are to be worked out anew


def ask_revision(tx: Tx, room: RoomNid) -> None:
    """A gap was filled: what was told is to be replaced by what is known."""
    tx.run("INSERT OR IGNORE INTO revision (room_nid, begun) VALUES (?, 0)", room)
    tx.changed(topics=(REVISION,))


def begin_revision(tx: Tx, room: RoomNid) -> None:
    """Some states of a room are new ones from now on, and others do not know of it yet."""
    tx.run("UPDATE revision SET begun = 1 WHERE room_nid = ?", room)


def end_revision(tx: Tx, room: RoomNid) -> None:
    """All states of a room are as its events say."""
    tx.run("DELETE FROM revision WHERE room_nid = ?", room)


def revisions(tx: Tx) -> list[tuple[RoomNid, bool]]:
    """The rooms whose states are to be worked out anew, and whether that has begun."""
    rows = tx.run("SELECT room_nid, begun FROM revision ORDER BY room_nid")
    return [(RoomNid(room), bool(begun)) for room, begun in rows]
