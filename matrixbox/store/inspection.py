"""Look at a database file without changing it, for `matrixbox check`.

The caller holds the data folder's lock: no server is running on the file. Nothing is migrated; what
a later start would do is only told.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import apsw
from attrs import frozen

from matrixbox.store.caches import Caches
from matrixbox.store.connection import APPLICATION_ID, Role, connect, locate
from matrixbox.store.errors import StoreError, describe
from matrixbox.store.failures import Failures
from matrixbox.store.migrate import shipped_migrations, version_of
from matrixbox.store.readers import PointReader
from matrixbox.store.transaction import Tx

T = TypeVar("T")
Args = TypeVarTuple("Args")


@frozen
class Inspection:
    """What was found: schema versions of the file and of this program, and what is wrong."""

    version: int
    newest: int
    problems: tuple[str, ...]


def inspect(path: Path) -> Inspection:
    """Read the whole file once and check it; a missing file is version 0 without problems."""
    newest = len(shipped_migrations())
    if not path.exists():
        return Inspection(0, newest, ())
    try:
        connection = connect(locate(path), Role.POINT_READER)
        try:
            return Inspection(version_of(connection), newest, _problems(connection, newest))
        finally:
            connection.close()
    except apsw.Error as error:
        return Inspection(0, newest, (describe(error),))


def _problems(connection: apsw.Connection, newest: int) -> tuple[str, ...]:
    if connection.pragma("application_id") != APPLICATION_ID:
        return ("the file is a database of another program",)
    if version_of(connection) > newest:
        return ("the database was used by a newer release of matrixbox",)
    rows = connection.execute("PRAGMA quick_check(5)").fetchall()
    return tuple(str(row[0]) for row in rows if row[0] != "ok")


def read(path: Path, function: Callable[[Tx, *Args], T], *args: *Args) -> T | None:
    """Run a reading function on a file that is not open; None when it cannot be read."""
    try:
        connection = connect(locate(path), Role.POINT_READER)
    except apsw.Error:
        return None
    reader = PointReader(connection, Failures(lambda error: None), Caches())
    try:
        return reader.read(function, *args)
    except (StoreError, apsw.Error):
        return None
    finally:
        connection.close()
