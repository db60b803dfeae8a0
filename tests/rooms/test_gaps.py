"""Gaps in the graph: filled, bridged by the state there, bounded, and picked up after a restart.

[B6.11], [B11.01] to [B11.04]; T007, T014, T015, T016, T020, T027, T142.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from matrixbox.rooms import gaps
from matrixbox.rooms.letting_in import Lack, Outcome, Verdict
from matrixbox.rooms.remote import StateIds
from matrixbox.store import events, inbound, names, rooms, snapshots
from matrixbox.store.events import Status
from tests.rooms.far import CREATOR, Graph, arrive
from tests.rooms.far_remote import Far, far_household
from tests.rooms.random_graphs import VERSIONS
from tests.rooms.test_receipt_steps import ANN, BOB, EVE, begun, names_of, room_with, wait_for
from tests.rooms.test_receiving import EXAMPLES, with_ann


def state_before(far: Far, event: Any) -> dict[Any, str]:
    def read(tx: Any) -> dict[Any, str]:
        stored = events.by_id(tx, event.event_id)
        assert stored is not None
        return {
            names.slot_key(tx, slot): events.id_of(tx, nid)
            for slot, nid in snapshots.state(tx, stored.snapshot).items()
        }

    return far.house.store.read(read)


def missing(far: Far) -> set[str]:
    return {row[0] for row in far.house.store.read(lambda tx: tx.run("SELECT event_id FROM gap"))}


async def test_a_short_gap_is_filled_with_the_events_between(autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        room = await begun(far, graph)
        made = [graph.make("m.room.message", BOB, {"n": n}) for n in range(50)]
        [outcome] = (await far.receive(graph, made[-1])).values()
        assert outcome == Outcome(Verdict.WAITING, lack=Lack.PARENTS)
        await far.receiver.settled()
        shown = [one.event.event_id for one in far.house.timeline(room)][-50:]
        assert shown == [one.event_id for one in made]
        assert far.remote.calls == {"missing_events": 3}
        assert not missing(far)


async def test_who_has_told_few_events_has_no_more_and_is_not_asked_again(autojump_clock):
    """What these cite is asked for by its name at once, where nobody else could know."""
    graph = Graph("11")
    graph.begin(ANN)
    graph.beginning = len(graph.events)
    async with far_household(graph) as far:
        await begun(far, graph)
        made = [graph.make("m.room.message", CREATOR, {"n": n}) for n in range(3)]
        far.remote.lies["missing_events"] = lambda honest, *_: honest[-1:]
        await far.receive(graph, made[-1])
        await far.receiver.settled()
        assert far.remote.log == [
            ("missing_events", "far.test", made[-1].event_id),
            ("event", "far.test", made[0].event_id),
        ]
        found = [Status(far.house.stored(one.event_id).status) for one in made]
        assert found == [Status.PAST, Status.ACCEPTED, Status.ACCEPTED]


async def test_who_gives_no_event_for_one_that_is_missing_is_not_believed_at_once(autojump_clock):
    """B6.01, B6.11: a parent that is none is dropped, and a state is asked for a little later."""
    graph = Graph("11")
    graph.begin(ANN)
    graph.beginning = len(graph.events)
    async with far_household(graph) as far:
        await begun(far, graph)
        made = [graph.make("m.room.message", CREATOR, {"n": n}) for n in range(2)]
        broken = {**made[0].json, "content": {"n": 1.5}}
        far.remote.lies["missing_events"] = lambda honest, *_: [broken]
        far.remote.withheld = {made[0].event_id}
        await far.receive(graph, made[1])
        await far.receiver.settled()
        assert far.remote.log == [("missing_events", "far.test", made[1].event_id)]
        await trio.sleep(6)
        await far.receiver.settled()
        assert far.remote.calls == {"missing_events": 2, "event": 1, "state_ids": 1}
        assert far.house.stored(made[1].event_id).status == Status.HEARSAY
        assert state_before(far, made[1]) == graph.before[made[1].event_id]


async def test_who_gives_ten_events_at_most_is_asked_again(autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        made = [graph.make("m.room.message", BOB, {"n": n}) for n in range(50)]
        far.remote.lies["missing_events"] = lambda honest, *_: honest[-10:]
        await far.receive(graph, made[-1])
        await far.receiver.settled()
        assert far.remote.calls == {"missing_events": 5}
        assert not missing(far)


async def test_one_auth_event_that_is_missing_is_fetched_without_all_that_is_known(
    autojump_clock,
):
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        tip = graph.last()
        levels = graph.make("m.room.power_levels", CREATOR, {"users": {CREATOR: 100}}, "")
        auth = graph.cited("m.room.message", BOB, None, {}, graph.after[levels.event_id])
        event = graph.make("m.room.message", BOB, {}, prev=[tip], auth=auth)
        await far.receive(graph, event)
        await far.receiver.settled()
        assert far.remote.calls == {"event": 1}
        assert far.house.stored(event.event_id).status == Status.ACCEPTED


async def test_t015_a_long_gap_is_bridged_by_the_state_there(autojump_clock):
    """Ten rounds and 200 events, then the state before the first of them."""
    graph = room_with()
    async with far_household(graph) as far:
        room = await begun(far, graph)
        for n in range(60):
            graph.make("m.room.topic", CREATOR, {"topic": str(n)}, "")
            graph.make("x.many", CREATOR, {}, str(n))
        made = [graph.make("m.room.message", BOB, {"n": n}) for n in range(300)]
        await far.receive(graph, made[-1])
        await far.receiver.settled()
        assert far.remote.calls["missing_events"] == gaps.ROUNDS
        assert far.remote.calls["state_ids"] == 1
        assert far.remote.calls["event"] <= 1
        assert far.remote.calls["state"] == 1  # more is missing than is asked for singly
        stored = far.house.stored(made[-1].event_id)
        assert stored.status == Status.HEARSAY
        assert state_before(far, made[-1]) == graph.before[made[-1].event_id]
        assert far.house.content(room, "m.room.topic") == {"topic": "59"}
        assert missing(far)
        # What comes later goes on from there.
        later = graph.make("m.room.message", BOB, {"body": "next"})
        [outcome] = (await far.receive(graph, later)).values()
        assert outcome.verdict is Verdict.ACCEPTED


async def test_t015_invented_parents_cost_little_and_hold_nobody_up(autojump_clock):
    """A server whose every event names twenty parents that nobody has, ever."""
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        tip = graph.last()
        for n in range(20):
            prev = [f"${n:02}{m:02}".ljust(44, "x") for m in range(20)]
            pdu = graph.pdu("m.room.message", EVE, {"n": n}, None, [tip], [])
            state = graph.after[tip.event_id]
            auth = graph.cited("m.room.message", EVE, None, {}, state)
            pdu |= {"prev_events": prev, "auth_events": [one.event_id for one in auth]}
            await far.receive(graph, graph.signed(pdu, "two.test"), by="two.test")
        honest = graph.make("m.room.message", BOB, {"body": "hello"}, prev=[tip])
        began = trio.current_time()
        [outcome] = (await far.receive(graph, honest)).values()
        assert outcome.verdict is Verdict.ACCEPTED
        assert trio.current_time() - began < 0.1
        await trio.sleep(3_600)
        # Twenty events; each asked for a few times in the hour, with at most five parents each.
        assert sum(far.remote.calls.values()) < 20 * 25 * 10
        calls = sum(far.remote.calls.values())
        await trio.sleep(3_600)
        assert sum(far.remote.calls.values()) - calls < 20 * 13 * 8
        assert far.house.store.read(lambda tx: tx.one("SELECT count(*) FROM event")[0]) < 20


async def test_t015_an_invented_parent_behind_many_that_wait_holds_nobody_up(autojump_clock):
    """The state before what cites it is asked for, however many came before that."""
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        hidden = graph.make("m.room.message", BOB, {"body": "hidden"})
        made = [graph.make("m.room.message", BOB, {"n": n}) for n in range(2 * gaps.MAX_STATES)]
        far.remote.withheld.add(hidden.event_id)
        await far.receive(graph, *made[2:])
        await far.later()
        assert {far.house.stored(one.event_id).status for one in made} == {Status.HEARSAY}
        assert not far.house.store.read(inbound.due, graph.room_in(far.house), 2**60, 100)


async def test_t015_one_gap_asks_for_so_much_and_no_more(autojump_clock):
    """Every event fetched names unknown parents, for ever."""
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        made = [graph.make("m.room.message", EVE, {"n": n}) for n in range(2_000)]
        far.remote.lies["state_ids"] = lambda honest, *_: StateIds((), ())
        await far.receive(graph, made[-1], by="two.test")
        await far.receiver.settled()
        assert far.remote.calls["missing_events"] <= gaps.ROUNDS
        assert sum(far.remote.calls.values()) <= gaps.ROUNDS + 2 * gaps.MAX_STATES + 10


async def test_t015_what_its_sender_keeps_back_is_had_from_others(autojump_clock):
    """A server that answers with nothing, and would rather tell a state of its own."""
    graph = room_with()
    async with far_household(graph) as far:
        room = await begun(far, graph)
        graph.make("m.room.topic", CREATOR, {"topic": "true"}, "")
        made = [graph.make("m.room.message", EVE, {"n": n}) for n in range(30)]
        far.remote.liars.add("two.test")
        far.remote.lies["missing_events"] = lambda honest, *_: []
        far.remote.lies["state_ids"] = lambda honest, *_: StateIds(honest.state[:-1], ())
        await far.receive(graph, made[-1], by="two.test")
        await far.receiver.settled()
        assert far.remote.calls["state_ids"] == 0
        assert far.house.stored(made[-1].event_id).status == Status.ACCEPTED
        assert far.house.content(room, "m.room.topic") == {"topic": "true"}
        assert not missing(far)


async def test_t020_a_state_is_rather_told_by_others_than_by_the_sender(autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        room = await begun(far, graph)
        graph.make("m.room.topic", CREATOR, {"topic": "true"}, "")
        made = [graph.make("m.room.message", EVE, {"n": n}) for n in range(300)]
        far.remote.liars.add("two.test")
        far.remote.lies["state_ids"] = lambda honest, *_: StateIds(honest.state[:-1], ())
        await far.receive(graph, made[-1], by="two.test")
        await far.receiver.settled()
        assert ("state_ids", "two.test") not in {(call, by) for call, by, _ in far.remote.log}
        assert far.house.content(room, "m.room.topic") == {"topic": "true"}
        assert state_before(far, made[-1]) == graph.before[made[-1].event_id]


async def test_t020_a_told_state_without_a_ban_does_not_lift_it(autojump_clock):
    """A peer tells an old state at the gap: its events are soft-failed by what we know."""
    graph = room_with("12")
    async with far_household(graph) as far:
        room = await begun(far, graph)
        tip = graph.last()
        ban = graph.make("m.room.member", CREATOR, {"membership": "ban"}, EVE)
        await far.receive(graph, ban)
        hidden = graph.make("m.room.message", EVE, {"body": "a"}, prev=[tip])
        evil = graph.make("m.room.message", EVE, {"body": "b"}, prev=[hidden])
        far.remote.lies["missing_events"] = lambda honest, *_: []
        await far.receive(graph, evil, by="two.test")
        await far.later()
        assert far.house.stored(evil.event_id).status == Status.SOFT_FAILED
        assert far.house.membership(room, EVE) == "ban"
        assert far.house.timeline(room)[-1].event.event_id == ban.event_id


async def test_a_late_parent_is_no_end_of_the_room(autojump_clock):
    """It is cited already; it gets its place, and the gap moves on."""
    graph = room_with()
    async with far_household(graph) as far:
        room = await begun(far, graph)
        first = graph.make("m.room.message", BOB, {"n": 1})
        second = graph.make("m.room.message", BOB, {"n": 2})
        third = graph.make("m.room.message", BOB, {"n": 3})
        far.remote.lies["missing_events"] = lambda honest, *_: []
        far.remote.withheld.add(second.event_id)
        await far.receive(graph, third)
        await far.later()
        assert missing(far) == {second.event_id}
        ends = far.house.store.read(rooms.head, room).extremities
        far.remote.withheld.clear()
        await far.receive(graph, first)
        await far.receive(graph, second)
        await far.later()
        assert not missing(far)
        third_nid = far.house.stored(third.event_id).nid
        assert third_nid in ends
        now = far.house.store.read(rooms.head, room).extremities
        assert far.house.stored(second.event_id).nid not in now
        assert third_nid in now


async def test_t020_old_events_sent_again_are_no_ends_of_the_room(autojump_clock):
    """State and messages from before we came, sent as news by anybody who has them."""
    graph = room_with()
    old = graph.last()
    for n in range(5):
        graph.make("m.room.topic", CREATOR, {"topic": str(n)}, "")
    kick = graph.make("m.room.member", CREATOR, {"membership": "ban"}, EVE)
    ours = graph.make("m.room.member", "@new:home.test", {"membership": "join"}, "@new:home.test")
    async with far_household(graph) as far:
        room = await far.house.write(partial(arrive, graph=graph, ours=ours))
        before = far.house.state(room)
        ends = far.house.store.read(rooms.head, room)
        await far.receive(graph, *list(graph.events.values())[:-1], by="two.test")
        fork = graph.make("m.room.message", EVE, {"body": "long ago"}, prev=[old])
        outcomes = await far.receive(graph, fork, by="two.test")
        assert outcomes[fork.event_id].verdict is Verdict.DROPPED
        await far.later()
        assert far.house.store.read(rooms.head, room) == ends
        assert {key: one.nid for key, one in far.house.state(room).items()} == {
            key: one.nid for key, one in before.items()
        }
        assert far.house.membership(room, EVE) == "ban"
        assert kick.event_id in graph.events
        assert not far.remote.calls
        shown = [one.event.event_id for one in far.house.timeline(room)]
        assert shown == [ours.event_id]


async def test_t004_who_is_put_out_with_a_low_depth_hears_of_it(autojump_clock):
    """What comes after something that is here is no history, whatever depth it has."""
    graph = room_with()
    old = graph.last()
    graph.make("m.room.topic", CREATOR, {"topic": "true"}, "")
    ours = graph.make("m.room.member", "@new:home.test", {"membership": "join"}, "@new:home.test")
    async with far_household(graph) as far:
        room = await far.house.write(partial(arrive, graph=graph, ours=ours))
        kick = graph.make(
            "m.room.member",
            CREATOR,
            {"membership": "leave"},
            "@new:home.test",
            prev=[old, ours],
            depth=1,
        )
        await far.receive(graph, kick)
        await far.later()
        assert far.house.membership(room, "@new:home.test") == "leave"


async def test_t020_nobody_takes_a_room_over_by_telling_a_state(autojump_clock):
    """An event that cites our newest one and an invented one, with a state to its liking."""
    graph = room_with(users={CREATOR: 100, EVE: 50})
    async with far_household(graph) as far:
        room = await begun(far, graph)
        tip = graph.last()
        ban = graph.make("m.room.member", CREATOR, {"membership": "ban"}, BOB)
        await far.receive(graph, ban)
        state = graph.after[ban.event_id]
        auth = graph.cited("m.room.message", EVE, None, {}, state)
        pdu = graph.pdu("m.room.message", EVE, {}, None, [ban], auth)
        pdu["prev_events"] = [ban.event_id, "$" + "x" * 43]
        evil = graph.signed(pdu, "two.test")
        told = StateIds(tuple(graph.after[tip.event_id].values()), ())

        async def state_ids(*_: Any) -> StateIds:
            return told

        far.remote.state_ids = state_ids  # type: ignore[method-assign]
        await far.receive(graph, evil, by="two.test")
        await far.later()
        assert far.house.stored(names_of(graph, evil)).snapshot is not None
        assert far.house.membership(room, BOB) == "ban"


async def test_t027_t142_what_was_taken_is_worked_off_after_a_restart(tmp_path, autojump_clock):
    """Acknowledged, then the process ends while the others cannot be reached."""
    graph = room_with()
    made = [graph.make("m.room.message", BOB, {"n": n}) for n in range(5)]
    lost = graph.make("m.room.message", EVE, {"body": "keys later"}, prev=[made[-1]])
    path = tmp_path / "house.db"
    async with far_household(graph, path=path) as far:
        await begun(far, graph)
        far.remote.down |= {"far.test", "one.test", "two.test"}
        far.verifier.lost.add("two.test")
        outcomes = await far.receive(graph, made[-1], lost)
        assert {one.verdict for one in outcomes.values()} == {Verdict.WAITING}
        await far.receiver.settled()
    async with far_household(graph, path=path) as far:
        await wait_for(far, *made, lost)
        for one in (*made, lost):
            assert far.house.stored(one.event_id).status == Status.ACCEPTED
        assert far.house.store.read(inbound.rooms_due, 2**60) == []


async def test_a_sign_of_life_brings_what_waits_forward(autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        gap = graph.make("m.room.message", BOB, {"n": 1})
        event = graph.make("m.room.message", BOB, {"n": 2})
        far.remote.down |= {"far.test", "one.test", "two.test"}
        await far.receive(graph, event)
        await trio.sleep(2_000)
        far.remote.down.clear()
        await far.receiver.alive("far.test")
        await wait_for(far, gap, event, within_s=30)


async def test_t153_nothing_waits_for_years_when_the_clock_goes_back(autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        gap = graph.make("m.room.message", BOB, {"n": 1})
        event = graph.make("m.room.message", BOB, {"n": 2})
        far.remote.down |= {"far.test", "one.test", "two.test"}
        await far.receive(graph, event)
        await trio.sleep(100)
        far.house.env.clock.step(-365 * 86_400_000)
        far.remote.down.clear()
        await wait_for(far, gap, event, within_s=2 * 3_600)


async def test_what_nobody_ever_has_is_given_up_in_the_end(autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        graph.make("m.room.message", BOB, {"n": 1})
        event = graph.make("m.room.message", BOB, {"n": 2})
        far.remote.down |= {"far.test", "one.test", "two.test"}
        await far.receive(graph, event)
        await trio.sleep(6 * 86_400)
        assert far.house.store.read(inbound.rooms_due, 2**60)
        await trio.sleep(6 * 86_400)
        assert far.house.store.read(inbound.rooms_due, 2**60) == []


async def test_what_waits_for_a_room_that_all_of_us_leave_is_let_go(autojump_clock):
    """T017"""
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        tip = graph.last()
        graph.make("m.room.message", BOB, {"n": 1})
        event = graph.make("m.room.message", BOB, {"n": 2})
        far.remote.down |= {"far.test", "one.test", "two.test"}
        await far.receive(graph, event)
        await far.receiver.settled()
        left = graph.make(
            "m.room.member", "@ann:home.test", {"membership": "leave"}, "@ann:home.test", prev=[tip]
        )
        await far.receive(graph, left)
        await trio.sleep(600)
        assert far.house.store.read(inbound.rooms_due, 2**60) == []


async def test_spoiled_copies_that_wait_do_not_stand_in_the_true_ones_way(autojump_clock):
    """While keys cannot be had, copies of one event with other contents come first."""
    from tests.rooms.test_receipt_steps import changed

    graph = room_with()
    async with far_household(graph) as far:
        room = await begun(far, graph)
        topic = graph.make("m.room.topic", CREATOR, {"topic": "tea"}, "")
        far.verifier.lost.add("far.test")
        for n in range(10):
            await far.receive(graph, changed(topic, content={"topic": str(n)}), by="two.test")
        await far.receive(graph, topic)
        assert far.house.store.read(lambda tx: tx.one("SELECT count(*) FROM inbound_pdu")[0]) <= 5
        far.verifier.lost.clear()
        await wait_for(far, topic)
        await trio.sleep(600)
        assert far.house.content(room, "m.room.topic") == {"topic": "tea"}
        assert far.house.store.read(inbound.rooms_due, 2**60) == []


async def test_t007_a_cycle_in_version_1_ends(autojump_clock):
    """Two events that cite each other: nobody can let them in, and nothing runs for ever."""
    graph = room_with("1")
    async with far_household(graph) as far:
        await begun(far, graph)
        tip = graph.last()
        state = graph.after[tip.event_id]
        auth = graph.cited("m.room.message", EVE, None, {}, state)
        made = []
        for name, other in (("$a:two.test", "$b:two.test"), ("$b:two.test", "$a:two.test")):
            pdu = graph.pdu("m.room.message", EVE, {}, None, [tip], auth, event_id=name)
            pdu["prev_events"] = [[other, {"sha256": "x"}]]
            made.append(graph.signed(pdu, "two.test"))
        outcomes = await far.receive(graph, *made, by="two.test")
        assert {one.verdict for one in outcomes.values()} <= {Verdict.WAITING}
        await trio.sleep(600)
        assert far.house.stored("$a:two.test") is None


# --- random rooms where gaps are long


async def bridged(seed: int, version: str, size: int, seen: Counter[str]) -> None:
    """Only the newest event comes, and the others in part: the state before it is exact."""
    rng = random.Random(seed)
    graph, beginning = with_ann(rng, version, size)
    made = list(graph.events.values())[len(beginning) :]
    last = made[-1]
    async with far_household(graph) as far:
        await graph.deliver(far.house, *beginning)
        keep = rng.randint(0, 2)
        far.remote.lies["missing_events"] = lambda honest, *_: honest[len(honest) - keep :]
        for event in rng.sample(made[:-1], len(made) // 3):
            await far.receive(graph, event)
        await far.receive(graph, last)
        await far.receiver.settled()
        await wait_for(far, last)
        assert state_before(far, last) == graph.before[last.event_id]
        seen.update(far.remote.calls)


@settings(max_examples=EXAMPLES // 2, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(VERSIONS), st.integers(4, 16))
def test_the_state_across_a_gap_is_exact(seed, version, size):
    trio.run(bridged, seed, version, size, Counter(), clock=MockClock(autojump_threshold=0))


def test_the_random_gaps_are_bridged():
    """What the property above is worth: states are asked for."""
    seen: Counter[str] = Counter()
    for seed in range(8):
        trio.run(bridged, seed, "11", 16, seen, clock=MockClock(autojump_threshold=0))
    assert seen["state_ids"] >= 8
    assert seen["event"] >= 20


# --- heavy resolution


@pytest.mark.parametrize("version", ["1", "11", "12"])
async def test_t079_resolution_beside_the_writer_gives_the_same(
    version, monkeypatch, autojump_clock
):
    """With nothing resolved inside transactions, all verdicts and states are what they were."""
    from tests.rooms.test_receiving import live

    seen: Counter[str] = Counter()
    for seed in range(3):
        await live(seed, version, 14, seen)
    asked = []
    from matrixbox.rooms import resolution, state

    provide = resolution._provide

    async def counting(store: Any, needed: Any) -> None:
        asked.append(needed.first is not None)
        await provide(store, needed)

    monkeypatch.setattr(resolution, "_provide", counting)
    monkeypatch.setattr(state, "MAX_INLINE_EVENTS", 0)
    again: Counter[str] = Counter()
    for seed in range(3):
        await live(seed, version, 14, again)
    assert again["agreements"] == seen["agreements"]
    assert len(asked) >= 5
    assert any(asked)  # ends that hold an event which was not stored yet


async def test_t016_a_long_auth_chain_is_walked_beside_the_writer(autojump_clock):
    """600 changes of power levels on two branches."""
    graph = room_with()
    async with far_household(graph) as far:
        room = await begun(far, graph)
        for n in range(600):
            levels = {"users": {CREATOR: 100}, "events": {"x": n % 100}}
            graph.make("m.room.power_levels", CREATOR, levels, "")
        await far.receive(graph, *list(graph.events.values())[graph.beginning :])
        tip = graph.last()
        one = graph.make("m.room.power_levels", CREATOR, {"users": {CREATOR: 100, BOB: 1}}, "")
        two = graph.make(
            "m.room.power_levels", CREATOR, {"users": {CREATOR: 100, BOB: 2}}, "", prev=[tip]
        )
        outcomes = await far.receive(graph, one, two)
        assert {found.verdict for found in outcomes.values()} == {Verdict.ACCEPTED}
        wanted = graph.resolved([graph.after[one.event_id], graph.after[two.event_id]])
        found = far.house.state(room)
        assert {key: stored.event.event_id for key, stored in found.items()} == wanted
