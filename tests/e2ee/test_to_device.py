"""Messages between devices ([C8.22], [C17.16], [B7.08], [B7.10], [K.15], T127, T128)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from matrixbox.core.identifiers import ServerName
from matrixbox.e2ee import to_device
from matrixbox.errors import BadJson, InvalidParam, TooLarge
from matrixbox.store import accounts, names, outbound
from matrixbox.store import to_device as store
from matrixbox.store.accounts import AccountState
from tests.e2ee.people import Device, Object, Town, town

FAR = ServerName("far.test")
KIND = "m.test"


async def test_messages_arrive_in_order_until_they_are_acknowledged() -> None:
    """[C8.22], T128: an old token shows them again, a new one proves that they arrived."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        begin = (await bo.sync())["next_batch"]
        for n in range(3):
            await ann.send(KIND, {bo.user_id: {bo.who.device_id: {"n": n}}})
        for _ in range(2):
            answer = await bo.sync(begin)
            assert answer["to_device"]["events"] == [
                {"type": KIND, "sender": ann.user_id, "content": {"n": n}} for n in range(3)
            ]
        assert "to_device" not in await bo.sync()
        assert "to_device" not in await bo.sync(begin), "they are gone"


async def test_a_waiting_sync_returns_with_a_message(autojump_clock: MockClock) -> None:
    """[C8.05]."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        await bo.sync()
        async with trio.open_nursery() as nursery:

            async def later() -> None:
                await trio.sleep(1)
                await ann.send(KIND, {bo.user_id: {bo.who.device_id: {"n": 1}}})

            nursery.start_soon(later)
            answer = await bo.sync(timeout_s=30)
        assert len(answer["to_device"]["events"]) == 1
        assert trio.current_time() < 10


async def test_many_messages_come_in_parts() -> None:
    """[C8.22]: at most 100 in an answer, and no answer waits while there are more."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        await bo.sync()
        for n in range(250):
            await ann.send(KIND, {bo.user_id: {bo.who.device_id: {"n": n}}})
        parts = [await bo.messages() for _ in range(4)]
        assert [len(part) for part in parts] == [100, 100, 50, 0]
        assert [one["n"] for part in parts for one in part] == list(range(250))


async def test_other_news_do_not_lose_the_place_among_the_messages() -> None:
    """[C8.22], T128: the token remembers both."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.house.room(bo.who)
        await bo.sync()
        for n in range(120):
            await ann.send(KIND, {bo.user_id: {bo.who.device_id: {"n": n}}})
        first = await bo.sync()
        await house.house.say(bo.who, room, "hello")
        await ann.send(KIND, {bo.user_id: {bo.who.device_id: {"n": 120}}})
        second = await bo.sync()
        assert len(first["to_device"]["events"]) == 100
        assert [e["content"]["n"] for e in second["to_device"]["events"]] == [*range(100, 121)]
        assert len(second["rooms"]["join"]) == 1


async def test_a_star_stands_for_every_device() -> None:
    """[C17.16]: a device that is named as well gets what is meant for it."""
    async with town() as house:
        ann = await house.user("ann")
        devices = [await house.user("bo")]
        devices += [await house.device(devices[0], name) for name in ("B", "C")]
        messages = {"*": {"n": 1}, "B": {"n": 2}, "NONE": {"n": 3}}
        await ann.send(KIND, {devices[0].user_id: messages, "@nobody:home.test": {"*": {}}})
        assert [await device.messages() for device in devices] == [
            [{"n": 1}],
            [{"n": 2}],
            [{"n": 1}],
        ]


async def test_a_repeated_transaction_delivers_once() -> None:
    """[C17.16], T127."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        for _ in range(3):
            await ann.send(KIND, {bo.user_id: {"*": {"n": 1}}}, "same")
            await ann.send(KIND, {f"@x:{FAR}": {"*": {"n": 1}}}, "far")
        assert await bo.messages() == [{"n": 1}]
        assert len(queued(house)) == 1


