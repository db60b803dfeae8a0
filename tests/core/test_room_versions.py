"""The table of room versions against the table of the requirements [A2]."""

from __future__ import annotations

import pytest

from matrixbox.core.room_versions import (
    DEFAULT_VERSION,
    REDACTION_V1,
    REDACTION_V6,
    REDACTION_V8,
    REDACTION_V9,
    REDACTION_V11,
    ROOM_VERSIONS,
    StateResolution,
    is_room_version,
    rules_of_create,
)

# First version in which a flag is set, and the first in which it is not set any more.
SET_FROM_UNTIL = {
    "event_id_in_pdu": (1, 3),
    "event_id_url_safe": (4, 13),
    "exact_numbers": (1, 6),
    "strict_byte_limits": (11, 13),
    "room_id_is_create_hash": (12, 13),
    "redacts_in_content": (11, 13),
    "event_id_server_signs": (1, 3),
    "enforce_key_validity": (5, 13),
    "aliases_rule": (1, 6),
    "redaction_rule": (1, 3),
    "notifications_checked": (6, 13),
    "knock": (7, 13),
    "restricted": (8, 13),
    "knock_restricted": (10, 13),
    "float_power_levels": (1, 6),
    "integer_power_levels": (10, 13),
    "creator_is_sender": (11, 13),
    "privileged_creators": (12, 13),
}


def test_versions_1_to_12_are_known_and_12_is_the_default():
    """[A1.01], [A1.02]"""
    assert list(ROOM_VERSIONS) == [str(number) for number in range(1, 13)]
    assert DEFAULT_VERSION == "12"
    assert all(rules.version == version for version, rules in ROOM_VERSIONS.items())


@pytest.mark.parametrize("version", ROOM_VERSIONS)
def test_every_flag_is_set_in_the_versions_that_the_specification_says(version):
    """[A2]"""
    rules = ROOM_VERSIONS[version]
    flags = {name: getattr(rules, name) for name in SET_FROM_UNTIL}
    expected = {name: a <= int(version) < z for name, (a, z) in SET_FROM_UNTIL.items()}
    assert flags == expected


def test_no_flag_is_forgotten_here():
    fields = {field.name for field in ROOM_VERSIONS["1"].__attrs_attrs__}
    assert fields == {*SET_FROM_UNTIL, "version", "state_resolution", "redaction"}


@pytest.mark.parametrize("version", ROOM_VERSIONS)
def test_every_version_has_its_algorithms(version):
    """[A2]"""
    rules, number = ROOM_VERSIONS[version], int(version)
    assert rules.state_resolution is (
        StateResolution.V1
        if number == 1
        else StateResolution.V2_1
        if number == 12
        else StateResolution.V2
    )
    tables = {1: REDACTION_V1, 6: REDACTION_V6, 8: REDACTION_V8, 9: REDACTION_V9, 11: REDACTION_V11}
    assert rules.redaction is tables[max(first for first in tables if first <= number)]


@pytest.mark.parametrize("text", ["1", "1.2", "1.2-beta", "com.example.version", "a" * 32])
def test_the_grammar_of_versions(text):
    """[A1.03]"""
    assert is_room_version(text)


@pytest.mark.parametrize("text", ["", "a" * 33, "A", "a_b", "1 ", "1\n", "ä"])
def test_what_is_no_version(text):
    """[A1.03], T018"""
    assert not is_room_version(text)


@pytest.mark.parametrize(
    ("content", "version"),
    [({}, "1"), ({"room_version": "1"}, "1"), ({"room_version": "12"}, "12")],
)
def test_a_create_event_names_its_version(content, version):
    """[A1.04]"""
    assert rules_of_create(content) is ROOM_VERSIONS[version]


@pytest.mark.parametrize("version", ["13", "", "x" * 33, 1, 11.0, True, None, [], {}])
def test_unknown_versions_have_no_rules(version):
    """T018"""
    assert rules_of_create({"room_version": version}) is None
