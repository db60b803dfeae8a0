"""The two rooms that MSC4297 was written for, three ways (T020, [A6.06])."""

from __future__ import annotations

import pytest

from tests.oracle.answers import differences, truth_of
from tests.oracle.core_judge import Core
from tests.oracle.story import ALICE, BOB, CARL, Story
from tests.oracle.synapse_pipe import Synapse

EVE, ZARA = "@eve:e.test", "@zara:e.test"


def of_alice(version: str, users: dict[str, int]) -> dict[str, int]:
    """Alice's own level, where creators may have one."""
    return users if version == "12" else {ALICE: 100, **users}


def problem_a(version: str) -> tuple[Story, set[int], int]:
    """Bob's and Carl's servers disagree on the join rule; who set both has left.

    Returns the room, the resolved state, and the join rule that was set last.
    """
    story = Story(version)
    levels = story.levels(users=of_alice(version, {}))
    public = story.join_rule()
    bob, carl = story.member(BOB, "join"), story.member(CARL, "join")
    invite = story.join_rule("invite")
    gone = story.member(ALICE, "leave")
    renamed = {"displayname": "another"}
    bob_again = story.member(BOB, "join", content=renamed, after=(gone,))
    carl_again = story.member(CARL, "join", content=renamed, after=(gone,))
    resolved = story.probe(
        (story.create, levels, carl, invite, gone, bob_again),
        (story.create, levels, public, bob, gone, carl_again),
    )
    return story, resolved, invite


def problem_b(version: str) -> tuple[Story, set[int], list[int]]:
    """One server still has the first of three power levels; nobody revoked the others.

    Returns the room, the resolved state, and the power levels in their order.
    """
    story = Story(version)
    first = story.levels(users=of_alice(version, {}))
    rule = story.join_rule()
    bob, carl = story.member(BOB, "join"), story.member(CARL, "join")
    second = story.levels(users=of_alice(version, {BOB: 50}))
    third = story.levels(by=BOB, users=of_alice(version, {BOB: 50, CARL: 50}))
    zara = story.member(ZARA, "join", after=(third,))
    eve = story.member(EVE, "join", after=(third,))
    eve_again = story.member(EVE, "join", content={"displayname": "another"})
    assert eve_again > eve
    common = (story.create, story.alice, rule, bob, carl)
    resolved = story.probe((*common, first, eve_again), (*common, third, zara))
    return story, resolved, [first, second, third]


def agreed(story: Story, synapse: Synapse) -> None:
    """All three judges resolve alike."""
    synapse.ask([story.graph])
    [by_synapse] = synapse.answers([story.graph])
    truth = truth_of(story.graph)
    assert list(differences(truth, by_synapse)) == []
    assert list(differences(truth, Core(story.graph).answers())) == []


def test_problem_a_in_version_12_keeps_the_newest_join_rule(synapse: Synapse) -> None:
    """T020"""
    story, resolved, invite = problem_a("12")
    assert invite in resolved
    agreed(story, synapse)


@pytest.mark.parametrize("version", ["2", "6", "11"])
def test_problem_a_before_version_12_loses_both_join_rules(version: str, synapse: Synapse) -> None:
    """The flaw that version 12 mends: both are refused because Alice has left."""
    story, resolved, _ = problem_a(version)
    assert "m.room.join_rules" not in {story.graph.steps[at].type for at in resolved}
    agreed(story, synapse)


def test_problem_b_in_version_12_keeps_the_newest_power_levels(synapse: Synapse) -> None:
    """T020: the conflicted state subgraph brings Bob's promotion back into play."""
    story, resolved, [_, _, newest] = problem_b("12")
    assert newest in resolved
    agreed(story, synapse)


@pytest.mark.parametrize("version", ["2", "6", "11"])
def test_problem_b_before_version_12_goes_back(version: str, synapse: Synapse) -> None:
    """The flaw that version 12 mends: Bob's promotion is not replayed."""
    story, resolved, [oldest, _, _] = problem_b(version)
    assert oldest in resolved
    agreed(story, synapse)
