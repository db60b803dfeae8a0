"""The service that sends delayed events when their time has come (MSC4140).

What was due while the server was down goes out at the start, in the order of the times.  Durations
are those of the monotonic clock: a step of the wall clock sends nothing early, and delays nothing
by more than its own delay (T152, T153).  The events of one room are sent one after the other, those
of different rooms do not wait for each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import cast

import trio
from attrs import define, evolve, field

from matrixbox.accounts.throttle import MESSAGES, Throttle
from matrixbox.core.identifiers import DeviceId
from matrixbox.core.json import Json, decode_stored, encode
from matrixbox.errors import (
    Conflict,
    MatrixError,
    Unavailable,
    UserDeactivated,
    UserLocked,
    UserSuspended,
)
from matrixbox.observe import log
from matrixbox.rooms import delayed, resolution, sending
from matrixbox.rooms.env import Env
from matrixbox.rooms.ingest import Transaction
from matrixbox.rooms.time_floor import TimeFloor
from matrixbox.store import accounts
from matrixbox.store import delayed as store
from matrixbox.store.accounts import Account, AccountState
from matrixbox.store.caches import Session
from matrixbox.store.changes import StreamPos
from matrixbox.store.database import Store
from matrixbox.store.delayed import Delayed, Timer
from matrixbox.store.errors import StoreFull
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx

LOOK_EVERY_S = 600.0
TRY_AGAIN_S = 30.0
MAX_ATTEMPTS = 10
"""How often an event is tried again that the server could not send for a reason of its own."""


@define(eq=False)
class Delays:
    """Sends delayed events."""

    store: Store
    env: Env
    time: TimeFloor
    throttle: Throttle
    _deadlines: dict[tuple[int, int], float] = field(factory=dict)  # monotonic, by nid and due_ms
    _attempts: dict[int, int] = field(factory=dict)
    _busy: set[RoomNid] = field(factory=set)
    _done: trio.Event = field(factory=trio.Event)

    async def run(self) -> None:
        """Send what is due, now and for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._know_the_time()
                position = self.store.doorbell.position
                timers = self.store.read(store.timers)
                self._set_deadlines(timers)
                for room in dict.fromkeys(timer.room for timer in self._due(timers)):
                    if room not in self._busy:
                        self._busy.add(room)
                        nursery.start_soon(self._send_of, room)
                await self._wait(position, timers)

    async def _know_the_time(self) -> None:
        while True:
            try:
                return await self.time.wait()
            except Unavailable:
                continue  # it has waited

    def _set_deadlines(self, timers: list[Timer]) -> None:
        now_ms, now_s = self.env.clock.now_ms(), self.env.clock.monotonic_s()
        known, self._deadlines = self._deadlines, {}
        for timer in timers:
            key = (timer.nid, timer.due_ms)
            left_ms = min(max(timer.due_ms - now_ms, 0), timer.delay_ms)
            self._deadlines[key] = known.get(key, now_s + left_ms / 1000)

    def _due(self, timers: list[Timer]) -> list[Timer]:
        now_s = self.env.clock.monotonic_s()
        return [one for one in timers if self._deadlines[one.nid, one.due_ms] <= now_s]

    async def _wait(self, position: StreamPos, timers: list[Timer]) -> None:
        """Until the next one is due, or something was scheduled, or a room has been served."""
        waiting = (one for one in timers if one.room not in self._busy)
        next_s = min((self._deadlines[one.nid, one.due_ms] for one in waiting), default=None)
        left_s = LOOK_EVERY_S
        if next_s is not None:
            left_s = min(left_s, max(0.0, next_s - self.env.clock.monotonic_s()))
        self._done = trio.Event()
        with trio.move_on_after(left_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_scheduled, position, nursery.cancel_scope)
                await self._done.wait()
                nursery.cancel_scope.cancel()

    async def _until_scheduled(self, position: StreamPos, scope: trio.CancelScope) -> None:
        await self.store.doorbell.beyond(position, delayed.TOPIC)
        scope.cancel()

    async def _send_of(self, room: RoomNid) -> None:
        """Send what is due in a room, the earliest first."""
        try:
            while True:
                timers = [one for one in self.store.read(store.timers) if one.room == room]
                due = [
                    one
                    for one in timers
                    if self._deadlines.get((one.nid, one.due_ms), float("inf"))
                    <= self.env.clock.monotonic_s()
                ]
                if not due or not await self._send(due[0]):
                    return
        finally:
            self._busy.discard(room)
            self._done.set()

    async def _send(self, timer: Timer) -> bool:
        """Send one, or remember why not; False: it stays, and is tried later."""
        one = self.store.read(store.by_nid, timer.nid)
        if one is None or one.due_ms != timer.due_ms:
            return True  # cancelled, sent or restarted meanwhile
        try:
            await self.deliver(one, quiet=True)
        except (Unavailable, StoreFull) as error:
            tried = self._attempts.get(timer.nid, 0) + 1
            if tried < MAX_ATTEMPTS:
                self._attempts[timer.nid] = tried
                again_s = self.env.clock.monotonic_s() + TRY_AGAIN_S
                self._deadlines[timer.nid, timer.due_ms] = again_s
                return False
            await self._give_up(one, Unavailable("The server could not send it."))
            log.warning("delayed event was not sent", reason=str(error))
        except MatrixError as error:
            await self._give_up(one, error)
        self._attempts.pop(timer.nid, None)
        return True

    async def _give_up(self, one: Delayed, error: MatrixError) -> None:
        body = encode(cast(dict[str, Json], error.json()))

        def write(tx: Tx) -> None:
            present = store.by_nid(tx, one.nid)
            if present is not None and present.due_ms == one.due_ms:
                delayed.over(tx, self.env, present, body)

        await self.store.write(write)
        log.info("delayed event was refused", user=one.user, errcode=error.errcode)

    # --- also for handlers

    async def send_now(self, delay_id: str, user: UserNid | None) -> None:
        """Send one before its time.  Raises NotFound, Conflict, and what sending raises.

        After an error it stays scheduled.
        """
        one = self.store.read(delayed.found, delay_id, user)
        if one.event_id is None:
            await self.time.wait()
            await self.deliver(one, quiet=False)

    async def deliver(self, one: Delayed, *, quiet: bool) -> None:
        """Send one as its user would; what is over already is not sent.  Raises MatrixError.

        `quiet`: the user does not count as active, who may be far away.
        """
        account = self.store.read(accounts.get, one.user)
        if account is None or account.state is AccountState.DEACTIVATED:
            raise UserDeactivated("This account has been deactivated.")
        self.throttle.take(MESSAGES, account.user_id)
        env = evolve(self.env, presence=None) if quiet else self.env
        await resolution.write(self.store, _send, env, account, one.nid, one.due_ms)