async def test_one_can_write_to_oneself() -> None:
    """[C17.16]."""
    async with town() as house:
        ann = await house.user("ann")
        await ann.send(KIND, {ann.user_id: {ann.who.device_id: {"n": 1}}})
        assert await ann.messages() == [{"n": 1}]


async def test_messages_to_accounts_that_have_ended_are_dropped() -> None:
    """T127."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        await house.house.store.write(accounts.set_state, bo.who.user, AccountState.DEACTIVATED)
        await ann.send(KIND, {bo.user_id: {"*": {"n": 1}}})
        assert house.house.store.read(store.count, bo.who.device) == 0


async def test_only_so_many_messages_wait() -> None:
    """T127."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        for start in range(0, to_device.MAX_WAITING, 1000):

            def fill(tx: Any, start: int = start) -> None:
                for n in range(start, start + 1000):
                    store.put(tx, bo.who.device, tx.position(), None, b'{"content":{"n":%d}}' % n)

            await house.house.store.write(fill)
        await ann.send(KIND, {bo.user_id: {"*": {"n": -1}}})
        assert house.house.store.read(store.count, bo.who.device) == to_device.MAX_WAITING


def test_malformed_messages_are_refused() -> None:
    """[C17.16], T127."""
    for messages, error in (
        ({"bo": {"*": {}}}, InvalidParam),
        ({"@bo:home.test": []}, BadJson),
        ({"@bo:home.test": {"*": 5}}, BadJson),
        ({"@bo:home.test": {"*": {"x": 70_000 * "x"}}}, TooLarge),
        ({"@bo:home.test": {str(n): {} for n in range(6_000)}}, InvalidParam),
    ):
        with pytest.raises(error):
            to_device.parse(messages)  # type: ignore[arg-type]


# --- other servers


def queued(house: Town) -> list[Any]:
    """The EDUs that wait for the far server."""

    def read(tx: Any) -> list[Any]:
        server = names.server_nid(tx, FAR)
        if server is None:
            return []
        return [(edu.type, edu.decoded()) for edu in outbound.edus(tx, server, 0, 10**6)]

    return house.house.store.read(read)


async def test_messages_for_another_server_wait_in_its_queue() -> None:
    """[C17.16], [B7.08]."""
    async with town() as house:
        ann = await house.user("ann")
        messages: Object = {f"@bo:{FAR}": {"B": {"n": 1}, "*": {"n": 2}}, f"@cy:{FAR}": {"C": {}}}
        await ann.send(KIND, messages)
        ((kind, content),) = queued(house)
        assert kind == "m.direct_to_device"
        assert 0 < len(content.pop("message_id")) <= 32
        assert content == {"sender": ann.user_id, "type": KIND, "messages": messages}


async def test_large_messages_are_spread_over_several_edus() -> None:
    """T130."""
    async with town() as house:
        ann = await house.user("ann")
        messages: Object = {f"@bo:{FAR}": {f"D{n}": {"x": 20_000 * "x"} for n in range(9)}}
        await ann.send(KIND, messages)
        sent = queued(house)
        assert len(sent) == 5
        assert len({content["message_id"] for _, content in sent}) == 5
        merged: Object = {}
        for _, content in sent:
            for user, devices in content["messages"].items():
                merged.setdefault(user, {}).update(devices)
        assert merged == messages


async def test_what_other_servers_cannot_read_is_refused() -> None:
    """T130: a fraction has no canonical form, and would block the queue."""
    async with town() as house:
        ann = await house.user("ann")
        with pytest.raises(BadJson):
            await ann.send(KIND, {f"@bo:{FAR}": {"*": {"x": 1.5}}})
        await ann.send(KIND, {ann.user_id: {"*": {"x": 1.5}}})
        assert await ann.messages() == [{"x": 1.5}]


async def receive(house: Town, edu: Any, origin: ServerName = FAR) -> None:
    await house.house.store.write(
        to_device.receive, house.house.env.server_name, origin, edu, house.house.env.clock.now_ms()
    )


