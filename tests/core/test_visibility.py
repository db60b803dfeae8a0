"""History visibility: every combination against the specification's list [C9.01], [C9.02], T104."""

from __future__ import annotations

from itertools import product

import pytest

from matrixbox.core.visibility import HistoryVisibility, Standing, may_see
from tests.core.making import CREATOR, standard_room

WORLD, SHARED, INVITED, JOINED = (
    HistoryVisibility.WORLD_READABLE,
    HistoryVisibility.SHARED,
    HistoryVisibility.INVITED,
    HistoryVisibility.JOINED,
)
MEMBERSHIPS = [None, "invite", "join", "knock", "leave", "ban"]


def by_the_text(setting: HistoryVisibility, membership: str | None, joined_later: bool) -> bool:
    """The five rules, word for word."""
    if setting is WORLD:
        return True
    if membership == "join":
        return True
    if setting is SHARED and joined_later:
        return True
    return membership == "invite" and setting is INVITED


@pytest.mark.parametrize("setting", HistoryVisibility)
@pytest.mark.parametrize("membership", MEMBERSHIPS)
@pytest.mark.parametrize("later", [False, True])
def test_one_user_and_an_ordinary_event(setting, membership, later):
    """[C9.01]"""
    standing = Standing.at(membership, joined_later=later)
    assert may_see(setting, setting, [standing]) is by_the_text(setting, membership, later)


@pytest.mark.parametrize(("before", "after"), list(product(HistoryVisibility, repeat=2)))
def test_changes_of_the_setting_are_seen_by_the_laxer_one(before, after):
    """[C9.02]"""
    for membership in MEMBERSHIPS:
        for later in (False, True):
            expected = by_the_text(before, membership, later) or by_the_text(
                after, membership, later
            )
            standing = Standing.at(membership, joined_later=later)
            assert may_see(before, after, [standing]) is expected


@pytest.mark.parametrize(("before", "after"), list(product(MEMBERSHIPS, repeat=2)))
def test_one_s_own_membership_is_seen_by_the_laxer_one(before, after):
    """[C9.02]"""
    for setting in HistoryVisibility:
        for later in (False, True):
            expected = by_the_text(setting, before, later) or by_the_text(setting, after, later)
            assert may_see(setting, setting, [Standing(before, after, later)]) is expected


def test_a_server_sees_what_one_of_its_users_sees():
    """T106"""
    outside, inside = Standing.at(None), Standing.at("join")
    assert may_see(JOINED, JOINED, [outside, inside])
    assert not may_see(JOINED, JOINED, [outside, outside])
    assert not may_see(JOINED, JOINED, [])
    assert may_see(WORLD, WORLD, [])


def test_after_leaving_nothing_new_is_seen():
    """T105"""
    left = Standing.at("leave")
    assert not any(may_see(setting, setting, [left]) for setting in (SHARED, INVITED, JOINED))
    # the leave itself is
    assert may_see(JOINED, JOINED, [Standing("join", "leave")])


@pytest.mark.parametrize(
    ("value", "setting"),
    [
        ("world_readable", WORLD),
        ("shared", SHARED),
        ("invited", INVITED),
        ("joined", JOINED),
        ("whatever", SHARED),
        ("WORLD_READABLE", SHARED),
        (None, SHARED),
        (5, SHARED),
        (["joined"], SHARED),
    ],
)
def test_what_is_not_understood_is_shared(value, setting):
    """[C9.02]"""
    room = standard_room("12")
    content = {"history_visibility": value}
    event = room.make("m.room.history_visibility", content, sender=CREATOR, key="")
    assert HistoryVisibility.of(event) is setting


def test_no_setting_is_shared():
    room = standard_room("12")
    assert HistoryVisibility.of(None) is SHARED
    event = room.make("m.room.history_visibility", {}, sender=CREATOR, key="")
    assert HistoryVisibility.of(event) is SHARED
