"""`GET /sync`: everything that changed for a user since a token.

Matrix v1.19, Client-Server API, "Syncing" ([C8.01], [C8.05], [C8.22], [C8.30], T128).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import trio
from attrs import define, evolve, field

from matrixbox.accounts import sessions
from matrixbox.core.json import encode
from matrixbox.rooms.env import Env
from matrixbox.rooms.tokens import SyncToken
from matrixbox.store import to_device
from matrixbox.store.caches import Lru
from matrixbox.store.changes import Key, StreamPos
from matrixbox.store.database import Store
from matrixbox.store.nids import DeviceNid
from matrixbox.store.transaction import Tx
from matrixbox.sync.building import Answer, Builder, SyncRequest, empty_answer
from matrixbox.sync.listening import Listening
from matrixbox.sync.pacing import LONG_AGO, wait_for_news, was_long_ago
from matrixbox.sync.sends import Sends

MAX_TIMEOUT_S = 120.0
MAX_DEVICES = 1_000
"""Devices whose last answer is remembered; others are told of everything at once."""

Waiting = Callable[[float], AbstractAsyncContextManager[trio.CancelScope]]


@define(eq=False)
class SyncService:
    """Answers `/sync`."""

    store: Store
    env: Env
    sends: Sends = field(factory=Sends)
    _listening: Listening = field(init=False)
    _answered: Lru[DeviceNid, float] = field(factory=lambda: Lru(MAX_DEVICES))

    def __attrs_post_init__(self) -> None:
        self._listening = Listening(self.store)

    async def sync(self, request: SyncRequest, waiting: Waiting) -> bytes:
        """The answer, as soon as there is something to tell or the time is over.

        ``waiting(seconds)`` is the scope to wait in; it may end early, when the server stops.
        """
        doorbell = self.store.doorbell
        deadline = trio.current_time() + min(request.timeout_s, MAX_TIMEOUT_S)
        since = request.since
        if since is not None and since.pos > doorbell.position:
            since = evolve(since, pos=doorbell.position)  # of a lost future (T082)
            deadline = 0.0
        if since is not None and self.store.read(
            to_device.has_until, request.who.device, since.inbox
        ):
            await self.store.write(to_device.remove_until, request.who.device, since.inbox)
        if since is not None and self._is_early(request, since, deadline):
            left_s = deadline - trio.current_time()
            if await self._wait(request, waiting, since, left_s):
                deadline = 0.0
        while True:
            token = SyncToken(doorbell.position, self.env.typing.serial)
            keys = self._listening.keys(request.who, token.pos)
            if since is None or request.full_state or self._has_news(since, keys.all):
                answer, is_news = self.store.read(self._build, request, since, token)
                if is_news or since is None or request.full_state:
                    await self.sends.answered(request.who.device)
                    return self._told(request, answer)
            left_s = deadline - trio.current_time()
            if left_s <= 0:
                return self._told(request, self.store.read(empty_answer, request.who, token))
            if await self._wait(request, waiting, token, left_s):
                deadline = 0.0

    def _is_early(self, request: SyncRequest, since: SyncToken, deadline: float) -> bool:
        """Whether the device was answered a moment ago, and there is little to tell since."""
        if request.full_state or since.behind is not None or trio.current_time() >= deadline:
            return False
        if was_long_ago(self._answered_at(request)):
            return False
        doorbell = self.store.doorbell
        keys = self._listening.keys(request.who, doorbell.position)
        is_urgent = doorbell.has_news(StreamPos(since.pos), keys.urgent)
        return not is_urgent and self._has_news(since, keys.all)

    async def _wait(
        self, request: SyncRequest, waiting: Waiting, seen: SyncToken, left_s: float
    ) -> bool:
        """Wait for what comes after ``seen``; whether the time is over."""
        doorbell, who = self.store.doorbell, request.who
        keys = self._listening.keys(who, doorbell.position)
        async with waiting(left_s) as scope:
            await wait_for_news(
                doorbell,
                self.env.typing,
                StreamPos(seen.pos),
                seen.serial,
                keys,
                answered=self._answered_at(request),
                is_new=self._has_news(seen, keys.all),
                letters_wait=True,
            )
        self.store.read(sessions.require_open, who, self.env.clock.now_ms())
        return scope.cancelled_caught

    def _answered_at(self, request: SyncRequest) -> float:
        return self._answered.get(request.who.device) or LONG_AGO

    def _told(self, request: SyncRequest, answer: Answer) -> bytes:
        self._answered.put(request.who.device, trio.current_time())
        return encode(answer)

    def _has_news(self, since: SyncToken, keys: frozenset[Key]) -> bool:
        if since.behind is not None:
            return True  # to-device messages are left
        presence = self.env.presence
        return (
            self.store.doorbell.has_news(StreamPos(since.pos), keys)
            or self.env.typing.any_changed_since(keys, since.serial)
            or (presence is not None and presence.any_changed_since(since.serial))
        )

    # --- building an answer

    def _build(
        self, tx: Tx, request: SyncRequest, since: SyncToken | None, token: SyncToken
    ) -> tuple[Answer, bool]:
        now_ms = self.env.clock.now_ms()
        since = since or SyncToken(0, 0)
        return Builder(
            tx,
            request,
            since,
            token,
            now_ms,
            self.store.doorbell,
            self.env.typing,
            self.env.presence,
        ).build()
