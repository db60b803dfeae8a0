"""Accounts that have ended: who still has rooms to leave, and who is to be forgotten."""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.core.events import Event
from matrixbox.store import accounts
from matrixbox.store.accounts import Account
from matrixbox.store.caches import Caches
from matrixbox.store.nids import RoomNid, ServerNid, UserNid
from matrixbox.store.transaction import Tx


def departing(tx: Tx) -> list[Account]:
    """Accounts that have ended and have not left their rooms yet."""
    rows = tx.run("SELECT user_nid FROM account WHERE state = 1 AND departed = 0")
    found = (accounts.get(tx, UserNid(row[0])) for row in rows)
    return [account for account in found if account is not None]


def departed(tx: Tx, user: UserNid) -> None:
    """A user has left every room that can be left."""
    tx.run("UPDATE account SET departed = 1 WHERE user_nid = ?", user)


def forget_user(tx: Tx, user: UserNid, pos: int) -> None:
    """Drop what is known of a user beside the rooms; what was said is hidden from now on (T110)."""
    tx.run("DELETE FROM account_data WHERE user_nid = ?", user)
    tx.run("DELETE FROM filter WHERE user_nid = ?", user)
    tx.run("DELETE FROM receipt WHERE user_nid = ?", user)
    tx.run("DELETE FROM presence WHERE user_nid = ?", user)
    tx.run("DELETE FROM openid_token WHERE user_nid = ?", user)
    tx.run("DELETE FROM thread_subscription WHERE user_nid = ?", user)
    tx.run("DELETE FROM report WHERE reporter = ?", user)
    tx.run("INSERT OR REPLACE INTO erased_user (user_nid, pos) VALUES (?, ?)", user, pos)
    tx.after_commit(_forget, tx.caches, user)


def _forget(caches: Caches, user: UserNid) -> None:
    caches.erased = None
    caches.customised = None
    caches.push_rules.drop(user)


def erased(tx: Tx) -> Mapping[str, int]:
    """The users of ours who were erased, and at what position."""
    known = tx.caches.erased
    if known is None:
        rows = tx.run("SELECT user_id, pos FROM erased_user JOIN user USING (user_nid)")
        known = {str(user_id): int(pos) for user_id, pos in rows}
        if not tx.writable:
            tx.caches.erased = known
    return known


def hides(event: Event) -> bool:
    """Whether an event tells something of its sender: what was said, a name; not rooms' state."""
    own = event.type == "m.room.member" and event.state_key == event.sender
    return event.state_key is None or own


def server_since(tx: Tx, room: RoomNid, server: ServerNid) -> int | None:
    """Since what position a server has been in a room; None: it is not in it."""
    row = tx.one(
        "SELECT since FROM room_server WHERE room_nid = ? AND server_nid = ?", room, server
    )
    return None if row is None else int(row[0])
