"""Events of other servers, in any order and batching: all end in the same state.

T011, T015, T027, T028; [B6.01] to [B6.14].  The other servers are scripted (`far_remote`).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from matrixbox.store import rooms
from matrixbox.store.events import Status
from tests.rooms.far import CREATOR, Graph
from tests.rooms.far_remote import Far, far_household
from tests.rooms.random_graphs import VERSIONS, random_graph

ANN = "@ann:home.test"
EXAMPLES = int(os.environ.get("MATRIXBOX_ROOM_GRAPHS", "40"))


def with_ann(rng: random.Random, version: str, size: int) -> tuple[Graph, list[Any]]:
    """A random room that a user of the household is in from its beginning."""
    graph = random_graph(rng, version, size, also=[ANN])
    made = list(graph.events.values())
    beginning = made[: graph.beginning]
    tips = [
        event for event in made if not any(event.event_id in other.prev_event_ids for other in made)
    ]
    graph.make("x.last", CREATOR, {}, prev=tips)
    return graph, beginning


def current(house: Any, room: Any) -> dict[Any, str]:
    return {key: stored.event.event_id for key, stored in house.state(room).items()}


async def send_all(far: Far, graph: Graph, rng: random.Random, made: list[Any]) -> None:
    """In any order, in transactions of any size, some events twice, some never but the last."""
    order = [*made, *rng.sample(made, len(made) // 5)]
    rng.shuffle(order)
    order = [event for event in order if rng.random() < 0.7]
    order.append(list(graph.events.values())[-1])
    while order:
        size = rng.choice([1, 1, 2, 5, 20])
        part, order = order[:size], order[size:]
        outcomes = await far.receive(graph, *part, by=rng.choice(["far.test", "one.test"]))
        assert set(outcomes) == {event.event_id for event in part}
        if rng.random() < 0.5:
            await far.receiver.settled()
    await far.receiver.settled()


async def live(seed: int, version: str, size: int, seen: Counter[str]) -> None:
    rng = random.Random(seed)
    graph, beginning = with_ann(rng, version, size)
    made = list(graph.events.values())[len(beginning) :]
    last = made[-1]
    async with far_household(graph) as far:
        await graph.deliver(far.house, *beginning)
        room = graph.room_in(far.house)
        await send_all(far, graph, rng, made)
        for event in made:
            stored = far.house.stored(event.event_id)
            assert stored is not None, f"{event.type} never came"
            assert stored.snapshot is not None
            rejected = Status(stored.status) & Status.REJECTED
            assert bool(rejected) is (event.event_id in graph.rejected)
        stored = far.house.stored(last.event_id)
        if not stored.status:
            assert current(far.house, room) == graph.after[last.event_id]
            head = far.house.store.read(rooms.head, room)
            assert head.extremities == (stored.nid,)
            seen["agreements"] += 1
        assert far.house.store.read(lambda tx: tx.run("SELECT * FROM gap")) == []
        seen.update(far.remote.calls)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(VERSIONS), st.integers(4, 16))
def test_any_order_and_batching_ends_in_the_same_state(seed, version, size):
    """With an honest network: every event comes, with the verdict that all others have."""
    trio.run(live, seed, version, size, Counter(), clock=MockClock(autojump_threshold=0))


def test_the_random_rooms_fill_gaps():
    """What the property above is worth: gaps are met and filled in several ways."""
    seen: Counter[str] = Counter()
    for seed in range(12):
        clock = MockClock(autojump_threshold=0)
        trio.run(live, seed, "11", 16, seen, clock=clock)
    assert seen["agreements"] >= 6
    assert seen["missing_events"] >= 10
