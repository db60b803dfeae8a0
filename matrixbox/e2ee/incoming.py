"""What other servers tell about devices: updates of lists, messages, cross-signing keys.

Matrix v1.19, Server-Server API, "Device Management", "End-to-End Encryption", "Send-to-device
messaging" ([B7.04] to [B7.11]).  All of it is on the disk when `receive` returns.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from matrixbox.clock import Clock
from matrixbox.core.identifiers import ServerName, UserId
from matrixbox.core.json import Json
from matrixbox.e2ee import remote_lists, to_device
from matrixbox.e2ee.device_lists import DEVICE_LIST_UPDATE, SIGNING_KEY_UPDATE
from matrixbox.e2ee.remote_lists import RemoteLists
from matrixbox.observe import log
from matrixbox.store.database import Store
from matrixbox.store.errors import StoreError
from matrixbox.store.outbound import TO_DEVICE
from matrixbox.store.transaction import Tx

BATCH = 20
"""EDUs that are taken in one transaction."""
TYPES = frozenset({DEVICE_LIST_UPDATE, SIGNING_KEY_UPDATE, TO_DEVICE})

Edu = tuple[str, Json]
Heard = list[tuple[UserId, int]]


@frozen
class DeviceNews:
    """Takes the EDUs of these types; each is checked for itself, and dropped if it is no good."""

    store: Store
    own: ServerName
    clock: Clock
    lists: RemoteLists

    async def receive(self, origin: ServerName, edus: Sequence[Edu]) -> None:
        """Take EDUs, pairs of type and content, in their order.  Other types are passed over."""
        known = [edu for edu in edus if edu[0] in TYPES]
        for start in range(0, len(known), BATCH):
            await self._take(origin, known[start : start + BATCH])

    async def _take(self, origin: ServerName, edus: Sequence[Edu]) -> None:
        try:
            heard = await self.store.write(self._take_all, origin, edus)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 one EDU fails alone
            if len(edus) == 1:
                log.bug("EDU not taken", error, origin=origin, type=edus[0][0])
                return
            for edu in edus:
                await self._take(origin, [edu])
            return
        for user_id, stream_id in heard:
            self.lists.heard(user_id, stream_id)

    def _take_all(self, tx: Tx, origin: ServerName, edus: Sequence[Edu]) -> Heard:
        heard: Heard = []
        for kind, content in edus:
            if kind == TO_DEVICE:
                to_device.receive(tx, self.own, origin, content, self.clock.now_ms())
            elif kind == SIGNING_KEY_UPDATE:
                remote_lists.receive_signing_keys(tx, origin, content)
            else:
                update = remote_lists.receive_update(tx, origin, content)
                heard += [] if update is None else [update]
        return heard
