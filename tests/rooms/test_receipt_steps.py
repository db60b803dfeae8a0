"""The checks on receipt as steps with outcomes, and what must not happen on the way.

[B6.01] to [B6.14]; T001, T004, T005, T006, T009, T011, T012, T017, T018, T022, T027, T029, T037,
T043, T044, T046.  The other servers are scripted (`far_remote`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from matrixbox.core.events import Event, parse_event
from matrixbox.core.identifiers import RoomId, ServerName
from matrixbox.core.redaction import redacted
from matrixbox.core.signing import event_id_of
from matrixbox.errors import NotFound
from matrixbox.household import parked as parked_rooms
from matrixbox.rooms import ingest, letting_in, receipt
from matrixbox.rooms.letting_in import Lack, Outcome, Verdict
from matrixbox.rooms.receipt import Dropped
from matrixbox.rooms.remote import State, StateIds
from matrixbox.store import inbound, rooms
from matrixbox.store.events import Status
from tests.rooms.far import CREATOR, Graph
from tests.rooms.far_remote import FAR, Far, far_household

ANN, BOB, EVE = "@ann:home.test", "@bob:one.test", "@eve:two.test"


def room_with(version: str = "11", **levels: Any) -> Graph:
    """A room of far.test with our Ann and Bob of one.test."""
    graph = Graph(version)
    graph.begin(ANN, BOB, EVE, **levels)
    graph.beginning = len(graph.events)
    return graph


async def begun(far: Far, graph: Graph) -> Any:
    """The household has the room's beginning; the room's number."""
    await graph.deliver(far.house, *list(graph.events.values())[: graph.beginning])
    return graph.room_in(far.house)


def changed(event: Event, **fields: Any) -> dict[str, Any]:
    """A copy of a PDU with other fields, its hashes and signatures as they were."""
    copy: dict[str, Any] = json.loads(json.dumps(event.json))
    for key, value in fields.items():
        copy[key] = value
    return copy


def names_of(graph: Graph, pdu: Mapping[str, Any]) -> str:
    return event_id_of(graph.rules, pdu)


def rows(far: Far) -> int:
    """How many events are stored."""
    return far.house.store.read(lambda tx: tx.one("SELECT count(*) FROM event")[0])


# --- the seven steps


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_step_1_drops_what_has_not_the_format(version, autojump_clock):
    """[B6.01], T001, T004: dropped, and nothing asked or stored for it."""
    graph = room_with(version)
    async with far_household(graph) as far:
        await begun(far, graph)
        good = graph.make("m.room.message", BOB, {"body": "x"})
        before = rows(far)
        for wrong in (
            changed(good, depth=-1),
            changed(good, depth="5"),
            changed(good, prev_events="none"),
            changed(good, content={"body": "x" * 70_000}),
            changed(good, sender=7),
        ):
            [outcome] = (await far.receive(graph, wrong)).values()
            assert (outcome.verdict, outcome.step) == (Verdict.DROPPED, 1)
        assert rows(far) == before
        assert far.verifier.asked == 0
        assert not far.remote.calls
        assert far.house.store.read(inbound.rooms_due, 2**60) == []


async def test_step_2_drops_what_is_not_signed_by_the_right_servers(autojump_clock):
    """[B6.02], T044: no signature, a broken one, one of the relay."""
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        good = graph.make("m.room.message", BOB, {"body": "x"})
        pdu = {key: value for key, value in good.json.items() if key != "signatures"}
        relayed = graph.signed(pdu, "far.test")
        broken = {**pdu, "signatures": {"one.test": {"ed25519:far": "A" * 86}}}
        for wrong in ({**pdu, "signatures": {}}, broken, relayed):
            [outcome] = (await far.receive(graph, wrong)).values()
            assert (outcome.verdict, outcome.step) == (Verdict.DROPPED, 2)
        assert far.house.stored(good.event_id) is None
        # None of this says anything about the event itself.
        [outcome] = (await far.receive(graph, good)).values()
        assert outcome.verdict is Verdict.ACCEPTED


async def test_t046_step_3_takes_a_spoiled_event_without_its_content(autojump_clock):
    """[B6.03]; the true one comes later, from its maker, and is taken."""
    graph = room_with()
    async with far_household(graph) as far:
        room = await begun(far, graph)
        topic = graph.make("m.room.topic", CREATOR, {"topic": "tea"}, "")
        spoiled = changed(topic, content={"topic": "poison"})
        assert names_of(graph, spoiled) == topic.event_id
        [outcome] = (await far.receive(graph, spoiled, by="two.test")).values()
        assert outcome.verdict is Verdict.ACCEPTED
        assert far.house.content(room, "m.room.topic") == {}
        await far.receive(graph, topic)
        assert far.house.content(room, "m.room.topic") == {"topic": "tea"}
        await far.receive(graph, spoiled, by="two.test")
        assert far.house.content(room, "m.room.topic") == {"topic": "tea"}


async def test_steps_4_to_6_reject_and_soft_fail(autojump_clock):
    """[B6.04] to [B6.06], T012: three outcomes, kept apart."""
    graph = room_with()
    async with far_household(graph) as far:
        room = await begun(far, graph)
        tip = graph.last()
        by_auth = graph.make("m.room.topic", BOB, {"topic": "mine"}, "")
        ban = graph.make("m.room.member", CREATOR, {"membership": "ban"}, EVE)
        old = graph.cited("m.room.message", EVE, None, {}, graph.before[ban.event_id])
        by_state = graph.make("m.room.message", EVE, {}, auth=old)
        late = graph.make("m.room.message", EVE, {"body": "psst"}, prev=[tip])
        outcomes = await far.receive(graph, by_auth, ban, by_state, late)
        found = [
            (outcomes[one.event_id].verdict, outcomes[one.event_id].step)
            for one in (by_auth, ban, by_state, late)
        ]
        assert found == [
            (Verdict.REJECTED, 4),
            (Verdict.ACCEPTED, None),
            (Verdict.REJECTED, 5),
            (Verdict.SOFT_FAILED, 6),
        ]
        shown = {one.event.event_id for one in far.house.timeline(room)}
        assert ban.event_id in shown
        assert not shown & {by_auth.event_id, by_state.event_id, late.event_id}
        head = far.house.store.read(rooms.head, room)
        assert [far.house.stored(ban.event_id).nid] == list(head.extremities)
        # Again: the same answers, and nothing happens.
        everything = far.house.everything()
        assert await far.receive(graph, by_auth, ban, by_state, late) == outcomes
        assert far.house.everything() == everything


async def test_t011_children_of_rejected_events_are_judged_on_their_own(autojump_clock):
    """[B6.08]"""
    graph = room_with()
    async with far_household(graph) as far:
        room = await begun(far, graph)
        bad = graph.make("m.room.topic", BOB, {"topic": "mine"}, "")
        child = graph.make("m.room.message", CREATOR, {"body": "hm"})
        assert child.prev_event_ids == (bad.event_id,)
        outcomes = await far.receive(graph, bad, child)
        assert outcomes[bad.event_id].verdict is Verdict.REJECTED
        assert outcomes[child.event_id].verdict is Verdict.ACCEPTED
        assert ("m.room.topic", "") not in far.house.state(room)
        head = far.house.store.read(rooms.head, room)
        assert head.extremities == (far.house.stored(child.event_id).nid,)


# --- one bad PDU harms only itself


async def test_t009_an_event_that_raises_anywhere_harms_no_other(monkeypatch, autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        made = [graph.make("m.room.message", BOB, {"n": n}) for n in range(45)]
        poison = graph.make("x.poison", EVE, {}, prev=[made[20]])
        original = ingest.receive

        def fragile(tx: Any, env: Any, candidate: Any, **more: Any) -> Any:
            if candidate.event.type == "x.poison":
                raise ZeroDivisionError
            return original(tx, env, candidate, **more)

        monkeypatch.setattr("matrixbox.rooms.letting_in.ingest.receive", fragile)
        outcomes = await far.receive(graph, *made[:30], poison, *made[30:])
        assert {outcomes[one.event_id].verdict for one in made} == {Verdict.ACCEPTED}
        assert outcomes[poison.event_id].verdict is Verdict.DROPPED
        assert far.house.stored(poison.event_id) is None
        for one in made:
            assert far.house.stored(one.event_id).status == Status.ACCEPTED


# --- rooms and servers


async def test_t017_nothing_is_taken_for_rooms_that_we_are_not_in(autojump_clock):
    """[B6.13]: unknown rooms, and rooms that the last of our users left."""
    graph, other = room_with(), Graph("11", "elsewhere")
    other.begin(BOB)
    async with far_household(graph, other) as far:
        room = await begun(far, graph)
        assert await far.receive(other, *other.events.values()) == {}
        left = graph.make("m.room.member", ANN, {"membership": "leave"}, ANN)
        await far.receive(graph, left)
        assert far.house.membership(room, ANN) == "leave"
        later = graph.make("m.room.message", BOB, {"body": "bye"})
        gap = graph.make("m.room.message", BOB, {"body": "bye bye"})
        rejoin = graph.make("m.room.member", ANN, {"membership": "join"}, ANN)
        before = far.house.everything()
        for one in (later, gap, rejoin):
            [outcome] = (await far.receive(graph, one)).values()
            assert outcome.verdict is Verdict.DROPPED
        await far.receiver.settled()
        assert far.house.everything() == before
        assert not far.remote.calls


async def test_t005_events_of_another_room_are_dropped(autojump_clock):
    graph, other = room_with(), Graph("11", "elsewhere")
    other.begin(ANN, BOB)
    async with far_household(graph, other) as far:
        await begun(far, graph)
        await other.deliver_all(far.house)
        stray = other.make("m.room.message", BOB, {})
        outcomes = await far.receiver.receive(FAR, graph.room_id, [stray.json])
        assert outcomes[stray.event_id].step == 1
        # An auth event of another room rejects (auth rule 3.5).
        foreign = next(e for e in other.events.values() if e.state_key == BOB)
        state = graph.after[graph.last().event_id]
        auth = graph.cited("m.room.message", BOB, None, {}, state)
        mixed = [one for one in auth if one.state_key != BOB]
        event = graph.signed(
            graph.pdu("m.room.message", BOB, {}, None, [graph.last()], [*mixed, foreign]),
            "one.test",
        )
        [outcome] = (await far.receive(graph, event)).values()
        assert (outcome.verdict, outcome.step) == (Verdict.REJECTED, 4)


async def test_t037_the_access_control_list_counts_for_each_pdu(autojump_clock):
    """By the server that sends it, and by that of its sender, whoever passes it on."""
    graph = room_with()
    acl = {"allow": ["*"], "deny": ["TWO.test"]}
    graph.make("m.room.server_acl", CREATOR, acl, "")
    graph.beginning += 1
    async with far_household(graph) as far:
        await begun(far, graph)
        bobs = graph.make("m.room.message", BOB, {})
        eves = graph.make("m.room.message", EVE, {}, prev=[bobs])
        outcomes = await far.receive(graph, bobs, eves)
        assert outcomes[bobs.event_id].verdict is Verdict.ACCEPTED
        assert outcomes[eves.event_id].verdict is Verdict.DROPPED
        assert far.house.stored(eves.event_id) is None
        third = graph.make("m.room.message", BOB, {}, prev=[bobs])
        for by in ("two.test", "two.test:8448", "Two.Test"):
            [outcome] = (await far.receive(graph, third, by=by)).values()
            assert outcome.verdict is Verdict.DROPPED


# --- unknown is not rejected


async def test_t027_without_keys_an_event_waits_and_is_taken_later(autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        room = await begun(far, graph)
        far.verifier.lost.add("one.test")
        event = graph.make("m.room.message", BOB, {"body": "hello"})
        [outcome] = (await far.receive(graph, event)).values()
        assert outcome == Outcome(Verdict.WAITING, lack=Lack.KEYS)
        await far.receiver.settled()
        assert far.house.stored(event.event_id) is None
        far.verifier.lost.clear()
        await wait_for(far, event)
        assert far.house.timeline(room)[-1].event.event_id == event.event_id
        assert far.house.store.read(inbound.rooms_due, 2**60) == []


async def test_t027_a_verifier_that_says_nothing_holds_nobody_up(autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        far.verifier.never = True
        event = graph.make("m.room.message", BOB, {})
        [outcome] = (await far.receive(graph, event)).values()
        assert outcome.lack is Lack.KEYS
        far.verifier.never = False
        await wait_for(far, event)


async def wait_for(far: Far, *wanted: Event, within_s: float = 3_600) -> None:
    """Let time go by until events are in their room."""
    import trio

    with trio.fail_after(within_s):
        while any(
            (stored := far.house.stored(one.event_id)) is None or stored.snapshot is None
            for one in wanted
        ):
            await trio.sleep(1)
    await far.receiver.settled()


@pytest.mark.parametrize("call", ["event_auth", "down"])
async def test_t027_a_missing_auth_event_is_fetched_or_waited_for(call, autojump_clock):
    """Its absence is never taken for a failed check ([B6.12])."""
    graph = room_with()
    async with far_household(graph) as far:
        room = await begun(far, graph)
        tip = graph.last()
        power = {"users": {CREATOR: 100, BOB: 50}, "events": {"x": 1}}
        levels = graph.make("m.room.power_levels", CREATOR, power, "")
        # On another branch, by a server that cites what we have not seen.
        state = graph.after[levels.event_id]
        auth = graph.cited("m.room.message", BOB, None, {}, state)
        event = graph.make("m.room.message", BOB, {}, prev=[tip], auth=auth)
        if call == "down":
            far.remote.down |= {"far.test", "one.test", "two.test"}
        [outcome] = (await far.receive(graph, event)).values()
        assert outcome.lack is Lack.AUTH_EVENTS
        await far.receiver.settled()
        if call == "down":
            assert far.house.stored(event.event_id) is None
            far.remote.down.clear()
        await wait_for(far, event)
        assert far.house.stored(event.event_id).status == Status.ACCEPTED
        assert far.house.stored(levels.event_id).status & Status.OUTLIER
        assert far.house.content(room, "m.room.power_levels") != power
        # The auth event comes by itself: it gets its place.
        await far.receive(graph, levels)
        assert far.house.content(room, "m.room.power_levels") == power


async def test_t027_negative_control_unknown_taken_for_rejected_is_found_out(
    monkeypatch, autojump_clock
):
    """With the distinction taken away, the test above fails."""

    def wrong(event: Event, signed: Any) -> Any:
        from matrixbox.rooms.remote import Signed

        if signed is not Signed.VALID:
            return Dropped(2, "no good signature", event.event_id)
        return receipt.hashed(event)

    monkeypatch.setattr(receipt, "_verdict", wrong)
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        far.verifier.lost.add("one.test")
        event = graph.make("m.room.message", BOB, {"body": "hello"})
        [outcome] = (await far.receive(graph, event)).values()
        assert outcome.verdict is Verdict.DROPPED
        far.verifier.lost.clear()
        import trio

        with pytest.raises(trio.TooSlowError):
            await wait_for(far, event, within_s=600)


async def test_t027_negative_control_a_missing_auth_event_taken_for_a_failure(
    monkeypatch, autojump_clock
):
    original = letting_in._candidate

    def wrong(tx: Any, place: Any, arrival: Any) -> Any:
        found = original(tx, place, arrival)
        if found is Lack.AUTH_EVENTS:
            from matrixbox.rooms.commit import Candidate
            from matrixbox.store import events

            event = arrival.checked.event
            prev = [events.by_id(tx, one) for one in event.prev_event_ids]
            auth = [events.by_id(tx, one) for one in event.auth_event_ids]
            here = [one for one in auth if one is not None]
            return Candidate(event, place.room, place.rules, prev, here)
        return found

    monkeypatch.setattr(letting_in, "_candidate", wrong)
    with pytest.raises(BaseExceptionGroup) as caught:
        await _missing_auth_event_is_fetched()
    assert isinstance(_leaf(caught.value), AssertionError)


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        [error] = error.exceptions
    return error


async def _missing_auth_event_is_fetched() -> None:
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        tip = graph.last()
        renamed = {"membership": "join", "displayname": "Bob"}
        member = graph.make("m.room.member", BOB, renamed, BOB)
        auth = graph.cited("m.room.message", BOB, None, {}, graph.after[member.event_id])
        event = graph.make("m.room.message", BOB, {}, prev=[tip], auth=auth)
        await far.receive(graph, event)
        await far.receiver.settled()
        assert far.house.stored(event.event_id).status == Status.ACCEPTED


async def test_t027_a_missing_membership_is_fetched(autojump_clock):
    await _missing_auth_event_is_fetched()


# --- by side doors


@pytest.mark.parametrize("call", ["missing_events", "event", "state", "event_auth"])
async def test_t043_a_corrupted_signature_is_dropped_in_each_kind_of_answer(call, autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        tip = graph.last()
        many = 70 if call == "state" else 5
        names = [graph.make("x.many", CREATOR, {"n": n}, str(n)) for n in range(many)]
        levels = graph.make("m.room.power_levels", CREATOR, {"users": {CREATOR: 100}}, "")
        last = graph.make("m.room.message", CREATOR, {"body": "hi"})
        victim = levels if call in ("missing_events", "event_auth") else names[3]

        def corrupt(pdu: Any) -> Any:
            if names_of(graph, pdu) != victim.event_id:
                return pdu
            return {**pdu, "signatures": {"far.test": {"ed25519:far": "B" * 86}}}

        def lie(honest: Any, *_: Any) -> Any:
            if isinstance(honest, State):
                return State(
                    tuple(map(corrupt, honest.state)), tuple(map(corrupt, honest.auth_chain))
                )
            return corrupt(honest) if isinstance(honest, Mapping) else [*map(corrupt, honest)]

        far.remote.lies[call] = lie
        if call != "missing_events":
            far.remote.lies["missing_events"] = lambda honest, *_: []
        if call == "event_auth":
            last = graph.make(
                "m.room.message",
                CREATOR,
                {},
                prev=[tip],
                auth=graph.cited("m.room.message", CREATOR, None, {}, graph.after[last.event_id]),
            )
            far.remote.withheld.add(levels.event_id)
            far.remote.lies["event_auth"] = lambda honest, *_: [corrupt(levels.json)]
        await far.receive(graph, last)
        await far.later()
        assert far.remote.calls[call] >= 1
        stored = far.house.stored(victim.event_id)
        assert stored is None or call == "missing_events"
        if stored is not None:  # it came whole by another way
            assert "A" * 10 not in json.dumps(stored.event.json["signatures"])
        assert far.house.stored(tip.event_id) is not None


async def test_t006_an_answer_with_another_event_is_discarded(autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        await begun(far, graph)
        hidden = graph.make("m.room.message", BOB, {"body": "a"})
        other = graph.make("m.room.message", BOB, {"body": "b"})
        last = graph.make("m.room.message", BOB, {"body": "c"}, prev=[hidden])
        far.remote.lies["missing_events"] = lambda honest, *_: []
        far.remote.lies["event"] = lambda honest, *_: other.json
        await far.receive(graph, last)
        await far.later()
        assert far.house.stored(other.event_id) is None
        assert far.house.stored(hidden.event_id) is None
        # Its parent could not be had: the state before itself was taken.
        assert far.house.stored(last.event_id).status == Status.HEARSAY


@pytest.mark.parametrize("lie", ["none", "two", "other room"])
async def test_t022_a_state_without_the_rooms_create_event_is_refused_whole(lie, autojump_clock):
    graph, other = room_with("10"), Graph("10", "elsewhere")
    other.begin()
    pdu = graph.pdu("m.room.create", EVE, {"creator": EVE, "room_version": "10"}, "", (), ())
    pdu["room_id"] = "!room:far.test"
    second = parse_event(graph.rules, graph.signed(pdu, "two.test"))
    async with far_household(graph, other) as far:
        await begun(far, graph)
        create = next(iter(graph.events))
        for _ in range(2):
            graph.make("m.room.message", BOB, {})
        last = graph.make("m.room.message", BOB, {"body": "hi"})
        far.remote.lies["missing_events"] = lambda honest, *_: []
        rest = [one for one in graph.before[last.event_id].values() if one != create]

        def state_ids(honest: Any, *_: Any) -> StateIds:
            first = {"none": [], "two": [create, second.event_id], "other room": list(other.events)}
            return StateIds((*first[lie], *rest), honest.auth_chain)

        graph.events[second.event_id] = second  # so that it can be asked for
        far.remote.lies["state_ids"] = state_ids
        await far.receive(graph, last)
        await far.later()
        room = graph.room_in(far.house)
        assert far.house.state(room)["m.room.create", ""].event.event_id == create
        if lie == "two":  # a create event that is rejected counts for nothing
            assert far.house.stored(last.event_id).status == Status.HEARSAY
        else:
            assert far.house.stored(last.event_id) is None


async def test_t011_rejected_events_in_a_told_state_do_not_enter(autojump_clock):
    graph = room_with()
    async with far_household(graph) as far:
        room = await begun(far, graph)
        tip = graph.last()
        bad = graph.make("m.room.topic", EVE, {"topic": "mine"}, "")
        assert bad.event_id in graph.rejected
        first = graph.make("m.room.message", BOB, {}, prev=[tip])
        hidden = graph.make("m.room.message", BOB, {}, prev=[first])
        last = graph.make("m.room.message", BOB, {"body": "hi"}, prev=[hidden])
        far.remote.lies["missing_events"] = lambda honest, *_: []
        far.remote.lies["state_ids"] = lambda honest, *_: StateIds(
            (*honest.state, bad.event_id), (*honest.auth_chain, *bad.auth_event_ids)
        )
        await far.receive(graph, last)
        await far.later()
        assert far.house.stored(last.event_id).status == Status.HEARSAY
        assert Status(far.house.stored(bad.event_id).status) & Status.REJECTED
        assert ("m.room.topic", "") not in far.house.state(room)


async def test_t018_pdus_of_a_room_are_read_by_the_version_it_is_known_by(autojump_clock):
    """Redacting the create event, which loses its version, changes nothing."""
    graph = room_with("9")
    create = next(iter(graph.events.values()))
    async with far_household(graph) as far:
        room = await begun(far, graph)
        redaction = graph.make("m.room.redaction", CREATOR, {}, redacts=create.event_id)
        await far.receive(graph, redaction)
        assert far.house.stored(create.event_id).event.json == redacted(create).json
        assert far.house.store.read(rooms.rules, room).version == "9"
        event = graph.make("m.room.message", BOB, {})
        [outcome] = (await far.receive(graph, event)).values()
        assert outcome.verdict is Verdict.ACCEPTED


# --- a room that costs too much


async def test_t029_a_room_that_costs_too_much_is_parked_and_no_other(monkeypatch, autojump_clock):
    graph, other = room_with(), Graph("11", "elsewhere")
    other.begin(ANN, BOB)
    monkeypatch.setattr("matrixbox.rooms.state.MAX_INLINE_EVENTS", 0)
    monkeypatch.setattr("matrixbox.rooms.resolution.MAX_EVENTS", 3)
    async with far_household(graph, other) as far:
        room = await begun(far, graph)
        await other.deliver_all(far.house)
        tip = graph.last()
        one = graph.make("m.room.topic", CREATOR, {"topic": "a"}, "", prev=[tip])
        two = graph.make("m.room.topic", CREATOR, {"topic": "b"}, "", prev=[tip])
        outcomes = await far.receive(graph, one, two)
        assert outcomes[one.event_id].verdict is Verdict.ACCEPTED
        assert outcomes[two.event_id].verdict is Verdict.DROPPED
        [(parked, _, _)] = far.house.store.read(inbound.parked_rooms)
        assert parked == room
        later = graph.make("m.room.message", CREATOR, {}, prev=[one])
        [outcome] = (await far.receive(graph, later)).values()
        assert outcome.verdict is Verdict.DROPPED
        assert far.house.content(room, "m.room.topic") == {"topic": "a"}
        elsewhere = other.make("m.room.message", BOB, {})
        [outcome] = (await far.receive(other, elsewhere)).values()
        assert outcome.verdict is Verdict.ACCEPTED
        functions = parked_rooms.functions(far.house.store)
        [shown] = await functions["room.parked"]({})
        assert (shown["room_id"], shown["name"]) == (graph.room_id, None)
        assert "costs too much" in shown["reason"]
        # Somebody has it tried again, with more memory or a later release.
        monkeypatch.setattr("matrixbox.rooms.resolution.MAX_EVENTS", 1_000)
        assert await functions["room.retry"]({"room_id": graph.room_id}) == graph.room_id
        with pytest.raises(NotFound):
            await functions["room.retry"]({"room_id": graph.room_id})
        assert await functions["room.parked"]({}) == []
        outcomes = await far.receive(graph, two, later)
        assert {found.verdict for found in outcomes.values()} == {Verdict.ACCEPTED}


async def test_names_of_rooms_that_nobody_knows_are_passed_over(autojump_clock):
    """[B5.04]: a PDU without a room version has no name."""
    graph = room_with()
    async with far_household(graph) as far:
        found = await far.receiver.receive(
            ServerName("far.test"), RoomId("!nowhere:far.test"), [graph.last().json]
        )
        assert found == {}
