"""Where Synapse 1.163 departs from the text, one narrow and named case at a time.

None of them is something to copy: where they matter, one server accepts what another refuses.
Damaged events aside, three concern state resolution: "auth chain: with the event",
"power events: chain within the set" and those of "rejected events".
"""

from __future__ import annotations

import binascii
from collections.abc import Collection, Mapping
from typing import Any

from tests.oracle.departing import Table, departing
from tests.oracle.judging import BadRequest, Raises
from tests.reference.invites import base64_of, public_keys_of, signatures_of
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
)

TABLE: Table = {}
departure = departing(TABLE)


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
            if "state_key" in event and not self.is_creators_join(event, state, events):
                local = domain_of(event["state_key"]) == domain_of(state[CREATE]["sender"])
                if not local and not self.may_federate(state):
                    raise Reject("m.federate is false for the target")
            return super().member(event, state, events)

        def is_creators_join(self, event: Event, state: State, events: Events) -> bool:
            joins = event["content"].get("membership") == "join"
            return joins and self.is_creators_first_join(event, state, events)

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
            try:
                return super().redaction(event, state)
            except Reject:
                if isinstance(event.get("redacts"), str):
                    raise
                return "redaction: of nothing"

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


@departure("signatures: authoriser of joins only", of="rules")
def authorisers_sign_joins(base: Any) -> Any:
    """Rooms 8 and later, rule 4.2 (5.2): the authorising server's signature is asked of joins only.

    The text asks for it wherever `join_authorised_via_users_server` is, whatever the membership.
    """

    class Changed(base):
        def required_signers(self, event: Event) -> set[str | None]:
            content = event["content"]
            if content.get("membership") != "join":
                content = {k: v for k, v in content.items() if not k.startswith("join_authorised")}
            return super().required_signers({**event, "content": content})

        def member_authorised_via(self, event: Event) -> None:
            """Synapse looks for the signature before the rules."""

    return Changed


@departure("3pid invites: first signature", of="rules")
def first_signature_counts(base: Any) -> Any:
    """Rule 5.3.1.7 (5.4.1.7): with each public key, only the first ed25519 signature is tried.

    In the text any signature may match any public key.  Synapse fails with an exception on a
    public key that is not base64, and looks at the signatures before the ban of the target.
    """

    class Changed(base):
        def invite_by_third_party(self, event: Event, state: State) -> str:
            target = ("m.room.member", event["state_key"])
            super().invite_by_third_party(event, {k: v for k, v in state.items() if k != target})
            return super().invite_by_third_party(event, state)

        def is_signed_for(self, signed: Mapping[str, Any], offer: Mapping[str, Any]) -> bool:
            first = next(signatures_of(signed), None)
            if first is None:
                return False
            server, key_id, signature = first
            only = {**signed, "signatures": {server: {key_id: signature}}}
            for key in public_keys_of(offer):
                try:
                    base64_of(key)
                except binascii.Error:
                    raise Raises("Error") from None
                if super().is_signed_for(only, {"public_key": key}):
                    return True
            return False

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


@departure("power events: chain within the set", of="resolution")
def chains_are_walked_within_the_set(base: Any) -> Any:
    """State resolution v2, "Algorithm" 1: auth chains are followed only through conflicted events.

    In the text the whole auth chain of a power event counts, also what of it is in the full
    conflicted set behind an event that is not.
    """

    class Changed(base):
        def power_events_enlarged(self, full: set[str], events: Events) -> set[str]:
            found: set[str] = set()
            to_walk = [event_id for event_id in full if self.is_power_event(events[event_id])]
            while to_walk:
                event_id = to_walk.pop()
                if event_id in full and event_id not in found:
                    found.add(event_id)
                    to_walk += events[event_id]["auth_events"]
            return found

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
