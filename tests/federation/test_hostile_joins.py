"""Lies in joins, leaves, knocks and invitations, in both directions (group C; T005, T006, T022)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest

from matrixbox.core.events import parse_event
from matrixbox.core.signing import event_id_of
from tests.federation.hostile import V1, V2, Asked, Truth, local_name
from tests.federation.pair import Person, Refused, eventually
from tests.federation.siege import Siege
from tests.rooms.far import Graph

VERSIONS = ("6", "11", "12")
Change = Callable[[dict[str, Any]], Any]


def join(siege: Siege, graph: Graph) -> tuple[Person, Refused | None]:
    """A user of ours tries to join a room of the hostile server."""
    alice = siege.side.person("alice")
    try:
        alice.request("POST", f"/join/{graph.room_id}?server_name={siege.foe.name}", {})
    except Refused as refused:
        return alice, refused
    return alice, None


def assert_not_joined(siege: Siege, alice: Person, graph: Graph) -> None:
    """Nothing of the room is visible."""
    assert alice.section("join", graph.room_id) is None
    assert graph.room_id not in alice.request("GET", "/joined_rooms")["joined_rooms"]


# --- T030: signing what a peer wrote


def _set(**changed: Any) -> Change:
    return lambda event: event.update(changed)


def _content(**changed: Any) -> Change:
    return lambda event: event["content"].update(changed)


@pytest.mark.parametrize(
    "change",
    [
        _set(type="m.room.power_levels"),
        _set(type="m.room.message"),
        _set(sender="@other:127.0.0.3"),
        _set(state_key="@other:127.0.0.3"),
        _set(room_id="!other:127.0.0.3"),
        _content(membership="ban"),
        _content(membership="invite"),
        _set(state_key=None),
    ],
    ids=["levels", "message", "sender", "target", "room", "ban", "invite", "no target"],
)
def test_t030_templates_of_something_else_are_not_signed(siege: Siege, change: Change) -> None:
    graph = siege.foe.room("11")
    truth = Truth(siege.foe, graph)

    def template(asked: Asked) -> tuple[int, Any]:
        status, answer = truth.make_join(asked)
        change(answer["event"])
        return status, answer

    siege.foe.answers["GET", "/make_join/"] = template
    siege.foe.asked.clear()
    alice, refused = join(siege, graph)
    for asked in siege.foe.asked_for("/send_join/"):
        event = asked.body
        assert event["type"] == "m.room.member"
        assert event["sender"] == event["state_key"] == alice.user_id
        assert event["room_id"] == graph.room_id
        assert event["content"]["membership"] == "join"
    if not siege.foe.asked_for("/send_join/"):
        assert refused is not None
        assert refused.status in (403, 404, 502)
        assert_not_joined(siege, alice, graph)


def test_t030_only_named_fields_of_a_template_are_taken(siege: Siege) -> None:
    graph = siege.foe.room("11")
    truth = Truth(siege.foe, graph)

    def template(asked: Asked) -> tuple[int, Any]:
        status, answer = truth.make_join(asked)
        answer["event"]["content"] |= {"planted": True, "displayname": "Planted"}
        answer["event"] |= {
            "planted": 1,
            "redacts": "$x",
            "unsigned": {"planted": 1},
            "signatures": {"planted": {}},
            "origin_server_ts": 5,
        }
        return status, answer

    siege.foe.answers["GET", "/make_join/"] = template
    join(siege, graph)
    for asked in siege.foe.asked_for("/send_join/"):
        assert "planted" not in repr(asked.body).lower()
        assert "redacts" not in asked.body
        assert abs(asked.body["origin_server_ts"] - time.time() * 1000) < 60_000


@pytest.mark.parametrize("version", ["13", "", 6, None, "x" * 33])
def test_t018_a_room_version_that_nobody_knows(siege: Siege, version: Any) -> None:
    graph = siege.foe.room("11")
    truth = Truth(siege.foe, graph)
    siege.foe.answers["GET", "/make_join/"] = lambda asked: (
        200,
        truth.make_join(asked)[1] | {"room_version": version},
    )
    alice, refused = join(siege, graph)
    assert refused is not None
    assert refused.status in (400, 502)
    assert siege.foe.asked_for("/send_join/") == []
    assert_not_joined(siege, alice, graph)


# --- T036, T022: lies in the answer


def _without(key: str) -> Callable[[Graph, Any], None]:
    def change(graph: Graph, answer: Any) -> None:
        answer["state"] = [pdu for pdu in answer["state"] if pdu["type"] != key]

    return change


def _no_chain(graph: Graph, answer: Any) -> None:
    answer["auth_chain"] = []
    answer["state"] = [pdu for pdu in answer["state"] if pdu["type"] != "m.room.create"]


def _spoil(where: str, how: str) -> Callable[[Graph, Any], None]:
    def change(graph: Graph, answer: Any) -> None:
        for number, pdu in enumerate(answer[where]):
            if pdu["type"] != "m.room.create":
                continue
            pdu = copy.deepcopy(dict(pdu))
            if how == "signature":
                for signed in pdu["signatures"].values():
                    for key in signed:
                        signed[key] = "A" * 86
            elif how == "other create":
                pdu["content"] = {**pdu["content"], "m.federate": False}
            answer[where][number] = pdu

    return change


def _two_creates(graph: Graph, answer: Any) -> None:
    other = Graph(graph.version, name=graph.name, creator=graph.creator)
    other.now_ms = graph.now_ms + 5_000
    other.begin()
    answer["state"].append(dict(next(iter(other.events.values())).json))


def _event_of_another_room(graph: Graph, answer: Any) -> None:
    other = Graph(graph.version, name="elsewhere", creator=graph.creator)
    other.begin()
    answer["state"] = [dict(event.json) for event in other.events.values()]
    answer["auth_chain"] = []


def _ban_in_state(graph: Graph, answer: Any) -> None:
    """The state that is told forbids the join that was sent."""
    user = answer["event"]["sender"]
    parents = [graph.events[each] for each in graph.last().prev_event_ids]
    ban = graph.make("m.room.member", graph.creator, {"membership": "ban"}, user, prev=parents)
    answer["state"].append(dict(ban.json))


def _nonsense(graph: Graph, answer: Any) -> None:
    answer["state"] = [1, "x", None, {}, {"type": "m.room.create"}]


LIES = {
    "no create event": _without("m.room.create"),
    "no auth chain and no create event": _no_chain,
    "create event not signed": _spoil("state", "signature"),
    "another create event": _spoil("state", "other create"),
    "state of another room": _event_of_another_room,
    "we are banned": _ban_in_state,
    "nonsense": _nonsense,
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("lie", sorted(LIES))
def test_t036_lies_in_the_join_answer(siege: Siege, lie: str, version: str) -> None:
    graph = siege.foe.room(version)
    truth = Truth(siege.foe, graph)

    def answer(asked: Asked) -> tuple[int, Any]:
        status, told = truth.send_join(asked)
        LIES[lie](graph, told)
        return status, told

    siege.foe.answers["PUT", "/send_join/"] = answer
    alice, refused = join(siege, graph)
    assert refused is not None
    assert refused.status in (403, 502), refused
    assert_not_joined(siege, alice, graph)


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"{"),
        (200, b"[]"),
        (200, {}),
        (200, {"state": {}, "auth_chain": {}}),
        (500, {"errcode": "M_UNKNOWN", "error": "x"}),
        (302, {"location": "elsewhere"}),
        (200, b'{"state":[' + b"[" * 100_000),
        (200, b'{"auth_chain":[],"state":[' + b'{"a":1},' * 300_000 + b"{}]}"),
    ],
    ids=["cut", "list", "empty", "maps", "error", "redirect", "deep", "many"],
)
def test_t036_join_answers_that_are_no_answers(siege: Siege, answer: tuple[int, Any]) -> None:
    graph = siege.foe.room("11")
    siege.foe.answers["PUT", "/send_join/"] = lambda asked: answer
    alice, refused = join(siege, graph)
    assert refused is not None
    assert refused.status in (400, 403, 404, 500, 502, 504), refused
    assert_not_joined(siege, alice, graph)
    siege.foe.answers.clear()
    assert join(siege, graph)[1] is None


def test_t036_one_forged_event_in_the_state_is_left_out(siege: Siege) -> None:
    """A power-level event that no rule allows is not in the state that we start from."""
    graph = siege.foe.room("11")
    truth = Truth(siege.foe, graph)
    eve = siege.foe.user("eve")

    def answer(asked: Asked) -> tuple[int, Any]:
        status, told = truth.send_join(asked)
        parents = [graph.last()]
        cites = graph.cited("m.room.topic", eve, "", {}, graph.state_before(parents))
        topic = graph.pdu("m.room.topic", eve, {"topic": "x"}, "", parents, cites)
        told["state"].append(graph.signed(topic, siege.foe.name))
        return status, told

    siege.foe.answers["PUT", "/send_join/"] = answer
    alice, refused = join(siege, graph)
    if refused is None:
        assert ("m.room.topic", "") not in alice.state(graph.room_id)
    else:
        assert_not_joined(siege, alice, graph)


# --- T034, T005, T006: others' joins into our rooms


def test_t034_send_join_takes_only_users_of_the_caller(siege: Siege) -> None:
    _, graph, room = siege.hosted("11")
    bob = siege.side.person("bob")
    reply = siege.foe.request(
        "GET", f"{V1}/make_join/{local_name(room)}/{local_name(bob.user_id)}?ver=11"
    )
    assert (reply.status, reply.errcode) == (403, "M_FORBIDDEN")
    for user in (bob.user_id, "@other:127.0.0.9"):
        parents = [graph.last()]
        content = {"membership": "join"}
        auth = graph.cited("m.room.member", user, user, content, graph.state_before(parents))
        pdu = graph.pdu("m.room.member", user, content, user, parents, auth)
        pdu = graph.signed(pdu, siege.foe.name)
        where = f"{local_name(room)}/{local_name(event_id_of(graph.rules, pdu))}"
        for path in (f"{V2}/send_join/{where}", f"{V1}/send_join/{where}"):
            reply = siege.foe.request("PUT", path, pdu)
            assert reply.status in (400, 403), (path, reply)
    assert bob.section("join", room) is None


@pytest.mark.parametrize("kind", ["send_join", "send_leave", "send_knock"])
def test_t005_t006_paths_and_bodies_must_agree(siege: Siege, kind: str) -> None:
    _, graph, room = siege.hosted("11")
    version = "v1" if kind == "send_knock" else "v2"
    word = kind.removeprefix("send_")
    mallory = siege.foe.user("mallory")
    user = mallory if word == "leave" else siege.foe.user("eve")
    parents = [graph.last()]
    content = {"membership": word}
    auth = graph.cited("m.room.member", user, user, content, graph.state_before(parents))
    pdu = graph.pdu("m.room.member", user, content, user, parents, auth)
    good = graph.signed(pdu, siege.foe.name)
    event_id = event_id_of(graph.rules, good)

    def put(room_id: str, name: str, body: Any) -> int:
        where = f"{local_name(room_id)}/{local_name(name)}"
        return siege.foe.request(
            "PUT", f"/_matrix/federation/{version}/{kind}/{where}", body
        ).status

    assert put(room, "$" + "x" * 43, good) == 400
    assert put(siege.home_room, event_id, good) in (400, 403, 404)
    for change in (
        {"type": "m.room.topic"},
        {"state_key": siege.side.name},
        {"content": {"membership": "ban"}},
        {"sender": f"@x:{siege.side.name}"},
        {"room_id": siege.home_room},
    ):
        bad = graph.signed({**pdu, **change}, siege.foe.name)
        assert put(room, event_id_of(graph.rules, bad), bad) in (400, 403), change
    assert put(room, event_id, {}) == 400
    unsigned = {**good, "signatures": {}}
    assert put(room, event_id, unsigned) in (400, 403)


# --- T031, T032, T033: invitations


def invitation(siege: Siege, graph: Graph, target: str, **changed: Any) -> dict[str, Any]:
    """An invitation into a room of the hostile server, signed by it."""
    sender = changed.pop("sender", siege.foe.user("mallory"))
    content = changed.pop("content", {"membership": "invite"})
    parents = [graph.last()]
    auth = graph.cited("m.room.member", sender, target, content, graph.state_before(parents))
    pdu = graph.pdu("m.room.member", sender, content, target, parents, auth, **changed)
    return graph.signed(pdu, siege.foe.name)


def invite(siege: Siege, graph: Graph, pdu: dict[str, Any], **changed: Any) -> Any:
    """Hand it over."""
    create = dict(next(iter(graph.events.values())).json)
    stripped = changed.pop("state", [create])
    event_id = changed.pop("event_id", event_id_of(graph.rules, pdu))
    room = changed.pop("room", graph.room_id)
    body = {"room_version": graph.version, "event": pdu, "invite_room_state": stripped, **changed}
    where = f"{local_name(room)}/{local_name(event_id)}"
    return siege.foe.request("PUT", f"{V2}/invite/{where}", body)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_invitation_is_signed_and_shown(siege: Siege, version: str) -> None:
    alice = siege.side.person("alice")
    graph = siege.foe.room(version, join_rule="invite")
    pdu = invitation(siege, graph, alice.user_id)
    reply = invite(siege, graph, pdu)
    assert reply.status == 200, reply
    signed = reply.body["event"]["signatures"]
    assert set(signed) == {siege.foe.name, siege.side.name}
    eventually(lambda: alice.section("invite", graph.room_id), "the invitation")
    graph.add(parse_event(graph.rules, reply.body["event"]))
    alice.request("POST", f"/join/{graph.room_id}?server_name={siege.foe.name}", {})


@pytest.mark.parametrize(
    "change",
    [
        {"type": "m.room.power_levels"},
        {"type": "m.room.message"},
        {"content": {"membership": "join"}},
        {"content": {"membership": "ban"}},
        {"content": {}},
        {"sender": "@someone:other.test"},
        {"state_key": "@someone:other.test"},
        {"state_key": None},
        {"room_id": "!other:room.test"},
        {"signatures": {}},
        {"depth": "deep"},
        {"content": {"membership": "invite", "third_party_invite": {"signed": {}}}},
    ],
    ids=str,
)
def test_t031_what_is_no_invitation_is_not_signed(siege: Siege, change: dict[str, Any]) -> None:
    alice = siege.side.person("alice")
    graph = siege.foe.room("11", join_rule="invite")
    pdu = invitation(siege, graph, alice.user_id)
    pdu = {name: value for name, value in (pdu | change).items() if value is not None}
    if "signatures" not in change:
        try:
            pdu = graph.signed(
                {
                    name: value
                    for name, value in pdu.items()
                    if name not in ("hashes", "signatures")
                },
                siege.foe.name,
            )
        except ValueError:
            pytest.fail("it has no canonical form")
    reply = invite(siege, graph, pdu, event_id=event_id_of(graph.rules, pdu))
    assert reply.status in (400, 403), reply
    assert siege.side.name not in repr(reply.body)
    assert alice.section("invite", graph.room_id) is None


def test_t031_the_path_names_the_event_and_the_room(siege: Siege) -> None:
    alice = siege.side.person("alice")
    graph = siege.foe.room("11", join_rule="invite")
    pdu = invitation(siege, graph, alice.user_id)
    assert invite(siege, graph, pdu, event_id="$" + "x" * 43).status == 400
    assert invite(siege, graph, pdu, room="!other:room.test").status in (400, 404)
    for version in ("13", None, 11):
        assert invite(siege, graph, pdu, room_version=version).status == 400
    assert alice.section("invite", graph.room_id) is None


TOPIC = {"type": "m.room.topic", "state_key": "", "sender": "@a:b"}
SHAPES: list[Any] = [
    "x",
    {},
    [1, None, "x", []],
    [{}],
    [{"type": "m.room.name"}],
    [{"type": "m.room.name", "state_key": "", "sender": "@a:b", "content": {"name": {"x": 1}}}],
    [{"type": "m.room.name", "state_key": 5, "sender": [], "content": "x"}],
    [
        {
            "type": "m.room.topic",
            "state_key": "",
            "sender": "@a:b",
            "content": {"topic": "x" * 60_000},
        }
    ]
    * 6,
    [{"type": "x", "state_key": str(n), "sender": "@a:b", "content": {}} for n in range(2_000)],
]


@pytest.mark.parametrize("version", ["11", "12"])
@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
def test_t032_invite_state_of_any_shape_leaves_sync_whole(
    siege: Siege, shape: Any, version: str
) -> None:
    alice = siege.side.person("alice")
    graph = siege.foe.room(version, join_rule="invite")
    pdu = invitation(siege, graph, alice.user_id)
    reply = invite(siege, graph, pdu, state=shape)
    assert reply.status in (200, 400, 413), reply
    section = alice.section("invite", graph.room_id)
    assert (section is not None) == (reply.status == 200)
    if section is not None:
        assert len(repr(section)) < 200_000
        assert all(
            isinstance(event["content"], dict) for event in section["invite_state"]["events"]
        )


# --- T043: every kind of answer


def test_t043_a_spoiled_signature_in_each_kind_of_answer(siege: Siege) -> None:
    """get_missing_events, state, event, backfill: what is not signed does not get in."""
    alice, graph = siege.joined("11")
    mallory = siege.foe.user("mallory")

    def spoiled(event: Any) -> Any:
        pdu = copy.deepcopy(dict(event.json))
        pdu["signatures"][siege.foe.name] = {siege.foe.key.key_id: "A" * 86}
        return pdu

    hidden = graph.make("m.room.message", mallory, {"body": "hidden"})
    topic = graph.make("m.room.topic", mallory, {"topic": "hidden"}, "")
    last = graph.make("m.room.message", mallory, {"body": "last"})
    siege.foe.answers["POST", "/get_missing_events/"] = lambda asked: (
        200,
        {"events": [spoiled(hidden), spoiled(topic)]},
    )
    siege.foe.answers["GET", "/event/"] = lambda asked: (
        200,
        {"pdus": [spoiled(graph.events[asked.segments[5]])]},
    )
    truth = Truth(siege.foe, graph)

    def state(asked: Asked) -> tuple[int, Any]:
        status, told = truth.state(asked)
        if status == 200:
            told["pdus"] = [
                spoiled(topic) if pdu["type"] == "m.room.topic" else pdu for pdu in told["pdus"]
            ]
        return status, told

    siege.foe.answers["GET", "/state/"] = state
    siege.foe.answers["GET", "/backfill/"] = lambda asked: (
        200,
        {"pdus": [spoiled(event) for event in graph.events.values()]},
    )
    assert siege.foe.send([dict(last.json)]).status == 200
    time.sleep(0.5)
    for event in (hidden, topic):
        assert alice.event(graph.room_id, event.event_id) is None
    assert ("m.room.topic", "") not in alice.state(graph.room_id)
    alice.say(graph.room_id, "the room goes on")
