"""Deadlines and slowest rates, in steps of time (T070, T071)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from matrixbox.api.bounds import Bounds
from matrixbox.api.patience import Pace, Patience, Phase
from matrixbox.api.wire import Wire

STEP = 0.5


def pace(**more: float) -> Pace:
    settings = {"moved": 0, "rate": 1024, "grace_s": 10, "window_s": 60, "stall_s": 20, **more}
    return Pace(**settings)  # type: ignore[arg-type]


def lasts_s(found: Pace, bytes_per_step: int, at_most_s: float = 300) -> float:
    """How long a transfer at this rate is let go on."""
    moved, passed = 0, 0.0
    while passed < at_most_s:
        moved += bytes_per_step
        passed += STEP
        if not found.keeps_up(moved, STEP):
            return passed
    return passed


def test_silence_lasts_for_the_grace_or_the_stall() -> None:
    assert lasts_s(pace(), 0) == pytest.approx(10.5)
    assert lasts_s(pace(grace_s=60), 0) == pytest.approx(20.5)


def test_the_slowest_rate_is_let_go_on_and_half_of_it_is_not() -> None:
    assert lasts_s(pace(), 512) == 300
    assert lasts_s(pace(), 256) == pytest.approx(20, abs=1)
    assert lasts_s(pace(grace_s=60), 256) == pytest.approx(120, abs=2)


def test_a_fast_start_earns_no_more_than_the_window() -> None:
    found = pace(stall_s=1000)
    assert found.keeps_up(100 * 1024 * 1024, STEP)
    moved, passed = 100 * 1024 * 1024, 0.0
    while found.keeps_up(moved, STEP):
        passed += STEP
    assert passed == pytest.approx(59, abs=1)


def test_what_moves_between_two_steps_counts() -> None:
    found = pace()
    for step in range(1, 200):
        found.begin()
        assert found.keeps_up(step * 600, STEP)


@pytest.fixture
async def patience() -> AsyncIterator[Patience]:
    with trio.socket.socket() as sock:
        yield Patience(Bounds(), Wire(sock))


def steps_until_exhausted(patience: Patience, most: int = 10_000) -> float | None:
    for step in range(1, most):
        if patience.is_exhausted(STEP):
            return step * STEP
    return None


async def test_each_phase_has_its_deadline(patience: Patience) -> None:
    assert steps_until_exhausted(patience) == 10.5  # the handshake
    for phase, left_s in ((Phase.HEAD, 10), (Phase.IDLE, 60), (Phase.CLOSING, 2)):
        patience.enter(phase, left_s)
        assert steps_until_exhausted(patience) == left_s + STEP


async def test_a_handler_has_none_but_is_known_to_take_long(patience: Patience) -> None:
    patience.begin_handling()
    assert not patience.is_long_handled
    assert steps_until_exhausted(patience) is None
    assert patience.is_long_handled
    assert patience.is_answering


async def test_a_body_has_a_deadline_in_all_that_handling_does_not_use_up(
    patience: Patience,
) -> None:
    patience.begin_handling()
    patience.allow_body(30)
    received = 0
    for _ in range(20):
        patience.begin_reading()
        for _ in range(2):
            received += 4096
            patience._wire.received = received
            assert not patience.is_exhausted(STEP)
        patience.end_reading()
        for _ in range(100):
            assert not patience.is_exhausted(STEP)
    patience.begin_reading()
    assert steps_until_exhausted(patience) == pytest.approx(10.5)


async def test_a_peer_that_does_not_take_its_answer_is_late_after_20_s(patience: Patience) -> None:
    patience.begin_handling()
    patience.begin_sending()
    assert steps_until_exhausted(patience) == 20.5
