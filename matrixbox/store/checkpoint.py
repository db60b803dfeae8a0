"""Moving committed pages from the WAL into the database file, and keeping the WAL short.

A checkpoint runs in a thread of its own, on a connection of its own, when the WAL holds more than
16 MiB; commits go on meanwhile. What they add in that time is moved in a second, short step while
the writer pauses: only a WAL that is moved as a whole is started anew, and under steady load it
never would be otherwise. Once a day, and on close, the file is cut to nothing.

A reader's snapshot keeps the WAL from being started anew, and readers that overlap could do so for
ever. So from 64 MiB on new long reads are held until those under way have ended, which takes 30 s
at most, and the WAL is cut; at 128 MiB they are ended at once (T148).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import apsw

from matrixbox.observe import log
from matrixbox.store.errors import is_fatal
from matrixbox.store.failures import Failures
from matrixbox.store.runner import Result, Worker

CHECKPOINT_BYTES = 16 * 1024 * 1024
HOLD_READS_BYTES = 64 * 1024 * 1024
"""Beyond this, new long reads wait until the WAL is cut."""

END_READS_BYTES = 128 * 1024 * 1024
"""Beyond this, long reads are ended: 256 MiB would be an alarm."""

WAL_FILE_LIMIT_BYTES = 32 * 1024 * 1024
"""A longer file is cut to this size when it is started anew."""

TRUNCATE_AFTER_S = 24 * 3600.0
RETRY_TRUNCATE_AFTER_S = 60.0
RETRY_AFTER_BYTES = 4 * 1024 * 1024
"""A checkpoint that could not move everything is tried again after so much more."""

CUT_TRIES, CUT_AGAIN_AFTER_S = 40, 0.005
"""A point read may be under way just when the WAL is to be cut."""


class LongReads(Protocol):
    """What keeps snapshots for long."""

    def hold(self, when_quiet: Callable[[], None]) -> None: ...

    def release(self) -> None: ...

    def end_all(self) -> bool: ...


class Checkpointer:
    """Watches the length of the WAL. Belongs to the Trio thread but for what says otherwise."""

    def __init__(
        self,
        connection: apsw.Connection,
        worker: Worker,
        failures: Failures,
        *,
        pause_writer: Callable[[Callable[[], None], Callable[[], None]], None],
        long_reads: LongReads,
        found_full: Callable[[], None],
        page_size: int,
        start_bytes: int = CHECKPOINT_BYTES,
    ) -> None:
        self.connection = connection
        self._worker = worker
        self._failures = failures
        self._pause_writer = pause_writer
        self._long_reads = long_reads
        self._found_full = found_full
        self._page_size = page_size
        self._start_pages = max(1, start_bytes // page_size)
        self._next_pages = self._start_pages
        self._truncated_at = time.monotonic()
        self._running = False
        self._holding = False
        self.wal_pages = 0

    @property
    def wal_bytes(self) -> int:
        """How much of the WAL is in use."""
        return self.wal_pages * self._page_size

    def wal_hook(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        """SQLite calls this after each commit, in the thread of the commit."""
        self.wal_pages = pages
        return apsw.SQLITE_OK

    def look(self) -> None:
        """Called after each commit: start a checkpoint when it is time."""
        if self.wal_pages < self._start_pages:
            self._next_pages = self._start_pages
        if self.wal_bytes > END_READS_BYTES and self._long_reads.end_all():
            log.warning("WAL is long: long reads ended", wal_bytes=self.wal_bytes)
        if not self._running and (self.wal_pages >= self._next_pages or self._is_due()):
            self._running = True
            self._worker.submit(self._move, self._moved)

    def _is_due(self) -> bool:
        return time.monotonic() > self._truncated_at + TRUNCATE_AFTER_S

    def _move(self) -> None:
        """In the checkpointer's thread, beside commits."""
        self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _moved(self, result: Result[None]) -> None:
        if self._note(result.error):
            self._done()
        elif self.wal_bytes > HOLD_READS_BYTES and not self._holding:
            # Once there are no snapshots any more, move what came meanwhile, and cut.
            self._holding = True
            self._long_reads.hold(lambda: self._worker.submit(self._move, self._moved))
        else:
            self._pause_writer(self._finish, self._done)

    def _finish(self) -> None:
        """In the writer's thread, between two transactions: the rest, which is short."""
        try:
            if self._holding or self._is_due():
                self._cut()
            else:
                self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            self._note(error)

    def _cut(self) -> None:
        for _ in range(CUT_TRIES if self._holding else 1):
            try:
                self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.BusyError:
                # Somebody has a snapshot: all is moved, and the file is cut another time.
                self._truncated_at = time.monotonic() - TRUNCATE_AFTER_S + RETRY_TRUNCATE_AFTER_S
                time.sleep(CUT_AGAIN_AFTER_S)
            else:
                self._truncated_at = time.monotonic()
                self.wal_pages = 0
                return

    def _done(self) -> None:
        self._next_pages = max(
            self._start_pages, self.wal_pages + RETRY_AFTER_BYTES // self._page_size
        )
        self._running = False
        if self._holding:
            self._holding = False
            self._long_reads.release()

    def _note(self, error: BaseException | None) -> bool:
        """Deal with an error; returns whether there was one."""
        if error is None:
            return False
        if isinstance(error, apsw.FullError):
            self._found_full()
        elif is_fatal(error):
            self._failures.report(error)
        else:
            log.bug("checkpoint failed", error)
        return True
