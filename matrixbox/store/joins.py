"""What is remembered of rooms that this server is not in, or not wholly in yet.

Invitations and knocks of our users elsewhere; rooms that were joined without their members; rows
in bulk, for the state of rooms with many of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from attrs import frozen

from matrixbox.core.identifiers import EventId, ServerName, UserId
from matrixbox.core.json import decode_stored, encode
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import EventNid, RoomNid, SlotNid, SnapshotNid, UserNid
from matrixbox.store.transaction import Tx

# --- invitations and knocks elsewhere


@frozen
class Outside:
    """An invitation or a knock of a user of ours in a room that this server is not in."""

    event_id: EventId
    sender: UserId
    servers: tuple[ServerName, ...]


def put_outside(tx: Tx, room: RoomNid, user: UserNid, found: Outside) -> None:
    """Remember one; the last one counts."""
    tx.run(
        "INSERT OR REPLACE INTO outside (room_nid, user_nid, event_id, sender, servers)"
        " VALUES (?, ?, ?, ?, ?)",
        room,
        user,
        found.event_id,
        found.sender,
        " ".join(found.servers),
    )


def outside(tx: Tx, room: RoomNid, user: UserNid) -> Outside | None:
    """What is remembered of a user's invitation or knock."""
    row = tx.one(
        "SELECT event_id, sender, servers FROM outside WHERE room_nid = ? AND user_nid = ?",
        room,
        user,
    )
    if row is None:
        return None
    servers = tuple(ServerName(name) for name in row[2].split())
    return Outside(EventId(row[0]), UserId(row[1]), servers)


def drop_outside(tx: Tx, room: RoomNid, user: UserNid) -> None:
    """Forget it."""
    tx.run("DELETE FROM outside WHERE room_nid = ? AND user_nid = ?", room, user)


def waiting_invitations(tx: Tx, user: UserNid) -> int:
    """How many invitations a user has not answered."""
    row = tx.one("SELECT COUNT(*) FROM member WHERE user_nid = ? AND membership = 2", user)
    assert row is not None
    return int(row[0])


def set_version(tx: Tx, room: RoomNid, version: str) -> None:
    """Correct the version of a room of which nothing but somebody's word was known."""
    tx.run("UPDATE room SET version = ? WHERE room_nid = ?", version, room)
    tx.caches.room_rules.drop(room)
    tx.after_commit(tx.caches.room_rules.drop, room)


# --- many rows at once


@frozen
class Entry:
    """A state event by its place in the state; what it says of whom, if it is a membership."""

    slot: SlotNid
    nid: EventNid
    user: UserNid | None = None
    membership: Membership | None = None


def state_rows(
    tx: Tx, room: RoomNid, event_ids: Iterable[EventId]
) -> list[tuple[EventId, EventNid, SlotNid, int]]:
    """Number, slot and status of the state events of a room among some that are stored."""
    found = []
    for some in _batches(event_ids):
        rows = tx.run(
            "SELECT event_id, nid, slot_nid, status FROM event"
            " WHERE event_id IN (SELECT value FROM json_each(?))"
            " AND room_nid = ? AND slot_nid IS NOT NULL",
            encode(some).decode(),
            room,
        )
        found += [
            (EventId(name), EventNid(nid), SlotNid(slot), status)
            for name, nid, slot, status in rows
        ]
    return found


def missing(tx: Tx, event_ids: Iterable[EventId]) -> list[EventId]:
    """Those of some events that are not stored."""
    wanted = dict.fromkeys(event_ids)
    for some in _batches(list(wanted)):
        for row in tx.run(
            "SELECT event_id FROM event WHERE event_id IN (SELECT value FROM json_each(?))",
            encode(some).decode(),
        ):
            del wanted[row[0]]
    return list(wanted)


def _batches(event_ids: Iterable[EventId]) -> Iterator[list[EventId]]:
    rest = iter(event_ids)
    while some := list(islice(rest, 500)):
        yield some


