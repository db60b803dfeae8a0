"""Putting guests out of rooms that have closed to them.

Matrix v1.19, Client-Server API, "Guest Access" ([C11.07]).  Who is put out leaves by the guest's
own event: that is all that a server may do to its users without any power in a room.
"""

from __future__ import annotations

from attrs import frozen

from matrixbox.core.identifiers import DeviceId
from matrixbox.errors import MatrixError
from matrixbox.observe import log
from matrixbox.rooms import guests, membership, resolution
from matrixbox.rooms.env import Env
from matrixbox.store import accounts, names
from matrixbox.store.caches import Session
from matrixbox.store.changes import StreamPos
from matrixbox.store.database import Store
from matrixbox.store.nids import DeviceNid, RoomNid, UserNid
from matrixbox.store.transaction import Tx


@frozen
class GuestKeeper:
    """Looks after rooms that may have closed to guests."""

    store: Store
    env: Env

    async def run(self) -> None:
        """Look after a start, and whenever a room says whether it is open to guests."""
        while True:
            position = self.store.doorbell.position
            for user, room in self.store.read(guests.to_put_out):
                await self._put_out(user, room)
            await self.store.doorbell.beyond(StreamPos(position), guests.TOPIC)

    async def _put_out(self, user: UserNid, room: RoomNid) -> None:
        about = {"user": user, "room_id": self.store.read(names.room_id, room)}
        try:
            await resolution.write(self.store, _leave, self.env, user, room)
        except MatrixError as error:
            log.warning("a guest could not be put out", reason=error.text, **about)
        else:
            log.info("a room has closed to a guest", **about)


def _leave(tx: Tx, env: Env, user: UserNid, room: RoomNid) -> None:
    account = accounts.get(tx, user)
    if account is None or not account.guest or guests.may_join(tx, room):
        return  # all has changed meanwhile
    nobody = (DeviceNid(0), DeviceId(""))
    who = Session(user, account.user_id, *nobody, admin=False, guest=True, deactivated=False)
    membership.leave(tx, env, who, room, {"reason": "This room is not open to guests any more."})
