"""The matrix of readers, stories and endpoints, and that it finds what is broken (T104 to T108)."""

from __future__ import annotations

from pathlib import Path

from tests.visibility.cells import HOLE, LEAK
from tests.visibility.control import RULES, found_by
from tests.visibility.matrix import played, run
from tests.visibility.playing import world
from tests.visibility.story import FAR_STORIES, STORIES

# The others are played by `python -m tests.visibility`.
IN_SHORT = ("joined", "unset", "shutting", "moody", "old")
CONTROL = ("closing", "glimpse", "invited")


async def test_nobody_sees_too_much_or_too_little(tmp_path: Path) -> None:
    """[B11.06], [C9.01], [C9.02], T104, T105, T106, T107, T108: users and servers, everywhere."""
    stories = tuple(story for story in STORIES if story.name in IN_SHORT)
    report = await played(tmp_path, stories)
    assert report.cells.total() >= 3_000
    assert [str(one) for one in report.of(LEAK)] == []
    assert [str(one) for one in report.of(HOLE)] == []


async def test_nor_where_the_members_of_a_room_are_not_known_yet(tmp_path: Path) -> None:
    """[B8.05], T027, T104, T106: before they are known, and when they are."""
    stories = tuple(story for story in FAR_STORIES if story.name == "far moody")
    report = await played(tmp_path, stories)
    assert report.cells.total() >= 4_000
    assert [str(one) for one in report.of(LEAK)] == []
    assert [str(one) for one in report.of(HOLE)] == []


async def test_the_matrix_finds_each_rule_that_is_missing(tmp_path: Path) -> None:
    """T104 to T108: 12 rules and more, each disabled once, each found; whole again, nothing is."""
    assert len(RULES) >= 12
    stories = tuple(story for story in STORIES if story.name in CONTROL)
    async with world(tmp_path / "whole", stories) as here:
        for rule in RULES:
            if rule.while_playing:
                continue
            with rule.disabled():
                report = await run(here, rule.endpoints, first=True)
            assert report.problems, f"not found: {rule.name}"
        everything = {name for rule in RULES for name in rule.endpoints}
        assert (await run(here, everything)).problems == []
    for rule in RULES:
        if rule.while_playing:
            with rule.disabled():
                report = await found_by(rule, tmp_path / rule.name.replace(" ", "_"))
            assert report.problems, f"not found: {rule.name}"
