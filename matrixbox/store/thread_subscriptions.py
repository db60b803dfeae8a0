"""Threads that users follow, and those that they stopped following (MSC4306)."""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen

from matrixbox.core.identifiers import EventId
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx


class Kind(IntEnum):
    """Whether a user follows a thread, and who decided that."""

    NONE = 0
    AUTOMATIC = 1  # a client, since the user was mentioned
    MANUAL = 2


@frozen
class Subscription:
    """One user's choice about one thread."""

    room: RoomNid
    root: EventId
    pos: int  # of the last change
    kind: Kind
    until: int  # events up to this position do not make the user follow the thread


def get(tx: Tx, user: UserNid, room: RoomNid, root: EventId) -> Subscription | None:
    """What a user chose about a thread, if anything ever."""
    row = tx.one(
        "SELECT pos, state, until_pos FROM thread_subscription"
        " WHERE user_nid = ? AND room_nid = ? AND root_id = ?",
        user,
        room,
        root,
    )
    return None if row is None else Subscription(room, root, row[0], Kind(row[1]), row[2])


def put(tx: Tx, user: UserNid, chosen: Subscription) -> None:
    """Store a choice over the one before."""
    tx.run(
        "INSERT OR REPLACE INTO thread_subscription"
        " (user_nid, room_nid, root_id, pos, state, until_pos) VALUES (?, ?, ?, ?, ?, ?)",
        user,
        chosen.room,
        chosen.root,
        chosen.pos,
        int(chosen.kind),
        chosen.until,
    )


def changed(tx: Tx, user: UserNid, after: int, until: int, limit: int) -> list[Subscription]:
    """A user's choices at positions in (after, until], the newest first."""
    rows = tx.run(
        "SELECT room_nid, root_id, pos, state, until_pos FROM thread_subscription"
        " WHERE user_nid = ? AND pos > ? AND pos <= ? ORDER BY pos DESC LIMIT ?",
        user,
        after,
        until,
        limit,
    )
    return [
        Subscription(RoomNid(room), EventId(root), pos, Kind(state), until_pos)
        for room, root, pos, state, until_pos in rows
    ]


def count(tx: Tx, user: UserNid) -> int:
    """How many choices a user has made."""
    row = tx.one("SELECT COUNT(*) FROM thread_subscription WHERE user_nid = ?", user)
    assert row is not None
    return int(row[0])


def followers(tx: Tx, room: RoomNid, root: EventId) -> list[UserNid]:
    """The users who follow a thread."""
    rows = tx.run(
        "SELECT user_nid FROM thread_subscription"
        " WHERE room_nid = ? AND root_id = ? AND state > 0 ORDER BY user_nid",
        room,
        root,
    )
    return [UserNid(row[0]) for row in rows]
