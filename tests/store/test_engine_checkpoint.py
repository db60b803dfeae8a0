"""The WAL stays short: beside commits, under long reads, and after them (T148)."""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.lowlevel
import trio.testing
from attrs import evolve

from matrixbox.store import checkpoint
from matrixbox.store.database import Store
from matrixbox.store.errors import ReadTooLong
from matrixbox.store.runner import Runner
from matrixbox.store.transaction import Tx
from tests.store.engine_support import SMALL, everything, open_store, put

KIB = 1024
EAGER = evolve(SMALL, checkpoint_bytes=64 * KIB)


def fill(tx: Tx, name: str) -> None:
    for i in range(20):
        put(tx, f"{name}.{i}", "x" * 900)


def wal_size(path: Path) -> int:
    return os.path.getsize(f"{path}-wal")


async def quiet(store: Store) -> None:
    """Until no checkpoint is under way."""
    assert store._checkpointer is not None
    with trio.fail_after(10):
        while store._checkpointer._running:
            await trio.sleep(0.002)


@pytest.mark.parametrize("runner", list(Runner), ids=lambda runner: runner.value)
async def test_under_steady_load_the_wal_is_started_anew(tmp_path: Path, runner: Runner) -> None:
    path = tmp_path / "db"
    async with open_store(path, runner=runner, tuning=EAGER) as store:
        for i in range(100):  # 2 MiB of pages
            await store.write(fill, str(i))
        await quiet(store)
        assert wal_size(path) < 512 * KIB
        assert len(store.read(everything)) == 2_000
        assert path.stat().st_size > 1_500 * KIB, "most of it is in the database file"
    async with open_store(path, runner=runner) as store:
        assert len(store.read(everything)) == 2_000


async def test_commits_go_on_during_a_checkpoint(tmp_path: Path) -> None:
    async with open_store(tmp_path / "db", tuning=EAGER) as store:
        assert store._checkpointer is not None
        real, started, go_on = store._checkpointer._move, threading.Event(), threading.Event()

        def slow() -> None:
            started.set()
            assert go_on.wait(10)
            real()

        store._checkpointer._move = slow  # type: ignore[method-assign]
        while not started.is_set():
            await store.write(fill, "a")
        for i in range(5):
            await store.write(put, f"beside {i}", "")
        go_on.set()
        await quiet(store)
        assert store.wal_bytes > 0
        await store.write(put, "one more", "")
        assert store.wal_bytes < 64 * KIB, "started anew"


async def test_after_a_long_read_the_wal_is_started_anew_and_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "RETRY_AFTER_BYTES", 32 * KIB)
    path = tmp_path / "db"
    async with open_store(path, tuning=EAGER) as store:
        # Set when the WAL is opened; a pragma tells the open connections anew.
        store._writer.connection.pragma("journal_size_limit", 256 * KIB)
        await store.write(put, "a", "")
        started, go_on = threading.Event(), threading.Event()

        def hold(tx: Tx) -> dict[str, str]:
            everything(tx)
            started.set()
            assert go_on.wait(10)
            return everything(tx)

        seen = []
        async with trio.open_nursery() as nursery:

            async def reader() -> None:
                seen.append(await store.read_long(hold))

            nursery.start_soon(reader)
            await trio.to_thread.run_sync(started.wait)
            for i in range(50):
                await store.write(fill, str(i))
            await quiet(store)
            grown = wal_size(path)
            assert grown > 1_000 * KIB, "the snapshot is in use"
            go_on.set()
        assert seen == [{"a": ""}]
        for i in range(5):
            await store.write(fill, str(i))
            await quiet(store)
        assert wal_size(path) <= 512 * KIB


