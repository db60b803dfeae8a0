"""What is remembered of rooms that this server is not in, or not wholly in yet.

Invitations and knocks of our users elsewhere; rooms that were joined without their members; rows
in bulk, for the state of rooms with many of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

from matrixbox.core.identifiers import EventId, ServerName, UserId
from matrixbox.core.json import decode_stored, encode
from matrixbox.store import bodies
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import EventNid, RoomNid, SlotNid, UserNid
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


def put_state(
    tx: Tx, room: RoomNid, pos: int, entries: Sequence[tuple[SlotNid, int, EventNid]]
) -> None:
    """Set many slots (slot, old event, new event) of the current state."""
    tx.many(
        "INSERT INTO state_change (room_nid, pos, slot_nid, old_nid, new_nid)"
        " VALUES (?, ?, ?, ?, ?)",
        ((room, pos, slot, old, new) for slot, old, new in entries),
    )
    tx.many(
        "INSERT INTO current_state (room_nid, slot_nid, event_nid) VALUES (?, ?, ?)"
        " ON CONFLICT (room_nid, slot_nid) DO UPDATE SET event_nid = excluded.event_nid",
        ((room, slot, new) for slot, _, new in entries),
    )


def put_members(
    tx: Tx, room: RoomNid, pos: int, found: Iterable[tuple[UserNid, Membership, EventNid]]
) -> None:
    """Set the memberships of many users of other servers."""
    tx.many(
        "INSERT INTO member (room_nid, user_nid, membership, event_nid, pos, is_local)"
        " VALUES (?, ?, ?, ?, ?, 0)"
        " ON CONFLICT (room_nid, user_nid) DO UPDATE SET membership = excluded.membership,"
        " event_nid = excluded.event_nid, pos = excluded.pos",
        ((room, user, int(membership), event, pos) for user, membership, event in found),
    )
    tx.after_commit(tx.caches.joined_counts.drop, room)
    tx.after_commit(tx.caches.servers.drop, room)


def raw(tx: Tx, nid: EventNid) -> bytes:
    """An event's JSON as it goes on the wire."""
    row = tx.one("SELECT json FROM event WHERE nid = ?", nid)
    assert row is not None, f"event {nid} is not stored"
    return bodies.unpack(row[0])


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


def drop_partial(tx: Tx, room: RoomNid) -> None:
    """All is known of a room now."""
    tx.run("DELETE FROM partial_room WHERE room_nid = ?", room)


def _partial(room: int, join: int, resident: str, servers: bytes) -> PartialRoom:
    names = decode_stored(bytes(servers))
    assert isinstance(names, list)
    found = tuple(ServerName(str(name)) for name in names)
    return PartialRoom(RoomNid(room), EventNid(join), ServerName(resident), found)
