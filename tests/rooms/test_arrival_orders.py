"""Any room, its events in any order: what a household makes of them.

[A6.01], [A6.11], T011, T012, T014, T028.  Compared with `far.Graph`, which knows the state around
each event by `core.resolve` alone, and with `far.Expected`, which knows one server's current state.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from matrixbox.store import events, members, names, rooms, snapshots
from matrixbox.store.events import Status
from tests.rooms.far import Expected, Graph
from tests.rooms.house import House, household
from tests.rooms.random_graphs import CREATOR, arrival, random_graph

VERSIONS = ("1", "2", "6", "10", "11", "12")
EXAMPLES = int(os.environ.get("MATRIXBOX_ROOM_GRAPHS", "60"))
HIDDEN = Status.REJECTED | Status.SOFT_FAILED


def current(tx: Any, room: Any) -> dict[Any, str]:
    return named(tx, rooms.current_state(tx, room))


def named(tx: Any, state: dict[Any, Any]) -> dict[Any, str]:
    return {
        names.slot_key(tx, slot): events.by_nid(tx, nid).event.event_id
        for slot, nid in state.items()
    }


def check_room(tx: Any, graph: Graph, expected: Expected, room: Any) -> None:
    """What must hold after each event."""
    head = rooms.head(tx, room)
    tips = [events.by_nid(tx, nid).event.event_id for nid in head.extremities]
    assert tips == expected.extremities
    assert current(tx, room) == expected.current
    assert named(tx, snapshots.state(tx, head.snapshot)) == expected.current
    # The table of members says what the state says.
    wanted = {key: i for (kind, key), i in expected.current.items() if kind == "m.room.member"}
    for membership in members.Membership:
        users = {names.user_id(tx, user) for user in members.in_room(tx, room, membership)}
        assert users == {
            user
            for user, event_id in wanted.items()
            if graph.events[event_id].content["membership"] == membership.word
        }
    joined = members.count(tx, room, members.Membership.JOIN)
    assert members.joined_count(tx, room) == joined


def check_event(tx: Any, graph: Graph, expected: Expected, event: Any) -> None:
    stored = events.by_id(tx, event.event_id)
    assert stored.status == expected.status(event)
    assert (stored.pos is None) is bool(stored.status & HIDDEN)
    assert named(tx, snapshots.state(tx, stored.snapshot)) == graph.before[event.event_id]
    after = stored.snapshot if stored.after is None else stored.after
    assert named(tx, snapshots.state(tx, after)) == graph.after[event.event_id]


def check_log(tx: Any, room: Any, history: list[tuple[int, dict[Any, str]]]) -> None:
    """The log of changes, rolled back, gives each earlier state."""
    state = dict(rooms.current_state(tx, room))
    changes = rooms.state_changes(tx, room, 0, 2**62)
    for position, earlier in reversed(history):
        while changes and changes[-1].pos > position:
            change = changes.pop()
            assert state.get(change.slot, 0) == change.new
            state[change.slot] = change.old
        assert named(tx, {slot: nid for slot, nid in state.items() if nid}) == earlier


async def received(house: House, graph: Graph, order: list[Any]) -> Expected:
    """Let a household get a room's events, checking everything after each one."""
    expected = Expected(graph)
    history: list[tuple[int, dict[Any, str]]] = []
    room = None
    for event in order:
        await graph.deliver(house, event)
        expected.get(event)
        room = graph.room_in(house)
        house.store.read(check_room, graph, expected, room)
        house.store.read(check_event, graph, expected, event)
        history.append((house.store.doorbell.position, dict(expected.current)))
    house.store.read(check_log, room, history)
    # What is in memory is what is in the file.
    house.store.caches.clear()
    house.store.read(check_room, graph, expected, room)
    return expected


async def live(seed: int, version: str, size: int, orders: int, seen: Counter[str]) -> None:
    rng = random.Random(seed)
    graph = random_graph(rng, version, size)
    results = []
    tips = [
        event
        for event in graph.events.values()
        if not any(event.event_id in other.prev_event_ids for other in graph.events.values())
    ]
    # Somebody sees everything and joins it: there all servers agree, soft failures or not.
    last = graph.make("x.last", CREATOR, {}, prev=tips)
    for _ in range(orders):
        async with household() as house:
            order = arrival(rng, graph)
            assert order[-1] is last
            expected = await received(house, graph, order)
            seen["rejected"] += len(graph.rejected)
            seen["soft-failed"] += len(expected.soft_failed)
            seen["forks"] += len(graph.events) - len(graph.rejected)
            if last.event_id not in graph.rejected | expected.soft_failed:
                results.append(expected)
    assert all(one.current == graph.after[last.event_id] for one in results)
    seen["agreements"] += len(results)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(VERSIONS), st.integers(4, 16))
def test_state_does_not_depend_on_the_order_of_arrival(seed, version, size):
    """Three orders of one room: equal verdicts, and equal states where all is known."""
    trio.run(live, seed, version, size, 3, Counter())


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_random_rooms_have_what_they_are_for(version):
    """Rooms with rejected and soft-failed events, and servers that agree in the end."""
    seen: Counter[str] = Counter()
    for seed in range(6):
        await live(seed, version, 16, 2, seen)
    assert seen["rejected"] >= 10
    assert seen["soft-failed"] >= 2
    assert seen["agreements"] >= 4


async def test_the_comparison_notices_a_wrong_resolution(monkeypatch):
    """The negative control: a resolution that prefers the first branch is found out."""
    from matrixbox.rooms import state

    original = state.resolved

    def wrong(tx: Any, room: Any, branches: Any) -> Any:
        return min(branches)

    monkeypatch.setattr("matrixbox.rooms.commit.resolved", wrong)
    with pytest.raises(AssertionError):
        for seed in range(20):
            await live(seed, "11", 16, 1, Counter())
    assert original is state.resolved
