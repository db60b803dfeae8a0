"""Rules 4 and 6 to 9, aliases, redactions: events that are not about members."""

from __future__ import annotations

from typing import Any

from tests.core.auth_cases.registry import (
    BOB,
    CAROL,
    HALF,
    MOD,
    NEW,
    Verdict,
    allows,
    membership,
    refuses,
)
from tests.core.making import CREATOR, Room

# --- 4. m.federate


def closed_room(room: Room, federate: Any) -> Room:
    closed = Room(room.version, **{"m.federate": federate})
    closed.member(CREATOR, "join")
    closed.join_rule("public")
    return closed


@refuses("4 federate", "not federated")
def join_from_elsewhere_in_a_closed_room(room: Room) -> Verdict:
    closed = closed_room(room, False)
    return membership(closed, BOB, "join")


@refuses("4 federate", "not federated", last=5)
def aliases_from_elsewhere_in_a_closed_room(room: Room) -> Verdict:
    closed = closed_room(room, False)
    return closed.verdict(closed.make("m.room.aliases", {}, sender=BOB, key="two.test"))


@allows("4 federate")
def join_from_home_in_a_closed_room(room: Room) -> Verdict:
    return membership(closed_room(room, False), CAROL, "join")


@allows("4 federate")
def join_in_an_open_room(room: Room) -> Verdict:
    return membership(closed_room(room, True), BOB, "join")


@allows("4 federate")
def join_in_a_room_with_false_as_text(room: Room) -> Verdict:
    return membership(closed_room(room, "false"), BOB, "join")


@allows("4 federate")
def join_in_a_room_with_zero(room: Room) -> Verdict:
    return membership(closed_room(room, 0), BOB, "join")


@allows("4 federate")
def join_in_a_room_with_null(room: Room) -> Verdict:
    return membership(closed_room(room, None), BOB, "join")


# --- m.room.aliases


@allows("aliases")
def aliases_of_one_s_own_server_even_from_outside(room: Room) -> Verdict:
    return room.verdict(room.make("m.room.aliases", {}, sender=NEW, key="three.test"))


@refuses("aliases", "aliases of another server")
def aliases_for_another_server(room: Room) -> Verdict:
    return room.verdict(room.make("m.room.aliases", {}, sender=CREATOR, key="two.test"))


@refuses("aliases", "without state_key")
def aliases_without_state_key(room: Room) -> Verdict:
    return room.verdict(room.make("m.room.aliases", {}, sender=CREATOR))


@allows("aliases", first=6, last=12)
def aliases_are_nothing_special_in_new_versions(room: Room) -> Verdict:
    return room.verdict(room.make("m.room.aliases", {}, sender=CREATOR, key="two.test"))


@refuses("aliases", "not joined", first=6, last=12)
def aliases_from_outside_in_new_versions(room: Room) -> Verdict:
    return room.verdict(room.make("m.room.aliases", {}, sender=NEW, key="three.test"))


# --- 6. to 9.


@allows("6 joined")
def a_message_of_a_member(room: Room) -> Verdict:
    return room.verdict(room.make("m.room.message", {}, sender=BOB))


@refuses("6 joined", "not joined")
def a_message_from_outside(room: Room) -> Verdict:
    return room.verdict(room.make("m.room.message", {}, sender=NEW))


@refuses("6 joined", "not joined")
def a_message_of_somebody_invited(room: Room) -> Verdict:
    room.member(NEW, "invite", by=CREATOR)
    return room.verdict(room.make("m.room.message", {}, sender=NEW))


@refuses("6 joined", "no create event")
def a_message_in_a_state_without_create_event(room: Room) -> Verdict:
    del room.state["m.room.create", ""]
    return room.verdict(room.make("m.room.message", {}, sender=BOB))


def invite_third_party(room: Room, invite: int) -> Verdict:
    room.levels(users={MOD: 50}, invite=invite, state_default=90)
    return room.verdict(room.make("m.room.third_party_invite", {}, sender=MOD, key="t"))


@allows("7 third party invites")
def inviting_a_third_party_needs_the_invite_level_only(room: Room) -> Verdict:
    return invite_third_party(room, 50)


@refuses("7 third party invites", "may not invite")
def inviting_a_third_party_with_too_little_power(room: Room) -> Verdict:
    return invite_third_party(room, 51)


@refuses("7 third party invites", "not joined")
def inviting_a_third_party_from_outside(room: Room) -> Verdict:
    return room.verdict(room.make("m.room.third_party_invite", {}, sender=NEW, key="t"))


@allows("7 third party invites")
def inviting_a_third_party_under_the_name_of_a_user(room: Room) -> Verdict:
    # 7.1 decides alone; rule 9 is not asked.
    return room.verdict(room.make("m.room.third_party_invite", {}, sender=BOB, key=CAROL))


