"""Changes to users' devices and cross-signing keys: whom they concern, who is to be told.

A change has a stream position.  What other servers have to be told about users of ours is noted in
the same transaction, as a row that `e2ee.device_lists` takes from there.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from matrixbox.core.identifiers import DeviceId, ServerName, UserId
from matrixbox.store import names
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx

CHANGES = "device lists"
"""The topic that rings for every change to devices or cross-signing keys."""
NOTICES = "device list notices"
"""The topic that rings when other servers are to be told of something."""
STALE = "stale device lists"
"""The topic that rings when a list of another server has to be fetched anew."""


def _ring(tx: Tx, user: UserNid) -> None:
    """Let those of ours know who share a room with a user, and the user."""
    rows = tx.run(
        "SELECT DISTINCT b.user_nid FROM member AS a JOIN member AS b USING (room_nid)"
        " WHERE a.user_nid = ? AND a.membership = 1 AND b.is_local = 1 AND b.membership = 1",
        user,
    )
    tx.changed(users=(user, *(row[0] for row in rows)), topics=(CHANGES,))


def changed(tx: Tx, user: UserNid) -> int:
    """Note that keys of a user have changed; the position."""
    pos = tx.position()
    tx.run(
        "INSERT INTO key_change (user_nid, pos, stream_id) VALUES (?, ?, 0)"
        " ON CONFLICT (user_nid) DO UPDATE SET pos = excluded.pos",
        user,
        pos,
    )
    _ring(tx, user)
    return pos


def device_changed(tx: Tx, user: UserNid, device_id: DeviceId) -> None:
    """Note that a device of a user of ours has new keys, another name, or is gone."""
    prev_id = stream_id(tx, user)
    pos = changed(tx, user)
    tx.run("UPDATE key_change SET stream_id = ? WHERE user_nid = ?", pos, user)
    _put_notice(tx, Notice(pos, user, device_id, pos, prev_id, None, ""))


def signing_keys_changed(tx: Tx, user: UserNid) -> None:
    """Note that cross-signing keys of a user of ours have changed."""
    pos = changed(tx, user)
    _put_notice(tx, Notice(pos, user, None, 0, 0, None, ""))


def joined(tx: Tx, user: UserNid, room: RoomNid) -> None:
    """A user of ours has joined a room: servers in it may not follow the user's devices yet.

    Each gets an update that follows on nothing, so it asks for the list ([B7.06]).  It names a
    device with keys, or any other where none has any.
    """
    row = tx.one(
        "SELECT device_id FROM device LEFT JOIN device_key AS k USING (device_nid)"
        " WHERE user_nid = ? ORDER BY k.device_nid IS NULL, device_nid LIMIT 1",
        user,
    )
    if row is not None:
        current = stream_id(tx, user)
        _put_notice(tx, Notice(tx.position(), user, DeviceId(row[0]), current, 0, room, ""))


def stream_id(tx: Tx, user: UserNid) -> int:
    """The last change to a user's devices that other servers learn of; 0: none."""
    row = tx.one("SELECT stream_id FROM key_change WHERE user_nid = ?", user)
    return 0 if row is None else int(row[0])


def changed_since(tx: Tx, me: UserNid, after: int, until: int) -> list[UserNid]:
    """Those whose keys last changed at positions in (after, until] and who share a room with a
    user, or are that user."""
    rows = tx.run(
        "SELECT k.user_nid FROM key_change AS k WHERE k.pos > ? AND k.pos <= ?"
        " AND (k.user_nid = ? OR EXISTS (SELECT 1 FROM member AS a JOIN member AS b"
        " USING (room_nid) WHERE a.user_nid = ? AND a.membership = 1"
        " AND b.user_nid = k.user_nid AND b.membership = 1))",
        after,
        until,
        me,
        me,
    )
    return [UserNid(row[0]) for row in rows]


# --- what other servers are to be told


@frozen
class Notice:
    """Something that other servers are to be told about a user of ours."""

    pos: int
    user: UserNid
    device_id: DeviceId | None  # None: cross-signing keys
    stream_id: int
    prev_id: int  # 0: it follows on nothing
    room: RoomNid | None  # only to servers in this room
    told: str  # servers up to this name, in order


