"""States that others told: no verdict for ever by them, and worked out anew when the gap is filled.

[B6.05], [B6.11], [B6.12]; T009, T011, T015, T020, T021, T027.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from matrixbox.core.events import Event
from matrixbox.core.identifiers import ServerName
from matrixbox.federation import bridges
from matrixbox.federation.backfill import Backfill
from matrixbox.federation.bridges import Bridges
from matrixbox.rooms import revising
from matrixbox.rooms.remote import StateIds
from matrixbox.rooms.revising import Revisions
from matrixbox.store import hearsay, rooms
from matrixbox.store.events import Status
from tests.rooms.bridging import bridge
from tests.rooms.far import CREATOR, Graph
from tests.rooms.far_remote import Far, far_household
from tests.rooms.test_receipt_steps import BOB, EVE, begun, room_with

DISPUTED = Status.SOFT_FAILED | Status.DISPUTED | Status.HEARSAY
MEMBER = "m.room.member"


def statuses(far: Far, *found: Event) -> list[int]:
    return [far.house.stored(one.event_id).status for one in found]


def head(far: Far, graph: Graph) -> list[str]:
    room = graph.room_in(far.house)
    ends = far.house.store.read(rooms.head, room).extremities
    names = {one.nid: one.event.event_id for one in far.house.timeline(room)}
    return [names[nid] for nid in ends]


def state(far: Far, graph: Graph) -> dict[Any, str]:
    found = far.house.state(graph.room_in(far.house))
    return {key: stored.event.event_id for key, stored in found.items()}


def tell(far: Far, graph: Graph, kept: Any) -> None:
    """Events between are not given, and of a state only a part."""
    far.remote.lies["missing_events"] = lambda honest, *_: []
    far.remote.lies["state_ids"] = lambda honest, *_: StateIds(
        tuple(name for name in honest.state if kept(graph.events[name])), honest.auth_chain
    )


async def revise(far: Far, *, begun: bool = False) -> None:
    for room, _ in far.house.store.read(hearsay.revisions):
        await Revisions(far.house.store, far.house.env).revise(room, begun=begun)


async def disputed_room(far: Far, graph: Graph) -> tuple[Event, list[Event]]:
    """A peer hides an event, and says of what comes after it that BOB was never in the room."""
    await begun(far, graph)
    hidden = graph.make("m.room.message", CREATOR, {"body": "hidden"})
    own = {} if graph.rules.privileged_creators else {CREATOR: 100}
    levels = graph.make("m.room.power_levels", CREATOR, {"users": {**own, BOB: 90}}, "")
    topic = graph.make("m.room.topic", BOB, {"topic": "true"}, "")
    again = graph.make("m.room.power_levels", BOB, {"users": {**own, BOB: 80}}, "")
    last = graph.make("m.room.message", CREATOR, {"body": "hi"})
    assert again.event_id in last.auth_event_ids
    tell(far, graph, lambda event: event.state_key != BOB)
    far.remote.withheld.add(hidden.event_id)
    made = [levels, topic, again, last]
    for event in made:
        await far.receive(graph, event)
        await far.later()
    return hidden, made


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_t027_what_a_told_state_forbids_is_disputed_until_the_gap_is_filled(
    version, autojump_clock
):
    """It has no effect, and rejects nothing that cites it; then all is as others have it (T011)."""
    graph = room_with(version)
    async with far_household(graph) as far:
        hidden, made = await disputed_room(far, graph)
        levels, topic, again, last = made
        assert statuses(far, levels, last) == [Status.HEARSAY] * 2
        assert statuses(far, topic, again) == [DISPUTED] * 2
        assert state(far, graph)["m.room.power_levels", ""] == levels.event_id
        assert ("m.room.topic", "") not in state(far, graph)
        far.remote.withheld.clear()
        await far.receive(graph, hidden)
        await revise(far)
        assert statuses(far, hidden, *made) == [Status.PAST, *statuses(far, *made)]
        assert {Status(status) & ~Status.PAST for status in statuses(far, *made)} == {0}
        assert state(far, graph) == graph.after[last.event_id]
        assert head(far, graph) == [last.event_id]
        shown = {one.event.event_id for one in far.house.timeline(graph.room_in(far.house))}
        assert shown.issuperset(one.event_id for one in made)
        assert far.house.store.read(hearsay.revisions) == []
        assert far.house.store.read(hearsay.descending, graph.room_in(far.house)) == []


async def test_t142_a_revision_that_was_broken_off_goes_on_after_a_restart(
    monkeypatch, autojump_clock
):
    graph = room_with("11")
    async with far_household(graph) as far:
        hidden, made = await disputed_room(far, graph)
        far.remote.withheld.clear()
        await far.receive(graph, hidden)
        monkeypatch.setattr(revising, "BATCH", 1)
        original, done = revising._revise, []

        def breaks_off(*arguments: Any, **more: Any) -> Any:
            if len(done) == 2:
                raise RuntimeError("the power is cut")
            done.append(arguments)
            return original(*arguments, **more)

        monkeypatch.setattr(revising, "_revise", breaks_off)
        with pytest.raises(RuntimeError):
            await revise(far)
        monkeypatch.setattr(revising, "_revise", original)
        room = graph.room_in(far.house)
        assert far.house.store.read(hearsay.revisions) == [(room, True)]
        await revise(far, begun=True)
        assert state(far, graph) == graph.after[made[-1].event_id]
        assert {Status(status) & ~Status.PAST for status in statuses(far, *made)} == {0}
        assert far.house.store.read(hearsay.revisions) == []


@pytest.mark.parametrize("version", ["6", "11", "12"])
async def test_t021_what_only_a_stale_state_allows_is_rejected_when_the_gap_is_filled(
    version, autojump_clock
):
    """A demotion is hidden, and the one who was demoted goes on."""
    graph = room_with(version)
    async with far_household(graph) as far:
        room = await begun(far, graph)
        own = {} if graph.rules.privileged_creators else {CREATOR: 100}
        risen = graph.make("m.room.power_levels", CREATOR, {"users": {**own, EVE: 50}}, "")
        await far.receive(graph, risen)
        tip = graph.last()
        fallen = graph.make("m.room.power_levels", CREATOR, {"users": {**own, EVE: 0}}, "")
        before = graph.after[tip.event_id]
        old = graph.cited("m.room.message", EVE, None, {}, before)  # before the demotion
        evil = graph.make("m.room.message", EVE, {"body": "a"}, prev=[fallen], auth=old)
        topic = graph.make("m.room.topic", EVE, {"topic": "mine"}, "", auth=old)
        assert topic.event_id in graph.rejected
        assert topic.event_id not in graph.rejected_by_auth
        far.remote.lies["missing_events"] = lambda honest, *_: []
        far.remote.withheld.add(fallen.event_id)
        stale = tuple(graph.after[tip.event_id].values())
        far.remote.lies["state_ids"] = lambda honest, *_: StateIds(stale, ())
        for event in (evil, topic):
            await far.receive(graph, event)
            await far.later()
        assert statuses(far, evil, topic) == [Status.HEARSAY] * 2
        assert far.house.content(room, "m.room.topic") == {"topic": "mine"}
        far.remote.withheld.clear()
        await far.receive(graph, fallen)
        await revise(far)
        assert statuses(far, topic) == [Status.REJECTED]
        assert state(far, graph) == graph.after[evil.event_id]
        assert ("m.room.topic", "") not in state(far, graph)
        assert head(far, graph) == [evil.event_id]


async def test_t020_what_a_stale_current_state_forbade_comes_out_afterwards(autojump_clock):
    """By the state that was told nobody may speak; that had been taken back already."""
    graph = room_with("11")
    async with far_household(graph) as far:
        room = await begun(far, graph)
        tip = graph.last()
        users = {CREATOR: 100}
        closed = graph.make(
            "m.room.power_levels", CREATOR, {"users": users, "events_default": 50}, ""
        )
        opened = graph.make("m.room.power_levels", CREATOR, {"users": users}, "")
        stale = graph.after[closed.event_id]
        old = graph.cited("m.room.message", CREATOR, None, {}, stale)
        last = graph.make("m.room.message", CREATOR, {"body": "a"}, prev=[opened], auth=old)
        far.remote.lies["missing_events"] = lambda honest, *_: []
        far.remote.lies["state_ids"] = lambda honest, *_: StateIds(tuple(stale.values()), ())
        far.remote.withheld.add(opened.event_id)
        await far.receive(graph, last)
        await far.later()
        said = graph.make("m.room.message", BOB, {"body": "hello"}, prev=[tip])
        await far.receive(graph, said)
        assert statuses(far, last, said) == [Status.HEARSAY, Status.SOFT_FAILED]
        far.remote.withheld.clear()
        await far.receive(graph, opened)
        await far.later()
        await revise(far)
        assert statuses(far, last, said) == [Status.ACCEPTED] * 2
        assert {*head(far, graph)} == {last.event_id, said.event_id}
        assert far.house.timeline(room)[-1].event.event_id == said.event_id


async def test_t015_a_revision_is_bounded(monkeypatch, autojump_clock):
    graph = room_with("11")
    async with far_household(graph) as far:
        hidden, made = await disputed_room(far, graph)
        monkeypatch.setattr(revising, "MAX_REVISED", 2)
        far.remote.withheld.clear()
        await far.receive(graph, hidden)
        before = statuses(far, *made)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Revisions(far.house.store, far.house.env).run)
            await trio.sleep(5)
            nursery.cancel_scope.cancel()
        assert far.house.store.read(hearsay.revisions) == []
        assert statuses(far, *made) == before


@pytest.mark.parametrize("is_before_us", [False, True])
async def test_t015_the_history_behind_a_told_state_is_asked_for_until_it_meets_ours(
    is_before_us, autojump_clock, monkeypatch
):
    """Nobody sends what is missing: others are asked for it, and one of them has it."""
    monkeypatch.setattr(bridges, "_is_before_us", lambda *_: is_before_us)
    graph = room_with("11")
    async with far_household(graph) as far:
        hidden, made = await disputed_room(far, graph)
        asked: list[str] = []

        async def backfill(server: ServerName, *_: Any, before: Any, limit: int) -> list[Any]:
            asked.append(server)
            if server == "far.test" and len(asked) > 3:
                return [hidden.json]
            return []

        far.remote.backfill = backfill
        far.remote.lies["event"] = lambda honest, *_: made[0].json
        house = far.house
        await bridge(far, 120)
        assert len(set(asked)) > 1
        assert state(far, graph) == graph.after[made[-1].event_id]
        assert statuses(far, *made[1:3]) == [Status.PAST] * 2
        assert house.store.read(hearsay.due, 2**60, 10) == []
        count = len(asked)
        await trio.sleep(3600)
        assert len(asked) == count


async def test_t015_history_that_is_kept_back_is_asked_for_by_name(autojump_clock, monkeypatch):
    """One page is a page, though a server gives nothing of it when asked for history (T020)."""
    monkeypatch.setattr(bridges, "_is_before_us", lambda *_: True)
    monkeypatch.setattr(bridges, "BEFORE_US_PAGES", 1)
    graph = room_with("11")
    async with far_household(graph) as far:
        await begun(far, graph)
        hidden = [graph.make("m.room.message", CREATOR, {"n": n}) for n in range(8)]
        topic = graph.make("m.room.topic", CREATOR, {"topic": "true"}, "")
        tell(far, graph, lambda event: event.state_key != BOB)
        far.remote.withheld = {one.event_id for one in hidden}
        await far.receive(graph, topic)
        await far.later()
        assert statuses(far, topic) == [Status.HEARSAY]
        far.remote.withheld.clear()

        async def backfill(*_: Any, before: Any, **__: Any) -> list[Any]:
            return [graph.events[before[0]].json]

        far.remote.backfill = backfill
        await bridge(far, 600)
        assert {Status(one) & ~Status.PAST for one in statuses(far, *hidden, topic)} == {0}
        assert state(far, graph) == graph.after[topic.event_id]


@pytest.mark.parametrize(("is_before_us", "least", "most"), [(False, 11, 299), (True, 4, 32)])
async def test_t015_a_gap_that_nobody_can_fill_is_tried_less_and_less(
    is_before_us, least, most, autojump_clock, monkeypatch
):
    """And a few times only where what is missing is older than our time in the room."""
    monkeypatch.setattr(bridges, "_is_before_us", lambda *_: is_before_us)
    graph = room_with("11")
    async with far_household(graph) as far:
        await disputed_room(far, graph)
        asked: list[float] = []

        async def backfill(*_: Any, **__: Any) -> list[Any]:
            asked.append(trio.current_time())
            return []

        far.remote.backfill = backfill
        house = far.house
        filling = Backfill(house.store, house.env, far.remote, far.verifier, None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Bridges(house.store, house.env, filling).run)
            house.env.clock.step(86_400_000)
            await trio.sleep(86_400)
            nursery.cancel_scope.cancel()
        assert least <= len(asked) <= most
