"""Rules 5.1 to 5.3: member events in general, and joins."""

from __future__ import annotations

from typing import Any

from tests.core.auth_cases.registry import (
    BOB,
    CAROL,
    MOD,
    NEW,
    Verdict,
    allows,
    membership,
    refuses,
)
from tests.core.making import CREATOR, Room

# --- 5. m.room.member


@allows("5.1 state_key and membership")
def member_with_both(room: Room) -> Verdict:
    return membership(room, BOB, "join")


@refuses("5.1 state_key and membership", "without state_key or membership")
def member_without_state_key(room: Room) -> Verdict:
    return room.verdict(room.make("m.room.member", {"membership": "join"}, sender=BOB))


@refuses("5.1 state_key and membership", "without state_key or membership")
def member_without_membership(room: Room) -> Verdict:
    return room.verdict(room.make("m.room.member", {}, sender=BOB, key=BOB))


SIGNED_BY_ONE = {"signatures": {"one.test": {"ed25519:1": "x"}}}


@allows("5.2 authorising signature")
def join_with_the_authorising_signature(room: Room) -> Verdict:
    return membership(room, NEW, "join", how=SIGNED_BY_ONE, join_authorised_via_users_server=CAROL)


@refuses("5.2 authorising signature", "authorising server has not signed")
def join_without_the_authorising_signature(room: Room) -> Verdict:
    return membership(room, NEW, "join", how=SIGNED_BY_ONE, join_authorised_via_users_server=BOB)


@refuses("5.2 authorising signature", "authorising server has not signed")
def leave_without_the_authorising_signature(room: Room) -> Verdict:
    return membership(room, BOB, "leave", how=SIGNED_BY_ONE, join_authorised_via_users_server=BOB)


@refuses("5.2 authorising signature", "authorising server has not signed")
def join_authorised_by_nobody(room: Room) -> Verdict:
    return membership(room, NEW, "join", join_authorised_via_users_server=None)


@refuses("5.2 authorising signature", "authorising server has not signed")
def join_with_an_authorising_signature_of_another_kind(room: Room) -> Verdict:
    how = {"signatures": {"one.test": {"rsa:1": "x"}}}
    return membership(room, NEW, "join", how=how, join_authorised_via_users_server=CAROL)


@allows("5.2 authorising signature", first=1, last=7)
def join_with_an_authorising_user_in_old_versions(room: Room) -> Verdict:
    return membership(room, NEW, "join", how=SIGNED_BY_ONE, join_authorised_via_users_server=BOB)


# --- 5.3 join


def empty_room(version: str, **content: Any) -> Room:
    """A room of which only the create event is there."""
    return Room(version, **content)


@allows("5.3.1 first join")
def the_creator_s_first_join(room: Room) -> Verdict:
    return membership(empty_room(room.version), CREATOR, "join")


@allows("5.3.1 first join")
def the_creator_s_first_join_by_somebody_else(room: Room) -> Verdict:
    # The rule asks for the state_key only.
    return membership(empty_room(room.version), CREATOR, "join", by=CAROL)


@refuses("5.3.1 first join", "join rule")
def a_first_join_of_somebody_else(room: Room) -> Verdict:
    return membership(empty_room(room.version), CAROL, "join")


@refuses("5.3.1 first join", "join rule")
def a_second_join_of_the_creator(room: Room) -> Verdict:
    empty = empty_room(room.version)
    first = empty.make("m.room.member", {"membership": "join"}, sender=CREATOR, key=CREATOR)
    return membership(empty, CREATOR, "join", how={"prev": [first]})


@refuses("5.3.1 first join", "join rule")
def a_join_of_the_creator_with_two_parents(room: Room) -> Verdict:
    empty = empty_room(room.version)
    other = empty.make("m.room.message", {}, sender=CREATOR)
    return membership(empty, CREATOR, "join", how={"prev": [empty.create, other]})


