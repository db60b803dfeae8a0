"""State resolution: one room state out of the states of several branches.

Matrix v1.19, rooms/v1, v2 and v12, "State resolution" [A6.01]-[A6.12].  The result depends neither
on the order of the states nor on that of their entries (T019).  All walks are loops that visit an
event once, so hostile graphs end too (T007).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matrixbox.core.events import StateKey
from matrixbox.core.graph import EventGraph, EventMissing, Reader
from matrixbox.core.identifiers import EventId
from matrixbox.core.resolve_v1 import resolve_v1
from matrixbox.core.resolve_v2 import resolve_v2
from matrixbox.core.room_versions import RoomRules, StateResolution

__all__ = ["EventGraph", "EventMissing", "resolve"]


def resolve(
    rules: RoomRules,
    state_sets: Sequence[Mapping[StateKey, EventId]],
    graph: EventGraph,
    create_event_id: EventId,
) -> dict[StateKey, EventId]:
    """The resolution of the states after each parent of an event.

    Raises EventMissing if an event that matters is unknown.  Keep events that were rejected out of
    the state sets: what is in them takes part.
    """
    distinct: list[dict[StateKey, EventId]] = []
    for state in state_sets:
        entries = dict(state)
        if entries not in distinct:
            distinct.append(entries)
    if len(distinct) <= 1:
        return distinct[0] if distinct else {}
    reader = Reader(rules, graph, create_event_id)
    if rules.state_resolution is StateResolution.V1:
        return resolve_v1(reader, distinct)
    return resolve_v2(reader, distinct)
