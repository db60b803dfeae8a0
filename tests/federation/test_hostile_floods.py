"""Too much of everything from a hostile server (T013, T014, T016, T029, T033, T067, T084)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from matrixbox.core.events import Event, parse_event
from matrixbox.core.signing import event_id_of
from tests.federation.hostile import V2, Reply, local_name
from tests.federation.pair import eventually
from tests.federation.siege import MIB, Siege, besieged
from tests.rooms.far import Graph


def chunks(found: list[Any], size: int) -> list[list[Any]]:
    return [found[at : at + size] for at in range(0, len(found), size)]


def test_t013_pages_full_of_what_nobody_may_see(siege: Siege) -> None:
    """Between two visible events lie hundreds of refused ones; paging goes on, and ends."""
    alice, graph = siege.joined("11")
    mallory, eve = siege.foe.user("mallory"), siege.foe.user("eve")
    first = graph.make("m.room.message", mallory, {"body": "first"})
    siege.foe.deliver(first)
    hidden: list[Any] = []
    for number in range(400):
        parents = [graph.last()]
        auth = graph.cited("m.room.message", eve, None, {}, graph.state_before(parents))
        pdu = graph.pdu("m.room.message", eve, {"body": f"{number}"}, None, parents, auth)
        hidden.append(graph.signed(pdu, siege.foe.name))
    for part in chunks(hidden, 50):
        assert siege.foe.send(part).status == 200
    last = graph.make("m.room.message", mallory, {"body": "last"})
    siege.foe.deliver(last)
    alice.sees(graph.room_id, last.event_id)
    seen = [event["event_id"] for event in alice.history(graph.room_id, limit=5)]
    assert seen.index(last.event_id) < seen.index(first.event_id)
    assert len(seen) == len(set(seen))
    assert not {event_id_of(graph.rules, pdu) for pdu in hidden} & set(seen)


def test_t014_hundreds_of_forks_do_not_slow_the_room(siege: Siege) -> None:
    alice, graph = siege.joined("11")
    mallory = siege.foe.user("mallory")
    quiet = max(_timed(lambda: alice.say(graph.room_id, "quiet")) for _ in range(5))
    base = graph.last()
    forks = [
        graph.make("m.room.message", mallory, {"body": f"{n}"}, prev=[base]) for n in range(300)
    ]
    for part in chunks(forks, 50):
        siege.foe.deliver(*part)
    alice.sees(graph.room_id, forks[-1].event_id)
    for _ in range(9):
        alice.say(graph.room_id, "join the branches")
    busy = _timed(lambda: alice.say(graph.room_id, "after"))
    assert busy < max(3 * quiet, 0.3), f"{busy * 1000:.0f} ms, {quiet * 1000:.0f} ms before"


def _timed(function: Any) -> float:
    started = time.monotonic()
    function()
    return time.monotonic() - started


def test_t016_a_join_into_a_room_with_a_long_auth_chain(siege: Siege) -> None:
    """Power levels changed 2,000 times: the chain is walked, memory stays bounded."""
    before = siege.memory()
    graph = siege.foe.room("11")
    levels = graph.events[graph.after[graph.last().event_id]["m.room.power_levels", ""]].content
    for number in range(2_000):
        content = {**levels, "notifications": {"room": number % 100}}
        _append(graph, "m.room.power_levels", graph.creator, content, "")
    alice = siege.side.person("alice")
    alice.request("POST", f"/join/{graph.room_id}?server_name={siege.foe.name}", {})
    alice.say(graph.room_id, "here")
    assert siege.memory() - before < 64 * MIB


def _append(graph: Graph, kind: str, sender: str, content: Any, key: str) -> Event:
    """An allowed state event at the end; the graph takes it without judging it."""
    last = graph.last()
    state = graph.after[last.event_id]
    auth = graph.cited(kind, sender, key, content, state)
    pdu = graph.signed(graph.pdu(kind, sender, content, key, [last], auth), sender.split(":", 1)[1])
    event = parse_event(graph.rules, pdu)
    graph.events[event.event_id] = event
    graph.before[event.event_id] = state
    graph.after[event.event_id] = {**state, (kind, key): event.event_id}
    return event


def test_t033_a_flood_of_invitations_ends(tmp_path: Path) -> None:
    """At most 20 from one server in an hour; the invited person's sync stays small."""
    limits = {"rate_limits": True, "password_hash_cost": "lowest"}
    replies: list[Reply] = []
    with besieged(tmp_path, limits=limits) as siege, siege.survived():
        foe, alice = siege.foe, siege.home
        for _ in range(40):
            graph = foe.room("11", join_rule="invite")
            parents = [graph.last()]
            content = {"membership": "invite"}
            user = alice.user_id
            auth = graph.cited(
                "m.room.member", graph.creator, user, content, graph.state_before(parents)
            )
            pdu = graph.pdu("m.room.member", graph.creator, content, user, parents, auth)
            pdu = graph.signed(pdu, foe.name)
            where = f"{local_name(graph.room_id)}/{local_name(event_id_of(graph.rules, pdu))}"
            body = {"room_version": "11", "event": pdu, "invite_room_state": []}
            replies.append(foe.request("PUT", f"{V2}/invite/{where}", body))
        statuses = [reply.status for reply in replies]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) <= 20
        assert len(alice.sync()["rooms"]["invite"]) == statuses.count(200)


