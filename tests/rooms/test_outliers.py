"""Events without the state before them: admitted by their auth events, placed later.

T005, T011, T022, T026, T027, T046; [B6.04], [B6.08], [B6.12].
"""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from matrixbox.core.events import Event
from matrixbox.core.redaction import redacted
from matrixbox.rooms import ingest, outliers
from matrixbox.rooms.commit import Candidate
from matrixbox.store import events, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from tests.rooms.far import CREATOR, Graph, receive
from tests.rooms.house import House, household

ALICE, MALLORY = "@alice:one.test", "@mallory:two.test"
REJECTED = Status.REJECTED | Status.REJECTED_BY_AUTH


def new_room(tx: Any, _env: Any, graph: Graph) -> Any:
    return rooms.add(tx, graph.room_id, graph.version)


async def admitted(
    house: House, graph: Graph, *found: Event, pruned: Any = (), **more: Any
) -> dict[str, Any]:
    def admit(tx: Any, env: Any) -> dict[str, Any]:
        room = names.room_nid(tx, graph.room_id)
        if room is None:
            room = new_room(tx, env, graph)
        return outliers.admit(tx, env, room, graph.rules, found, pruned, **more)

    result: dict[str, StoredEvent] = await house.write(admit)
    return result


def state_of(house: House, snapshot: Any) -> dict[Any, str]:
    def read(tx: Any) -> dict[Any, str]:
        return {
            names.slot_key(tx, slot): events.by_nid(tx, nid).event.event_id
            for slot, nid in snapshots.state(tx, snapshot).items()
        }

    return house.store.read(read)


def room_with(version: str = "11") -> Graph:
    graph = Graph(version)
    graph.begin(ALICE)
    return graph


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_a_state_is_admitted_and_becomes_a_snapshot(version):
    graph = room_with(version)
    async with household() as house:
        found = await admitted(house, graph, *graph.events.values())
        assert {one.status for one in found.values()} == {Status.OUTLIER}
        assert all(one.pos is None and one.snapshot is None for one in found.values())
        room = graph.room_in(house)
        assert house.store.read(rooms.head, room) is None
        snapshot = await house.store.write(outliers.snapshot_of, room, found.values())
        assert state_of(house, snapshot) == graph.after[graph.last().event_id]


@pytest.mark.parametrize("version", ["2", "11", "12"])
async def test_t026_rejected_auth_events_reject_what_cites_them(version):
    graph = room_with(version)
    power = graph.make("m.room.power_levels", MALLORY, {"users": {MALLORY: 100}}, "")
    after = graph.make("m.room.topic", ALICE, {}, "", auth=[*_auth(graph, ALICE), power])
    async with household() as house:
        found = await admitted(house, graph, *graph.events.values())
        assert found[power.event_id].status == Status.OUTLIER | REJECTED
        assert found[after.event_id].status == Status.OUTLIER | REJECTED
        room = graph.room_in(house)
        snapshot = await house.store.write(outliers.snapshot_of, room, found.values())
        assert ("m.room.topic", "") not in state_of(house, snapshot)  # T011


def _auth(graph: Graph, sender: str) -> list[Event]:
    state = graph.after[graph.last().event_id]
    found = graph.cited("m.room.topic", sender, "", {}, state)
    return [one for one in found if one.type != "m.room.power_levels"]


async def test_t027_an_event_with_a_missing_auth_event_is_not_stored_and_judged_later():
    graph = room_with()
    made = list(graph.events.values())
    topic = graph.make("m.room.topic", CREATOR, {"topic": "tea"}, "")
    missing = made[1]  # the creator's join
    async with household() as house:
        rest = [one for one in made if one is not missing]
        found = await admitted(house, graph, *rest, topic)
        assert set(found) == {made[0].event_id}  # all others stand on the join
        assert house.stored(topic.event_id) is None
        found = await admitted(house, graph, missing, *rest, topic)
        assert found[topic.event_id].status == Status.OUTLIER


