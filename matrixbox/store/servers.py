"""Which servers are in which rooms: one row per room and server.

Triggers of the database keep the rows with the memberships, whoever writes these.
A server is in a room while one of its users is joined there, or while the room's members are not
all known and a server that is in it says so (joins with partial state).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matrixbox.core.identifiers import ServerName
from matrixbox.store import names
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx


def assume(tx: Tx, room: RoomNid, servers: Iterable[ServerName], pos: int) -> None:
    """Take servers to be in a room whose members are not all known yet."""
    rows = [(room, names.add_server(tx, server), pos) for server in servers]
    tx.many(
        "INSERT INTO room_server (room_nid, server_nid, joined, assumed, since)"
        " VALUES (?, ?, 0, 1, ?)"
        " ON CONFLICT (room_nid, server_nid) DO UPDATE SET assumed = 1",
        rows,
    )
    tx.after_commit(tx.caches.servers.drop, room)


def settle(tx: Tx, room: RoomNid, pos: int) -> None:
    """The room's members are all known: what was assumed counts no more."""
    tx.run(
        "UPDATE room_server SET assumed = 0, until = ? WHERE room_nid = ? AND assumed", pos, room
    )
    tx.after_commit(tx.caches.servers.drop, room)


def in_room(tx: Tx, room: RoomNid) -> list[tuple[ServerName, int]]:
    """The servers in a room, and how many of their users are joined, the longest standing first."""
    rows = tx.run(
        "SELECT name, joined FROM room_server JOIN server USING (server_nid)"
        " WHERE room_nid = ? ORDER BY since, server_nid",
        room,
    )
    return [(ServerName(name), joined) for name, joined in rows]


def has_others(tx: Tx, room: RoomNid, own: ServerName) -> bool:
    """Whether a server other than our own is in a room."""
    rows = tx.run("SELECT server_nid FROM room_server WHERE room_nid = ? LIMIT 2", room)
    return len(rows) > 1 or (bool(rows) and rows[0][0] != names.server_nid(tx, own))


def is_in_room(tx: Tx, room: RoomNid, server: ServerName) -> bool:
    """Whether a server is in a room."""
    nid = names.server_nid(tx, server)
    return nid is not None and (
        tx.one("SELECT 1 FROM room_server WHERE room_nid = ? AND server_nid = ?", room, nid)
        is not None
    )


def sharing_with(tx: Tx, user: UserNid, own: ServerName, most: int) -> Sequence[ServerName]:
    """The other servers in the rooms that a user of ours is in; without rooms with more servers
    than ``most``."""
    rows = tx.run(
        "SELECT DISTINCT name FROM member JOIN room_server USING (room_nid)"
        " JOIN server USING (server_nid)"
        " WHERE user_nid = ? AND membership = 1 AND name != ? AND"
        " (SELECT COUNT(*) FROM room_server AS r WHERE r.room_nid = member.room_nid) <= ?"
        " ORDER BY server_nid",
        user,
        own,
        most,
    )
    return [ServerName(row[0]) for row in rows]


def shared_room(tx: Tx, user: UserNid, server: ServerName) -> RoomNid | None:
    """Some room that a user of ours is in and another server too."""
    row = tx.one(
        "SELECT room_nid FROM member JOIN room_server USING (room_nid)"
        " WHERE user_nid = ? AND membership = 1"
        " AND server_nid = (SELECT server_nid FROM server WHERE name = ?)"
        " ORDER BY room_nid LIMIT 1",
        user,
        server,
    )
    return None if row is None else RoomNid(row[0])


def shared_rooms(tx: Tx, own: ServerName) -> list[tuple[RoomNid, ServerName]]:
    """Every other server in every room that one of our users is in."""
    rows = tx.run(
        "SELECT room_nid, name FROM room_server JOIN server USING (server_nid)"
        " WHERE name != ?1 AND room_nid IN (SELECT room_nid FROM room_server"
        "  WHERE server_nid = (SELECT server_nid FROM server WHERE name = ?1) AND joined > 0)"
        " ORDER BY room_nid, since, server_nid",
        own,
    )
    return [(RoomNid(room), ServerName(name)) for room, name in rows]


def forget_past(tx: Tx) -> None:
    """Drop earlier stays of which nothing is owed any more."""
    tx.run(
        "DELETE FROM room_server_past WHERE NOT EXISTS"
        " (SELECT 1 FROM outbound_event AS e JOIN server AS s"
        "   ON s.server_nid = room_server_past.server_nid"
        "   WHERE e.room_nid = room_server_past.room_nid"
        "   AND e.pos > s.cursor AND e.pos >= room_server_past.since"
        "   AND e.pos <= room_server_past.until)"
    )
