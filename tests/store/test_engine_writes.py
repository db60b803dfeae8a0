"""Transactions: groups, rollback of one alone, positions, cancellation (T143), misuse."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from pathlib import Path

import apsw
import pytest
import trio
import trio.testing

from matrixbox.store.changes import room_key, user_key
from matrixbox.store.database import Store
from matrixbox.store.errors import ConstraintViolated, StoreClosed, StoreMisuse
from matrixbox.store.runner import Runner
from matrixbox.store.transaction import Tx
from tests.store.engine_support import (
    Refused,
    at_once,
    everything,
    get,
    open_store,
    put,
    put_and_refuse,
)

BOTH = pytest.mark.parametrize("runner", list(Runner), ids=lambda runner: runner.value)


@pytest.fixture(params=list(Runner), ids=lambda runner: runner.value)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    async with open_store(tmp_path / "db", runner=request.param) as opened:
        yield opened


@pytest.fixture
async def threaded(tmp_path: Path) -> Iterator[Store]:
    async with open_store(tmp_path / "db") as opened:
        yield opened


def commits(store: Store) -> Callable[[], int]:
    """Counts the commits of a store from now on."""
    seen: list[int] = []
    writing = store._writer.connection
    writing.set_commit_hook(lambda: bool(seen.append(1)))
    return lambda: len(seen)


async def test_a_write_returns_what_its_function_returns_and_is_read_at_once(store: Store) -> None:
    assert await store.write(put, "a", "1") == 1
    assert store.read(get, "a") == "1"
    assert await store.read_long(get, "a") == "1"


async def test_a_failing_function_leaves_no_trace_and_its_caller_gets_the_error(
    store: Store,
) -> None:
    await store.write(put, "a", "1")
    with pytest.raises(Refused):
        await store.write(put_and_refuse, "b", "2")
    assert store.read(everything) == {"a": "1"}
    assert await store.write(put, "c", "3") == 2, "the position was given back"


async def test_writers_that_wait_together_share_one_commit(threaded: Store) -> None:
    await threaded.write(put, "first", "")
    count = commits(threaded)
    results = await at_once(*(partial(threaded.write, put, f"k{i}", "v") for i in range(20)))
    assert sorted(results) == list(range(2, 22))
    # The first to come is committed alone, all that came meanwhile with the second commit.
    assert count() == 2


async def test_in_a_group_one_failure_is_rolled_back_alone(threaded: Store) -> None:
    calls = [
        partial(threaded.write, put_and_refuse if i % 3 == 0 else put, f"k{i:02}", str(i))
        for i in range(30)
    ]
    results = await at_once(*calls)
    good = {f"k{i:02}": str(i) for i in range(30) if i % 3}
    assert threaded.read(everything) == good
    assert sorted(r for r in results if isinstance(r, int)) == list(range(1, 21))
    assert sum(isinstance(r, Refused) for r in results) == 10


async def test_positions_follow_the_order_of_commits(threaded: Store) -> None:
    order: list[int] = []

    async def writer(i: int) -> None:
        order.append(await threaded.write(put, f"k{i}", "v"))

    async with trio.open_nursery() as nursery:
        for i in range(50):
            nursery.start_soon(writer, i)
    stored = threaded.read(lambda tx: tx.run("SELECT pos FROM entry ORDER BY rowid"))
    assert [row[0] for row in stored] == list(range(1, 51))
    assert sorted(order) == list(range(1, 51))
    assert threaded.doorbell.position == 50


async def test_a_cancelled_caller_before_the_start_writes_nothing_t143(store: Store) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.write(put, "a", "1")
    assert scope.cancelled_caught
    assert store.read(everything) == {}


async def test_a_cancelled_caller_under_way_still_commits_whole_t143(threaded: Store) -> None:
    answered = []
    with trio.CancelScope() as scope:

        def put_and_cancel(tx: Tx) -> None:
            put(tx, "a", "1")
            scope.cancel()
            put(tx, "b", "2")

        await threaded.write(put_and_cancel)
        answered.append(True)  # the answer comes; the cancellation comes at the next checkpoint
        await trio.lowlevel.checkpoint()
    assert answered
    assert scope.cancelled_caught
    assert threaded.read(everything) == {"a": "1", "b": "2"}


async def test_callers_cancelled_in_the_queue_write_whole_or_nothing_t143(
    threaded: Store,
) -> None:
    acknowledged: set[str] = set()

    def two(tx: Tx, i: int) -> None:
        put(tx, f"{i}a", "")
        put(tx, f"{i}b", "")

    async def writer(i: int, scope: trio.CancelScope) -> None:
        with scope:
            await threaded.write(two, i)
            acknowledged.add(str(i))

    scopes = [trio.CancelScope() for _ in range(40)]
    async with trio.open_nursery() as nursery:
        for i, scope in enumerate(scopes):
            nursery.start_soon(writer, i, scope)
        await trio.lowlevel.checkpoint()
        for scope in scopes[::2]:
            scope.cancel()
    keys = set(threaded.read(everything))
    assert {key[:-1] for key in keys if key.endswith("a")} == {
        key[:-1] for key in keys if key.endswith("b")
    }
    assert {str(i) for i in range(1, 40, 2)} <= acknowledged <= {key[:-1] for key in keys}


async def test_nobody_is_answered_before_the_sync(threaded: Store) -> None:
    """The commit hook runs just before SQLite writes: no caller may be back by then."""
    await threaded.write(put, "warm", "")
    back: list[str] = []
    too_early: list[str] = []
    gate = threading.Event()

    def hook() -> bool:
        gate.wait(1)
        too_early.extend(back)
        return False

    threaded._writer.connection.set_commit_hook(hook)

    async def writer(key: str) -> None:
        await threaded.write(put, key, "")
        back.append(key)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer, "a")
        await trio.testing.wait_all_tasks_blocked()
        assert threaded.read(get, "a") is None, "not committed, not seen"
        assert threaded.doorbell.position == 1
        gate.set()
    assert back == ["a"]
    assert too_early == []


async def test_heavy_runs_in_another_thread_and_the_loop_goes_on(threaded: Store) -> None:
    seen: list[int] = []
    go = threading.Event()

    def slow(tx: Tx) -> int:
        seen.append(threading.get_ident())
        assert go.wait(10)
        return put(tx, "heavy", "1")

    async def ticker() -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        go.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker)
        assert await threaded.write(slow, heavy=True) == 1
    assert seen != [threading.get_ident()]
    with pytest.raises(Refused):
        await threaded.write(put_and_refuse, "x", "1", heavy=True)
    assert threaded.read(everything) == {"heavy": "1"}
    assert await threaded.write(put, "y", "2") == 2


async def test_a_busy_loop_does_not_starve_the_thread_that_commits(threaded: Store) -> None:
    """With Python's own switch interval of 5 ms, one of these writes takes seconds."""
    done = False

    async def busy() -> None:
        while not done:
            until = time.perf_counter() + 0.001
            while time.perf_counter() < until:
                pass
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(busy)
        with trio.fail_after(10):
            for i in range(10):
                await threaded.write(put, str(i), "")
        done = True


