"""What can go wrong in the store, as types.

Everything that `apsw` raises is translated here, so that no other package knows it. Three
families matter to callers: `StoreFull` (no space: try again later), `StoreFailed` (the database
can no longer be trusted: the process ends) and `ConstraintViolated` (the function's own rows).
"""

from __future__ import annotations

import apsw


class StoreError(Exception):
    """Anything the store refuses or fails at."""


class StoreClosed(StoreError):
    """The store is closing or closed; nothing was written."""


class StoreInUse(StoreError):
    """Another process has this database open (exit code 73 on the command line)."""


class DatabaseTooNew(StoreError):
    """The database was written by a newer release (exit code 65 on the command line)."""


class NotOurDatabase(StoreError):
    """The file is an SQLite database of some other program, or no database at all."""


class MigrationFailed(StoreError):
    """A migration could not be applied; the database is as it was before."""


class StoreFull(StoreError):
    """There is no space on the disk; this function's writes were rolled back."""


class StoreReadOnly(StoreFull):
    """The disk is full and the reserve is spent: no write is tried until there is space."""


class StoreFailed(StoreError):
    """A read, write or sync failed: whether the last writes are durable is unknown."""


class StoreUnreliable(StoreError):
    """The database failed again and again: the disk has to be looked at first."""


class ConstraintViolated(StoreError):
    """A uniqueness, check, not-null or foreign-key rule refused a row."""


class ReadTooLong(StoreError):
    """A query passed its time limit, or a long read outlived its snapshot."""


class StoreMisuse(StoreError):
    """A bug in the caller: a write in a read, a finished transaction, SQL that does not run."""


# The kernel, the card or the file let us down. SQLite would happily carry on after a failed
# sync (the kernel may have dropped the pages), so all of these end the process.
FATAL = (
    apsw.IOError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.CantOpenError,
    apsw.ProtocolError,
    apsw.PermissionsError,
    apsw.FormatError,
)


def is_fatal(error: BaseException) -> bool:
    """Whether `error` means that the database can't be trusted any more (T145, T146)."""
    return isinstance(error, FATAL)


def translate(error: apsw.Error) -> StoreError:
    """The store's own exception for one of apsw's; the text is kept, it holds no row data."""
    if isinstance(error, apsw.FullError):
        return StoreFull("the disk is full")
    if is_fatal(error):
        return StoreFailed(describe(error))
    if isinstance(error, apsw.ConstraintError):
        return ConstraintViolated(str(error))
    if isinstance(error, apsw.InterruptError):
        return ReadTooLong("the query passed its time limit")
    return StoreMisuse(f"{type(error).__name__}: {error}")


def describe(error: BaseException) -> str:
    """One line for the log: kind, SQLite's extended code, text."""
    code = getattr(error, "extendedresult", None)
    return f"{type(error).__name__} ({code}): {error}"
