"""Where Synapse 1.163 departs from the text, one narrow and named case at a time.

A departure is the reference with a sentence of the text changed into what Synapse does, so that
it says exactly which verdict or state Synapse gives: an answer of Synapse that differs from the
reference is explained only if the reference with these changes gives that very answer.
`explain` names the smallest set of departures that does; `compare` lets nothing else pass.

None of them is something to copy: where they matter, one server accepts what another refuses.
The two that concern state resolution beyond damaged events are "auth chain: with the event" and
the two of "rejected events".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tests.oracle.judging import BadRequest, Raises
from tests.reference import ROOM_VERSIONS, RoomVersion
from tests.reference.auth import RulesV12
from tests.reference.resolution import ResolutionV2, StateIds
from tests.reference.words import (
    CREATE,
    Event,
    Events,
    NotALevel,
    Reject,
    State,
    StateKey,
    domain_of,
    key_of,
)

Rewrite = Callable[[Any], Any]
"""Makes a class with a changed sentence from a class of the reference."""


@dataclass(frozen=True, slots=True)
class Departure:
    name: str
    why: str
    of: str
    """What it changes: "rules" or "resolution"."""
    rewrite: Rewrite


BY_NAME: dict[str, Departure] = {}


def departure(name: str, of: str) -> Callable[[Rewrite], Rewrite]:
    def register(rewrite: Rewrite) -> Rewrite:
        BY_NAME[name] = Departure(name, " ".join((rewrite.__doc__ or "").split()), of, rewrite)
        return rewrite

    return register


@departure("federate: only true", of="rules")
def only_true_federates(base: Any) -> Any:
    """Rule 3 (4): any `m.federate` but `true` closes the room to other servers.

    The text says: set to `false`.
    """

    class Changed(base):
        def may_federate(self, state: State) -> bool:
            return state[CREATE]["content"].get("m.federate", True) is True

    return Changed


@departure("federate: target too", of="rules")
def target_must_federate(base: Any) -> Any:
    """Rule 3 (4): where a room does not federate, the target of a member event must be local too.

    The text looks at the domain of the sender only.
    """

    class Changed(base):
        def member(self, event: Event, state: State, events: Events) -> str:
            words = super().member(event, state, events)
            local = domain_of(event["state_key"]) == domain_of(state[CREATE]["sender"])
            if words == "join: creator after create" or local or self.may_federate(state):
                return words
            raise Reject("m.federate is false for the target")

    return Changed


@departure("member: target without domain", of="rules")
def target_must_have_a_domain(base: Any) -> Any:
    """Rule 5: a member event whose state key has no colon is refused.

    The text asks only that there is a state key.  Synapse's state resolution fails where such an
    event is in a state set.
    """

    class Changed(base):
        def member(self, event: Event, state: State, events: Events) -> str:
            if domain_of(event.get("state_key", ":")) is None:
                raise BadRequest
            return super().member(event, state, events)

    return Changed


@departure("redaction: of nothing", of="rules")
def redaction_of_nothing(base: Any) -> Any:
    """Rooms 1 and 2, rule 11.2: a redaction without `redacts` is allowed.

    In the text there is no domain that could be the same, so: otherwise, reject.
    """

    class Changed(base):
        def redaction(self, event: Event, state: State) -> str:
            if not isinstance(event.get("redacts"), str):
                return "redaction: of nothing"
            return super().redaction(event, state)

    return Changed


@departure("levels: lax user ids", of="rules")
def any_name_with_a_colon(base: Any) -> Any:
    """Rule 10.1 (10.3): a key of `users` needs only an @ and a colon.

    The text asks for valid user ids, and those have a valid server name.
    """

    class Changed(base):
        def is_user_id(self, text: object) -> bool:
            return isinstance(text, str) and text.startswith("@") and ":" in text

    return Changed


@departure("levels: Python integers", of="rules")
def what_python_calls_an_integer(base: Any) -> Any:
    """Rooms 1 to 9, rule 10.1: `true`, "1_0" and digits of any script are levels.

    The text asks for integers or strings in the format of the "stringy power levels".
    """

    class Changed(base):
        def read_level(self, value: Any) -> int:
            try:
                return int(value)
            except (TypeError, ValueError):
                raise NotALevel(value) from None

    return Changed if base.strings_are_levels else base


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
    """Rooms 1 to 9, rule 10: Synapse fails with an exception on a level that it cannot read.

    The text says nothing of such levels outside of `users`; see reading R6 of the reference.
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

    return Changed if base.strings_are_levels else base


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
        def power_levels_users(self, new: Mapping[str, Any]) -> None:
            if not isinstance(new.get("users", {}), Mapping):
                raise Raises("AttributeError")
            super().power_levels_users(new)

    return Changed


