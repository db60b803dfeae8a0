"""Answers of a judge about a whole graph, and where those of two judges differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.oracle.graphs import Graph
from tests.oracle.judging import STAGES, Raises, StateIds, judge_by_state, judge_stage
from tests.reference import RoomVersion

Resolved = list[int] | str
"""A state as positions of events, ascending; or "!exception"."""


@dataclass(slots=True)
class Answers:
    ids: list[str]
    rows: dict[str, str]
    """By stage, one character per event: + allowed, - refused, ! failed, or blank."""
    late: str
    merges: dict[int, Resolved]
    probes: list[Resolved]
    raised: Mapping[str, str] = field(default_factory=dict)
    """By "stage position", the name of the exception behind a "!"."""


@dataclass(frozen=True, slots=True)
class Difference:
    what: str
    """A stage, "late", "merge", "probe" or "id"."""
    at: int
    """Position of the event, or number of the late judgement or probe."""
    truth: Any
    said: Any


def truth_of(graph: Graph) -> Answers:
    """What the reference said while the graph was made."""
    place = positions(graph)
    return Answers(
        ids=graph.ids,
        rows={
            stage: "".join((getattr(v, stage) or " ")[0] for v in graph.verdicts)
            for stage in STAGES
        },
        late="".join(words[0] for _, _, words in graph.late),
        merges={at: placed(graph.before[at], place) for at in graph.merges},
        probes=[placed(resolved, place) for _, resolved in graph.probes],
    )


def positions(graph: Graph) -> dict[str, int]:
    return {event_id: at for at, event_id in enumerate(graph.ids)}


def placed(state: StateIds, place: Mapping[str, int]) -> list[int]:
    return sorted([place[event_id] for event_id in state.values()])


def differences(truth: Answers, said: Answers) -> Iterator[Difference]:
    if truth.ids != said.ids:
        for at, (mine, theirs) in enumerate(zip(truth.ids, said.ids, strict=True)):
            if mine != theirs:
                yield Difference("id", at, mine, theirs)
    for stage in STAGES:
        if truth.rows[stage] != said.rows[stage]:
            yield from differences_of(stage, truth.rows[stage], said)
    if truth.late != said.late:
        yield from differences_of("late", truth.late, said)
    for at, mine in truth.merges.items():
        if mine != said.merges[at]:
            yield Difference("merge", at, mine, said.merges[at])
    for at, (mine, theirs) in enumerate(zip(truth.probes, said.probes, strict=True)):
        if mine != theirs:
            yield Difference("probe", at, mine, theirs)


def differences_of(what: str, mine: str, said: Answers) -> Iterator[Difference]:
    theirs = said.late if what == "late" else said.rows[what]
    for at, (one, other) in enumerate(zip(mine, theirs, strict=True)):
        if one != other:
            yield Difference(what, at, one, other + said.raised.get(f"{what} {at}", ""))


def answer(graph: Graph, version: RoomVersion, what: str, at: int) -> Any:
    """What a variant of the reference says about one matter, as in `Difference.said`."""
    if what in STAGES:
        event = graph.events[graph.ids[at]]
        before = graph.state_to_judge_by(at)
        return short(judge_stage(what, version, event, before, graph.events, graph.rejected) or " ")
    if what == "late":
        late, by, _ = graph.late[at]
        event = graph.events[graph.ids[late]]
        return short(judge_by_state(version, event, graph.before[by], graph.events))
    if what == "merge":
        return resolved(graph, version, graph.merges[at], graph.rejected)
    if what == "probe":
        probe = graph.probes[at][0]
        return resolved(graph, version, probe.sets, probe.rejected)
    return graph.ids[at]


def short(words: str) -> str:
    return words if words[0] == "!" else words[0]


def resolved(graph: Graph, version: RoomVersion, sets: Any, rejected: Any) -> Resolved:
    try:
        state = version.resolution.resolve(sets, graph.events, rejected)
    except Raises as name:
        return f"!{name}"
    return placed(state, positions(graph))


def answers_of(graph: Graph, version: RoomVersion) -> Answers:
    """What a variant of the reference says about all of a graph."""
    count = len(graph.steps)
    raised: dict[str, str] = {}

    def row(what: str, length: int) -> str:
        said = [answer(graph, version, what, at) for at in range(length)]
        raised.update({f"{what} {at}": v[1:] for at, v in enumerate(said) if v[0] == "!"})
        return "".join(v[0] for v in said)

    return Answers(
        ids=graph.ids,
        rows={stage: row(stage, count) for stage in STAGES},
        late=row("late", len(graph.late)),
        merges={at: answer(graph, version, "merge", at) for at in graph.merges},
        probes=[answer(graph, version, "probe", at) for at in range(len(graph.probes))],
        raised=raised,
    )
