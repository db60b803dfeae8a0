"""State resolution of room version 1.

Matrix v1.19, rooms/v1, "State resolution" [A6.02], [A6.03].  The text leaves open in which order
conflicts about several keys of one type are treated.  Here, as in the servers that made these
rooms, each key is resolved by itself against the result of the passes before, which makes the
order of the keys irrelevant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha1

from matrixbox.core.events import Event, StateKey
from matrixbox.core.graph import Reader
from matrixbox.core.identifiers import EventId

_PASSES = ("m.room.power_levels", "m.room.join_rules", "m.room.member")


def resolve_v1(
    reader: Reader, state_sets: Sequence[Mapping[StateKey, EventId]]
) -> dict[StateKey, EventId]:
    """Resolve states of a version 1 room."""
    candidates: dict[StateKey, set[EventId]] = {}
    for state in state_sets:
        for key, event_id in state.items():
            candidates.setdefault(key, set()).add(event_id)
    # "Start by setting R to the union of the states, excluding any conflicting events."
    resolved = {key: next(iter(ids)) for key, ids in candidates.items() if len(ids) == 1}
    conflicts = {
        key: _by_age(reader, ids) for key, ids in candidates.items() if key not in resolved
    }
    for type_ in _PASSES:
        found = {
            key: _last_allowed(reader, resolved, key, events)
            for key, events in conflicts.items()
            if key[0] == type_
        }
        resolved |= found
    # "No other events affect the authorisation rules, so for all other conflicts, just pick the
    # event with the highest depth and lowest sha1(event_id) that passes."  Where none passes the
    # text is silent; servers take the oldest.
    return resolved | {
        key: _highest_allowed(reader, resolved, events)
        for key, events in conflicts.items()
        if key[0] not in _PASSES
    }


def _by_age(reader: Reader, event_ids: set[EventId]) -> list[Event]:
    """Ascending `depth`, then descending `sha1(event_id)`."""

    def digest(event: Event) -> bytes:
        return sha1(event.event_id.encode(), usedforsecurity=False).digest()

    by_digest = sorted(map(reader.event, event_ids), key=digest, reverse=True)
    return sorted(by_digest, key=lambda event: event.depth)


def _last_allowed(
    reader: Reader,
    resolved: Mapping[StateKey, EventId],
    key: StateKey,
    events: Sequence[Event],
) -> EventId:
    """Add the first event to R, then each one that R allows; stop at the first that it does not."""
    state = dict(resolved)
    state[key] = events[0].event_id
    for event in events[1:]:
        if not reader.allows(state, event, or_own_auth_events=False):
            break
        state[key] = event.event_id
    return state[key]


def _highest_allowed(
    reader: Reader, resolved: Mapping[StateKey, EventId], events: Sequence[Event]
) -> EventId:
    for event in reversed(events):
        if reader.allows(resolved, event, or_own_auth_events=False):
            return event.event_id
    return events[0].event_id
