"""The authorisation rules of rooms 3 to 12: what each changes in those before it.

Matrix v1.19, rooms/fragments v3-auth-rules and v8-auth-rules, and the pages v6, v7, v10, v11, v12.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from tests.reference.auth_v1 import LEVELS, Level, RulesV1, join_rule_of, membership_of
from tests.reference.words import (
    CREATE,
    Event,
    Events,
    Reject,
    State,
    StateKey,
    domain_of,
    integer,
    integer_or_string,
    is_user_id,
)


class RulesV3(RulesV1):
    """Rooms 3 to 5: redactions are subject to the rules like any other event."""

    def last_rules(self, event: Event, state: State) -> str:
        return "otherwise, allow"

    def signers_by_event_id(self, event: Event) -> set[str | None]:
        return set()


class RulesV6(RulesV3):
    """Room 6: no rule about m.room.aliases; `notifications`; no floats."""

    def after_federation(self, event: Event, state: State, events: Events) -> str:
        return self.after_aliases(event, state, events)

    def level_maps(self) -> tuple[str, ...]:
        return ("events", "notifications")

    def read_level(self, value: object) -> int:
        return integer_or_string(value)


class RulesV7(RulesV6):
    """Room 7: knocking."""

    def join_by_rule(self, event: Event, state: State) -> str:
        if join_rule_of(state) == "knock":
            if membership_of(event["sender"], state) in ("invite", "join"):
                return "join: knock rule, invited or joined"
            raise Reject("join: otherwise")
        return super().join_by_rule(event, state)

    def may_leave_from(self) -> tuple[str, ...]:
        return ("invite", "join", "knock")

    def other_membership(self, event: Event, state: State) -> str:
        if event["content"]["membership"] == "knock":
            return self.knock(event, state)
        return super().other_membership(event, state)

    def rules_to_knock_by(self) -> tuple[str, ...]:
        return ("knock",)

    def knock(self, event: Event, state: State) -> str:
        if join_rule_of(state) not in self.rules_to_knock_by():
            raise Reject("knock: join rule")
        if event["sender"] != event["state_key"]:
            raise Reject("knock: for another user")
        if membership_of(event["sender"], state) not in ("ban", "invite", "join"):
            return "knock: not banned, invited or joined"
        raise Reject("knock: otherwise")


class RulesV8(RulesV7):
    """Rooms 8 and 9: restricted joins."""

    def selection_for_member(self, event: Event) -> set[StateKey]:
        keys, content = super().selection_for_member(event), event["content"]
        via = content.get("join_authorised_via_users_server")
        if content.get("membership") == "join" and isinstance(via, str):
            keys.add(("m.room.member", via))
        return keys

    def required_signers(self, event: Event) -> set[str | None]:
        """With the server of rule 4.2."""
        signers, content = super().required_signers(event), event["content"]
        if event["type"] == "m.room.member" and "join_authorised_via_users_server" in content:
            signers.add(domain_of(content["join_authorised_via_users_server"]))
        return signers

    def member_authorised_via(self, event: Event) -> None:
        """4.2: whatever the membership."""
        if "join_authorised_via_users_server" in event["content"]:
            via = event["content"]["join_authorised_via_users_server"]
            if domain_of(via) not in event["signatures"]:
                raise Reject("member: not signed by the authorising server")

    def restricting_rules(self) -> tuple[str, ...]:
        return ("restricted",)

    def join_by_rule(self, event: Event, state: State) -> str:
        if join_rule_of(state) not in self.restricting_rules():
            return super().join_by_rule(event, state)
        if membership_of(event["sender"], state) in ("join", "invite"):
            return "join: restricted rule, invited or joined"
        via = event["content"].get("join_authorised_via_users_server")
        if not isinstance(via, str) or membership_of(via, state) != "join":
            raise Reject("join: restricted rule, authorising user not joined")
        if self.level_of(via, state) < self.named_level("invite", 0, state):
            raise Reject("join: restricted rule, authorising user may not invite")
        return "join: restricted rule, authorised"


class RulesV10(RulesV8):
    """Room 10: integer levels only; knock_restricted."""

    strings_are_levels = False

    def rules_to_knock_by(self) -> tuple[str, ...]:
        return ("knock", "knock_restricted")

    def restricting_rules(self) -> tuple[str, ...]:
        return ("restricted", "knock_restricted")

    def power_levels_shape(self, new: Mapping[str, Any]) -> None:
        for name in LEVELS:
            if name in new and not self.is_level(new[name]):
                raise Reject("power levels: named level no integer")
        for name in ("events", "notifications"):
            entries = new.get(name, {})
            if not isinstance(entries, Mapping) or not all(map(self.is_level, entries.values())):
                raise Reject("power levels: map not an object of integers")

    def read_level(self, value: object) -> int:
        return integer(value)


class RulesV11(RulesV10):
    """Room 11: the creator is the sender of the create event."""

    def create_creator(self, event: Event) -> None:
        pass

    def creator(self, state: State) -> object:
        return state[CREATE]["sender"]


class RulesV12(RulesV11):
    """Room 12: the room id names the create event; creators stand above all levels."""

    def selection(self, event: Event) -> set[StateKey]:
        return super().selection(event) - {CREATE}

    def create_room_id(self, event: Event) -> None:
        if "room_id" in event:
            raise Reject("create: room_id present")

    def room_id_of(self, event: Event) -> str:
        if event["type"] == "m.room.create":
            return "!" + str(event["event_id"])[1:]
        return str(event["room_id"])

    def create_creator(self, event: Event) -> None:
        creators = event["content"].get("additional_creators", [])
        if not isinstance(creators, list) or not all(map(is_user_id, creators)):
            raise Reject("create: additional_creators")

    def implied_create(self, event: Event, events: Events) -> Event | None:
        create = events.get("$" + self.room_id_of(event)[1:])
        return create if create is not None and create["type"] == "m.room.create" else None

    def check_auth_events(self, event: Event, events: Events, rejected: Collection[str]) -> str:
        if event["type"] != "m.room.create":
            create = self.implied_create(event, events)
            if create is None or create["event_id"] in rejected:
                raise Reject("room_id: no accepted create event")
        return super().check_auth_events(event, events, rejected)

    def check_create_among_entries(self, entries: list[Event]) -> None:
        """3.4 is gone: m.room.create is never selected."""

    def creators(self, state: State) -> list[str]:
        create = state[CREATE]
        return [create["sender"], *create["content"].get("additional_creators", [])]

    def level_of(self, user: str, state: State) -> Level:
        return math.inf if user in self.creators(state) else super().level_of(user, state)

    def power_levels_creators(self, new: Mapping[str, Any], state: State) -> None:
        if any(creator in new.get("users", {}) for creator in self.creators(state)):
            raise Reject("power levels: users has a creator")
