"""What SQLite, apsw and Trio really do, where the engine relies on it (T160)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apsw
import apsw.sqlite_extra
import pytest

from matrixbox.store.connection import CHECKSUM_VFS, locate
from matrixbox.store.database import PAGE_SIZE


def wal_database(path: Path, vfs: str = "unix") -> apsw.Connection:
    connection = apsw.Connection(str(path), vfs=vfs)
    connection.pragma("journal_mode", "WAL")
    connection.pragma("synchronous", "FULL")
    connection.execute("CREATE TABLE t (a)")
    return connection


def test_several_statements_run_only_as_far_as_rows_are_fetched(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "db"), vfs="unix")
    connection.execute("SELECT 1; CREATE TABLE t (a)")
    assert not connection.table_exists("main", "t")
    connection.execute("SELECT 1; CREATE TABLE t (a)").fetchall()
    assert connection.table_exists("main", "t")


def test_a_failed_sync_fails_its_commit_and_the_connection_goes_on(tmp_path: Path) -> None:
    """So ending the process must be our rule (section 2, rule 8)."""
    program = """
import sys, apsw
class File(apsw.VFSFile):
    fail = False
    def xSync(self, flags):
        if File.fail:
            File.fail = False
            raise apsw.IOError("made to fail")
        return super().xSync(flags)
class Vfs(apsw.VFS):
    def xOpen(self, name, flags):
        return File("unix", name, flags)
vfs = Vfs("failing", "unix")
db = apsw.Connection(sys.argv[1], vfs="failing")
db.pragma("journal_mode", "WAL"); db.pragma("synchronous", "FULL")
db.execute("CREATE TABLE t (a)")
File.fail = True
for i in range(2):
    try:
        db.execute("INSERT INTO t VALUES (?)", (i,))
        print(i, "committed")
    except apsw.IOError:
        print(i, "failed")
"""
    command = [sys.executable, "-c", program, str(tmp_path / "db")]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output == "0 failed\n1 committed\n"


def test_an_exclusive_database_needs_no_shared_memory_file_and_refuses_others(
    tmp_path: Path,
) -> None:
    one = wal_database(tmp_path / "db", "unix-excl")
    other = apsw.Connection(str(tmp_path / "db"), vfs="unix-excl")
    one.execute("INSERT INTO t VALUES (1)")
    assert other.execute("SELECT a FROM t").fetchall() == [(1,)], "in this process it is shared"
    assert not (tmp_path / "db-shm").exists()
    program = (
        "import sys, apsw; apsw.Connection(sys.argv[1], vfs='unix').execute('SELECT * FROM t')"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "db")]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "BusyError" in result.stderr


def test_a_deferred_reference_fails_the_commit_and_is_counted_before(tmp_path: Path) -> None:
    connection = wal_database(tmp_path / "db")
    connection.pragma("foreign_keys", True)
    connection.execute("CREATE TABLE p (id INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
    connection.execute("BEGIN")
    connection.execute("SAVEPOINT one")
    assert connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0] == 0
    connection.execute("INSERT INTO c VALUES (7)")
    assert connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0] == 1
    connection.execute("RELEASE one")
    with pytest.raises(apsw.ConstraintError):
        connection.execute("COMMIT")
    assert connection.in_transaction


def test_the_checksum_extension_ships_with_apsw_and_takes_its_base_once(tmp_path: Path) -> None:
    assert apsw.sqlite_extra.has("cksumvfs") == "extension"
    connection = apsw.Connection(str(tmp_path / "db"), vfs=locate(tmp_path / "db").vfs)
    assert connection.vfsname("main") == "cksm/unix-excl"
    apsw.set_default_vfs("unix")
    loader = apsw.Connection(":memory:")
    apsw.sqlite_extra.load(loader, "cksumvfs")
    again = apsw.Connection(str(tmp_path / "other"), vfs=CHECKSUM_VFS)
    assert again.vfsname("main") == "cksm/unix-excl", "loading it again changes nothing"


@pytest.mark.parametrize("how", ["backup", "vacuum"])
def test_copies_keep_the_checksums(tmp_path: Path, how: str) -> None:
    vfs = locate(tmp_path / "db").vfs
    connection = apsw.Connection(str(tmp_path / "db"), vfs=vfs)
    connection.pragma("page_size", PAGE_SIZE)
    connection.reserve_bytes(reserve=8)
    connection.pragma("journal_mode", "WAL")
    connection.execute("CREATE TABLE t (a)")
    connection.execute("INSERT INTO t VALUES (randomblob(5000))")
    if how == "vacuum":
        connection.execute("VACUUM INTO ?", (str(tmp_path / "copy"),))
    else:
        copy = apsw.Connection(str(tmp_path / "copy"), vfs=vfs)
        with copy.backup("main", connection, "main") as backup:
            backup.step()
        copy.close()
    content = bytearray((tmp_path / "copy").read_bytes())
    content[-200] ^= 1
    (tmp_path / "copy").write_bytes(content)
    damaged = apsw.Connection(str(tmp_path / "copy"), vfs=vfs)
    assert damaged.reserve_bytes() == 8
    with pytest.raises(apsw.IOError):
        damaged.execute("SELECT hex(a) FROM t").fetchall()


def test_an_interrupted_read_leaves_its_transaction_usable(tmp_path: Path) -> None:
    connection = wal_database(tmp_path / "db")
    stop = [False]
    connection.set_progress_handler(lambda: stop[0], 1000)
    connection.execute("BEGIN")
    stop[0] = True
    with pytest.raises(apsw.InterruptError):
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        ).fetchall()
    stop[0] = False
    assert connection.in_transaction
    connection.execute("COMMIT")