@refuses("5.3.1 first join", "join rule")
def a_join_of_the_creator_that_names_its_parent_twice(room: Room) -> Verdict:
    empty = empty_room(room.version)
    return membership(empty, CREATOR, "join", how={"prev": [empty.create, empty.create]})


@allows("5.3.1 first join", last=10)
def the_first_join_of_the_creator_in_content(room: Room) -> Verdict:
    return membership(empty_room(room.version, creator=CAROL), CAROL, "join")


@refuses("5.3.1 first join", "join rule", last=10)
def the_first_join_of_a_sender_who_is_not_the_creator(room: Room) -> Verdict:
    return membership(empty_room(room.version, creator=CAROL), CREATOR, "join")


@refuses("5.3.1 first join", "join rule", first=11)
def the_first_join_of_the_creator_in_content_in_new_versions(room: Room) -> Verdict:
    return membership(empty_room(room.version, creator=CAROL), CAROL, "join")


@refuses("5.3.1 first join", "join rule", first=12)
def the_first_join_of_an_additional_creator(room: Room) -> Verdict:
    return membership(empty_room(room.version, additional_creators=[CAROL]), CAROL, "join")


@allows("5.3.2 for oneself")
def joining_for_oneself(room: Room) -> Verdict:
    return membership(room, NEW, "join")


@refuses("5.3.2 for oneself", "make others join")
def joining_for_another(room: Room) -> Verdict:
    return membership(room, NEW, "join", by=CREATOR)


@allows("5.3.3 banned")
def joining_after_being_kicked(room: Room) -> Verdict:
    room.member(NEW, "leave", by=CREATOR)
    return membership(room, NEW, "join")


@refuses("5.3.3 banned", "sender is banned")
def joining_when_banned(room: Room) -> Verdict:
    room.member(NEW, "ban", by=CREATOR)
    return membership(room, NEW, "join")


def join_by_rule(room: Room, rule: Any, before: str | None, **content: Any) -> Verdict:
    room.join_rule(rule)
    if before is not None:
        room.member(NEW, before, by=CREATOR)
    return membership(room, NEW, "join", **content)


@allows("5.3.4 invite")
def accepting_an_invite(room: Room) -> Verdict:
    return join_by_rule(room, "invite", "invite")


@allows("5.3.4 invite")
def joining_again_in_an_invite_room(room: Room) -> Verdict:
    return join_by_rule(room, "invite", "join")


@refuses("5.3.4 invite", "join rule")
def joining_without_invite(room: Room) -> Verdict:
    return join_by_rule(room, "invite", None)


@refuses("5.3.4 invite", "join rule")
def joining_without_invite_after_leaving(room: Room) -> Verdict:
    return join_by_rule(room, "invite", "leave")


@allows("5.3.4 knock")
def accepting_an_invite_in_a_knock_room(room: Room) -> Verdict:
    return join_by_rule(room, "knock", "invite")


@allows("5.3.4 knock")
def joining_again_in_a_knock_room(room: Room) -> Verdict:
    return join_by_rule(room, "knock", "join")


@refuses("5.3.4 knock", "join rule")
def joining_after_a_mere_knock(room: Room) -> Verdict:
    return join_by_rule(room, "knock", "knock")


@refuses("5.3.4 knock", "join rule", first=1, last=6)
def the_knock_rule_means_nothing_in_old_versions(room: Room) -> Verdict:
    return join_by_rule(room, "knock", "invite")


def restricted_join(room: Room, authorising: Any, **how: Any) -> Verdict:
    rule = how.pop("rule", "restricted")
    return join_by_rule(
        room,
        rule,
        how.pop("before", None),
        join_authorised_via_users_server=authorising,
        how={"signatures": {s: {"ed25519:1": "x"} for s in ("one.test", "two.test", "three.test")}},
    )


@allows("5.3.5 restricted")
def restricted_join_from_an_invite(room: Room) -> Verdict:
    return join_by_rule(room, "restricted", "invite")


@allows("5.3.5 restricted")
def restricted_join_from_a_join(room: Room) -> Verdict:
    return join_by_rule(room, "restricted", "join")


