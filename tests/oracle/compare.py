"""The comparison: graphs, three judges, and what is left that nothing explains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.oracle.answers import (
    Answers,
    Difference,
    answer,
    answers_of,
    differences,
    truth_of,
)
from tests.oracle.core_judge import Core
from tests.oracle.explaining import ALL, depart, explain
from tests.oracle.generate import generate
from tests.oracle.graphs import Graph
from tests.oracle.minimise import case_of, describe, minimise
from tests.oracle.synapse_pipe import Synapse
from tests.oracle.tally import Tally

BATCH = 40
SAMPLE = 16
"""Every so many graphs, all departures together must say just what Synapse says."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A difference that nothing explains."""

    number: int
    judge: str
    graph: Graph
    difference: Difference

    def headline(self) -> str:
        found = self.difference
        return (
            f"graph {self.number}, version {self.graph.version.name}: {self.judge} about "
            f"{found.what} {found.at}: {found.said!r}, the reference: {found.truth!r}"
        )


@dataclass(slots=True)
class Comparison:
    seed: int
    synapse: Synapse | None
    with_core: bool = True
    tally: Tally = field(default_factory=Tally)

    def run(self, numbers: Iterable[int]) -> Iterator[Failure]:
        """Compare the graphs of these numbers; Synapse works on a batch while others are made."""
        batches = batched(numbers)
        batch = self.make(next(batches, []))
        self.ask(batch)
        while batch:
            by_core = [Core(graph).answers() if self.with_core else None for _, graph in batch]
            following = self.make(next(batches, []))
            by_synapse = self.answers(batch)
            self.ask(following)
            for (number, graph), core, synapse in zip(batch, by_core, by_synapse, strict=True):
                yield from self.compare(number, graph, core, synapse)
            batch = following

    def make(self, numbers: Sequence[int]) -> list[tuple[int, Graph]]:
        return [(number, generate(self.seed, number)) for number in numbers]

    def ask(self, batch: Sequence[tuple[int, Graph]]) -> None:
        if self.synapse is not None and batch:
            self.synapse.ask([graph for _, graph in batch])

    def answers(self, batch: Sequence[tuple[int, Graph]]) -> Sequence[Answers | None]:
        if self.synapse is None:
            return [None] * len(batch)
        return self.synapse.answers([graph for _, graph in batch])

    def compare(
        self, number: int, graph: Graph, core: Answers | None, synapse: Answers | None
    ) -> Iterator[Failure]:
        truth = truth_of(graph)
        self.tally.take(graph)
        if core is not None:
            for found in differences(truth, core):
                yield Failure(number, "core", graph, found)
        if synapse is not None:
            for found in differences(truth, synapse):
                if not self.explained(graph, found):
                    yield Failure(number, "Synapse", graph, found)
        if number % SAMPLE == 0:
            self.tally.take_resolutions(graph)
            if synapse is not None:
                predicted = answers_of(graph, depart(graph.version.name, ALL))
                for found in differences(predicted, synapse):
                    yield Failure(number, "Synapse against all departures", graph, found)

    def explained(self, graph: Graph, found: Difference) -> bool:
        names = explain(
            graph.version.name,
            lambda version: bool(answer(graph, version, found.what, found.at) == found.said),
        )
        if names is None:
            return False
        matter = found.what if found.what in ("merge", "probe") else "verdict"
        self.tally.departures[f"{' + '.join(names)} ({matter})"] += 1
        return True


def batched(numbers: Iterable[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    for number in numbers:
        batch.append(number)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def reproducer(failure: Failure, synapse: Synapse | None) -> str:
    """The failure made small, for a reader."""
    what = failure.difference.what

    def fails(graph: Graph) -> bool:
        return any(found.what == what for found in unexplained(failure.judge, graph, synapse))

    small = minimise(case_of(failure.graph, failure.difference), fails)
    found = [
        f"{failure.judge} about {one.what} {one.at}: {one.said!r}, the reference: {one.truth!r}"
        for one in unexplained(failure.judge, small.build(), synapse)
    ]
    return "\n".join([failure.headline(), "made small:", describe(small), *found])


def unexplained(judge: str, graph: Graph, synapse: Synapse | None) -> list[Difference]:
    if judge == "core":
        return list(differences(truth_of(graph), Core(graph).answers()))
    assert synapse is not None
    synapse.ask([graph])
    [said] = synapse.answers([graph])
    if judge == "Synapse":
        comparison = Comparison(0, synapse)
        found = differences(truth_of(graph), said)
        return [one for one in found if not comparison.explained(graph, one)]
    return list(differences(answers_of(graph, depart(graph.version.name, ALL)), said))
