"""The authorisation rules of rooms 1 and 2, on which all later rooms build.

Matrix v1.19, rooms/fragments/v1-auth-rules.  A method is a rule or part of one; it returns the
words of the sentence that allows the event, or raises `Reject` with the words of the one that
does not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tests.reference.invites import third_party_invite_is_signed
from tests.reference.words import (
    CREATE,
    JOIN_RULES,
    POWER_LEVELS,
    Event,
    Events,
    NotALevel,
    Reject,
    State,
    StateKey,
    domain_of,
    integer_string_or_float,
    is_user_id,
    key_of,
)

RECOGNISED = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12")
LEVELS = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")
Level = int | float


class RulesV1:
    """Rooms 1 and 2."""

    strings_are_levels = True

    # -- Server-Server API, "Auth events selection"

    def selection(self, event: Event) -> set[StateKey]:
        """The (type, state_key) pairs that `event` selects from the room state."""
        if event["type"] == "m.room.create":
            return set()
        keys = {CREATE, POWER_LEVELS, ("m.room.member", event["sender"])}
        if event["type"] == "m.room.member":
            keys |= self.selection_for_member(event)
        return keys

    def selection_for_member(self, event: Event) -> set[StateKey]:
        content, keys = event["content"], set[StateKey]()
        if "state_key" in event:
            keys.add(("m.room.member", event["state_key"]))
        if content.get("membership") in ("join", "invite", "knock"):
            keys.add(JOIN_RULES)
        if content.get("membership") == "invite" and "third_party_invite" in content:
            token = signed_of(content).get("token")
            if isinstance(token, str):
                keys.add(("m.room.third_party_invite", token))
        return keys

    def select(self, event: Event, state: State) -> list[str]:
        """The ids of the auth events that `event` should have in a room in `state`."""
        return [state[key]["event_id"] for key in sorted(self.selection(event)) if key in state]

    # -- rule 2 (3 in room version 12)

    def check_auth_events(self, event: Event, events: Events, rejected: Collection[str]) -> str:
        if event["type"] == "m.room.create":
            return "auth events: none considered for create"
        entries = [events[event_id] for event_id in event["auth_events"]]
        pairs = [(entry["type"], entry.get("state_key")) for entry in entries]
        if len(pairs) != len(set(pairs)):
            raise Reject("auth events: duplicate")
        if not set(pairs) <= self.selection(event):
            raise Reject("auth events: not selected")
        if any(entry["event_id"] in rejected for entry in entries):
            raise Reject("auth events: rejected entry")
        self.check_create_among_entries(entries)
        if any(self.room_id_of(entry) != self.room_id_of(event) for entry in entries):
            raise Reject("auth events: other room")
        return "auth events: fine"

    def check_create_among_entries(self, entries: list[Event]) -> None:
        if not any(entry["type"] == "m.room.create" for entry in entries):
            raise Reject("auth events: no create")

    def room_id_of(self, event: Event) -> str:
        return str(event["room_id"])

    def implied_create(self, event: Event, events: Events) -> Event | None:
        """The create event that `event` names by other means than `auth_events`."""
        return None

    def state_of_auth_events(
        self, event: Event, events: Events, without: Collection[str]
    ) -> dict[StateKey, Event]:
        """The room as the event's auth events describe it, `without` some of them."""
        entries = [events[event_id] for event_id in event["auth_events"] if event_id not in without]
        entries = [entry for entry in entries if "state_key" in entry]  # others describe no room
        implied = self.implied_create(event, events)
        return {key_of(entry): entry for entry in [*entries, *([implied] if implied else [])]}

    # -- Server-Server API, "Validating hashes and signatures on received events"

    def check_signatures(self, event: Event) -> str:
        """The presence of a signature stands for its validity here."""
        if not self.required_signers(event) <= set(event["signatures"]):
            raise Reject("signatures: one is missing")
        return "signatures: all there"

    def required_signers(self, event: Event) -> set[str | None]:
        """Servers whose signature the event needs; None where no server can be named."""
        content = event["content"]
        if (
            event["type"] == "m.room.member"
            and content.get("membership") == "invite"
            and "third_party_invite" in content
        ):
            return self.signers_by_event_id(event)
        return {domain_of(event["sender"])} | self.signers_by_event_id(event)

    def signers_by_event_id(self, event: Event) -> set[str | None]:
        return {domain_of(event["event_id"])}

    # -- the rules that depend on the state

    def authorise(self, event: Event, state: State, events: Events) -> str:
        """The sentence that allows `event` in a room in `state`, or `Reject`."""
        try:
            if event["type"] == "m.room.create":
                return self.create(event)
            if CREATE not in state:
                raise Reject("no create in state")
            self.federation(event, state)
            return self.after_federation(event, state, events)
        except NotALevel:
            raise Reject("a level cannot be read") from None

    def after_federation(self, event: Event, state: State, events: Events) -> str:
        if event["type"] == "m.room.aliases":
            return self.aliases(event)
        return self.after_aliases(event, state, events)

    def after_aliases(self, event: Event, state: State, events: Events) -> str:
        if event["type"] == "m.room.member":
            return self.member(event, state, events)
        if membership_of(event["sender"], state) != "join":
            raise Reject("sender not joined")
        if event["type"] == "m.room.third_party_invite":
            return self.third_party_invite(event, state)
        if self.required_level(event, state) > self.level_of(event["sender"], state):
            raise Reject("required power level")
        state_key = event.get("state_key")
        if state_key is not None and state_key.startswith("@") and state_key != event["sender"]:
            raise Reject("state key of another user")
        if event["type"] == "m.room.power_levels":
            return self.power_levels(event, state)
        return self.last_rules(event, state)

    def last_rules(self, event: Event, state: State) -> str:
        if event["type"] == "m.room.redaction":
            return self.redaction(event, state)
        return "otherwise, allow"

    # 1.
    def create(self, event: Event) -> str:
        if event["prev_events"]:
            raise Reject("create: prev_events")
        self.create_room_id(event)
        content = event["content"]
        if "room_version" in content and content["room_version"] not in RECOGNISED:
            raise Reject("create: room_version not recognised")
        self.create_creator(event)
        return "create: otherwise"

    def create_room_id(self, event: Event) -> None:
        if domain_of(event["room_id"]) != domain_of(event["sender"]):
            raise Reject("create: domain of room_id")

    def create_creator(self, event: Event) -> None:
        if "creator" not in event["content"]:
            raise Reject("create: no creator")

    # 3.
    def federation(self, event: Event, state: State) -> None:
        if self.may_federate(state):
            return
        if domain_of(event["sender"]) != domain_of(state[CREATE]["sender"]):
            raise Reject("m.federate is false")

    def may_federate(self, state: State) -> bool:
        return state[CREATE]["content"].get("m.federate") is not False

    # 4.
    def aliases(self, event: Event) -> str:
        if "state_key" not in event:
            raise Reject("aliases: no state_key")
        if domain_of(event["sender"]) != event["state_key"]:
            raise Reject("aliases: domain of sender")
        return "aliases: otherwise"

    # 5.
    def member(self, event: Event, state: State, events: Events) -> str:
        if "state_key" not in event or "membership" not in event["content"]:
            raise Reject("member: no state_key or membership")
        self.member_authorised_via(event)
        membership = event["content"]["membership"]
        if membership == "join":
            return self.join(event, state, events)
        if membership == "invite":
            return self.invite(event, state)
        if membership == "leave":
            return self.leave(event, state)
        if membership == "ban":
            return self.ban(event, state)
        return self.other_membership(event, state)

    def member_authorised_via(self, event: Event) -> None:
        """Rooms 8 and later have a rule here."""

    def other_membership(self, event: Event, state: State) -> str:
        raise Reject("member: unknown membership")

    # 5.2
    def join(self, event: Event, state: State, events: Events) -> str:
        if self.is_creators_first_join(event, state, events):
            return "join: creator after create"
        if event["sender"] != event["state_key"]:
            raise Reject("join: for another user")
        if membership_of(event["sender"], state) == "ban":
            raise Reject("join: banned")
        return self.join_by_rule(event, state)

    def is_creators_first_join(self, event: Event, state: State, events: Events) -> bool:
        previous = [events[event_id]["type"] for event_id in event["prev_events"]]
        return previous == ["m.room.create"] and event["state_key"] == self.creator(state)

    def join_by_rule(self, event: Event, state: State) -> str:
        rule = join_rule_of(state)
        if rule == "invite" and membership_of(event["sender"], state) in ("invite", "join"):
            return "join: invite rule, invited or joined"
        if rule == "public":
            return "join: public"
        raise Reject("join: otherwise")

    # 5.3
    def invite(self, event: Event, state: State) -> str:
        if "third_party_invite" in event["content"]:
            return self.invite_by_third_party(event, state)
        if membership_of(event["sender"], state) != "join":
            raise Reject("invite: sender not joined")
        if membership_of(event["state_key"], state) in ("join", "ban"):
            raise Reject("invite: target joined or banned")
        if self.level_of(event["sender"], state) >= self.named_level("invite", 0, state):
            return "invite: invite level"
        raise Reject("invite: otherwise")

    # 5.3.1
    def invite_by_third_party(self, event: Event, state: State) -> str:
        if membership_of(event["state_key"], state) == "ban":
            raise Reject("3pid invite: target banned")
        invite = event["content"]["third_party_invite"]
        if not isinstance(invite, Mapping) or not isinstance(invite.get("signed"), Mapping):
            raise Reject("3pid invite: no signed")
        signed = invite["signed"]
        if "mxid" not in signed or "token" not in signed:
            raise Reject("3pid invite: no mxid or token")
        if signed["mxid"] != event["state_key"]:
            raise Reject("3pid invite: mxid")
        if not isinstance(signed["token"], str):
            raise Reject("3pid invite: no event with the token")
        offer = state.get(("m.room.third_party_invite", signed["token"]))
        if offer is None:
            raise Reject("3pid invite: no event with the token")
        if event["sender"] != offer["sender"]:
            raise Reject("3pid invite: sender")
        if self.is_signed_for(signed, offer["content"]):
            return "3pid invite: signed"
        raise Reject("3pid invite: otherwise")

    def is_signed_for(self, signed: Mapping[str, Any], offer: Mapping[str, Any]) -> bool:
        return third_party_invite_is_signed(signed, offer)

    # 5.4
    def leave(self, event: Event, state: State) -> str:
        sender, target = event["sender"], event["state_key"]
        if sender == target:
            if membership_of(sender, state) in self.may_leave_from():
                return "leave: own"
            raise Reject("leave: own, not in the room")
        if membership_of(sender, state) != "join":
            raise Reject("leave: sender not joined")
        power = self.level_of(sender, state)
        if membership_of(target, state) == "ban" and power < self.named_level("ban", 50, state):
            raise Reject("leave: ban level")
        if power >= self.named_level("kick", 50, state) and self.level_of(target, state) < power:
            return "leave: kick level"
        raise Reject("leave: otherwise")

    def may_leave_from(self) -> tuple[str, ...]:
        return ("invite", "join")

    # 5.5
    def ban(self, event: Event, state: State) -> str:
        if membership_of(event["sender"], state) != "join":
            raise Reject("ban: sender not joined")
        power = self.level_of(event["sender"], state)
        if (
            power >= self.named_level("ban", 50, state)
            and self.level_of(event["state_key"], state) < power
        ):
            return "ban: ban level"
        raise Reject("ban: otherwise")

    # 7.
    def third_party_invite(self, event: Event, state: State) -> str:
        if self.level_of(event["sender"], state) >= self.named_level("invite", 0, state):
            return "third_party_invite: invite level"
        raise Reject("third_party_invite: otherwise")

    # 10.
    def power_levels(self, event: Event, state: State) -> str:
        new = event["content"]
        self.power_levels_shape(new)
        self.power_levels_users(new)
        self.power_levels_creators(new, state)
        if POWER_LEVELS not in state:
            return "power levels: no previous event"
        old = state[POWER_LEVELS]["content"]
        power = self.level_of(event["sender"], state)
        self.alterations("levels", old, new, power)
        for name in self.level_maps():
            self.alterations(name, level_map(old, name), level_map(new, name), power)
        self.user_alterations(level_map(old, "users"), level_map(new, "users"), power, event)
        return "power levels: otherwise"

    def power_levels_shape(self, new: Mapping[str, Any]) -> None:
        """Rooms 10 and later have a rule here."""

    def power_levels_creators(self, new: Mapping[str, Any], state: State) -> None:
        """Room version 12 has a rule here."""

    def power_levels_users(self, new: Mapping[str, Any]) -> None:
        users = new.get("users", {})
        if not isinstance(users, Mapping):
            raise Reject("power levels: users not an object")
        if not all(self.is_user_id(user) for user in users):
            raise Reject("power levels: users key no user id")
        if not all(self.is_level(value) for value in users.values()):
            raise Reject("power levels: users value no integer")

    def is_user_id(self, text: object) -> bool:
        return is_user_id(text)

    def level_maps(self) -> tuple[str, ...]:
        return ("events",)

    def alterations(
        self, name: str, old: Mapping[str, Any], new: Mapping[str, Any], power: Level
    ) -> None:
        """10.3 for the named levels, 10.4 and 10.5 for `events`."""
        for key in LEVELS if name == "levels" else [*old, *(key for key in new if key not in old)]:
            before = self.read_level(old[key]) if key in old else None
            after = self.read_level(new[key]) if key in new else None
            if before == after:
                continue
            if before is not None and before > power:
                raise Reject(f"power levels: {name}, current value")
            if after is not None and after > power:
                raise Reject(f"power levels: {name}, new value")

    def user_alterations(
        self, old: Mapping[str, Any], new: Mapping[str, Any], power: Level, event: Event
    ) -> None:
        """10.6 and 10.7."""
        for user in [*old, *(user for user in new if user not in old)]:
            before = self.read_level(old[user]) if user in old else None
            after = self.read_level(new[user]) if user in new else None
            if before == after:
                continue
            if before is not None and user != event["sender"] and before >= power:
                raise Reject("power levels: users, current value")
            if after is not None and after > power:
                raise Reject("power levels: users, new value")

    # 11.
    def redaction(self, event: Event, state: State) -> str:
        if self.level_of(event["sender"], state) >= self.named_level("redact", 50, state):
            return "redaction: redact level"
        domain = domain_of(event.get("redacts"))
        if domain is not None and domain == domain_of(event["event_id"]):
            return "redaction: same domain"
        raise Reject("redaction: otherwise")

    # -- Server-Server API, "Definitions", and the schema of m.room.power_levels

    def read_level(self, value: object) -> int:
        return integer_string_or_float(value)

    def is_level(self, value: object) -> bool:
        try:
            self.read_level(value)
        except NotALevel:
            return False
        return True

    def creator(self, state: State) -> object:
        return state[CREATE]["content"].get("creator")

    def level_of(self, user: str, state: State) -> Level:
        """The power level of a user."""
        if POWER_LEVELS not in state:
            return 100 if user == self.creator(state) else 0
        content = state[POWER_LEVELS]["content"]
        users = level_map(content, "users")
        if user in users:
            return self.read_level(users[user])
        return self.read_level(content.get("users_default", 0))

    def named_level(self, name: str, default: int, state: State) -> int:
        """The invite, kick, ban or redact level."""
        if POWER_LEVELS not in state:
            return default
        return self.read_level(state[POWER_LEVELS]["content"].get(name, default))

    def required_level(self, event: Event, state: State) -> int:
        content = state[POWER_LEVELS]["content"] if POWER_LEVELS in state else {}
        by_type = level_map(content, "events")
        if event["type"] in by_type:
            return self.read_level(by_type[event["type"]])
        if "state_key" in event:
            return self.read_level(content.get("state_default", 50))
        return self.read_level(content.get("events_default", 0))


def membership_of(user: str, state: State) -> object:
    member = state.get(("m.room.member", user))
    return "leave" if member is None else member["content"].get("membership")


def join_rule_of(state: State) -> object:
    event = state.get(JOIN_RULES)
    return "invite" if event is None else event["content"].get("join_rule", "invite")


def signed_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    invite = content.get("third_party_invite")
    signed = invite.get("signed") if isinstance(invite, Mapping) else None
    return signed if isinstance(signed, Mapping) else {}


def level_map(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """`events`, `users` or `notifications`; empty when absent."""
    entries = content.get(name, {})
    if not isinstance(entries, Mapping):
        raise NotALevel(entries)
    return entries
