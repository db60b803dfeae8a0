"""State resolution of room versions 2 to 11, and version 2.1 of room version 12.

Matrix v1.19, fragments/v2-state-res and rooms/v12, "State resolution" [A6.04]-[A6.12].

What all states share is walked through only where it must be.  The auth chain of a state is that
of its shared part together with that of its conflicted events, so an event can differ between the
chains only if it is in the chain of some conflicted event; and it does differ unless it is in the
chain of the shared part, which is followed for such events alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

from matrixbox.core.events import POWER_LEVELS, Event, StateKey, power_levels
from matrixbox.core.graph import Reader
from matrixbox.core.identifiers import EventId
from matrixbox.core.room_versions import StateResolution
from matrixbox.core.verdict import NotAllowed

Links = dict[EventId, Sequence[EventId]]  # the auth events of each event that was walked over


def resolve_v2(
    reader: Reader, state_sets: Sequence[dict[StateKey, EventId]]
) -> dict[StateKey, EventId]:
    """Resolve at least two different states."""
    subgraph = reader.rules.state_resolution is StateResolution.V2_1
    shared = set(state_sets[0].items())
    for state in state_sets[1:]:
        shared &= state.items()
    unconflicted = {key: id_ for key, id_ in state_sets[0].items() if (key, id_) in shared}
    conflicted = [{id_ for _, id_ in state.items() - shared} for state in state_sets]
    links = _walk(reader, set().union(*conflicted))
    full = _auth_difference(reader, links, conflicted, unconflicted.values())
    full = full.union(*conflicted)
    if subgraph:
        # The conflicted state subgraph: whatever leads from one conflicted event to another.
        full |= _leading_to(links, set().union(*conflicted))
    # 1. Power events, and the events of the full conflicted set in their auth chains.
    power = {id_ for id_ in full if _is_power_event(reader.event(id_))}
    power |= _reachable(links, power) & full
    # 2. Iterative auth checks, in v2.1 from an empty state.
    partial = _apply(
        {} if subgraph else dict(unconflicted), reader, _power_order(reader, links, power)
    )
    # 3. The others, in mainline order.
    rest = _mainline_order(reader, full - power, partial.get(POWER_LEVELS))
    # 4. Iterative auth checks again.
    resolved = _apply(partial, reader, rest)
    # 5. The unconflicted state stays as it is.
    return resolved | unconflicted


def _is_power_event(event: Event) -> bool:
    """Power events might take away somebody's ability to do something."""
    if event.state_key is None:
        return False
    if event.type == "m.room.member":
        leaves = event.content.get("membership") in ("leave", "ban")
        return leaves and event.sender != event.state_key
    return event.type in ("m.room.power_levels", "m.room.join_rules")


# --- auth chains


def _walk(reader: Reader, roots: Iterable[EventId]) -> Links:
    """The auth events of the roots and of everything in their auth chains."""
    links: Links = {}
    ahead = list(roots)
    while ahead:
        event_id = ahead.pop()
        if event_id not in links:
            links[event_id] = reader.graph.auth_event_ids(event_id)
            ahead.extend(links[event_id])
    return links


def _reachable(links: Links, roots: Iterable[EventId]) -> set[EventId]:
    """The union of the roots' auth chains; a root is in it only if another one leads there."""
    found: set[EventId] = set()
    ahead = [auth for root in roots for auth in links[root]]
    while ahead:
        event_id = ahead.pop()
        if event_id not in found:
            found.add(event_id)
            ahead.extend(links[event_id])
    return found


def _leading_to(links: Links, targets: Iterable[EventId]) -> set[EventId]:
    """The targets, and the walked events whose auth chains hold one of them."""
    citing: dict[EventId, list[EventId]] = {}
    for event_id, auth_ids in links.items():
        for auth in auth_ids:
            citing.setdefault(auth, []).append(event_id)
    found: set[EventId] = set()
    ahead = list(targets)
    while ahead:
        event_id = ahead.pop()
        if event_id not in found:
            found.add(event_id)
            ahead.extend(citing.get(event_id, ()))
    return found