@allows("5.3.5 restricted")
def restricted_join_authorised_by_a_member(room: Room) -> Verdict:
    return restricted_join(room, CAROL)


@allows("5.3.5 restricted")
def restricted_join_authorised_by_just_enough_power(room: Room) -> Verdict:
    room.levels(invite=50, users={MOD: 50})
    return restricted_join(room, MOD)


@refuses("5.3.5 restricted", "has authorised")
def restricted_join_authorised_by_too_little_power(room: Room) -> Verdict:
    room.levels(invite=51, users={MOD: 50})
    return restricted_join(room, MOD)


@refuses("5.3.5 restricted", "has authorised")
def restricted_join_authorised_by_nobody(room: Room) -> Verdict:
    return join_by_rule(room, "restricted", None)


@refuses("5.3.5 restricted", "has authorised")
def restricted_join_after_a_knock(room: Room) -> Verdict:
    return join_by_rule(room, "restricted", "knock")


@refuses("5.3.5 restricted", "has authorised")
def restricted_join_authorised_by_an_outsider(room: Room) -> Verdict:
    room.levels(users={"@out:one.test": 100})
    room.member("@out:one.test", "invite", by=CREATOR)
    return restricted_join(room, "@out:one.test")


@refuses("5.3.5 restricted", "sender is banned")
def restricted_join_when_banned(room: Room) -> Verdict:
    return restricted_join(room, CAROL, before="ban")


@refuses("5.3.5 restricted", "join rule", first=1, last=7)
def the_restricted_rule_means_nothing_in_old_versions(room: Room) -> Verdict:
    return join_by_rule(room, "restricted", "invite")


@allows("5.3.5 knock_restricted")
def knock_restricted_join_from_an_invite(room: Room) -> Verdict:
    return join_by_rule(room, "knock_restricted", "invite")


@allows("5.3.5 knock_restricted")
def knock_restricted_join_authorised_by_a_member(room: Room) -> Verdict:
    return restricted_join(room, CAROL, rule="knock_restricted")


@refuses("5.3.5 knock_restricted", "has authorised")
def knock_restricted_join_authorised_by_nobody(room: Room) -> Verdict:
    return join_by_rule(room, "knock_restricted", "knock")


@refuses("5.3.5 knock_restricted", "join rule", first=1, last=9)
def the_knock_restricted_rule_means_nothing_in_old_versions(room: Room) -> Verdict:
    return join_by_rule(room, "knock_restricted", "invite")


@allows("5.3.6 public")
def joining_a_public_room(room: Room) -> Verdict:
    return join_by_rule(room, "public", None)


@refuses("5.3.6 public", "join rule")
def joining_a_private_room(room: Room) -> Verdict:
    return join_by_rule(room, "private", "invite")


@allows("5.3.4 invite")
def accepting_an_invite_to_a_room_without_join_rules(room: Room) -> Verdict:
    del room.state["m.room.join_rules", ""]
    room.member(NEW, "invite", by=CREATOR)
    return membership(room, NEW, "join")


@allows("5.3.4 invite")
def accepting_an_invite_to_a_room_with_empty_join_rules(room: Room) -> Verdict:
    room.put("m.room.join_rules", {}, sender=CREATOR, key="")
    room.member(NEW, "invite", by=CREATOR)
    return membership(room, NEW, "join")


@refuses("5.3.4 invite", "join rule")
def joining_a_room_without_join_rules(room: Room) -> Verdict:
    del room.state["m.room.join_rules", ""]
    return membership(room, NEW, "join")


@refuses("5.3.6 public", "join rule")
def joining_a_room_whose_join_rule_is_null(room: Room) -> Verdict:
    return join_by_rule(room, None, "invite")


@refuses("5.3.6 public", "join rule")
def joining_a_room_with_an_odd_join_rule(room: Room) -> Verdict:
    return join_by_rule(room, ["public"], "invite")
