"""The doorbell: who is woken, and that no news is missed."""

from __future__ import annotations

import time

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.store import changes
from matrixbox.store.changes import (
    Change,
    Doorbell,
    StreamPos,
    changed_rooms,
    inbox_key,
    loud_rooms,
    read_rooms,
    receipts_key,
    room_key,
    user_key,
)


def ring(bell: Doorbell, position: int, *keys: changes.Key) -> None:
    bell.ring(Change(StreamPos(position), frozenset(keys)))


def test_keys_of_different_things_are_never_the_same() -> None:
    kinds = (room_key, user_key, receipts_key, inbox_key)
    assert len({kind(number) for kind in kinds for number in range(100)}) == 400


def test_rooms_are_found_again_among_keys() -> None:
    keys = {"typing"} | {kind(n) for kind in (room_key, user_key, inbox_key) for n in (3, 1)}
    keys.add(receipts_key(4))
    assert changed_rooms(keys) == [1, 3]
    assert read_rooms(keys) == [4]
    assert loud_rooms(keys) == {1, 3, 4}


async def test_a_waiter_is_woken_by_its_keys_only() -> None:
    bell = Doorbell(StreamPos(10))
    woken: list[str] = []

    async def wait(name: str, *keys: changes.Key) -> None:
        assert await bell.beyond(StreamPos(10), frozenset(keys)) == 11
        woken.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "room 1", room_key(1))
        nursery.start_soon(wait, "room 2", room_key(2))
        nursery.start_soon(wait, "both", room_key(1), room_key(2))
        nursery.start_soon(wait, "user 1", user_key(1))
        await trio.testing.wait_all_tasks_blocked()
        assert bell.waiting == 4
        ring(bell, 11, room_key(1))
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(woken) == ["both", "room 1"]
        assert bell.waiting == 2
        nursery.cancel_scope.cancel()
    assert bell.waiting == 0


async def test_what_rang_before_the_wait_is_not_missed() -> None:
    bell = Doorbell(StreamPos(10))
    ring(bell, 11, room_key(1))
    ring(bell, 12, room_key(2))
    with trio.fail_after(1):
        assert await bell.beyond(StreamPos(10), room_key(1)) == 12
    with trio.move_on_after(0.01) as scope:
        await bell.beyond(StreamPos(11), room_key(1))
    assert scope.cancelled_caught, "room 1 has no news beyond 11"


async def test_before_the_start_of_the_process_everything_may_be_news() -> None:
    bell = Doorbell(StreamPos(10))
    with trio.fail_after(1):
        assert await bell.beyond(StreamPos(9), room_key(1)) == 10


async def test_forgotten_keys_cost_a_needless_wake_up_and_no_news(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "MAX_REMEMBERED_KEYS", 3)
    bell = Doorbell(StreamPos(0))
    for i in range(1, 6):
        ring(bell, i, room_key(i))
    assert bell.has_news(StreamPos(0), room_key(1)), "forgotten, so perhaps"
    assert bell.has_news(StreamPos(1), room_key(1)), "forgotten, so perhaps"
    assert not bell.has_news(StreamPos(2), room_key(1))
    assert bell.has_news(StreamPos(2), room_key(3))
    assert not bell.has_news(StreamPos(5), {room_key(i) for i in range(9)})


async def test_a_nudge_wakes_without_a_position() -> None:
    bell = Doorbell(StreamPos(3))
    woken: list[int] = []

    async def wait() -> None:
        woken.append(await bell.beyond(StreamPos(3), {room_key(1), "typing"}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        bell.nudge([])
        bell.nudge(["other"])
        await trio.testing.wait_all_tasks_blocked()
        assert woken == []
        bell.nudge(["typing", "other"])
    assert woken == [3]
    assert not bell.has_news(StreamPos(3), "typing")


KEYS = st.sets(st.integers(0, 6), max_size=3)


@given(
    rings=st.lists(KEYS, max_size=30),
    wanted=KEYS,
    since=st.integers(0, 30),
    bound=st.integers(1, 8),
)
def test_news_is_never_denied(
    rings: list[set[int]], wanted: set[int], since: int, bound: int
) -> None:
    """Against the plain definition, whatever was forgotten; exact while nothing was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes, "MAX_REMEMBERED_KEYS", bound)
        bell = Doorbell(StreamPos(0))
        for position, keys in enumerate(rings, start=1):
            ring(bell, position, *keys)
        news = any(keys & wanted for keys in rings[since:])
        if bound > 6:
            assert bell.has_news(StreamPos(since), wanted) == news
        elif news:
            assert bell.has_news(StreamPos(since), wanted)


async def test_many_keys_and_many_waiters_are_cheap() -> None:
    """500 keys in a ring, 300 waiters of 20 keys each: well below the 50 ms of T079."""
    bell = Doorbell(StreamPos(0))
    async with trio.open_nursery() as nursery:
        for i in range(300):
            mine = frozenset(range(100_000 + i * 20, 100_000 + i * 20 + 20))
            nursery.start_soon(bell.beyond, StreamPos(0), mine)
        await trio.testing.wait_all_tasks_blocked()
        assert bell.waiting == 300
        best = 1.0
        for position in range(1, 20):
            started = time.perf_counter()
            ring(bell, position, *range(500))
            best = min(best, time.perf_counter() - started)
        assert bell.waiting == 300
        nursery.cancel_scope.cancel()
    assert best < 0.005
