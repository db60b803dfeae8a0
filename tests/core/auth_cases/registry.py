"""The rules, and the list in which the cases register."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.core.making import Room, standard_room, versions

MOD = "@mod:one.test"  # level 50
HALF = "@half:two.test"  # level 25
BOB = "@bob:two.test"
CAROL = "@carol:one.test"
NEW = "@new:three.test"  # not in the room

Verdict = str | None
Build = Callable[[Room], Verdict]


class Case(NamedTuple):
    rule: str
    name: str
    versions: tuple[str, ...]
    reason: str | None  # part of the expected reason; None: allowed
    build: Build


# The rules, with the first and the last version in which they exist.
RULES: dict[str, tuple[int, int]] = {
    "1.1 prev_events": (1, 12),
    "1.2 domain of the room ID": (1, 11),
    "1.2 no room ID": (12, 12),
    "1.3 room version": (1, 12),
    "1.4 creator": (1, 10),
    "1.4 additional creators": (12, 12),
    "2 room ID of a create event": (12, 12),
    "3.1 duplicates": (1, 12),
    "3.2 selection": (1, 12),
    "3.3 rejected": (1, 12),
    "3.4 create among them": (1, 11),
    "3.5 same room": (1, 12),
    "4 federate": (1, 12),
    "aliases": (1, 5),
    "5.1 state_key and membership": (1, 12),
    "5.2 authorising signature": (8, 12),
    "5.3.1 first join": (1, 12),
    "5.3.2 for oneself": (1, 12),
    "5.3.3 banned": (1, 12),
    "5.3.4 invite": (1, 12),
    "5.3.4 knock": (7, 12),
    "5.3.5 restricted": (8, 12),
    "5.3.5 knock_restricted": (10, 12),
    "5.3.6 public": (1, 12),
    "5.4.1.1 third party banned": (1, 12),
    "5.4.1.2 third party signed": (1, 12),
    "5.4.1.3 third party mxid and token": (1, 12),
    "5.4.1.4 third party user": (1, 12),
    "5.4.1.5 third party token": (1, 12),
    "5.4.1.6 third party sender": (1, 12),
    "5.4.1.7 third party keys": (1, 12),
    "5.4.2 inviter joined": (1, 12),
    "5.4.3 invited": (1, 12),
    "5.4.4 invite level": (1, 12),
    "5.5.1 own leave": (1, 12),
    "5.5.1 own knock": (7, 12),
    "5.5.2 kicker joined": (1, 12),
    "5.5.3 unban": (1, 12),
    "5.5.4 kick level": (1, 12),
    "5.5.4 target level": (1, 12),
    "5.6.1 banning user joined": (1, 12),
    "5.6.2 ban level": (1, 12),
    "5.6.2 target level": (1, 12),
    "5.7.1 knock": (7, 12),
    "5.7.1 knock_restricted": (10, 12),
    "5.7.2 for oneself": (7, 12),
    "5.7.3 membership": (7, 12),
    "5.8 unknown membership": (1, 12),
    "6 joined": (1, 12),
    "7 third party invites": (1, 12),
    "8 required level": (1, 12),
    "9 state of users": (1, 12),
    "10.1 named levels": (10, 12),
    "10.2 tables": (10, 12),
    "10.3 users": (1, 12),
    "10.3 text": (1, 9),
    "10.3 floats": (1, 5),
    "10.4 creators": (12, 12),
    "10.5 first levels": (1, 12),
    "10.6.1 named, old": (1, 12),
    "10.6.2 named, new": (1, 12),
    "10.7 events, old": (1, 12),
    "10.8 events, new": (1, 12),
    "10.7 notifications, old": (6, 12),
    "10.8 notifications, new": (6, 12),
    "10.9 users, old": (1, 12),
    "10.10 users, new": (1, 12),
    "redaction": (1, 2),
}

CASES: list[Case] = []


def _register(
    rule: str, first: int | None, last: int | None, reason: str | None
) -> Callable[[Build], Build]:
    start, end = RULES[rule]
    start, end = start if first is None else first, end if last is None else last

    def register(build: Build) -> Build:
        CASES.append(Case(rule, build.__name__, versions(start, end), reason, build))
        return build

    return register


def allows(
    rule: str, *, first: int | None = None, last: int | None = None
) -> Callable[[Build], Build]:
    """The rule lets this event pass, in the versions that have it or in those given."""
    return _register(rule, first, last, None)


def refuses(
    rule: str, reason: str, *, first: int | None = None, last: int | None = None
) -> Callable[[Build], Build]:
    """The rule refuses this event for a reason that contains the words."""
    return _register(rule, first, last, reason)


def verdict_of(case: Case, version: str) -> Verdict:
    """Run one cell of the table."""
    return case.build(standard_room(version))


def membership(
    room: Room,
    user: str,
    value: Any,
    *,
    by: str | None = None,
    how: dict[str, Any] | None = None,
    **content: Any,
) -> Verdict:
    """The verdict on a change of a user's membership, by the user unless told otherwise."""
    body = {"membership": value, **content}
    return room.verdict(
        room.make("m.room.member", body, sender=by or user, key=user, **(how or {}))
    )
