"""Numbered migrations, forward only, each in one transaction.

A database carries its version in `PRAGMA user_version`, written in the transaction of the step:
after a crash it is wholly at one version (T157). A newer database is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files

import apsw
from attrs import frozen

from matrixbox.observe import log
from matrixbox.store.connection import APPLICATION_ID
from matrixbox.store.errors import DatabaseTooNew, MigrationFailed, StoreFull, is_fatal

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@frozen
class Migration:
    """One step: its number, its file name, and its statements."""

    number: int
    name: str
    sql: str


def shipped_migrations() -> tuple[Migration, ...]:
    """The steps that come with this release, in order: 1, 2, 3 … without a gap."""
    steps = []
    for file in files("matrixbox.store").joinpath("migrations").iterdir():
        match = _NAME.fullmatch(file.name)
        if match:
            steps.append(Migration(int(match[1]), file.name, file.read_text("utf-8")))
    return ordered(steps)


def ordered(steps: Sequence[Migration]) -> tuple[Migration, ...]:
    """The steps by number; they must be 1, 2, 3 …"""
    result = tuple(sorted(steps, key=lambda step: step.number))
    if [step.number for step in result] != list(range(1, len(result) + 1)):
        raise ValueError("migrations must be numbered 1, 2, 3 … without a gap")
    return result


def version_of(connection: apsw.Connection) -> int:
    """How many steps the database has had."""
    version = connection.pragma("user_version")
    assert isinstance(version, int)
    return version


def migrate(connection: apsw.Connection, steps: Sequence[Migration]) -> int:
    """Apply what is missing; returns the number of steps applied.

    Raises DatabaseTooNew, MigrationFailed, StoreFull; I/O errors come as apsw's.
    """
    version = version_of(connection)
    if version > len(steps):
        raise DatabaseTooNew(
            f"the database is of version {version}, this program knows up to {len(steps)}:"
            " it was used by a newer release"
        )
    missing = steps[version:]
    if not missing:
        return 0
    # A step may rebuild tables; references are checked as a whole before its commit.
    connection.pragma("foreign_keys", False)
    try:
        for step in missing:
            _apply(connection, step)
            log.info("database upgraded", step=step.name)
    finally:
        connection.pragma("foreign_keys", True)
    return len(missing)


def _apply(connection: apsw.Connection, step: Migration) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(step.sql).fetchall()
        if connection.get_autocommit():
            raise MigrationFailed(f"{step.name} ends its own transaction")
        if connection.execute("PRAGMA foreign_key_check").fetchall():
            raise MigrationFailed(f"{step.name} leaves rows without what they refer to")
        connection.pragma("user_version", step.number)
        connection.pragma("application_id", APPLICATION_ID)
        connection.execute("COMMIT")
    except BaseException as error:
        if not connection.get_autocommit():
            connection.execute("ROLLBACK")
        if isinstance(error, apsw.FullError):
            raise StoreFull(f"no space for {step.name}") from error
        if isinstance(error, apsw.Error) and not is_fatal(error):
            raise MigrationFailed(f"{step.name}: {error}") from error
        raise
