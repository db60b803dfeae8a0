"""Who is there: a row for each user whose state was written down."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from attrs import frozen

from matrixbox.core.identifiers import UserId
from matrixbox.store import names
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx


class State(IntEnum):
    """Whether somebody is there."""

    OFFLINE = 0
    UNAVAILABLE = 1
    ONLINE = 2

    @property
    def word(self) -> str:
        """As the specification writes it."""
        return self.name.lower()


WORDS = {state.word: state for state in State}


@frozen
class Row:
    """What is written down of a user; `active_ms` by the wall clock."""

    user_id: UserId
    state: State
    status: str | None
    active_ms: int
    is_local: bool = False


def put(tx: Tx, rows: Iterable[Row]) -> None:
    """Write down how users are."""
    for row in rows:
        tx.run(
            "INSERT OR REPLACE INTO presence (user_nid, state, status, active_ms)"
            " VALUES (?, ?, ?, ?)",
            names.add_user(tx, row.user_id),
            int(row.state),
            row.status,
            row.active_ms,
        )


def drop(tx: Tx, users: Iterable[UserId]) -> None:
    """Forget users."""
    tx.many(
        "DELETE FROM presence WHERE user_nid = (SELECT user_nid FROM user WHERE user_id = ?)",
        [(user,) for user in users],
    )


def everybody(tx: Tx, limit: int) -> list[Row]:
    """What is written down, of those active last if it is too much."""
    rows = tx.run(
        "SELECT user_id, presence.state, status, active_ms, account.user_nid IS NOT NULL"
        " FROM presence JOIN user USING (user_nid) LEFT JOIN account USING (user_nid)"
        " ORDER BY active_ms DESC LIMIT ?",
        limit,
    )
    return [
        Row(UserId(name), State(state), status, active_ms, bool(local))
        for name, state, status, active_ms, local in rows
    ]


def clear(tx: Tx) -> None:
    """Forget everybody."""
    tx.run("DELETE FROM presence")


def seen_in(tx: Tx, user: UserNid) -> list[RoomNid]:
    """The rooms in which users of ours see how a user is."""
    rows = tx.run(
        "SELECT room_nid FROM member AS m WHERE user_nid = ? AND membership = 1 AND EXISTS"
        " (SELECT 1 FROM member AS l WHERE l.room_nid = m.room_nid"
        "  AND l.is_local = 1 AND l.membership = 1)",
        user,
    )
    return [RoomNid(row[0]) for row in rows]
