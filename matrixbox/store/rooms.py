"""Rooms as the database knows them: identity, version, forward extremities, current state."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from attrs import frozen

from matrixbox.core.events import StateKey
from matrixbox.core.identifiers import EventId, RoomId
from matrixbox.core.room_versions import ROOM_VERSIONS, RoomRules
from matrixbox.store import names
from matrixbox.store.nids import EventNid, RoomNid, SlotNid, SnapshotNid
from matrixbox.store.transaction import Tx

GUEST_ACCESS: StateKey = ("m.room.guest_access", "")
"""Its type is the topic that rings when a room may have closed to guests."""


@frozen
class Head:
    """Where a room's graph ends, and the current state there."""

    extremities: tuple[EventNid, ...]
    snapshot: SnapshotNid


def add(tx: Tx, room_id: RoomId, version: str) -> RoomNid:
    """Store a room that was unknown; the version stays what it is said to be here ([A4.12])."""
    tx.run("INSERT INTO room (room_id, version) VALUES (?, ?)", room_id, version)
    nid = RoomNid(tx.last_rowid)
    tx.after_commit(tx.caches.rooms.put, room_id, nid)
    return nid


def rules(tx: Tx, room: RoomNid) -> RoomRules:
    """The rules of the room's version."""
    found = tx.caches.room_rules.get(room)
    if found is None:
        row = tx.one("SELECT version FROM room WHERE room_nid = ?", room)
        assert row is not None, f"room {room} is not stored"
        found = ROOM_VERSIONS[row[0]]
        if not tx.writable:
            tx.caches.room_rules.put(room, found)
    return found


def set_create(tx: Tx, room: RoomNid, create: EventNid) -> None:
    """Record the accepted create event; from then on the room's graph is known here."""
    tx.run("UPDATE room SET create_nid = ? WHERE room_nid = ?", create, room)


def create_nid(tx: Tx, room: RoomNid) -> EventNid | None:
    """The create event, or None when only an invite or a knock is known."""
    row = tx.one("SELECT create_nid FROM room WHERE room_nid = ?", room)
    return None if row is None or row[0] is None else EventNid(row[0])


def head(tx: Tx, room: RoomNid) -> Head | None:
    """The end of the room's graph, or None without one."""
    row = tx.one("SELECT extremities, snapshot_nid FROM room_head WHERE room_nid = ?", room)
    if row is None:
        return None
    extremities = array("Q", row[0])
    return Head(tuple(EventNid(nid) for nid in extremities), SnapshotNid(row[1]))


def set_head(tx: Tx, room: RoomNid, new: Head) -> None:
    """Move the end of the room's graph."""
    tx.run(
        "INSERT INTO room_head (room_nid, snapshot_nid, extremities) VALUES (?, ?, ?)"
        " ON CONFLICT (room_nid) DO UPDATE"
        " SET snapshot_nid = excluded.snapshot_nid, extremities = excluded.extremities",
        room,
        new.snapshot,
        array("Q", new.extremities).tobytes(),
    )


# --- current state


def change_state(
    tx: Tx, room: RoomNid, pos: int, changes: Iterable[tuple[SlotNid, int, int]]
) -> None:
    """Apply (slot, old event, new event) to the current state, 0 standing for none."""
    guests = names.slot_nid(tx, GUEST_ACCESS)
    for slot, old, new in changes:
        if slot == guests:
            tx.changed(topics=(GUEST_ACCESS[0],))
        tx.run(
            "INSERT INTO state_change (room_nid, pos, slot_nid, old_nid, new_nid)"
            " VALUES (?, ?, ?, ?, ?)",
            room,
            pos,
            slot,
            old,
            new,
        )
        if new:
            tx.run(
                "INSERT INTO current_state (room_nid, slot_nid, event_nid) VALUES (?, ?, ?)"
                " ON CONFLICT (room_nid, slot_nid) DO UPDATE SET event_nid = excluded.event_nid",
                room,
                slot,
                new,
            )
        else:
            tx.run("DELETE FROM current_state WHERE room_nid = ? AND slot_nid = ?", room, slot)


def current_event(tx: Tx, room: RoomNid, key: StateKey) -> EventNid | None:
    """The event in one slot of the current state."""
    slot = names.slot_nid(tx, key)
    if slot is None:
        return None
    row = tx.one(
        "SELECT event_nid FROM current_state WHERE room_nid = ? AND slot_nid = ?", room, slot
    )
    return None if row is None else EventNid(row[0])


def current_state(tx: Tx, room: RoomNid) -> dict[SlotNid, EventNid]:
    """The whole current state."""
    rows = tx.run("SELECT slot_nid, event_nid FROM current_state WHERE room_nid = ?", room)
    return {SlotNid(slot): EventNid(event) for slot, event in rows}


def current_of_type(tx: Tx, room: RoomNid, event_type: str) -> list[EventNid]:
    """The events of one type in the current state."""
    rows = tx.run(
        "SELECT event_nid FROM slot CROSS JOIN current_state USING (slot_nid)"
        " WHERE type = ? AND room_nid = ?",
        event_type,
        room,
    )
    return [EventNid(row[0]) for row in rows]


def current_but_members(tx: Tx, room: RoomNid) -> dict[SlotNid, EventNid]:
    """The current state without the membership events."""
    rows = tx.run(
        "SELECT slot_nid, event_nid FROM current_state JOIN slot USING (slot_nid)"
        " WHERE room_nid = ? AND type != 'm.room.member'",
        room,
    )
    return {SlotNid(slot): EventNid(event) for slot, event in rows}


