"""A random room as a list of steps, and what the naive reference says about each of its events.

A `Step` is an event free of ids: it names other events by their position, so that a graph can be
built again with steps left out (see `minimise`).  `Graph.place` gives the event its id, computes
the state before it and has it judged.  Rejected events stay in the graph and can be built upon;
their state is the state before them.  What the reference says is the truth of the graph: the other
judges start each of their answers from it, so that one difference is seen as one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.oracle import judging
from tests.oracle.judging import StateIds, Verdicts
from tests.reference import ROOM_VERSIONS, RoomVersion
from tests.reference.event_ids import event_id_of, on_the_wire
from tests.reference.words import domain_of

NOWHERE = -1
"""As a step's room: a room id that no create event has."""


@dataclass(frozen=True, slots=True)
class Step:
    kind: str
    """The kind of move that made this step, for the statistics."""
    type: str
    sender: str
    content: dict[str, Any]
    prev: tuple[int, ...]
    auth: tuple[int, ...]
    ts: int
    name: str
    """The opaque part of the event id in rooms 1 and 2."""
    state_key: str | None = None
    """None: the event is no state event."""
    depth: int | None = None
    """None: one more than the depth of the previous events."""
    room: int = 0
    """Position of the create event of its room."""
    redacts: int | str | None = None
    home: str | None = None
    """The domain of the event id in rooms 1 and 2, if not the sender's."""
    unsigned: bool = False
    """Whether one of the required signatures is missing."""


@dataclass(frozen=True, slots=True)
class Probe:
    """State sets as somebody might claim them, and the events that count as rejected."""

    sets: tuple[StateIds, ...]
    rejected: frozenset[str]


@dataclass(slots=True)
class Graph:
    version: RoomVersion
    steps: list[Step] = field(default_factory=list)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    wire: list[str] = field(default_factory=list)
    verdicts: list[Verdicts] = field(default_factory=list)
    rejected: set[str] = field(default_factory=set)
    before: list[StateIds] = field(default_factory=list)
    after: list[StateIds] = field(default_factory=list)
    merges: dict[int, list[StateIds]] = field(default_factory=dict)
    """By position of an event whose previous events have different states: those states."""
    late: list[tuple[int, int, str]] = field(default_factory=list)
    """An event, judged once more by the state before another event, with the verdict."""
    probes: list[tuple[Probe, StateIds]] = field(default_factory=list)

    def place(self, step: Step) -> int:
        """Add the event of `step`, judge it, and return its position."""
        position = len(self.steps)
        event = self._event(step, position)
        event_id = event["event_id"]
        self.steps.append(step)
        self.events[event_id] = event
        self.ids.append(event_id)
        self.wire.append(json.dumps(on_the_wire(self.version.name, event)))
        before = self._state_before(step, position)
        self.before.append(before)
        asked = self.state_to_judge_by(position)
        verdicts = judging.judge(self.version, event, asked, self.events, self.rejected)
        self.verdicts.append(verdicts)
        if not verdicts.accepted:
            self.rejected.add(event_id)
        elif step.state_key is not None:
            before = {**before, (step.type, step.state_key): event_id}
        self.after.append(before)
        return position

    def state_to_judge_by(self, position: int) -> StateIds | None:
        """The state before an event; None for one that is in no room."""
        return None if self.steps[position].room == NOWHERE else self.before[position]

    def _event(self, step: Step, position: int) -> dict[str, Any]:
        version = self.version.name
        event: dict[str, Any] = {
            "type": step.type,
            "sender": step.sender,
            "content": step.content,
            "prev_events": [self.ids[at] for at in step.prev],
            "auth_events": [self.ids[at] for at in step.auth],
            "origin_server_ts": step.ts,
            "depth": self._depth(step),
            "hashes": {"sha256": f"h{position}"},
        }
        if step.state_key is not None:
            event["state_key"] = step.state_key
        if step.redacts is not None:
            target = step.redacts
            event["redacts"] = self.ids[target] if isinstance(target, int) else target
        self._add_room_id(event, step, position)
        if version in ("1", "2"):
            event["event_id"] = f"${step.name}:{step.home or domain_of(step.sender)}"
        else:
            event["event_id"] = event_id_of(version, event)
        signers = self.version.rules.required_signers(event) - {None}
        if step.unsigned and signers:
            signers.discard(sorted(map(str, signers))[-1])
        event["signatures"] = {
            server: {"ed25519:1": "c2ln"} for server in sorted(map(str, signers))
        }
        return event

    def _depth(self, step: Step) -> int:
        if step.depth is not None:
            return step.depth
        return 1 + max((self.events[self.ids[at]]["depth"] for at in step.prev), default=0)

    def _add_room_id(self, event: dict[str, Any], step: Step, position: int) -> None:
        is_own_create = step.type == "m.room.create" and step.room == position
        if step.room == NOWHERE:
            event["room_id"] = "!nowhere:a.test"
        elif self.version.name != "12":
            creator = step.sender if is_own_create else self.steps[step.room].sender
            event["room_id"] = f"!r{step.room}:{domain_of(creator)}"
        elif not is_own_create:
            event["room_id"] = "!" + self.ids[step.room][1:]

    def _state_before(self, step: Step, position: int) -> StateIds:
        states: list[StateIds] = []
        for at in step.prev:
            if self.after[at] not in states:
                states.append(self.after[at])
        if len(states) < 2:
            return states[0] if states else {}
        self.merges[position] = states
        return self.version.resolution.resolve(states, self.events, self.rejected)

    def judge_late(self, position: int, by: int) -> str:
        """Judge an event by the state before another one, as for a soft failure."""
        event = self.events[self.ids[position]]
        words = judging.judge_by_state(self.version, event, self.before[by], self.events)
        self.late.append((position, by, words))
        return words

    def probe(self, probe: Probe) -> None:
        resolved = self.version.resolution.resolve(probe.sets, self.events, probe.rejected)
        self.probes.append((probe, resolved))


def rebuild(version: str, steps: Sequence[Step]) -> Graph:
    """The graph of a list of steps, without late judgements and probes."""
    graph = Graph(ROOM_VERSIONS[version])
    for step in steps:
        graph.place(step)
    return graph
