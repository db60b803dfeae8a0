"""Who is, was or may come to be in which room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from matrixbox.core.identifiers import RoomId, ServerName, UserId
from matrixbox.store import device_lists, names
from matrixbox.store import servers as store_servers
from matrixbox.store.memberships import Member, Membership
from matrixbox.store.nids import EventNid, RoomNid, UserNid
from matrixbox.store.transaction import Tx

CHANGES = "memberships"
"""The topic that rings for every change of a membership."""


def put(
    tx: Tx, room: RoomNid, user: UserNid, membership: Membership, event: EventNid, pos: int
) -> None:
    """Set a membership.  A forgotten room stays so when the user is only kept out of it."""
    if membership is Membership.JOIN and is_account(tx, user):
        before = get(tx, room, user)
        if before is None or before.membership is not Membership.JOIN:
            device_lists.joined(tx, user, room)
    tx.run(
        "INSERT INTO member (room_nid, user_nid, membership, event_nid, pos, is_local)"
        " VALUES (?, ?, ?, ?, ?, EXISTS (SELECT 1 FROM account WHERE user_nid = ?))"
        " ON CONFLICT (room_nid, user_nid) DO UPDATE SET membership = excluded.membership,"
        " event_nid = excluded.event_nid, pos = excluded.pos,"
        " forgotten = forgotten AND excluded.membership IN (4, 5)",
        room,
        user,
        int(membership),
        event,
        pos,
        user,
    )
    tx.changed(topics=(CHANGES,))
    tx.after_commit(tx.caches.joined_counts.drop, room)
    tx.after_commit(tx.caches.servers.drop, room)
    tx.after_commit(tx.caches.rooms_of.drop, user)


def remove(tx: Tx, room: RoomNid, user: UserNid) -> None:
    """Take a membership out: state resolution left none."""
    tx.run("DELETE FROM member WHERE room_nid = ? AND user_nid = ?", room, user)
    tx.changed(topics=(CHANGES,))
    tx.after_commit(tx.caches.joined_counts.drop, room)
    tx.after_commit(tx.caches.servers.drop, room)
    tx.after_commit(tx.caches.rooms_of.drop, user)


def get(tx: Tx, room: RoomNid, user: UserNid) -> Member | None:
    """The membership of a user in a room."""
    row = tx.one(
        "SELECT membership, event_nid, pos, forgotten FROM member"
        " WHERE room_nid = ? AND user_nid = ?",
        room,
        user,
    )
    if row is None:
        return None
    return Member(room, user, Membership(row[0]), EventNid(row[1]), row[2], bool(row[3]))


def rooms_of(tx: Tx, user: UserNid) -> Sequence[Member]:
    """Every membership of a user, forgotten rooms left out."""
    known = tx.caches.rooms_of.get(user)
    if known is not None and not tx.writable:
        return known
    rows = tx.run(
        "SELECT room_nid, membership, event_nid, pos FROM member"
        " WHERE user_nid = ? AND NOT forgotten",
        user,
    )
    found = [
        Member(RoomNid(room), user, Membership(membership), EventNid(event), pos, forgotten=False)
        for room, membership, event, pos in rows
    ]
    if not tx.writable:
        tx.caches.rooms_of.put(user, found)
    return found


def forgotten_since(tx: Tx, user: UserNid, since: int) -> list[RoomNid]:
    """Rooms that the user left after a position, and has forgotten since."""
    rows = tx.run(
        "SELECT room_nid FROM member WHERE user_nid = ? AND membership IN (4, 5) AND forgotten"
        " AND pos > ?",
        user,
        since,
    )
    return [RoomNid(row[0]) for row in rows]


def all_of(tx: Tx, user: UserNid) -> list[tuple[RoomNid, Membership, int]]:
    """Every membership of a user, also in forgotten rooms, with its position."""
    rows = tx.run("SELECT room_nid, membership, pos FROM member WHERE user_nid = ?", user)
    return [(RoomNid(row[0]), Membership(row[1]), row[2]) for row in rows]


def sharing(tx: Tx, user: UserNid) -> set[UserNid]:
    """All who are in a room with a user."""
    rows = tx.run(
        "SELECT DISTINCT b.user_nid FROM member AS a JOIN member AS b USING (room_nid)"
        " WHERE a.user_nid = ? AND a.membership = 1 AND b.membership = 1",
        user,
    )
    return {UserNid(row[0]) for row in rows}


def by_age(tx: Tx, room: RoomNid, pos: int) -> tuple[set[UserNid], set[UserNid]]:
    """Who is in a room with nothing new beyond a position, and of whom there is something."""
    old = tx.run(
        "SELECT user_nid FROM member WHERE room_nid = ? AND membership = 1 AND pos <= ?", room, pos
    )
    new = tx.run("SELECT user_nid FROM member WHERE room_nid = ? AND pos > ?", room, pos)
    return {UserNid(row[0]) for row in old}, {UserNid(row[0]) for row in new}


def joined_rooms(tx: Tx, user: UserNid) -> list[RoomId]:
    """The rooms that a user is in."""
    rows = tx.run(
        "SELECT room_id FROM member JOIN room USING (room_nid)"
        " WHERE user_nid = ? AND membership = 1",
        user,
    )
    return [RoomId(row[0]) for row in rows]


def joined_room_count(tx: Tx, user: UserNid) -> int:
    """How many rooms a user is in."""
    row = tx.one("SELECT COUNT(*) FROM member WHERE user_nid = ? AND membership = 1", user)
    assert row is not None
    return int(row[0])


def in_room(tx: Tx, room: RoomNid, membership: Membership) -> list[UserNid]:
    """The users with one kind of membership in a room, longest standing first."""
    rows = tx.run(
        "SELECT user_nid FROM member WHERE room_nid = ? AND membership = ? ORDER BY pos",
        room,
        int(membership),
    )
    return [UserNid(row[0]) for row in rows]


def count(tx: Tx, room: RoomNid, membership: Membership) -> int:
    """How many users have one kind of membership in a room."""
    row = tx.one(
        "SELECT COUNT(*) FROM member WHERE room_nid = ? AND membership = ?", room, int(membership)
    )
    assert row is not None
    return int(row[0])


def joined_count(tx: Tx, room: RoomNid) -> int:
    """How many users are in a room, from memory where that is known."""
    known = tx.caches.joined_counts.get(room)
    if known is None:
        known = count(tx, room, Membership.JOIN)
        if not tx.writable:
            tx.caches.joined_counts.put(room, known)
    return known


def servers(tx: Tx, room: RoomNid) -> Mapping[ServerName, int]:
    """The servers with users in a room, and how many, the longest standing first.

    While a transaction changes the room's members, it may still be what was committed before.
    """
    known = tx.caches.servers.get(room)
    if known is None:
        known = dict(store_servers.in_room(tx, room))
        if not tx.writable:
            tx.caches.servers.put(room, known)
    return known


def of_server(tx: Tx, room: RoomNid, server: ServerName) -> list[tuple[UserNid, Membership]]:
    """The users of one server with any membership in a room."""
    rows = tx.run(
        "SELECT user_nid, membership FROM member JOIN user USING (user_nid)"
        " WHERE room_nid = ? AND substr(user_id, instr(user_id, ':') + 1) = ?",
        room,
        server,
    )
    return [(UserNid(user), Membership(membership)) for user, membership in rows]


def local_joined(tx: Tx, room: RoomNid) -> list[UserNid]:
    """The users of ours who are in a room."""
    rows = tx.run(
        "SELECT user_nid FROM member WHERE room_nid = ? AND is_local = 1 AND membership = 1", room
    )
    return [UserNid(row[0]) for row in rows]


def local_gone(tx: Tx, room: RoomNid, most: int, *, forgotten: bool = False) -> list[Member]:
    """The users of ours who are in a room no more, the last first; those who have forgotten it
    only if they are asked for too."""
    rows = tx.run(
        "SELECT user_nid, membership, event_nid, pos, forgotten FROM member"
        " WHERE room_nid = ? AND is_local = 1 AND membership != 1 AND forgotten <= ?"
        " ORDER BY pos DESC LIMIT ?",
        room,
        int(forgotten),
        most,
    )
    return [
        Member(room, UserNid(user), Membership(word), EventNid(nid), pos, forgotten=bool(gone))
        for user, word, nid, pos, gone in rows
    ]


def some(tx: Tx, room: RoomNid, but: UserNid, limit: int) -> list[UserNid]:
    """The first other users that are joined or invited; failing these, that were ([C8.15])."""
    rows = tx.run(
        "SELECT user_nid FROM member WHERE room_nid = ? AND user_nid != ? AND membership <= 2"
        " ORDER BY event_nid LIMIT ?",
        room,
        but,
        limit,
    ) or tx.run(
        "SELECT user_nid FROM member WHERE room_nid = ? AND user_nid != ? AND membership >= 4"
        " ORDER BY event_nid LIMIT ?",
        room,
        but,
        limit,
    )
    return [UserNid(row[0]) for row in rows]


def is_account(tx: Tx, user: UserNid) -> bool:
    """Whether a user has an account here."""
    return tx.one("SELECT 1 FROM account WHERE user_nid = ?", user) is not None


def forget(tx: Tx, room: RoomNid, user: UserNid) -> None:
    """Hide a room that the user has left."""
    tx.run("UPDATE member SET forgotten = 1 WHERE room_nid = ? AND user_nid = ?", room, user)
    drop_stripped(tx, room, user)
    tx.after_commit(tx.caches.rooms_of.drop, user)


def set_stripped(tx: Tx, room: RoomNid, user: UserNid, json: bytes) -> None:
    """Keep what an invited or knocking user may know of a room."""
    tx.run(
        "INSERT OR REPLACE INTO stripped_state (room_nid, user_nid, json) VALUES (?, ?, ?)",
        room,
        user,
        json,
    )


def drop_stripped(tx: Tx, room: RoomNid, user: UserNid) -> None:
    """Forget what was kept by :func:`set_stripped`."""
    tx.run("DELETE FROM stripped_state WHERE room_nid = ? AND user_nid = ?", room, user)


def with_stripped(tx: Tx, room: RoomNid) -> list[UserNid]:
    """The users for whom something is kept by :func:`set_stripped`."""
    rows = tx.run("SELECT user_nid FROM stripped_state WHERE room_nid = ?", room)
    return [UserNid(row[0]) for row in rows]


def stripped(tx: Tx, room: RoomNid, user: UserNid) -> bytes | None:
    """What was kept by :func:`set_stripped`."""
    row = tx.one("SELECT json FROM stripped_state WHERE room_nid = ? AND user_nid = ?", room, user)
    return None if row is None else bytes(row[0])


def share_room(tx: Tx, one: UserNid, other: UserNid) -> bool:
    """Whether two users are joined to a common room."""
    row = tx.one(
        "SELECT 1 FROM member AS a JOIN member AS b USING (room_nid)"
        " WHERE a.user_nid = ? AND a.membership = 1 AND b.user_nid = ? AND b.membership = 1"
        " LIMIT 1",
        one,
        other,
    )
    return row is not None


def user_ids(tx: Tx, users: Iterable[UserNid]) -> list[UserId]:
    """The names of users."""
    return [names.user_id(tx, user) for user in users]
