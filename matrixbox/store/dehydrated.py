"""Dehydrated devices: one for each user at most."""

from __future__ import annotations

from attrs import frozen

from matrixbox.core.identifiers import DeviceId
from matrixbox.store.nids import DeviceNid, UserNid
from matrixbox.store.transaction import Tx


@frozen
class Dehydrated:
    """A device that waits for messages while nobody is signed in on it."""

    device: DeviceNid
    device_id: DeviceId
    json: bytes


def get(tx: Tx, user: UserNid) -> Dehydrated | None:
    """The user's dehydrated device."""
    row = tx.one(
        "SELECT device_nid, device_id, json FROM dehydrated_device"
        " JOIN device USING (device_nid) WHERE dehydrated_device.user_nid = ?",
        user,
    )
    return None if row is None else Dehydrated(DeviceNid(row[0]), DeviceId(row[1]), bytes(row[2]))


def put(tx: Tx, user: UserNid, device: DeviceNid, json: bytes) -> None:
    """Make a device the user's dehydrated one."""
    tx.run(
        "INSERT OR REPLACE INTO dehydrated_device (user_nid, device_nid, json) VALUES (?, ?, ?)",
        user,
        device,
        json,
    )


def remove(tx: Tx, device: DeviceNid) -> None:
    """A device is removed, dehydrated or not."""
    tx.run("DELETE FROM dehydrated_device WHERE device_nid = ?", device)
