"""Make a failing graph small: leave out events as long as it still fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.oracle.answers import Difference, positions
from tests.oracle.graphs import Graph, Probe, Step
from tests.reference import ROOM_VERSIONS


@dataclass(frozen=True, slots=True)
class Case:
    """A graph free of ids, with at most one late judgement and one probe."""

    version: str
    steps: tuple[Step, ...]
    late: tuple[int, int] | None = None
    sets: tuple[tuple[int, ...], ...] = ()
    rejected: tuple[int, ...] = ()

    def build(self) -> Graph:
        graph = Graph(ROOM_VERSIONS[self.version])
        for step in self.steps:
            graph.place(step)
        if self.late is not None:
            graph.judge_late(*self.late)
        if self.sets:
            sets = tuple(
                {(self.steps[at].type, self.steps[at].state_key or ""): graph.ids[at] for at in ids}
                for ids in self.sets
            )
            graph.probe(Probe(sets, frozenset(graph.ids[at] for at in self.rejected)))
        return graph


def case_of(graph: Graph, difference: Difference) -> Case:
    """What of a graph is needed to show a difference."""
    case = Case(graph.version.name, tuple(graph.steps))
    if difference.what == "late":
        at, by, _ = graph.late[difference.at]
        return replace(case, late=(at, by))
    if difference.what == "probe":
        probe, place = graph.probes[difference.at][0], positions(graph)
        sets = tuple(tuple(place[i] for i in ids.values()) for ids in probe.sets)
        return replace(case, sets=sets, rejected=tuple(place[i] for i in probe.rejected))
    return case


def minimise(case: Case, fails: Callable[[Graph], bool]) -> Case:
    """The case with as many steps left out as it can lose while it `fails`."""
    shorter = True
    while shorter:
        shorter = False
        for at in reversed(range(1, len(case.steps))):
            smaller = without(case, at)
            if smaller is not None and still_fails(smaller, fails):
                case, shorter = smaller, True
    return case


def still_fails(case: Case, fails: Callable[[Graph], bool]) -> bool:
    try:
        return fails(case.build())
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError):
        return False  # what was left out was needed for the graph to make sense


def without(case: Case, gone: int) -> Case | None:
    """The case without one step; None if it is about that very step."""
    if case.late is not None and gone in case.late:
        return None

    def moved(at: int) -> int:
        return at - 1 if at > gone else at

    def kept(positions: Sequence[int]) -> tuple[int, ...]:
        return tuple(moved(at) for at in positions if at != gone)

    def changed(step: Step) -> Step:
        prev: list[int] = []
        for at in step.prev:
            prev += (
                [before for before in case.steps[gone].prev if before not in step.prev]
                if at == gone
                else [at]
            )
        redacts = step.redacts
        return replace(
            step,
            prev=tuple(moved(at) for at in prev),
            auth=kept(step.auth),
            room=moved(step.room),
            redacts=moved(redacts) if isinstance(redacts, int) and redacts != gone else None,
        )

    return replace(
        case,
        steps=tuple(changed(step) for at, step in enumerate(case.steps) if at != gone),
        late=None if case.late is None else (moved(case.late[0]), moved(case.late[1])),
        sets=tuple(map(kept, case.sets)),
        rejected=kept(case.rejected),
    )


def describe(case: Case) -> str:
    """The case for a reader: one line per event, then the question."""
    graph = case.build()
    lines = [f"room version {case.version}"]
    for at, step in enumerate(case.steps):
        event: dict[str, Any] = graph.events[graph.ids[at]]
        key = "" if step.state_key is None else f" {step.state_key!r}"
        accepted = "" if graph.verdicts[at].accepted else "  REJECTED"
        lines.append(
            f"{at:3} {step.type}{key} by {step.sender} {json.dumps(step.content)}"
            f" prev={list(step.prev)} auth={list(step.auth)} ts={step.ts} depth={event['depth']}"
            f"{'' if step.room == 0 else f' room={step.room}'}{accepted}"
        )
    if case.late is not None:
        lines.append(f"event {case.late[0]} judged by the state before event {case.late[1]}")
    lines += [f"state set {sorted(ids)}" for ids in case.sets]
    if case.sets:
        lines.append(f"rejected {sorted(case.rejected)}")
    return "\n".join(lines)
