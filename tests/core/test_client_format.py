"""Events as clients get them [A4.16], [C8.26], T032."""

from __future__ import annotations

import pytest

from matrixbox.core.client_format import (
    client_event,
    federation_event,
    strip_foreign,
    stripped_state,
    unsigned_data,
)
from tests.core.making import CREATOR, VERSIONS, standard_room, versions


@pytest.mark.parametrize("version", VERSIONS)
def test_a_message_has_the_fields_of_the_client_format(version):
    room = standard_room(version)
    event = room.make("m.room.message", {"body": "x"}, sender=CREATOR)
    expected = {
        "type": "m.room.message",
        "sender": CREATOR,
        "content": {"body": "x"},
        "origin_server_ts": event.origin_server_ts,
        "event_id": event.event_id,
        "room_id": room.room_id,
    }
    assert client_event(event) == expected
    assert client_event(event, {}) == expected
    assert client_event(event, {"age": 5}) == {**expected, "unsigned": {"age": 5}}
    del expected["room_id"]
    assert client_event(event, with_room_id=False) == expected


def test_state_has_its_key():
    room = standard_room("12")
    assert client_event(room.create)["state_key"] == ""
    assert client_event(room.create)["room_id"] == room.room_id


@pytest.mark.parametrize("version", VERSIONS)
def test_redactions_carry_their_target_in_both_places(version):
    """[A4.16], [K.11]"""
    room = standard_room(version)
    new = version in versions(11)
    event = room.make(
        "m.room.redaction",
        {"reason": "r", **({"redacts": "$x"} if new else {})},
        sender=CREATOR,
        redacts=None if new else "$x",
    )
    shown = client_event(event)
    assert shown["redacts"] == "$x"
    assert shown["content"] == {"reason": "r", "redacts": "$x"}
    assert event.content == {"reason": "r", **({"redacts": "$x"} if new else {})}


def test_a_redaction_of_nothing_shows_nothing():
    room = standard_room("12")
    event = room.make("m.room.redaction", {"redacts": 5}, sender=CREATOR)
    assert "redacts" not in client_event(event)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_federation_format_is_the_pdu_with_its_names(version):
    """[C8.08]"""
    room = standard_room(version)
    for event in (room.create, room.make("m.room.message", {}, sender=CREATOR)):
        shown = federation_event(event)
        assert shown == {**event.json, "event_id": event.event_id, "room_id": room.room_id}
        assert federation_event(event, {"age": 5}) == {**shown, "unsigned": {"age": 5}}
        assert federation_event(event, {}) == shown


def test_unsigned_holds_the_facts_that_are_given():
    """[C8.26]"""
    assert unsigned_data() == {}
    assert unsigned_data(age=0, membership="join", relations={}) == {"age": 0, "membership": "join"}
    facts = unsigned_data(
        age=5,
        transaction_id="t",
        prev_content={},
        replaces_state="$p",
        membership="leave",
        redacted_because={"type": "m.room.redaction"},
        relations={"m.replace": {}},
    )
    assert facts == {
        "age": 5,
        "transaction_id": "t",
        "prev_content": {},
        "replaces_state": "$p",
        "membership": "leave",
        "redacted_because": {"type": "m.room.redaction"},
        "m.relations": {"m.replace": {}},
    }


def test_stripped_state_has_four_fields():
    room = standard_room("12")
    event = room.state["m.room.join_rules", ""]
    stripped = {
        "type": "m.room.join_rules",
        "state_key": "",
        "sender": CREATOR,
        "content": {"join_rule": "public"},
    }
    assert stripped_state(event) == stripped
    assert strip_foreign(event.json) == stripped


@pytest.mark.parametrize(
    "change",
    [
        {"type": 5},
        {"type": None},
        {"state_key": None},
        {"state_key": []},
        {"sender": {}},
        {"content": None},
        {"content": []},
        {"content": "x"},
    ],
)
def test_foreign_state_of_another_shape_is_dropped(change):
    """T032"""
    good = {"type": "m.room.name", "state_key": "", "sender": "@a:b", "content": {"name": []}}
    assert strip_foreign({**good, "extra": 5}) == good
    assert strip_foreign({**good, **change}) is None
    without = {key: value for key, value in good.items() if key not in change}
    assert strip_foreign(without) is None


@pytest.mark.parametrize("value", [None, 5, "x", [], [{}], {}])
def test_what_is_no_event_at_all_is_dropped(value):
    """T032"""
    assert strip_foreign(value) is None
