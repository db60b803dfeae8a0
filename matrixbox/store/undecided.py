"""Events of rooms whose signatures could not be checked yet, and joins that are not settled.

What is here survives restarts; ``federation.undecided`` and ``federation.owed_joins`` work it off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from matrixbox.core.identifiers import EventId, ServerName
from matrixbox.core.json import Json, decode_stored, encode, encode_canonical
from matrixbox.store import bodies
from matrixbox.store.nids import EventNid, RoomNid, UserNid
from matrixbox.store.transaction import Tx

# --- events


@frozen
class Kept:
    """An event that nothing can be concluded about yet."""

    event_id: EventId
    is_state: bool  # told as part of the state before our join
    pdu: Mapping[str, Json]


@frozen
class UndecidedRoom:
    """A room with such events."""

    room: RoomNid
    join: EventNid
    attempts: int


def keep(tx: Tx, room: RoomNid, join: EventNid, kept: Sequence[Kept]) -> None:
    """Keep the undecided events of the state before a join in place of all that were kept."""
    drop_room(tx, room)
    if not kept:
        return
    tx.run("INSERT INTO undecided_room VALUES (?, ?, 0)", room, join)
    tx.many(
        "INSERT OR IGNORE INTO undecided_event (room_nid, event_id, is_state, json)"
        " VALUES (?, ?, ?, ?)",
        [
            (room, one.event_id, int(one.is_state), bodies.pack(encode_canonical(dict(one.pdu))))
            for one in kept
        ],
    )


def drop_room(tx: Tx, room: RoomNid) -> None:
    """Forget what is undecided in a room."""
    tx.run("DELETE FROM undecided_room WHERE room_nid = ?", room)
    tx.run("DELETE FROM undecided_event WHERE room_nid = ?", room)


def drop_events(tx: Tx, room: RoomNid, event_ids: Iterable[EventId]) -> None:
    """Forget some events; the room too when none is left."""
    tx.many(
        "DELETE FROM undecided_event WHERE room_nid = ? AND event_id = ?",
        [(room, name) for name in event_ids],
    )
    if tx.one("SELECT 1 FROM undecided_event WHERE room_nid = ? LIMIT 1", room) is None:
        tx.run("DELETE FROM undecided_room WHERE room_nid = ?", room)


def of_room(tx: Tx, room: RoomNid) -> UndecidedRoom | None:
    """What is undecided in a room; None where nothing is."""
    row = tx.one("SELECT join_nid, attempts FROM undecided_room WHERE room_nid = ?", room)
    return None if row is None else UndecidedRoom(room, EventNid(row[0]), int(row[1]))


def in_rooms(tx: Tx) -> list[UndecidedRoom]:
    """All rooms with undecided events."""
    rows = tx.run("SELECT room_nid, join_nid, attempts FROM undecided_room ORDER BY room_nid")
    return [UndecidedRoom(RoomNid(room), EventNid(join), int(n)) for room, join, n in rows]


def events_of(tx: Tx, room: RoomNid) -> list[Kept]:
    """The undecided events of a room."""
    rows = tx.run(
        "SELECT event_id, is_state, json FROM undecided_event WHERE room_nid = ? ORDER BY event_id",
        room,
    )
    found = []
    for event_id, is_state, json in rows:
        pdu = decode_stored(bodies.unpack(json))
        assert isinstance(pdu, dict)
        found.append(Kept(EventId(event_id), bool(is_state), pdu))
    return found


def are_state(tx: Tx, room: RoomNid, event_ids: Iterable[EventId]) -> set[EventId]:
    """Those of some events that belong to a state and are undecided."""
    return {
        name
        for name in event_ids
        if tx.one(
            "SELECT 1 FROM undecided_event WHERE room_nid = ? AND event_id = ? AND is_state",
            room,
            name,
        )
    }


def put_attempts(tx: Tx, room: RoomNid, attempts: int) -> None:
    """Note that the keys could not be had once more."""
    tx.run("UPDATE undecided_room SET attempts = ? WHERE room_nid = ?", attempts, room)


# --- joins


@frozen
class OwedJoin:
    """A join that others may have let in, and that did not come to its end here."""

    room: RoomNid
    user: UserNid
    servers: tuple[ServerName, ...]
    content: Mapping[str, Json]
    goes_on: bool
    attempts: int = 0


def put_join(tx: Tx, owed: OwedJoin) -> None:
    """Remember one, in place of an earlier one of the user in the room."""
    tx.run(
        "INSERT OR REPLACE INTO owed_join (room_nid, user_nid, servers, content, goes_on, attempts)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        owed.room,
        owed.user,
        " ".join(owed.servers),
        encode(dict(owed.content)),
        int(owed.goes_on),
        owed.attempts,
    )


def put_join_attempts(tx: Tx, owed: OwedJoin) -> bool:
    """Note how often a join was tried to be settled, and with whom; False: it is by now."""
    tx.run(
        "UPDATE owed_join SET attempts = ?, servers = ? WHERE room_nid = ? AND user_nid = ?",
        owed.attempts,
        " ".join(owed.servers),
        owed.room,
        owed.user,
    )
    return bool(tx.rows_changed)


def join_of(tx: Tx, room: RoomNid, user: UserNid) -> OwedJoin | None:
    """The user's unsettled join to a room."""
    row = tx.one(
        "SELECT room_nid, user_nid, servers, content, goes_on, attempts FROM owed_join"
        " WHERE room_nid = ? AND user_nid = ?",
        room,
        user,
    )
    return None if row is None else _owed(*row)


def joins(tx: Tx) -> list[OwedJoin]:
    """All unsettled joins."""
    rows = tx.run(
        "SELECT room_nid, user_nid, servers, content, goes_on, attempts FROM owed_join"
        " ORDER BY room_nid, user_nid"
    )
    return [_owed(*row) for row in rows]


def drop_join(tx: Tx, room: RoomNid, user: UserNid) -> None:
    """The join is settled, one way or the other."""
    tx.run("DELETE FROM owed_join WHERE room_nid = ? AND user_nid = ?", room, user)


def _owed(
    room: int, user: int, servers: str, content: bytes, goes_on: int, attempts: int
) -> OwedJoin:
    decoded = decode_stored(bytes(content))
    assert isinstance(decoded, dict)
    return OwedJoin(
        RoomNid(room),
        UserNid(user),
        tuple(ServerName(name) for name in servers.split()),
        decoded,
        bool(goes_on),
        attempts,
    )
