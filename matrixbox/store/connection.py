"""Opening SQLite: where the file lies, how it is laid out, and what each connection may do.

WAL with `synchronous=FULL`, so that an answer means durable. Two layers under SQLite:

- `unix-excl`: the file is locked for this process alone as long as it is open (a second process
  is refused, T147), and the WAL index lives in memory, without a system call per read;
- the checksum VFS that ships with apsw: 8 bytes of every page hold a checksum, verified at each
  read of a page, so that a flipped bit is an I/O error and not an answer (T146).
"""

from __future__ import annotations

import itertools
import os
from enum import Enum
from typing import Final

import apsw
import apsw.sqlite_extra
from attrs import frozen

from matrixbox.store.errors import NotOurDatabase, StoreInUse, StoreMisuse

APPLICATION_ID: Final = 0x6D627831
"""Marks our files in the SQLite header ("mbx1")."""

BASE_VFS: Final = "unix-excl"
CHECKSUM_VFS: Final = "cksmvfs"
CHECKSUM_BYTES: Final = 8
STATEMENTS_CACHED: Final = 1_024

_memory_names = itertools.count(1)
_checksums_over: str | None = None


class Role(Enum):
    """What a connection is for; the value is its page cache in KiB."""

    WRITER = 16_384
    POINT_READER = 8_192
    LONG_READER = 4_096
    CHECKPOINTER = 64


@frozen
class Location:
    """Where SQLite finds the database."""

    filename: str
    vfs: str | None
    in_memory: bool


def locate(path: str | os.PathLike[str], base_vfs: str = BASE_VFS) -> Location:
    """The location of a path; ":memory:" is a new database in memory, for tests."""
    name = os.fspath(path)
    if name == ":memory:":
        unique = f"file:/matrixbox-{os.getpid()}-{next(_memory_names)}?vfs=memdb"
        return Location(unique, None, in_memory=True)
    return Location(os.path.abspath(name), _checksums(base_vfs), in_memory=False)


def _checksums(base_vfs: str) -> str:
    """Put the checksum VFS over `base_vfs` and return its name."""
    global _checksums_over  # noqa: PLW0603 (SQLite's registry of VFSes is global to the process)
    if _checksums_over is None:
        # The extension takes what is the default while it is loaded as its base, and makes itself
        # the default. It does so once in a process: loading it again changes nothing.
        apsw.set_default_vfs(base_vfs)
        loader = apsw.Connection(":memory:")
        apsw.sqlite_extra.load(loader, "cksumvfs")
        loader.close()
        apsw.set_default_vfs("unix")
        _checksums_over = base_vfs
    if _checksums_over != base_vfs:
        raise StoreMisuse(f"in this process, checksums lie over {_checksums_over}")
    return CHECKSUM_VFS


def connect(location: Location, role: Role) -> apsw.Connection:
    """A connection with the settings that all of ours share. Raises apsw's errors."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
    if role is Role.WRITER:
        flags |= apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection(
        location.filename, flags=flags, vfs=location.vfs, statementcachesize=STATEMENTS_CACHED
    )
    try:
        connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
        connection.pragma("trusted_schema", False)
        connection.pragma("temp_store", "MEMORY")  # never a temporary file: it could fail, or leak
        connection.pragma("mmap_size", 0)
        connection.pragma("cache_size", -role.value)
        if role in (Role.POINT_READER, Role.LONG_READER):
            connection.pragma("query_only", True)
    except BaseException:
        connection.close()
        raise
    return connection


def open_writer(
    location: Location, *, page_size: int, synchronous: str, wal_limit_bytes: int
) -> apsw.Connection:
    """The one writing connection. Creates the file, or checks that it is one of ours.

    Raises StoreInUse, NotOurDatabase, and apsw's errors.
    """
    connection: apsw.Connection | None = None
    try:
        connection = connect(location, Role.WRITER)
        # On an empty file both take effect with the first page; later they change nothing.
        connection.pragma("page_size", page_size)
        if not location.in_memory and connection.pragma("page_count") == 0:
            connection.reserve_bytes(reserve=CHECKSUM_BYTES)
        known = connection.pragma("application_id")
        if known != APPLICATION_ID and connection.execute("SELECT 1 FROM sqlite_schema").fetchall():
            raise NotOurDatabase("the file is a database of another program")
        if not location.in_memory:
            connection.pragma("journal_mode", "WAL")
        connection.pragma("synchronous", synchronous)
        connection.pragma("foreign_keys", True)
        connection.pragma("secure_delete", True)
        connection.pragma("journal_size_limit", wal_limit_bytes)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.wal_autocheckpoint(0)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, apsw.BusyError):
            raise StoreInUse("another process has the database open") from error
        if isinstance(error, apsw.NotADBError):
            raise NotOurDatabase("the file is not a database") from error
        raise
    return connection
