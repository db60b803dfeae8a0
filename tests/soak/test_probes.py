"""The probes find a server that loses, doubles or mixes up what it tells, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from tests.federation.gate import Gate
from tests.federation.pair import Person, Refused, Side
from tests.server import Server, free_port, running_server
from tests.soak.probes import (
    LETTER,
    Ask,
    Connected,
    LetterProbe,
    LetterWriter,
    SlidingProbe,
    SyncProbe,
    over,
)
from tests.soak.record import LetterRecord, Piece, RoomRecord
from tests.soak.watch import Watch, server_person, signed_in

Answer = dict[str, Any]
REPEATING = ("initial", "limited", "expanded_timeline", "unstable_expanded_timeline")
Tamper = Callable[[Answer], bool]
"""Spoils an answer if it can, and tells whether it did."""


# --- records


def test_what_comes_once_and_in_order_is_well():
    record = RoomRecord()
    record.take(Piece(["c", "d"], limited=True), ["a", "b"])
    record.take(Piece(["e"]))
    record.take(Piece(["d", "e", "f"], anew=True))
    record.take(Piece(["h"], limited=True), ["g"])
    assert record.against([*"abcdefgh"]) == []


def test_gaps_are_filled_where_there_may_be_one():
    record = RoomRecord(ids=["a"], known={"a"})
    assert record.needs_filling(Piece(["c"], limited=True))
    assert record.needs_filling(Piece(["c"], anew=True))
    assert not record.needs_filling(Piece(["a", "b"], limited=True, anew=True))
    assert not record.needs_filling(Piece(["b"]))


@pytest.mark.parametrize(
    ("pieces", "wrong"),
    [
        ([["a", "b"]], ["c never came"]),
        ([["a", "b"], ["b", "c"]], ["b came twice"]),
        ([["a", "c", "b"]], ["came as ['c', 'b'], but is ['b', 'c']"]),
        ([["a", "x", "b", "c"]], ["x is not in the history"]),
    ],
)
def test_what_is_wrong_with_a_room_is_found(pieces: list[list[str]], wrong: list[str]):
    record = RoomRecord()
    for ids in pieces:
        record.take(Piece(ids))
    assert record.against([*"abc"]) == wrong


def test_another_order_of_what_is_told_anew_is_found():
    record = RoomRecord()
    record.take(Piece([*"abc"]))
    record.take(Piece([*"acd"], anew=True))
    assert len(record.findings) == 1


def test_letters_that_are_lost_doubled_or_mixed_up_are_found():
    record = LetterRecord()
    for number in (1, 2, 2, 5, 4):
        record.take("@ann:test", number)
    assert record.against({"@ann:test": [1, 2, 3, 4, 5]}) == [
        "number 3 of @ann:test never came",
        "after number 2 of @ann:test came number 2",
        "after number 5 of @ann:test came number 4",
    ]


# --- probes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of ours."""
    with running_server(tmp_path_factory.mktemp("probed")) as server:
        yield server


@pytest.fixture
def street(server: Server) -> Iterator[Gate]:
    """Between it and its clients."""
    with Gate(("127.0.0.1", free_port()), ("127.0.0.1", server.port)) as gate:
        yield gate