def add_far_members(tx: Tx, room: RoomNid, pos: int, found: Sequence[Entry]) -> None:
    """Put memberships of users of other servers where the current state has none.

    They count as having been there before everything that is known of the room: no change of the
    state is recorded.
    """
    for entry in found:
        assert entry.membership is not None
        tx.run(
            "INSERT OR IGNORE INTO current_state (room_nid, slot_nid, event_nid) VALUES (?, ?, ?)",
            room,
            entry.slot,
            entry.nid,
        )
        if tx.rows_changed:
            tx.run(
                "INSERT INTO member (room_nid, user_nid, membership, event_nid, pos, is_local)"
                " VALUES (?, ?, ?, ?, ?, 0)"
                " ON CONFLICT (room_nid, user_nid) DO UPDATE SET membership = excluded.membership,"
                " event_nid = excluded.event_nid, pos = excluded.pos",
                room,
                entry.user,
                int(entry.membership),
                entry.nid,
                pos,
            )
    tx.after_commit(tx.caches.joined_counts.drop, room)
    tx.after_commit(tx.caches.servers.drop, room)


def placed_since(tx: Tx, room: RoomNid, nid: EventNid) -> list[EventNid]:
    """The events of a room with the state around them that were stored after one."""
    rows = tx.run(
        "SELECT nid FROM event WHERE room_nid = ? AND snapshot_nid IS NOT NULL AND sub = 0"
        " AND (nid > ? OR pos > ?) ORDER BY COALESCE(pos, nid)",
        room,
        nid,
        nid,
    )
    return [EventNid(row[0]) for row in rows]


def replace_snapshots(
    tx: Tx, nid: EventNid, before: SnapshotNid, after: SnapshotNid | None, status: int
) -> None:
    """Correct the state around an event, and the verdict on it."""
    tx.run(
        "UPDATE event SET snapshot_nid = ?, after_nid = ?, status = ?,"
        " pos = CASE WHEN ? THEN NULL ELSE pos END WHERE nid = ?",
        before,
        after,
        status,
        bool(status & 1),
        nid,
    )
    tx.caches.events.drop(nid)
    tx.after_commit(tx.caches.events.drop, nid)


def show(tx: Tx, nid: EventNid, pos: int) -> None:
    """Give an event that was hidden so far its place at the timeline's end."""
    tx.run("UPDATE event SET pos = ? WHERE nid = ? AND pos IS NULL", pos, nid)
    tx.caches.events.drop(nid)
    tx.after_commit(tx.caches.events.drop, nid)


# --- rooms joined without their members


@frozen
class PartialRoom:
    """A room whose members are not all known yet."""

    room: RoomNid
    join: EventNid
    resident: ServerName
    servers: tuple[ServerName, ...]


def put_partial(tx: Tx, found: PartialRoom) -> None:
    """Flag a room."""
    tx.run(
        "INSERT OR REPLACE INTO partial_room (room_nid, join_nid, resident, servers)"
        " VALUES (?, ?, ?, ?)",
        found.room,
        found.join,
        found.resident,
        encode(list(found.servers)),
    )


def partial(tx: Tx, room: RoomNid) -> PartialRoom | None:
    """The flag of a room; None where all is known."""
    row = tx.one("SELECT join_nid, resident, servers FROM partial_room WHERE room_nid = ?", room)
    return None if row is None else _partial(room, *row)


def partial_rooms(tx: Tx) -> list[PartialRoom]:
    """All flagged rooms."""
    rows = tx.run("SELECT room_nid, join_nid, resident, servers FROM partial_room")
    return [_partial(*row) for row in rows]


def drop_partial(tx: Tx, room: RoomNid, pos: int | None = None) -> None:
    """All is known of a room now, from a position on; None: its members were never missing."""
    tx.run("DELETE FROM partial_room WHERE room_nid = ?", room)
    if pos is not None:
        tx.run("INSERT OR REPLACE INTO completed_room (room_nid, pos) VALUES (?, ?)", room, pos)


def completed(tx: Tx, room: RoomNid) -> int:
    """The position at which the last missing members of a room came; 0: they never were."""
    row = tx.one("SELECT pos FROM completed_room WHERE room_nid = ?", room)
    return 0 if row is None else int(row[0])


def _partial(room: int, join: int, resident: str, servers: bytes) -> PartialRoom:
    names = decode_stored(bytes(servers))
    assert isinstance(names, list)
    found = tuple(ServerName(str(name)) for name in names)
    return PartialRoom(RoomNid(room), EventNid(join), ServerName(resident), found)
