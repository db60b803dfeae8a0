"""The comparison is not blind: mistakes put into a judge are found."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from tests.oracle import compare
from tests.oracle.answers import Answers, answer, answers_of, differences, truth_of
from tests.oracle.compare import Comparison, Failure, reproducer
from tests.oracle.core_judge import Core
from tests.oracle.generate import VERSIONS, generate
from tests.oracle.graphs import Graph
from tests.oracle.minimise import Case, case_of, minimise
from tests.oracle.mutants import MUTANTS, Mutant
from tests.oracle.synapse_pipe import Synapse

SEED = 1
ENOUGH = 1000
"""Graphs of a fitting version after which a mutant must have been caught; most take ten."""


@functools.lru_cache(maxsize=500)
def graph(number: int) -> Graph:
    return generate(SEED, number)


def fitting(mutant: Mutant) -> Iterator[Graph]:
    numbers = (n for n in range(ENOUGH * 12) if VERSIONS[n % 12] in mutant.versions)
    for _, number in zip(range(ENOUGH), numbers, strict=False):
        yield graph(number)


def is_caught(mutant: Mutant, on: Graph) -> bool:
    version = mutant.apply(on.version.name)
    truth = truth_of(on)
    if mutant.of == "rules":
        try:
            return next(differences(truth, answers_of(on, version)), None) is not None
        except (LookupError, TypeError, ValueError):
            return True  # a judge that breaks down is noticed as well
    return any(answer(on, version, "merge", at) != truth.merges[at] for at in on.merges) or any(
        answer(on, version, "probe", at) != told for at, told in enumerate(truth.probes)
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mistake_in_the_rules_is_caught(mutant: Mutant) -> None:
    """T019, T020: each sentence that a mutant gets wrong is reached by the generator."""
    assert any(is_caught(mutant, on) for on in fitting(mutant))


def test_synapse_differs_where_no_departure_is_known(
    synapse: Synapse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the list of departures the comparison fails: what it lets pass is what they say."""
    monkeypatch.setattr(compare, "explain", lambda *_: None)
    found = list(Comparison(SEED, synapse, with_core=False).run(range(1, 60)))
    assert {failure.judge for failure in found} == {"Synapse"}


class Wrong(Core):
    """Bans nobody."""

    def answers(self) -> Answers:
        said = super().answers()
        for at, step in enumerate(self.graph.steps):
            if step.kind == "ban":
                row = said.rows["by_state"]
                said.rows["by_state"] = row[:at] + "-" + row[at + 1 :]
        return said


def test_a_wrong_verdict_of_core_is_told_with_a_small_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compare, "Core", Wrong)
    comparison = Comparison(SEED, None)
    failure = next(found for found in comparison.run(range(200)) if is_about_a_ban(found))
    told = reproducer(failure, None)
    assert "core about by_state" in told
    # The room that remains: its creation, the one who bans, and the ban.
    assert told.count("prev=") <= 5


def is_about_a_ban(failure: Failure) -> bool:
    found = failure.difference
    return found.what == "by_state" and failure.graph.steps[found.at].kind == "ban"


def test_a_failing_graph_is_made_small() -> None:
    """Down to the creation of the room and the one event that matters."""
    on = next(g for g in map(graph, range(0, 600, 12)) if any(map(is_topic, g.steps)))

    def fails(smaller: Graph) -> bool:
        return any(map(is_topic, smaller.steps))

    small = minimise(Case(on.version.name, tuple(on.steps)), fails)
    assert len(small.steps) == 2
    assert fails(small.build())


def is_topic(step: object) -> bool:
    return getattr(step, "type", "") == "m.room.topic"


def test_a_case_is_the_graph_it_was_taken_from() -> None:
    """Ids are made anew and come out the same."""
    on = graph(10)
    [found, *_] = differences(truth_of(on), flipped(on))
    again = case_of(on, found).build()
    assert again.ids == on.ids
    assert again.verdicts == on.verdicts


def flipped(on: Graph) -> Answers:
    said = truth_of(on)
    said.rows["by_state"] = "x" * len(said.rows["by_state"])
    return said


def test_the_same_number_gives_the_same_graph() -> None:
    assert generate(3, 77).wire == generate(3, 77).wire
    assert generate(3, 77).wire != generate(4, 77).wire
