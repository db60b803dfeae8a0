"""Every authorisation rule in every room version that has it, allowed and refused [A5]."""

from __future__ import annotations

import pytest

from matrixbox.core.events import CREATE, JOIN_RULES, POWER_LEVELS
from tests.core.auth_cases import BOB, CAROL, CASES, NEW, RULES, Case, verdict_of
from tests.core.making import VERSIONS, Room, standard_room, versions

CELLS = [(case, version) for case in CASES for version in case.versions]


@pytest.mark.parametrize(
    ("case", "version"),
    CELLS,
    ids=[f"v{version}-{case.rule}-{case.name}".replace(" ", "_") for case, version in CELLS],
)
def test_rule(case: Case, version: str):
    verdict = verdict_of(case, version)
    if case.reason is None:
        assert verdict is None
    else:
        assert verdict is not None
        assert case.reason in verdict


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_an_allowed_and_a_refused_case_in_every_version_that_has_it(rule: str):
    needed = set(versions(*RULES[rule]))
    allowed = {v for case in CASES if case.rule == rule and not case.reason for v in case.versions}
    refused = {v for case in CASES if case.rule == rule and case.reason for v in case.versions}
    assert needed <= allowed
    assert needed <= refused


def test_no_case_stands_twice():
    cells = [(case.rule, case.name, version) for case, version in CELLS]
    assert len(cells) == len(set(cells))


def test_overlong_identifiers_are_rejected():
    """T002"""
    for version in versions(1, 10):
        room = standard_room(version)
        event = room.make("m.room.message", {}, sender="@" + "ü" * 200 + ":two.test")
        cited = room.selected("m.room.message", event.sender, None, {})
        assert "255 bytes" in (room.citations_verdict(event, cited, room.create) or "")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_create_event_needs_no_auth_events(version: str):
    """Rule 1 decides alone."""
    room = Room(version)
    assert room.citations_verdict(room.create, [], None) is None
    room.rejected.add(room.create.event_id)
    assert room.citations_verdict(room.create, [], None) is None


# --- auth events selection [A5.25]


def selection(version: str, type_: str, key: str | None, **content):
    from matrixbox.core.auth import select_auth_keys

    room = Room(version)
    return select_auth_keys(room.rules, type_, BOB, key, content)


def base(version: str) -> list[tuple[str, str]]:
    create = [] if version == "12" else [CREATE]
    return [*create, POWER_LEVELS, ("m.room.member", BOB)]


def member(user: str) -> tuple[str, str]:
    return ("m.room.member", user)


@pytest.mark.parametrize("version", VERSIONS)
def test_events_select_what_authorises_them(version: str):
    """Server-Server API, "Auth events selection" """
    plain = base(version)
    assert selection(version, "m.room.create", "") == ()
    assert list(selection(version, "m.room.message", None)) == plain
    assert list(selection(version, "m.room.topic", NEW, membership="join")) == plain
    assert list(selection(version, "m.room.member", BOB, membership="leave")) == plain
    assert list(selection(version, "m.room.member", None, membership="leave")) == plain
    assert list(selection(version, "m.room.member", BOB)) == plain
    for membership in ("leave", "ban", "x", None, ["join"]):
        found = selection(version, "m.room.member", NEW, membership=membership)
        assert list(found) == [*plain, member(NEW)]
    for membership in ("join", "knock"):
        found = selection(version, "m.room.member", BOB, membership=membership)
        assert list(found) == [*plain, JOIN_RULES]
    found = selection(version, "m.room.member", NEW, membership="invite")
    assert list(found) == [*plain, member(NEW), JOIN_RULES]


@pytest.mark.parametrize("version", VERSIONS)
def test_third_party_invites_select_their_token(version: str):
    expected = [*base(version), member(NEW), JOIN_RULES]
    for invite, more in (
        ({"signed": {"token": "abc"}}, [("m.room.third_party_invite", "abc")]),
        ({"signed": {"token": 5}}, []),
        ({"signed": {}}, []),
        ({"signed": "abc"}, []),
        ({}, []),
        (None, []),
    ):
        found = selection(
            version, "m.room.member", NEW, membership="invite", third_party_invite=invite
        )
        assert list(found) == expected + more
    found = selection(
        version,
        "m.room.member",
        BOB,
        membership="join",
        third_party_invite={"signed": {"token": "abc"}},
    )
    assert ("m.room.third_party_invite", "abc") not in found


@pytest.mark.parametrize("version", VERSIONS)
def test_restricted_joins_select_the_authorising_user(version: str):
    plain = [*base(version), JOIN_RULES]
    for user, more in ((CAROL, [member(CAROL)]), (BOB, []), (5, []), (None, [])):
        found = selection(
            version,
            "m.room.member",
            BOB,
            membership="join",
            join_authorised_via_users_server=user,
        )
        assert list(found) == plain + (more if version in versions(8) else [])
    found = selection(
        version,
        "m.room.member",
        BOB,
        membership="leave",
        join_authorised_via_users_server=CAROL,
    )
    assert member(CAROL) not in found
