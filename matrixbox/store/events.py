"""Event bodies, their place in the timeline, and relations between them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from enum import IntFlag

from attrs import evolve, frozen

from matrixbox.core.events import Event, event_from_stored
from matrixbox.core.identifiers import EventId
from matrixbox.core.json import Json, decode_stored, encode_canonical
from matrixbox.store import bodies, rooms
from matrixbox.store.caches import Caches, StoredEvent
from matrixbox.store.nids import DeviceNid, EventNid, RoomNid, SlotNid, SnapshotNid, UserNid
from matrixbox.store.transaction import Tx


class Status(IntFlag):
    """What the checks on receipt said, as separate facts; 0 is an accepted event."""

    ACCEPTED = 0
    REJECTED = 1  # against its own auth events, or the state before it
    SOFT_FAILED = 2  # against the current state, or by the policy server
    OUTLIER = 4  # known without the state before it
    REJECTED_BY_AUTH = 8  # the first kind of rejection alone: never part of resolution
    HELD = 16  # a redaction whose target is unknown
    PRUNED = 32  # its content did not match its hash: stored without, until the true one comes
    PAST = 64  # it got its place when what came after it was here: it was no end of the room
    FRESH = 128  # of an outlier: it is about to get its place, nothing cites it
    HEARSAY = 256  # the state before it descends from another server's word
    DISPUTED = 512  # that state does not allow it: soft-failed, without effect on the state


HIDDEN = Status.REJECTED | Status.SOFT_FAILED | Status.OUTLIER | Status.HELD
"""What keeps an event from clients."""


Point = tuple[int, int]  # (pos, sub): just after the event at that place


@frozen
class Placement:
    """Where a new event goes: the facts of its row beside the event itself."""

    room: RoomNid
    status: Status
    slot: SlotNid | None
    snapshot: SnapshotNid | None
    after: SnapshotNid | None
    auth: tuple[EventNid, ...]
    notify: bytes | None = None
    in_timeline: bool = True
    sent_by: DeviceNid | None = None
    txn_id: str | None = None


def insert(
    tx: Tx, nid: EventNid, event: Event, place: Placement, at: Point | None = None
) -> StoredEvent:
    """Store a new event under a fresh position, at the timeline's end if it belongs there.

    ``at`` is another place in the timeline, for history that is found later.
    """
    pos, sub = at or (nid, 0)
    tx.run(
        "INSERT INTO event (nid, event_id, room_nid, pos, sub, status, slot_nid, snapshot_nid,"
        " after_nid, sent_by, txn_id, auth, notify, json)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        nid,
        event.event_id,
        place.room,
        pos if place.in_timeline else None,
        sub,
        int(place.status),
        place.slot,
        place.snapshot,
        place.after,
        place.sent_by,
        place.txn_id,
        array("Q", place.auth).tobytes(),
        place.notify,
        bodies.pack(encode_canonical(event.json)),
    )
    stored = _stored(nid, event, place, (pos if place.in_timeline else None, sub), None)
    tx.after_commit(_remember, tx.caches, stored)
    return stored


def place(
    tx: Tx,
    known: StoredEvent,
    event: Event,
    placement: Placement,
    pos: int | None = None,
    sub: int = 0,
) -> StoredEvent:
    """Give a stored event, an outlier so far, its place and its verdict.

    ``event`` is what is stored from now on; ``pos`` and ``sub`` are its place in the timeline,
    with None for none.
    """
    tx.run(
        "UPDATE event SET pos = ?, sub = ?, status = ?, snapshot_nid = ?, after_nid = ?, auth = ?,"
        " notify = ?, json = ? WHERE nid = ?",
        pos,
        sub,
        int(placement.status),
        placement.snapshot,
        placement.after,
        array("Q", placement.auth).tobytes(),
        placement.notify,
        bodies.pack(encode_canonical(event.json)),
        known.nid,
    )
    stored = _stored(known.nid, event, placement, (pos, sub), redaction_of(tx, known.nid))
    tx.caches.events.drop(known.nid)
    tx.after_commit(_remember, tx.caches, stored)
    return stored


def restore(tx: Tx, known: StoredEvent, event: Event, status: Status) -> StoredEvent:
    """Replace the body of an event that was stored without its content."""
    tx.run(
        "UPDATE event SET json = ?, status = ? WHERE nid = ?",
        bodies.pack(encode_canonical(event.json)),
        int(status),
        known.nid,
    )
    stored = evolve(known, event=event, status=int(status), client_json=None)
    tx.caches.events.drop(known.nid)
    tx.after_commit(_remember, tx.caches, stored)
    return stored


def revise(
    tx: Tx, nid: EventNid, before: SnapshotNid, after: SnapshotNid | None, status: Status
) -> StoredEvent:
    """Correct the state around an event, and the verdict on it."""
    tx.run(
        "UPDATE event SET snapshot_nid = ?, after_nid = ?, status = ?,"
        " pos = CASE WHEN ? THEN NULL ELSE pos END WHERE nid = ?",
        before,
        after,
        int(status),
        bool(status & (Status.REJECTED | Status.SOFT_FAILED)),
        nid,
    )
    tx.caches.events.drop(nid)
    tx.after_commit(tx.caches.events.drop, nid)
    return by_nid(tx, nid)


def _stored(
    nid: EventNid,
    event: Event,
    place: Placement,
    at: tuple[int | None, int],
    redacted_by: EventNid | None,
) -> StoredEvent:
    return StoredEvent(
        nid=nid,
        event=event,
        room=place.room,
        pos=at[0],
        sub=at[1],
        status=int(place.status),
        snapshot=place.snapshot,
        after=place.after,
        redacted_by=redacted_by,
        notify=place.notify,
        sent_by=place.sent_by,
        txn_id=place.txn_id,
    )


def _remember(caches: Caches, stored: StoredEvent) -> None:
    caches.events.put(stored.nid, stored)
    caches.event_nids.put(stored.event.event_id, stored.nid)


def nid_of(tx: Tx, event_id: EventId) -> EventNid | None:
    """The number of an event, or None when it is not stored."""
    nid = tx.caches.event_nids.get(event_id)
    if nid is None:
        row = tx.one("SELECT nid FROM event WHERE event_id = ?", event_id)
        if row is None:
            return None
        nid = EventNid(row[0])
        if not tx.writable:
            tx.caches.event_nids.put(event_id, nid)
    return nid


def by_id(tx: Tx, event_id: EventId) -> StoredEvent | None:
    """An event by its name."""
    nid = nid_of(tx, event_id)
    return None if nid is None else by_nid(tx, nid)


def by_nid(tx: Tx, nid: EventNid) -> StoredEvent:
    """An event by its number, which must exist."""
    stored = tx.caches.events.get(nid)
    if stored is None:
        row = tx.one(
            "SELECT event_id, room_nid, pos, sub, status, snapshot_nid, after_nid, redacted_by,"
            " notify, sent_by, txn_id, json FROM event WHERE nid = ?",
            nid,
        )
        assert row is not None, f"event {nid} is not stored"
        event_id, room, *facts, body = row
        rules = rooms.rules(tx, room)
        pdu = decode_stored(bodies.unpack(body), exact_numbers=rules.exact_numbers)
        assert isinstance(pdu, Mapping)
        event = event_from_stored(rules, EventId(event_id), pdu)
        stored = StoredEvent(nid, event, room, *facts)
        if not tx.writable:
            tx.caches.events.put(nid, stored)
    return stored


def id_of(tx: Tx, nid: EventNid) -> EventId:
    """The name of a stored event."""
    stored = tx.caches.events.get(nid)
    if stored is not None:
        return stored.event.event_id
    row = tx.one("SELECT event_id FROM event WHERE nid = ?", nid)
    assert row is not None, f"event {nid} is not stored"
    return EventId(row[0])


def auth_nids(tx: Tx, nid: EventNid) -> Sequence[EventNid]:
    """The auth events of an event."""
    row = tx.one("SELECT auth FROM event WHERE nid = ?", nid)
    assert row is not None, f"event {nid} is not stored"
    return [EventNid(auth) for auth in array("Q", row[0])]


def redact(tx: Tx, target: EventNid, pruned: Mapping[str, Json], redaction: EventNid) -> None:
    """Replace an event's body by its pruned form (T040); the old body is gone from the database."""
    tx.run(
        "UPDATE event SET json = ?, redacted_by = ? WHERE nid = ?",
        bodies.pack(encode_canonical(pruned)),
        redaction,
        target,
    )
    tx.run("DELETE FROM relation WHERE nid = ?", target)
    tx.caches.events.drop(target)
    tx.after_commit(tx.caches.events.drop, target)


