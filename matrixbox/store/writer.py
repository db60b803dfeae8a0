"""The one writer: transaction functions in groups, one sync for all of a group.

Functions run in the Trio thread, each in a savepoint of one open transaction (a statement costs
microseconds, a thread hop a hundred). COMMIT, which waits for the disk, runs in the writer's
thread; what is asked meanwhile forms the next group. A function that fails is rolled back alone.
Everybody else is answered after the sync, in this order: caches are updated (`Tx.after_commit`),
the doorbell rings, the callers are woken; nothing else runs in between.

A caller that is cancelled before its function was queued writes nothing. After that it waits,
whatever happens, and is cancelled at its next checkpoint: its write is whole, or not there (T143).
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar, cast

import apsw
import trio

from matrixbox.observe import log
from matrixbox.store.caches import Caches
from matrixbox.store.changes import Change, Doorbell, StreamPos
from matrixbox.store.errors import (
    ConstraintViolated,
    StoreClosed,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreMisuse,
    is_fatal,
    translate,
)
from matrixbox.store.failures import Failures
from matrixbox.store.positions import Mark, StreamPositions
from matrixbox.store.runner import Result, Worker
from matrixbox.store.space import DiskSpace
from matrixbox.store.transaction import OVER, Tx

T = TypeVar("T")

GROUP_TIME_S = 0.010
"""How long the functions of a group may take together before the group is closed: they run in the
Trio thread one after the other (T079)."""


class Mode(Enum):
    """How a job runs."""

    GROUPED = "in the Trio thread, in a savepoint"
    HEAVY = "in the writer's thread, a transaction of its own"
    ALONE = "in the writer's thread, without a transaction"


class _Job:
    __slots__ = (
        "args",
        "context",
        "done",
        "error",
        "finished",
        "function",
        "mode",
        "task",
        "tx",
        "value",
    )

    def __init__(self, mode: Mode, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.mode = mode
        self.function = function
        self.args = args
        self.context = contextvars.copy_context()  # log lines keep their request id
        self.task: trio.lowlevel.Task | None = None
        self.tx: Tx | None = None
        self.done: Callable[[], None] | None = None
        self.finished = False
        self.value: Any = None
        self.error: BaseException | None = None

    def answer(self, error: BaseException | None = None) -> None:
        """Finish, and wake the caller if it sleeps already."""
        self.finished = True
        self.error = error
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
        if self.done is not None:
            self.done()


class Writer:
    """Owns the writing connection. Everything but what `_in_worker` names is the Trio thread's."""

    def __init__(
        self,
        connection: apsw.Connection,
        worker: Worker,
        *,
        failures: Failures,
        space: DiskSpace,
        caches: Caches,
        doorbell: Doorbell,
        positions: StreamPositions,
    ) -> None:
        self.connection = connection
        self._cursor = connection.cursor()
        self._worker = worker
        self._failures = failures
        self._space = space
        self._caches = caches
        self._doorbell = doorbell
        self._positions = positions
        self._queue: deque[_Job] = deque()
        self._busy = False  # the worker has the connection
        self._advancing = False
        self._closing = False
        self._idle = trio.Event()
        self.running = False  # a transaction function runs in the Trio thread just now
        self.after_each_commit: Callable[[], None] = _nothing

    @trio.lowlevel.enable_ki_protection  # a Ctrl-C must not stop it half way through a group
    async def submit(self, mode: Mode, function: Callable[..., T], args: tuple[Any, ...] = ()) -> T:
        """Run a function and return what it returned, after the sync. Raises what it raised."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closing:
            raise StoreClosed("the store is closed")
        self._failures.check()
        job = _Job(mode, function, args)
        self._queue.append(job)
        self._advance()
        if job.finished:
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            job.task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(_not_now)
        if job.error is not None:
            try:
                raise job.error
            finally:
                del job  # the traceback would hold the job that holds the error
        return cast(T, job.value)

    def post(self, function: Callable[[], None], done: Callable[[], None]) -> None:
        """Queue a function to run alone in the worker; then `done` is called in the Trio thread.

        Dropped when the store is closing or has failed.
        """
        if not self._closing and self._failures.first is None:
            job = _Job(Mode.ALONE, function, ())
            job.done = done
            self._queue.append(job)
            self._advance()

    def refuse(self) -> None:
        """Take no new work from now on."""
        self._closing = True

    async def drain(self) -> None:
        """Refuse new work, and wait until what is queued is done. Not cancellable."""
        self.refuse()
        if self._busy or self._queue:
            with trio.CancelScope(shield=True):
                await self._idle.wait()

    def close(self) -> None:
        """Everything into the database file, and no WAL. Nothing may be under way."""
        if self._busy or self._queue:
            raise StoreMisuse("closed with a write under way")
        connection = self.connection
        if self._failures.first is not None:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        else:
            try:
                self._positions.give_back()
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.FullError:
                log.warning("disk full: closed without a checkpoint")
            except apsw.Error as error:
                self._failures.report(error)
        self._failures.close(connection)

    def _advance(self) -> None:
        """Start what waits, until the worker is busy. Entered again from an inline worker."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._queue and not self._busy:
                self._start_next()
        finally:
            self._advancing = False
        if self._closing and not self._busy:
            self._idle.set()

    def _start_next(self) -> None:
        job = self._queue[0]
        if job.mode is Mode.ALONE:
            self._queue.popleft()
            self._hand_over(functools.partial(self._alone_in_worker, job), [job], None)
            return
        try:
            self._failures.check()
            self._space.check()
        except StoreError as error:
            self._queue.popleft()
            job.answer(error)
            return
        mark = self._positions.mark()
        if job.mode is Mode.HEAVY:
            self._queue.popleft()
            self._hand_over(functools.partial(self._heavy_in_worker, job), [job], mark)
            return
        group = self._run_group(mark)
        if group:
            self._hand_over(self._commit_in_worker, group, mark)
        else:
            self._undo("ROLLBACK")  # every function failed: nothing to make durable

    def _hand_over(
        self, function: Callable[[], None], group: list[_Job], mark: Mark | None
    ) -> None:
        self._busy = True
        self._worker.submit(function, functools.partial(self._finish, group, mark))

    # --- a group, in the Trio thread

    def _run_group(self, start: Mark) -> list[_Job]:
        """Run queued functions in one transaction; returns those to be committed."""
        group: list[_Job] = []
        close_at = time.monotonic() + GROUP_TIME_S
        queue = self._queue
        while queue and queue[0].mode is Mode.GROUPED:
            job = queue.popleft()
            failure = self._run_in_savepoint(job, alone=not group)
            if failure is None:
                group.append(job)
            else:
                job.answer(failure)
                if group and (self._failures.first or self.connection.get_autocommit()):
                    # The disk failed, or SQLite gave up the whole transaction by itself.
                    self._positions.rewind(start)
                    self._lose(group, failure)
                    return []
            if time.monotonic() > close_at:
                break
        return group

    def _run_in_savepoint(self, job: _Job, *, alone: bool) -> BaseException | None:
        """Run one function; returns why it was rolled back, or None.

        The first function of a transaction needs no savepoint: it is rolled back as a whole. A
        savepoint would copy every page that it changes.
        """
        mark = self._positions.mark()
        execute = self._cursor.execute
        try:
            execute("BEGIN IMMEDIATE" if alone else "SAVEPOINT one")
            tx = Tx(self.connection, self._cursor, self._failures, self._caches, self._positions)
            job.tx = tx
            self.running = True
            try:
                job.value = job.context.run(job.function, tx, *job.args)
                self._check_finished(tx, job)
            finally:
                self.running = False
                tx._cursor = OVER
            if not alone:
                execute("RELEASE one")
        except BaseException as error:  # noqa: BLE001 (it is the caller's, and raised there)
            failure = self._own(error)
            self._positions.rewind(mark)
            if alone:
                self._undo("ROLLBACK")
            else:
                self._undo("ROLLBACK TO one", "RELEASE one")
            return failure
        return None

    def _undo(self, *statements: str) -> None:
        """Roll back what is still open. From the thread that has the connection."""
        try:
            if not self.connection.get_autocommit():
                for statement in statements:
                    self._cursor.execute(statement)
        except apsw.Error as error:
            self._failures.report(error)

    def _check_finished(self, tx: Tx, job: _Job) -> None:
        """Refuse to commit what can't be committed, while it is still clear whose fault it is."""
        if tx._lost is not None:
            raise tx._lost  # the function went on after it
        if self.connection.get_autocommit():
            raise StoreMisuse("a transaction function must not end the transaction")
        if self.connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
            raise ConstraintViolated("FOREIGN KEY constraint failed (deferred)")
        if inspect.iscoroutine(job.value):
            job.value.close()
            raise StoreMisuse("a transaction function must not be async")

    def _own(self, error: BaseException) -> BaseException:
        """The error as the caller sees it; apsw's own get this far from our own statements."""
        if isinstance(error, apsw.Error):
            if is_fatal(error):
                self._failures.report(error)
            translated = translate(error)
            translated.__cause__ = error
            error = translated
        if isinstance(error, StoreFull):
            self._space.found_full()
        return error

    # --- in the worker

    def _commit_in_worker(self) -> None:
        try:
            self._cursor.execute("COMMIT")
        except BaseException as error:
            self._undo_in_worker(error)
            raise

    def _heavy_in_worker(self, job: _Job) -> None:
        execute = self._cursor.execute
        try:
            execute("BEGIN IMMEDIATE")
            # Private caches: those of the store belong to the Trio thread.
            tx = Tx(self.connection, self._cursor, self._failures, Caches(), self._positions)
            job.tx = tx
            try:
                job.value = job.context.run(job.function, tx, *job.args)
                self._check_finished(tx, job)
            finally:
                tx._cursor = OVER
            execute("COMMIT")
        except BaseException as error:
            self._undo_in_worker(error)
            raise

    def _alone_in_worker(self, job: _Job) -> None:
        try:
            job.value = job.function(*job.args)
        except apsw.Error as error:
            if is_fatal(error):
                self._failures.report(error)
            raise

    def _undo_in_worker(self, error: BaseException) -> None:
        """Roll back, or end the process if that or what came before it shows a failing disk."""
        expected = (apsw.FullError, apsw.NoMemError, apsw.ConstraintError)
        if isinstance(error, apsw.Error) and not isinstance(error, expected):
            # Our own BEGIN or COMMIT failed for a reason that should not exist.
            self._failures.report(error)
        self._undo("ROLLBACK")

    # --- afterwards, in the Trio thread

    def _finish(self, group: list[_Job], mark: Mark | None, result: Result[None]) -> None:
        self._busy = False
        failure = self._failures.first if result.error is None else self._own(result.error)
        if failure is None:
            self._announce(group)
        else:
            if mark is not None:
                self._positions.rewind(mark)
            self._lose(group, failure)
        self._advance()

    def _lose(self, group: list[_Job], failure: BaseException) -> None:
        """The whole group is rolled back."""
        if self._failures.first is not None:
            failure = StoreFailed("the database failed")
        self._caches.clear()
        for job in group:
            job.answer(failure if len(group) == 1 else _copy(failure))

    def _announce(self, group: list[_Job]) -> None:
        """The group is durable: caches, doorbell, answers."""
        errors: dict[_Job, BaseException] = {}
        keys: set[int | str] = set()
        for job in group:
            if job.tx is None:
                continue
            if job.mode is Mode.HEAVY:
                self._caches.clear()  # its own after_commit functions updated private caches
            keys |= job.tx._keys
            try:
                for function, args in job.tx._after_commit:
                    function(*args)
            except Exception as error:  # noqa: BLE001 (a bug, raised where the function came from)
                self._caches.clear()
                errors[job] = error
        position = StreamPos(self._positions.last)
        if keys or position > self._doorbell.position:
            self._doorbell.ring(Change(position, frozenset(keys)))
        for job in group:
            job.answer(errors.get(job))
        self.after_each_commit()


def _nothing() -> None:
    """Until somebody wants to know of commits."""


def _not_now(_: object) -> trio.lowlevel.Abort:
    """A commit under way is waited for, whoever is cancelled."""
    return trio.lowlevel.Abort.FAILED


def _copy(failure: BaseException) -> BaseException:
    """An exception per caller: each adds its own traceback."""
    if isinstance(failure, StoreError):
        copy = type(failure)(*failure.args)
        copy.__cause__ = failure.__cause__
        return copy
    return failure
