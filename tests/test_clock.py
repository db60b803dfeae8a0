"""The wall clock and its simulated twin."""

from __future__ import annotations

import time

import trio

from matrixbox.clock import SimulatedClock, SystemClock


def test_the_system_clock_is_the_machine_s():
    clock = SystemClock()
    before = time.time() * 1000
    assert before - 1 <= clock.now_ms() <= time.time() * 1000 + 1
    first = clock.monotonic_s()
    assert clock.monotonic_s() >= first


async def test_the_simulated_clock_follows_virtual_time(autojump_clock):
    clock = SimulatedClock(start_ms=1_000)
    started = clock.monotonic_s()
    await trio.sleep(3600)
    assert clock.now_ms() == 3_601_000
    assert clock.monotonic_s() - started == 3600


async def test_t153_a_step_of_the_wall_clock_does_not_change_durations(autojump_clock):
    clock = SimulatedClock(start_ms=10_000_000)
    started = clock.monotonic_s()
    clock.step(-9_000_000)
    assert clock.now_ms() == 1_000_000
    assert clock.monotonic_s() == started
