"""Joins while keys cannot be had, and joins that come to no end: what becomes of them.

Matrix v1.19, Server-Server API, "Joining Rooms", "Retrieving server keys"; T027, T036.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from matrixbox.core.identifiers import RoomId, ServerName
from matrixbox.federation.transport import Answer, Request
from matrixbox.store import events, inbound, names, servers, undecided
from tests.federation.hand_made import HandMadeRoom
from tests.federation.looks import agree, eventually, is_in, state_ids
from tests.federation.towns import Account, Country, Failed, Town, country
from tests.sim.network import Network


def left_undecided(town: Town, room: str) -> list[str]:
    """The events of a room that a server keeps because it cannot check them."""

    def read(tx: Any) -> list[str]:
        nid = names.room_nid(tx, RoomId(room))
        return [] if nid is None else [one.event_id for one in undecided.events_of(tx, nid)]

    return town.store.read(read)


def owed(town: Town) -> list[Any]:
    """The joins that did not come to their end."""
    return town.store.read(undecided.joins)


async def shut_out(land: Country, version: str = "10") -> tuple[list[Town], list[Account], str]:
    """A room of a and b, which c enters by way of a while b is cut off; nobody knew b's keys."""
    towns = [await land.town(f"{name}.test") for name in "abc"]
    a, b, c = towns
    users = [await town.register("u") for town in towns]
    room = await a.room(users[0], room_version=version)
    await b.join(users[1], room, "a.test")
    land.network.partition({b.name})
    await c.join(users[2], room, "a.test")
    return towns, users, room


# --- keys of members


@pytest.mark.parametrize("version", ["2", "6", "10", "12"])
async def test_t027_a_membership_that_could_not_be_checked_is_there_when_it_can(
    tmp_path: Path, autojump_clock: MockClock, version: str
) -> None:
    """Who is in the room, and what its server said, is what it is to everybody."""
    async with country(tmp_path) as land:
        (a, b, c), (ann, bo, cleo), room = await shut_out(land, version)
        assert not is_in(c, room, bo.user_id)
        assert len(left_undecided(c, room)) == 1
        land.network.heal()
        said = await b.say(bo, room, "I was here all the time")
        await agree(room, a, b, c)
        assert is_in(c, room, bo.user_id)
        assert left_undecided(c, room) == []

        await a.say(ann, room, "Now you hear each other")

        async def shown() -> bool:
            joined = (await c.sync(cleo)).get("rooms", {}).get("join", {})
            timeline = joined[room]["timeline"]["events"] if room in joined else []
            return any(event["event_id"] == said for event in timeline)

        await eventually(shown)


