"""Random rooms judged three ways: by core, by the naive reference, by Synapse (T019, T028).

2,000 rooms here; `python -m tests.oracle --graphs 300000` for more.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.oracle.compare import Comparison, Failure, reproducer
from tests.oracle.explaining import BY_NAME
from tests.oracle.generate import VERSIONS
from tests.oracle.synapse_pipe import Synapse
from tests.oracle.tally import Tally

GRAPHS = 2000
SEED = 1
UNREACHABLE = {"no create in state"}
"""Sentences for calls that no server makes: every state of a room has its create event."""


@dataclass(frozen=True)
class Result:
    failures: list[Failure]
    tally: Tally
    synapse: Synapse | None

    def about(self, judge: str, version: str) -> list[Failure]:
        return [
            failure
            for failure in self.failures
            if failure.judge.startswith(judge) and failure.graph.version.name == version
        ]


@pytest.fixture(scope="module")
def result(synapse_if_there: Synapse | None) -> Result:
    comparison = Comparison(SEED, synapse_if_there)
    failures = list(comparison.run(range(GRAPHS)))
    return Result(failures, comparison.tally, synapse_if_there)


def show(failures: list[Failure], synapse: Synapse | None) -> str:
    """How many, and the first one made small."""
    return f"{len(failures)} differences\n{reproducer(failures[0], synapse)}" if failures else ""


@pytest.mark.parametrize("version", VERSIONS)
def test_core_says_what_the_reference_says(version: str, result: Result) -> None:
    """Every verdict and every resolved state [A5.01]-[A5.25], [A6.01]-[A6.12]."""
    found = result.about("core", version)
    assert not found, show(found, result.synapse)


@pytest.mark.parametrize("version", VERSIONS)
def test_synapse_says_what_the_reference_says_or_departs_as_known(
    version: str, result: Result, synapse: Synapse
) -> None:
    """And all known departures together predict all that Synapse says, on a sample."""
    found = result.about("Synapse", version)
    assert not found, show(found, synapse)


def test_every_sentence_of_the_rules_decides_something(result: Result) -> None:
    assert set(result.tally.never_reached()) <= UNREACHABLE


def test_every_version_is_judged(result: Result) -> None:
    counts = result.tally.counts
    assert min(counts[f"graphs of version {version:>2}"] for version in VERSIONS) >= GRAPHS // 13


def test_the_rooms_are_not_trivial(result: Result) -> None:
    """Forks, conflicts, rejected and soft-failed events, and all of it built upon."""
    counts = result.tally.counts
    assert counts["merges"] > GRAPHS
    assert counts["merges of 3 different states"] > GRAPHS / 10
    assert counts["merges of 4 different states"] > GRAPHS / 50
    assert counts["probes"] > GRAPHS / 2
    assert 0.1 < counts["events rejected"] / counts["events"] < 0.5
    assert counts["events rejected and built upon"] > GRAPHS
    assert counts["events rejected by the state before them only"] > GRAPHS / 50
    assert counts["events soft-failed"] > GRAPHS / 5
    looked = counts["merges looked into"]
    assert counts["  conflicted keys"] > 2 * looked
    assert counts["  with conflicted power levels"] > looked / 4
    assert counts["  v2: with more than the conflicted state"] > looked / 5
    assert counts["  v2: with conflicted events that lost"] > looked / 4
    assert counts["  v2: mainline longer than one"] > looked / 8


def test_only_a_small_part_of_synapses_answers_departs(result: Result, synapse: Synapse) -> None:
    """What the departures explain stays an exception."""
    assert result.synapse is synapse
    told = result.tally.departures
    assert {name for names in told for name in names.rpartition(" (")[0].split(" + ")} <= set(
        BY_NAME
    )
    verdicts = sum(count for name, count in told.items() if name.endswith("(verdict)"))
    merges = sum(count for name, count in told.items() if name.endswith("(merge)"))
    assert verdicts < 0.05 * 4 * result.tally.counts["events"]
    assert merges < 0.12 * result.tally.counts["merges"]