async def test_group_and_heavy_keep_their_order(threaded: Store) -> None:
    calls = [partial(threaded.write, put, f"k{i}", "v", heavy=i % 4 == 0) for i in range(24)]
    results = await at_once(*calls)
    rows = threaded.read(lambda tx: tx.run("SELECT key, pos FROM entry"))
    assert dict(rows) == {f"k{i}": results[i] for i in range(24)}
    assert sorted(results) == list(range(1, 25))


async def test_after_commit_runs_before_the_bell_and_before_the_answer(store: Store) -> None:
    events: list[str] = []

    def function(tx: Tx) -> None:
        put(tx, "a", "1")
        tx.after_commit(events.append, "cache")

    async def listener() -> None:
        await store.doorbell.beyond(store.doorbell.position, {room_key(7)})
        events.append("rung")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener)
        await trio.testing.wait_all_tasks_blocked()
        await store.write(function)
        assert events[0] == "cache"
        assert store.doorbell.position == 1
    assert sorted(events) == ["cache", "rung"]


async def test_after_commit_is_dropped_with_the_rollback(store: Store) -> None:
    ran: list[str] = []

    def function(tx: Tx) -> None:
        tx.after_commit(ran.append, "x")
        tx.changed(rooms=(1,))
        raise Refused

    with pytest.raises(Refused):
        await store.write(function)
    await store.write(put, "a", "1")
    assert ran == []
    assert not store.doorbell.has_news(0, {room_key(1)})


