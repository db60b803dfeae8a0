"""Policy servers, the seventh check ([B12.01] to [B12.06], T135)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from attrs import define, field

from matrixbox.core.signing import SigningKey, sign_redacted
from matrixbox.errors import Forbidden, MatrixError, RemoteRefused, Unavailable
from matrixbox.rooms.letting_in import Lack, Verdict
from matrixbox.rooms.policy import policy_of
from matrixbox.store.events import Status
from tests.rooms.far import CREATOR, Graph
from tests.rooms.far_remote import Far, far_household
from tests.rooms.house import House, household
from tests.rooms.test_receipt_steps import BOB, EVE, begun, room_with, wait_for

KEY = SigningKey("policy_server", b"policy".ljust(32, b"."))
VIA = "two.test"


@define(eq=False)
class PolicyServer:
    """Signs what is not spam, in the way that a test wants it wrong."""

    graph: Graph
    mode: str = "good"
    asked: list[str] = field(factory=list)

    async def policy_signature(self, server: str, rules: Any, pdu: Any) -> Mapping[str, Any]:
        """As `rooms.policy.PolicyRemote` says."""
        assert server == VIA
        self.asked.append(pdu["type"])
        if self.mode == "silent":
            await trio.sleep_forever()
        if pdu["content"].get("spam") or self.mode == "refuses":
            raise RemoteRefused(server, "spam", status=400, errcode="M_FORBIDDEN")
        key = SigningKey("policy_server", bytes(32)) if self.mode == "other key" else KEY
        event = {**pdu, "depth": 1} if self.mode == "other event" else pdu
        signed = sign_redacted(rules, {**event, "signatures": {}}, VIA, key)
        return dict(signed["signatures"])


def policed(version: str = "11", **content: Any) -> Graph:
    """A room whose policy server is that of EVE."""
    graph = room_with(version)
    policy = {"via": VIA, "public_keys": {"ed25519": KEY.verify_key_base64}, **content}
    graph.make("m.room.policy", CREATOR, policy, "")
    graph.beginning += 1
    return graph


def approved(graph: Graph, kind: str, content: Any) -> Any:
    """An event that bears the policy server's signature already."""
    pdu = graph.pdu(kind, BOB, content, None, [graph.last()], [])
    auth = graph.cited(kind, BOB, None, content, graph.after[graph.last().event_id])
    pdu["auth_events"] = [one.event_id for one in auth]
    pdu = graph.signed(pdu, "one.test")
    return sign_redacted(graph.rules, pdu, VIA, KEY)


async def sent(far: Far, graph: Graph, content: Any) -> Any:
    event = graph.make("m.room.message", BOB, content)
    await far.receive(graph, event)
    await wait_for(far, event)
    return far.house.stored(event.event_id)


async def test_an_approved_event_is_taken_without_asking(autojump_clock):
    graph = policed()
    server = PolicyServer(graph)
    async with far_household(graph, policies=server) as far:
        await begun(far, graph)
        [outcome] = (await far.receive(graph, approved(graph, "m.room.message", {}))).values()
        assert outcome.verdict is Verdict.ACCEPTED
        assert server.asked == []


async def test_the_policy_server_is_asked_once_and_its_signature_kept(autojump_clock):
    graph = policed()
    server = PolicyServer(graph)
    async with far_household(graph, policies=server) as far:
        room = await begun(far, graph)
        event = graph.make("m.room.message", BOB, {"body": "hello"})
        [outcome] = (await far.receive(graph, event)).values()
        assert outcome.lack is Lack.POLICY
        await wait_for(far, event)
        stored = far.house.stored(event.event_id)
        assert stored.status == Status.ACCEPTED
        assert server.asked == ["m.room.message"]
        signatures = stored.event.json["signatures"]
        assert set(signatures) == {"one.test", VIA}
        assert far.house.store.read(policy_of, room).approves(stored.event)
        # Again: nobody is asked.
        await far.receive(graph, event)
        assert len(server.asked) == 1


async def test_t135_without_a_good_signature_events_are_soft_failed(autojump_clock):
    for mode in ("refuses", "other key", "other event", "silent"):
        graph = policed()
        server = PolicyServer(graph, mode)
        async with far_household(graph, policies=server) as far:
            room = await begun(far, graph)
            began = trio.current_time()
            stored = await sent(far, graph, {"body": mode})
            assert stored.status == Status.SOFT_FAILED
            assert trio.current_time() - began < 15
            assert len(server.asked) == 1
            assert far.house.timeline(room)[-1].event.event_id != stored.event.event_id


async def test_spam_is_soft_failed_and_the_rest_is_not(autojump_clock):
    graph = policed()
    server = PolicyServer(graph)
    async with far_household(graph, policies=server) as far:
        await begun(far, graph)
        assert (await sent(far, graph, {"spam": True})).status == Status.SOFT_FAILED
        assert (await sent(far, graph, {"body": "hi"})).status == Status.ACCEPTED


async def test_it_is_never_asked_about_the_policy_itself(autojump_clock):
    """T135, [K.27]"""
    graph = policed()
    server = PolicyServer(graph, "refuses")
    async with far_household(graph, policies=server) as far:
        room = await begun(far, graph)
        off = graph.make("m.room.policy", CREATOR, {}, "")
        [outcome] = (await far.receive(graph, off)).values()
        assert outcome.verdict is Verdict.ACCEPTED
        assert far.house.store.read(policy_of, room) is None
        assert (await sent(far, graph, {"body": "free"})).status == Status.ACCEPTED
        assert server.asked == []


