"""The format and the sizes of events, by room version (receipt check 1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core.events import (
    MAX_DEPTH,
    Event,
    MalformedEvent,
    event_from_stored,
    join_rule_of,
    membership_of,
    parse_event,
)
from matrixbox.core.hashes import event_id_of
from matrixbox.core.json import RawNumber, encode_canonical
from matrixbox.core.room_versions import ROOM_VERSIONS
from tests.core.making import CREATOR, VERSIONS, Room, standard_room, versions

EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS)


def message(version: str, **changes):
    """A PDU of a message; None takes a field away."""
    room = standard_room(version)
    pdu = {**room.pdu("m.room.message", {"body": "x"}, sender=CREATOR), **changes}
    return room.rules, {key: value for key, value in pdu.items() if value is not None}


def malformed(version: str, **changes) -> MalformedEvent:
    rules, pdu = message(version, **changes)
    with pytest.raises(MalformedEvent) as caught:
        parse_event(rules, pdu)
    return caught.value


@EVERY_VERSION
def test_an_event_has_the_fields_of_its_pdu(version):
    room = standard_room(version)
    pdu = room.pdu("m.room.topic", {"topic": "x"}, sender=CREATOR, key="", unsigned={"age": 5})
    event = parse_event(room.rules, pdu)
    assert event.type == "m.room.topic"
    assert event.sender == CREATOR
    assert event.state_key == ""
    assert event.content == {"topic": "x"}
    assert event.room_id == room.room_id
    assert event.depth == pdu["depth"]
    assert event.origin_server_ts == pdu["origin_server_ts"]
    assert event.event_id == event_id_of(room.rules, pdu)
    assert event.prev_event_ids == (list(room.events)[-1],)
    assert set(event.auth_event_ids) == {
        auth.event_id for auth in room.selected("", CREATOR, None, {})
    }
    assert event.redacts is None
    assert not event.overlong
    assert event.rules is room.rules


@EVERY_VERSION
def test_unsigned_is_not_part_of_an_event(version):
    """[A3.04], T008"""
    for unsigned in ({"age": 5}, [], 5, "x"):
        rules, pdu = message(version, unsigned=unsigned)
        event = parse_event(rules, pdu)
        assert event.json == {key: value for key, value in pdu.items() if key != "unsigned"}


def test_the_repr_of_an_event_shows_no_content():
    """T109"""
    room = standard_room("12")
    event = room.make("m.room.message", {"body": "secret"}, sender=CREATOR)
    assert "secret" not in repr(event)
    assert event.event_id in repr(event)


def test_events_are_told_apart_by_identity():
    room = standard_room("12")
    event = room.make("m.room.message", {}, sender=CREATOR)
    again = event_from_stored(room.rules, event.event_id, event.json)
    assert event != again
    assert len({event, again}) == 2


@EVERY_VERSION
@pytest.mark.parametrize(
    "field",
    [
        "sender",
        "origin_server_ts",
        "type",
        "content",
        "depth",
        "hashes",
        "signatures",
        "auth_events",
        "prev_events",
    ],
)
def test_required_fields_must_be_there(version, field):
    """[A3.01]"""
    assert not malformed(version, **{field: None}).too_large


WRONG = {
    "type": [5, [], {}],
    "sender": [5, "", "alice", "@alice", "@a\0:b", "#a:b"],
    "state_key": [5, [], {}, True],
    "content": [5, [], "x", True],
    "hashes": [5, [], {}, {"sha256": 5}, {"sha256": None}],
    "signatures": [5, [], "x"],
    "depth": [-1, MAX_DEPTH + 1, 2**63 - 1, "5", 5.0, True, [], RawNumber("5.0")],
    "origin_server_ts": ["5", 1.5, True, [], 2**63, -(2**63) - 1, RawNumber("1.5")],
    "prev_events": [5, "x", {}, [5], [[]], [[5, {}]], ["no id"], ["$" + "a" * 255], [["$a:b"]]],
    "auth_events": [5, "x", {}, [5], [[]], [[5, {}]], ["no id"], ["$a\0"], [["$a:b", {}, 1]]],
    "room_id": [5, "", "room:a", "!", []],
}


@EVERY_VERSION
@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_fields_of_the_wrong_type_make_an_event_malformed(version, field, value):
    """[A3.01], T004"""
    malformed(version, **{field: value})


@EVERY_VERSION
def test_odd_types_in_other_fields_change_nothing(version):
    """T025, rule 7: nobody asks about them."""
    rules, pdu = message(
        version,
        content={"membership": [], "m.relates_to": 5, "msgtype": {}},
        signatures={"a": 5, "b": {"c": []}},
        hashes={"sha256": "", "sha512": []},
        origin=[],
        prev_state={},
        membership=5,
        redacts=[],
    )
    assert parse_event(rules, pdu).redacts is None


@EVERY_VERSION
def test_a_missing_room_id_is_malformed_but_for_new_create_events(version):
    """[A3.01], [A3.07], [K.01]"""
    malformed(version, room_id=None)
    room = Room(version)
    pdu = room.pdu("m.room.create", {"creator": CREATOR}, sender=CREATOR, key="", room_id=None)
    if version in versions(12):
        event = parse_event(room.rules, pdu)
        assert event.room_id == "!" + event.event_id[1:]
    else:
        with pytest.raises(MalformedEvent):
            parse_event(room.rules, pdu)


def test_a_create_event_with_a_room_id_still_makes_its_own():
    """rooms/v12 rule 1.2 is to reject it, not the format."""
    room = Room("12")
    event = room.make("m.room.create", {}, sender=CREATOR, key="", room_id="!other:a")
    assert event.room_id == "!" + event.event_id[1:]


@EVERY_VERSION
def test_event_ids_are_read_in_old_versions_only(version):
    """[A3.01], T006"""
    for value in (None, 5, "abc", "$abc", "$abc:", "@a:b"):
        if version in ("1", "2"):
            malformed(version, event_id=value)
        else:
            rules, pdu = message(version, event_id=value)
            assert parse_event(rules, pdu).event_id == event_id_of(rules, pdu)


@pytest.mark.parametrize("version", versions(3))
def test_pairs_are_no_citations_in_new_versions(version):
    malformed(version, prev_events=[["$a:b", {"sha256": "x"}]])


@pytest.mark.parametrize("version", ["1", "2"])
def test_plain_ids_are_no_citations_in_old_versions(version):
    malformed(version, prev_events=["$a:b"])


# --- counts


def ids(version: str, count: int):
    ids = [
        f"$event{number}:a" if version in ("1", "2") else f"$event{number}"
        for number in range(count)
    ]
    return [[id_, {}] for id_ in ids] if version in ("1", "2") else ids


@EVERY_VERSION
@pytest.mark.parametrize(("field", "most"), [("prev_events", 20), ("auth_events", 10)])
def test_too_many_citations_make_an_event_malformed(version, field, most):
    """[A3.02], T003"""
    rules, pdu = message(version, **{field: ids(version, most)})
    parse_event(rules, pdu)
    rules, pdu = message(version, **{field: ids(version, most + 1)})
    with pytest.raises(MalformedEvent):
        parse_event(rules, pdu)
    # but not in answers of /backfill
    event = parse_event(rules, pdu, exempt_from_counts=True)
    assert len(getattr(event, field[:-1] + "_ids")) == most + 1


@EVERY_VERSION
def test_a_parent_named_twice_counts_once(version):
    """T003"""
    one, two = ids(version, 2)
    rules, pdu = message(version, prev_events=[two, one, two] * 20, auth_events=[one, one] * 20)
    event = parse_event(rules, pdu)
    assert event.prev_event_ids == (
        ("$event1:a", "$event0:a") if version in ("1", "2") else (two, one)
    )
    assert len(event.auth_event_ids) == 40


# --- numbers


@EVERY_VERSION
def test_depth_is_an_integer_up_to_2_to_the_53(version):
    """T004"""
    for depth in (0, 1, MAX_DEPTH):
        rules, pdu = message(version, depth=depth)
        assert parse_event(rules, pdu).depth == depth
    malformed(version, depth=MAX_DEPTH + 1)


@EVERY_VERSION
def test_any_timestamp_is_taken_as_it_comes(version):
    """T024"""
    for ts in (0, -1, 2**53 - 1, -(2**53) + 1):
        rules, pdu = message(version, origin_server_ts=ts)
        assert parse_event(rules, pdu).origin_server_ts == ts
    for ts in (2**63 - 1, -(2**63)):
        if version in versions(1, 5):
            rules, pdu = message(version, origin_server_ts=RawNumber(str(ts)))
            event = parse_event(rules, pdu)
            assert event.origin_server_ts == ts
            stored = event_from_stored(rules, event.event_id, event.json)
            assert stored.origin_server_ts == ts
        else:
            malformed(version, origin_server_ts=ts)
    malformed(version, origin_server_ts=RawNumber(str(2**63)))


@EVERY_VERSION
@pytest.mark.parametrize(
    "value", [RawNumber("1.5"), RawNumber("1e10"), RawNumber("-0"), 2**53, 0.5]
)
def test_canonical_json_is_enforced_from_version_6_on(version, value):
    """[A2], [K.12], T086"""
    if version in versions(6):
        malformed(version, content={"a": [value]})
    else:
        rules, pdu = message(version, content={"a": [value]})
        assert parse_event(rules, pdu).content == {"a": [value]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
@EVERY_VERSION
def test_what_has_no_canonical_form_is_no_event(version, value):
    malformed(version, content={"a": value})


# --- sizes


@EVERY_VERSION
@pytest.mark.parametrize("filler", ["x", "ü", "\U0001f600"])
def test_an_event_may_take_65536_bytes_and_no_more(version, filler):
    """[A3.05], T001: bytes, with signatures, without unsigned."""
    rules, pdu = message(version, signatures={"a": {"ed25519:1": "x" * 86}})
    free = 65536 - len(encode_canonical(pdu))
    count, rest = divmod(free, len(filler.encode()))
    pdu["content"] = {"body": "x" + filler * count + "x" * rest}
    pdu["unsigned"] = {"x": "x" * 1000}
    event = parse_event(rules, pdu)
    assert len(encode_canonical(event.json)) == 65536
    pdu["content"]["body"] += "x"
    with pytest.raises(MalformedEvent) as caught:
        parse_event(rules, pdu)
    assert caught.value.too_large
    assert "65536" in caught.value.reason


def identifier(field: str, filler: str, count: int, version: str) -> str:
    """An identifier with `count` times the filler, rounded up to 255 by plain letters."""
    wrap = {"sender": "@{}:a", "room_id": "!{}:a", "event_id": "${}:a"}.get(field, "{}")
    return wrap.format(filler * count)


@EVERY_VERSION
@pytest.mark.parametrize("field", ["type", "state_key", "sender", "room_id", "event_id"])
def test_identifiers_take_255_bytes_and_no_more(version, field):
    """[A3.05], T002"""
    if field == "event_id" and version in versions(3):
        return
    around = len(identifier(field, "", 0, version))
    fits = identifier(field, "x", 255 - around, version)
    rules, pdu = message(version, **{field: fits})
    assert not parse_event(rules, pdu).overlong
    assert malformed(version, **{field: fits + "x"}).too_large


@EVERY_VERSION
@pytest.mark.parametrize("field", ["type", "state_key", "sender", "room_id", "event_id"])
def test_identifiers_over_255_bytes_but_not_characters_are_rejected_before_version_11(
    version, field
):
    """T002: others kept such events."""
    if field == "event_id" and version in versions(3):
        return
    long = identifier(field, "\U0001f600", 200, version)
    assert len(long) <= 255 < len(long.encode())
    if version in versions(11):
        assert malformed(version, **{field: long}).too_large
    else:
        rules, pdu = message(version, **{field: long})
        assert parse_event(rules, pdu).overlong


# --- redactions name their target


@EVERY_VERSION
def test_redactions_name_their_target_at_the_place_of_their_version(version):
    """[A3.06]"""
    room = standard_room(version)
    new = version in versions(11)
    for content, field, expected in (
        ({}, "$a", None if new else "$a"),
        ({"redacts": "$b"}, None, "$b" if new else None),
        ({"redacts": "$b"}, "$a", "$b" if new else "$a"),
        ({"redacts": 5}, ["x"], None),
        ({}, None, None),
    ):
        event = room.make("m.room.redaction", content, sender=CREATOR, redacts=field)
        assert event.redacts == expected
        assert event_from_stored(room.rules, event.event_id, event.json).redacts == expected
    other = room.make("m.room.message", {"redacts": "$b"}, sender=CREATOR, redacts="$a")
    assert other.redacts is None


# --- stored events


@EVERY_VERSION
def test_a_stored_event_is_the_parsed_one(version):
    room = standard_room(version)
    for event in room.events.values():
        stored = event_from_stored(room.rules, event.event_id, event.json)
        for field in Event.__attrs_attrs__:
            assert getattr(stored, field.name) == getattr(event, field.name), field.name


@EVERY_VERSION
def test_a_stored_event_names_a_parent_once(version):
    one, two = ids(version, 2)
    rules, pdu = message(version, prev_events=[two, one, two])
    event = parse_event(rules, pdu)
    assert event_from_stored(rules, event.event_id, pdu).prev_event_ids == event.prev_event_ids


# --- readers


def test_readers_take_text_only():
    room = standard_room("12")
    for value, expected in (("join", "join"), (5, None), (None, None), ([], None), (True, None)):
        event = room.make("x", {"membership": value, "join_rule": value}, sender=CREATOR)
        assert membership_of(event) == expected
        assert join_rule_of(event) == expected
    empty = room.make("x", {}, sender=CREATOR)
    assert membership_of(empty) is None
    assert membership_of(None) is None
    assert join_rule_of(empty) is None
    assert join_rule_of(None) is None


# --- anything

json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just(RawNumber("1.5")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FIELDS = list(message("1", state_key="", redacts="$a:b", unsigned={})[1])


@given(st.sampled_from(VERSIONS), st.dictionaries(st.sampled_from(FIELDS), json))
def test_any_value_in_any_field_gives_an_event_or_a_malformed_event(version, changes):
    """T009, T025, T090"""
    rules, pdu = message(version)
    try:
        event = parse_event(rules, {**pdu, **changes})
    except MalformedEvent:
        return
    assert event.event_id.startswith("$")


@given(json, st.sampled_from(VERSIONS))
def test_no_object_at_all_makes_parsing_fail_in_another_way(value, version):
    pdu = value if isinstance(value, dict) else {"type": value}
    with pytest.raises(MalformedEvent):
        parse_event(ROOM_VERSIONS[version], pdu)
