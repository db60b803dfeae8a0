"""Other servers learn of changes to our users' devices.

Matrix v1.19, Server-Server API, "Device Management", "End-to-End Encryption" ([B7.04], [B7.06],
[B7.07], T130).  Each change is noted in the transaction that makes it; the task here turns notes
into EDUs for the servers that share a room with the user, some hundred at a time, and goes on where
it was after a restart.
"""

from __future__ import annotations

from attrs import frozen

from matrixbox.core.identifiers import ServerName
from matrixbox.core.json import Json, decode_stored
from matrixbox.store import accounts, device_lists, joins, keys, names, outbound
from matrixbox.store.changes import StreamPos
from matrixbox.store.database import Store
from matrixbox.store.device_lists import Notice
from matrixbox.store.transaction import Tx

BATCH = 200
"""Servers that are told in one transaction."""
DEVICE_LIST_UPDATE = "m.device_list_update"
SIGNING_KEY_UPDATE = "m.signing_key_update"


@frozen
class Announcer:
    """Tells other servers what was noted."""

    store: Store
    own: ServerName

    async def run(self) -> None:
        """Go on until cancelled."""
        doorbell = self.store.doorbell
        while True:
            position = StreamPos(doorbell.position)
            while self.store.read(device_lists.next_notice) is not None:
                await self.store.write(tell_some, self.own)
            await doorbell.beyond(position, device_lists.NOTICES)


def tell_some(tx: Tx, own: ServerName) -> None:
    """Queue EDUs about the oldest change for the next servers that are to learn of it."""
    notice = device_lists.next_notice(tx)
    if notice is None:
        return
    if notice.room is not None and joins.partial(tx, notice.room) is not None:
        # There is another when the room's members are known.
        device_lists.notice_told(tx, notice.pos, None)
        return
    found = device_lists.servers_sharing(tx, notice.user, notice.room, notice.told, BATCH)
    if found:
        kind, content = _edu(tx, notice)
        subject = names.user_id(tx, notice.user)
        for server in found:
            if server != own:
                outbound.put_edu(tx, server, kind, content, subject)
    device_lists.notice_told(tx, notice.pos, found[-1] if len(found) == BATCH else None)


def _edu(tx: Tx, notice: Notice) -> tuple[str, dict[str, Json]]:
    """What there is to tell now: later changes to the same device are in it."""
    user_id = names.user_id(tx, notice.user)
    if notice.device_id is None:
        stored = keys.cross_signing_keys(tx, notice.user)
        content: dict[str, Json] = {"user_id": user_id}
        for usage in ("master", "self_signing"):
            if usage in stored:
                content[f"{usage}_key"] = decode_stored(stored[usage])
        return SIGNING_KEY_UPDATE, content
    content = {
        "user_id": user_id,
        "device_id": notice.device_id,
        "stream_id": notice.stream_id,
        "prev_id": [notice.prev_id] if notice.prev_id else [],
    }
    device = accounts.device(tx, notice.user, notice.device_id)
    identity = None if device is None else keys.device_keys(tx, device.nid)
    if device is None:
        content["deleted"] = True
    elif device.display_name is not None:
        content["device_display_name"] = device.display_name
    if identity is not None:
        content["keys"] = decode_stored(identity)
    return DEVICE_LIST_UPDATE, content
