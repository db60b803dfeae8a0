"""What state resolution needs to know of a room's events, and how it reads it.

Matrix v1.19, rooms/v2 and v12, "Iterative auth checks" and "Auth chain" [A6.07], [A6.10].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from matrixbox.core.auth import NotAllowed, check_auth, select_auth_keys
from matrixbox.core.events import CREATE, Event, StateKey
from matrixbox.core.identifiers import EventId
from matrixbox.core.room_versions import RoomRules


class EventGraph(Protocol):
    """The events of one room, as far as they are known; asked for one at a time.

    The auth chains of the events in the state sets must be known: resolution raises EventMissing
    where `event` gives None, and lets through what `auth_event_ids` raises for unknown events.
    """

    def event(self, event_id: EventId) -> Event | None:
        """The event, None if it is unknown."""

    def auth_event_ids(self, event_id: EventId) -> Sequence[EventId]:
        """The auth events of a known event."""

    def is_rejected(self, event_id: EventId) -> bool:
        """Whether the event was rejected when it was received."""


class EventMissing(Exception):
    """An event that has to be known is not: fetch it and try again (T027)."""

    def __init__(self, event_id: EventId) -> None:
        super().__init__(f"{event_id} is not known")
        self.event_id = event_id


class Reader:
    """The graph during one resolution: every event is loaded once."""

    def __init__(self, rules: RoomRules, graph: EventGraph, create_event_id: EventId) -> None:
        self.rules = rules
        self.graph = graph
        self.create_event_id = create_event_id
        self._events: dict[EventId, Event] = {}

    def event(self, event_id: EventId) -> Event:
        """The event; raise EventMissing if it is unknown."""
        event = self._events.get(event_id)
        if event is None:
            event = self.graph.event(event_id)
            if event is None:
                raise EventMissing(event_id)
            self._events[event_id] = event
        return event

    def allows(
        self, state: Mapping[StateKey, EventId], event: Event, *, or_own_auth_events: bool
    ) -> bool:
        """Whether the auth rules let `event` into a room in `state`.

        `or_own_auth_events`: for keys that the state lacks, the event's own auth events count
        unless they were rejected [A6.10].  The create event of a version 12 room is in nobody's
        auth events; the room ID stands for it [A6.07].
        """
        seen: dict[StateKey, Event] = {}
        if self.rules.room_id_is_create_hash:
            seen[CREATE] = self.event(self.create_event_id)
        lacking = False
        for key in select_auth_keys(
            self.rules, event.type, event.sender, event.state_key, event.content
        ):
            event_id = state.get(key)
            if event_id is None:
                lacking = True
            else:
                seen[key] = self.event(event_id)
        if lacking and or_own_auth_events:
            for key, auth in self._own_auth_events(event):
                seen.setdefault(key, auth)
        try:
            check_auth(self.rules, event, seen)
        except NotAllowed:
            return False
        return True

    def _own_auth_events(self, event: Event) -> Iterable[tuple[StateKey, Event]]:
        for auth_id in event.auth_event_ids:
            auth = self.event(auth_id)
            if auth.state_key is not None and not self.graph.is_rejected(auth_id):
                yield (auth.type, auth.state_key), auth
