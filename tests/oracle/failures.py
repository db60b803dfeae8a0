"""Where Synapse 1.163 fails with an exception instead of judging an event.

It drops such an event, and does not store that it was rejected; either way it is not accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tests.oracle.departing import Table, departing
from tests.oracle.judging import Raises
from tests.reference.auth import RulesV12
from tests.reference.words import (
    CREATE,
    POWER_LEVELS,
    Event,
    Events,
    NotALevel,
    State,
    StateKey,
    key_of,
)

TABLE: Table = {}
departure = departing(TABLE)


@departure("fails: incomplete member event", of="rules")
def fails_on_incomplete_members(base: Any) -> Any:
    """Rules 5.1 and 5.3.1: Synapse fails with an exception where the text rejects.

    That is without `membership`, `state_key` or `third_party_invite.signed.token`.
    """

    class Changed(base):
        def selection(self, event: Event) -> set[StateKey]:
            if event["type"] == "m.room.member":
                refuse_incomplete(event)
            return super().selection(event)

        def check_auth_events(self, event: Event, events: Events, rejected: Collection[str]) -> str:
            self.selection(event)
            return super().check_auth_events(event, events, rejected)

        def authorise(self, event: Event, state: State, events: Events) -> str:
            self.selection(event)
            return super().authorise(event, state, events)

        def required_signers(self, event: Event) -> set[str | None]:
            if event["type"] == "m.room.member" and "membership" not in event["content"]:
                raise Raises("KeyError")
            return super().required_signers(event)

    return Changed


def refuse_incomplete(event: Event) -> None:
    content = event["content"]
    if "membership" not in content:
        raise Raises("KeyError")
    if "state_key" not in event:
        raise Raises("AttributeError")
    if content["membership"] == "invite" and "third_party_invite" in content:
        at: Any = content
        for name in ("third_party_invite", "signed", "token"):
            if not isinstance(at, Mapping):
                raise Raises("TypeError")
            if name not in at:
                raise Raises("KeyError")
            at = at[name]


@departure("fails: auth event without state key", of="rules")
def fails_on_messages_as_auth_events(base: Any) -> Any:
    """Rule 2.2 (3.2): Synapse fails with an exception where the text rejects."""

    class Changed(base):
        def check_auth_events(self, event: Event, events: Events, rejected: Collection[str]) -> str:
            good = []
            for event_id in event["auth_events"]:
                if "state_key" in events[event_id]:
                    good.append(event_id)
                    continue
                # Synapse goes through the list; what is wrong before this entry is refused.
                if self.room_id_of(events[event_id]) == self.room_id_of(event):
                    self.selection(event)
                    if self.entries_fine(good, event, events, rejected):
                        raise Raises("AttributeError")
                break
            return super().check_auth_events(event, events, rejected)

        def entries_fine(
            self, ids: list[str], event: Event, events: Events, rejected: Collection[str]
        ) -> bool:
            keys = [key_of(events[i]) for i in ids]
            return (
                len(set(keys)) == len(keys)
                and set(keys) <= self.selection(event) | {CREATE}
                and not any(i in rejected for i in ids)
                and all(self.room_id_of(events[i]) == self.room_id_of(event) for i in ids)
            )

    return Changed


@departure("fails: unreadable level", of="rules")
def fails_on_unreadable_levels(base: Any) -> Any:
    """Rooms 1 to 9: Synapse fails with an exception on a level that it cannot read.

    It reads the invite and ban level for every member event, the redact level for redactions also
    where no rule asks for it, and takes null for the default where
    it does not compare old with new levels.  The text says nothing of unreadable levels outside
    of `users`; see reading R6 of the reference.
    """

    class Changed(base):
        def read_level(self, value: Any) -> int:
            try:
                return super().read_level(value)
            except NotALevel:
                raise Raises("ValueError" if isinstance(value, str) else "TypeError") from None

        def is_level(self, value: object) -> bool:
            try:
                self.read_level(value)
            except Raises:
                return False
            return True

        def level_of(self, user: str, state: State) -> Any:
            return super().level_of(user, without_null(state, "users_default"))

        def named_level(self, name: str, default: int, state: State) -> int:
            return super().named_level(name, default, without_null(state, name))

        def join(self, event: Event, state: State, events: Events) -> str:
            if not self.is_creators_first_join(event, state, events):
                self.read_for_members(event, state)
            return super().join(event, state, events)

        def invite(self, event: Event, state: State) -> str:
            self.read_for_members(event, state)
            return super().invite(event, state)

        def leave(self, event: Event, state: State) -> str:
            self.read_for_members(event, state)
            return super().leave(event, state)

        def ban(self, event: Event, state: State) -> str:
            self.read_for_members(event, state)
            return super().ban(event, state)

        def other_membership(self, event: Event, state: State) -> str:
            self.read_for_members(event, state)
            return super().other_membership(event, state)

        def last_rules(self, event: Event, state: State) -> str:
            if event["type"] == "m.room.redaction":
                self.named_level("redact", 50, state)
            return super().last_rules(event, state)

        def read_for_members(self, event: Event, state: State) -> None:
            self.level_of(event["sender"], state)
            self.level_of(event["state_key"], state)
            self.named_level("invite", 0, state)
            self.named_level("ban", 50, state)

    return Changed if base.strings_are_levels else base


def without_null(state: State, name: str) -> State:
    """The state with a level of null left out of the power levels."""
    levels = state.get(POWER_LEVELS)
    if levels is None or levels["content"].get(name, 0) is not None:
        return state
    content = {key: value for key, value in levels["content"].items() if key != name}
    return {**state, POWER_LEVELS: {**levels, "content": content}}


@departure("fails: create event cited", of="rules")
def fails_where_the_create_event_is_cited(base: Any) -> Any:
    """Room 12, rules 2 and 3.2: Synapse fails where `auth_events` has the create event.

    It adds that event to `auth_events` itself, and fails as well if it does not know it.  The text
    rejects in both cases.
    """

    class Changed(base):
        def check_auth_events(self, event: Event, events: Events, rejected: Collection[str]) -> str:
            create, cited = self.implied_create(event, events), event["auth_events"]
            fails = not cited if create is None else create["event_id"] in cited
            if fails and event["type"] != "m.room.create":
                raise Raises("RuntimeError")
            return super().check_auth_events(event, events, rejected)

    return Changed if issubclass(base, RulesV12) else base


@departure("fails: create with a room id", of="rules")
def fails_on_create_with_room_id(base: Any) -> Any:
    """Room 12, rule 1.2: Synapse cannot read the event; the text rejects it."""

    class Changed(base):
        def readable(self, event: Event) -> None:
            if event["type"] == "m.room.create" and "room_id" in event:
                raise Raises("BadJson")

        def required_signers(self, event: Event) -> set[str | None]:
            self.readable(event)
            return super().required_signers(event)

        def check_auth_events(self, event: Event, events: Events, rejected: Collection[str]) -> str:
            self.readable(event)
            return super().check_auth_events(event, events, rejected)

        def authorise(self, event: Event, state: State, events: Events) -> str:
            self.readable(event)
            return super().authorise(event, state, events)

    return Changed if issubclass(base, RulesV12) else base


@departure("fails: users not an object", of="rules")
def fails_on_users_without_items(base: Any) -> Any:
    """Rule 10.1 (10.3): Synapse fails with an exception where the text rejects."""

    class Changed(base):
        def power_levels(self, event: Event, state: State) -> str:
            # It looks at them before anything else of the content.
            if not isinstance(event["content"].get("users", {}), Mapping):
                raise Raises("AttributeError")
            return str(super().power_levels(event, state))

    return Changed
