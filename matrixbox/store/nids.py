"""Numbers that stand for names inside the database; see ``names`` and the schema."""

from __future__ import annotations

from typing import NewType

RoomNid = NewType("RoomNid", int)
UserNid = NewType("UserNid", int)
DeviceNid = NewType("DeviceNid", int)
SlotNid = NewType("SlotNid", int)
EventNid = NewType("EventNid", int)
SnapshotNid = NewType("SnapshotNid", int)
ServerNid = NewType("ServerNid", int)
