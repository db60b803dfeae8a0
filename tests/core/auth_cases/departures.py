"""Rules 5.5 to 5.8: leaving, kicking, banning, knocking."""

from __future__ import annotations

from typing import Any

from tests.core.auth_cases.registry import (
    BOB,
    MOD,
    NEW,
    Verdict,
    allows,
    membership,
    refuses,
)
from tests.core.making import CREATOR, Room

# --- 5.5 leave


def leave_from(room: Room, before: str | None) -> Verdict:
    if before is not None:
        room.member(NEW, before, by=CREATOR)
    return membership(room, NEW, "leave")


@allows("5.5.1 own leave")
def leaving(room: Room) -> Verdict:
    return leave_from(room, "join")


@allows("5.5.1 own leave")
def rejecting_an_invite(room: Room) -> Verdict:
    return leave_from(room, "invite")


@refuses("5.5.1 own leave", "not in the room")
def leaving_without_having_been_there(room: Room) -> Verdict:
    return leave_from(room, None)


@refuses("5.5.1 own leave", "not in the room")
def leaving_twice(room: Room) -> Verdict:
    return leave_from(room, "leave")


@refuses("5.5.1 own leave", "not in the room")
def lifting_one_s_own_ban(room: Room) -> Verdict:
    return leave_from(room, "ban")


@refuses("5.5.1 own leave", "not in the room")
def an_admin_lifting_their_own_ban(room: Room) -> Verdict:
    # 5.5.1 decides alone about one's own leave.
    room.levels(users={NEW: 100})
    return leave_from(room, "ban")


@allows("5.5.1 own knock")
def retracting_a_knock(room: Room) -> Verdict:
    return leave_from(room, "knock")


@refuses("5.5.1 own knock", "not in the room", first=1, last=6)
def retracting_a_knock_in_old_versions(room: Room) -> Verdict:
    return leave_from(room, "knock")


@refuses("5.5.1 own knock", "not in the room")
def retracting_what_is_no_knock(room: Room) -> Verdict:
    return leave_from(room, "knocked")


@allows("5.5.2 kicker joined")
def kicking_as_a_member(room: Room) -> Verdict:
    return membership(room, BOB, "leave", by=MOD)


@refuses("5.5.2 kicker joined", "sender is not joined")
def kicking_from_outside(room: Room) -> Verdict:
    room.member(MOD, "leave")
    return membership(room, BOB, "leave", by=MOD)


def unban(room: Room, ban: int) -> Verdict:
    room.levels(users={MOD: 50}, kick=30, ban=ban)
    room.member(BOB, "ban", by=CREATOR)
    return membership(room, BOB, "leave", by=MOD)


@allows("5.5.3 unban")
def lifting_a_ban_with_just_enough_power(room: Room) -> Verdict:
    return unban(room, 50)


@refuses("5.5.3 unban", "may not lift bans")
def lifting_a_ban_with_too_little_power(room: Room) -> Verdict:
    return unban(room, 51)


@refuses("5.5.3 unban", "may not remove")
def lifting_a_ban_without_being_allowed_to_kick(room: Room) -> Verdict:
    room.levels(users={MOD: 50}, kick=51, ban=50)
    room.member(BOB, "ban", by=CREATOR)
    return membership(room, BOB, "leave", by=MOD)


@allows("5.5.4 kick level")
def kicking_with_just_enough_power(room: Room) -> Verdict:
    room.levels(users={MOD: 50}, kick=50, ban=100)
    return membership(room, BOB, "leave", by=MOD)


@allows("5.5.4 kick level")
def withdrawing_an_invite(room: Room) -> Verdict:
    room.member(NEW, "invite", by=CREATOR)
    return membership(room, NEW, "leave", by=MOD)


@refuses("5.5.4 kick level", "may not remove")
def kicking_with_too_little_power(room: Room) -> Verdict:
    room.levels(users={MOD: 50}, kick=51)
    return membership(room, BOB, "leave", by=MOD)


@allows("5.5.4 target level")
def kicking_somebody_just_below(room: Room) -> Verdict:
    room.levels(users={MOD: 50, BOB: 49})
    return membership(room, BOB, "leave", by=MOD)


@refuses("5.5.4 target level", "may not remove")
def kicking_an_equal(room: Room) -> Verdict:
    room.levels(users={MOD: 50, BOB: 50})
    return membership(room, BOB, "leave", by=MOD)


@refuses("5.5.4 target level", "may not remove", first=12)
def a_creator_kicking_another_creator(room: Room) -> Verdict:
    equal = Room(room.version, additional_creators=[BOB])
    equal.member(CREATOR, "join")
    equal.member(BOB, "join")
    return membership(equal, BOB, "leave", by=CREATOR)


