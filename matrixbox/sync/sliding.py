"""Sliding sync: what changed in the part of a user's rooms that a client looks at.

MSC4186, simplified sliding sync (T082, T084, T103, T105, T128).
"""

from __future__ import annotations

import trio
from attrs import define, field

from matrixbox.accounts import sessions
from matrixbox.core.json import encode
from matrixbox.rooms.env import Env
from matrixbox.rooms.reading import ignored_users
from matrixbox.rooms.tokens import SlidingToken
from matrixbox.store import to_device
from matrixbox.store.changes import StreamPos
from matrixbox.store.database import Store
from matrixbox.sync.listening import Listening
from matrixbox.sync.pacing import wait_for_news
from matrixbox.sync.sends import Sends
from matrixbox.sync.sliding_activity import Activities
from matrixbox.sync.sliding_building import Answer, SlidingBuilder
from matrixbox.sync.sliding_connection import (
    BEGUN_ANEW,
    Connection,
    Connections,
    UnknownPos,
)
from matrixbox.sync.sliding_entries import Knowledge
from matrixbox.sync.sliding_request import SlidingRequest
from matrixbox.sync.sliding_rooms import Moment
from matrixbox.sync.v3 import MAX_TIMEOUT_S, Waiting


class Superseded(Exception):
    """A newer request on the same connection has come."""


@define(eq=False)
class SlidingService:
    """Answers sliding sync."""

    store: Store
    env: Env
    sends: Sends
    _connections: Connections = field(init=False)
    _activities: Activities = field(init=False)
    _listening: Listening = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._connections = Connections(self.store)
        self._activities = Activities(self.store.doorbell)
        self._listening = Listening(self.store)

    async def sync(self, request: SlidingRequest, waiting: Waiting) -> bytes:
        """The answer, as soon as there is something to tell or the time is over.

        ``waiting(seconds)`` is the scope to wait in; it may end early, when the server stops.
        Raises UnknownPos, UnknownToken.
        """
        base = request.since
        if request.pos is not None and base is None:
            raise UnknownPos(BEGUN_ANEW)
        connection = self._connection(request, base)
        turn = connection.take_over()
        if base is None:
            base = SlidingToken(0, 0, 0, 0)
        await self._acknowledge(request)
        try:
            return await self._answer(request, waiting, connection, base, turn)
        except Superseded:
            if request.pos is None:
                raise UnknownPos(BEGUN_ANEW) from None
            return _encoded({"lists": {}, "rooms": {}, "extensions": {}}, request.pos, request)

    def _connection(self, request: SlidingRequest, base: SlidingToken | None) -> Connection:
        device = request.who.device
        if base is None:
            return self._connections.begin(device, request.conn_id)
        if base.pos > self.store.doorbell.position:
            raise UnknownPos(BEGUN_ANEW)  # of a lost future (T082)
        return self._connections.find(device, request.conn_id)

    async def _acknowledge(self, request: SlidingRequest) -> None:
        """The client has the to-device messages up to here (T128)."""
        asked, device = request.extensions.to_device, request.who.device
        since = None if asked is None else asked.since
        if since is None or since > self.store.doorbell.position:
            return
        if self.store.read(to_device.has_until, device, since):
            await self.store.write(to_device.remove_until, device, since)

    async def _answer(
        self,
        request: SlidingRequest,
        waiting: Waiting,
        connection: Connection,
        base: SlidingToken,
        turn: object,
    ) -> bytes:
        doorbell, is_first = self.store.doorbell, request.pos is None
        deadline = trio.current_time() + min(request.timeout_s, MAX_TIMEOUT_S)
        wait_s = request.timeout_s
        quiet = wait_s and self._is_quiet(request, connection, base)
        if quiet and await self._wait(request, waiting, connection, turn, base, wait_s):
            deadline = 0.0
        while True:
            now, serial = doorbell.position, self.env.typing.serial
            async with connection.lock:
                self._check_turn(connection, turn)
                if not is_first:
                    connection.reach(base)
                moment = self._moment(request, connection, base, now)
                builder = SlidingBuilder(self.store, request, moment, self.env.typing)
                knowledge = await builder.build()
                left_s = deadline - trio.current_time()
                if is_first or builder.is_news or left_s <= 0:
                    self._check_turn(connection, turn)
                    known = connection.known
                    if is_first or knowledge.rooms or knowledge.wide != connection.wide:
                        await self._remember(connection, knowledge)
                        known = connection.last
                    token = SlidingToken(connection.nid, known, now, serial)
                    connection.members_sent(builder.sent, token)
                    connection.answered = request.at(str(token))
                    connection.answered_at = trio.current_time()
                    break
            seen = SlidingToken(0, 0, now, serial)
            if await self._wait(request, waiting, connection, turn, seen, left_s):
                deadline = 0.0
        await self.sends.answered(request.who.device)
        return _encoded(builder.answer, str(token), request)

    def _is_quiet(
        self, request: SlidingRequest, connection: Connection, base: SlidingToken
    ) -> bool:
        """Whether the client has all that it asks for, so that only what comes later is news."""
        if connection.answered != request.at(str(base)):
            return False
        asked, device = request.extensions.to_device, request.who.device
        if asked is None:
            return True
        return not self.store.read(to_device.waiting, device, asked.since or 0, base.pos, 1)

    def _check_turn(self, connection: Connection, turn: object) -> None:
        if not connection.is_turn(turn) or not self._connections.is_known(connection):
            raise Superseded

    def _moment(
        self, request: SlidingRequest, connection: Connection, base: SlidingToken, now: int
    ) -> Moment:
        return Moment(
            who=request.who,
            form=request.form,
            connection=connection,
            base=base,
            now=now,
            now_ms=self.env.clock.now_ms(),
            ignored=self.store.read(ignored_users, request.who.user),
            doorbell=self.store.doorbell,
            activities=self._activities,
        )

    async def _remember(self, connection: Connection, knowledge: Knowledge) -> None:
        now_ms = self.env.clock.now_ms()
        for conn_id in await connection.remember(self.store, knowledge, now_ms):
            self._connections.forget(connection.device, conn_id)

    async def _wait(
        self,
        request: SlidingRequest,
        waiting: Waiting,
        connection: Connection,
        turn: object,
        seen: SlidingToken,
        left_s: float,
    ) -> bool:
        """Wait for what comes after ``seen``; whether the time is over."""
        doorbell, since = self.store.doorbell, StreamPos(seen.pos)
        keys = self._listening.keys(request.who, seen.pos)
        typing = self.env.typing
        async with waiting(left_s) as scope:
            connection.waits_in(scope)
            await wait_for_news(
                doorbell,
                typing,
                since,
                seen.serial,
                keys,
                answered=connection.answered_at,
                is_new=doorbell.has_news(since, keys.all)
                or typing.any_changed_since(keys.all, seen.serial),
                # Apps get them on a connection of their own. They are to have the keys to a message
                # before it comes on the other: matrix-rust-sdk fails on a verification otherwise.
                letters_wait=False,
            )
        self._check_turn(connection, turn)
        self.store.read(sessions.require_open, request.who, self.env.clock.now_ms())
        return scope.cancelled_caught


def _encoded(answer: Answer, pos: str, request: SlidingRequest) -> bytes:
    more = {} if request.txn_id is None else {"txn_id": request.txn_id}
    return encode({"pos": pos, **answer, **more})
