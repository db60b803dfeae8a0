"""`GET /sync`: everything that changed for a user since a token.

Matrix v1.19, Client-Server API, "Syncing" ([C8.01], [C8.05], [C8.22], [C8.30], T128).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import trio
from attrs import define, evolve, field, frozen

from matrixbox.core.json import encode
from matrixbox.errors import UnknownToken
from matrixbox.rooms.env import Env
from matrixbox.rooms.tokens import SyncToken
from matrixbox.store import accounts, members, to_device
from matrixbox.store.caches import Session
from matrixbox.store.changes import Key, StreamPos, receipts_key, room_key, user_key
from matrixbox.store.database import Store
from matrixbox.store.memberships import Membership
from matrixbox.store.transaction import Tx
from matrixbox.sync.building import Answer, Builder, SyncRequest, empty_answer
from matrixbox.sync.sends import Sends

MAX_TIMEOUT_S = 120.0
COALESCE_S = 0.05
"""How long news that nobody waits for, receipts and typing, waits for company (T084)."""

Waiting = Callable[[float], AbstractAsyncContextManager[trio.CancelScope]]


@frozen
class Keys:
    """What a user listens to, found out at a stream position."""

    since: int
    urgent: frozenset[Key]
    all: frozenset[Key]


@define(eq=False)
class SyncService:
    """Answers `/sync`."""

    store: Store
    env: Env
    sends: Sends = field(factory=Sends)
    _keys: dict[int, Keys] = field(factory=dict)

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
            keys = self._listening_keys(request.who, token.pos)
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
            if not self.store.read(accounts.is_signed_in, request.who.device):
                raise UnknownToken  # the device was removed meanwhile (T103)
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

    def _listening_keys(self, who: Session, now: int) -> Keys:
        """What rings for a user: the user, and the rooms that the user is in."""
        mine = user_key(who.user)
        known = self._keys.get(who.user)
        if known is None or self.store.doorbell.has_news(StreamPos(known.since), mine):
            found = self.store.read(members.rooms_of, who.user)
            joined = [m.room for m in found if m.membership is Membership.JOIN]
            urgent = frozenset([mine, *map(room_key, joined)])
            known = Keys(now, urgent, urgent.union(map(receipts_key, joined)))
            self._keys[who.user] = known
        return known

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
