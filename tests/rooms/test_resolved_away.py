"""Rooms that our users are out of by state resolution alone, and those that they have left.

Matrix v1.19, Server-Server API, "Checks performed on receipt of a PDU"; rooms/v12, "State
resolution" ([B6.05], [B6.12]; T017, T020, T104).
"""

from __future__ import annotations

from typing import Any

import pytest

from matrixbox.core.events import Event
from matrixbox.rooms import commit, outside, residence
from matrixbox.rooms.letting_in import Verdict
from matrixbox.rooms.outside import Notice
from matrixbox.rooms.reading import Reader
from matrixbox.store import events, members, names, rooms
from matrixbox.store.caches import Session
from tests.rooms.far import CREATOR, Graph
from tests.rooms.far_remote import FAR, Far, far_household
from tests.rooms.test_receipt_steps import ANN, BOB

MEMBER = "m.room.member"
RULES = "m.room.join_rules"


def is_in(far: Far, graph: Graph) -> bool:
    """Whether the household counts itself to the room."""
    room = graph.room_in(far.house)
    return far.house.env.server_name in far.house.store.read(members.servers, room)


async def verdict(far: Far, graph: Graph, event: Event) -> Verdict:
    [outcome] = (await far.receive(graph, event)).values()
    return outcome.verdict


async def resolved_away(far: Far, graph: Graph) -> tuple[Session, Event]:
    """Ann joins while somebody else closes the room: when the branches meet she is out."""
    ann = await far.house.user("ann")
    graph.begin(BOB)
    tip = graph.last()
    joined = graph.make(MEMBER, ANN, {"membership": "join"}, ANN)
    await graph.deliver(far.house, *graph.events.values())
    assert is_in(far, graph)
    closed = graph.make(RULES, CREATOR, {"join_rule": "invite"}, "", prev=[tip])
    assert await verdict(far, graph, closed) is Verdict.ACCEPTED
    assert not is_in(far, graph)
    return ann, joined


@pytest.mark.parametrize("version", ["2", "6", "11", "12"])
async def test_a_room_that_nobody_has_left_is_followed_and_can_come_back(version, autojump_clock):
    """The others go on upon the branch on which our user is in the room."""
    graph = Graph(version)
    async with far_household(graph) as far:
        ann, joined = await resolved_away(far, graph)
        room = graph.room_in(far.house)
        said = graph.make("m.room.message", CREATOR, {"body": "a"}, prev=[graph.last()])
        assert await verdict(far, graph, said) is Verdict.ACCEPTED
        assert not far.house.store.read(_sees, room, ann, said)
        hidden = graph.make("m.room.message", CREATOR, {"body": "b"}, prev=[joined])
        opened = graph.make(RULES, CREATOR, {"join_rule": "public"}, "", prev=[hidden])
        await far.receive(graph, opened)
        await far.later()
        assert far.remote.calls["missing_events"]  # what is between is asked for as ever
        assert is_in(far, graph)
        current = far.house.state(room)
        assert current[MEMBER, ANN].event.event_id == joined.event_id


def _sees(tx: Any, room: Any, who: Session, event: Event) -> bool:

    stored = events.by_id(tx, event.event_id)
    assert stored is not None
    return Reader(tx, room, who.user, 0).is_visible(stored)


@pytest.mark.parametrize("way", ["leave", "kick", "ban"])
async def test_t017_a_room_that_our_user_has_left_is_not_followed(way, autojump_clock):
    graph = Graph("12")
    async with far_household(graph) as far:
        await far.house.user("ann")
        graph.begin(ANN, BOB)
        await graph.deliver(far.house, *graph.events.values())
        sender = ANN if way == "leave" else CREATOR
        word = "ban" if way == "ban" else "leave"
        gone = graph.make(MEMBER, sender, {"membership": word}, ANN)
        await graph.deliver(far.house, gone)
        assert not is_in(far, graph)
        said = graph.make("m.room.message", CREATOR, {"body": "a"})
        assert await verdict(far, graph, said) is Verdict.DROPPED


@pytest.mark.parametrize("word", ["leave", "ban"])
async def test_t017_a_kick_or_ban_that_is_heard_of_later_ends_the_following(word, autojump_clock):
    graph = Graph("11")
    async with far_household(graph) as far:
        _, joined = await resolved_away(far, graph)
        gone = graph.make(MEMBER, CREATOR, {"membership": word}, ANN, prev=[joined])
        await far.receive(graph, gone)
        said = graph.make("m.room.message", CREATOR, {"body": "a"})
        assert await verdict(far, graph, said) is Verdict.DROPPED


async def test_a_room_is_followed_no_more_when_our_user_has_forgotten_it(autojump_clock):
    graph = Graph("11")
    async with far_household(graph) as far:
        ann, _ = await resolved_away(far, graph)
        await far.house.forget(ann, graph.room_in(far.house))
        said = graph.make("m.room.message", CREATOR, {"body": "a"})
        assert await verdict(far, graph, said) is Verdict.DROPPED


async def test_a_room_is_followed_no_more_when_others_invite_our_user_anew(autojump_clock):
    """Who invites counts the user out; and refusing it is a leave."""
    graph = Graph("11")
    async with far_household(graph) as far:
        ann, _ = await resolved_away(far, graph)
        invited = graph.make(MEMBER, CREATOR, {"membership": "invite"}, ANN)
        await far.house.write(outside.put, Notice(graph.rules, invited, (), (FAR,)), ann.user)
        assert await verdict(far, graph, graph.make("x.a", CREATOR, {})) is Verdict.DROPPED
        await far.house.write(outside.put_left, graph.room_in(far.house), ann.user)
        assert await verdict(far, graph, graph.make("x.b", CREATOR, {})) is Verdict.DROPPED


async def test_a_room_is_followed_for_so_many_events(monkeypatch, autojump_clock):
    """T029: a room nobody is in costs no more than that."""
    monkeypatch.setattr(residence, "MAX_TAKEN", 3)
    graph = Graph("11")
    async with far_household(graph) as far:
        await resolved_away(far, graph)
        found = [await verdict(far, graph, graph.make("x.a", CREATOR, {})) for _ in range(6)]
        assert found.count(Verdict.ACCEPTED) in (3, 4)
        assert found[-1] is Verdict.DROPPED


async def test_an_invitation_that_led_to_the_join_ends_nothing(autojump_clock):
    """What is left of the user in the state may be what was before the join."""
    graph = Graph("11")
    async with far_household(graph) as far:
        await far.house.user("ann")
        graph.begin(BOB, join_rule="invite")
        graph.make(MEMBER, CREATOR, {"membership": "invite"}, ANN)
        tip = graph.last()
        graph.make(MEMBER, ANN, {"membership": "join"}, ANN)
        await graph.deliver(far.house, *graph.events.values())
        room = graph.room_in(far.house)
        slot = far.house.store.read(names.slot_nid, (MEMBER, ANN))
        invited = far.house.stored(tip.event_id)
        head = far.house.store.read(rooms.head, room)

        def reset(tx: Any, env: Any) -> None:
            changes = {slot: (head.extremities[0], invited.nid)}
            commit.change_current_state(tx, env, room, tx.position(), changes)

        await far.house.write(reset)
        assert not is_in(far, graph)
        assert far.house.store.read(residence.is_followed, far.house.env, room)
