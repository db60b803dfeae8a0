"""How many requests are handled at once, and that nobody uses up the others' share (T082)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from matrixbox.api.bounds import Bounds
from matrixbox.api.slots import Slots, Turn, Turns
from matrixbox.errors import LimitExceeded

BOUNDS = Bounds(requests_at_once=4, requests_per_user=2, waiting_per_user=3)


async def test_the_line_is_first_come_first_served() -> None:
    slots = Slots(1, wait_s=10)
    order: list[int] = []

    async def use(number: int) -> None:
        await slots.take()
        order.append(number)
        await wait_all_tasks_blocked()
        slots.give_back()

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(use, number)
            await wait_all_tasks_blocked()
    assert order == [0, 1, 2, 3, 4]
    assert slots.is_unused


async def test_who_waits_too_long_is_told_to_come_back(autojump_clock: MockClock) -> None:
    slots = Slots(1, wait_s=20)
    await slots.take()
    with pytest.raises(LimitExceeded) as caught:
        await slots.take()
    assert caught.value.retry_after_ms > 0
    assert trio.current_time() == pytest.approx(20)
    slots.give_back()
    assert slots.is_unused


async def test_a_line_has_an_end() -> None:
    """16 of another server's requests wait, the seventeenth does not."""
    slots = Slots(1, line_length=2, wait_s=1000)
    await slots.take()
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(slots.take)
        await wait_all_tasks_blocked()
        with pytest.raises(LimitExceeded):
            await slots.take()
        nursery.cancel_scope.cancel()


async def test_who_is_cancelled_in_line_leaves_no_hole(autojump_clock: MockClock) -> None:
    slots = Slots(1, wait_s=1000)
    await slots.take()
    with trio.move_on_after(1):
        await slots.take()
    slots.give_back()
    assert slots.is_unused
    # Handed over and cancelled at the same moment: the slot is still given back by its holder.
    await slots.take()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.take)
        await wait_all_tasks_blocked()
        slots.give_back()
        nursery.cancel_scope.cancel()
    slots.give_back()
    assert slots.is_unused


async def _handled(turns: Turns, user: str, seconds: float, done: list[str]) -> None:
    turn = Turn(turns)
    try:
        await turn.begin()
        await turn.charge(user, is_server=False)
        await trio.sleep(seconds)
        done.append(user)
    finally:
        turn.end()


async def test_one_user_cannot_use_up_the_common_slots(autojump_clock: MockClock) -> None:
    """Fifty requests of one wait for each other, not for the household."""
    turns = Turns(BOUNDS)
    done: list[str] = []
    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(_handled, turns, "@greedy:x", 2.0, done)
        await wait_all_tasks_blocked()
        before = trio.current_time()
        await _handled(turns, "@other:x", 0.5, done)
        assert trio.current_time() == before + 0.5
    assert done.count("@greedy:x") == 16
    assert turns.common.is_unused
    assert not turns._of_spender


async def test_failed_requests_leave_nothing_behind(autojump_clock: MockClock) -> None:
    turns = Turns(BOUNDS)
    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(_handled, turns, f"@{number % 3}:x", 100.0, [])
    assert turns.common.is_unused
    assert not turns._of_spender


async def test_long_polls_hold_no_slot_while_they_wait(autojump_clock: MockClock) -> None:
    """100 devices wait, and a request is handled at once."""
    turns = Turns(Bounds(requests_at_once=2))
    waiting = 0

    async def poll(number: int) -> None:
        nonlocal waiting
        turn = Turn(turns)
        await turn.begin()
        await turn.charge(f"@{number}:x", is_server=False)
        async with turn.waiting(30):
            waiting += 1
            await trio.sleep_forever()
        turn.end()

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(poll, number)
        await wait_all_tasks_blocked()
        assert waiting == len(turns.waiting) == 100
        before = trio.current_time()
        await _handled(turns, "@a:x", 0, [])
        assert trio.current_time() == before
    assert trio.current_time() == pytest.approx(30)
    assert turns.common.is_unused
    assert not turns._of_spender


async def test_a_user_waits_only_so_often_at_once() -> None:
    turns = Turns(BOUNDS)

    async def poll() -> None:
        turn = Turn(turns)
        await turn.begin()
        await turn.charge("@a:x", is_server=False)
        async with turn.waiting(30):
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(poll)
        await wait_all_tasks_blocked()
        with pytest.raises(LimitExceeded):
            await poll()
        nursery.cancel_scope.cancel()


async def test_a_stop_ends_all_waiting_now_and_later() -> None:
    turns = Turns(BOUNDS)
    ended = 0

    async def poll() -> None:
        nonlocal ended
        turn = Turn(turns)
        await turn.begin()
        async with turn.waiting(1000):
            await trio.sleep_forever()
        ended += 1
        turn.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll)
        nursery.start_soon(poll)
        await wait_all_tasks_blocked()
        turns.waiting.stop()
    await poll()
    assert ended == 3


async def test_a_server_has_its_own_number_of_slots(autojump_clock: MockClock) -> None:
    """8 handled and 16 in line; the rest is refused at once."""
    turns = Turns(Bounds())
    outcomes: list[str] = []

    async def transaction() -> None:
        turn = Turn(turns)
        try:
            await turn.begin()
            await turn.charge("remote.test", is_server=True)
            outcomes.append("handled")
            await trio.sleep(1)
        except LimitExceeded:
            outcomes.append("refused")
        finally:
            turn.end()

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(transaction)
        await wait_all_tasks_blocked()
        assert outcomes.count("handled") == 8
        assert outcomes.count("refused") == 30 - 8 - 16
    assert outcomes.count("handled") == 24
    assert turns.common.is_unused


async def test_one_large_body_at_a_time(autojump_clock: MockClock) -> None:
    """Others wait up to 20 s (T076)."""
    turns = Turns(Bounds())
    first, second = Turn(turns), Turn(turns)
    await first.take_large_body()
    await first.take_large_body()
    with pytest.raises(LimitExceeded):
        await second.take_large_body()
    assert trio.current_time() == pytest.approx(20)
    first.end()
    await second.take_large_body()
    second.end()
    assert turns.large_bodies.is_unused
