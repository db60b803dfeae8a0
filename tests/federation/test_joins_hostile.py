"""Servers that lie to those who want to join, leave or knock; T030, T035, T036.

Every lie is told by one server; a second one tells the truth, and the join goes through that.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matrixbox.core.signing import SigningKey, hash_and_sign_event
from matrixbox.store import names, rooms
from tests.federation.hand_made import HandMadeRoom
from tests.federation.towns import Country, Failed, Town, country
from tests.sim.node import Account

Lie = Callable[[HandMadeRoom, dict[str, Any]], Any]


async def settle(land: Country, version: str = "12") -> tuple[Town, Account, HandMadeRoom]:
    """A server of ours with a user, and a room on a hand-made server."""
    home = await land.town("home.test")
    bo = await home.register("bo")
    room = HandMadeRoom(land.fake("evil.test"), version)
    room.open()
    return home, bo, room


async def refused(home: Town, who: Account, room: HandMadeRoom) -> Failed:
    """The join fails, and nothing of the room is visible."""
    with pytest.raises(Failed) as failed:
        await home.join(who, room.room_id, room.server.name)
    synced = await home.sync(who)
    assert room.room_id not in synced.get("rooms", {}).get("join", {})
    with pytest.raises(Failed):
        await home.state(who, room.room_id)

    def head(tx: Any) -> Any:
        nid = names.room_nid(tx, room.room_id)
        return None if nid is None else rooms.head(tx, nid)

    assert home.store.read(head) is None
    return failed.value


@pytest.mark.parametrize("version", ["1", "5", "10", "11", "12"])
async def test_a_room_of_a_hand_made_server_is_joined(tmp_path: Path, version: str) -> None:
    """That lies are refused means nothing unless the truth is not."""
    async with country(tmp_path) as land:
        home, bo, room = await settle(land, version)
        await home.join(bo, room.room_id, "evil.test")
        assert len(await home.state(bo, room.room_id)) == 5


# --- templates


def changed(**changes: Any) -> Lie:
    """Fields of the template's event replaced; None takes one away."""

    def lie(_: HandMadeRoom, answer: dict[str, Any]) -> Any:
        event = {**answer["event"], **changes}
        return {**answer, "event": {k: v for k, v in event.items() if v is not None}}

    return lie


def content(**changes: Any) -> Lie:
    def lie(_: HandMadeRoom, answer: dict[str, Any]) -> Any:
        event = answer["event"]
        return {**answer, "event": {**event, "content": {**event["content"], **changes}}}

    return lie


TEMPLATES: dict[str, Lie] = {
    "another type": changed(type="m.room.power_levels"),
    "another sender": changed(sender="@root:home.test"),
    "another state key": changed(state_key="@root:home.test"),
    "no state key": changed(state_key=None),
    "another room": changed(room_id="!other:home.test"),
    "a ban": content(membership="ban"),
    "no membership": content(membership=None),
    "no content": changed(content=[]),
    "a voucher of ours": content(join_authorised_via_users_server="@bo:home.test"),
    "a voucher of a third server": content(join_authorised_via_users_server="@x:third.test"),
    "a voucher that is none": content(join_authorised_via_users_server=5),
    "no parents": changed(prev_events=[]),
    "too many parents": changed(prev_events=["$" + "a" * 43] * 21),
    "parents that are no ids": changed(prev_events=[{"a": 1}]),
    "no auth events": changed(auth_events=None),
    "too many auth events": changed(auth_events=["$" + "a" * 43] * 11),
    "a negative depth": changed(depth=-1),
    "a depth beyond all": changed(depth=2**53),
    "no depth": changed(depth="1"),
    "an unknown version": lambda _, answer: {**answer, "room_version": "99"},
    "a version that is none": lambda _, answer: {**answer, "room_version": {}},
    "no event": lambda _, answer: {"room_version": "12"},
    "a list": lambda _, answer: [answer],
    "no JSON": lambda _, answer: (200, b"{"),
    "an error": lambda _, answer: (500, {}),
}