def send(room: Room, key: str | None = None, type_: str = "m.x", **levels: Any) -> Verdict:
    room.levels(**{"users": {MOD: 50}, **levels})
    return room.verdict(room.make(type_, {}, sender=MOD, key=key))


@allows("8 required level")
def a_listed_event_with_just_enough_power(room: Room) -> Verdict:
    return send(room, events={"m.x": 50}, events_default=99)


@allows("8 required level")
def a_listed_state_event_with_just_enough_power(room: Room) -> Verdict:
    return send(room, "", events={"m.x": 50}, state_default=99)


@allows("8 required level")
def state_with_just_enough_power(room: Room) -> Verdict:
    return send(room, "", state_default=50, events_default=99)


@allows("8 required level")
def a_message_with_just_enough_power(room: Room) -> Verdict:
    return send(room, events_default=50, state_default=99)


@allows("8 required level", first=12)
def a_creator_may_send_what_nobody_else_may(room: Room) -> Verdict:
    room.levels(events={"m.x": 2**53 - 1})
    return room.verdict(room.make("m.x", {}, sender=CREATOR))


@refuses("8 required level", "too low")
def a_listed_event_with_too_little_power(room: Room) -> Verdict:
    return send(room, events={"m.x": 51}, events_default=0)


@refuses("8 required level", "too low")
def state_with_too_little_power(room: Room) -> Verdict:
    return send(room, "", state_default=51, events_default=0)


@refuses("8 required level", "too low")
def a_message_with_too_little_power(room: Room) -> Verdict:
    return send(room, events_default=51, state_default=0)


@refuses("8 required level", "too low")
def state_by_default_with_too_little_power(room: Room) -> Verdict:
    return room.verdict(room.make("m.x", {}, sender=HALF, key=""))


@allows("9 state of users")
def one_s_own_state(room: Room) -> Verdict:
    return send(room, MOD)


@allows("9 state of users")
def state_of_nobody(room: Room) -> Verdict:
    return send(room, "mod:one.test")


@refuses("9 state of users", "belongs to another user")
def state_of_another_user(room: Room) -> Verdict:
    return send(room, BOB)


@refuses("9 state of users", "belongs to another user")
def state_of_something_like_a_user(room: Room) -> Verdict:
    return send(room, "@")


# --- v1, v2: 11. m.room.redaction


def redaction(room: Room, sender: str, target: str | None, own: str = "$own:two.test") -> Verdict:
    room.levels(users={MOD: 50}, redact=50)
    how: dict[str, Any] = {"event_id": own} if room.rules.event_id_in_pdu else {}
    event = room.make("m.room.redaction", {}, sender=sender, redacts=target, **how)
    return room.verdict(event)


@allows("redaction")
def redacting_with_just_enough_power(room: Room) -> Verdict:
    return redaction(room, MOD, "$any:three.test")


@allows("redaction")
def redacting_an_event_of_the_same_domain(room: Room) -> Verdict:
    return redaction(room, BOB, "$any:two.test")


@refuses("redaction", "may not redact")
def redacting_an_event_of_another_domain(room: Room) -> Verdict:
    return redaction(room, BOB, "$any:one.test")


@refuses("redaction", "may not redact")
def redacting_nothing(room: Room) -> Verdict:
    return redaction(room, BOB, None)


@refuses("redaction", "may not redact")
def redacting_with_too_little_power(room: Room) -> Verdict:
    room.levels(users={BOB: 49})
    return redaction(room, BOB, "$any:three.test")


@allows("redaction", first=3, last=12)
def redactions_are_nothing_special_in_new_versions(room: Room) -> Verdict:
    return redaction(room, BOB, "$any")


# --- levels in force that cannot be read, in versions that let them in


def _unreadable_levels(label: str, content: dict[str, Any], event_type: str) -> None:
    def build(room: Room) -> Verdict:
        levels = room.level_content({"users": {MOD: 50}, **content})
        room.put("m.room.power_levels", levels, sender=CREATOR, key="")
        return room.verdict(room.make(event_type, {}, sender=MOD))

    build.__name__ = f"a_message_where_{label}_cannot_be_read"
    refuses("8 required level", "cannot be read", last=9)(build)


_unreadable_levels("its_level", {"events": {"m.x": "odd"}}, "m.x")
_unreadable_levels("its_level_of_null", {"events": {"m.x": None}}, "m.x")
_unreadable_levels("the_default", {"events_default": "1_0"}, "m.x")


@allows("8 required level", last=9)
def a_message_where_another_level_cannot_be_read(room: Room) -> Verdict:
    levels = room.level_content({"users": {MOD: 50}, "ban": "odd", "events": {"m.y": "odd"}})
    room.put("m.room.power_levels", levels, sender=CREATOR, key="")
    return room.verdict(room.make("m.x", {}, sender=MOD))