@departure("levels: another state key", of="rules")
def levels_under_another_key(base: Any) -> Any:
    """Rule 10: power levels under a state key other than "" may alter everything.

    Synapse compares them with the event of that key, which is not in the state it looks at;
    without a state key it fails with an exception.  In the text the room has one
    `m.room.power_levels`, with which all are compared.
    """

    class Changed(base):
        def power_levels(self, event: Event, state: State) -> str:
            if event.get("state_key") == "":
                return super().power_levels(event, state)
            self.power_levels_users(event["content"])
            self.power_levels_creators(event["content"], state)
            self.power_levels_shape(event["content"])
            if "state_key" not in event:
                raise Raises("AttributeError")
            return "power levels: no previous event with the key"

    return Changed


@departure("power events: empty state key", of="resolution")
def power_events_have_the_empty_key(base: Any) -> Any:
    """State resolution v2, "Power events": only those with the state key "".

    The text goes by the type of power levels and join rules alone.
    """

    class Changed(base):
        def is_power_event(self, event: Event) -> bool:
            if event["type"] in ("m.room.power_levels", "m.room.join_rules"):
                return event["state_key"] == ""
            return super().is_power_event(event)

    return Changed


@departure("auth chain: with the event", of="resolution")
def state_events_are_in_their_auth_chains(base: Any) -> Any:
    """State resolution v2, "Auth chain": the events of a state are in the state's auth chain.

    In the text an auth chain is without the event itself, so that an event that all states have,
    but that only some of them cite, is in the auth difference.
    """

    class Changed(base):
        def full_auth_chain(self, state: StateIds, events: Events) -> set[str]:
            return super().full_auth_chain(state, events) | set(state.values())

    return Changed if issubclass(base, ResolutionV2) else base


@departure("rejected events: stay out", of="resolution")
def rejected_events_stay_out(base: Any) -> Any:
    """State resolution v2, "Rejected events": what the state at the event rejected is never let in.

    The text handles it as usual.  Synapse's source says that this is not to the text.
    """

    class Changed(base):
        def iterative_auth_checks(
            self, initial: StateIds, ordered: list[str], events: Events, rejected: Collection[str]
        ) -> dict[StateKey, str]:
            accepted = [event_id for event_id in ordered if event_id not in rejected]
            return super().iterative_auth_checks(initial, accepted, events, rejected)

    return Changed if issubclass(base, ResolutionV2) else base


@departure("rejected events: passed over", of="resolution")
def rejected_state_is_passed_over(base: Any) -> Any:
    """State resolution v2, "Iterative auth checks": a rejected event in the state is not used.

    The event's own auth event is used instead; the text knows that only for auth events.
    """

    class Changed(base):
        def state_for(
            self, event: Event, state: StateIds, events: Events, rejected: Collection[str]
        ) -> dict[StateKey, Event]:
            accepted = {key: i for key, i in state.items() if i not in rejected}
            return super().state_for(event, accepted, events, rejected)

    return Changed if issubclass(base, ResolutionV2) else base


ALL = frozenset(BY_NAME)


@functools.cache
def depart(version: str, names: frozenset[str]) -> RoomVersion:
    """The reference for a room version with the named departures."""
    origin = ROOM_VERSIONS[version]
    classes: dict[str, Any] = {"rules": type(origin.rules), "resolution": type(origin.resolution)}
    for departed in BY_NAME.values():
        if departed.name in names:
            classes[departed.of] = departed.rewrite(classes[departed.of])
    rules = classes["rules"]()
    return RoomVersion(version, rules, classes["resolution"](rules))


def explain(version: str, gives: Callable[[RoomVersion], bool]) -> tuple[str, ...] | None:
    """The fewest departures with which the reference gives Synapse's answer.

    `gives` says whether a variant of the reference does.  None: all of them together do not.
    """
    if not gives(depart(version, ALL)):
        return None
    for name in BY_NAME:
        if gives(depart(version, frozenset({name}))):
            return (name,)
    needed = set(ALL)
    for name in BY_NAME:
        if gives(depart(version, frozenset(needed - {name}))):
            needed.remove(name)
    return tuple(name for name in BY_NAME if name in needed)