class Spoiled:
    """Answers that are tampered with, once."""

    def __init__(self, ask: Ask, tamper: Tamper) -> None:
        self.ask, self.tamper, self.done = ask, tamper, False

    async def __call__(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.ask(method, path, body)
        if not self.done and "/sync" in path:
            self.done = self.tamper(answer)
        return answer


def timelines(answer: Answer) -> Iterator[list[Answer]]:
    """Of rooms that were told of before, in either form of sync."""
    rooms = answer.get("rooms", {})
    for told in rooms.get("join", {}).values():
        if not told["timeline"].get("limited"):
            yield told["timeline"]["events"]
    for room, told in rooms.items():
        if not room.startswith("!"):
            continue
        is_news = not any(map(told.get, REPEATING))
        if is_news:
            yield told.get("timeline", [])


def message_lost(answer: Answer) -> bool:
    """An event is left out."""
    for events in timelines(answer):
        if events and events[-1]["type"] == "m.room.message":
            events.pop()
            return True
    return False


def message_doubled(answer: Answer) -> bool:
    """An event is told twice."""
    for events in timelines(answer):
        if events and events[-1]["type"] == "m.room.message":
            events.append(events[-1])
            return True
    return False


def letters_of(answer: Answer) -> list[Answer]:
    """The messages between devices in an answer of either form."""
    told = answer.get("extensions", answer).get("to_device", {})
    found: list[Answer] = told.get("events", [])
    return found


def letter_lost(answer: Answer) -> bool:
    """A message between devices is left out."""
    return bool(letters_of(answer)) and letters_of(answer).pop() is not None


def letter_doubled(answer: Answer) -> bool:
    """A message between devices is told twice."""
    found = letters_of(answer)
    found += found[:1]
    return bool(found)


class House:
    """Somebody who talks, and probes of somebody who listens."""

    def __init__(self, server: Server, street: Gate) -> None:
        self.server, self.street = server, street
        self.side = Side(server.name, "127.0.0.1", server.port, lambda name: ("", ""))
        self.front = Side(server.name, *street.front, self.side.make_account)

    async def watch(self, tamper: Tamper | None = None) -> tuple[Watch, Person, str]:
        """Probes whose answers may be tampered with; who talks, and where."""

        def asked(token: str) -> Ask:
            ask = over(self.front, token)
            return ask if tamper is None else Spoiled(ask, tamper)

        tag = f"{random.randrange(10**9)}"
        talker = Person(self.side, *server_person(self.side, f"talker{tag}"))
        server_person(self.side, f"watched{tag}")
        signed = [
            await signed_in(self.side, f"watched{tag}", f"the password of watched{tag}")
            for _ in range(2)
        ]
        (sliding, sliding_token), (sync, sync_token) = signed
        listener = Person(self.side, sync[0], sync_token)
        room = talker.create_room(preset="public_chat")
        listener.join(room)
        on_sync = SyncProbe("sync", asked(sync_token), sync)
        watch = Watch(
            (
                SlidingProbe("sliding", asked(sliding_token), sliding),
                SlidingProbe("merged", asked(sliding_token), sliding, merged=True),
                on_sync,
            ),
            (LetterProbe("letters", asked(sliding_token), sliding), on_sync),
            (
                LetterWriter(
                    talker.user_id,
                    over(self.front, talker.token),
                    [sliding, sync],
                    insists=True,
                    every_s=(0.05, 0.2),
                ),
            ),
            over(self.side, sync_token),
        )
        return watch, talker, room


@pytest.fixture
def house(server: Server, street: Gate) -> House:
    """The server and the network before it."""
    return House(server, street)


async def begin(watch: Watch, nursery: trio.Nursery) -> None:
    """Let everybody go on."""
    for probe in watch.probes:
        nursery.start_soon(probe.run)
    for writer in watch.writers:
        nursery.start_soon(writer.run)
    while not all(probe.answers for probe in watch.probes):
        await trio.sleep(0.02)


async def talk(talker: Person, room: str, count: int) -> None:
    """Say something, now and then much at once."""
    for number in range(count):
        await trio.to_thread.run_sync(talker.say, room, f"message {number}")
        await trio.sleep(0.0 if number % 10 > 5 else 0.05)


async def test_lost_answers_and_restarts_are_survived(house: House, nursery: trio.Nursery):
    """T082, T103, T128: every event and every message between devices, once and in order."""
    watch, talker, room = await house.watch()
    await begin(watch, nursery)
    await talk(talker, room, 15)
    for _ in range(10):
        house.street.drop()
        await talk(talker, room, 2)
    for how in (house.server.kill, house.server.stop):
        await trio.to_thread.run_sync(how)
        await trio.to_thread.run_sync(house.server.start)
        await talk(talker, room, 10)
    assert await watch.judge(room) == []
    assert all(probe.answers > 5 and probe.lost for probe in watch.probes)
    assert all(len(probe.rooms[room].ids) > 55 for probe in watch.room_probes)
    assert all(probe.letters.numbers[talker.user_id] for probe in watch.letter_probes)


@pytest.mark.parametrize(
    ("tamper", "wrong"),
    [
        (message_lost, "never came"),
        (message_doubled, "came twice"),
        (letter_lost, "never came"),
        (letter_doubled, "came number"),
    ],
)
async def test_what_a_server_loses_or_doubles_is_found(
    house: House, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, tamper: Tamper, wrong: str
):
    monkeypatch.setattr("tests.soak.watch.LEVEL_WITHIN_S", 3.0)
    watch, talker, room = await house.watch(tamper)
    for one in watch.room_probes:
        if isinstance(one, SlidingProbe):
            one.calm = True  # who opens a room is told it anew, and with it what was left out
    await begin(watch, nursery)
    while not all(probe.ask.done for probe in spoiled(watch, tamper)):
        await talk(talker, room, 1)
        await trio.sleep(0.1)
    found = await watch.judge(room)
    for probe in spoiled(watch, tamper):
        assert any(what.startswith(f"{probe.name}:") and wrong in what for what in found), found
    assert await watch.judge(room) == [], "told once"


def spoiled(watch: Watch, tamper: Tamper) -> list[Any]:
    """The probes that notice this."""
    is_letter = tamper in (letter_lost, letter_doubled)
    return list(watch.letter_probes if is_letter else watch.room_probes)


async def test_a_lost_position_is_found(house: House, nursery: trio.Nursery):
    watch, _, room = await house.watch()
    lost = [probe for probe in watch.probes if isinstance(probe, Connected)]
    for probe in lost:
        probe.pos = "x999_1_1_1"
    await begin(watch, nursery)
    found = await watch.judge(room)
    assert len(found) == len(lost) == 3
    assert all("M_UNKNOWN_POS" in what for what in found)
    assert [probe.anew for probe in lost] == [1, 1, 1]


def test_what_is_no_letter_of_the_tests_is_left_alone():
    probe = SyncProbe("sync", refusing, ("@ann:test", "A"))
    probe.take_letters([{"type": "m.room.encrypted", "sender": "@bob:test", "content": {}}])
    letter = {"type": LETTER, "sender": "@bob:test", "content": {"number": 1}}
    probe.take_letters([letter])
    assert probe.letters.numbers == {"@bob:test": [1]}


async def refusing(method: str, path: str, body: Any = None) -> Any:
    """Nothing is to be asked."""
    raise Refused(400, {}, path)
