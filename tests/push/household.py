"""A household in memory whose notifications go to a gateway that does what a test wants."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from attrs import define, field

from matrixbox.errors import RemoteError, RemoteTimeout, RemoteUnreachable
from matrixbox.push import pushers
from matrixbox.push.gateway import rejected_in
from matrixbox.push.sender import PushSender
from matrixbox.rooms import receipts
from matrixbox.rooms.receipts import Marks
from matrixbox.store import pushers as stored
from matrixbox.store.caches import Session, StoredEvent
from matrixbox.store.nids import RoomNid
from matrixbox.store.pushers import Pusher, PusherNid
from tests.rooms.house import House, household

URL = "https://push.test/_matrix/push/v1/notify"
Told = dict[str, Any]


@define
class FakeGateway:
    """Remembers what it was told; `answers` decides, by URL, what becomes of a call."""

    told: list[tuple[float, str, Told]] = field(factory=list)
    answers: dict[str, Callable[[Told], bytes]] = field(factory=dict)
    under_way: int = 0
    most_under_way: int = 0
    takes_s: float = 0.0

    async def notify(self, url: str, body: bytes) -> frozenset[str]:
        """As Gateway."""
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await trio.sleep(self.takes_s)
            notification = json.loads(body)["notification"]
            self.told.append((trio.current_time(), url, notification))
            answer = self.answers.get(url, lambda _: b'{"rejected":[]}')(notification)
            if answer == b"silence":
                await trio.sleep(10)
                raise RemoteTimeout(url, "no answer")
            return rejected_in(url, answer)
        finally:
            self.under_way -= 1

    def of(self, pushkey: str) -> list[Told]:
        """What one pusher was told."""
        return [told for _, _, told in self.told if told["devices"][0]["pushkey"] == pushkey]

    def events(self, pushkey: str) -> list[str]:
        """The events that one pusher was told of."""
        return [told["event_id"] for told in self.of(pushkey) if "event_id" in told]

    def badges(self, pushkey: str) -> list[int]:
        """The counts that one pusher was told without an event."""
        return [told["counts"]["unread"] for told in self.of(pushkey) if "event_id" not in told]


def unreachable(url: str = URL) -> Callable[[Told], bytes]:
    """A gateway that is not there."""

    def answer(_: Told) -> bytes:
        raise RemoteUnreachable(url, "no connection")

    return answer


def failing(error: RemoteError) -> Callable[[Told], bytes]:
    """A gateway that fails in some way."""

    def answer(_: Told) -> bytes:
        raise error

    return answer


@define
class Pushed:
    """A household, its gateway, and the service between them."""

    house: House
    gateway: FakeGateway
    nursery: trio.Nursery
    _scope: trio.CancelScope | None = None

    async def start(self) -> None:
        """Start the service, or start it again."""
        sender = PushSender(self.house.store, self.house.env, self.gateway)
        self._scope = trio.CancelScope()

        async def run() -> None:
            assert self._scope is not None
            with self._scope:
                await sender.run()

        self.nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()

    async def stop(self) -> None:
        """Stop it in good order."""
        assert self._scope is not None
        self._scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

    async def pusher(self, who: Session, pushkey: str = "", url: str = URL, **more: Any) -> str:
        """Set a pusher; its pushkey."""
        append = more.pop("append", True)
        made = Pusher(
            PusherNid(0),
            who.user,
            more.pop("app_id", "test.app"),
            pushkey or who.user_id,
            "App",
            "Phone",
            None,
            "en",
            {"url": url, **more},
            self.house.env.clock.now_ms(),
        )
        await self.house.store.write(partial(pushers.put, append=append), who, made)
        await trio.testing.wait_all_tasks_blocked()
        return made.pushkey

    async def read(self, who: Session, room: RoomNid, upto: StoredEvent, **more: Any) -> None:
        """Set a read receipt."""
        marks = Marks({"m.read": upto.event.event_id}, **more)
        await self.house.write(receipts.mark, who, room, marks)

    def pushers(self, who: Session) -> list[str]:
        """The pushkeys of a user."""
        return [one.pushkey for one in self.house.store.read(stored.of_user, who.user)]


@asynccontextmanager
async def pushing(**env: Any) -> AsyncIterator[Pushed]:
    """A household with notifications, on simulated time."""
    async with household(**env) as house, trio.open_nursery() as nursery:
        pushed = Pushed(house, FakeGateway(), nursery)
        await pushed.start()
        yield pushed
        nursery.cancel_scope.cancel()
