"""Worlds of honest servers and a liar agree, and known mistakes are found.

[A6.01], [A6.07], [B5.01], [B6.12], T004, T010, T011, T012, T020, T021, T024, T027, T028, T046.  The
command prints how to see a world again; `MATRIXBOX_SIM_SEEDS` sets how many there are.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.server import TOP
from tests.sim.faults import FAULTS
from tests.sim.plans import QUARREL
from tests.sim.running import simulate

SEEDS = int(os.environ.get("MATRIXBOX_SIM_SEEDS", "300"))

SIEGED = ("--plan", "siege", "--first", "12", "--seeds", "84")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m tests.sim``, in a process whose sets have the order of every other run."""
    return subprocess.run(
        [sys.executable, "-m", "tests.sim", *arguments],
        cwd=TOP,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_all_worlds_come_to_agree() -> None:
    """Within 10 virtual minutes after healing, on states, ends and everything acknowledged."""
    done = command("--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout
    assert f"{SEEDS} simulations in " in done.stdout


def test_the_same_seed_gives_the_same_course() -> None:
    done = command("--seeds", "6", "--twice")
    assert done.returncode == 0, done.stdout
    one, other = (simulate(seed, plan=QUARREL).digest for seed in (1, 2))
    assert one != other


@pytest.mark.parametrize("fault", ["rejected", "stale"])
def test_known_mistakes_are_found(fault: str) -> None:
    """Negative controls: what cannot be judged yet taken for rejected; events built too early."""
    done = command("--seeds", "40", "--with", fault)
    assert done.returncode == 1, done.stdout
    assert "Wrong: " in done.stdout


def test_version_2_of_state_resolution_in_place_of_version_2_1_is_found() -> None:
    """Negative control, in worlds where somebody sets a topic, leaves, and others quarrel."""
    assert [
        outcome.error for seed in range(8) if (outcome := simulate(seed, plan=QUARREL)).error
    ] == []
    wrong = [simulate(seed, plan=QUARREL, fault="v2").error for seed in range(8)]
    assert any(
        "should have another state" in error or "to another state" in error for error in wrong
    )


def test_a_told_state_that_is_believed_for_ever_is_found() -> None:
    """Negative control, in worlds where the liar is often the only one who reaches all (T020)."""
    done = command(*SIEGED)
    assert done.returncode == 0, done.stdout
    done = command(*SIEGED, "--with", "believed")
    assert done.returncode == 1, done.stdout
    assert "no agreement" in done.stdout


def test_every_mistake_has_a_control() -> None:
    assert set(FAULTS) == {"v2", "rejected", "stale", "believed"}
