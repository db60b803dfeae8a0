"""What the naive reference says about a room of the simulation.

All events that any honest server has are put together.  Each is judged by its own auth events; and
where nothing is missing behind an event, the states before and after it are computed from the very
beginning, with the reference's resolution at every merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field

from tests.reference import ROOM_VERSIONS, RoomVersion
from tests.reference.words import Reject, StateKey, key_of

StateIds = dict[StateKey, str]
Pdu = Mapping[str, Any]


def named(found: Sequence[Any]) -> list[str]:
    """The ids among citations; versions 1 and 2 pair them with hashes."""
    return [each if isinstance(each, str) else each[0] for each in found]


class Known(dict[str, dict[str, Any]]):
    """Events by id; of those that nobody has, the type is asked for at most."""

    def __missing__(self, event_id: str) -> dict[str, Any]:
        return {"type": "unknown"}


@define(eq=False)
class Court:
    """One room."""

    version: str
    events: Known = field(factory=Known)
    _by_auth: dict[str, str | None] = field(factory=dict)
    _before: dict[str, StateIds | None] = field(factory=dict)
    _after: dict[str, StateIds | None] = field(factory=dict)
    rejected: set[str] = field(factory=set)

    @property
    def rules(self) -> RoomVersion:
        """The reference for this room version."""
        return ROOM_VERSIONS[self.version]

    def take(self, event_id: str, pdu: Pdu) -> None:
        """An event that somebody has."""
        self.events[event_id] = {
            **pdu,
            "event_id": event_id,
            "prev_events": named(pdu["prev_events"]),
            "auth_events": named(pdu["auth_events"]),
        }

    # --- by its own auth events

    def objection(self, event_id: str) -> str | None:
        """Why an event is not allowed by its own auth events, or one of those by theirs."""
        waiting = [event_id]
        while waiting:
            current = waiting[-1]
            if current in self._by_auth:
                waiting.pop()
                continue
            event = self.events.get(current)
            if event is None:
                self._by_auth[current] = "nobody has it"
                continue
            missing = [each for each in event["auth_events"] if each not in self._by_auth]
            if missing:
                waiting += missing
                continue
            self._by_auth[current] = self._judge_by_auth(event)
        return self._by_auth[event_id]

    def _judge_by_auth(self, event: dict[str, Any]) -> str | None:
        auth = event["auth_events"]
        bad = {each for each in auth if self._by_auth[each] is not None}
        if any(each not in self.events for each in auth):
            return f"{event['event_id']}: cites what nobody has"
        rules = self.rules.rules
        try:
            rules.check_signatures(event)
            rules.check_auth_events(event, self.events, bad)
            state = rules.state_of_auth_events(event, self.events, bad)
            rules.authorise(event, state, self.events)
        except Reject as reject:
            return f"{event['event_id']}: {reject}"
        return None

    # --- by the states of the graph

    def replay(self) -> None:
        """Compute the states before and after all events behind which nothing is missing."""
        for event_id in self._in_order():
            event = self.events[event_id]
            before = self._resolved(event["prev_events"])
            self._before[event_id] = before
            if before is None and event["prev_events"]:
                self._after[event_id] = None
                continue
            before = before or {}
            if not self._allowed(event, before):
                self.rejected.add(event_id)
                self._after[event_id] = before
            elif "state_key" in event:
                self._after[event_id] = {**before, key_of(event): event_id}
            else:
                self._after[event_id] = before

    def _allowed(self, event: dict[str, Any], before: StateIds) -> bool:
        if self.objection(event["event_id"]) is not None:
            return False
        try:
            state = {key: self.events[each] for key, each in before.items()}
            self.rules.rules.authorise(event, state, self.events)
        except Reject:
            return False
        return True

    def _resolved(self, parents: Iterable[str]) -> StateIds | None:
        """The resolution of the states after some events; None where one is not known."""
        states: list[StateIds] = []
        for parent in parents:
            after = self._after.get(parent)
            if after is None:
                return None
            if after not in states:
                states.append(after)
        if len(states) < 2:
            return states[0] if states else None
        by_auth = {each for each in self._by_auth if self._by_auth[each] is not None}
        return self.rules.resolution.resolve(states, self.events, by_auth)

    def _in_order(self) -> list[str]:
        """Each event after its parents, as far as they are here."""
        waiting = {
            event_id: sum(parent in self.events for parent in set(event["prev_events"]))
            for event_id, event in self.events.items()
        }
        children: dict[str, list[str]] = {}
        for event_id, event in self.events.items():
            for parent in set(event["prev_events"]):
                children.setdefault(parent, []).append(event_id)
        ready = [event_id for event_id, count in waiting.items() if count == 0]
        order: list[str] = []
        while ready:
            event_id = ready.pop()
            order.append(event_id)
            for child in children.get(event_id, ()):
                waiting[child] -= 1
                if waiting[child] == 0:
                    ready.append(child)
        return order

    def before(self, event_id: str) -> StateIds | None:
        """The state before an event; None where something is missing behind it."""
        return self._before.get(event_id)

    def state_at(self, extremities: Iterable[str]) -> StateIds | None:
        """The state at the end of a server's graph; None where something is missing behind it."""
        return self._resolved(extremities)
