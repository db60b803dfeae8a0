"""Servers that are in a room on one branch of it alone, when the branches meet.

Matrix v1.19, Server-Server API, "Transactions"; rooms/v11, "State resolution".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
from trio.testing import MockClock

from matrixbox.core.identifiers import ServerName
from matrixbox.core.room_versions import ROOM_VERSIONS
from matrixbox.core.signing import event_id_of, hash_and_sign_event
from matrixbox.federation.transport import Answer, Request
from tests.federation.looks import agree, eventually, is_in, state_ids
from tests.federation.towns import Country, FakeServer, Town, country

EVE = "@eve:evil.test"
TEN = ROOM_VERSIONS["10"]


@pytest.mark.parametrize("version", ["6", "10", "12"])
async def test_who_was_banned_on_the_other_side_of_a_netsplit_is_told_so(
    tmp_path: Path, autojump_clock: MockClock, version: str
) -> None:
    """Its server was not in the room when that was said, and would believe for ever that it is."""
    async with country(tmp_path) as land:
        a, b, c = [await land.town(f"{name}.test") for name in "abc"]
        ann, bo, cleo = [await town.register("u") for town in (a, b, c)]
        room = await a.room(ann, room_version=version)
        await c.join(cleo, room, "a.test")
        await agree(room, a, c)
        await b.services.federation.keyring.refresh(a.name)
        land.network.partition({a.name})
        await b.join(bo, room, "c.test")
        await a.upon(ann, room, "ban", user_id=bo.user_id)
        assert is_in(b, room, bo.user_id)
        land.network.heal()

        async def out_everywhere() -> bool:
            return not any(is_in(town, room, bo.user_id) for town in (a, b, c))

        await eventually(out_everywhere)


@pytest.mark.parametrize("version", ["6", "12"])
async def test_who_was_put_out_in_secret_is_told_so_by_those_whom_it_talks_to(
    tmp_path: Path, autojump_clock: MockClock, version: str
) -> None:
    """Who kicks somebody may tell all servers but theirs, which would go on alone for ever."""
    async with country(tmp_path) as land:
        a, b, c = [await land.town(f"{name}.test") for name in "abc"]
        ann, bo, cleo = [await town.register("u") for town in (a, b, c)]
        room = await a.room(ann, room_version=version)
        await b.join(bo, room, "a.test")
        await c.join(cleo, room, "a.test")
        await agree(room, a, b, c)
        land.network.cut.add(frozenset((a.name, c.name)))
        await a.upon(ann, room, "kick", user_id=cleo.user_id)
        await trio.sleep(5)
        assert is_in(c, room, cleo.user_id)
        sent = sends_to(land, b, c)
        for text in ("am I", "alone", "here"):
            await c.say(cleo, room, text)
        await trio.sleep(30)
        assert not is_in(c, room, cleo.user_id)
        # Once, and nothing of what happened in the room since.
        await b.say(bo, room, "she is gone")
        await trio.sleep(60)
        (told,) = sent
        assert [pdu["type"] for pdu in told["pdus"]] == ["m.room.member"]
        assert told["pdus"][0]["state_key"] == cleo.user_id


async def test_who_has_left_and_comes_again_for_no_good_is_told_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """T106: it left by its own will, and what happened to it since it was in the room is no more
    its affair than the rest."""
    async with country(tmp_path) as land:
        a, fake = await land.town("a.test"), land.fake("evil.test")
        ann = await a.register("u")
        room = await a.room(ann, room_version="10")
        join = await stranger(a, fake, room, "join")
        await stranger(a, fake, room, "leave")
        await a.upon(ann, room, "ban", user_id=EVE)
        await trio.sleep(30)
        before = len(fake.asked("send"))
        pdu = message(a, fake, room, event_id_of(TEN, join))
        assert await push(fake, a, pdu) == {}  # it is in the graph, and has no effect
        await trio.sleep(30)
        assert len(fake.asked("send")) == before


async def test_who_comes_back_after_we_left_is_told_that_we_did(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Who was told of our leave is gone too, and has told nobody."""
    async with country(tmp_path) as land:
        a, b, c = [await land.town(f"{name}.test") for name in "abc"]
        ann, bo, cleo = [await town.register("u") for town in (a, b, c)]
        room = await c.room(cleo)
        await a.join(ann, room, "c.test")
        await b.join(bo, room, "c.test")
        await agree(room, a, b, c)
        await a.upon(ann, room, "leave")
        await trio.sleep(5)
        land.network.cut.add(frozenset((b.name, c.name)))
        await b.upon(bo, room, "leave")
        await a.join(ann, room, "c.test")
        await c.upon(cleo, room, "leave")
        await trio.sleep(5)
        land.network.heal()
        assert is_in(a, room, bo.user_id)

        async def is_alone() -> bool:
            await a.say(ann, room, "anybody there?")
            return not is_in(a, room, bo.user_id) and not is_in(a, room, cleo.user_id)

        await eventually(is_alone)


