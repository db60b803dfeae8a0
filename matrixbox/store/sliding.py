"""Connections of sliding sync, as stored.

A connection belongs to a device.  What it knows is opaque here: bytes that `sync` writes and reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from matrixbox.store.nids import DeviceNid, RoomNid
from matrixbox.store.transaction import Tx


@frozen
class Head:
    """A connection without its rooms."""

    serial: int  # of the point that the client has shown to have reached
    pending_serial: int  # of the last point it was told of
    wide: bytes
    pending: bytes
    configs: bytes


@frozen
class Stored:
    """A connection as it was stored."""

    nid: int
    head: Head
    used_ms: int
    rooms: Mapping[RoomNid, bytes]


def find(tx: Tx, device: DeviceNid, conn_id: str) -> Stored | None:
    """The connection of a device that has this name."""
    row = tx.one(
        "SELECT conn_nid, used_ms, serial, pending_serial, wide, pending, configs"
        " FROM sliding_connection WHERE device_nid = ? AND conn_id = ?",
        device,
        conn_id,
    )
    if row is None:
        return None
    nid, used_ms, serial, pending_serial, *texts = row
    rooms = tx.run("SELECT room_nid, entry FROM sliding_room WHERE conn_nid = ?", nid)
    return Stored(
        nid,
        Head(serial, pending_serial, *map(bytes, texts)),
        used_ms,
        {RoomNid(room): bytes(entry) for room, entry in rooms},
    )


def begin(
    tx: Tx, device: DeviceNid, conn_id: str, used_ms: int, head: Head, most: int
) -> tuple[int, list[str]]:
    """Store a new connection in the place of any of that name; its number.

    A device keeps its ``most`` connections that were used last; the names of those that are
    forgotten for it are returned too.
    """
    _remove(tx, tx.run(
        "SELECT conn_nid FROM sliding_connection WHERE device_nid = ? AND conn_id = ?",
        device,
        conn_id,
    ))  # fmt: skip
    tx.run(
        "INSERT INTO sliding_connection"
        " (device_nid, conn_id, used_ms, serial, pending_serial, wide, pending, configs)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        device,
        conn_id,
        used_ms,
        head.serial,
        head.pending_serial,
        head.wide,
        head.pending,
        head.configs,
    )
    nid = tx.last_rowid
    surplus = tx.run(
        "SELECT conn_nid, conn_id FROM sliding_connection WHERE device_nid = ? AND conn_nid != ?"
        " ORDER BY used_ms DESC, conn_nid DESC LIMIT -1 OFFSET ?",
        device,
        nid,
        most - 1,
    )
    _remove(tx, surplus)
    return nid, [name for _, name in surplus]


def put(
    tx: Tx, nid: int, used_ms: int, head: Head, rooms: Sequence[tuple[RoomNid, bytes | None]]
) -> bool:
    """Store what a connection came to know; a room without bytes is forgotten.

    False: the connection is not stored any more.
    """
    tx.run(
        "UPDATE sliding_connection SET used_ms = ?, serial = ?, pending_serial = ?, wide = ?,"
        " pending = ?, configs = ? WHERE conn_nid = ?",
        used_ms,
        head.serial,
        head.pending_serial,
        head.wide,
        head.pending,
        head.configs,
        nid,
    )
    if not tx.rows_changed:
        return False
    gone = [(nid, room) for room, entry in rooms if entry is None]
    tx.many("DELETE FROM sliding_room WHERE conn_nid = ? AND room_nid = ?", gone)
    tx.many(
        "INSERT OR REPLACE INTO sliding_room (conn_nid, room_nid, entry) VALUES (?, ?, ?)",
        [(nid, room, entry) for room, entry in rooms if entry is not None],
    )
    return True


def remove_of_device(tx: Tx, device: DeviceNid) -> None:
    """Forget the connections of a device."""
    _remove(tx, tx.run("SELECT conn_nid FROM sliding_connection WHERE device_nid = ?", device))


def count(tx: Tx, device: DeviceNid) -> int:
    """How many connections a device has."""
    row = tx.one("SELECT COUNT(*) FROM sliding_connection WHERE device_nid = ?", device)
    assert row is not None
    return int(row[0])


def _remove(tx: Tx, found: list[tuple[object, ...]]) -> None:
    for row in found:
        nid = row[0]
        assert isinstance(nid, int)
        tx.run("DELETE FROM sliding_room WHERE conn_nid = ?", nid)
        tx.run("DELETE FROM sliding_connection WHERE conn_nid = ?", nid)
