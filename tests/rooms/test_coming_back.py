"""Rooms that users of ours come back to by way of others, while what they did is still on its way.

Matrix v1.19, Server-Server API, "Joining Rooms", "Checks performed on receipt of a PDU" ([B6.05],
[B6.12], [B8.05], [B8.06]; T020, T036).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from matrixbox.core.events import Event
from matrixbox.core.identifiers import UserId
from matrixbox.rooms.letting_in import Verdict
from matrixbox.store import hearsay, rooms
from matrixbox.store.caches import Session
from tests.rooms.bridging import bridge
from tests.rooms.far import CREATOR, Graph, arrive
from tests.rooms.far_remote import Far, far_household
from tests.rooms.test_receipt_steps import ANN, BOB

CAT = UserId("@cat:home.test")
MEMBER = "m.room.member"
JOIN, LEAVE = {"membership": "join"}, {"membership": "leave"}


def ends(far: Far, graph: Graph) -> set[str]:
    """The ends of the room's graph, by name."""
    room = graph.room_in(far.house)
    found = far.house.store.read(rooms.head, room).extremities
    return {one.event.event_id for one in far.house.timeline(room) if one.nid in found}


async def inside(far: Far, graph: Graph) -> tuple[Session, Any]:
    """Ann and Cat are in a room of others."""
    ann = await far.house.user("ann")
    await far.house.user("cat")
    graph.begin(ANN, CAT, BOB)
    await graph.deliver(far.house, *graph.events.values())
    return ann, graph.room_in(far.house)


async def back(far: Far, graph: Graph, *unseen: Event, with_members: bool) -> Event:
    """Others let Ann in again."""
    join = graph.make(MEMBER, ANN, JOIN, ANN)
    come = partial(arrive, graph=graph, ours=join, with_members=with_members, unseen=unseen)
    await far.house.write(come)
    return join


@pytest.mark.parametrize("version", ["2", "11", "12"])
async def test_who_had_left_stays_out_while_the_members_are_on_their_way(version, autojump_clock):
    """T036: an event of a branch on which they were in the room brings nobody back."""
    graph = Graph(version)
    async with far_household(graph) as far:
        _, room = await inside(far, graph)
        tip = graph.last()
        gone = [graph.make(MEMBER, who, LEAVE, who) for who in (CAT, ANN)]
        await graph.deliver(far.house, *gone)
        graph.make("m.room.topic", CREATOR, {"topic": "elsewhere"}, "")
        await back(far, graph, with_members=False)
        late = graph.make("m.room.message", BOB, {"body": "late"}, prev=[tip])
        [outcome] = (await far.receive(graph, late)).values()
        assert outcome.verdict is Verdict.ACCEPTED
        assert far.house.membership(room, CAT) == "leave"
        assert far.house.membership(room, ANN) == "join"


@pytest.mark.parametrize("with_members", [True, False])
async def test_what_failed_elsewhere_is_no_end_when_we_come_back(with_members, autojump_clock):
    """Nobody ever joins it, and rules that others make could take our user out by it."""
    graph = Graph("11")
    async with far_household(graph) as far:
        ann, room = await inside(far, graph)
        await far.house.say(ann, room, "nobody has answered")
        left = graph.make(MEMBER, CREATOR, LEAVE, CAT)
        kick = graph.make(MEMBER, CREATOR, LEAVE, ANN)
        await graph.deliver(far.house, left, kick)
        assert len(ends(far, graph)) == 2
        join = await back(far, graph, with_members=with_members)
        assert ends(far, graph) == {join.event_id}
        closed = graph.make("m.room.join_rules", CREATOR, {"join_rule": "invite"}, "")
        await far.receive(graph, closed)
        assert far.house.membership(room, ANN) == "join"


@pytest.mark.parametrize("with_members", [True, False])
async def test_what_others_have_yet_to_hear_stays_an_end_when_we_come_back(
    with_members, autojump_clock
):
    graph = Graph("11")
    async with far_household(graph) as far:
        ann, room = await inside(far, graph)
        kick = graph.make(MEMBER, CREATOR, LEAVE, CAT)
        await graph.deliver(far.house, kick)
        await far.house.leave(ann, room)
        [leave] = ends(far, graph)
        graph.make("m.room.topic", CREATOR, {"topic": "elsewhere"}, "")
        join = await back(far, graph, with_members=with_members)
        assert ends(far, graph) == {leave, join.event_id}


async def test_t020_what_others_did_while_we_were_away_is_no_end_though_it_comes_late(
    autojump_clock,
):
    """The history before our join shows that the server which let us in has seen it."""
    graph = Graph("11")
    async with far_household(graph) as far:
        house = far.house
        _, room = await inside(far, graph)
        tip = graph.last()
        leave = graph.make(MEMBER, ANN, LEAVE, ANN)
        await graph.deliver(house, leave)
        late = graph.make("m.room.message", BOB, {"body": "late"}, prev=[tip])
        graph.make("m.room.topic", CREATOR, {"topic": "elsewhere"}, "", prev=[leave, late])
        await back(far, graph, late, with_members=True)
        closed = graph.make("m.room.join_rules", CREATOR, {"join_rule": "invite"}, "")
        await far.receive(graph, closed)
        await far.receive(graph, late)
        assert ends(far, graph) == {closed.event_id, late.event_id}
        assert house.membership(room, ANN) == "leave"

        async def backfill(*_: Any, before: Any, **__: Any) -> list[Any]:
            return [graph.events[name].json for name in before]

        far.remote.backfill = backfill
        house.env.clock.step(60_000)
        await bridge(far, 60)
        assert ends(far, graph) == {closed.event_id}
        found = {key: one.event.event_id for key, one in house.state(room).items()}
        assert found == graph.after[closed.event_id]
        assert house.store.read(hearsay.next_due) is None


async def test_what_comes_upon_our_coming_back_has_no_history_asked_for(autojump_clock):
    graph = Graph("11")
    async with far_household(graph) as far:
        await inside(far, graph)
        await graph.deliver(far.house, graph.make(MEMBER, ANN, LEAVE, ANN))
        graph.make("m.room.topic", CREATOR, {"topic": "elsewhere"}, "")
        join = await back(far, graph, with_members=True)
        branches = [graph.make("x.a", CREATOR, {}, prev=[join]) for _ in range(2)]
        await far.receive(graph, *branches)
        assert ends(far, graph) == {one.event_id for one in branches}
        assert far.house.store.read(hearsay.next_due) is None
