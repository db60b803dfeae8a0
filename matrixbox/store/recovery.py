"""Starting after a failure: look at the database first, and give up when the disk goes on failing.

A failure leaves a line in a file beside the database. The next start then checks the whole database
before anybody is served; after a mere crash or power cut, which the WAL is made for, only a small
one is checked, so that a start takes seconds. A second failure within ten minutes means a dying
card: the server refuses to start, until the owner has seen to it or ten minutes have passed (T145).
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import apsw

from matrixbox.observe import log
from matrixbox.store.errors import StoreUnreliable, describe

AGAIN_WITHIN_S = 600.0
CHECKED_AFTER_CRASH_BYTES = 32 * 1024 * 1024
KEPT_LINES = 100


class FailureRecord:
    """The file that tells of failures: one line each, with seconds since 1970 first."""

    def __init__(self, database: Path) -> None:
        self._file = database.with_name(database.name + "-failures")

    def add(self, error: BaseException) -> None:
        """Write a line; the disk may well refuse, which changes nothing."""
        line = f"{time.time():.0f} {describe(error)}\n"
        with contextlib.suppress(OSError), self._file.open("a", encoding="utf-8") as file:
            file.write(line)

    def times(self) -> list[float]:
        """When it failed, oldest first."""
        try:
            lines = self._file.read_text("utf-8", errors="replace").splitlines()
        except OSError:
            return []
        times = []
        for line in lines[-KEPT_LINES:]:
            with contextlib.suppress(ValueError):  # a line that was cut short
                times.append(float(line.partition(" ")[0]))
        return times

    def refuse_if_repeated(self) -> None:
        """Raise StoreUnreliable after two failures in a short time, both of them recent."""
        times = self.times()
        now = time.time()
        if len(times) >= 2 and abs(now - times[-2]) < AGAIN_WITHIN_S:
            raise StoreUnreliable(
                "reading or writing the database failed twice within ten minutes. The disk or card"
                f" is probably dying: copy the data folder to another one. {self._file.name} in it"
                " tells what failed; without that file, or in ten minutes, the server tries again"
            )

    def forget_old(self) -> None:
        """After a check that found nothing: remove the file, unless its last line is recent."""
        times = self.times()
        if times and abs(time.time() - times[-1]) >= AGAIN_WITHIN_S:
            with contextlib.suppress(OSError):  # then the next start checks again
                self._file.unlink()


def must_check(record: FailureRecord, database: Path) -> bool:
    """Whether the last run ended in a way that makes a check worth its time. Asked before the
    database is opened."""
    if record.times():
        return True
    wal = database.with_name(database.name + "-wal")
    try:
        crashed = wal.stat().st_size > 0  # an orderly close removes it
        return crashed and database.stat().st_size <= CHECKED_AFTER_CRASH_BYTES
    except FileNotFoundError:
        return False


def check(connection: apsw.Connection) -> None:
    """Read every page, and raise apsw's CorruptError or IOError if something is wrong."""
    started = time.monotonic()
    found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(5)")]
    if found != ["ok"]:
        raise apsw.CorruptError("; ".join(found))
    log.info("database checked", seconds=round(time.monotonic() - started, 2))