async def test_t005_events_of_another_room_are_not_admitted():
    graph, other = room_with(), Graph("11", "elsewhere")
    other.begin()
    async with household() as house:
        found = await admitted(house, graph, *graph.events.values(), *other.events.values())
        assert set(found) == set(graph.events)
        assert all(house.stored(one) is None for one in other.events)


async def test_t022_another_create_event_is_rejected_where_the_room_is_known():
    graph = room_with("10")
    await_create = graph.signed(
        graph.pdu("m.room.create", CREATOR, {"creator": CREATOR, "room_version": "10"}, "", (), ()),
        "far.test",
    )
    from matrixbox.core.events import parse_event

    other = parse_event(graph.rules, await_create)
    async with household() as house:
        await graph.deliver_all(house)
        found = await admitted(house, graph, other)
        assert found[other.event_id].status == Status.OUTLIER | REJECTED
        room = graph.room_in(house)
        first = house.store.read(rooms.create_nid, room)
        assert house.store.read(events.by_nid, first).event.event_id == next(iter(graph.events))
        rest = [house.stored(one) for one in list(graph.events)[1:]]
        with pytest.raises(outliers.UnusableState):
            await house.store.write(outliers.snapshot_of, room, [*rest, found[other.event_id]])


async def test_t022_a_state_with_two_events_for_one_slot_is_unusable():
    graph = room_with()
    graph.make("m.room.topic", CREATOR, {"topic": "a"}, "")
    graph.make("m.room.topic", CREATOR, {"topic": "b"}, "")
    async with household() as house:
        found = await admitted(house, graph, *graph.events.values())
        with pytest.raises(outliers.UnusableState):
            await house.store.write(
                outliers.snapshot_of, graph.room_in(house), list(found.values())
            )


async def test_an_outlier_gets_its_place_when_it_is_received():
    graph = room_with()
    topic = graph.make("m.room.topic", CREATOR, {"topic": "tea"}, "")
    async with household() as house:
        before = list(graph.events.values())[:-1]
        await graph.deliver(house, *before)
        found = await admitted(house, graph, topic, status=Status.FRESH)
        assert house.timeline(graph.room_in(house))[-1].event is not topic
        [stored] = await graph.deliver(house, topic)
        assert stored.nid == found[topic.event_id].nid
        assert stored.status == Status.ACCEPTED
        room = graph.room_in(house)
        assert house.timeline(room)[-1].event.event_id == topic.event_id
        assert house.content(room, "m.room.topic") == {"topic": "tea"}
        assert house.store.read(rooms.head, room).extremities == (stored.nid,)
        house.store.caches.clear()
        assert house.stored(topic.event_id).status == Status.ACCEPTED
        # Again: nothing more happens.
        rows = house.everything()
        await graph.deliver(house, topic)
        assert house.everything() == rows


async def test_an_outlier_that_led_to_what_is_here_is_no_end_of_the_room():
    """It belongs to the state or the auth chain of something: what comes after it decides."""
    graph = room_with()
    tip = graph.last()
    old = graph.make("m.room.topic", CREATOR, {"topic": "old"}, "")
    new = graph.make("m.room.topic", CREATOR, {"topic": "new"}, "")
    async with household() as house:
        await graph.deliver(house, *list(graph.events.values())[:-2])
        room = graph.room_in(house)
        await admitted(house, graph, old)
        [stored] = await graph.deliver(house, old)
        assert stored.status == Status.PAST
        assert ("m.room.topic", "") not in house.state(room)
        head = house.store.read(rooms.head, room)
        assert head.extremities == (house.stored(tip.event_id).nid,)
        [stored] = await graph.deliver(house, new)
        assert house.store.read(rooms.head, room).extremities == (stored.nid,)
        assert house.content(room, "m.room.topic") == {"topic": "new"}


