"""What happened while this server was down comes in by itself, soon after the start."""

from __future__ import annotations

import trio

from matrixbox.store import names, servers
from tests.federation.towns import country


async def timeline(town, who, room):
    """The texts of a room's messages, oldest first."""
    path = f"/rooms/{room}/messages"
    found = await town.client(who, "GET", path, dir="b", limit="500")
    return [
        event["content"].get("body")
        for event in reversed(found["chunk"])
        if event["type"] == "m.room.message"
    ]


async def forget_us(town):
    """A server that would not send anything by itself: it has given us up."""
    destinations = town.services.federation.sender.destinations
    for state in destinations._states.values():
        state.retry_at = trio.current_time() + 86_400
        state.woken_at = trio.current_time() + 3_600


async def test_what_was_missed_comes_in_without_anybody_speaking(tmp_path, autojump_clock):
    """Within two minutes of the start, although the other server waits out a long back-off."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        rooms = [await one.room(ann, room_version=version) for version in ("1", "10", "12")]
        for room in rooms:
            await two.join(bo, room, "one.test")
        await two.stop()
        for room in rooms:
            for number in range(60):
                await one.say(ann, room, str(number))
        await one.set_state(ann, rooms[2], "m.room.name", {"name": "New"})
        await trio.sleep(7200)
        await forget_us(one)
        await two.start(land.nursery)
        began = trio.current_time()
        for room in rooms:
            while await timeline(two, bo, room) != [str(number) for number in range(60)]:
                await trio.sleep(1)
                assert trio.current_time() - began < 120
        while ("m.room.name", "") not in await two.state(bo, rooms[2]):
            await trio.sleep(1)
            assert trio.current_time() - began < 120


async def test_what_another_server_has_comes_from_that_one(tmp_path, autojump_clock):
    """The author of an event is gone, and a third server has it."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        three = await land.town("three.test")
        ann, bo, cy = (
            await one.register("ann"),
            await two.register("bo"),
            await three.register("cy"),
        )
        room = await one.room(ann)
        await two.join(bo, room, "one.test")
        await three.join(cy, room, "one.test")
        await trio.sleep(5)
        await two.stop()
        await one.say(ann, room, "last words")
        await trio.sleep(30)
        await one.stop()
        await trio.sleep(3600)
        await two.start(land.nursery)
        await trio.sleep(120)
        assert await timeline(two, bo, room) == ["last words"]


async def test_many_dead_servers_do_not_delay_those_that_answer(tmp_path, autojump_clock):
    """T083: 300 that hang; what the living ones have is here within two minutes."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann)
        await two.join(bo, room, "one.test")
        dead = [land.fake(f"dead{number}.test") for number in range(300)]

        async def hang(request, body):
            await trio.sleep_forever()

        for server in dead:
            server.answers = {"v1": hang, "v2": hang}
        await two.store.write(_assume, room, [server.name for server in dead])
        await two.stop()
        await one.say(ann, room, "hello")
        await trio.sleep(7200)
        await forget_us(one)
        await two.start(land.nursery)
        began = trio.current_time()
        while await timeline(two, bo, room) != ["hello"]:
            await trio.sleep(1)
            assert trio.current_time() - began < 120
        await trio.sleep(600)
        assert all(len(server.asked("make_leave")) == 1 for server in dead)


def _assume(tx, room_id, found):
    room = names.room_nid(tx, room_id)
    servers.assume(tx, room, found, tx.position())


async def test_the_template_is_never_signed(tmp_path, autojump_clock):
    """T030: asking changes nothing, whatever the answer is."""
    async with country(tmp_path) as land:
        one = await land.town("one.test")
        fake = land.fake("fake.test")
        ann = await one.register("ann")
        room = await one.room(ann)
        await one.store.write(_assume, room, [fake.name])
        before = {key: e["event_id"] for key, e in (await one.state(ann, room)).items()}
        for template in (
            {"event": {"prev_events": ["$nothing", 7, None, [], ["$x", {}]] * 10}},
            {"event": {"prev_events": {"a": 1}}},
            {"event": []},
            {"event": {"type": "m.room.member", "content": {"membership": "ban"}}},
            [],
            b"{",
        ):
            fake.answers = {"make_leave": template, "event": (404, {"errcode": "M_NOT_FOUND"})}
            await one.services.federation.missed.ask()
        after = {key: e["event_id"] for key, e in (await one.state(ann, room)).items()}
        assert after == before
        assert fake.asked("send_leave") == []
        assert len(fake.asked("make_leave")) == 6


async def test_a_refused_template_for_leaving_is_followed_by_one_for_joining(
    tmp_path, autojump_clock
):
    async with country(tmp_path) as land:
        one = await land.town("one.test")
        fake = land.fake("fake.test")
        ann = await one.register("ann")
        room = await one.room(ann, room_version="11")
        await one.store.write(_assume, room, [fake.name])
        fake.answers = {"make_leave": (403, {"errcode": "M_FORBIDDEN"}), "make_join": {"event": {}}}
        await one.services.federation.missed.ask()
        (asked,) = fake.asked("make_join")
        assert asked.target.endswith("?ver=11")


async def test_after_an_outage_of_the_network_everybody_is_asked_again(tmp_path, autojump_clock):
    """T154: for us everybody was gone for long, and then somebody answers."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann)
        await two.join(bo, room, "one.test")
        await trio.sleep(600)
        land.network.cut.add(frozenset(("one.test", "two.test")))
        await two.say(bo, room, "from two")
        await one.say(ann, room, "from one")
        await trio.sleep(7200)
        await forget_us(one)
        land.network.cut.clear()
        two.services.federation.sender.destinations.alive("one.test")
        await trio.sleep(120)
        for town, who in ((one, ann), (two, bo)):
            assert sorted(await timeline(town, who, room)) == ["from one", "from two"]


async def test_of_rooms_that_are_joined_meanwhile_nothing_was_missed(tmp_path, autojump_clock):
    """A join just after the start brings the room as it is."""
    async with country(tmp_path) as land:
        one = await land.town("one.test")
        fake = land.fake("fake.test")
        ann = await one.register("ann")
        room = await one.room(ann)
        await one.store.write(_assume, room, [fake.name])
        await trio.sleep(600)
        assert fake.asked("make_leave") == []
