"""Power levels as each room version reads them [A5.21]-[A5.24], T025."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core.events import creators_of, power_levels
from matrixbox.core.json import RawNumber
from matrixbox.core.levels import read_level
from matrixbox.core.room_versions import ROOM_VERSIONS
from tests.core.making import CREATOR, VERSIONS, Room, versions

EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS)


def level(version: str, value):
    return read_level(ROOM_VERSIONS[version], value)


@EVERY_VERSION
@pytest.mark.parametrize("value", [0, 50, -5, 2**53 - 1])
def test_integers_are_levels(version, value):
    assert level(version, value) == value


@EVERY_VERSION
@pytest.mark.parametrize("value", [None, True, False, [], {}, [50]])
def test_other_types_are_no_levels(version, value):
    assert level(version, value) is None


@EVERY_VERSION
@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("100", 100),
        ("000100", 100),
        ("+100", 100),
        ("-100", -100),
        ("+5", 5),
        ("5", 5),
        (" 100 ", 100),
        (" 00100 ", 100),
        (" +100 ", 100),
        (" -100 ", -100),
        ("\t\n100\u2003", 100),
        ("0", 0),
        ("-000", 0),
        ("0" * 70_000 + "7", 7),
        ("9" * 64, int("9" * 64)),
    ],
)
def test_integers_in_text_are_levels_up_to_version_9(version, text, number):
    """[A5.24], fragments/v1-stringy-power-levels"""
    assert level(version, text) == (number if version in versions(1, 9) else None)


@EVERY_VERSION
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "+",
        "-",
        "+-1",
        "--1",
        "1.0",
        "1e3",
        "1_000",
        "0x10",
        "abc",
        "1 0",
        "- 1",
        "١٠٠",
        "²",
        "1" * 65,
        "1" * 5000,
        "infinity",
        "50\x00",
    ],
)
def test_other_text_is_no_level(version, text):
    """[A5.24]"""
    assert level(version, text) is None


@EVERY_VERSION
@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5.114698E4", 51146),
        ("50.57", 50),
        ("-50.57", -50),
        ("-0.9", 0),
        ("0.4", 0),
        ("0.5", 0),
        ("1.2", 1),
        ("-1.4", -1),
        ("0.99999999999999999999", 0),
        ("1e2", 100),
        ("1E+2", 100),
        ("12345e-2", 123),
        ("9007199254740993.5", 9007199254740993),
        ("1e-400", 0),
        ("1e-99999999999999999999", 0),
        ("100000000000000000000", 10**20),
        ("-0", 0),
        ("1.7e308", 17 * 10**307),
    ],
)
def test_fractions_are_cut_off_up_to_version_5(version, text, number):
    """[A5.24], fragments/v1-floaty-power-levels"""
    assert level(version, RawNumber(text)) == (number if version in versions(1, 5) else None)


@EVERY_VERSION
@pytest.mark.parametrize("text", ["1e309", "-1e309", "1e99999999999999999999"])
def test_numbers_out_of_the_range_of_a_double_are_no_levels(version, text):
    assert level(version, RawNumber(text)) is None


@EVERY_VERSION
@pytest.mark.parametrize(
    ("value", "number"),
    [(50.57, 50), (-1.5, -1), (1e16, 10**16), (math.inf, None), (math.nan, None)],
)
def test_floats_are_read_like_the_numbers_they_were(version, value, number):
    assert level(version, value) == (number if version in versions(1, 5) else None)


# --- the reader


def room_with(version: str, content) -> tuple[Room, object]:
    room = Room(version)
    event = None
    if content is not None:
        event = room.put("m.room.power_levels", content, sender=CREATOR, key="")
    return room, power_levels(room.rules, room.create, event)


@EVERY_VERSION
def test_defaults_hold_with_and_without_an_event(version):
    """[A5.21]"""
    for content in (None, {}):
        _, levels = room_with(version, content)
        assert levels.ban == levels.kick == levels.redact == 50
        assert levels.invite == 0
        assert levels.required_for("m.x", is_state=True) == 50
        assert levels.required_for("m.x", is_state=False) == 0
        assert levels.notification("room") == 50
        assert levels.notification("other") == 50
        assert levels.user("@other:a") == 0


@EVERY_VERSION
def test_the_creator_is_at_100_without_an_event_and_infinite_in_version_12(version):
    """[A5.22]"""
    _, levels = room_with(version, None)
    assert levels.user(CREATOR) == (math.inf if version in versions(12) else 100)
    _, levels = room_with(version, {"users_default": 7})
    assert levels.user(CREATOR) == (math.inf if version in versions(12) else 7)
    _, levels = room_with(version, {"users": {CREATOR: 5}})
    assert levels.user(CREATOR) == (math.inf if version in versions(12) else 5)


@EVERY_VERSION
def test_what_the_event_says_holds(version):
    """[A5.16]"""
    _, levels = room_with(
        version,
        {
            "ban": 1,
            "kick": 2,
            "redact": 3,
            "invite": 4,
            "state_default": 5,
            "events_default": 6,
            "users_default": 7,
            "events": {"m.x": 8},
            "users": {"@a:b": 9},
            "notifications": {"room": 10},
        },
    )
    assert (levels.ban, levels.kick, levels.redact, levels.invite) == (1, 2, 3, 4)
    assert levels.required_for("m.y", is_state=True) == 5
    assert levels.required_for("m.y", is_state=False) == 6
    assert levels.user("@c:d") == 7
    assert levels.required_for("m.x", is_state=True) == 8
    assert levels.required_for("m.x", is_state=False) == 8
    assert levels.user("@a:b") == 9
    assert levels.notification("room") == 10
    assert levels.notification("x") == 50


@EVERY_VERSION
def test_text_is_read_where_the_version_does(version):
    _, levels = room_with(version, {"ban": "10", "users": {"@a:b": " 20 "}, "events": {"x": "5"}})
    old = version in versions(1, 9)
    assert levels.ban == (10 if old else 50)
    assert levels.user("@a:b") == (20 if old else 0)
    assert levels.required_for("x", is_state=True) == (5 if old else 50)


@EVERY_VERSION
@pytest.mark.parametrize("odd", [None, [], "abc", True, {"users": 5}, 5])
def test_tables_of_the_wrong_type_count_as_absent(version, odd):
    """T025"""
    _, levels = room_with(
        version, {"users": odd, "events": odd, "notifications": odd, "ban": [odd]}
    )
    assert levels.user("@a:b") == 0
    assert levels.required_for("x", is_state=True) == 50
    assert levels.notification("room") == 50
    assert levels.ban == 50


@pytest.mark.parametrize(
    ("version", "content", "creators"),
    [
        ("1", {"creator": "@x:y"}, {"@x:y"}),
        ("10", {"creator": "@x:y"}, {"@x:y"}),
        ("10", {"creator": 5}, set()),
        ("10", {"creator": ["@x:y"]}, set()),
        ("11", {"creator": "@x:y"}, {CREATOR}),
        ("11", {"additional_creators": ["@x:y"]}, {CREATOR}),
        ("12", {"creator": "@x:y"}, {CREATOR}),
        ("12", {"additional_creators": ["@x:y", "@z:y"]}, {CREATOR, "@x:y", "@z:y"}),
        ("12", {"additional_creators": []}, {CREATOR}),
        ("12", {"additional_creators": "@x:y"}, {CREATOR}),
        ("12", {"additional_creators": ["@x:y", 5, None]}, {CREATOR, "@x:y"}),
    ],
)
def test_creators_are_found_where_the_version_says(version, content, creators):
    """[A2]"""
    room = Room(version, **content)
    assert creators_of(room.create) == creators
    levels = power_levels(room.rules, room.create, None)
    for user in creators:
        assert levels.user(user) == (math.inf if version == "12" else 100)


def test_additional_creators_are_infinite_whatever_the_event_says():
    room = Room("12", additional_creators=["@x:y"])
    event = room.put("m.room.power_levels", {"users_default": -5}, sender=CREATOR, key="")
    levels = power_levels(room.rules, room.create, event)
    assert levels.user("@x:y") == math.inf
    assert levels.user("@z:y") == -5


def test_the_reader_of_an_event_is_made_once():
    room = Room("12")
    assert power_levels(room.rules, room.create, None) is power_levels(
        room.rules, room.create, None
    )


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats()
    | st.just(RawNumber("1e999")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(VERSIONS), values)
def test_reading_a_level_never_fails(version, value):
    """T025"""
    assert isinstance(level(version, value), int | None)
    assert not isinstance(level(version, value), bool)
