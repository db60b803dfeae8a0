"""Joins that others may have let in, and that did not come to their end here.

Matrix v1.19, Server-Server API, "Joining Rooms", "Leaving Rooms" (T027, T036).  The answer was
lost, was no room, or we went down over it: to the others our user is in the room, and not here.
Where only keys are missing the join is made again until it succeeds; else, or after some days, it
is taken back by a leave.  Who was invited accepted by joining, and is not made to refuse.
"""

from __future__ import annotations

from collections.abc import Collection

import trio
from attrs import define, evolve, field

from matrixbox.core.identifiers import DeviceId, RoomId, ServerName
from matrixbox.errors import MatrixError, RemoteError, RemoteRefused
from matrixbox.federation.agenda import Agenda
from matrixbox.federation.joins import Joins, Wanted
from matrixbox.federation.keyring import Keyring
from matrixbox.federation.templates import Change
from matrixbox.observe import log
from matrixbox.rooms import outside, residence
from matrixbox.rooms.env import Env
from matrixbox.store import accounts, members, names, undecided
from matrixbox.store.caches import Session
from matrixbox.store.database import Store
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import DeviceNid, RoomNid, UserNid
from matrixbox.store.transaction import Tx
from matrixbox.store.undecided import OwedJoin

PAUSES_S = (5, 15, 30, 60, 120, 300, 900, 3600, 6 * 3600, 24 * 3600)  # the last one goes on
GO_ON_ATTEMPTS = 12  # some days; then the join is taken back
MAX_ATTEMPTS = 40
SIGN_OF_LIFE_S = 12.0  # after it; a server's keys are asked for at most once in 10 s
KEYS_S = 60.0
AT_ONCE = 4

Key = tuple[RoomNid, UserNid]


