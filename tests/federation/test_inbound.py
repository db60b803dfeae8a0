"""Transactions of other servers ([B5.01] to [B5.05], T009, T010, T029)."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import trio
from attrs import define, field

from matrixbox.errors import BadJson, LimitExceeded
from matrixbox.federation.inbound import Inbound
from matrixbox.store import inbound
from matrixbox.store.errors import StoreFull
from tests.rooms.far import Graph
from tests.rooms.far_remote import FAR, Far, far_household
from tests.rooms.test_receipt_steps import BOB, begun, changed, room_with


@define(eq=False)
class Edus:
    """Remembers what it gets."""

    got: list[Any] = field(factory=list)
    failing: bool = False

    async def receive(self, origin: str, edus: Sequence[Mapping[str, Any]]) -> None:
        """As `EduReceiver` says."""
        if self.failing:
            raise ZeroDivisionError
        self.got.extend((origin, edu["edu_type"]) for edu in edus)


def body(*pdus: Any, edus: Any = ()) -> dict[str, Any]:
    return {
        "origin": "far.test",
        "origin_server_ts": 1,
        "pdus": [getattr(one, "json", one) for one in pdus],
        "edus": list(edus),
    }


async def take(door: Inbound, txn_id: str, sent: Mapping[str, Any], by: Any = FAR) -> Any:
    return json.loads(await door.take(by, txn_id, sent))


async def test_every_pdu_has_its_result_and_edus_are_handed_on(autojump_clock):
    """[B5.03]"""
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        edus = Edus()
        door = Inbound(far.house.store, far.receiver, edus)
        good = graph.make("m.room.message", BOB, {"body": "hi"})
        bad = graph.make("m.room.topic", BOB, {"topic": "mine"}, "")
        sent = body(good, bad, 7, {"no": "room"}, edus=[{"edu_type": "m.typing", "content": {}}, 5])
        answer = await take(door, "1", sent)
        assert set(answer) == {"pdus"}
        assert answer["pdus"][good.event_id] == {}
        assert "rejected" in answer["pdus"][bad.event_id]["error"]
        assert len(answer["pdus"]) == 2
        assert edus.got == [("far.test", "m.typing")]


async def test_t010_the_same_transaction_again_gives_the_same_answer(tmp_path, autojump_clock):
    """Also with another body, and after a restart; it changes nothing."""
    graph = room_with()
    path = tmp_path / "house.db"
    one = graph.make("m.room.message", BOB, {"n": 1})
    two = graph.make("m.room.message", BOB, {"n": 2})
    edu = {"edu_type": "m.typing", "content": {}}
    async with far_household(graph, path=path) as far:
        await begun(far, graph)
        door = Inbound(far.house.store, far.receiver, Edus())
        first = await take(door, "t", body(one, edus=[edu]))
        before = far.house.everything()
        assert await take(door, "t", body(two)) == first
        assert far.house.everything() == before
        assert await take(door, "t", body(two), by="one.test") != first
    async with far_household(graph, path=path) as far:
        edus = Edus()
        door = Inbound(far.house.store, far.receiver, edus)
        assert await take(door, "t", body(one, edus=[edu])) == first
        assert edus.got == []


async def test_t010_one_transaction_of_a_server_at_a_time(autojump_clock):
    """Others are refused and forgotten; the same one, sent again meanwhile, waits."""
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        door = Inbound(far.house.store, far.receiver, Edus())
        far.verifier.never = True
        event = graph.make("m.room.message", BOB, {})
        answers: list[Any] = []

        async def send() -> None:
            answers.append(await take(door, "1", body(event)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.sleep(1)
            nursery.start_soon(send)
            await trio.sleep(1)
            for txn_id in ("2", "3"):
                with pytest.raises(LimitExceeded):
                    await take(door, txn_id, body(event))
            assert await take(door, "2", body(), by="one.test") == {"pdus": {}}
        assert answers == [{"pdus": {event.event_id: {}}}] * 2
        assert await take(door, "2", body()) == {"pdus": {}}


async def test_a_caller_that_hangs_up_leaves_nothing_behind_that_blocks(autojump_clock):
    """T143: the same transaction again is taken."""
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        door = Inbound(far.house.store, far.receiver, Edus())
        far.verifier.never = True
        event = graph.make("m.room.message", BOB, {})
        with trio.move_on_after(1):
            await take(door, "1", body(event))
        far.verifier.never = False
        assert await take(door, "1", body(event)) == {"pdus": {event.event_id: {}}}
        assert far.house.stored(event.event_id) is not None


async def test_old_answers_go(autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        door = Inbound(far.house.store, far.receiver, Edus())
        for number in range(inbound.ANSWERS_KEPT + 10):
            await take(door, str(number), body())
            await take(door, str(number), body(), by="one.test")

        def count(tx: Any) -> int:
            return int(tx.one("SELECT count(*) FROM inbound_transaction")[0])

        assert far.house.store.read(count) == 2 * inbound.ANSWERS_KEPT


@pytest.mark.parametrize(
    "wrong",
    [
        {"pdus": {}},
        {"pdus": [], "edus": 5},
        {"pdus": [{}] * 51},
        {"pdus": [], "edus": [{}] * 101},
    ],
)
async def test_what_is_no_transaction_is_refused_and_not_remembered(wrong, autojump_clock):
    """[B5.01]"""
    graph = room_with()
    async with far_household(graph) as far:
        door = Inbound(far.house.store, far.receiver, Edus())
        with pytest.raises(BadJson):
            await take(door, "1", wrong)
        assert await take(door, "1", body()) == {"pdus": {}}


async def test_t009_a_mutated_pdu_never_changes_the_others(autojump_clock):
    """One of twenty is spoiled in any way: 19 results stay, and later transactions are taken."""
    rng = random.Random(9)
    junk: list[Any] = [None, True, 7, -1, 2**60, "", "x" * 300, [], [[]], {}, {"a": []}, "\u0000"]
    for _ in range(60):
        graph = room_with(rng.choice(["1", "6", "11", "12"]))
        async with far_household(graph) as far:
            await begun(far, graph)
            tip = graph.last()
            door = Inbound(far.house.store, far.receiver, Edus())
            made = [graph.make("x.fork", BOB, {"n": n}, prev=[tip]) for n in range(6)]
            victim = rng.choice(made)
            keys = [*victim.json, "unsigned", "redacts", "state_key", "extra"]
            fields = {rng.choice(keys): rng.choice(junk) for _ in range(rng.choice([1, 1, 2]))}
            pdus = [changed(one, **fields) if one is victim else one for one in made]
            answer = await take(door, "1", body(*pdus))
            others = [one for one in made if one is not victim]
            assert all(answer["pdus"].get(one.event_id) == {} for one in others), fields
            assert all(not far.house.stored(one.event_id).status for one in others)
            assert await take(door, "1", body(*pdus)) == answer
            late = graph.make("x.late", BOB, {}, prev=[others[0]])
            assert (await take(door, "2", body(late)))["pdus"] == {late.event_id: {}}


async def test_edus_that_fail_do_not_fail_the_transaction(autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        door = Inbound(far.house.store, far.receiver, Edus(failing=True))
        event = graph.make("m.room.message", BOB, {})
        sent = body(event, edus=[{"edu_type": "m.typing", "content": {}}])
        assert await take(door, "1", sent) == {"pdus": {event.event_id: {}}}


async def test_t144_a_full_disk_acknowledges_nothing(monkeypatch, autojump_clock):
    """The error goes to the sender, which keeps its events, and nothing is remembered."""
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        door = Inbound(far.house.store, far.receiver, Edus())
        event = graph.make("m.room.message", BOB, {})

        def full(*_: Any, **__: Any) -> Any:
            raise StoreFull("no space")

        with monkeypatch.context() as patched:
            patched.setattr("matrixbox.rooms.letting_in.ingest.receive", full)
            with pytest.raises(StoreFull):
                await take(door, "1", body(event))
        assert await take(door, "1", body(event)) == {"pdus": {event.event_id: {}}}


async def test_rooms_are_worked_on_beside_each_other(autojump_clock):
    """A transaction for many rooms, one of which fails as a whole."""
    graphs = [Graph("11", f"r{n}") for n in range(6)]
    for graph in graphs:
        graph.begin("@ann:home.test", BOB)
    async with far_household(*graphs) as far:
        for graph in graphs:
            await graph.deliver_all(far.house)
        door = Inbound(far.house.store, far.receiver, Edus())
        made = [graph.make("m.room.message", BOB, {}) for graph in graphs]
        await break_room(far, graphs[2])
        answer = await take(door, "1", body(*made))
        wanted = {one.event_id: {} for one in made if one is not made[2]}
        assert {name: answer["pdus"][name] for name in wanted} == wanted
        assert "error" in answer["pdus"].get(made[2].event_id, {"error": ""})


async def break_room(far: Far, graph: Graph) -> None:
    """Take something away without which nothing can be judged."""
    room = graph.room_in(far.house)

    def damage(tx: Any) -> None:
        tx.run("UPDATE room_head SET snapshot_nid = 10000 WHERE room_nid = ?", room)
        tx.run("UPDATE event SET snapshot_nid = 10000, after_nid = 10001 WHERE room_nid = ?", room)

    await far.house.store.write(damage)
    far.house.store.caches.clear()