async def test_long_reads_are_ended_when_the_wal_grows_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "END_READS_BYTES", 512 * KIB)
    monkeypatch.setattr(checkpoint, "RETRY_AFTER_BYTES", 32 * KIB)
    async with open_store(tmp_path / "db", tuning=EAGER) as store:
        ended = []

        def hold(tx: Tx) -> None:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                everything(tx)
                time.sleep(0.001)

        async def reader() -> None:
            with pytest.raises(ReadTooLong):
                await store.read_long(hold)
            ended.append(True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            with trio.fail_after(8):
                i = 0
                while not ended:
                    await store.write(fill, str(i % 7))
                    i += 1
        await store.write(fill, "a")
        await quiet(store)
        await store.write(put, "a", "")
        assert store.wal_bytes < 256 * KIB


async def test_once_a_day_the_file_is_cut_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "db"
    async with open_store(path) as store:
        for i in range(5):
            await store.write(fill, str(i))
        assert wal_size(path) > 100 * KIB
        monkeypatch.setattr(checkpoint, "TRUNCATE_AFTER_S", 0.0)
        assert store._checkpointer is not None
        store._checkpointer._truncated_at -= 1
        await store.write(put, "tomorrow", "")
        monkeypatch.setattr(checkpoint, "TRUNCATE_AFTER_S", 1e6)
        store._checkpointer._truncated_at -= 2e6
        await store.write(put, "and the day after", "")
        await quiet(store)
        assert wal_size(path) == 0
        assert len(store.read(everything)) == 102


async def test_a_long_read_does_not_hold_up_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with open_store(path) as store:
        assert store._checkpointer is not None
        await store.write(fill, "a")
        started, go_on = threading.Event(), threading.Event()

        def hold(tx: Tx) -> None:
            everything(tx)
            started.set()
            assert go_on.wait(10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.read_long, hold)
            await trio.to_thread.run_sync(started.wait)
            store._checkpointer._truncated_at -= 2 * checkpoint.TRUNCATE_AFTER_S
            await store.write(fill, "b")
            await quiet(store)
            assert wal_size(path) > 0
            await store.write(fill, "c")
            assert not store._checkpointer._running, "tried again later, not at each commit"
            go_on.set()


async def test_closing_leaves_one_file(tmp_path: Path) -> None:
    async with open_store(tmp_path / "db") as store:
        await store.write(fill, "a")
        await store.read_long(everything)
    assert os.listdir(tmp_path) == ["db"]


async def test_a_second_look_while_one_runs_starts_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path / "db", tuning=EAGER) as store:
        assert store._checkpointer is not None
        moves: list[int] = []
        real = store._checkpointer._move

        def count() -> None:
            moves.append(1)
            real()

        store._checkpointer._move = count  # type: ignore[method-assign]
        writers = [partial(store.write, fill, str(i)) for i in range(20)]
        async with trio.open_nursery() as nursery:
            for writer in writers:
                nursery.start_soon(writer)
        await quiet(store)
        assert 1 <= len(moves) <= 7


async def test_closing_at_once_waits_for_a_checkpoint_that_nobody_else_waits_for(
    tmp_path: Path,
) -> None:
    for step in range(10):
        store = open_store(tmp_path / f"db{step}", tuning=EAGER)
        while store._checkpointer is not None and not store._checkpointer._running:
            await store.write(fill, "a")
        for _ in range(step):
            await trio.lowlevel.checkpoint()
        store.close()
        assert os.listdir(tmp_path) == [f"db{step}"]
        os.unlink(tmp_path / f"db{step}")


class Overlapping:
    """Long reads that are never all at an end at once, unless new ones have to wait."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.done = False
        self.reads = 0

    def hold(self, tx: Tx) -> int:
        first = tx.one("SELECT count(*) FROM entry")
        time.sleep(0.01)
        assert tx.one("SELECT count(*) FROM entry") == first
        return 1

    async def run(self) -> None:
        while not self.done:
            self.reads += await self.store.read_long(self.hold)


async def test_reads_that_overlap_for_ever_do_not_keep_the_wal_growing_t148(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "HOLD_READS_BYTES", 256 * KIB)
    monkeypatch.setattr(checkpoint, "RETRY_AFTER_BYTES", 32 * KIB)
    path = tmp_path / "db"
    async with open_store(path, tuning=EAGER) as store:
        readers = Overlapping(store)
        longest = 0
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(readers.run)
            for i in range(300):  # 6 MiB
                await store.write(fill, str(i % 5))
                longest = max(longest, wal_size(path))
                await trio.lowlevel.checkpoint()
            readers.done = True
        assert longest < 3_000 * KIB
        assert readers.reads > 5, "and they were not refused"
        await quiet(store)
        assert not store._long._holding


async def test_closing_answers_reads_that_are_held(tmp_path: Path) -> None:
    store = open_store(tmp_path / "db")
    await store.write(put, "a", "")
    outcome: list[type[BaseException]] = []

    async def reader() -> None:
        try:
            await store.read_long(lambda tx: [tx.run("SELECT 1") for _ in range(100_000_000)])
        except ReadTooLong as error:
            outcome.append(type(error))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            store._long.hold(lambda: None)
            nursery.start_soon(reader)
            await trio.testing.wait_all_tasks_blocked()
            assert store._long._under_way == set()
            await store.aclose()
    assert outcome == [ReadTooLong]
