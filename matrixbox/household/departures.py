"""When somebody leaves the household: the account ends, and leaves its rooms.

Matrix v1.19, Client-Server API, "Account deactivation" ([C4.09]; T042, T110).  The account ends in
one transaction; leaving its rooms may take a while, and goes on after a restart.

Erasing drops what the server knows of the user beside the rooms, and shows what the user has said
only to those who were in the room before.  What is beyond us: copies at other servers, and the
events themselves, which the graphs of the rooms are made of.
"""

from __future__ import annotations

import contextlib

from attrs import frozen

from matrixbox.accounts import sessions
from matrixbox.core.identifiers import DeviceId
from matrixbox.errors import MatrixError
from matrixbox.observe import log
from matrixbox.rooms import membership, outside, resolution
from matrixbox.rooms.env import Env
from matrixbox.rooms.residence import is_resident
from matrixbox.store import (
    account_data,
    accounts,
    addresses,
    delayed,
    erasure,
    key_backup,
    keys,
    members,
    pushers,
)
from matrixbox.store.accounts import Account, AccountState
from matrixbox.store.caches import Session
from matrixbox.store.changes import StreamPos
from matrixbox.store.database import Store
from matrixbox.store.nids import DeviceNid, RoomNid
from matrixbox.store.transaction import Tx

TOPIC = "departures"
"""Rings when an account has ended."""


def close_account(tx: Tx, account: Account, *, erase: bool = False) -> None:
    """End an account for good: no session, no password; the name stays taken.

    Its rooms are left by `Departures`.
    """
    for key in account_data.profile(tx, account.user):
        account_data.remove_profile_field(tx, account.user, key)
    accounts.set_password(tx, account.user, None)
    accounts.set_state(tx, account.user, AccountState.DEACTIVATED)
    sessions.log_out_everywhere(tx, account.user)
    pushers.remove_of_user(tx, account.user)
    delayed.forget_user(tx, account.user)
    keys.forget_user(tx, account.user)
    key_backup.forget_user(tx, account.user)
    addresses.forget_user(tx, account.user)
    if erase:
        erasure.forget_user(tx, account.user, tx.position())
    tx.changed(users=(account.user,), topics=(TOPIC,))


@frozen
class Departures:
    """Lets those whose accounts have ended leave their rooms."""

    store: Store
    env: Env

    async def run(self) -> None:
        """Look after a start, and whenever an account has ended."""
        while True:
            position = self.store.doorbell.position
            for account in self.store.read(erasure.departing):
                await self.leave_rooms(account)
            await self.store.doorbell.beyond(StreamPos(position), TOPIC)

    async def leave_rooms(self, account: Account) -> None:
        """Leave every room, one transaction each."""
        for member in self.store.read(members.rooms_of, account.user):
            if member.membership in membership.IN_ROOM:
                # A room whose rules forbid even leaving keeps a member that is nobody any more.
                with contextlib.suppress(MatrixError):
                    await resolution.write(self.store, _leave, self.env, account, member.room)
        await self.store.write(erasure.departed, account.user)
        log.info("account has left its rooms", user_id=account.user_id)


def _leave(tx: Tx, env: Env, account: Account, room: RoomNid) -> None:
    if not is_resident(tx, env, room):
        outside.put_left(tx, env, room, account.user)
        return
    nobody = (DeviceNid(0), DeviceId(""))
    who = Session(
        account.user, account.user_id, *nobody, account.admin, account.guest, deactivated=False
    )
    membership.leave(tx, env, who, room)
