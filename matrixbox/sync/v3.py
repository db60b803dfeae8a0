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
from matrixbox.store.changes import Key, StreamPos
from matrixbox.store.database import Store
from matrixbox.store.transaction import Tx
from matrixbox.sync.building import Answer, Builder, SyncRequest, empty_answer
from matrixbox.sync.listening import Listening
from matrixbox.sync.sends import Sends

MAX_TIMEOUT_S = 120.0
COALESCE_S = 0.05
"""How long news that nobody waits for, receipts and typing, waits for company (T084)."""

Waiting = Callable[[float], AbstractAsyncContextManager[trio.CancelScope]]


@define(eq=False)
class SyncService:
    """Answers `/sync`."""

    store: Store
    env: Env
    sends: Sends = field(factory=Sends)
    _listening: Listening = field(init=False)

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
        while True:
            token = SyncToken(doorbell.position, self.env.typing.serial)
            keys = self._listening.keys(request.who, token.pos)
            if since is None or request.full_state or self._has_news(since, keys.all):
                answer, is_news = self.store.read(self._build, request, since, token)
                if is_news or since is None or request.full_state:
                    await self.sends.answered(request.who.device)
                    return encode(answer)
            left_s = deadline - trio.current_time()
            if left_s <= 0:
                return encode(self.store.read(empty_answer, request.who, token))
            async with waiting(left_s) as scope:
                await doorbell.beyond(StreamPos(token.pos), keys.all)
                if not doorbell.has_news(StreamPos(token.pos), keys.urgent):
                    # A receipt, or somebody types: what is said meanwhile comes along.
                    with trio.move_on_after(COALESCE_S):
                        await doorbell.beyond(StreamPos(token.pos), keys.urgent)
            self.store.read(sessions.require_open, request.who, self.env.clock.now_ms())
            if scope.cancelled_caught:
                deadline = 0.0

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