def test_t067_replayed_requests_change_nothing(siege: Siege) -> None:
    alice, graph = siege.joined("11")
    mallory = siege.foe.user("mallory")
    topics = [graph.make("m.room.topic", mallory, {"topic": f"{n}"}, "") for n in range(3)]
    for number, topic in enumerate(topics):
        siege.foe.send([dict(topic.json)], txn=f"replay{number}{graph.room_id[1:8]}")
    alice.sees(graph.room_id, topics[-1].event_id)
    state = alice.state(graph.room_id)
    since = alice.sync()["next_batch"]
    for number, topic in reversed(list(enumerate(topics))):
        siege.foe.send([dict(topic.json)], txn=f"replay{number}{graph.room_id[1:8]}")
        siege.foe.send([dict(topic.json)])
    assert alice.state(graph.room_id) == state
    assert "rooms" not in alice.sync(since)


@pytest.mark.parametrize("kind", ["typing", "receipt", "presence"])
def test_t084_floods_of_edus(siege: Siege, kind: str) -> None:
    alice, graph = siege.joined("11")
    mallory = siege.foe.user("mallory")
    said = graph.make("m.room.message", mallory, {"body": "x"})
    siege.foe.deliver(said)
    room = graph.room_id

    def edu(number: int) -> dict[str, Any]:
        content: dict[str, Any] = {
            "typing": {"room_id": room, "user_id": mallory, "typing": number % 2 == 0},
            "receipt": {
                room: {"m.read": {mallory: {"data": {"ts": number}, "event_ids": [said.event_id]}}}
            },
            "presence": {
                "push": [{"user_id": mallory, "presence": "online", "status_msg": f"{number}"}]
            },
        }[kind]
        return {"edu_type": f"m.{kind}", "content": content}

    worst = 0.0
    for _ in range(40):
        assert siege.foe.send(edus=[edu(number) for number in range(100)]).status == 200
        worst = max(worst, _timed(lambda: siege.home.say(siege.home_room, "meanwhile")))
    assert worst < 0.5
    eventually(lambda: alice.sync(), "alice syncs")


def test_t029_a_room_that_costs_too_much_leaves_others_alone(siege: Siege) -> None:
    """Many conflicting power events on many branches; another room is answered at once."""
    _, graph = siege.joined("11", users={siege.foe.user("mallory"): 100})
    mallory = siege.foe.user("mallory")
    base = graph.last()
    state = graph.after[base.event_id]
    power = graph.events[state["m.room.power_levels", ""]].content
    tips: list[Event] = []
    for branch in range(20):
        tip = base
        for number in range(15):
            content = {**power, "notifications": {"room": branch * 100 + number}}
            auth = graph.cited(
                "m.room.power_levels", mallory, "", content, graph.after[tip.event_id]
            )
            pdu = graph.pdu("m.room.power_levels", mallory, content, "", [tip], auth)
            event = parse_event(graph.rules, graph.signed(pdu, siege.foe.name))
            graph.events[event.event_id] = event
            graph.before[event.event_id] = graph.after[tip.event_id]
            key = ("m.room.power_levels", "")
            graph.after[event.event_id] = {**graph.after[tip.event_id], key: event.event_id}
            tip = event
        tips.append(tip)
    bomb = [event for event in graph.events.values() if event.depth > base.depth]
    worst = 0.0
    for part in chunks(bomb, 50):
        siege.foe.deliver(*part)
        worst = max(worst, _timed(lambda: siege.home.say(siege.home_room, "meanwhile")))
    assert worst < 0.3, f"{worst * 1000:.0f} ms"