@pytest.mark.parametrize("lie", TEMPLATES.values(), ids=TEMPLATES.keys())
async def test_t030_t035_a_template_of_anything_else_is_not_signed(
    tmp_path: Path, lie: Lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is handed in, and no event is signed at all."""
    async with country(tmp_path) as land:
        home, bo, room = await settle(land)
        honest = room.template
        room.server.answers["make_join"] = lambda request, body: lie(room, honest(request, body))
        failed = await refused(home, bo, room)
        assert failed.status == 502
        assert room.server.asked("send_join") == []


async def test_t030_only_our_own_words_are_signed(tmp_path: Path) -> None:
    """What else a template holds does not get into our event."""
    async with country(tmp_path) as land:
        home, bo, room = await settle(land)
        honest = room.template

        def more(request: Any, body: Any) -> Any:
            answer = honest(request, body)
            extra = {"redacts": "$x", "unsigned": {"a": 1}, "x": 1, "origin_server_ts": 5}
            answer["event"] |= extra
            answer["event"]["content"] |= {"displayname": "Mallory", "x": 1}
            return answer

        room.server.answers["make_join"] = more
        await home.join(bo, room.room_id, "evil.test")
        (sent,) = room.server.asked("send_join")
        event = json.loads(sent.body)
        assert event.keys() == {
            "auth_events", "content", "depth", "hashes", "origin_server_ts", "prev_events",
            "room_id", "sender", "signatures", "state_key", "type",
        }  # fmt: skip
        assert event["content"] == {"membership": "join"}
        assert event["origin_server_ts"] > 5
        assert event["signatures"].keys() == {"home.test"}


# --- answers


def without(kind: str) -> Lie:
    def lie(_: HandMadeRoom, answer: dict[str, Any]) -> Any:
        kept = [event for event in answer["state"] if event["type"] != kind]
        return {**answer, "state": kept, "auth_chain": kept}

    return lie


def spoiled(kind: str, **changes: Any) -> Lie:
    """An event of the answer with other fields than were signed."""

    def lie(_: HandMadeRoom, answer: dict[str, Any]) -> Any:
        found = [
            {**event, **changes} if event["type"] == kind else event for event in answer["state"]
        ]
        return {**answer, "state": found, "auth_chain": found}

    return lie


def closed(room: HandMadeRoom, answer: dict[str, Any]) -> Any:
    """A state that does not let our user in."""
    made = room.make("m.room.join_rules", {"join_rule": "invite"})
    found = [event for event in answer["state"] if event["type"] != "m.room.join_rules"]
    return {**answer, "state": [*found, dict(made.json)]}


def banned(room: HandMadeRoom, answer: dict[str, Any]) -> Any:
    made = room.make("m.room.member", {"membership": "ban"}, "@bo:home.test", room.creator)
    return {**answer, "state": [*answer["state"], dict(made.json)]}


def by_another_key(room: HandMadeRoom, answer: dict[str, Any]) -> Any:
    """Signatures with a key that the server does not have."""
    key = SigningKey("fake", b"z" * 32)
    found = [
        hash_and_sign_event(
            room.rules, {k: v for k, v in event.items() if k != "signatures"}, "evil.test", key
        )
        for event in answer["state"]
    ]
    return {**answer, "state": found, "auth_chain": found}


def two_for_one_slot(room: HandMadeRoom, answer: dict[str, Any]) -> Any:
    made = room.make("m.room.join_rules", {"join_rule": "public", "x": 1})
    return {**answer, "state": [*answer["state"], dict(made.json)]}


def another_room(room: HandMadeRoom, answer: dict[str, Any]) -> Any:
    """All of it is true, of another room."""
    other = HandMadeRoom(room.server, "12", "public")
    plain = [dict(event.json) for event in other.state.values()]
    return {**answer, "state": plain, "auth_chain": plain}


ANSWERS: dict[str, Lie] = {
    "no create event": without("m.room.create"),
    "no join rules": without("m.room.join_rules"),
    "no state": lambda _, answer: {**answer, "state": []},
    "state that is no list": lambda _, answer: {**answer, "state": {}},
    "events that are none": lambda _, answer: {**answer, "state": [1, "a", {}, []]},
    "spoiled create event": spoiled("m.room.create", content={"room_version": "12", "x": 1}),
    "an unsigned create event": spoiled("m.room.create", signatures={}),
    "closed": closed,
    "banned": banned,
    "keys of nobody": by_another_key,
    "two for one slot": two_for_one_slot,
    "another room": another_room,
    "cut off": lambda _, answer: (200, json.dumps(answer).encode()[:-20]),
    "no object": lambda _, answer: (200, b"[1,2]"),
    "doubled key": lambda _, answer: (200, json.dumps(answer).encode()[:-1] + b',"state":[]}'),
    "an error": lambda _, answer: (500, {}),
}


@pytest.mark.parametrize("lie", ANSWERS.values(), ids=ANSWERS.keys())
async def test_t036_an_answer_that_is_no_state_of_the_room_is_refused(
    tmp_path: Path, lie: Lie
) -> None:
    """502; nothing is half joined, and the next server is asked."""
    async with country(tmp_path) as land:
        home, bo, room = await settle(land)
        room.server.answers["send_join"] = lambda _, body: lie(room, room.answer(body))
        failed = await refused(home, bo, room)
        assert failed.status == 502
        second = land.fake("good.test")
        second.answers["make_join"] = room.template
        second.answers["send_join"] = room.take
        await home.join(bo, room.room_id, "evil.test", "good.test")
        assert len(await home.state(bo, room.room_id)) == 5


@pytest.mark.parametrize("version", ["1", "6", "12"])
async def test_t046_an_event_whose_content_was_changed_loses_it(
    tmp_path: Path, version: str
) -> None:
    """A topic with a wrong hash comes without its words, as the checks on receipt say."""
    async with country(tmp_path) as land:
        home, bo, room = await settle(land, version)
        topic = room.add("m.room.topic", {"topic": "true"})

        def lie(_: Any, body: Any) -> Any:
            answer = room.answer(body)
            for event in answer["state"]:
                if event["type"] == "m.room.topic":
                    event["content"] = {"topic": "false"}
            return answer

        room.server.answers["send_join"] = lie
        await home.join(bo, room.room_id, "evil.test")
        found = (await home.state(bo, room.room_id))["m.room.topic", ""]
        assert found["event_id"] == topic.event_id
        assert found["content"] == {}


async def test_t036_the_signed_join_gives_nothing_but_signatures(tmp_path: Path) -> None:
    """In old rooms the answer's event could be another one under the same name."""
    async with country(tmp_path) as land:
        home, bo, room = await settle(land, "1")

        def lie(_: Any, body: Any) -> Any:
            answer = room.answer(body)
            forged = {**body, "content": {"membership": "join", "displayname": "Mallory"}}
            answer["event"] = room.signed(forged)
            return answer

        room.server.answers["send_join"] = lie
        await home.join(bo, room.room_id, "evil.test")
        member = (await home.state(bo, room.room_id))["m.room.member", bo.user_id]
        assert member["content"] == {"membership": "join"}


async def test_t036_events_that_nobody_could_have_sent_stay_out_of_the_state(
    tmp_path: Path,
) -> None:
    """Rejected by its own auth events, an event of the state is left out; the rest is joined."""
    async with country(tmp_path) as land:
        home, bo, room = await settle(land)
        mallory = land.fake("third.test")
        forged = room.pdu("m.room.topic", {"topic": "mine"}, "", "@mallory:third.test")
        signed = hash_and_sign_event(room.rules, forged, mallory.name, mallory.key)

        def lie(_: Any, body: Any) -> Any:
            answer = room.answer(body)
            return {**answer, "state": [*answer["state"], signed]}

        room.server.answers["send_join"] = lie
        await home.join(bo, room.room_id, "evil.test")
        assert ("m.room.topic", "") not in await home.state(bo, room.room_id)


async def test_t036_a_server_that_is_gone_does_not_keep_us_out(tmp_path: Path) -> None:
    """Whose keys nobody can give us is left out: unknown is not false, and others are there."""
    async with country(tmp_path) as land:
        home, bo, room = await settle(land)
        key = SigningKey("gone", b"g" * 32)
        pdu = room.pdu("m.room.member", {"membership": "join"}, "@old:gone.test")
        member = hash_and_sign_event(room.rules, pdu, "gone.test", key)

        def take(_: Any, body: Any) -> Any:
            answer = room.answer(body)
            return {**answer, "state": [*answer["state"], member]}

        room.server.answers["send_join"] = take
        await home.join(bo, room.room_id, "evil.test")
        assert len(await home.state(bo, room.room_id)) == 5


@pytest.mark.parametrize(
    ("answer", "status", "errcode"),
    [
        ((403, {"errcode": "M_FORBIDDEN", "error": "no"}), 403, "M_FORBIDDEN"),
        ((404, {"errcode": "M_NOT_FOUND", "error": "what"}), 404, "M_NOT_FOUND"),
        (
            (400, {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "error": "x", "room_version": "99"}),
            400,
            "M_INCOMPATIBLE_ROOM_VERSION",
        ),
        ((400, {"errcode": "M_UNABLE_TO_GRANT_JOIN", "error": "x"}), 400, "M_UNABLE_TO_GRANT_JOIN"),
        ((400, {"errcode": "M_MISSING_PARAM", "error": "x"}), 502, "M_UNKNOWN"),
        ((400, {"errcode": "M_INVALID_PARAM", "error": "x"}), 502, "M_UNKNOWN"),
        ((400, b"<html>"), 502, "M_UNKNOWN"),
        ((429, {"errcode": "M_LIMIT_EXCEEDED", "error": "x"}), 502, "M_UNKNOWN"),
        (None, 502, "M_UNKNOWN"),
    ],
)
async def test_refusals_are_passed_on_where_a_client_can_understand_them(
    tmp_path: Path, answer: Any, status: int, errcode: str
) -> None:
    """[B8.08], [B8.10], [K.25]."""
    async with country(tmp_path) as land:
        home, bo, room = await settle(land)
        room.server.answers["make_join"] = (lambda *_: None) if answer is None else answer
        failed = await refused(home, bo, room)
        assert (failed.status, failed.body["errcode"]) == (status, errcode)


async def test_an_answer_that_was_lost_is_asked_for_again(tmp_path: Path) -> None:
    """The same join is handed in twice; the user is joined once."""
    async with country(tmp_path) as land:
        home, bo, room = await settle(land)
        taken: list[Any] = []

        def take(_: Any, body: Any) -> Any:
            taken.append(body)
            return None if len(taken) == 1 else room.answer(body)

        room.server.answers["send_join"] = take
        await home.join(bo, room.room_id, "evil.test")
        assert taken[0] == taken[1]
        assert len(taken) == 2


async def test_two_who_join_at_once_cost_one_answer(tmp_path: Path) -> None:
    """Who comes second, the same user or another one, waits for the first and finds the room."""
    import trio

    async with country(tmp_path) as land:
        home, bo, room = await settle(land)
        cy = await home.register("cy")
        async with trio.open_nursery() as nursery:
            for who in (bo, bo, cy):
                nursery.start_soon(home.join, who, room.room_id, "evil.test")
        assert len(room.server.asked("send_join")) == 1
        state = await home.state(cy, room.room_id)
        assert state["m.room.member", cy.user_id]["content"]["membership"] == "join"


async def test_a_client_that_hangs_up_does_not_stop_its_join(tmp_path: Path) -> None:
    """The room is there when the client asks again."""
    import trio

    async with country(tmp_path) as land:
        home, bo, room = await settle(land)
        waiting = trio.Event()

        async def take(_: Any, body: Any) -> Any:
            await waiting.wait()
            return room.answer(body)

        room.server.answers["send_join"] = take
        with trio.move_on_after(0.2):
            await home.join(bo, room.room_id, "evil.test")
        waiting.set()
        with trio.fail_after(5):
            while not (await home.sync(bo)).get("rooms"):
                await trio.sleep(0.02)
        assert len(await home.state(bo, room.room_id)) == 5
