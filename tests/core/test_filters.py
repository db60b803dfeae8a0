"""Client filters: reading and matching [C8.08]-[C8.11]."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core.filters import (
    EventFilter,
    Filter,
    InvalidFilter,
    parse_event_filter,
    parse_filter,
    project,
)
from matrixbox.core.identifiers import RoomId
from matrixbox.core.json import encode
from matrixbox.core.paths import parse_path


def test_an_empty_filter_lets_everything_through():
    found = parse_filter({})
    assert found == Filter()
    assert found.room.timeline.allows("m.room.message", "@a:b", {})
    assert found.room.allows_room("!a:b")
    assert found.room.state.allows_room("!a:b")
    assert not found.room.include_leave
    assert not found.federation_format
    assert found.room.timeline.limit is None
    event = {"a": 1}
    assert found.project(event) is event


def test_every_part_is_read():
    body = {
        "event_fields": ["type", "content.m\\.x"],
        "event_format": "federation",
        "presence": {"senders": ["@a:b"]},
        "account_data": {"types": ["m.direct"]},
        "room": {
            "rooms": ["!a:b"],
            "not_rooms": ["!c:d"],
            "include_leave": True,
            "state": {"lazy_load_members": True, "include_redundant_members": True},
            "timeline": {"limit": 5, "unread_thread_notifications": True, "contains_url": False},
            "ephemeral": {"not_types": ["m.typing"]},
            "account_data": {"not_senders": ["@x:y"], "rooms": ["!e:f"], "not_rooms": ["!g:h"]},
            "org.unknown": 5,
        },
        "org.unknown": [],
    }
    found = parse_filter(body)
    assert found.event_fields == (("type",), ("content", "m.x"))
    assert found.federation_format
    assert found.presence.senders == {"@a:b"}
    assert found.account_data.allows("m.direct", None)
    assert not found.account_data.allows("m.tag", None)
    assert found.room.rooms == {"!a:b"}
    assert found.room.not_rooms == {"!c:d"}
    assert found.room.include_leave
    assert found.room.state.lazy_load_members
    assert found.room.state.include_redundant_members
    assert not found.room.timeline.lazy_load_members
    assert not found.room.timeline.include_redundant_members
    assert found.room.timeline.limit == 5
    assert found.room.timeline.unread_thread_notifications
    assert found.room.timeline.contains_url is False
    assert not found.room.ephemeral.allows("m.typing", None)
    assert found.room.account_data.not_senders == {"@x:y"}
    assert found.room.account_data.rooms == {"!e:f"}
    assert found.room.account_data.not_rooms == {"!g:h"}
    assert parse_event_filter(body["room"]["timeline"]) == found.room.timeline


BAD = [
    [],
    None,
    "x",
    {"room": []},
    {"room": None},
    {"presence": 5},
    {"event_format": "html"},
    {"event_format": None},
    {"event_format": []},
    {"event_fields": "type"},
    {"event_fields": [5]},
    {"room": {"rooms": "!a:b"}},
    {"room": {"rooms": ["a:b"]}},
    {"room": {"rooms": [5]}},
    {"room": {"not_rooms": ["!"]}},
    {"room": {"include_leave": 1}},
    {"room": {"include_leave": None}},
    {"room": {"timeline": []}},
    {"room": {"timeline": {"limit": -1}}},
    {"room": {"timeline": {"limit": 1.0}}},
    {"room": {"timeline": {"limit": True}}},
    {"room": {"timeline": {"limit": None}}},
    {"room": {"timeline": {"types": {}}}},
    {"room": {"timeline": {"types": [None]}}},
    {"room": {"timeline": {"not_types": "m.x"}}},
    {"room": {"timeline": {"senders": ["alice"]}}},
    {"room": {"timeline": {"senders": [["@a:b"]]}}},
    {"room": {"timeline": {"not_senders": ["@a"]}}},
    {"room": {"timeline": {"contains_url": "true"}}},
    {"room": {"state": {"lazy_load_members": 1}}},
    {"room": {"state": {"include_redundant_members": "x"}}},
    {"room": {"ephemeral": {"unread_thread_notifications": 0}}},
    {"account_data": {"rooms": [""]}},
]


@pytest.mark.parametrize("body", BAD)
def test_what_is_no_filter_is_refused(body):
    """T090"""
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(body)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("body", [[], None, {"limit": 0}])
def test_what_is_no_event_filter_is_refused(body):
    with pytest.raises(InvalidFilter):
        parse_event_filter(body)


# --- matching


def timeline(**body) -> EventFilter:
    return parse_event_filter(body)


@pytest.mark.parametrize(
    ("types", "not_types", "event_type", "passes"),
    [
        (["m.room.message"], None, "m.room.message", True),
        (["m.room.message"], None, "m.room.member", False),
        (["m.room.*"], None, "m.room.member", True),
        (["m.*.member", "x"], None, "m.room.member", True),
        (["*"], None, "anything", True),
        ([], None, "m.room.message", False),
        (None, [], "m.room.message", True),
        (None, ["m.room.*"], "m.room.message", False),
        (None, ["m.room.*"], "m.reaction", True),
        (["m.room.message"], ["m.room.*"], "m.room.message", False),
        (["m.room.?"], None, "m.room.x", False),
        (["m.room.?"], None, "m.room.?", True),
    ],
)
def test_types_match_with_stars(types, not_types, event_type, passes):
    """[C8.09]"""
    body = {"types": types, "not_types": not_types}
    found = timeline(**{key: value for key, value in body.items() if value is not None})
    assert found.allows(event_type, "@a:b", {}) is passes


@pytest.mark.parametrize(
    ("senders", "not_senders", "sender", "passes"),
    [
        (["@a:b"], None, "@a:b", True),
        (["@a:b"], None, "@c:d", False),
        ([], None, "@a:b", False),
        (None, ["@a:b"], "@a:b", False),
        (None, ["@a:b"], "@c:d", True),
        (["@a:b"], ["@a:b"], "@a:b", False),
        (["@a:b"], None, None, False),
        (None, ["@a:b"], None, True),
    ],
)
def test_senders_match_exactly(senders, not_senders, sender, passes):
    """[C8.09]"""
    body = {"senders": senders, "not_senders": not_senders}
    found = timeline(**{key: value for key, value in body.items() if value is not None})
    assert found.allows("m.x", sender, {}) is passes


@pytest.mark.parametrize(
    ("rooms", "not_rooms", "room", "passes"),
    [
        (None, None, "!a:b", True),
        (["!a:b"], None, "!a:b", True),
        (["!a:b"], None, "!c:d", False),
        ([], None, "!a:b", False),
        (None, ["!a:b"], "!a:b", False),
        (["!a:b"], ["!a:b"], "!a:b", False),
    ],
)
def test_rooms_match_exactly(rooms, not_rooms, room, passes):
    """[C8.09]"""
    body = {"rooms": rooms, "not_rooms": not_rooms}
    body = {key: value for key, value in body.items() if value is not None}
    assert timeline(**body).allows_room(room) is passes
    assert parse_filter({"room": body}).room.allows_room(room) is passes


def test_events_with_and_without_url():
    """[C8.09]"""
    with_url, without = {"url": None}, {"body": "x"}
    assert timeline(contains_url=True).allows("m.x", "@a:b", with_url)
    assert not timeline(contains_url=True).allows("m.x", "@a:b", without)
    assert not timeline(contains_url=True).allows("m.x", "@a:b")
    assert not timeline(contains_url=False).allows("m.x", "@a:b", with_url)
    assert timeline(contains_url=False).allows("m.x", "@a:b", without)
    assert timeline(contains_url=False).allows("m.x", "@a:b", None)


# --- projection

EVENT = {
    "type": "m.room.message",
    "content": {"body": "x", "m.relates_to": {"rel_type": "m.thread", "event_id": "$a"}, "n": None},
    "unsigned": {},
}


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ([], {}),
        (["type"], {"type": "m.room.message"}),
        (["content.body"], {"content": {"body": "x"}}),
        (["content.n", "content.body"], {"content": {"body": "x", "n": None}}),
        (["content.missing", "missing", "type.x"], {}),
        (["content", "content.body"], {"content": EVENT["content"]}),
        (["content.body", "content"], {"content": EVENT["content"]}),
        (
            ["content.m\\.relates_to.event_id", "content.body"],
            {"content": {"body": "x", "m.relates_to": {"event_id": "$a"}}},
        ),
        (
            ["content.m\\.relates_to", "content.m\\.relates_to.event_id"],
            {"content": {"m.relates_to": EVENT["content"]["m.relates_to"]}},
        ),
        (["unsigned"], {"unsigned": {}}),
    ],
)
def test_only_the_fields_asked_for_are_kept(fields, kept):
    """[C8.11]"""
    found = parse_filter({"event_fields": fields}).project(EVENT)
    assert found == kept
    encode(found)
    assert EVENT["content"]["body"] == "x"


json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab@!:.", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "room",
                    "presence",
                    "state",
                    "timeline",
                    "limit",
                    "types",
                    "senders",
                    "rooms",
                    "event_fields",
                    "a",
                    "b",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(json)
def test_any_json_gives_a_filter_or_is_refused(value):
    """T090"""
    try:
        found = parse_filter(value)
    except InvalidFilter:
        return
    found.room.timeline.allows("m.x", "@a:b", {})


@given(json, st.lists(st.text("ab.\\", max_size=5)))
def test_projection_keeps_nothing_that_was_not_there(value, fields):
    event = value if isinstance(value, dict) else {"a": value}
    kept = project(event, [parse_path(field) for field in fields])

    def inside(part, whole) -> bool:
        if isinstance(part, dict) and isinstance(whole, dict):
            return all(key in whole and inside(part[key], whole[key]) for key in part)
        return part == whole

    assert inside(kept, event)


def test_a_filter_of_events_is_closed_in_a_room_that_it_does_not_name():
    here, there = RoomId("!here:a.test"), RoomId("!there:a.test")
    wanted = EventFilter(rooms=frozenset([here]))
    assert wanted.in_room(here) is wanted
    assert not wanted.in_room(there).allows("m.room.message", "@a:a.test")