def edu_for(device: Device, message_id: str = "m1", **more: Any) -> Object:
    """A message from far away."""
    messages = {device.user_id: {device.who.device_id: {"n": 1}}}
    sender = f"@far:{FAR}"
    return {"sender": sender, "type": KIND, "message_id": message_id, "messages": messages, **more}


async def test_a_message_from_another_server_arrives_once() -> None:
    """[B7.08]: it may be sent again when our answer was lost."""
    async with town() as house:
        bo = await house.user("bo")
        for _ in range(2):
            await receive(house, edu_for(bo))
        assert await bo.messages() == [{"n": 1}]
        await receive(house, edu_for(bo))
        await receive(house, edu_for(bo, "m2"))
        assert await bo.messages() == [{"n": 1}]


@pytest.mark.parametrize(
    "change",
    [
        {"sender": "@far:other.test"},
        {"sender": "far"},
        {"sender": 5},
        {"type": None},
        {"message_id": ""},
        {"message_id": 33 * "x"},
        {"message_id": 5},
        {"messages": []},
        {"messages": {"@bo:home.test": []}},
        {"messages": {"@bo:home.test": {"*": 5}}},
        {"messages": {"@bo:home.test": {"*": {"x": 70_000 * "x"}}}},
        {"messages": {"@bo:far.test": {"*": {}}, "@nobody:home.test": {"*": {}}}},
    ],
)
async def test_malformed_messages_of_other_servers_are_dropped(change: Object) -> None:
    """[B7.08], [B7.09], T127."""
    async with town() as house:
        bo = await house.user("bo")
        await receive(house, edu_for(bo, **change))
        await receive(house, [])
        assert await bo.messages() == []


async def test_one_server_cannot_fill_an_inbox() -> None:
    """T127: the victim's messages from elsewhere still arrive."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        await bo.sync()
        for n in range(to_device.MAX_FROM_ORIGIN + 20):
            await receive(house, edu_for(bo, f"m{n}"))
        large = {bo.user_id: {"*": {"x": 60_000 * "x"}}}
        other = ServerName("other.test")
        for n in range(80):
            edu = edu_for(bo, f"l{n}", sender=f"@x:{other}", messages=large)
            await receive(house, edu, other)
        await ann.send(KIND, {bo.user_id: {"*": {"n": "ours"}}})
        found: list[Any] = []
        while more := await bo.messages():
            found += more
        assert found[-1] == {"n": "ours"}
        small, big = [one for one in found if "n" in one], [one for one in found if "x" in one]
        assert len(small) == to_device.MAX_FROM_ORIGIN + 1
        assert len(big) == to_device.MAX_BYTES_FROM_ORIGIN // 60_060


@pytest.mark.parametrize("seed", range(8))
async def test_every_message_is_seen_in_order_whatever_gets_lost(seed: int, tmp_path: Path) -> None:
    """T128: answers that got lost, old tokens, two loops on one device, and restarts."""
    rng = random.Random(seed)
    async with town(tmp_path / "a.db") as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        await bo.sync()
    sent = 0
    seen: list[int] = []
    loops = [bo.since, bo.since]
    for _ in range(5):
        async with town(tmp_path / "a.db") as house:
            ann.house = bo.house = house.house
            for _ in range(20):
                for _ in range(rng.choice([0, 0, 1, 3, 40])):
                    await ann.send(KIND, {bo.user_id: {bo.who.device_id: {"n": sent}}})
                    sent += 1
                answer = await bo.sync(bo.since)
                if rng.random() < 0.4:
                    bo.since = loops[0]
                    continue  # the answer got lost
                loops[0] = bo.since
                seen += [e["content"]["n"] for e in answer.get("to_device", {}).get("events", [])]
    async with town(tmp_path / "a.db") as house:
        bo.house = house.house
        while more := await bo.messages():
            seen += [one["n"] for one in more]
    assert seen == list(range(sent))