async def test_t046_the_true_content_replaces_the_pruned_one():
    graph = room_with()
    topic = graph.make("m.room.topic", CREATOR, {"topic": "tea"}, "")
    bare = redacted(topic)
    async with household() as house:
        await graph.deliver(house, *list(graph.events.values())[:-1])
        room = graph.room_in(house)

        def spoiled(tx: Any, env: Any) -> StoredEvent:
            cited = [events.by_id(tx, one) for one in bare.prev_event_ids]
            auth = [events.by_id(tx, one) for one in bare.auth_event_ids]
            return ingest.receive(
                tx, env, Candidate(bare, room, graph.rules, cited, auth, pruned=True)
            )

        stored = await house.write(spoiled)
        assert stored.status == Status.PRUNED
        assert house.content(room, "m.room.topic") == {}
        [stored] = await graph.deliver(house, topic)
        assert stored.status == Status.ACCEPTED
        assert house.content(room, "m.room.topic") == {"topic": "tea"}
        # A mutated copy that comes after the true event changes nothing.
        await house.write(spoiled)
        assert house.content(room, "m.room.topic") == {"topic": "tea"}


@pytest.mark.parametrize("version", ["6", "11"])
async def test_t020_a_false_state_does_not_take_a_rooms_power_levels_away(version):
    """A peer says that nothing stood before the power levels: by that they are not allowed.

    Counted as rejected, they would reject everything that cites them, for ever (T027): they are
    disputed.
    """
    graph = room_with(version)
    told = graph.make("m.room.message", ALICE, {"body": "now"})
    *beginning, _ = graph.events.values()
    levels = next(event for event in beginning if event.type == "m.room.power_levels")
    create = next(iter(graph.events.values()))
    async with household() as house:
        await admitted(house, graph, *beginning)

        def take(tx: Any, env: Any) -> None:
            room = names.room_nid(tx, graph.room_id)
            slot = names.slot_nid(tx, ("m.room.create", ""))
            empty = snapshots.derive(
                tx, snapshots.EMPTY, {slot: events.nid_of(tx, create.event_id)}
            )
            auth = [events.by_id(tx, each) for each in levels.auth_event_ids]
            candidate = Candidate(
                levels,
                room,
                graph.rules,
                (),
                auth,
                missing=levels.prev_event_ids,
                told=empty,
                is_hearsay=True,
            )
            ingest.receive(tx, env, candidate)

        await house.write(take)
        disputed = Status.SOFT_FAILED | Status.DISPUTED | Status.HEARSAY
        stored = house.stored(levels.event_id)
        assert (stored.status, stored.after) == (disputed, None)
        found = await admitted(house, graph, told)
        assert found[told.event_id].status == Status.OUTLIER


async def test_t046_an_outlier_gets_its_true_content():
    graph = room_with()
    topic = graph.make("m.room.topic", CREATOR, {"topic": "tea"}, "")
    before = list(graph.events.values())[:-1]
    async with household() as house:
        found = await admitted(house, graph, *before, redacted(topic), pruned={topic.event_id})
        assert found[topic.event_id].status == Status.OUTLIER | Status.PRUNED
        found = await admitted(house, graph, topic)
        assert found[topic.event_id].status == Status.OUTLIER
        assert house.stored(topic.event_id).event.content == {"topic": "tea"}


async def test_t018_a_create_event_without_its_content_is_taken_at_the_known_version():
    graph = room_with("10")
    create = next(iter(graph.events.values()))
    bare = redacted(create)
    assert "room_version" not in bare.content
    async with household() as house:
        found = await admitted(house, graph, bare, pruned={bare.event_id})
        assert found[bare.event_id].status == Status.OUTLIER | Status.PRUNED
    async with household() as house:
        lying = evolve(graph, version="9")
        found = await admitted(house, lying, create)
        assert found[create.event_id].status == Status.OUTLIER | REJECTED


async def test_placing_needs_what_the_event_cites():
    """`receive` of the model asserts it; an outlier is no excuse."""
    graph = room_with()
    async with household() as house:
        await admitted(house, graph, *graph.events.values())
        create, join = list(graph.events.values())[:2]
        [one] = await graph.deliver(house, create)
        assert one.status == Status.ACCEPTED
        two = await house.write(receive, graph.version, join)
        assert two.status == Status.PAST
        assert house.stored(join.event_id).snapshot is not None