async def test_a_bug_in_after_commit_reaches_its_caller_alone(threaded: Store) -> None:
    def broken(tx: Tx) -> None:
        put(tx, "broken", "")
        tx.after_commit(lambda: 1 / 0)

    results = await at_once(
        partial(threaded.write, put, "a", "1"),
        partial(threaded.write, broken),
        partial(threaded.write, put, "b", "2"),
    )
    assert isinstance(results[1], ZeroDivisionError)
    assert set(threaded.read(everything)) == {"a", "b", "broken"}, "it was committed"


async def test_functions_run_in_the_context_of_their_caller(threaded: Store) -> None:
    request: ContextVar[int] = ContextVar("request")

    async def writer(i: int) -> tuple[int, int, int]:
        request.set(i)
        return (
            i,
            await threaded.write(lambda _tx: request.get()),
            await threaded.write(lambda _tx: request.get(), heavy=True),
        )

    results = await at_once(*(partial(writer, i) for i in range(10)))
    assert results == [(i, i, i) for i in range(10)]


# --- what functions must not do


async def test_a_transaction_that_is_over_is_refused(store: Store) -> None:
    kept: list[Tx] = []
    await store.write(kept.append)
    with pytest.raises(StoreMisuse):
        kept[0].run("SELECT 1")


async def test_a_read_inside_a_write_is_refused(store: Store) -> None:
    with pytest.raises(StoreMisuse):
        await store.write(lambda _tx: store.read(everything))


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK"])
async def test_a_function_that_ends_its_transaction_is_refused(
    store: Store, statement: str
) -> None:
    with pytest.raises(StoreMisuse):
        await store.write(lambda tx: tx.run(statement))
    assert await store.write(put, "a", "1") == 1


async def test_an_async_function_is_refused(store: Store) -> None:
    async def function(tx: Tx) -> None:
        put(tx, "a", "1")

    with pytest.raises(StoreMisuse):
        await store.write(function)
    assert store.read(everything) == {}


async def test_constraints_are_named_and_hit_one_function_only(threaded: Store) -> None:
    def orphan(tx: Tx) -> None:
        tx.run("INSERT INTO child (id, parent) VALUES (1, 99)")

    def orphan_at_commit(tx: Tx) -> None:
        tx.run("INSERT INTO parent (id) VALUES (5)")
        tx.run("INSERT INTO child (id, parent, later) VALUES (2, 5, 99)")

    results = await at_once(
        partial(threaded.write, put, "a", "1"),
        partial(threaded.write, orphan),
        partial(threaded.write, orphan_at_commit),
        partial(threaded.write, put, "b", "2"),
    )
    assert [type(r) for r in results] == [int, ConstraintViolated, ConstraintViolated, int]
    assert threaded.read(lambda tx: tx.run("SELECT * FROM child")) == []
    assert threaded.read(lambda tx: tx.run("SELECT * FROM parent")) == []


async def test_an_error_that_the_function_catches_is_its_own_affair(store: Store) -> None:
    def function(tx: Tx) -> None:
        put(tx, "a", "1")
        with pytest.raises(ConstraintViolated):
            tx.run("INSERT INTO entry (key, value, pos) VALUES ('a', 'x', 1)")
        put(tx, "b", "2")

    await store.write(function)
    assert store.read(everything) == {"a": "1", "b": "2"}


async def test_bad_sql_is_a_bug_of_the_caller(store: Store) -> None:
    with pytest.raises(StoreMisuse):
        await store.write(lambda tx: tx.run("SELECT * FROM nothing"))
    with pytest.raises(StoreMisuse):
        store.read(lambda tx: tx.run("SELECT ?"))


async def test_many_and_counts(store: Store) -> None:
    def function(tx: Tx) -> tuple[int, int]:
        tx.many(
            "INSERT INTO entry (key, value, pos) VALUES (?, ?, 0)", [(str(i), "") for i in range(9)]
        )
        tx.run("INSERT INTO parent (id) VALUES (41)")
        last = tx.last_rowid
        tx.run("UPDATE entry SET value = 'x' WHERE key < '5'")
        return last, tx.rows_changed

    assert await store.write(function) == (41, 5)


