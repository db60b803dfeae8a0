"""Nothing is signed while the clock cannot be right (T152)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from matrixbox.clock import SimulatedClock
from matrixbox.errors import Unavailable
from matrixbox.rooms import time_floor
from matrixbox.rooms.time_floor import RELEASED_MS, TimeFloor
from tests.rooms.house import household

YEAR_MS = 365 * 86_400_000


async def test_a_clock_in_1970_makes_senders_wait_and_then_refuses_them(autojump_clock: MockClock):
    floor = TimeFloor(SimulatedClock(0))
    began = trio.current_time()
    with pytest.raises(Unavailable) as refused:
        await floor.wait()
    assert refused.value.status == 503
    assert trio.current_time() - began == pytest.approx(30, abs=1)


async def test_who_waits_goes_on_as_soon_as_the_clock_is_set(autojump_clock: MockClock):
    clock = SimulatedClock(0)
    floor = TimeFloor(clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(floor.wait)
        await trio.sleep(10)
        clock.step(RELEASED_MS)
        began = trio.current_time()
    assert trio.current_time() - began < 1


async def test_a_good_clock_costs_nothing(autojump_clock: MockClock):
    began = trio.current_time()
    await TimeFloor(SimulatedClock(RELEASED_MS)).wait()
    assert trio.current_time() == began


async def test_the_floor_of_a_database_is_the_last_time_that_was_right(autojump_clock: MockClock):
    async with household() as house:
        clock = SimulatedClock(RELEASED_MS + YEAR_MS)
        assert house.store.read(time_floor.stored) == RELEASED_MS
        await house.store.write(time_floor.store, TimeFloor(clock))
        assert house.store.read(time_floor.stored) == clock.now_ms()
        clock.step(-YEAR_MS // 2)  # as at its last shutdown, or wrong
        late = TimeFloor(clock, house.store.read(time_floor.stored))
        assert not late.is_plausible
        await house.store.write(time_floor.store, late)
        assert house.store.read(time_floor.stored) == RELEASED_MS + YEAR_MS


async def test_t153_a_step_of_a_time_server_does_no_harm(autojump_clock: MockClock):
    clock = SimulatedClock(RELEASED_MS + YEAR_MS)
    floor = TimeFloor(clock)
    floor.raise_to_now()
    clock.step(-60_000)
    assert floor.is_plausible
