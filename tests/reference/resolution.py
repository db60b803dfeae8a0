"""State resolution: the algorithm of room version 1, version 2, and version 2 as room 12 has it.

Matrix v1.19, rooms/v1 "State resolution", rooms/fragments/v2-state-res and rooms/v12 "State
resolution".  One method per definition, one line per step of the algorithm where that is possible.
States map (type, state_key) to event ids; `events` is everything the server knows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from tests.reference.auth_v1 import Level, RulesV1
from tests.reference.words import (
    POWER_LEVELS,
    Event,
    Events,
    NotALevel,
    Reject,
    State,
    StateKey,
    key_of,
)

StateIds = Mapping[StateKey, str]


class ResolutionV1:
    """Room version 1."""

    def __init__(self, rules: RulesV1) -> None:
        self.rules = rules

    def resolve(
        self, states: Sequence[StateIds], events: Events, rejected: Collection[str]
    ) -> dict[StateKey, str]:
        conflicts = self.conflicts(states)
        resolved = {
            key: event_id
            for state in states
            for key, event_id in state.items()
            if key not in conflicts
        }
        for passes in ("m.room.power_levels", "m.room.join_rules", "m.room.member"):
            room = {key: events[event_id] for key, event_id in resolved.items()}
            for key, ids in conflicts.items():
                if key[0] == passes:
                    resolved[key] = self.last_allowed(ids, room, events)
        room = {key: events[event_id] for key, event_id in resolved.items()}
        for key, ids in conflicts.items():
            if key not in resolved:
                resolved[key] = self.first_that_passes(ids, room, events)
        return resolved

    def conflicts(self, states: Sequence[StateIds]) -> dict[StateKey, set[str]]:
        """Keys for which the states have different event ids, with those ids."""
        ids: dict[StateKey, set[str]] = {}
        for state in states:
            for key, event_id in state.items():
                ids.setdefault(key, set()).add(event_id)
        return {key: of_key for key, of_key in ids.items() if len(of_key) > 1}

    def last_allowed(self, ids: Collection[str], room: State, events: Events) -> str:
        """For power levels, join rules and members."""
        first, *rest = sorted(ids, key=lambda i: (events[i]["depth"], -self.sha1(i)))
        key = key_of(events[first])
        for event_id in rest:
            if not self.allowed(events[event_id], {**room, key: events[first]}, events):
                break
            first = event_id
        return first

    def first_that_passes(self, ids: Collection[str], room: State, events: Events) -> str:
        """For all other conflicts."""
        ordered = sorted(ids, key=lambda i: (-events[i]["depth"], self.sha1(i)))
        for event_id in ordered:
            if self.allowed(events[event_id], room, events):
                return event_id
        return ordered[-1]  # reading R9

    def sha1(self, event_id: str) -> int:
        return int.from_bytes(hashlib.sha1(event_id.encode()).digest(), "big")

    def allowed(self, event: Event, room: State, events: Events) -> bool:
        try:
            self.rules.authorise(event, room, events)
        except Reject:
            return False
        return True


class ResolutionV2:
    """Rooms 2 to 11."""

    def __init__(self, rules: RulesV1) -> None:
        self.rules = rules

    # -- "Algorithm"

    def resolve(
        self, states: Sequence[StateIds], events: Events, rejected: Collection[str]
    ) -> dict[StateKey, str]:
        unconflicted = self.unconflicted_state_map(states)
        full = self.full_conflicted_set(states, events)
        # 1.
        first = self.power_events_enlarged(full, events)
        in_power_order = self.reverse_topological_power_order(first, events)
        # 2.
        start = self.starting_state(unconflicted)
        partial = self.iterative_auth_checks(start, in_power_order, events, rejected)
        # 3.
        in_mainline_order = self.mainline_order(
            full - first, self.mainline(partial.get(POWER_LEVELS), events), events
        )
        # 4.
        result = self.iterative_auth_checks(partial, in_mainline_order, events, rejected)
        # 5.
        return {**result, **unconflicted}

    def starting_state(self, unconflicted: StateIds) -> StateIds:
        return unconflicted

    # -- "Definitions"

    def is_power_event(self, event: Event) -> bool:
        if event["type"] in ("m.room.power_levels", "m.room.join_rules"):
            return True
        return (
            event["type"] == "m.room.member"
            and event["content"].get("membership") in ("leave", "ban")
            and event["sender"] != event["state_key"]
        )

    def power_events_enlarged(self, full: set[str], events: Events) -> set[str]:
        """*X* of step 1: the power events, and what of their auth chains is in the set."""
        power_events = {event_id for event_id in full if self.is_power_event(events[event_id])}
        return power_events | {
            ancestor
            for event_id in power_events
            for ancestor in self.auth_chain(event_id, events)
            if ancestor in full
        }

    def unconflicted_state_map(self, states: Sequence[StateIds]) -> dict[StateKey, str]:
        return {
            key: event_id
            for key, event_id in states[0].items()
            if all(state.get(key) == event_id for state in states)
        }

    def conflicted_state_set(self, states: Sequence[StateIds]) -> set[str]:
        unconflicted = self.unconflicted_state_map(states)
        return {
            event_id
            for state in states
            for key, event_id in state.items()
            if key not in unconflicted
        }

    def auth_chain(self, event_id: str, events: Events) -> set[str]:
        chain: set[str] = set()
        to_walk = list(events[event_id]["auth_events"])
        while to_walk:
            ancestor = to_walk.pop()
            if ancestor not in chain:
                chain.add(ancestor)
                to_walk += events[ancestor]["auth_events"]
        return chain

    def full_auth_chain(self, state: StateIds, events: Events) -> set[str]:
        chain: set[str] = set()
        for event_id in state.values():
            chain |= self.auth_chain(event_id, events)
        return chain

    def auth_difference(self, states: Sequence[StateIds], events: Events) -> set[str]:
        chains = [self.full_auth_chain(state, events) for state in states]
        return set.union(*chains) - chains[0].intersection(*chains)

    def full_conflicted_set(self, states: Sequence[StateIds], events: Events) -> set[str]:
        return self.conflicted_state_set(states) | self.auth_difference(states, events)

    def reverse_topological_power_order(self, ids: Iterable[str], events: Events) -> list[str]:
        waiting, ordered = set(ids), list[str]()
        smallness = {event_id: self.power_order(event_id, events) for event_id in waiting}
        while waiting:
            candidates = [i for i in waiting if not waiting & set(events[i]["auth_events"])]
            ordered.append(min(candidates, key=smallness.__getitem__))
            waiting.remove(ordered[-1])
        return ordered

    def power_order(self, event_id: str, events: Events) -> tuple[Level, int, str]:
        event = events[event_id]
        return (-self.senders_power_level(event, events), event["origin_server_ts"], event_id)

    def senders_power_level(self, event: Event, events: Events) -> Level:
        """The level of the sender when looking at the event's auth events."""
        if event["type"] == "m.room.create":
            return 0  # reading R13
        room = self.rules.state_of_auth_events(event, events, without=())
        try:
            return self.rules.level_of(event["sender"], room)
        except NotALevel:
            return 0  # reading R6

    def power_levels_in_auth_events(self, event_id: str, events: Events) -> str | None:
        for cited in events[event_id]["auth_events"]:
            if key_of(events[cited]) == POWER_LEVELS:
                return str(cited)
        return None

    def mainline(self, power_levels: str | None, events: Events) -> list[str]:
        line = []
        while power_levels is not None:
            line.append(power_levels)
            power_levels = self.power_levels_in_auth_events(power_levels, events)
        return line

    def mainline_position(self, event_id: str, line: list[str], events: Events) -> Level:
        cited = self.power_levels_in_auth_events(event_id, events)
        while cited is not None:
            if cited in line:
                return line.index(cited)
            cited = self.power_levels_in_auth_events(cited, events)
        return math.inf

    def mainline_order(self, ids: Iterable[str], line: list[str], events: Events) -> list[str]:
        return sorted(
            ids,
            key=lambda i: (
                -self.mainline_position(i, line, events),
                events[i]["origin_server_ts"],
                i,
            ),
        )

    def iterative_auth_checks(
        self, initial: StateIds, ordered: list[str], events: Events, rejected: Collection[str]
    ) -> dict[StateKey, str]:
        state = dict(initial)
        for event_id in ordered:
            event = events[event_id]
            if self.allowed(event, self.state_for(event, state, events, rejected), events):
                state[key_of(event)] = event_id
        return state

    def state_for(
        self, event: Event, state: StateIds, events: Events, rejected: Collection[str]
    ) -> dict[StateKey, Event]:
        """What is required from the state, filled up from the auth events."""
        required = self.rules.selection(event)
        return self.rules.state_of_auth_events(event, events, without=rejected) | {
            key: events[event_id] for key, event_id in state.items() if key in required
        }

    def allowed(self, event: Event, room: State, events: Events) -> bool:
        try:
            self.rules.authorise(event, room, events)
        except Reject:
            return False
        return True


class ResolutionV21(ResolutionV2):
    """Room version 12."""

    def starting_state(self, unconflicted: StateIds) -> StateIds:
        return {}

    def full_conflicted_set(self, states: Sequence[StateIds], events: Events) -> set[str]:
        return super().full_conflicted_set(states, events) | self.conflicted_state_subgraph(
            states, events
        )

    def conflicted_state_subgraph(self, states: Sequence[StateIds], events: Events) -> set[str]:
        """Every event on a path of `auth_events` from one conflicted event to another."""
        conflicted = self.conflicted_state_set(states)
        subgraph: set[str] = set()
        for start in conflicted:
            for between in self.auth_chain(start, events) | {start}:
                ends = conflicted & (self.auth_chain(between, events) | {between})
                if ends - {start}:
                    subgraph.add(between)
        return subgraph
