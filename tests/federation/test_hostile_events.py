"""Events that a hostile server sends into rooms (groups A, C and D)."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from matrixbox.core.events import MAX_DEPTH, Event, parse_event
from matrixbox.core.json import encode_canonical
from matrixbox.core.signing import event_id_of
from tests.federation.hostile import V1, Foe, local_name
from tests.federation.pair import Person, eventually
from tests.federation.siege import Siege
from tests.rooms.far import Graph

ENOUGH_S = 1.0  # for something that must not happen to happen


def never(person: Person, room: str, event_id: str) -> None:
    """The event is not shown, now or a moment later."""
    time.sleep(0.2)
    assert person.event(room, event_id) is None


def message(graph: Graph, sender: str, body: str = "hello", **fields: Any) -> Event:
    return graph.make("m.room.message", sender, {"msgtype": "m.text", "body": body}, **fields)


def forged(graph: Graph, foe: Foe, kind: str, key: str | None, content: Any, **fields: Any) -> Any:
    """A signed PDU at the end of the graph that the graph itself does not know."""
    sender = fields.pop("sender", foe.user("mallory"))
    parents = [graph.last()]
    auth = graph.cited(kind, sender, key, content, graph.state_before(parents))
    pdu = graph.pdu(kind, sender, content, key, parents, auth, **fields)
    return graph.signed(pdu, foe.name)


def test_t009_one_bad_event_harms_only_itself(siege: Siege) -> None:
    alice, graph = siege.joined("12")
    mallory = siege.foe.user("mallory")
    good = [message(graph, mallory, f"number {number}") for number in range(49)]
    pdus: list[Any] = [dict(event.json) for event in good]
    bad: list[Any] = [
        {**pdus[0], "signatures": {siege.foe.name: {siege.foe.key.key_id: "!"}}},
        {"content": {}},
        {},
        {**pdus[0], "content": {"a": {"b": [{}] * 100}}},
        {**pdus[0], "prev_events": "all of them"},
        {**pdus[0], "room_id": 7},
        {**pdus[0], "type": ["m.room.message"]},
    ]
    for each in bad:
        reply = siege.foe.send([*pdus[:20], each, *pdus[20:]])
        assert reply.status == 200, (each, reply)
        verdicts = reply.body["pdus"]
        assert all(verdicts[event.event_id] == {} for event in good)
    for event in (good[0], good[20], good[48]):
        alice.sees(graph.room_id, event.event_id)


def test_t010_a_repeated_transaction_changes_nothing(siege: Siege) -> None:
    alice, graph = siege.joined("12")
    said = message(graph, siege.foe.user("mallory"))
    first = siege.foe.send([dict(said.json)], txn="again")
    alice.sees(graph.room_id, said.event_id)
    other = message(graph, siege.foe.user("mallory"), "other")
    assert siege.foe.send([dict(said.json)], txn="again") == first
    assert siege.foe.send([dict(other.json)], txn="again") == first
    never(alice, graph.room_id, other.event_id)


@pytest.mark.parametrize("size", [65_536, 65_537])
def test_t001_the_size_of_events(siege: Siege, size: int) -> None:
    alice, graph = siege.joined("12")
    pdu = forged(graph, siege.foe, "m.room.message", None, {"body": ""})
    filler = "é" * ((size - len(encode_canonical(pdu))) // 2)
    filler += "x" * ((size - len(encode_canonical(pdu))) % 2)
    pdu = forged(
        graph,
        siege.foe,
        "m.room.message",
        None,
        {"body": filler},
        origin_server_ts=pdu["origin_server_ts"],
    )
    assert len(encode_canonical(pdu)) == size
    after = message(graph, siege.foe.user("mallory"), "after")
    reply = siege.foe.send([pdu, dict(after.json)])
    assert reply.status == 200
    event_id = event_id_of(graph.rules, pdu)
    alice.sees(graph.room_id, after.event_id)
    if size == 65_536:
        alice.sees(graph.room_id, event_id)
    else:
        assert "error" in reply.body["pdus"].get(event_id, {"error": ""})
        never(alice, graph.room_id, event_id)


def test_t003_ten_thousand_parents_cause_no_request(siege: Siege) -> None:
    alice, graph = siege.joined("12")
    parents = [f"${number:043}" for number in range(10_000)]
    for field, ids in (("prev_events", parents[:1_000]), ("auth_events", parents[:11])):
        pdu = forged(graph, siege.foe, "m.room.message", None, {"body": "x"}, **{field: ids})
        siege.foe.asked.clear()
        assert siege.foe.send([pdu]).status == 200
        never(alice, graph.room_id, event_id_of(graph.rules, pdu))
        assert [each for each in siege.foe.asked if "/send/" not in each.path] == []


@pytest.mark.parametrize("depth", [2**63 - 1, MAX_DEPTH + 1, -1, "5", 5.0, True, None])
def test_t004_impossible_depths(siege: Siege, depth: Any) -> None:
    alice, graph = siege.joined("12")
    pdu = forged(graph, siege.foe, "m.room.message", None, {"body": "x"})
    pdu = {**pdu, "depth": depth}
    assert siege.foe.send([pdu]).status in (200, 400)
    said = alice.say(graph.room_id, "fine")
    assert alice.event(graph.room_id, said)


def test_t004_the_greatest_depth_is_clamped(siege: Siege) -> None:
    alice, graph = siege.joined("12")
    deep = message(graph, siege.foe.user("mallory"), depth=MAX_DEPTH)
    siege.foe.deliver(deep)
    alice.sees(graph.room_id, deep.event_id)
    said = alice.say(graph.room_id, "fine")
    sent = eventually(
        lambda: next(
            (
                pdu
                for asked in siege.foe.asked_for("/send/")
                for pdu in asked.body["pdus"]
                if event_id_of(graph.rules, pdu) == said
            ),
            None,
        ),
        "our event arrives",
    )
    assert sent["depth"] == MAX_DEPTH
    assert deep.event_id in sent["prev_events"]


def test_t005_an_event_that_cites_another_room(siege: Siege) -> None:
    alice, graph = siege.joined("11")
    _, other = siege.joined("11")
    mallory = siege.foe.user("mallory")
    auth = other.cited("m.room.message", mallory, None, {}, other.after[other.last().event_id])
    pdu = graph.pdu("m.room.message", mallory, {"body": "x"}, None, [graph.last()], auth)
    pdu = graph.signed(pdu, siege.foe.name)
    assert siege.foe.send([pdu]).status == 200
    never(alice, graph.room_id, event_id_of(graph.rules, pdu))
    assert alice.event(other.room_id, event_id_of(graph.rules, pdu)) is None


def test_t008_unsigned_is_not_trusted(siege: Siege) -> None:
    alice, graph = siege.joined("12")
    said = message(graph, siege.foe.user("mallory"))
    unsigned = {
        "age": 10**60,
        "redacted_because": {"content": {"reason": "none"}},
        "prev_content": {"body": "planted"},
        "membership": "ban",
        "m.relations": {"m.thread": {"count": 7}},
        "transaction_id": "planted",
    }
    plain = message(graph, siege.foe.user("mallory"), "second")
    reply = siege.foe.send(
        [{**said.json, "unsigned": unsigned}, {**plain.json, "unsigned": ["planted"]}]
    )
    assert reply.status == 200, reply
    for event in (said, plain):
        alice.sees(graph.room_id, event.event_id)
        shown = alice.event(graph.room_id, event.event_id)
        assert shown is not None
        assert set(shown.get("unsigned", {})) <= {"age", "membership"}
        assert shown.get("unsigned", {}).get("membership") in (None, "join")
        assert "planted" not in repr(shown)
    assert alice.sync()["next_batch"]


def test_t017_events_of_rooms_that_nobody_here_is_in(siege: Siege) -> None:
    graph = siege.foe.room("12")
    said = message(graph, siege.foe.user("mallory"))
    siege.foe.asked.clear()
    reply = siege.foe.send([dict(event.json) for event in graph.events.values()])
    assert reply.status == 200
    alice, left = siege.joined("12")
    alice.leave(left.room_id)
    eventually(lambda: alice.section("join", left.room_id) is None, "alice has left")
    late = message(left, siege.foe.user("mallory"), "come back")
    siege.foe.asked.clear()
    assert siege.foe.send([dict(late.json)]).status == 200
    time.sleep(0.3)
    assert [each for each in siege.foe.asked if "/send/" not in each.path] == []
    never(alice, left.room_id, late.event_id)
    never(alice, graph.room_id, said.event_id)


def test_t012_the_banned_cannot_go_on_from_an_old_fork(siege: Siege) -> None:
    alice, graph, room = siege.hosted("12")
    mallory = siege.foe.user("mallory")
    before = graph.last()
    alice.request("POST", f"/rooms/{room}/ban", {"user_id": mallory})
    evading = message(graph, mallory, "still here", prev=[before])
    power = graph.make("m.room.topic", mallory, {"topic": "mine"}, "", prev=[before])
    siege.foe.deliver(evading, power)
    never(alice, room, evading.event_id)
    never(alice, room, power.event_id)
    said = alice.say(room, "gone")
    shown = alice.event(room, said)
    assert shown is not None
    assert ("m.room.topic", "") not in alice.state(room)


def test_t034_others_cannot_join_or_part_our_users(siege: Siege) -> None:
    alice, graph = siege.joined("12")
    bob = siege.side.person("bob")
    mallory = siege.foe.user("mallory")
    for target, content, sender in (
        (bob.user_id, {"membership": "join"}, mallory),
        (bob.user_id, {"membership": "join"}, bob.user_id),
        (alice.user_id, {"membership": "join", "displayname": "Fool"}, mallory),
        (alice.user_id, {"membership": "join", "displayname": "Fool"}, alice.user_id),
        (alice.user_id, {"membership": "leave"}, alice.user_id),
    ):
        pdu = forged(graph, siege.foe, "m.room.member", target, content, sender=sender)
        siege.foe.send([pdu])
        never(alice, graph.room_id, event_id_of(graph.rules, pdu))
    assert alice.membership(graph.room_id, alice) == "join"
    member = alice.content(graph.room_id, "m.room.member", alice.user_id)
    assert member.get("displayname") != "Fool"
    assert alice.membership(graph.room_id, bob) is None
    assert bob.section("join", graph.room_id) is None


def test_t035_a_restricted_join_is_not_forged(siege: Siege) -> None:
    """`join_authorised_via_users_server` names our user, without our signature."""
    alice = siege.side.person("alice")
    allowed = alice.create_room("12", preset="private_chat")
    rule = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": allowed}]}
    alice, graph, room = siege.hosted("12")
    alice.set_state(room, "m.room.join_rules", rule)
    time.sleep(0.3)
    for event_id in list(alice.state(room).values()):
        shown = alice.event(room, event_id)
        assert shown is not None
    eve = siege.foe.user("eve")
    got = siege.foe.request("GET", f"{V1}/make_join/{local_name(room)}/{local_name(eve)}?ver=12")
    assert got.status in (400, 403), got
    parents = [graph.last()]
    content = {"membership": "join", "join_authorised_via_users_server": alice.user_id}
    auth = graph.cited("m.room.member", eve, eve, content, graph.state_before(parents))
    pdu = graph.pdu("m.room.member", eve, content, eve, parents, auth)
    pdu = graph.signed(pdu, siege.foe.name)
    siege.foe.send([pdu])
    never(alice, room, event_id_of(graph.rules, pdu))
    where = f"{local_name(room)}/{local_name(event_id_of(graph.rules, pdu))}"
    reply = siege.foe.request("PUT", f"/_matrix/federation/v2/send_join/{where}", pdu)
    assert reply.status in (400, 403), reply
    assert alice.membership(room, Person(siege.side, eve, "")) is None


@pytest.mark.parametrize(
    "spoil",
    ["missing", "wrong", "short", "other server", "other key", "small order", "not base64"],
)
def test_t043_t044_t045_events_without_a_good_signature(siege: Siege, spoil: str) -> None:
    alice, graph = siege.joined("12")
    pdu = forged(graph, siege.foe, "m.room.message", None, {"body": spoil})
    name, key_id = siege.foe.name, siege.foe.key.key_id
    good = pdu["signatures"][name][key_id]
    pdu["signatures"] = {
        "missing": {},
        "wrong": {name: {key_id: "A" + good[1:] if good[0] != "A" else "B" + good[1:]}},
        "short": {name: {key_id: good[:80]}},
        "other server": {siege.side.name: {key_id: good}},
        "other key": {name: {"ed25519:other": good}},
        "small order": {name: {key_id: "A" * 86}},
        "not base64": {name: {key_id: "*" * 86}},
    }[spoil]
    siege.foe.send([pdu])
    never(alice, graph.room_id, event_id_of(graph.rules, pdu))


def test_t044_further_signatures_cause_no_request(siege: Siege) -> None:
    alice, graph = siege.joined("12")
    said = message(graph, siege.foe.user("mallory"))
    pdu = copy.deepcopy(dict(said.json))
    pdu["signatures"] |= {f"127.0.0.4:{1000 + n}": {"ed25519:a": "A" * 86} for n in range(250)}
    pdu["signatures"][siege.foe.name] = {
        **{f"ed25519:k{n}": "A" * 86 for n in range(250)},
        **pdu["signatures"][siege.foe.name],
    }
    siege.foe.asked.clear()
    assert siege.foe.send([pdu]).status == 200
    alice.sees(graph.room_id, said.event_id)
    assert len(siege.foe.asked_for("/key/")) <= 1


def test_t046_a_changed_content_is_taken_off(siege: Siege) -> None:
    """The signature covers the redacted form; the true content replaces it when it comes."""
    alice, graph = siege.joined("12")
    said = message(graph, siege.foe.user("mallory"), "true words")
    spoiled = {**said.json, "content": {"msgtype": "m.text", "body": "false words"}}
    siege.foe.send([spoiled])
    time.sleep(0.3)
    shown = alice.event(graph.room_id, said.event_id)
    assert shown is None or shown["content"] == {}
    siege.foe.deliver(said)
    eventually(
        lambda: (
            (alice.event(graph.room_id, said.event_id) or {}).get("content", {}).get("body")
            == "true words"
        ),
        "the true content",
    )


def test_t039_a_redaction_without_the_right(siege: Siege) -> None:
    alice, graph, room = siege.hosted("12")
    said = alice.say(room, "mine")
    mallory = siege.foe.user("mallory")
    redaction = graph.make("m.room.redaction", mallory, {"redacts": said})
    siege.foe.deliver(redaction)
    time.sleep(0.3)
    shown = alice.event(room, said)
    assert shown is not None
    assert shown["content"]["body"] == "mine"


def test_t015_the_inventor_of_gaps(siege: Siege) -> None:
    """Every event names parents that nobody has; the asking ends, and others are not delayed."""
    alice, graph = siege.joined("12")
    mallory = siege.foe.user("mallory")
    siege.foe.answers["POST", "/get_missing_events/"] = lambda asked: (
        200,
        {
            "events": [
                forged(
                    graph,
                    siege.foe,
                    "m.room.message",
                    None,
                    {"body": f"{time.monotonic_ns()}"},
                    prev_events=[f"${n:02}{time.monotonic_ns():041}"[:44] for n in range(20)],
                )
                for _ in range(20)
            ]
        },
    )
    siege.foe.answers["GET", "/state_ids/"] = lambda asked: (404, {"errcode": "M_NOT_FOUND"})
    siege.foe.answers["GET", "/state/"] = lambda asked: (404, {"errcode": "M_NOT_FOUND"})
    siege.foe.asked.clear()
    for number in range(5):
        pdu = forged(
            graph,
            siege.foe,
            "m.room.message",
            None,
            {"body": f"{number}"},
            prev_events=[f"${number}{time.monotonic_ns():042}"[:44]],
        )
        assert siege.foe.send([pdu]).status in (200, 429)
    _, other = siege.joined("12")
    said = message(other, mallory, "another room")
    siege.foe.deliver(said)
    questions = [each for each in siege.foe.asked if "/send/" not in each.path]
    assert len(questions) < 150, f"{len(questions)} requests"
    said_here = alice.say(graph.room_id, "the room goes on")
    assert alice.event(graph.room_id, said_here)


@pytest.mark.parametrize("version", ["6", "9"])
def test_t018_the_room_version_survives_a_redacted_create_event(siege: Siege, version: str) -> None:
    alice, graph = siege.joined(version)
    mallory = siege.foe.user("mallory")
    create = next(iter(graph.events))
    redaction = graph.make("m.room.redaction", mallory, {}, redacts=create)
    said = message(graph, mallory, "after")
    siege.foe.deliver(redaction, said)
    alice.sees(graph.room_id, said.event_id)
    alice.say(graph.room_id, "still the same version")


def edu(kind: str, content: Any) -> dict[str, Any]:
    return {"edu_type": kind, "content": content}


def test_t038_edus_for_users_of_others_are_dropped(siege: Siege) -> None:
    alice, graph = siege.joined("12")
    bob = siege.side.person("bob")
    bob.request("POST", f"/join/{graph.room_id}?server_name={siege.foe.name}", {})
    said = message(graph, siege.foe.user("mallory"))
    siege.foe.deliver(said)
    alice.sees(graph.room_id, said.event_id)
    outsider = siege.foe.user("outsider")
    room = graph.room_id
    receipts = {
        room: {
            "m.read": {
                user: {"data": {"ts": 1}, "event_ids": [said.event_id]}
                for user in (bob.user_id, outsider)
            }
        }
    }
    edus = [
        edu("m.typing", {"room_id": room, "user_id": bob.user_id, "typing": True}),
        edu("m.typing", {"room_id": room, "user_id": outsider, "typing": True}),
        edu(
            "m.typing",
            {"room_id": siege.home_room, "user_id": siege.foe.user("mallory"), "typing": True},
        ),
        edu("m.receipt", receipts),
        edu(
            "m.presence",
            {"push": [{"user_id": bob.user_id, "presence": "online", "status_msg": "spoofed"}]},
        ),
        edu("m.device_list_update", {"user_id": bob.user_id, "device_id": "X", "stream_id": 1}),
        edu(
            "m.direct_to_device",
            {
                "sender": bob.user_id,
                "type": "m.test",
                "message_id": "1",
                "messages": {alice.user_id: {"*": {"x": 1}}},
            },
        ),
        edu("m.signing_key_update", {"user_id": bob.user_id}),
        edu("m.unknown", {"a": 1}),
        {"edu_type": 5},
        {"content": {}},
        edu("m.typing", {"room_id": 5, "user_id": {}, "typing": "yes"}),
        edu("m.receipt", {room: {"m.read": {siege.foe.user("mallory"): {"event_ids": "x"}}}}),
        edu("m.presence", {"push": "x"}),
    ]
    assert siege.foe.send(edus=edus).status == 200
    typing = {"room_id": room, "user_id": siege.foe.user("mallory"), "typing": True}
    siege.foe.send(edus=[edu("m.typing", typing)])

    def ephemeral() -> Any:
        return (alice.section("join", room) or {}).get("ephemeral", {}).get("events", [])

    found = eventually(
        lambda: [event for event in ephemeral() if event["type"] == "m.typing"], "typing"
    )
    assert found[0]["content"]["user_ids"] == [siege.foe.user("mallory")]
    assert outsider not in repr(ephemeral())
    assert bob.user_id not in repr(ephemeral())
    synced = alice.sync()
    assert "spoofed" not in repr(synced)
    assert synced.get("to_device", {}).get("events", []) == []
    home = siege.home.section("join", siege.home_room)
    assert siege.foe.user("mallory") not in repr(home["ephemeral"])


def test_t025_odd_power_levels(siege: Siege) -> None:
    alice, graph = siege.joined("12")
    mallory = siege.foe.user("mallory")
    odd: list[Any] = ["5", 5.5, "1e9", True, None, {"x": 1}, [], 2**53, -(2**60), {"users": 1}]
    for value in odd:
        for content in (
            {"users": {alice.user_id: value}},
            {"users": value},
            {"ban": value},
            {"events": {"m.room.name": value}},
            {"notifications": {"room": value}},
        ):
            try:
                pdu = forged(graph, siege.foe, "m.room.power_levels", "", content)
            except ValueError:
                continue  # it has no canonical form
            assert siege.foe.send([pdu]).status in (200, 400)
    said = message(graph, mallory, "after")
    siege.foe.deliver(said)
    alice.sees(graph.room_id, said.event_id)
    alice.say(graph.room_id, "fine")


def test_t037_the_acl_holds_on_every_way_in(siege: Siege) -> None:
    alice, graph, room = siege.hosted("12")
    before = graph.last()
    host = siege.foe.name.partition(":")[0]
    alice.set_state(room, "m.room.server_acl", {"allow": ["*"], "deny": [host]})
    said = message(graph, siege.foe.user("mallory"), "let me in", prev=[before])
    siege.foe.send(
        [dict(said.json)],
        edus=[
            edu("m.typing", {"room_id": room, "user_id": siege.foe.user("mallory"), "typing": True})
        ],
    )
    never(alice, room, said.event_id)
    assert "typing" not in repr(alice.section("join", room)["ephemeral"])
    where, event = local_name(room), local_name(before.event_id)
    eve = local_name(siege.foe.user("eve"))
    for method, target, body in (
        ("GET", f"{V1}/make_join/{where}/{eve}?ver=12", None),
        ("GET", f"{V1}/make_leave/{where}/{eve}", None),
        ("GET", f"{V1}/make_knock/{where}/{eve}?ver=12", None),
        ("GET", f"{V1}/state/{where}?event_id={event}", None),
        ("GET", f"{V1}/state_ids/{where}?event_id={event}", None),
        ("GET", f"{V1}/event_auth/{where}/{event}", None),
        ("GET", f"{V1}/backfill/{where}?v={event}&limit=5", None),
        ("GET", f"{V1}/timestamp_to_event/{where}?ts=1&dir=f", None),
        (
            "POST",
            f"{V1}/get_missing_events/{where}",
            {"earliest_events": [], "latest_events": [before.event_id], "limit": 5},
        ),
        ("PUT", f"/_matrix/federation/v2/send_join/{where}/{event}", dict(before.json)),
    ):
        reply = siege.foe.request(method, target, body)
        assert (reply.status, reply.errcode) == (403, "M_FORBIDDEN"), (target, reply)


def test_room_data_is_not_told_to_those_outside(siege: Siege) -> None:
    """[B12.01]: nothing of a private room for a server without members in it."""
    said = siege.home.say(siege.home_room, "private")
    where, event = local_name(siege.home_room), local_name(said)
    eve = local_name(siege.foe.user("eve"))
    for method, target, body in (
        ("GET", f"{V1}/state/{where}?event_id={event}", None),
        ("GET", f"{V1}/state_ids/{where}?event_id={event}", None),
        ("GET", f"{V1}/event/{event}", None),
        ("GET", f"{V1}/event_auth/{where}/{event}", None),
        ("GET", f"{V1}/backfill/{where}?v={event}&limit=5", None),
        ("GET", f"{V1}/timestamp_to_event/{where}?ts=1&dir=f", None),
        ("GET", f"{V1}/make_join/{where}/{eve}?ver=12", None),
        ("GET", f"{V1}/hierarchy/{where}", None),
        (
            "POST",
            f"{V1}/get_missing_events/{where}",
            {"earliest_events": [], "latest_events": [said], "limit": 5},
        ),
    ):
        reply = siege.foe.request(method, target, body)
        assert reply.status in (403, 404), (target, reply)
        assert "private" not in repr(reply.body)


def test_t021_the_demoted_cannot_write_history_anew(siege: Siege) -> None:
    """A moderator, demoted, sends power events that cite the graph before the demotion."""
    alice, graph, room = siege.hosted("12")
    mallory = siege.foe.user("mallory")
    levels = alice.content(room, "m.room.power_levels")
    alice.set_state(
        room, "m.room.power_levels", {**levels, "users": {**levels["users"], mallory: 90}}
    )
    promoted = alice.event(room, alice.state(room)["m.room.power_levels", ""])
    assert promoted is not None
    pdu = eventually(
        lambda: next(
            (
                each
                for asked in siege.foe.asked_for("/send/")
                for each in asked.body["pdus"]
                if each["type"] == "m.room.power_levels"
            ),
            None,
        ),
        "promotion",
    )
    siege.learn(graph, [*graph.events.values(), parse_event(graph.rules, pdu)])
    base = graph.last()
    demoted = alice.set_state(room, "m.room.power_levels", levels)
    for ts in (0, int(time.time() * 1000) - 10**9, 2**53 - 1):
        mine = {**levels, "users": {**levels["users"], mallory: 90, siege.foe.user("eve"): 90}}
        hostile = graph.make(
            "m.room.power_levels", mallory, mine, "", prev=[base], origin_server_ts=ts
        )
        ban = graph.make(
            "m.room.name", mallory, {"name": "mine"}, "", prev=[hostile], origin_server_ts=ts
        )
        siege.foe.deliver(hostile, ban)
    time.sleep(0.3)
    assert alice.state(room)["m.room.power_levels", ""] == demoted
    assert ("m.room.name", "") not in alice.state(room)
