"""A full disk, step by step (T144); the harness in tests/crash fills one at every position."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
from attrs import evolve

from matrixbox.store.database import Store
from matrixbox.store.errors import StoreFull, StoreReadOnly
from matrixbox.store.runner import Runner
from matrixbox.store.space import SMALLEST_MARGIN_BYTES, DiskSpace, Space
from matrixbox.store.transaction import Tx
from tests.store.engine_support import SMALL, at_once, everything, open_store, put

RESERVE = 2 * SMALLEST_MARGIN_BYTES
MARGIN = SMALLEST_MARGIN_BYTES


class Disk:
    """What `statvfs` would say."""

    def __init__(self) -> None:
        self.free = 100 * RESERVE

    def __call__(self) -> int:
        return self.free


def store_on(disk: Disk, path: Path) -> Store:
    tuning = evolve(SMALL, reserve_bytes=RESERVE, free_bytes=disk)
    return open_store(path, runner=Runner.INLINE, tuning=tuning)


def no_room(_tx: Tx) -> None:
    raise StoreFull


async def test_the_reserve_is_given_up_then_writing_stops_then_it_goes_on(tmp_path: Path) -> None:
    disk, reserve = Disk(), tmp_path / "db-reserve"
    async with store_on(disk, tmp_path / "db") as store:
        assert reserve.stat().st_size == RESERVE
        assert store.space is Space.ENOUGH

        disk.free = 0
        with pytest.raises(StoreFull):
            await store.write(no_room)
        assert store.space is Space.RESERVE
        assert not reserve.exists()

        disk.free = RESERVE  # what the reserve has left behind
        await store.write(put, "in the reserve", "")
        disk.free = MARGIN - 1
        with pytest.raises(StoreReadOnly):
            await store.write(put, "refused", "")
        with pytest.raises(StoreReadOnly):
            await store.write(put, "refused", "", heavy=True)
        assert store.space is Space.NONE
        assert set(store.read(everything)) == {"in the reserve"}

        disk.free = RESERVE + MARGIN - 1
        with pytest.raises(StoreReadOnly):
            await store.write(put, "not yet", "")
        disk.free = RESERVE + MARGIN
        await store.write(put, "again", "")
        assert store.space is Space.ENOUGH
        assert reserve.stat().st_size == RESERVE


async def test_what_was_too_big_for_the_disk_does_not_stop_the_rest(tmp_path: Path) -> None:
    disk = Disk()
    async with store_on(disk, tmp_path / "db") as store:
        disk.free = RESERVE
        for _ in range(3):
            with pytest.raises(StoreFull):
                await store.write(no_room)
            assert store.space is Space.RESERVE
            await store.write(put, "small", "")


async def test_a_start_on_a_full_disk_reads_and_writes_when_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(tmp_path / "db") as store:
        await store.write(put, "a", "1")
    disk = Disk()
    disk.free = 0

    def refuse(*_: object) -> None:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        store = store_on(disk, tmp_path / "db")
        assert not (tmp_path / "db-reserve").exists(), "not half a reserve either"
    assert store.read(everything) == {"a": "1"}
    with pytest.raises(StoreReadOnly):
        await store.write(put, "b", "2")
    disk.free = 10 * RESERVE
    await store.write(put, "b", "2")
    assert store.space is Space.ENOUGH
    store.close()


def test_the_reserve_stays_over_a_restart_and_a_wrong_one_is_made_anew(tmp_path: Path) -> None:
    database, reserve = tmp_path / "db", tmp_path / "db-reserve"
    DiskSpace(database, RESERVE)
    first = reserve.stat().st_ino
    DiskSpace(database, RESERVE)
    assert reserve.stat().st_ino == first
    DiskSpace(database, RESERVE + 4096)
    assert reserve.stat().st_size == RESERVE + 4096


async def test_without_a_reserve_a_full_disk_stops_writing_at_once(tmp_path: Path) -> None:
    disk = Disk()
    tuning = evolve(SMALL, free_bytes=disk)
    async with open_store(tmp_path / "db", runner=Runner.INLINE, tuning=tuning) as store:
        disk.free = 0
        with pytest.raises(StoreFull):
            await store.write(no_room)
        with pytest.raises(StoreReadOnly):
            await store.write(put, "a", "")
        disk.free = 2 * MARGIN
        await store.write(put, "a", "")


@pytest.mark.parametrize("heavy", [False, True])
async def test_what_finds_no_space_is_rolled_back_and_the_others_are_not(
    tmp_path: Path, heavy: bool
) -> None:
    """A limit on pages stands for the disk; a function may even overlook what happened to it."""

    def too_much(tx: Tx, *, overlook: bool) -> None:
        put(tx, "half", "")
        try:
            put(tx, "much", "x" * 500_000)
        except StoreFull:
            if not overlook:
                raise
        put(tx, "other half", "")

    async with open_store(tmp_path / "db") as store:
        await store.write(put, "before", "")
        writing = store._writer.connection
        pages = writing.pragma("page_count")
        assert isinstance(pages, int)
        writing.pragma("max_page_count", pages + 100)
        results = await at_once(
            partial(store.write, put, "a", ""),
            partial(store.write, put, "b", ""),
            partial(store.write, partial(too_much, overlook=False), heavy=heavy),
            partial(store.write, put, "c", ""),
            partial(store.write, partial(too_much, overlook=True), heavy=heavy),
            partial(store.write, put, "d", ""),
        )
        there = store.read(everything)
        for key, result in zip(
            ("a", "b", "c", "d"), (results[i] for i in (0, 1, 3, 5)), strict=True
        ):
            assert (key in there) == isinstance(result, int), "acknowledged is there, and no other"
        assert isinstance(results[2], StoreFull)
        assert ("half" in there) == ("other half" in there) == (results[4] is None)
        assert "much" not in there
        writing.pragma("max_page_count", 1 << 30)
        await store.write(put, "after", "x" * 500_000)
        positions = store.read(lambda tx: tx.run("SELECT pos FROM entry ORDER BY pos"))
        assert len(set(positions)) == len(positions)
