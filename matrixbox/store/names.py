"""Small integers for long names: users, rooms, servers and state slots.

Each name is stored once and has a number from then on, so that rows and state snapshots stay
short.  The caches here are filled only with what is durable: by reads, and after the commit of
the transaction that added a name.
"""

from __future__ import annotations

from matrixbox.core.events import StateKey
from matrixbox.core.identifiers import RoomId, ServerName, UserId
from matrixbox.store.nids import RoomNid, ServerNid, SlotNid, UserNid
from matrixbox.store.transaction import Tx


def user_nid(tx: Tx, user_id: UserId) -> UserNid | None:
    """The number of a user, or None when the name was never stored."""
    cache = tx.caches.users
    nid = cache.numbers.get(user_id)
    if nid is None:
        row = tx.one("SELECT user_nid FROM user WHERE user_id = ?", user_id)
        if row is None:
            return None
        nid = UserNid(row[0])
        if not tx.writable:
            cache.put(user_id, nid)
    return nid


def add_user(tx: Tx, user_id: UserId) -> UserNid:
    """The number of a user, who gets one when needed."""
    nid = user_nid(tx, user_id)
    if nid is None:
        tx.run("INSERT INTO user (user_id) VALUES (?)", user_id)
        nid = UserNid(tx.last_rowid)
        tx.after_commit(tx.caches.users.put, user_id, nid)
    return nid


def user_id(tx: Tx, nid: UserNid) -> UserId:
    """The name behind a number."""
    cache = tx.caches.users
    name = cache.names.get(nid)
    if name is None:
        row = tx.one("SELECT user_id FROM user WHERE user_nid = ?", nid)
        assert row is not None, f"user {nid} has no name"
        name = UserId(row[0])
        if not tx.writable:
            cache.put(name, nid)
    return name


def room_nid(tx: Tx, room_id: RoomId) -> RoomNid | None:
    """The number of a room, or None when it is unknown here."""
    cache = tx.caches.rooms
    nid = cache.numbers.get(room_id)
    if nid is None:
        row = tx.one("SELECT room_nid FROM room WHERE room_id = ?", room_id)
        if row is None:
            return None
        nid = RoomNid(row[0])
        if not tx.writable:
            cache.put(room_id, nid)
    return nid


def room_id(tx: Tx, nid: RoomNid) -> RoomId:
    """The name behind a number."""
    cache = tx.caches.rooms
    name = cache.names.get(nid)
    if name is None:
        row = tx.one("SELECT room_id FROM room WHERE room_nid = ?", nid)
        assert row is not None, f"room {nid} has no name"
        name = RoomId(row[0])
        if not tx.writable:
            cache.put(name, nid)
    return name


def slot_nid(tx: Tx, key: StateKey) -> SlotNid | None:
    """The number of a state slot, or None when no event ever had that type and key."""
    cache = tx.caches.slots
    nid = cache.numbers.get(key)
    if nid is None:
        row = tx.one("SELECT slot_nid FROM slot WHERE type = ? AND state_key = ?", *key)
        if row is None:
            return None
        nid = SlotNid(row[0])
        if not tx.writable:
            cache.put(key, nid)
    return nid


def add_slot(tx: Tx, key: StateKey) -> SlotNid:
    """The number of a state slot, which gets one when needed."""
    nid = slot_nid(tx, key)
    if nid is None:
        tx.run("INSERT INTO slot (type, state_key) VALUES (?, ?)", *key)
        nid = SlotNid(tx.last_rowid)
        tx.after_commit(tx.caches.slots.put, key, nid)
    return nid


def slot_key(tx: Tx, nid: SlotNid) -> StateKey:
    """The type and state key behind a number."""
    cache = tx.caches.slots
    key = cache.names.get(nid)
    if key is None:
        row = tx.one("SELECT type, state_key FROM slot WHERE slot_nid = ?", nid)
        assert row is not None, f"slot {nid} has no name"
        key = (row[0], row[1])
        if not tx.writable:
            cache.put(key, nid)
    return key


def server_nid(tx: Tx, name: ServerName) -> ServerNid | None:
    """The number of a server, or None when the name was never stored."""
    cache = tx.caches.server_names
    nid = cache.numbers.get(name)
    if nid is None:
        row = tx.one("SELECT server_nid FROM server WHERE name = ?", name)
        if row is None:
            return None
        nid = ServerNid(row[0])
        if not tx.writable:
            cache.put(name, nid)
    return nid


def add_server(tx: Tx, name: ServerName) -> ServerNid:
    """The number of a server, which gets one when needed."""
    nid = server_nid(tx, name)
    if nid is None:
        tx.run("INSERT INTO server (name) VALUES (?)", name)
        nid = ServerNid(tx.last_rowid)
        tx.after_commit(tx.caches.server_names.put, name, nid)
    return nid


def server_name(tx: Tx, nid: ServerNid) -> ServerName:
    """The name behind a number."""
    cache = tx.caches.server_names
    name = cache.names.get(nid)
    if name is None:
        row = tx.one("SELECT name FROM server WHERE server_nid = ?", nid)
        assert row is not None, f"server {nid} has no name"
        name = ServerName(row[0])
        if not tx.writable:
            cache.put(name, nid)
    return name
