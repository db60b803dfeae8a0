"""T145: the process ends at the first failure, and what the next starts do."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

import apsw
import pytest
import trio

from matrixbox.store import recovery
from matrixbox.store.database import Store
from matrixbox.store.errors import StoreFailed, StoreUnreliable
from matrixbox.store.recovery import FailureRecord
from matrixbox.store.runner import Runner
from tests.store.engine_support import at_once, everything, open_store, put


def damage(path: Path) -> None:
    """Flip a bit in the last page of the file."""
    content = bytearray(path.read_bytes())
    content[-300] ^= 1
    path.write_bytes(content)


async def filled(path: Path) -> None:
    async with open_store(path) as store:
        for i in range(50):
            await store.write(put, f"key {i}", "x" * 200)


def start(path: Path, failures: list[BaseException]) -> Store:
    return open_store(path, runner=Runner.INLINE, on_fatal=failures.append)


async def test_a_failed_read_ends_the_process_with_70(tmp_path: Path) -> None:
    """In a real process, with nothing put in the place of its end."""
    path = tmp_path / "db"
    await filled(path)
    damage(path)
    program = (
        "import sys, trio\n"
        "from matrixbox.store.database import Store\n"
        "from tests.store.engine_support import MIGRATIONS, SMALL, everything\n"
        "async def main():\n"
        "    async with Store.open(sys.argv[1], migrations=MIGRATIONS, tuning=SMALL) as store:\n"
        "        print('started', flush=True)\n"
        "        {}\n"
        "        print('read', flush=True)\n"
        "trio.run(main)\n"
    )
    for read in ("store.read(everything)", "await store.read_long(everything)"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tmp_path / "db-failures")
        command = [sys.executable, "-c", program.format(read), str(path)]
        done = await trio.run_process(
            command, check=False, capture_stdout=True, capture_stderr=True
        )
        assert (done.returncode, done.stdout) == (70, b"started\n")
        assert b"database failed" in done.stderr


async def test_after_a_failure_nothing_is_acknowledged_any_more(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    async with open_store(tmp_path / "db", on_fatal=failures.append) as store:
        await store.write(put, "a", "1")
        store._failures.report(apsw.IOError("elsewhere"))
        results = await at_once(
            *[lambda: store.write(put, "b", "2")] * 3,
            lambda: store.write(put, "c", "3", heavy=True),
        )
        assert [type(result) for result in results] == [StoreFailed] * 4
    assert len(failures) == 1


async def test_the_start_after_a_failure_checks_the_database(tmp_path: Path) -> None:
    path, failures = tmp_path / "db", []
    await filled(path)
    FailureRecord(path).add(apsw.IOError("made up"))
    start(path, failures).close()
    assert failures == [], "nothing was wrong after all"
    damage(path)
    with pytest.raises(StoreFailed):
        start(path, failures)
    assert len(failures) == 1


async def test_two_failures_within_ten_minutes_and_the_server_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, failures = tmp_path / "db", []
    await filled(path)
    for _ in range(2):
        FailureRecord(path).add(apsw.IOError("made up"))
    with pytest.raises(StoreUnreliable, match="db-failures"):
        start(path, failures)
    later = time.time() + recovery.AGAIN_WITHIN_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    start(path, failures).close()
    assert failures == []
    assert sorted(os.listdir(tmp_path)) == ["db"], "checked, and forgotten"


async def test_without_the_file_it_tries_again(tmp_path: Path) -> None:
    path = tmp_path / "db"
    await filled(path)
    for _ in range(2):
        FailureRecord(path).add(apsw.IOError("made up"))
    os.unlink(tmp_path / "db-failures")
    start(path, []).close()


async def test_a_line_that_was_cut_short_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "db"
    await filled(path)
    (tmp_path / "db-failures").write_bytes(b"\xff\xfe\n17\n12ab\n\n")
    assert FailureRecord(path).times() == [17.0]
    start(path, []).close()


async def test_after_a_crash_a_small_database_is_checked_and_a_large_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, record = tmp_path / "db", FailureRecord(tmp_path / "db")
    assert not recovery.must_check(record, path), "nothing is there yet"
    await filled(path)
    assert not recovery.must_check(record, path), "an orderly close"
    store = open_store(path, runner=Runner.INLINE)
    await store.write(put, "a", "1")
    crashed = tmp_path / "crashed"
    shutil.copy(path, crashed)
    shutil.copy(tmp_path / "db-wal", tmp_path / "crashed-wal")
    store.close()
    record = FailureRecord(crashed)
    assert recovery.must_check(record, crashed)
    monkeypatch.setattr(recovery, "CHECKED_AFTER_CRASH_BYTES", 1000)
    assert not recovery.must_check(record, crashed)
    store = start(crashed, [])
    assert store.read(everything)["a"] == "1"
    store.close()


def test_a_database_in_memory_keeps_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failures: list[BaseException] = []
    store = open_store(":memory:", runner=Runner.INLINE, on_fatal=failures.append)
    store._failures.report(apsw.IOError("made up"))
    store.close()
    assert len(failures) == 1
    assert os.listdir(tmp_path) == []
