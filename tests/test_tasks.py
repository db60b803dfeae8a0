"""keep_running, one_error and the bounded waits."""

from __future__ import annotations

import itertools

import pytest
import trio

from matrixbox import tasks
from matrixbox.tasks import CrashLoop, HeldLock, WaitTooLong, at_most, keep_running, one_error


async def test_a_service_that_fails_is_started_again_after_a_growing_pause(autojump_clock):
    starts: list[float] = []

    async def service() -> None:
        starts.append(trio.current_time())
        if len(starts) <= 4:
            raise RuntimeError("bug")

    await keep_running(service, name="test")
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert len(pauses) == 4
    for pause, expected in zip(pauses, [1, 2, 4, 8], strict=True):
        assert 0.8 * expected <= pause <= 1.2 * expected


async def test_a_service_that_returns_is_not_started_again():
    starts = []

    async def service() -> None:
        starts.append(1)

    await keep_running(service, name="test")
    assert starts == [1]


async def test_a_crash_loop_ends_with_the_task_s_name_and_the_last_failure(autojump_clock):
    starts = []

    async def service() -> None:
        starts.append(1)
        raise RuntimeError("bug")

    with pytest.raises(CrashLoop, match=r"push.*11 times") as caught:
        await keep_running(service, name="push")
    assert len(starts) == tasks.CRASHES_ALLOWED + 1
    assert isinstance(caught.value.__cause__, RuntimeError)


async def test_failures_far_apart_never_become_a_crash_loop(autojump_clock):
    starts: list[float] = []

    async def service() -> None:
        starts.append(trio.current_time())
        if len(starts) == 50:
            return
        await trio.sleep(tasks.CALM_AFTER_S + 1)
        raise RuntimeError("bug")

    await keep_running(service, name="test")
    assert len(starts) == 50
    # Each failure counts as the first one: the pause stays short.
    assert all(b - a < tasks.CALM_AFTER_S + 2.3 for a, b in itertools.pairwise(starts))


async def test_cancelling_ends_a_service_and_its_restarts(autojump_clock):
    async def service() -> None:
        raise RuntimeError("bug")

    with trio.move_on_after(5) as scope:
        await keep_running(service, name="test")
    assert scope.cancelled_caught
    assert trio.current_time() == 5


@pytest.mark.parametrize("failures", [0, 1, 10, 5_000])
def test_the_pause_is_bounded(failures):
    assert 0 < tasks.pause_after(failures) <= tasks.LONGEST_PAUSE_S


def test_jitter_stays_within_its_share():
    values = [tasks.jittered(10) for _ in range(200)]
    assert all(8 <= value <= 12 for value in values)
    assert len(set(values)) > 100


async def fail(error: BaseException) -> None:
    raise error


async def test_one_error_comes_out_of_nested_nurseries_as_itself():
    original = KeyError("x")
    original.__context__ = context = ValueError("before")
    with pytest.raises(KeyError) as caught, one_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            async with trio.open_nursery() as inner:
                inner.start_soon(fail, original)
    assert caught.value is original
    assert original.__context__ is context


async def test_errors_beside_the_first_are_noted_on_it():
    with pytest.raises((KeyError, ValueError)) as caught, one_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, KeyError("x"))
            nursery.start_soon(fail, ValueError("secret"))
    (note,) = caught.value.__notes__
    assert note in ("at the same time: KeyError", "at the same time: ValueError")


async def test_an_interrupt_goes_before_ordinary_errors():
    with pytest.raises(KeyboardInterrupt), one_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, KeyError("x"))
            nursery.start_soon(fail, KeyboardInterrupt())


async def test_cancellation_alone_passes_through_one_error():
    with trio.CancelScope() as scope:
        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
    assert scope.cancelled_caught


async def test_a_wait_beyond_its_bound_says_what_for(autojump_clock):
    with pytest.raises(WaitTooLong, match="waited 3 s for the dentist"):
        with at_most(3, "the dentist"):
            await trio.sleep(4)
    with at_most(3, "the dentist"):
        await trio.sleep(2)


async def test_t149_waiting_for_a_lock_is_bounded_and_names_the_holder(autojump_clock):
    lock = HeldLock("room !a:b")

    async def hold() -> None:
        async with lock.held(by="join @x:y", at_most_s=1):
            await trio.sleep(20)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await trio.testing.wait_all_tasks_blocked()
        assert not lock.is_idle
        with pytest.raises(WaitTooLong, match=r"10 s for room !a:b, held by join @x:y"):
            async with lock.held(by="other", at_most_s=10):
                pytest.fail("the lock was not free")
        async with lock.held(by="other", at_most_s=15):
            assert lock.holder == "other"
    assert lock.is_idle
    assert lock.holder is None


async def test_a_lock_is_released_when_its_holder_is_cancelled(autojump_clock):
    lock = HeldLock("room")
    with trio.move_on_after(1):
        async with lock.held(by="a", at_most_s=1):
            await trio.sleep_forever()
    assert lock.is_idle
    async with lock.held(by="b", at_most_s=1):
        pass