def _auth_difference(
    reader: Reader,
    links: Links,
    conflicted: Sequence[set[EventId]],
    shared_state: Iterable[EventId],
) -> set[EventId]:
    """The events that are in the full auth chain of one state but not of every state, exactly.

    Nothing below an event that is in every chain can differ, so the walk stops there.
    """
    chains = [_reachable(links, events) for events in conflicted]
    everywhere = set.intersection(*chains)
    different = set().union(*chains) - everywhere
    ahead: list[EventId] = []
    for event_id in shared_state:
        if not different:
            break
        ahead.extend(reader.graph.auth_event_ids(event_id))
        while ahead:
            found = ahead.pop()
            if found not in everywhere:
                everywhere.add(found)
                different.discard(found)
                ahead.extend(reader.graph.auth_event_ids(found))
    return different


# --- reverse topological power ordering


def _power_order(reader: Reader, links: Links, events: set[EventId]) -> list[Event]:
    """Kahn's algorithm, at each step the smallest event whose auth events have all had their turn.

    The graph is that of the set alone, as in all servers: a path from one of its events to another
    through events outside of it (which version 2.1 draws into the set) orders nothing.  Events
    that are in their own auth chain never have their turn: nobody accepts those (T007).
    """
    waiting = {event_id: events.intersection(links[event_id]) for event_id in events}
    citing: dict[EventId, list[EventId]] = {}
    for event_id, auth_ids in waiting.items():
        for auth in auth_ids:
            citing.setdefault(auth, []).append(event_id)
    order: list[Event] = []
    ready = [_power_key(reader, event_id) for event_id in events if not waiting[event_id]]
    heapify(ready)
    while ready:
        done = heappop(ready)[2]
        order.append(reader.event(done))
        for event_id in citing.get(done, ()):
            waiting[event_id].discard(done)
            if not waiting[event_id]:
                heappush(ready, _power_key(reader, event_id))
    return order


def _power_key(reader: Reader, event_id: EventId) -> tuple[float, int, EventId]:
    """Greater power of the sender first, then the earlier timestamp, then the smaller ID."""
    event = reader.event(event_id)
    if event.type == "m.room.create":
        # A second one, which founds another room; it cites nothing that gives its sender any power.
        return 0, event.origin_server_ts, event_id
    create = reader.event(reader.create_event_id)
    cited = _cited_power_levels(reader, event)
    try:
        level = power_levels(reader.rules, create, cited, strict=True).user(event.sender)
    except NotAllowed:
        level = 0  # it can't be read
    return -level, event.origin_server_ts, event_id


def _cited_power_levels(reader: Reader, event: Event) -> Event | None:
    """The power levels event among an event's auth events."""
    for auth_id in event.auth_event_ids:
        auth = reader.event(auth_id)
        if (auth.type, auth.state_key) == POWER_LEVELS:
            return auth
    return None


# --- mainline ordering


def _mainline_order(
    reader: Reader, events: Iterable[EventId], resolved_levels: EventId | None
) -> list[Event]:
    """The events sorted by mainline position, farthest first, then timestamp, then ID."""
    positions: dict[EventId, float] = {}
    levels = None if resolved_levels is None else reader.event(resolved_levels)
    while levels is not None and levels.event_id not in positions:
        positions[levels.event_id] = len(positions)
        levels = _cited_power_levels(reader, levels)
    return sorted(
        map(reader.event, events),
        key=lambda event: (
            -_mainline_position(reader, positions, event),
            event.origin_server_ts,
            event.event_id,
        ),
    )


def _mainline_position(reader: Reader, positions: dict[EventId, float], event: Event) -> float:
    """Where the event's power levels meet the mainline, infinity if they never do.

    `positions` also remembers the events on the way, so that each is passed once.
    """
    passed: list[EventId] = []
    levels = _cited_power_levels(reader, event)
    while levels is not None and levels.event_id not in positions:
        positions[levels.event_id] = math.inf  # until the end is known; ends cycles
        passed.append(levels.event_id)
        levels = _cited_power_levels(reader, levels)
    position = math.inf if levels is None else positions[levels.event_id]
    positions.update(dict.fromkeys(passed, position))
    return position


# --- iterative auth checks


def _apply(
    state: dict[StateKey, EventId], reader: Reader, events: Iterable[Event]
) -> dict[StateKey, EventId]:
    """Let the events into the state in their order, those that it allows."""
    for event in events:
        if event.state_key is not None and reader.allows(state, event, or_own_auth_events=True):
            state[event.type, event.state_key] = event.event_id
    return state