def redaction_of(tx: Tx, nid: EventNid) -> EventNid | None:
    """The redaction that pruned an event, also in this transaction; None for none."""
    row = tx.one("SELECT redacted_by FROM event WHERE nid = ?", nid)
    return None if row is None or row[0] is None else EventNid(row[0])


def hold_redaction(tx: Tx, target: EventId, redaction: EventNid) -> None:
    """Keep a redaction until its target is here (T039)."""
    tx.run(
        "INSERT OR IGNORE INTO held_redaction (target_id, redaction_nid) VALUES (?, ?)",
        target,
        redaction,
    )


def take_held_redactions(tx: Tx, target: EventId) -> list[EventNid]:
    """The redactions that waited for an event; they wait no longer."""
    rows = tx.run("SELECT redaction_nid FROM held_redaction WHERE target_id = ?", target)
    if rows:
        tx.run("DELETE FROM held_redaction WHERE target_id = ?", target)
    return [EventNid(row[0]) for row in rows]


def release(tx: Tx, nid: EventNid) -> None:
    """Show a redaction that was held back, at its place if it has one, else at the end."""
    tx.run(
        "UPDATE event SET status = status & ~?, pos = coalesce(pos, ?) WHERE nid = ?",
        int(Status.HELD),
        tx.position(),
        nid,
    )
    tx.after_commit(tx.caches.events.drop, nid)


# --- the timeline