def _put_notice(tx: Tx, notice: Notice) -> None:
    tx.run(
        "INSERT INTO key_notice (pos, user_nid, device_id, stream_id, prev_id, room_nid)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        notice.pos,
        notice.user,
        notice.device_id,
        notice.stream_id,
        notice.prev_id,
        notice.room,
    )
    tx.changed(topics=(NOTICES,))


def next_notice(tx: Tx) -> Notice | None:
    """The oldest notice."""
    row = tx.one(
        "SELECT pos, user_nid, device_id, stream_id, prev_id, room_nid, told FROM key_notice"
        " ORDER BY pos LIMIT 1"
    )
    if row is None:
        return None
    pos, user, device_id, stream, prev_id, room, told = row
    device = None if device_id is None else DeviceId(device_id)
    return Notice(
        pos, UserNid(user), device, stream, prev_id, None if room is None else RoomNid(room), told
    )


def notice_told(tx: Tx, pos: int, up_to: ServerName | None) -> None:
    """Note that servers up to a name have been told; None: all."""
    if up_to is None:
        tx.run("DELETE FROM key_notice WHERE pos = ?", pos)
    else:
        tx.run("UPDATE key_notice SET told = ? WHERE pos = ?", up_to, pos)


def has_list(tx: Tx, user: UserNid) -> bool:
    """Whether anything was ever known of a user's devices, good or not."""
    row = tx.one("SELECT 1 FROM remote_device_list WHERE user_nid = ?", user)
    return row is not None


def servers_sharing(
    tx: Tx, user: UserNid, room: RoomNid | None, after: str, limit: int
) -> list[ServerName]:
    """Servers that share a room with a user (or this room), in order from a name on.

    Our own is among them.
    """
    rows = tx.run(
        "SELECT DISTINCT name FROM member JOIN room_server USING (room_nid)"
        " JOIN server USING (server_nid)"
        " WHERE user_nid = ?1 AND membership = 1 AND (?2 IS NULL OR member.room_nid = ?2)"
        " AND name > ?3 ORDER BY name LIMIT ?4",
        user,
        room,
        after,
        limit,
    )
    return [ServerName(row[0]) for row in rows]


# --- the devices of users of other servers


@frozen
class RemoteList:
    """What is known of the devices of a user of another server."""

    user: UserNid
    stream_id: int
    stale: bool
    tries: int
    retry_ms: int


@frozen
class RemoteDevice:
    """A device of a user of another server; ``json`` holds its identity keys."""

    device_id: DeviceId
    display_name: str | None
    json: bytes


def shares_with_us(tx: Tx, user: UserNid) -> bool:
    """Whether a user is in a room with a user of ours: only then the user's server tells us."""
    row = tx.one(
        "SELECT 1 FROM member AS a JOIN member AS b USING (room_nid)"
        " WHERE a.user_nid = ? AND a.membership = 1 AND b.is_local = 1 AND b.membership = 1"
        " LIMIT 1",
        user,
    )
    return row is not None


def remote_list(tx: Tx, user: UserNid) -> RemoteList | None:
    """What is known of a user's devices; None: nothing, or it may have changed unnoticed.

    It is good only while the user has been in a room with one of us ever since it was fetched.
    """
    row = tx.one(
        "SELECT stream_id, stale, tries, retry_ms FROM remote_device_list AS list"
        " WHERE user_nid = ? AND EXISTS (SELECT 1 FROM member AS a JOIN member AS b"
        " USING (room_nid) WHERE a.user_nid = list.user_nid AND a.membership = 1"
        " AND a.pos <= list.since_pos AND b.is_local = 1 AND b.membership = 1"
        " AND b.pos <= list.since_pos)",
        user,
    )
    return None if row is None else RemoteList(user, row[0], bool(row[1]), row[2], row[3])


