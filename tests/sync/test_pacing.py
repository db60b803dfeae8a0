"""How soon a device is told of what happened, by `/sync` and by sliding sync (T084)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from matrixbox.rooms import receipts
from matrixbox.rooms.receipts import Marks
from matrixbox.store.nids import RoomNid
from matrixbox.sync.pacing import CALM_S, COMPANY_S
from matrixbox.sync.sends import Sends
from matrixbox.sync.sliding import SlidingService
from matrixbox.sync.v3 import SyncService
from tests.e2ee.people import Device
from tests.rooms.house import House, household
from tests.sync.client import Client
from tests.sync.sliding_client import SlidingClient

APIS = pytest.mark.parametrize("api", ["sync", "sliding"])
QUIET_S = 10.0
MOMENT_S = 0.01


@define(eq=False)
class Scene:
    """Ann does something, and bo's app waits for it."""

    house: House
    ann: Any
    bo: Any
    room: RoomNid
    app: Client | SlidingClient
    answers: list[float] = field(factory=list)  # when, in Trio's time

    async def follow(self) -> None:
        """What the app does: ask, and ask again."""
        while True:
            await self.app.sync(timeout_s=1000)
            self.answers.append(trio.current_time())

    async def quiet(self) -> float:
        """Let some time go by without anything, and forget what was answered; the time."""
        await trio.sleep(QUIET_S)
        self.answers.clear()
        return trio.current_time()

    async def say(self) -> str:
        stored = await self.house.say(self.ann, self.room, "hello")
        return stored.event.event_id

    async def read(self, event: str) -> None:
        await self.house.write(receipts.mark, self.ann, self.room, Marks({"m.read": event}, None))

    def type(self) -> None:
        self.house.env.typing.start(self.room, self.ann.user_id, 100)

    def stop_typing(self) -> None:
        self.house.env.typing.stop(self.room, self.ann.user_id)

    async def send_letter(self, number: int = 0) -> None:
        device = Device(self.house, self.ann)
        await device.send("m.test", {self.bo.user_id: {"*": {"number": number}}})


@asynccontextmanager
async def scene(api: str) -> AsyncIterator[Scene]:
    """A room with both, whose app has everything and waits."""
    async with household() as house, trio.open_nursery() as nursery:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, preset="public_chat")
        await house.join(bo, room)
        app: Client | SlidingClient
        if api == "sync":
            app = Client(house.store, SyncService(house.store, house.env), bo)
            await app.sync()
        else:
            app = SlidingClient(house.store, SlidingService(house.store, house.env, Sends()), bo)
            await app.until_quiet()
        found = Scene(house, ann, bo, room, app)
        nursery.start_soon(found.follow)
        yield found
        nursery.cancel_scope.cancel()


@APIS
async def test_what_is_said_is_told_at_once(api: str, autojump_clock: MockClock) -> None:
    async with scene(api) as life:
        for _ in range(2):
            now = await life.quiet()
            await life.say()
            await trio.sleep(MOMENT_S)
            assert life.answers == [now]


@pytest.mark.parametrize(
    ("api", "first"), [("sync", "type"), ("sliding", "type"), ("sync", "letter")]
)
async def test_who_types_and_keys_come_with_what_is_said_right_after(
    api: str, first: str, autojump_clock: MockClock
) -> None:
    async with scene(api) as life:
        now = await life.quiet()
        if first == "type":
            life.type()
        else:
            await life.send_letter()
        await trio.sleep(COMPANY_S / 2)
        assert life.answers == []
        await life.say()
        await trio.sleep(QUIET_S)
        assert life.answers == [now + COMPANY_S / 2]


@pytest.mark.parametrize(("api", "after_s"), [("sync", COMPANY_S), ("sliding", 0)])
async def test_a_to_device_message_alone_waits_for_a_moment_at_most(
    api: str, after_s: float, autojump_clock: MockClock
) -> None:
    """Not in sliding sync, where an app may have another connection for messages."""
    async with scene(api) as life:
        now = await life.quiet()
        await life.send_letter()
        await trio.sleep(QUIET_S)
        assert life.answers == [now + after_s]
        assert [letter["content"]["number"] for letter in life.app.messages] == [0]


@APIS
async def test_receipts_leave_a_device_in_peace_that_has_just_been_answered(
    api: str, autojump_clock: MockClock
) -> None:
    async with scene(api) as life:
        now = await life.quiet()
        first = await life.say()
        await trio.sleep(MOMENT_S)
        await life.read(first)
        await trio.sleep(QUIET_S)
        assert life.answers == [now, now + CALM_S]
        second = await life.say()
        now = await life.quiet()
        await life.read(second)
        await trio.sleep(QUIET_S)
        assert life.answers == [now + COMPANY_S]


@APIS
async def test_who_types_is_told_soon_also_where_receipts_wait(
    api: str, autojump_clock: MockClock
) -> None:
    async with scene(api) as life:
        now = await life.quiet()
        await life.read(await life.say())
        await trio.sleep(CALM_S / 2)
        life.type()
        await trio.sleep(QUIET_S)
        assert life.answers == [now, now + CALM_S / 2 + COMPANY_S]


@APIS
async def test_who_comes_back_waits_for_nothing(api: str, autojump_clock: MockClock) -> None:
    """The app was away while somebody read and typed."""
    async with scene(api) as life:
        event = await life.say()
        app: Client | SlidingClient
        if isinstance(life.app, Client):
            app = Client(life.house.store, life.app.service, life.ann)
            await app.sync()
        else:
            app = SlidingClient(life.house.store, life.app.service, life.ann)
            await app.until_quiet()
        await trio.sleep(QUIET_S)
        await life.read(event)
        life.type()
        now = trio.current_time()
        await app.sync(timeout_s=1000)
        assert trio.current_time() == now


@APIS
async def test_t084_a_flood_of_little_news_is_ten_answers_a_second(
    api: str, autojump_clock: MockClock
) -> None:
    """Hundreds of receipts and changes of who types in a second; in the end all has arrived."""
    async with scene(api) as life:
        said = [await life.say() for _ in range(300)]
        begun = await life.quiet()
        for number, event in enumerate(said):
            await life.read(event)
            life.type() if number % 2 else life.stop_typing()
            if api == "sync":
                await life.send_letter(number)
            await trio.sleep(MOMENT_S)
        took = trio.current_time() - begun
        assert 3 <= len(life.answers) <= took * 10 + 1
        await trio.sleep(QUIET_S)
        if api == "sync":
            numbers = [letter["content"]["number"] for letter in life.app.messages]
            assert numbers == list(range(300))