async def test_who_was_never_in_a_room_with_us_does_not_learn_who_of_us_was(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with country(tmp_path) as land:
        a, b = [await land.town(f"{name}.test") for name in "ab"]
        fake = land.fake("evil.test")
        ann, bo = [await town.register("u") for town in (a, b)]
        room = await a.room(ann, room_version="10")
        await b.join(bo, room, "a.test")
        await b.upon(bo, room, "leave")
        await trio.sleep(5)
        pdu = message(a, fake, room, "$any")
        assert "not in that room" in (await push(fake, b, pdu))["error"]
        await trio.sleep(60)
        assert not fake.asked("make_leave")


def sends_to(land: Country, town: Town, other: Town) -> list[Any]:
    """The transactions of one server to another, from now on."""
    found: list[Any] = []
    handle = other.handle

    async def heard(origin: ServerName, request: Request) -> Answer | None:
        if origin == town.name and "/send/" in request.target:
            body = json.loads(request.body)
            if body["pdus"]:
                found.append(body)
        return await handle(origin, request)

    listening = type("Listening", (), {"name": other.name, "handle": staticmethod(heard)})
    land.network.hosts[other.name] = listening()
    return found


async def stranger(a: Town, fake: FakeServer, room: str, word: str) -> Any:
    """A hand-made server's user joins or leaves; the event."""
    path = f"/_matrix/federation/v1/make_{word}/{quote(room)}/{quote(EVE)}?ver=10"
    status, made = await fake.call(a, "GET", path)
    assert status == 200, made
    pdu = hash_and_sign_event(TEN, made["event"], fake.name, fake.key)
    path = f"/_matrix/federation/v2/send_{word}/{quote(room)}/{quote(event_id_of(TEN, pdu))}"
    status, answer = await fake.call(a, "PUT", path, pdu)
    assert status == 200, answer
    return pdu


def message(a: Town, fake: FakeServer, room: str, after: str) -> Any:
    """One of a user who thinks that it has just joined."""
    state = state_ids(a, room)
    kinds = ("m.room.create", "m.room.power_levels")
    pdu = {
        "type": "m.room.message",
        "room_id": room,
        "sender": EVE,
        "content": {"body": "hi"},
        "origin_server_ts": fake.clock.now_ms(),
        "depth": 20,
        "prev_events": [after],
        "auth_events": [*(state[kind, ""] for kind in kinds), after],
    }
    return hash_and_sign_event(TEN, pdu, fake.name, fake.key)


async def push(fake: FakeServer, town: Town, pdu: Any) -> Any:
    """Hand in an event; what became of it."""
    body = {"origin": fake.name, "origin_server_ts": 1, "pdus": [pdu]}
    status, answer = await fake.call(town, "PUT", "/_matrix/federation/v1/send/t1", body)
    assert status == 200, answer
    return answer["pdus"][event_id_of(TEN, pdu)]