# --- 5.6 ban


@allows("5.6.1 banning user joined")
def banning_as_a_member(room: Room) -> Verdict:
    return membership(room, NEW, "ban", by=MOD)


@refuses("5.6.1 banning user joined", "sender is not joined")
def banning_from_outside(room: Room) -> Verdict:
    room.member(MOD, "leave")
    return membership(room, BOB, "ban", by=MOD)


@allows("5.6.2 ban level")
def banning_with_just_enough_power(room: Room) -> Verdict:
    room.levels(users={MOD: 50}, ban=50, kick=100)
    return membership(room, BOB, "ban", by=MOD)


@refuses("5.6.2 ban level", "may not ban")
def banning_with_too_little_power(room: Room) -> Verdict:
    room.levels(users={MOD: 50}, ban=51, kick=0)
    return membership(room, BOB, "ban", by=MOD)


@allows("5.6.2 target level")
def banning_somebody_just_below(room: Room) -> Verdict:
    room.levels(users={MOD: 50, BOB: 49})
    return membership(room, BOB, "ban", by=MOD)


@refuses("5.6.2 target level", "may not ban")
def banning_an_equal(room: Room) -> Verdict:
    room.levels(users={MOD: 50, BOB: 50})
    return membership(room, BOB, "ban", by=MOD)


@refuses("5.6.2 target level", "may not ban")
def banning_oneself(room: Room) -> Verdict:
    return membership(room, MOD, "ban")


@refuses("5.6.2 target level", "may not ban", first=12)
def banning_the_creator_with_the_highest_level(room: Room) -> Verdict:
    room.levels(users={MOD: 2**53 - 1})
    return membership(room, CREATOR, "ban", by=MOD)


# --- 5.7 knock


def knock(room: Room, rule: Any, before: str | None = None, by: str | None = None) -> Verdict:
    room.join_rule(rule)
    if before is not None:
        room.member(NEW, before, by=CREATOR)
    return membership(room, NEW, "knock", by=by)


@allows("5.7.1 knock")
def knocking(room: Room) -> Verdict:
    return knock(room, "knock")


@refuses("5.7.1 knock", "does not allow knocking")
def knocking_on_an_invite_room(room: Room) -> Verdict:
    return knock(room, "invite")


@refuses("5.7.1 knock", "does not allow knocking")
def knocking_on_a_room_without_join_rules(room: Room) -> Verdict:
    del room.state["m.room.join_rules", ""]
    return membership(room, NEW, "knock")


@refuses("5.7.1 knock", "unknown membership", first=1, last=6)
def knocking_is_unknown_in_old_versions(room: Room) -> Verdict:
    return knock(room, "knock")


@allows("5.7.1 knock_restricted")
def knocking_on_a_knock_restricted_room(room: Room) -> Verdict:
    return knock(room, "knock_restricted")


@refuses("5.7.1 knock_restricted", "does not allow knocking")
def knocking_on_a_restricted_room(room: Room) -> Verdict:
    return knock(room, "restricted")


@refuses("5.7.1 knock_restricted", "does not allow knocking", first=7, last=9)
def knocking_on_a_knock_restricted_room_in_old_versions(room: Room) -> Verdict:
    return knock(room, "knock_restricted")


@allows("5.7.2 for oneself")
def knocking_for_oneself(room: Room) -> Verdict:
    return knock(room, "knock")


@refuses("5.7.2 for oneself", "knock for others")
def knocking_for_another(room: Room) -> Verdict:
    return knock(room, "knock", by=CREATOR)


@allows("5.7.3 membership")
def knocking_after_leaving(room: Room) -> Verdict:
    return knock(room, "knock", "leave")


@allows("5.7.3 membership")
def knocking_again(room: Room) -> Verdict:
    return knock(room, "knock", "knock")


@refuses("5.7.3 membership", "banned, invited or joined")
def knocking_when_banned(room: Room) -> Verdict:
    return knock(room, "knock", "ban")


@refuses("5.7.3 membership", "banned, invited or joined")
def knocking_when_invited(room: Room) -> Verdict:
    return knock(room, "knock", "invite")


@refuses("5.7.3 membership", "banned, invited or joined")
def knocking_when_joined(room: Room) -> Verdict:
    return knock(room, "knock", "join")


@refuses("5.8 unknown membership", "unknown membership")
def a_membership_nobody_knows(room: Room) -> Verdict:
    return membership(room, BOB, "visit")


@refuses("5.8 unknown membership", "unknown membership")
def a_membership_that_is_no_text(room: Room) -> Verdict:
    return membership(room, BOB, ["join"])


@allows("5.8 unknown membership")
def a_membership_that_everybody_knows(room: Room) -> Verdict:
    return membership(room, BOB, "leave")