async def test_t027_what_is_undecided_outlives_a_crash(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with country(tmp_path) as land:
        (a, b, c), (_, bo, _), room = await shut_out(land)
        await c.kill()
        await c.start(land.nursery)
        assert len(left_undecided(c, room)) == 1
        land.network.heal()
        await agree(room, a, b, c)
        assert is_in(c, room, bo.user_id)


async def test_a_server_that_cannot_be_checked_hears_what_is_said(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It is believed to be in the room by the word of whoever let us in, as partial joins do."""
    async with country(tmp_path) as land:
        (_, b, c), (_, _, cleo), room = await shut_out(land)
        said = await c.say(cleo, room, "Is anybody there?")
        land.network.heal()

        def has(tx: Any) -> bool:
            return events.by_id(tx, said) is not None

        async def heard() -> bool:
            return b.store.read(has)

        await eventually(heard)


async def test_who_leaves_waits_for_no_keys(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with country(tmp_path) as land:
        (_, b, c), (_, _, cleo), room = await shut_out(land)
        await trio.sleep(60)  # until all members are known that can be
        assert len(left_undecided(c, room)) == 1
        await c.upon(cleo, room, "leave")

        async def forgotten() -> bool:
            return left_undecided(c, room) == []

        await eventually(forgotten)

        def assumed(tx: Any) -> bool:
            nid = names.room_nid(tx, RoomId(room))
            return servers.is_in_room(tx, nid, b.name)

        is_assumed = c.store.read(assumed)
        assert not is_assumed


async def test_t036_a_false_membership_is_let_go_when_the_keys_come(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The server that lets us in cannot make anybody a member who has not signed it."""
    async with country(tmp_path) as land:
        home = await land.town("home.test")
        bo = await home.register("bo")
        room = HandMadeRoom(land.fake("evil.test"), "10")
        third = land.fake("third.test")
        # Signed by nobody but the resident, in the other server's name.
        forged = room.pdu("m.room.member", {"membership": "join"}, "@x:third.test")
        signed = room.signed(forged)
        signed["signatures"] = {"third.test": {third.key.key_id: "A" * 86}}
        room.open()
        honest = room.take

        def take(request: Request, body: Any) -> Any:
            found = honest(request, body)
            return {**found, "state": [*found["state"], signed]}

        room.server.answers["send_join"] = take
        land.network.partition({third.name})
        await home.join(bo, room.room_id, "evil.test")
        assert len(left_undecided(home, room.room_id)) == 1
        land.network.heal()

        async def let_go() -> bool:
            return left_undecided(home, room.room_id) == []

        await eventually(let_go)
        assert ("m.room.member", "@x:third.test") not in state_ids(home, room.room_id)


async def test_t049_keys_that_never_come_are_asked_for_less_and_less(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with country(tmp_path) as land:
        (_, _, c), _, room = await shut_out(land)
        asked: list[float] = []
        carry = land.network.carry

        async def watched(_: Network, origin: Any, to: Any, request: Request) -> Answer:
            if (origin, to) == (c.name, "b.test") and "/key/v2/" in request.target:
                asked.append(trio.current_time())
            return await carry(origin, to, request)

        monkeypatch.setattr(Network, "carry", watched)
        await trio.sleep(6 * 3600)
        assert 3 <= len(asked) <= 30
        assert len(left_undecided(c, room)) == 1
        assert asked[-1] - asked[-2] > asked[1] - asked[0]


# --- keys without which nothing goes


async def test_t027_a_join_that_lacks_the_creators_keys_is_completed_when_they_come(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The client is told so, and the room appears without its doing anything."""
    async with country(tmp_path) as land:
        a, b, c = [await land.town(f"{name}.test") for name in "abc"]
        ann, bo, cleo = [await town.register("u") for town in (a, b, c)]
        room = await a.room(ann, room_version="10")
        await b.join(bo, room, "a.test")
        land.network.partition({a.name})
        with pytest.raises(Failed) as failed:
            await c.join(cleo, room, "b.test")
        assert failed.value.status == 502
        assert "goes on" in failed.value.body["error"]
        assert is_in(b, room, cleo.user_id)
        await c.kill()
        await c.start(land.nursery)
        land.network.heal()

        async def joined() -> bool:
            synced = await c.sync(cleo)
            return room in synced.get("rooms", {}).get("join", {})

        await eventually(joined)
        assert owed(c) == []
        await agree(room, a, b, c)


async def test_a_join_that_is_given_up_is_taken_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """By the user, while it cannot be completed."""
    async with country(tmp_path) as land:
        a, b, c = [await land.town(f"{name}.test") for name in "abc"]
        ann, bo, cleo = [await town.register("u") for town in (a, b, c)]
        room = await a.room(ann, room_version="10")
        await b.join(bo, room, "a.test")
        land.network.partition({a.name})
        with pytest.raises(Failed):
            await c.join(cleo, room, "b.test")
        await c.upon(cleo, room, "leave")

        async def gone() -> bool:
            return owed(c) == [] and not is_in(b, room, cleo.user_id)

        await eventually(gone)
        with pytest.raises(Failed):
            await c.state(cleo, room)


# --- answers that are none


async def refusing(tmp_path: Path, land: Country) -> tuple[Town, Account, HandMadeRoom]:
    """A room whose server lets our user in, with an answer that is no room."""
    home = await land.town("home.test")
    bo = await home.register("bo")
    room = HandMadeRoom(land.fake("evil.test"), "12")
    room.open()
    room.server.answers["send_join"] = {"state": [], "auth_chain": []}

    def leave(request: Request, _: Any) -> Any:
        event = room.pdu("m.room.member", {"membership": "leave"}, bo.user_id)
        return {"room_version": room.version, "event": event}

    room.server.answers["make_leave"] = leave
    room.server.answers["send_leave"] = {}
    return home, bo, room


@pytest.mark.parametrize("crash", [False, True])
async def test_t036_a_join_with_a_useless_answer_is_taken_back(
    tmp_path: Path, autojump_clock: MockClock, crash: bool
) -> None:
    """Nobody stays in a room for others who is not in it here; a crash changes nothing."""
    async with country(tmp_path) as land:
        home, bo, room = await refusing(tmp_path, land)
        with pytest.raises(Failed) as failed:
            await home.join(bo, room.room_id, "evil.test")
        assert failed.value.status == 502
        assert len(owed(home)) == 1
        if crash:
            await home.kill()
            await home.start(land.nursery)

        async def settled() -> bool:
            return owed(home) == []

        await eventually(settled)
        assert len(room.server.asked("send_leave")) == 1


async def test_a_join_is_taken_back_when_the_server_answers_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with country(tmp_path) as land:
        home, bo, room = await refusing(tmp_path, land)
        right, room.server.answers["make_leave"] = room.server.answers["make_leave"], (500, {})
        with pytest.raises(Failed):
            await home.join(bo, room.room_id, "evil.test")
        await trio.sleep(120)
        assert len(owed(home)) == 1
        room.server.answers["make_leave"] = right

        async def settled() -> bool:
            return owed(home) == []

        await eventually(settled)
        assert len(room.server.asked("send_leave")) == 1


async def test_a_join_is_taken_back_by_way_of_others_when_who_let_us_in_is_gone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """They have heard of it, and send us the room's events; only they can be told."""
    async with country(tmp_path) as land:
        a, b, c = [await land.town(f"{name}.test") for name in "abc"]
        ann, bo, cleo = [await town.register("u") for town in (a, b, c)]
        room = await a.room(ann)
        await b.join(bo, room, "a.test")
        await agree(room, a, b)

        async def unheard(origin: ServerName, request: Request) -> Answer | None:
            answer = await type(a).handle(a, origin, request)
            return None if "/send_join/" in request.target else answer

        gate = type("Gate", (), {"name": a.name, "handle": staticmethod(unheard)})
        land.network.hosts[a.name] = gate()
        with pytest.raises(Failed):
            await c.join(cleo, room, "a.test")
        land.network.hosts[a.name] = a
        land.network.cut.add(frozenset((a.name, c.name)))
        await a.upon(ann, room, "leave")
        await trio.sleep(5)
        assert is_in(b, room, cleo.user_id)
        land.network.heal()

        async def is_alone() -> bool:
            await b.say(bo, room, "anybody there?")
            return not is_in(b, room, cleo.user_id)

        await eventually(is_alone)
        assert owed(c) == []


async def test_a_join_that_was_refused_needs_no_leave(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with country(tmp_path) as land:
        home, bo, room = await refusing(tmp_path, land)
        room.server.answers["send_join"] = (403, {"errcode": "M_FORBIDDEN", "error": "no"})
        with pytest.raises(Failed):
            await home.join(bo, room.room_id, "evil.test")
        assert owed(home) == []
        await trio.sleep(600)
        assert room.server.asked("send_leave") == []


async def test_who_joins_again_is_not_taken_out(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A second attempt that succeeds leaves nothing to take back."""
    async with country(tmp_path) as land:
        home, bo, room = await refusing(tmp_path, land)
        with pytest.raises(Failed):
            await home.join(bo, room.room_id, "evil.test")
        room.server.answers["send_join"] = room.take
        await home.join(bo, room.room_id, "evil.test")
        assert owed(home) == []
        await trio.sleep(600)
        assert room.server.asked("send_leave") == []
        assert is_in(home, room.room_id, bo.user_id)


async def test_who_was_invited_is_not_made_to_refuse(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """They have accepted; so the join is tried again, whatever became of its answer."""
    async with country(tmp_path) as land:
        a, b = await land.town("a.test"), await land.town("b.test")
        ann, bo = await a.register("u"), await b.register("u")
        room = await a.room(ann, preset="private_chat", invite=[bo.user_id])
        handle = a.handle

        async def deaf(origin: Any, request: Request) -> Answer | None:
            return None if "/send_join/" in request.target else await handle(origin, request)

        a.handle = deaf  # type: ignore[method-assign]
        with pytest.raises(Failed):
            await b.join(bo, room, "a.test")
        assert len(owed(b)) == 1
        a.handle = handle  # type: ignore[method-assign]

        async def settled() -> bool:
            return owed(b) == []

        await eventually(settled)
        assert is_in(a, room, bo.user_id)
        await agree(room, a, b)


# --- coming back


async def test_coming_back_by_way_of_others_our_own_end_of_the_graph_counts(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """What we did last has not got to the server that lets us in again: it is an end besides."""
    async with country(tmp_path) as land:
        a, c = await land.town("a.test"), await land.town("c.test")
        ann, amy, cleo = await a.register("u"), await a.register("v"), await c.register("u")
        room = await c.room(cleo, room_version="10")
        await a.join(ann, room, "c.test")
        await a.join(amy, room)
        await agree(room, a, c)
        handle = c.handle

        async def deaf(origin: Any, request: Request) -> Answer | None:
            return None if "/v1/send/" in request.target else await handle(origin, request)

        c.handle = deaf  # type: ignore[method-assign]
        await a.upon(amy, room, "leave")
        await a.upon(ann, room, "leave")
        await a.join(ann, room, "c.test")
        assert is_in(a, room, ann.user_id)
        assert not is_in(a, room, amy.user_id)
        c.handle = handle  # type: ignore[method-assign]
        await agree(room, a, c)
        assert not is_in(c, room, amy.user_id)


def test_what_waits_is_bounded() -> None:
    """T016: an answer may hold events of any number of servers that do not exist."""
    from matrixbox.federation import join_spool

    assert join_spool.MAX_UNDECIDED <= inbound.MAX_WAITING
