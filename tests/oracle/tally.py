"""What the generator reaches, counted, so that nobody need believe that it is not trivial."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import tests.reference
from tests.oracle.graphs import Graph
from tests.oracle.judging import STAGES
from tests.reference.resolution import ResolutionV2
from tests.reference.words import POWER_LEVELS

RULES = ("auth_v1.py", "auth.py")


@dataclass(slots=True)
class Tally:
    counts: Counter[str] = field(default_factory=Counter)
    moves: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    """Sentences of the reference that decided something."""
    departures: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        self.counts += other.counts
        self.moves += other.moves
        self.words += other.words
        self.departures += other.departures

    def take(self, graph: Graph) -> None:
        counts = self.counts
        counts["graphs"] += 1
        counts[f"graphs of version {graph.version.name:>2}"] += 1
        counts["events"] += len(graph.steps)
        counts["merges"] += len(graph.merges)
        counts["probes"] += len(graph.probes)
        built_upon = {at for step in graph.steps for at in step.prev}
        for at, (step, verdicts) in enumerate(zip(graph.steps, graph.verdicts, strict=True)):
            self.moves[f"{step.kind} {'accepted' if verdicts.accepted else 'rejected'}"] += 1
            for stage in STAGES:
                self.words[getattr(verdicts, stage)] += 1
            if not verdicts.accepted:
                counts["events rejected"] += 1
                counts["events rejected by the state before them only"] += (
                    verdicts.stands_on_its_chain
                )
                counts["events rejected and built upon"] += at in built_upon
        for at, _, words in graph.late:
            counts["late judgements"] += 1
            counts["events soft-failed"] += words[0] == "-" and graph.verdicts[at].accepted
        for sets in graph.merges.values():
            counts[f"merges of {len(sets)} different states"] += 1

    def take_resolutions(self, graph: Graph) -> None:
        """Dearer figures, for some of the graphs."""
        resolution = graph.version.resolution
        for at, sets in graph.merges.items():
            self.counts["merges looked into"] += 1
            keys = set().union(*sets)
            conflicts = [key for key in keys if len({state.get(key) for state in sets}) > 1]
            self.counts["  conflicted keys"] += len(conflicts)
            self.counts["  with conflicted power levels"] += (
                "m.room.power_levels",
                "",
            ) in conflicts
            if isinstance(resolution, ResolutionV2):
                full = resolution.full_conflicted_set(sets, graph.events)
                conflicted = resolution.conflicted_state_set(sets)
                first = resolution.power_events_enlarged(full, graph.events)
                self.counts["  v2: full conflicted set, events"] += len(full)
                self.counts["  v2: with more than the conflicted state"] += len(full) > len(
                    conflicted
                )
                self.counts["  v2: sorted by power, events"] += len(first)
                self.counts["  v2: mainline longer than one"] += self.mainline(graph, at) > 1
                lost = conflicted - set(graph.before[at].values())
                self.counts["  v2: with conflicted events that lost"] += bool(lost)

    def mainline(self, graph: Graph, at: int) -> int:
        resolution = graph.version.resolution
        assert isinstance(resolution, ResolutionV2)
        levels = graph.before[at].get(POWER_LEVELS)
        return len(resolution.mainline(levels, graph.events))

    def never_reached(self) -> list[str]:
        """Sentences of the reference that decided nothing."""
        reached = {words[1:] for words in self.words}
        return sorted(sentences() - reached)

    def lines(self) -> list[str]:
        graphs = max(1, self.counts["graphs"])
        told = [f"{count:>10} {name}" for name, count in sorted(self.counts.items())]
        events = max(1, self.counts["events"])
        told += [
            f"{self.counts['events'] / graphs:10.1f} events a graph",
            f"{self.counts['events rejected'] / events:10.3f} of the events are rejected",
            "moves:",
            *(f"{count:>10} {name}" for name, count in sorted(self.moves.items())),
            "deciding sentences:",
            *(f"{count:>10} {name}" for name, count in sorted(self.words.items()) if name),
            f"never reached: {', '.join(self.never_reached()) or 'none'}",
            "answers of Synapse that a departure explains:",
            *(f"{count:>10} {name}" for name, count in sorted(self.departures.items())),
        ]
        return told


def sentences() -> set[str]:
    """All that the rules of the reference can say, read from their source."""
    said: set[str] = set()
    for name in RULES:
        tree = ast.parse((Path(tests.reference.__file__).parent / name).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Return) and node.value is not None:
                said |= texts(node.value)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Reject":
                said |= texts(node.args[0])
    return {text for text in said if " " in text}


def texts(node: ast.expr) -> set[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.JoinedStr):
        # The only variable part is the name of a table of levels.
        start, _, end = node.values
        assert isinstance(start, ast.Constant)
        assert isinstance(end, ast.Constant)
        names = ("levels", "events", "notifications")
        return {f"{start.value}{name}{end.value}" for name in names}
    return set()