def before(tx: Tx, room: RoomNid, point: Point, until: Point, limit: int) -> list[EventNid]:
    """Timeline events in (until, point], newest first."""
    rows = tx.run(
        "SELECT nid FROM event WHERE room_nid = ? AND pos IS NOT NULL"
        " AND (pos, sub) <= (?, ?) AND (pos, sub) > (?, ?)"
        " ORDER BY pos DESC, sub DESC LIMIT ?",
        room,
        *point,
        *until,
        limit,
    )
    return [EventNid(row[0]) for row in rows]


def after(tx: Tx, room: RoomNid, point: Point, until: Point, limit: int) -> list[EventNid]:
    """Timeline events in (point, until], oldest first."""
    rows = tx.run(
        "SELECT nid FROM event WHERE room_nid = ? AND pos IS NOT NULL"
        " AND (pos, sub) > (?, ?) AND (pos, sub) <= (?, ?)"
        " ORDER BY pos, sub LIMIT ?",
        room,
        *point,
        *until,
        limit,
    )
    return [EventNid(row[0]) for row in rows]


def first_at(tx: Tx, room: RoomNid, point: Point) -> EventNid | None:
    """The first timeline event at or after a place."""
    row = tx.one(
        "SELECT nid FROM event WHERE room_nid = ? AND pos IS NOT NULL AND (pos, sub) >= (?, ?)"
        " ORDER BY pos, sub LIMIT 1",
        room,
        *point,
    )
    return None if row is None else EventNid(row[0])


def first_live(tx: Tx, room: RoomNid) -> EventNid | None:
    """The first timeline event of a room that is no history found later."""
    row = tx.one(
        "SELECT nid FROM event WHERE room_nid = ? AND pos IS NOT NULL AND sub = 0"
        " ORDER BY pos LIMIT 1",
        room,
    )
    return None if row is None else EventNid(row[0])


def are_more(tx: Tx, room: RoomNid, pos: int, than: int) -> bool:
    """Whether a room's timeline has more events than so many after a stream position."""
    row = tx.one(
        "SELECT 1 FROM event WHERE room_nid = ? AND pos IS NOT NULL AND pos > ? AND sub = 0"
        " ORDER BY pos LIMIT 1 OFFSET ?",
        room,
        pos,
        than,
    )
    return row is not None


def newest(tx: Tx, room: RoomNid, until: int) -> EventNid | None:
    """The last timeline event at or before a stream position."""
    row = tx.one(
        "SELECT nid FROM event WHERE room_nid = ? AND pos IS NOT NULL AND (pos, sub) <= (?, 0)"
        " ORDER BY pos DESC, sub DESC LIMIT 1",
        room,
        until,
    )
    return None if row is None else EventNid(row[0])


def newest_pos(tx: Tx, room: RoomNid, until: int) -> int:
    """The position of the last timeline event at or before a stream position; 0 for none."""
    row = tx.one(
        "SELECT MAX(pos) FROM event WHERE room_nid = ? AND pos IS NOT NULL AND pos <= ?",
        room,
        until,
    )
    return 0 if row is None or row[0] is None else int(row[0])


# --- relations


@frozen
class Relation:
    """An event that relates to another one."""

    nid: EventNid
    rel_type: str
    type: str
    sender: UserNid
    key: str | None


def add_relation(tx: Tx, room: RoomNid, parent: EventId, relation: Relation) -> None:
    """Record that an event of a room relates to a parent, known here or not."""
    tx.run(
        "INSERT OR IGNORE INTO relation (parent_id, nid, room_nid, rel_type, type, sender, key)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        parent,
        relation.nid,
        room,
        relation.rel_type,
        relation.type,
        relation.sender,
        relation.key,
    )


def relations(tx: Tx, parent: EventId) -> list[Relation]:
    """The events that relate to a parent, oldest first."""
    rows = tx.run(
        "SELECT nid, rel_type, type, sender, key FROM relation WHERE parent_id = ? ORDER BY nid",
        parent,
    )
    return [
        Relation(EventNid(nid), rel_type, kind, UserNid(sender), key)
        for nid, rel_type, kind, sender, key in rows
    ]


def threads(tx: Tx, room: RoomNid) -> dict[EventId, list[Relation]]:
    """The replies of each thread of a room, oldest first, by the thread's root."""
    rows = tx.run(
        "SELECT parent_id, nid, rel_type, type, sender, key FROM relation"
        " WHERE room_nid = ? AND rel_type = 'm.thread' ORDER BY nid",
        room,
    )
    found: dict[EventId, list[Relation]] = {}
    for parent, nid, rel_type, kind, sender, key in rows:
        relation = Relation(EventNid(nid), rel_type, kind, UserNid(sender), key)
        found.setdefault(EventId(parent), []).append(relation)
    return found


def annotation_exists(tx: Tx, parent: EventId, sender: UserNid, kind: str, key: str) -> bool:
    """Whether the sender annotated the parent so already."""
    row = tx.one(
        "SELECT 1 FROM relation WHERE parent_id = ? AND rel_type = 'm.annotation'"
        " AND sender = ? AND type = ? AND key = ?",
        parent,
        sender,
        kind,
        key,
    )
    return row is not None
