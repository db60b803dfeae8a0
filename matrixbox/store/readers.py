"""Reading: points in the Trio thread, whole functions elsewhere for what takes long.

A point read costs a few microseconds where a thread hop costs a hundred. Each read, of whichever
kind, sees one snapshot: what is committed when its first statement runs. A write that is under way
is not seen. Statements are interrupted after 5 s (T079), and a long read ends after 30 s, because
the WAL can't be reset while its snapshot is in use (T148).
"""

from __future__ import annotations

import functools
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple, cast

import apsw
import trio

from matrixbox.store.caches import Caches
from matrixbox.store.errors import ReadTooLong, StoreClosed, StoreMisuse, translate
from matrixbox.store.failures import Failures
from matrixbox.store.runner import Gate, Result, run
from matrixbox.store.transaction import OVER, Tx

T = TypeVar("T")
Args = TypeVarTuple("Args")

STATEMENT_LIMIT_S = 5.0
LONG_READ_LIMIT_S = 30.0
LONG_READERS = 2
OPCODES_BETWEEN_LOOKS = 50_000
"""SQLite runs 20 to 100 million opcodes a second: a look at the clock every 0.5 to 2.5 ms."""


class PointReader:
    """Reads in the Trio thread, on a connection of its own."""

    def __init__(self, connection: apsw.Connection, failures: Failures, caches: Caches) -> None:
        self.connection = connection
        self._cursor = connection.cursor()
        self._tx = Tx(connection, self._cursor, failures, caches)
        self._reading = False
        self._deadline = 0.0
        connection.set_progress_handler(self._too_long, OPCODES_BETWEEN_LOOKS)

    def read(self, function: Callable[[Tx, *Args], T], *args: *Args) -> T:
        """Run a function on one snapshot; a read inside a read shares its snapshot."""
        if self._reading:
            return function(self._tx, *args)
        self._deadline = time.monotonic() + STATEMENT_LIMIT_S
        self._tx.run("BEGIN")
        self._reading = True
        try:
            return function(self._tx, *args)
        finally:
            self._reading = False
            if not self.connection.get_autocommit():
                self._tx.run("COMMIT")

    def _too_long(self) -> bool:
        return time.monotonic() > self._deadline


class _LongRead:
    """One long read under way, and the clock over it. Its own cursor, as far as `Tx` can tell."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.function = function
        self.args = args
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        self.context = self.task.context.copy()
        self.result: Result[Any] = Result()
        self.ends_at = math.inf
        self._statement_ends_at = 0.0
        self._cursor: apsw.Cursor | None = None

    def run(self, connection: apsw.Connection, failures: Failures) -> None:
        """In the reader's thread: the whole function on one snapshot."""
        self.result = run(functools.partial(self._read, connection, failures))

    def _read(self, connection: apsw.Connection, failures: Failures) -> Any:
        self._cursor = connection.cursor()
        self.ends_at = min(self.ends_at, time.monotonic() + LONG_READ_LIMIT_S)
        connection.set_progress_handler(self._too_long, OPCODES_BETWEEN_LOOKS)
        # Private caches: those of the store belong to the Trio thread, and know later commits.
        tx = Tx(connection, self, failures, Caches())
        tx.run("BEGIN")
        try:
            return self.context.run(self.function, tx, *self.args)
        finally:
            tx._cursor = OVER
            if not connection.get_autocommit():
                self._cursor.execute("COMMIT")

    def execute(self, sql: str, bindings: Any = None, /) -> apsw.Cursor:
        """As apsw's cursors do it, within the time left."""
        now = time.monotonic()
        if now > self.ends_at or self.task is None:
            raise ReadTooLong(f"a long read passed its limit of {LONG_READ_LIMIT_S:g} s")
        self._statement_ends_at = now + STATEMENT_LIMIT_S
        assert self._cursor is not None
        return self._cursor.execute(sql, bindings)

    def executemany(self, sql: str, bindings: Any, /) -> apsw.Cursor:
        """Only for writes, which a read refuses."""
        raise StoreMisuse("a read changes nothing")

    def _too_long(self) -> bool:
        now = time.monotonic()
        return now > self.ends_at or now > self._statement_ends_at or self.task is None


class LongReaders:
    """A few threads, each with a connection, started when first needed."""

    def __init__(
        self,
        connect: Callable[[], apsw.Connection],
        gate: Gate,
        failures: Failures,
        threads: int = LONG_READERS,
    ) -> None:
        self._connect = connect
        self._gate = gate
        self._failures = failures
        self._most_threads = threads
        self._threads: list[threading.Thread] = []
        self._jobs: queue.SimpleQueue[_LongRead | None] = queue.SimpleQueue()
        self._under_way: set[_LongRead] = set()  # given to the threads and not answered
        self._held: deque[_LongRead] = deque()
        self._when_quiet: Callable[[], None] | None = None
        self._holding = False
        self._closed = False

    async def read(self, function: Callable[[Tx, *Args], T], *args: *Args) -> T:
        """Run a function on one snapshot in a thread. A cancelled caller doesn't wait for it."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise StoreClosed("the store is closed")
        job = _LongRead(function, args)
        if self._holding:
            self._held.append(job)
        else:
            self._give(job)

        def give_up(_: object) -> trio.lowlevel.Abort:
            job.task = None  # interrupts it
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)
        if job.result.error is not None:
            raise job.result.error
        return cast(T, job.result.value)

    def hold(self, when_quiet: Callable[[], None]) -> None:
        """Let new reads wait; call `when_quiet` once, when those under way have ended."""
        self._holding = True
        self._when_quiet = when_quiet
        self._look_if_quiet()

    def release(self) -> None:
        """Let the reads run that had to wait."""
        self._holding = False
        while self._held:
            self._give(self._held.popleft())

    def end_all(self) -> bool:
        """Interrupt the reads under way; returns whether there was one not ended before."""
        now = time.monotonic()
        going_on = [job for job in self._under_way if job.ends_at > now]
        for job in going_on:
            job.ends_at = now
        return bool(going_on)

    def close(self) -> None:
        """End all reads, and wait for the threads."""
        self._closed = True
        self._when_quiet = None
        self.release()
        self.end_all()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _give(self, job: _LongRead) -> None:
        self._under_way.add(job)
        if len(self._threads) < min(self._most_threads, len(self._under_way)):
            self._start_thread()
        self._jobs.put(job)

    def _look_if_quiet(self) -> None:
        if self._when_quiet is not None and not self._under_way:
            call, self._when_quiet = self._when_quiet, None
            call()

    def _start_thread(self) -> None:
        name = f"store.read {len(self._threads) + 1}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        connection: apsw.Connection | None = None
        while (job := self._jobs.get()) is not None:
            if job.task is not None:
                try:
                    connection = connection or self._connect()
                except apsw.Error as error:
                    self._failures.report(error)
                    job.result = Result(error=translate(error))
                else:
                    job.run(connection, self._failures)
            self._gate.post(functools.partial(self._answer, job))
        if connection is not None:
            self._failures.close(connection)

    def _answer(self, job: _LongRead) -> None:
        self._under_way.discard(job)
        if job.task is not None:
            trio.lowlevel.reschedule(job.task)
        self._look_if_quiet()
