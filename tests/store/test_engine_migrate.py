"""Migrations: in order, each whole or not at all (T157), never backwards; foreign files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from matrixbox.store.connection import APPLICATION_ID
from matrixbox.store.database import Store
from matrixbox.store.errors import (
    DatabaseTooNew,
    MigrationFailed,
    NotOurDatabase,
    StoreMisuse,
)
from matrixbox.store.migrate import Migration, ordered, shipped_migrations
from matrixbox.store.runner import Runner
from tests.store.engine_schema import SCHEMA_FILE, schema_text
from tests.store.engine_support import MIGRATIONS, everything, open_store, put

SECOND = Migration(2, "0002_second.sql", "ALTER TABLE entry ADD COLUMN extra TEXT;")


def inline(path: Path, *steps: Migration) -> Store:
    return open_store(path, runner=Runner.INLINE, migrations=steps)


async def test_a_new_database_gets_every_step(tmp_path: Path) -> None:
    async with inline(tmp_path / "db", *MIGRATIONS, SECOND) as store:
        assert store._writer.connection.pragma("user_version") == 2
        assert store._writer.connection.pragma("application_id") == APPLICATION_ID


async def test_an_old_database_keeps_its_rows(tmp_path: Path) -> None:
    async with inline(tmp_path / "db", *MIGRATIONS) as store:
        await store.write(put, "a", "1")
    async with inline(tmp_path / "db", *MIGRATIONS, SECOND) as store:
        assert store.read(everything) == {"a": "1"}
        assert store.read(lambda tx: tx.run("SELECT extra FROM entry")) == [(None,)]
        assert store.doorbell.position == 1
    async with inline(tmp_path / "db", *MIGRATIONS, SECOND) as store:
        assert store.read(everything) == {"a": "1"}, "and nothing is done twice"


async def test_a_newer_database_is_refused_untouched(tmp_path: Path) -> None:
    inline(tmp_path / "db", *MIGRATIONS, SECOND).close()
    before = (tmp_path / "db").read_bytes()
    with pytest.raises(DatabaseTooNew, match="version 2, this program knows up to 1"):
        inline(tmp_path / "db", *MIGRATIONS)
    assert (tmp_path / "db").read_bytes() == before


@pytest.mark.parametrize(
    "bad",
    [
        "CREATE TABLE more (a) STRICT;",
        "CREATE TABLE more (a TEXT) STRICT; INSERT INTO nothing VALUES (1);",
        "CREATE TABLE more (a TEXT) STRICT; COMMIT;",
        "CREATE TABLE more (a TEXT) STRICT; INSERT INTO child (id, parent) VALUES (1, 99);",
    ],
)
async def test_a_failing_step_leaves_the_database_as_it_was(tmp_path: Path, bad: str) -> None:
    """T157: restart is at the old version, with its rows."""
    async with inline(tmp_path / "db", *MIGRATIONS) as store:
        await store.write(put, "a", "1")
    with pytest.raises(MigrationFailed, match="0002_bad"):
        inline(tmp_path / "db", *MIGRATIONS, Migration(2, "0002_bad.sql", bad))
    async with inline(tmp_path / "db", *MIGRATIONS) as store:
        assert store.read(everything) == {"a": "1"}
        tables = store.read(lambda tx: tx.run("SELECT name FROM sqlite_schema"))
        assert ("more",) not in tables or "COMMIT" in bad


async def test_a_step_may_rebuild_a_table_that_others_refer_to(tmp_path: Path) -> None:
    rebuild = Migration(
        2,
        "0002_rebuild.sql",
        "CREATE TABLE parent2 (id INTEGER PRIMARY KEY, name TEXT) STRICT;"
        "INSERT INTO parent2 (id) SELECT id FROM parent;"
        "DROP TABLE parent;"
        "ALTER TABLE parent2 RENAME TO parent;",
    )
    async with inline(tmp_path / "db", *MIGRATIONS) as store:
        await store.write(lambda tx: tx.run("INSERT INTO parent (id) VALUES (1)"))
        await store.write(lambda tx: tx.run("INSERT INTO child (id, parent) VALUES (1, 1)"))
    async with inline(tmp_path / "db", *MIGRATIONS, rebuild) as store:
        assert store._writer.connection.pragma("foreign_keys") == 1
        assert store.read(lambda tx: tx.run("SELECT parent FROM child")) == [(1,)]


def test_numbers_have_no_gap() -> None:
    with pytest.raises(ValueError, match="without a gap"):
        ordered([MIGRATIONS[0], Migration(3, "0003_x.sql", "")])


def test_the_shipped_steps_make_a_store_in_which_positions_work(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db", runner=Runner.INLINE)
    assert store.doorbell.position == 0
    store.close()


def test_schema_sql_shows_what_the_shipped_steps_make() -> None:
    """To write it anew: python -m tests.store.engine_schema"""
    assert SCHEMA_FILE.read_text("utf-8") == schema_text(shipped_migrations())


def test_a_schema_without_the_table_of_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreMisuse, match="stream"):
        inline(tmp_path / "db", Migration(1, "0001_x.sql", "CREATE TABLE t (a TEXT) STRICT;"))


# --- files that are not ours


def test_a_database_of_another_program_is_refused_untouched(tmp_path: Path) -> None:
    other = apsw.Connection(str(tmp_path / "db"), vfs="unix")
    other.execute("CREATE TABLE photos (name)").fetchall()
    other.close()
    before = (tmp_path / "db").read_bytes()
    with pytest.raises(NotOurDatabase):
        inline(tmp_path / "db", *MIGRATIONS)
    assert (tmp_path / "db").read_bytes() == before


def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(NotOurDatabase):
        inline(tmp_path / "db", *MIGRATIONS)
    assert (tmp_path / "db").read_bytes() == b"Dear diary, " * 1000


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "db").touch()
    inline(tmp_path / "db", *MIGRATIONS).close()


def test_a_second_process_is_refused_and_harms_nothing_t147(tmp_path: Path) -> None:
    store = inline(tmp_path / "db", *MIGRATIONS)
    program = (
        "import sys\n"
        "from matrixbox.store.database import Store\n"
        "from matrixbox.store.errors import StoreInUse\n"
        "try:\n"
        "    Store.open(sys.argv[1])\n"
        "except StoreInUse:\n"
        "    sys.exit(73)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "db")]
    assert subprocess.run(command, check=False).returncode == 73
    store.close()
    inline(tmp_path / "db", *MIGRATIONS).close()
