"""What is to be sent to other servers.

Matrix v1.19, Server-Server API, "Transactions" ([B5.01] to [B5.06], T083, T130).

An event for other servers is one row, however many they are: each destination has a cursor, and
gets what lies beyond it in the rooms that it was in at the time.  Only the newest rows of a room
are kept: who missed more is told of the newest event alone and asks for what came before it.
EDUs that must arrive have a row for each destination.  All rows here are written in the
transaction of what they tell of, and deleted when the destination has taken them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum

from attrs import frozen

from matrixbox.core.identifiers import ServerName
from matrixbox.core.json import Json, decode_stored, encode_canonical
from matrixbox.observe import log
from matrixbox.store import names
from matrixbox.store.nids import EventNid, RoomNid, ServerNid
from matrixbox.store.transaction import Tx

TOPIC = "outbound"
"""Rings when there may be something to send."""

KEPT_EVENTS = 1_000
"""Of one room; more than a destination may miss before only the newest event is sent."""
MAX_EDUS = 1_000
MAX_TO_DEVICE = 5_000
MAX_TO_DEVICE_BYTES = 16 * 1024 * 1024
TO_DEVICE = "m.direct_to_device"
_LOOK_EVERY = 64  # EDUs put, to see whether there are too many


class FailureKind(IntEnum):
    """How a destination failed last."""

    NONE = 0
    UNREACHABLE = 1  # no connection, no answer, or somebody else's
    REFUSING = 2  # it answers, but takes no transactions


# --- putting


def put_event(
    tx: Tx, room: RoomNid, pos: int, nid: EventNid, *, also: Iterable[ServerName] = ()
) -> None:
    """Give an event to all servers that are in the room at a position, and to some that are not."""
    tx.run("INSERT INTO outbound_event (room_nid, pos, nid) VALUES (?, ?, ?)", room, pos, nid)
    tx.many(
        "INSERT OR IGNORE INTO outbound_direct (server_nid, pos, nid) VALUES (?, ?, ?)",
        [(names.add_server(tx, server), pos, nid) for server in also],
    )
    tx.changed(topics=(TOPIC,))


def part(tx: Tx, server: ServerName, pos: int, nids: Iterable[EventNid]) -> None:
    """Give events, each once, to a server that they put out of a room on another branch of it."""
    number = names.add_server(tx, server)
    for nid in nids:
        tx.run("INSERT OR IGNORE INTO parted (event_nid, server_nid) VALUES (?, ?)", nid, number)
        if tx.rows_changed:
            tx.run(
                "INSERT OR IGNORE INTO outbound_direct (server_nid, pos, nid) VALUES (?, ?, ?)",
                number,
                pos,
                nid,
            )
            tx.changed(topics=(TOPIC,))


def was_parted(tx: Tx, server: ServerName, nid: EventNid) -> bool:
    """Whether an event was given to a server in that way."""
    number = names.server_nid(tx, server)
    row = tx.one("SELECT 1 FROM parted WHERE event_nid = ? AND server_nid = ?", nid, number or 0)
    return row is not None


def put_edu(
    tx: Tx, destination: ServerName, edu_type: str, content: Mapping[str, Json], subject: str = ""
) -> None:
    """Queue an EDU that must arrive; it is sent until the destination has taken it.

    ``subject`` names whom it tells of, such as the user of a device list.  When too many wait, only
    the newest of each subject is kept: servers see the gap and ask.  Raises JsonError for what
    canonical JSON cannot hold (T130).
    """
    server = names.add_server(tx, destination)
    tx.run(
        "INSERT INTO outbound_edu (server_nid, type, subject, json) VALUES (?, ?, ?, ?)",
        server,
        edu_type,
        subject,
        encode_canonical(dict(content)),
    )
    if tx.last_rowid % _LOOK_EVERY == 0:
        _bound_edus(tx, server)
    tx.changed(topics=(TOPIC,))


def _bound_edus(tx: Tx, server: ServerNid) -> None:
    row = tx.one(
        "SELECT COUNT(*) FILTER (WHERE type != ?2), COUNT(*) FILTER (WHERE type = ?2),"
        " TOTAL(LENGTH(json)) FILTER (WHERE type = ?2) FROM outbound_edu WHERE server_nid = ?1",
        server,
        TO_DEVICE,
    )
    assert row is not None
    others, messages, size = row
    too_many = messages > MAX_TO_DEVICE or size > MAX_TO_DEVICE_BYTES
    if others > MAX_EDUS or too_many:
        log.warning(
            "too much waits for a server",
            destination=names.server_name(tx, server),
            edus=others,
            messages=messages,
        )
    if others > MAX_EDUS:
        tx.run(
            "DELETE FROM outbound_edu WHERE server_nid = ?1 AND type != ?2 AND seq NOT IN"
            " (SELECT MAX(seq) FROM outbound_edu WHERE server_nid = ?1 AND type != ?2"
            "  GROUP BY type, subject)",
            server,
            TO_DEVICE,
        )
    if too_many:
        # Those kept longest go first: whoever was away for so long starts new sessions anyway.
        tx.run(
            "DELETE FROM outbound_edu WHERE seq IN (SELECT seq FROM"
            " (SELECT seq, ROW_NUMBER() OVER newest AS number,"
            "   SUM(LENGTH(json)) OVER newest AS bytes FROM outbound_edu"
            "   WHERE server_nid = ? AND type = ? WINDOW newest AS (ORDER BY seq DESC))"
            " WHERE number > ? OR bytes > ?)",
            server,
            TO_DEVICE,
            MAX_TO_DEVICE,
            MAX_TO_DEVICE_BYTES,
        )


# --- taking


@frozen
class QueuedEvent:
    """An event that a destination is owed."""

    pos: int
    nid: EventNid


@frozen
class QueuedEdu:
    """An EDU that a destination is owed; `content` is canonical JSON."""

    seq: int
    type: str
    content: bytes

    def decoded(self) -> Json:
        """Its content."""
        return decode_stored(self.content)


def server_of(tx: Tx, name: ServerName) -> ServerNid | None:
    """The number of a destination."""
    return names.server_nid(tx, name)


def cursor(tx: Tx, server: ServerNid) -> int:
    """The position up to which a destination has everything."""
    row = tx.one("SELECT cursor FROM server WHERE server_nid = ?", server)
    assert row is not None
    return int(row[0])


def events_in(
    tx: Tx, server: ServerNid, room: RoomNid, after: int, until: int, limit: int
) -> list[QueuedEvent]:
    """The first events of one room that a destination is owed, at positions in (after, until]."""
    rows = tx.run(
        "SELECT e.pos, e.nid FROM outbound_event AS e"
        " WHERE e.room_nid = ?2 AND e.pos > ?3 AND e.pos <= ?4"
        " AND (EXISTS (SELECT 1 FROM room_server AS s"
        "   WHERE s.room_nid = ?2 AND s.server_nid = ?1 AND e.pos >= s.since)"
        "  OR EXISTS (SELECT 1 FROM room_server_past AS p WHERE p.server_nid = ?1"
        "   AND p.room_nid = ?2 AND e.pos >= p.since AND e.pos <= p.until))"
        " ORDER BY e.pos, e.nid LIMIT ?5",
        server,
        room,
        after,
        until,
        limit,
    )
    return [QueuedEvent(pos, EventNid(nid)) for pos, nid in rows]


def newest_in(
    tx: Tx, server: ServerNid, room: RoomNid, after: int, until: int
) -> QueuedEvent | None:
    """The last event of one room that a destination is owed."""
    rows = tx.run(
        "SELECT e.pos, e.nid FROM outbound_event AS e"
        " WHERE e.room_nid = ?2 AND e.pos > ?3 AND e.pos <= ?4"
        " AND (EXISTS (SELECT 1 FROM room_server AS s"
        "   WHERE s.room_nid = ?2 AND s.server_nid = ?1 AND e.pos >= s.since)"
        "  OR EXISTS (SELECT 1 FROM room_server_past AS p WHERE p.server_nid = ?1"
        "   AND p.room_nid = ?2 AND e.pos >= p.since AND e.pos <= p.until))"
        " ORDER BY e.pos DESC, e.nid DESC LIMIT 1",
        server,
        room,
        after,
        until,
    )
    return QueuedEvent(rows[0][0], EventNid(rows[0][1])) if rows else None


def direct(tx: Tx, server: ServerNid, after: int, until: int, limit: int) -> list[QueuedEvent]:
    """The first events for a destination that was not in their room, at positions in
    (after, until]."""
    rows = tx.run(
        "SELECT pos, nid FROM outbound_direct WHERE server_nid = ? AND pos > ? AND pos <= ?"
        " ORDER BY pos, nid LIMIT ?",
        server,
        after,
        until,
        limit,
    )
    return [QueuedEvent(pos, EventNid(nid)) for pos, nid in rows]


def edus(tx: Tx, server: ServerNid, after: int, limit: int) -> list[QueuedEdu]:
    """The first EDUs that a destination is owed, beyond a number."""
    rows = tx.run(
        "SELECT seq, type, json FROM outbound_edu WHERE server_nid = ? AND seq > ?"
        " ORDER BY seq LIMIT ?",
        server,
        after,
        limit,
    )
    return [QueuedEdu(seq, kind, bytes(content)) for seq, kind, content in rows]


def rooms_owed(tx: Tx, server: ServerNid, after: int) -> list[RoomNid]:
    """The rooms in which a destination may be owed an event beyond a position."""
    rows = tx.run(
        "SELECT room_nid FROM room_server AS s WHERE server_nid = ?1 AND EXISTS"
        " (SELECT 1 FROM outbound_event AS e WHERE e.room_nid = s.room_nid"
        "  AND e.pos > ?2 AND e.pos >= s.since)"
        " UNION SELECT room_nid FROM room_server_past AS p WHERE server_nid = ?1 AND EXISTS"
        " (SELECT 1 FROM outbound_event AS e WHERE e.room_nid = p.room_nid"
        "  AND e.pos > ?2 AND e.pos >= p.since AND e.pos <= p.until)",
        server,
        after,
    )
    return [RoomNid(row[0]) for row in rows]


def is_owed(tx: Tx, server: ServerNid, room: RoomNid, nid: EventNid, after: int) -> bool:
    """Whether one event is owed to a destination beyond a position."""
    row = tx.one(
        "SELECT 1 FROM outbound_event AS e WHERE e.room_nid = ?2 AND e.nid = ?3 AND e.pos > ?4"
        " AND (EXISTS (SELECT 1 FROM room_server AS s"
        "   WHERE s.room_nid = ?2 AND s.server_nid = ?1 AND e.pos >= s.since)"
        "  OR EXISTS (SELECT 1 FROM room_server_past AS p WHERE p.server_nid = ?1"
        "   AND p.room_nid = ?2 AND e.pos >= p.since AND e.pos <= p.until))",
        server,
        room,
        nid,
        after,
    )
    return row is not None


# --- who is owed something


def rooms_with_events(tx: Tx, rooms: Iterable[RoomNid], after: int, until: int) -> list[RoomNid]:
    """Those of some rooms that have an event to give, at a position in (after, until]."""
    return [
        room
        for room in rooms
        if tx.one(
            "SELECT 1 FROM outbound_event WHERE room_nid = ? AND pos > ? AND pos <= ? LIMIT 1",
            room,
            after,
            until,
        )
    ]


def servers_at(tx: Tx, room: RoomNid, after: int) -> list[ServerName]:
    """The servers that are in a room, or were at some time beyond a position."""
    rows = tx.run(
        "SELECT name FROM room_server JOIN server USING (server_nid) WHERE room_nid = ?1"
        " UNION SELECT name FROM room_server_past JOIN server USING (server_nid)"
        " WHERE room_nid = ?1 AND until > ?2",
        room,
        after,
    )
    return [ServerName(row[0]) for row in rows]


def servers_in(tx: Tx, room: RoomNid) -> list[ServerName]:
    """The servers that are in a room."""
    rows = tx.run(
        "SELECT name FROM room_server JOIN server USING (server_nid) WHERE room_nid = ?"
        " ORDER BY since, server_nid",
        room,
    )
    return [ServerName(row[0]) for row in rows]


def with_direct(tx: Tx, after: int) -> list[ServerName]:
    """The destinations with events of other rooms than theirs beyond a position."""
    rows = tx.run(
        "SELECT DISTINCT name FROM outbound_direct JOIN server USING (server_nid) WHERE pos > ?",
        after,
    )
    return [ServerName(row[0]) for row in rows]


def with_edus(tx: Tx, after: int) -> tuple[list[ServerName], int]:
    """The destinations with EDUs beyond a number, and the highest number."""
    rows = tx.run(
        "SELECT name, MAX(seq) FROM outbound_edu JOIN server USING (server_nid) WHERE seq > ?"
        " GROUP BY server_nid",
        after,
    )
    return [ServerName(name) for name, _ in rows], max((seq for _, seq in rows), default=after)


def owed(tx: Tx) -> list[ServerName]:
    """Every destination that is owed something; for the start."""
    rows = tx.run(
        "SELECT name FROM server AS d WHERE"
        " EXISTS (SELECT 1 FROM outbound_edu WHERE server_nid = d.server_nid)"
        " OR EXISTS (SELECT 1 FROM outbound_direct WHERE server_nid = d.server_nid)"
        " OR EXISTS (SELECT 1 FROM room_server AS s JOIN outbound_event AS e"
        "   ON e.room_nid = s.room_nid AND e.pos > MAX(d.cursor, s.since - 1)"
        "   WHERE s.server_nid = d.server_nid)"
        " OR EXISTS (SELECT 1 FROM room_server_past AS p JOIN outbound_event AS e"
        "   ON e.room_nid = p.room_nid AND e.pos > MAX(d.cursor, p.since - 1) AND e.pos <= p.until"
        "   WHERE p.server_nid = d.server_nid)"
    )
    return [ServerName(row[0]) for row in rows]


def last_edu(tx: Tx) -> int:
    """The highest number of an EDU."""
    row = tx.one("SELECT MAX(seq) FROM outbound_edu")
    return 0 if row is None or row[0] is None else int(row[0])


# --- done


@frozen
class Taken:
    """What a destination has taken: everything up to a position, and some rows."""

    server: ServerName
    cursor: int
    edus: tuple[int, ...] = ()
    quick_ms: int = 0


def take(tx: Tx, found: Sequence[Taken]) -> None:
    """Record what destinations have taken."""
    for taken in found:
        server = names.add_server(tx, taken.server)
        tx.run(
            "UPDATE server SET cursor = MAX(cursor, ?), quick_ms = MAX(quick_ms, ?)"
            " WHERE server_nid = ?",
            taken.cursor,
            taken.quick_ms,
            server,
        )
        tx.many("DELETE FROM outbound_edu WHERE seq = ?", [(seq,) for seq in taken.edus])
        tx.run(
            "DELETE FROM outbound_direct WHERE server_nid = ? AND pos <= ?", server, taken.cursor
        )
        tx.run(
            "DELETE FROM room_server_past WHERE server_nid = ? AND until <= ?",
            server,
            taken.cursor,
        )


def prune(tx: Tx) -> None:
    """Keep the newest events of each room only."""
    full = tx.run(
        "SELECT room_nid FROM outbound_event GROUP BY room_nid HAVING COUNT(*) > ?", KEPT_EVENTS
    )
    for (room,) in full:
        tx.run(
            "DELETE FROM outbound_event WHERE room_nid = ?1 AND pos <= (SELECT pos"
            " FROM outbound_event WHERE room_nid = ?1 ORDER BY pos DESC LIMIT 1 OFFSET ?2)",
            room,
            KEPT_EVENTS,
        )


# --- back-off


@frozen
class Trouble:
    """A destination that failed, and when it may be tried again (wall clock, ms)."""

    server: ServerName
    failures: int
    kind: FailureKind
    retry_ms: int


def troubles(tx: Tx) -> list[Trouble]:
    """All destinations that failed last."""
    rows = tx.run("SELECT name, failures, kind, retry_ms FROM server WHERE failures > 0")
    return [
        Trouble(ServerName(name), failures, FailureKind(kind), retry_ms)
        for name, failures, kind, retry_ms in rows
    ]


def put_troubles(tx: Tx, found: Sequence[Trouble]) -> None:
    """Record how destinations stand.  Of servers that are in no room of ours nothing is kept: their
    names may be anybody's invention."""
    tx.many(
        "UPDATE server SET failures = ?, kind = ?, retry_ms = ? WHERE name = ?",
        [
            (trouble.failures, int(trouble.kind), trouble.retry_ms, trouble.server)
            for trouble in found
        ],
    )


def quick_since(tx: Tx, since_ms: int) -> list[ServerName]:
    """The destinations that took something within little time, not longer ago than that."""
    rows = tx.run("SELECT name FROM server WHERE quick_ms >= ?", since_ms)
    return [ServerName(row[0]) for row in rows]