@frozen
class StateChange:
    """One slot of the current state got another event; 0 stands for none."""

    pos: int
    slot: SlotNid
    old: EventNid
    new: EventNid


def state_changes(tx: Tx, room: RoomNid, after: int, until: int) -> list[StateChange]:
    """Changes of the current state at positions in (after, until], oldest first."""
    rows = tx.run(
        "SELECT pos, slot_nid, old_nid, new_nid FROM state_change"
        " WHERE room_nid = ? AND pos > ? AND pos <= ? ORDER BY pos, slot_nid",
        room,
        after,
        until,
    )
    return [
        StateChange(pos, SlotNid(slot), EventNid(old), EventNid(new))
        for pos, slot, old, new in rows
    ]


def first_change(tx: Tx, room: RoomNid, slot: SlotNid, after: int) -> StateChange | None:
    """The first change of a slot of the current state beyond a position."""
    row = tx.one(
        "SELECT pos, old_nid, new_nid FROM state_change"
        " WHERE room_nid = ? AND pos > ? AND slot_nid = ? ORDER BY pos LIMIT 1",
        room,
        after,
        slot,
    )
    return None if row is None else StateChange(row[0], slot, EventNid(row[1]), EventNid(row[2]))


def slot_history(tx: Tx, room: RoomNid, slot: SlotNid) -> list[tuple[int, EventNid]]:
    """All that ever stood in one slot of the current state: (position, event; 0: none)."""
    rows = tx.run(
        "SELECT pos, new_nid FROM state_change WHERE room_nid = ? AND slot_nid = ? ORDER BY pos",
        room,
        slot,
    )
    return [(pos, EventNid(nid)) for pos, nid in rows]


# --- gaps in the graph


def add_gap(tx: Tx, room: RoomNid, missing: EventId, cited_by: EventNid) -> None:
    """Note that an event cites one that is missing here."""
    tx.run(
        "INSERT OR IGNORE INTO gap (room_nid, event_id, cited_by) VALUES (?, ?, ?)",
        room,
        missing,
        cited_by,
    )


def citing(tx: Tx, room: RoomNid, missing: EventId) -> list[EventNid]:
    """The events here that cite an event which is missing."""
    rows = tx.run(
        "SELECT cited_by FROM gap WHERE room_nid = ? AND event_id = ? ORDER BY cited_by",
        room,
        missing,
    )
    return [EventNid(row[0]) for row in rows]


def fill_gap(tx: Tx, room: RoomNid, event_id: EventId) -> None:
    """An event that was missing is here."""
    tx.run("DELETE FROM gap WHERE room_nid = ? AND event_id = ?", room, event_id)


def gaps(tx: Tx, room: RoomNid) -> list[tuple[EventNid, EventId]]:
    """What is missing, with the events that cite it."""
    rows = tx.run("SELECT cited_by, event_id FROM gap WHERE room_nid = ?", room)
    return [(EventNid(nid), EventId(event_id)) for nid, event_id in rows]


def newest_gap(tx: Tx, room: RoomNid, since: int, now: int, hidden: int) -> tuple[int, int] | None:
    """Where the newest event in (since, now] stands that cites what is missing.

    Events with a status among ``hidden`` do not count.
    """
    return tx.one(
        "SELECT ifnull(pos, nid) AS place, sub FROM gap JOIN event ON nid = cited_by"
        " WHERE gap.room_nid = ? AND place > ? AND place <= ? AND NOT status & ?"
        " ORDER BY place DESC, sub DESC LIMIT 1",
        room,
        since,
        now,
        hidden,
    )


# --- directory


def set_published(tx: Tx, room: RoomNid, published: int) -> None:
    """List the room in our directory (1), or take it out (0)."""
    tx.run("UPDATE room SET published = ? WHERE room_nid = ?", published, room)


def is_published(tx: Tx, room: RoomNid) -> bool:
    """Whether our directory lists the room."""
    row = tx.one("SELECT published FROM room WHERE room_nid = ?", room)
    return row is not None and bool(row[0])


def published(tx: Tx) -> list[RoomNid]:
    """The rooms in our directory."""
    return [RoomNid(row[0]) for row in tx.run("SELECT room_nid FROM room WHERE published")]


def alias_target(tx: Tx, alias: str) -> tuple[RoomId, int] | None:
    """The room and the maker (user number) of a local alias."""
    row = tx.one("SELECT room_nid, creator FROM alias WHERE alias = ?", alias)
    return None if row is None else (names.room_id(tx, RoomNid(row[0])), row[1])


def add_alias(tx: Tx, alias: str, room: RoomNid, creator: int) -> bool:
    """Point a free local alias to a room; False when it is taken."""
    if tx.one("SELECT 1 FROM alias WHERE alias = ?", alias) is not None:
        return False
    tx.run("INSERT INTO alias (alias, room_nid, creator) VALUES (?, ?, ?)", alias, room, creator)
    return True


def remove_alias(tx: Tx, alias: str) -> None:
    """Forget a local alias."""
    tx.run("DELETE FROM alias WHERE alias = ?", alias)


def aliases(tx: Tx, room: RoomNid) -> Sequence[str]:
    """The local aliases of a room, in order."""
    rows = tx.run("SELECT alias FROM alias WHERE room_nid = ? ORDER BY alias", room)
    return [row[0] for row in rows]


def move_aliases(tx: Tx, old: RoomNid, new: RoomNid) -> None:
    """Let a room's local aliases lead to its successor."""
    tx.run("UPDATE alias SET room_nid = ? WHERE room_nid = ?", new, old)
