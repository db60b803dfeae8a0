"""Reading: snapshots, limits (T079, T148), threads, what a read may not do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from matrixbox.store import readers
from matrixbox.store.database import Store
from matrixbox.store.errors import ReadTooLong, StoreMisuse
from matrixbox.store.runner import Runner
from matrixbox.store.transaction import Tx
from tests.store.engine_support import at_once, everything, get, open_store, put

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture(params=list(Runner), ids=lambda runner: runner.value)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    async with open_store(tmp_path / "db", runner=request.param) as opened:
        yield opened


@pytest.fixture
async def threaded(tmp_path: Path) -> Iterator[Store]:
    async with open_store(tmp_path / "db") as opened:
        yield opened


@pytest.mark.parametrize(
    "write",
    [
        lambda tx: tx.run("DELETE FROM entry"),
        lambda tx: tx.many("DELETE FROM entry WHERE key = ?", [("a",)]),
        lambda tx: tx.position(),
        lambda tx: tx.changed(rooms=(1,)),
        lambda tx: tx.after_commit(print),
    ],
)
async def test_a_read_can_not_write(store: Store, write: object) -> None:
    await store.write(put, "a", "1")
    with pytest.raises(StoreMisuse):
        store.read(write)
    with pytest.raises(StoreMisuse):
        await store.read_long(write)
    assert store.read(everything) == {"a": "1"}


async def test_reads_say_that_they_are_reads(store: Store) -> None:
    assert store.read(lambda tx: tx.writable) is False
    assert await store.read_long(lambda tx: tx.writable) is False
    assert await store.write(lambda tx: tx.writable) is True


async def test_a_read_inside_a_read_shares_its_snapshot(store: Store) -> None:
    await store.write(put, "a", "1")
    assert store.read(lambda _tx: store.read(get, "a")) == "1"


async def test_errors_of_a_reading_function_are_its_callers(store: Store) -> None:
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            store.read(lambda _tx: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await store.read_long(lambda _tx: 1 / 0)
    assert store.read(everything) == {}


async def test_a_point_read_of_several_statements_sees_one_snapshot(threaded: Store) -> None:
    """A commit that becomes visible in another thread, in the middle of a read, is not seen."""
    await threaded.write(put, "a", "1")
    committing, committed = threading.Event(), threading.Event()

    def overwrite(tx: Tx) -> None:
        assert committing.wait(10)
        put(tx, "a", "2")

    def after_commit_in_worker() -> bool:
        committed.set()
        return False

    threaded._writer.connection.set_commit_hook(after_commit_in_worker)

    def twice(tx: Tx) -> tuple[str | None, str | None]:
        first = get(tx, "a")
        committing.set()
        assert committed.wait(10)
        until = time.monotonic() + 0.02  # the commit itself ends soon after its hook
        while time.monotonic() < until:
            second = get(tx, "a")
        return first, second

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(threaded.write, overwrite, heavy=True))
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        assert threaded.read(twice) == ("1", "1")
    assert threaded.read(get, "a") == "2"


async def test_a_long_read_keeps_its_snapshot_while_others_commit(threaded: Store) -> None:
    await threaded.write(put, "a", "1")
    started, go_on = threading.Event(), threading.Event()

    def slow(tx: Tx) -> tuple[str | None, str | None]:
        first = get(tx, "a")
        started.set()
        assert go_on.wait(10)
        return first, get(tx, "a")

    results = []

    async def reader() -> None:
        results.append(await threaded.read_long(slow))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await trio.to_thread.run_sync(started.wait)
        await threaded.write(put, "a", "2")
        assert threaded.read(get, "a") == "2"
        go_on.set()
    assert results == [("1", "1")]


async def test_long_reads_run_two_at_a_time_and_the_others_wait(threaded: Store) -> None:
    now, most = [0], [0]
    lock = threading.Lock()

    def busy(tx: Tx) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return threading.get_ident()

    threads = await at_once(*[partial(threaded.read_long, busy)] * 10)
    assert len(set(threads)) == 2
    assert most == [2]
    assert threading.get_ident() not in threads


async def test_long_reads_have_caches_of_their_own(threaded: Store) -> None:
    """What they see may be older than what the shared caches know, and threads don't share."""
    assert threaded.read(lambda tx: tx.caches) is threaded.caches
    assert await threaded.write(lambda tx: tx.caches) is threaded.caches
    assert await threaded.read_long(lambda tx: tx.caches) is not threaded.caches
    threaded.caches.event_nids.put("$a", 1)
    private = await threaded.write(lambda tx: tx.caches, heavy=True)
    assert private is not threaded.caches
    assert len(threaded.caches.event_nids) == 0, "a heavy write empties the shared caches"


async def test_a_statement_is_interrupted_after_its_limit_t079(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "STATEMENT_LIMIT_S", 0.05)
    with pytest.raises(ReadTooLong):
        store.read(lambda tx: tx.run(ENDLESS))
    with pytest.raises(ReadTooLong):
        await store.read_long(lambda tx: tx.run(ENDLESS))
    assert store.read(everything) == {}
    assert await store.read_long(everything) == {}


async def test_a_long_read_ends_after_its_limit_t148(
    threaded: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "LONG_READ_LIMIT_S", 0.05)

    def many_short_statements(tx: Tx) -> None:
        for _ in range(1_000):
            tx.run("SELECT 1")
            time.sleep(0.001)

    with pytest.raises(ReadTooLong):
        await threaded.read_long(many_short_statements)
    assert await threaded.read_long(everything) == {}


async def test_a_cancelled_long_read_returns_at_once_and_is_interrupted(threaded: Store) -> None:
    with trio.fail_after(3):
        with trio.move_on_after(0.01) as scope:
            await threaded.read_long(lambda tx: tx.run(ENDLESS))
        assert scope.cancelled_caught
        # Both readers are free again soon.
        await at_once(*[partial(threaded.read_long, everything)] * 4)


async def test_a_long_read_that_waits_for_a_reader_can_be_cancelled(threaded: Store) -> None:
    go_on = threading.Event()
    ran: list[int] = []
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(threaded.read_long, lambda _tx: go_on.wait(10))
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await threaded.read_long(lambda _tx: ran.append(1))
        go_on.set()
    await threaded.read_long(everything)
    assert ran == []


async def test_closing_ends_long_reads(tmp_path: Path) -> None:
    store = open_store(tmp_path / "db")
    outcome: list[BaseException] = []

    async def reader() -> None:
        try:
            await store.read_long(lambda tx: tx.run(ENDLESS))
        except ReadTooLong as error:
            outcome.append(error)

    with trio.fail_after(3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            await trio.sleep(0.02)
            await store.aclose()
    assert len(outcome) == 1


async def test_an_inline_store_starts_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    async with open_store(tmp_path / "db", runner=Runner.INLINE) as store:
        await store.write(put, "a", "1")
        await store.write(put, "b", "2", heavy=True)
        await store.read_long(everything)
        assert threading.active_count() == before


async def test_a_store_in_memory() -> None:
    async with open_store(":memory:", runner=Runner.INLINE) as one:
        async with open_store(":memory:", runner=Runner.INLINE) as other:
            await one.write(put, "a", "1")
            assert one.read(everything) == {"a": "1"}
            assert other.read(everything) == {}
    with pytest.raises(StoreMisuse):
        open_store(":memory:")
