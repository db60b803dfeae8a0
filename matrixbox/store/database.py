"""`Store`: one SQLite file, one writer, a few readers, a doorbell.

    async with Store.open(path) as store:
        pos = await store.write(accept_own, room, event)     # durable when it returns
        rows = store.read(events_after, room, pos)           # microseconds, in the Trio thread
        page = await store.read_long(whole_history, room)    # in a thread, one snapshot
        await store.doorbell.beyond(pos, keys)               # until there is news

Functions given to it are synchronous and take a `Tx` first. The four ways in belong to the Trio
thread. `Runner.INLINE` does the same without threads, for tests and simulation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple

import apsw
import trio
from attrs import frozen

from matrixbox.store.caches import Caches
from matrixbox.store.changes import Doorbell, StreamPos
from matrixbox.store.checkpoint import CHECKPOINT_BYTES, WAL_FILE_LIMIT_BYTES, Checkpointer
from matrixbox.store.connection import (
    BASE_VFS,
    Location,
    Role,
    connect,
    locate,
    open_writer,
)
from matrixbox.store.errors import StoreMisuse, is_fatal, translate
from matrixbox.store.failures import Failures, OnFatal, end_process
from matrixbox.store.migrate import Migration, migrate, shipped_migrations
from matrixbox.store.positions import StreamPositions
from matrixbox.store.readers import LongReaders, PointReader
from matrixbox.store.recovery import FailureRecord, check, must_check
from matrixbox.store.runner import Gate, InlineWorker, Runner, ThreadWorker, Worker
from matrixbox.store.space import RESERVE_BYTES, DiskSpace, Space
from matrixbox.store.transaction import Tx
from matrixbox.store.writer import Mode, Writer

T = TypeVar("T")
Args = TypeVarTuple("Args")

PAGE_SIZE = 1024
"""Bytes. A commit writes every page that it touches, and the rows of ours are small, so small pages
spare the card. Handed to the kernel for one message, checkpoints included, in a database of 20,000
and of 100,000 events: 17.8 and 23.0 KiB with pages of 1,024 bytes, 22.6 and 26.8 with 2,048, 33 and
37 with 4,096, 64 with 8,192. In processor time, bytes per event and warm reads they differ by less
than a tenth."""


@frozen
class Tuning:
    """What tests, harnesses and measurements set differently."""

    page_size: int = PAGE_SIZE
    synchronous: str = "FULL"
    reserve_bytes: int = RESERVE_BYTES
    checkpoint_bytes: int = CHECKPOINT_BYTES
    base_vfs: str = BASE_VFS
    free_bytes: Callable[[], int] | None = None


class Store:
    """The open database. Made by `Store.open`; closed by `close`, or as an async context."""

    def __init__(
        self,
        location: Location,
        writing: apsw.Connection,
        runner: Runner,
        failures: Failures,
        tuning: Tuning,
    ) -> None:
        self.caches = Caches()
        self._failures = failures
        self._runner = runner
        self._positions = StreamPositions(writing)
        self.doorbell = Doorbell(StreamPos(self._positions.last))
        file = None if location.in_memory else Path(location.filename)
        self._space = DiskSpace(file, tuning.reserve_bytes, tuning.free_bytes)
        self._gate = Gate()
        self._worker: Worker = self._new_worker("store.commit")
        self._checkpoint_worker: Worker = self._new_worker("store.checkpoint")
        self._writer = Writer(
            writing,
            self._worker,
            failures=failures,
            space=self._space,
            caches=self.caches,
            doorbell=self.doorbell,
            positions=self._positions,
        )
        self._points = PointReader(connect(location, Role.POINT_READER), failures, self.caches)
        self._long = LongReaders(lambda: connect(location, Role.LONG_READER), self._gate, failures)
        self._checkpointer: Checkpointer | None = None
        if not location.in_memory:
            self._checkpointer = Checkpointer(
                connect(location, Role.CHECKPOINTER),
                self._checkpoint_worker,
                failures,
                pause_writer=self._writer.post,
                long_reads=self._long,
                found_full=self._space.found_full,
                page_size=tuning.page_size,
                start_bytes=tuning.checkpoint_bytes,
            )
            writing.set_wal_hook(self._checkpointer.wal_hook)
            self._writer.after_each_commit = self._checkpointer.look
        self._closed = False

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        runner: Runner = Runner.THREADS,
        migrations: Sequence[Migration] | None = None,
        on_fatal: OnFatal = end_process,
        tuning: Tuning = Tuning(),
    ) -> Store:
        """Open the database, create it if there is none, and bring it up to this release.

        `":memory:"` is a new database in memory (inline runner only). `on_fatal` is called when a
        read, write or sync fails; by default it ends the process with exit code 70.

        Raises StoreInUse, NotOurDatabase, DatabaseTooNew, MigrationFailed, StoreFull,
        StoreUnreliable.
        """
        location = locate(path, tuning.base_vfs)
        if location.in_memory and runner is not Runner.INLINE:
            raise StoreMisuse("a database in memory needs the inline runner")
        file = Path(location.filename)
        record = None if location.in_memory else FailureRecord(file)
        if record is not None:
            record.refuse_if_repeated()
        doubtful = record is not None and must_check(record, file)
        failures = Failures(on_fatal, record)
        steps = shipped_migrations() if migrations is None else migrations
        try:
            writing = open_writer(
                location,
                page_size=tuning.page_size,
                synchronous=tuning.synchronous,
                wal_limit_bytes=WAL_FILE_LIMIT_BYTES,
            )
            try:
                if record is not None and doubtful:
                    check(writing)
                    record.forget_old()
                migrate(writing, steps)
                return cls(location, writing, runner, failures, tuning)
            except BaseException:
                writing.close()
                raise
        except apsw.Error as error:
            if is_fatal(error):
                failures.report(error)
            raise translate(error) from error

    async def write(
        self,
        function: Callable[[Tx, *Args], T],
        *args: *Args,
        heavy: bool = False,
    ) -> T:
        """Run a transaction function and return what it returned, once it is on the disk.

        What it raises is raised here, and leaves no trace in the database. A cancelled caller
        either cancels before the function runs, or waits for its commit. `heavy` runs all of it
        in the writer's thread: for functions that take over about 10 ms.

        Raises StoreFull when there is no space, StoreClosed, ConstraintViolated, StoreMisuse.
        """
        if self._runner is Runner.THREADS:
            self._gate.enter()
        mode = Mode.HEAVY if heavy else Mode.GROUPED
        return await self._writer.submit(mode, function, args)

    def read(self, function: Callable[[Tx, *Args], T], *args: *Args) -> T:
        """Run a short reading function at once, on one snapshot of what is committed.

        Raises ReadTooLong after 5 s, StoreMisuse for a write or inside a transaction function.
        """
        if self._writer.running:
            raise StoreMisuse("a read inside a write would not see what that has written")
        return self._points.read(function, *args)

    async def read_long(self, function: Callable[[Tx, *Args], T], *args: *Args) -> T:
        """Run a reading function in a thread, on one snapshot, for at most 30 s.

        A cancelled caller does not wait for it. Raises ReadTooLong.
        """
        if self._runner is Runner.INLINE:
            await trio.lowlevel.checkpoint()
            return self.read(function, *args)
        self._gate.enter()
        return await self._long.read(function, *args)

    @property
    def space(self) -> Space:
        """Whether there is room for writing."""
        return self._space.state

    @property
    def wal_bytes(self) -> int:
        """The length of the WAL that is in use (T148)."""
        return 0 if self._checkpointer is None else self._checkpointer.wal_bytes

    async def aclose(self) -> None:
        """Finish what is under way, then close."""
        await self._writer.drain()
        self.close()

    def close(self) -> None:
        """Close, with everything in the database file and no WAL.

        For when no task waits for a write any more; `aclose` waits for them.
        """
        if self._closed:
            return
        self._closed = True
        self._writer.refuse()
        self._long.close()
        self._checkpoint_worker.stop()
        self._worker.stop()
        self._gate.close()  # also hears of what the threads were at: a read, a checkpoint
        self._failures.close(self._points.connection)
        if self._checkpointer is not None:
            self._failures.close(self._checkpointer.connection)
        self._writer.close()  # last: the last connection removes the WAL

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _new_worker(self, name: str) -> Worker:
        if self._runner is Runner.INLINE:
            return InlineWorker()
        return ThreadWorker(self._gate, name)