def _send(tx: Tx, env: Env, account: Account, nid: int, due_ms: int | None) -> None:
    one = store.by_nid(tx, nid)
    if one is None or one.event_id is not None:
        return
    if one.due_ms is None:
        raise Conflict("That event was cancelled already.")
    if one.due_ms != due_ms:
        return  # restarted at this very moment
    content = decode_stored(one.content)
    assert isinstance(content, dict)
    _require_standing(account, one, content)
    who = Session(
        account.user,
        account.user_id,
        one.device,
        DeviceId(""),
        account.admin,
        account.guest,
        deactivated=False,
        suspended=account.suspended,
    )
    if one.state_key is not None:
        stored = sending.send_state(tx, env, who, one.room, one.type, one.state_key, content)
    else:
        key = hashlib.blake2b(one.delay_id.encode(), digest_size=16).digest()
        transaction = Transaction(one.device, key, one.txn_id or one.delay_id)
        stored = sending.send_message(tx, env, who, one.room, one.type, content, transaction)
    store.sent(tx, one, stored, env.clock.now_ms())
    store.prune(tx, one.user, delayed.MAX_ENDED)


def _require_standing(account: Account, one: Delayed, content: Mapping[str, Json]) -> None:
    """Raise what a request of that user would meet at this moment ([C6.01], [C6.02])."""
    if account.locked:
        raise UserLocked
    if not account.suspended:
        return
    leaves = (one.type, one.state_key) == ("m.room.member", account.user_id)
    if one.type != "m.room.redaction" and not (leaves and content.get("membership") == "leave"):
        raise UserSuspended("You cannot do that while your account is suspended.")