def remote_devices(tx: Tx, user: UserNid) -> list[RemoteDevice]:
    """The devices of a user of another server, as last heard."""
    rows = tx.run(
        "SELECT device_id, display_name, json FROM remote_device WHERE user_nid = ?"
        " ORDER BY device_id",
        user,
    )
    return [RemoteDevice(DeviceId(row[0]), row[1], bytes(row[2])) for row in rows]


def put_remote_list(tx: Tx, user: UserNid, stream: int, devices: list[RemoteDevice]) -> None:
    """Store a whole list over what was known."""
    tx.run("DELETE FROM remote_device WHERE user_nid = ?", user)
    for device in devices:
        put_remote_device(tx, user, device)
    tx.run(
        "INSERT OR REPLACE INTO remote_device_list (user_nid, stream_id, since_pos)"
        " VALUES (?, ?, ?)",
        user,
        stream,
        tx.position(),
    )


def put_remote_device(tx: Tx, user: UserNid, device: RemoteDevice) -> None:
    """Store one device over what was known of it."""
    tx.run(
        "INSERT INTO remote_device (user_nid, device_id, display_name, json) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (user_nid, device_id) DO UPDATE"
        " SET display_name = excluded.display_name, json = excluded.json",
        user,
        device.device_id,
        device.display_name,
        device.json,
    )


def remove_remote_device(tx: Tx, user: UserNid, device_id: str) -> None:
    """A device is gone."""
    tx.run("DELETE FROM remote_device WHERE user_nid = ? AND device_id = ?", user, device_id)


def remote_device_count(tx: Tx, user: UserNid) -> int:
    """How many devices of a user are known."""
    row = tx.one("SELECT COUNT(*) FROM remote_device WHERE user_nid = ?", user)
    assert row is not None
    return int(row[0])


def set_remote_stream_id(tx: Tx, user: UserNid, stream: int) -> None:
    """An update was applied."""
    tx.run("UPDATE remote_device_list SET stream_id = ? WHERE user_nid = ?", stream, user)


def mark_stale(tx: Tx, user: UserNid) -> None:
    """Something was missed: the list has to be fetched anew."""
    tx.run("UPDATE remote_device_list SET stale = 1 WHERE user_nid = ?", user)
    tx.changed(topics=(STALE,))


def want_lists(tx: Tx, users: Iterable[UserNid]) -> None:
    """Have lists of users fetched of whom nothing is known."""
    tx.many(
        "INSERT OR IGNORE INTO remote_device_list (user_nid, stream_id, since_pos, stale)"
        " VALUES (?, 0, 0, 1)",
        [(user,) for user in users],
    )
    tx.changed(topics=(STALE,))


def put_off(tx: Tx, user: UserNid, tries: int, retry_ms: int) -> None:
    """It could not be fetched; try again at a time."""
    tx.run(
        "UPDATE remote_device_list SET tries = ?, retry_ms = ? WHERE user_nid = ?",
        tries,
        retry_ms,
        user,
    )


def tries(tx: Tx, user: UserNid) -> int:
    """How often in a row a list could not be fetched."""
    row = tx.one("SELECT tries FROM remote_device_list WHERE user_nid = ?", user)
    return 0 if row is None else int(row[0])


def retry_now(tx: Tx, user: UserNid) -> None:
    """The user's server is there again: do not wait any longer."""
    tx.run("UPDATE remote_device_list SET retry_ms = 0 WHERE user_nid = ?", user)
    tx.changed(topics=(STALE,))


def drop_remote_list(tx: Tx, user: UserNid) -> None:
    """Forget a user's devices."""
    tx.run("DELETE FROM remote_device_list WHERE user_nid = ?", user)
    tx.run("DELETE FROM remote_device WHERE user_nid = ?", user)


def stale_lists(tx: Tx, limit: int) -> list[tuple[UserId, RemoteList]]:
    """Lists to be fetched anew, the first ones first."""
    rows = tx.run(
        "SELECT user_nid, stream_id, tries, retry_ms FROM remote_device_list WHERE stale = 1"
        " ORDER BY retry_ms LIMIT ?",
        limit,
    )
    return [
        (names.user_id(tx, UserNid(row[0])), RemoteList(UserNid(row[0]), row[1], True, *row[2:]))
        for row in rows
    ]