async def test_a_policy_that_is_none_and_one_without_a_user_in_the_room(autojump_clock):
    """[B12.01]"""
    for content in ({"via": 7}, {"public_keys": {}}, {"via": "absent.test"}, {"via": "not a name"}):
        graph = policed(**content)
        server = PolicyServer(graph, "refuses")
        async with far_household(graph, policies=server) as far:
            room = await begun(far, graph)
            assert far.house.store.read(policy_of, room) is None
            assert (await sent(far, graph, {"body": "hi"})).status == Status.ACCEPTED
    graph = policed()
    graph.make("m.room.member", EVE, {"membership": "leave"}, EVE)
    graph.beginning += 1
    async with far_household(graph) as far:
        room = await begun(far, graph)
        assert far.house.store.read(policy_of, room) is None


async def test_a_silent_policy_server_delays_no_other_room(autojump_clock):
    """T135"""
    graph, other = policed(), Graph("11", "elsewhere")
    other.begin("@ann:home.test", BOB)
    async with far_household(graph, other, policies=PolicyServer(graph, "silent")) as far:
        await begun(far, graph)
        await other.deliver_all(far.house)
        await far.receive(graph, graph.make("m.room.message", BOB, {}))
        began = trio.current_time()
        [outcome] = (await far.receive(other, other.make("m.room.message", BOB, {}))).values()
        assert outcome.verdict is Verdict.ACCEPTED
        assert trio.current_time() - began < 0.1


# --- our own events


async def our_room(house: House, server: PolicyServer | None) -> tuple[Any, Any]:
    """A room of ours with a policy server in it; the user and the room."""
    ann = await house.user("ann")
    room = await house.room(ann, preset="public_chat", version="11")
    graph = Graph("11")
    graph.room_id = house.room_id(room)
    for stored in house.timeline(room):
        graph.add(stored.event)
    graph.make("m.room.member", EVE, {"membership": "join"}, EVE)
    await graph.deliver(house, graph.last())
    policy = {"via": VIA, "public_keys": {"ed25519": KEY.verify_key_base64}}
    await house.set_state(ann, room, "m.room.policy", "", policy)
    house.env.policies.remote = server
    return ann, room


async def test_our_events_are_signed_by_the_policy_server_before_they_are_stored():
    """[B12.02]: our signature stays, theirs is added."""
    async with household() as house:
        server = PolicyServer(Graph("11"))
        ann, room = await our_room(house, server)
        said = await house.say(ann, room, "hello")
        assert set(said.event.json["signatures"]) == {"home.test", VIA}
        assert house.store.read(policy_of, room).approves(said.event)
        assert server.asked == ["m.room.message"]
        assert house.timeline(room)[-1].event.event_id == said.event.event_id
        await house.set_state(ann, room, "m.room.topic", "", {"topic": "tea"})
        assert server.asked[1:] == ["m.room.topic"]
        # The policy itself needs nobody's consent.
        await house.set_state(ann, room, "m.room.policy", "", {})
        await house.say(ann, room, "free")
        assert len(server.asked) == 2


async def test_a_refusal_is_given_on_and_nothing_is_stored():
    """[B12.03]"""
    async with household() as house:
        server = PolicyServer(Graph("11"))
        ann, room = await our_room(house, server)
        before = house.everything()
        with pytest.raises(MatrixError) as caught:
            await house.message(ann, room, "m.room.message", {"spam": True})
        assert (caught.value.status, caught.value.errcode) == (400, "M_FORBIDDEN")
        assert caught.value.text == "spam"
        assert house.everything() == before
        await house.say(ann, room, "ham")


@pytest.mark.parametrize("mode", ["other key", "other event", "silent"])
async def test_t135_without_a_signature_nothing_is_sent(mode, autojump_clock):
    """[B12.05]"""
    async with household() as house:
        ann, room = await our_room(house, PolicyServer(Graph("11"), mode))
        before = house.everything()
        began = trio.current_time()
        with pytest.raises((Forbidden, Unavailable)):
            await house.say(ann, room, "hello")
        assert trio.current_time() - began <= 11
        assert house.everything() == before


async def test_events_that_come_while_the_policy_server_thinks_are_no_obstacle(autojump_clock):
    """The event cites what was newest when it was made."""
    async with household() as house:
        server = PolicyServer(Graph("11"))
        ann, room = await our_room(house, server)
        slow = server.policy_signature
        graph = Graph("11")
        graph.room_id = house.room_id(room)
        for stored in house.timeline(room):
            graph.add(stored.event)
        between = graph.make("m.room.message", EVE, {"body": "meanwhile"})

        class Slow:
            async def policy_signature(self, *arguments: Any) -> Any:
                await graph.deliver(house, between)
                return await slow(*arguments)

        house.env.policies.remote = Slow()
        said = await house.say(ann, room, "hello")
        assert said.status == Status.ACCEPTED
        assert between.event_id not in said.event.prev_event_ids
        again = await house.say(ann, room, "and so on")
        assert {between.event_id, said.event.event_id} >= {*again.event.prev_event_ids}
