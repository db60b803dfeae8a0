"""EDUs of other servers.

Matrix v1.19, Server-Server API, "EDUs", "Typing Notifications", "Presence", "Receipts", "Device
Management", "Send-to-device messaging" ([B7.01] to [B7.11], T037, T038, T084, T125).  Each EDU
tells of users of the server that sends it, and of nobody else; one that is wrong is dropped alone.
What is about devices is stored when `receive` returns; the rest may be lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import trio
from attrs import define, field

from matrixbox.core.identifiers import (
    EventId,
    InvalidIdentifier,
    RoomId,
    ServerName,
    UserId,
    is_user_id,
    parse_user_id,
    server_of,
)
from matrixbox.core.json import Json
from matrixbox.e2ee import incoming
from matrixbox.e2ee.incoming import DeviceNews
from matrixbox.rooms import receipts, servers
from matrixbox.rooms.env import Env
from matrixbox.rooms.receipts import FarReceipt
from matrixbox.store import members, names
from matrixbox.store.database import Store
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

TYPING_S = 60.0
"""How long somebody of another server types who was not said to have stopped."""
MAX_RECEIPTS = 2_000
"""Taken from one transaction."""
MAX_EARLY = 1_000
"""Receipts kept in memory for events that are not here yet."""
EARLY_S = 300.0
_BATCH = 100  # receipts in one write
_RETRY_S = 5.0

Edu = Mapping[str, Json]


@define(eq=False)
class EduReceiver:
    """Takes the EDUs of transactions."""

    store: Store
    env: Env
    devices: DeviceNews
    _early: dict[tuple[RoomId, UserId, str | None], tuple[float, ServerName, FarReceipt]] = field(
        factory=dict
    )
    _some_early: trio.Event = field(factory=trio.Event)

    async def receive(self, origin: ServerName, edus: Sequence[Edu]) -> None:
        """Take the EDUs of one transaction.  Raises StoreError when they have to come again."""
        devices: list[tuple[str, Json]] = []
        found: list[FarReceipt] = []
        for edu in edus:
            kind, content = edu.get("edu_type"), edu.get("content")
            if not isinstance(content, Mapping):
                continue
            if isinstance(kind, str) and kind in incoming.TYPES:
                devices.append((kind, content))
            elif kind == "m.receipt":
                found += _receipts(origin, content)
            elif kind == "m.typing":
                self._take_typing(origin, content)
            elif kind == "m.presence" and self.env.presence is not None:
                self.store.read(self.env.presence.receive, origin, content)
        if devices:
            await self.devices.receive(origin, devices)
        if found:
            await self._take_receipts(origin, found[:MAX_RECEIPTS])

    # --- typing

    def _take_typing(self, origin: ServerName, content: Edu) -> None:
        typist = self.store.read(_typist, origin, content)
        if typist is None:
            return
        if content.get("typing") is True:
            self.env.typing.start(*typist, TYPING_S)
        else:
            self.env.typing.stop(*typist)

    # --- receipts

    async def _take_receipts(self, origin: ServerName, found: Sequence[FarReceipt]) -> None:
        until = trio.current_time() + EARLY_S
        for far in await self._still_early(origin, found):
            key = (far.room_id, far.user_id, far.thread)
            if self._early.pop(key, None) is None and len(self._early) >= MAX_EARLY:
                del self._early[next(iter(self._early))]
            self._early[key] = (until, origin, far)
            self._some_early.set()

    async def _still_early(
        self, origin: ServerName, found: Sequence[FarReceipt]
    ) -> list[FarReceipt]:
        """Take receipts; those whose events are not here yet."""
        early: list[FarReceipt] = []
        for start in range(0, len(found), _BATCH):
            some = found[start : start + _BATCH]
            early += await self.store.write(_receive, self.env, origin, some)
        return early

    async def run(self) -> None:
        """Look again at receipts that came before their events."""
        while True:
            await self._some_early.wait()
            self._some_early = trio.Event()
            while self._early:
                await trio.sleep(_RETRY_S)
                waiting, self._early = self._early, {}
                by_origin: dict[ServerName, list[FarReceipt]] = {}
                for _, origin, far in waiting.values():
                    by_origin.setdefault(origin, []).append(far)
                early = {
                    (far.room_id, far.user_id, far.thread)
                    for origin, some in by_origin.items()
                    for far in await self._still_early(origin, some)
                }
                now = trio.current_time()
                for key, kept in waiting.items():
                    if key in early and kept[0] > now:
                        self._early.setdefault(key, kept)


def _typist(tx: Tx, origin: ServerName, content: Edu) -> tuple[RoomNid, UserId] | None:
    """Where and who types; None where it may not be believed ([B7.01])."""
    room_id, user_id = content.get("room_id"), content.get("user_id")
    if not isinstance(room_id, str) or not is_user_id(user_id):
        return None
    room = names.room_nid(tx, RoomId(room_id))
    if room is None or server_of(user_id) != origin:
        return None
    if not servers.may_have_joined(tx, room, user_id):
        return None
    if not members.local_joined(tx, room) or not servers.is_allowed(tx, room, origin):
        return None
    return room, user_id


def _receive(tx: Tx, env: Env, origin: ServerName, found: Sequence[FarReceipt]) -> list[FarReceipt]:
    """Take receipts; those whose events are not here yet."""
    return [far for far in found if not receipts.receive(tx, env, origin, far)]


def _receipts(origin: ServerName, content: Edu) -> Iterator[FarReceipt]:
    """The public receipts in an EDU that have the right form ([B7.03])."""
    for room_id, kinds in content.items():
        users = kinds.get("m.read") if isinstance(kinds, Mapping) else None
        for name, said in users.items() if isinstance(users, Mapping) else ():
            try:
                user_id = parse_user_id(name)
            except InvalidIdentifier:
                continue
            if server_of(user_id) != origin or not isinstance(said, Mapping):
                continue
            data, event_ids = said.get("data"), said.get("event_ids")
            data = data if isinstance(data, Mapping) else {}
            ts, thread = data.get("ts"), data.get("thread_id")
            if not isinstance(event_ids, list) or len(event_ids) != 1:
                continue
            if isinstance(event_ids[0], str) and (thread is None or isinstance(thread, str)):
                stamp = ts if type(ts) is int else -1
                yield FarReceipt(RoomId(room_id), user_id, EventId(event_ids[0]), stamp, thread)