# --- positions


async def test_positions_are_never_given_twice_even_after_deletion_and_restart(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path / "db") as store:
        for i in range(5):
            await store.write(put, str(i), "")
        await store.write(lambda tx: tx.run("DELETE FROM entry"))
    async with open_store(tmp_path / "db") as store:
        assert store.doorbell.position == 5, "an orderly close leaves no gap"
        assert await store.write(put, "a", "") == 6


async def test_positions_skip_the_block_after_a_crash(tmp_path: Path) -> None:
    store = open_store(tmp_path / "db", runner=Runner.INLINE)
    for i in range(3):
        await store.write(put, str(i), "")
    # As a crash leaves it: a copy of the files without an orderly close.
    for name in ("db", "db-wal"):
        (tmp_path / f"copy{name[2:]}").write_bytes((tmp_path / name).read_bytes())
    store.close()
    async with open_store(tmp_path / "copy") as crashed:
        assert crashed.read(everything) == {"0": "", "1": "", "2": ""}
        assert await crashed.write(put, "a", "") == 1001


async def test_blocks_are_reserved_in_the_transaction_that_needs_them(store: Store) -> None:
    def take(tx: Tx, count: int, *, refuse: bool = False) -> list[int]:
        taken = [tx.position() for _ in range(count)]
        if refuse:
            raise Refused
        return taken

    assert await store.write(take, 999) == list(range(1, 1000))
    with pytest.raises(Refused):
        await store.write(partial(take, refuse=True), 1500)
    assert await store.write(take, 3) == [1000, 1001, 1002]
    reserved = store.read(lambda tx: tx.one("SELECT reserved FROM stream"))
    assert reserved == (2000,)


async def test_changed_returns_the_position_of_the_change(store: Store) -> None:
    def function(tx: Tx) -> tuple[int, ...]:
        return (
            tx.changed(rooms=(1,)),
            tx.changed(users=(2,)),
            tx.position(),
            tx.changed(topics=("outbound",)),
        )

    assert await store.write(function) == (1, 1, 2, 2)
    assert store.doorbell.has_news(1, {room_key(1)})
    assert store.doorbell.has_news(1, {user_key(2)})
    assert store.doorbell.has_news(1, "outbound")
    assert not store.doorbell.has_news(1, {room_key(2), "other"})


# --- closing


async def test_closing_waits_for_what_is_under_way_and_refuses_the_rest(tmp_path: Path) -> None:
    store = open_store(tmp_path / "db")
    results: list[object] = []

    async def writer(i: int) -> None:
        results.append(await store.write(put, str(i), ""))

    async with trio.open_nursery() as nursery:
        for i in range(10):
            nursery.start_soon(writer, i)
        for _ in range(2):  # the first may come in the same batch as the new tasks
            await trio.lowlevel.checkpoint()
        await store.aclose()
        with pytest.raises(StoreClosed):
            await store.write(put, "late", "")
        with pytest.raises(StoreClosed):
            await store.read_long(everything)
    assert sorted(results) == list(range(1, 11))
    assert sorted(os.listdir(tmp_path)) == ["db"], "no WAL is left"


async def test_closing_twice_is_closing_once(store: Store) -> None:
    await store.aclose()
    await store.aclose()
    store.close()


def test_the_settings_of_the_connections(tmp_path: Path) -> None:
    store = open_store(tmp_path / "db", runner=Runner.INLINE)
    writing = store._writer.connection

    def pragma(connection: apsw.Connection, name: str) -> object:
        return connection.pragma(name)

    assert pragma(writing, "journal_mode") == "wal"
    assert pragma(writing, "synchronous") == 2
    for name in ("foreign_keys", "secure_delete"):
        assert pragma(writing, name) == 1, name
    for connection in (writing, store._points.connection):
        assert pragma(connection, "trusted_schema") == 0
        assert pragma(connection, "temp_store") == 2
        assert pragma(connection, "mmap_size") == 0
        assert connection.reserve_bytes() == 8
        assert connection.vfsname("main") is not None
    assert pragma(store._points.connection, "query_only") == 1
    store.close()