@define(eq=False)
class OwedJoins:
    """Brings joins to an end."""

    store: Store
    env: Env
    keyring: Keyring
    joins: Joins
    _agenda: Agenda[Key] = field(factory=lambda: Agenda(AT_ONCE), repr=False)
    _keyless: dict[Key, frozenset[ServerName]] = field(factory=dict, repr=False)

    async def run(self) -> None:
        """Go on with what an earlier run has left, and with what comes up in this one."""
        for owed in self.store.read(undecided.joins):
            self._put_off(owed)
        await self._agenda.run(self._bring_to_an_end)

    def owe(self, owed: OwedJoin, keyless: Collection[ServerName]) -> None:
        """A join did not come to its end; ``keyless`` are servers whose keys were missing."""
        self._keyless[owed.room, owed.user] = frozenset(keyless)
        self._put_off(owed)

    async def give_up(self, room_id: RoomId, user: UserNid) -> bool:
        """A user wants a join no more that did not come to its end; whether there was one."""
        owed = await self.store.write(_give_up, room_id, user)
        if owed is not None:
            self.owe(owed, ())
        return owed is not None

    def keys_came(self, server: ServerName) -> None:
        """A server has told its keys."""
        self._hasten(server, 0.0)

    def is_alive(self, server: ServerName) -> None:
        """A server that was silent gave a sign of life."""
        self._hasten(server, SIGN_OF_LIFE_S)

    def _hasten(self, server: ServerName, within_s: float) -> None:
        waiting = self._agenda.later_than(within_s, with_busy=False)
        self._agenda.hasten([key for key in waiting if self._waits_for(key, server)], within_s)

    def _waits_for(self, key: Key, server: ServerName) -> bool:
        owed = self.store.read(undecided.join_of, *key)
        return owed is not None and server in {*owed.servers, *self._keyless.get(key, ())}

    def _put_off(self, owed: OwedJoin) -> None:
        pause_s = PAUSES_S[min(owed.attempts, len(PAUSES_S) - 1)]
        self._agenda.put_off((owed.room, owed.user), pause_s)

    # --- one join

    async def _bring_to_an_end(self, key: Key) -> None:
        owed = self.store.read(undecided.join_of, *key)
        if owed is None or self.store.read(_is_settled, self.env, owed):
            await self._drop(key)
            return
        if owed.attempts >= MAX_ATTEMPTS:
            log.warning("a join that failed could not be taken back", room=owed.room)
            await self._drop(key)
            return
        if self._goes_on(owed):
            is_done = await self._join(owed)
        else:
            is_done = await self._take_back(owed)
        left = self.store.read(undecided.join_of, *key)
        if is_done or left is None:
            await self._drop(key)
            return
        left = evolve(left, attempts=owed.attempts + 1)
        is_owed = await self.store.write(undecided.put_join_attempts, left)
        if is_owed and key not in self._agenda:  # else somebody knows better when
            self._put_off(left)

    async def _drop(self, key: Key) -> None:
        self._agenda.drop(key)
        self._keyless.pop(key, None)
        if self.store.read(undecided.join_of, *key) is not None:
            await self.store.write(undecided.drop_join, *key)

    def _goes_on(self, owed: OwedJoin) -> bool:
        who, room_id = self.store.read(_session, owed), self.store.read(names.room_id, owed.room)
        if who is None or who.deactivated:
            return False
        is_invited = self.store.read(outside.is_outside, self.env, who, room_id) is not None
        return is_invited or (owed.goes_on and owed.attempts < GO_ON_ATTEMPTS)

    async def _join(self, owed: OwedJoin) -> bool:
        """Make the join anew; whether it is settled."""
        who, room_id = self.store.read(_session, owed), self.store.read(names.room_id, owed.room)
        assert who is not None
        keyless = self._keyless.get((owed.room, owed.user), frozenset())
        with trio.move_on_after(KEYS_S):
            for server in keyless:
                if not self.keyring.keys_of(server):
                    await self.keyring.refresh(server)
        if keyless and not any(self.keyring.keys_of(server) for server in keyless):
            return False  # nothing has changed, and every join is an event in the room
        try:
            await self.joins.join(Wanted(who, room_id, owed.servers, dict(owed.content)))
        except MatrixError as error:
            log.info("a join is still not complete", room=room_id, reason=error.text)
            return False
        log.info("a join was completed", room=room_id)
        return True

    async def _take_back(self, owed: OwedJoin) -> bool:
        """Leave again by way of those who may have let us in; whether all of them know."""
        room_id = self.store.read(names.room_id, owed.room)
        user_id = self.store.read(names.user_id, owed.user)
        change = Change(room_id, user_id, "leave", {})
        async with self.joins.taking_back(room_id, user_id) as is_free:
            if not is_free or self.store.read(_is_settled, self.env, owed):
                return False
            left = [name for name in owed.servers if not await self._leave(name, change)]
            if left:
                rest = evolve(owed, servers=tuple(left))
                await self.store.write(undecided.put_join_attempts, rest)
                return False
            await self.store.write(undecided.drop_join, owed.room, owed.user)
        log.info("a join that failed was taken back", room=room_id)
        return True

    async def _leave(self, server: ServerName, change: Change) -> bool:
        try:
            await self.joins.leave(server, change)
        except RemoteRefused as error:
            # It never let us in; but who says that it is not in the room itself may have, before.
            return 400 <= error.status < 500 and error.status not in (404, 429)
        except RemoteError as error:
            log.info("a join is not taken back", room=change.room_id, reason=str(error))
            return False
        return True


def _give_up(tx: Tx, room_id: RoomId, user: UserNid) -> OwedJoin | None:
    room = names.room_nid(tx, room_id)
    owed = None if room is None else undecided.join_of(tx, room, user)
    if owed is None:
        return None
    given_up = evolve(owed, goes_on=False, attempts=0)
    undecided.put_join(tx, given_up)
    return given_up


def _is_settled(tx: Tx, env: Env, owed: OwedJoin) -> bool:
    """Whether the user is in the room by what is known here too."""
    present = members.get(tx, owed.room, owed.user)
    return (
        present is not None
        and present.membership is Membership.JOIN
        and residence.is_resident(tx, env, owed.room)
    )


def _session(tx: Tx, owed: OwedJoin) -> Session | None:
    """The user as one who acts without a device."""
    account = accounts.get(tx, owed.user)
    if account is None:
        return None
    return Session(
        user=owed.user,
        user_id=names.user_id(tx, owed.user),
        device=DeviceNid(0),
        device_id=DeviceId(""),
        admin=False,
        guest=False,
        deactivated=account.state is accounts.AccountState.DEACTIVATED,
    )
