"""Every single operation on the files fails once (T145).

    python -m tests.crash.ioerrors            every operation inline, 60 of them with threads
    python -m tests.crash.ioerrors 1000       … 1,000 of them with threads

For each operation of the workload a process of its own runs the real store until that operation
fails. It must end with exit code 70 there and then, without another acknowledgement; or SQLite can
do without the operation, and everything goes on. Started again, the database is sound and holds all
that was acknowledged. A failed write or sync must never be one that is done without.

The control: a store that overlooks failures and goes on, as SQLite itself would after a failed
sync, must be found out.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import apsw
import trio
from attrs import define, field

from matrixbox.store.database import Store, Tuning
from matrixbox.store.errors import StoreError
from matrixbox.store.failures import EXIT_DATABASE_FAILED, Failures
from matrixbox.store.runner import Runner
from matrixbox.store.writer import Writer
from tests.crash import workload
from tests.crash.faulty import FaultyVfs, io_error

NEVER_DONE_WITHOUT = {"xWrite", "xSync", "xRead"}
WITH_THREADS = 60
FAULT = b"F"
SENDS = 7
SYNCS = 4  # that fail beside a sample of all operations


@define
class Report:
    """What the operations led to."""

    operations: int = 0
    ended: Counter[str] = field(factory=Counter)
    went_on: Counter[str] = field(factory=Counter)
    not_reached: int = 0
    wrong: list[str] = field(factory=list)

    def __str__(self) -> str:
        def kinds(counter: Counter[str]) -> str:
            return ", ".join(f"{count} {kind}" for kind, count in sorted(counter.items()))

        return (
            f"{self.operations} operations failed once each;"
            f" the process ended at {sum(self.ended.values())} ({kinds(self.ended)}),"
            f" SQLite did without {sum(self.went_on.values())} ({kinds(self.went_on)}),"
            f" {self.not_reached} not reached; wrong: {len(self.wrong)}"
        )


class Harness:
    """One folder, one faulty VFS; children inherit both."""

    def __init__(self, place: Path, runner: Runner) -> None:
        self.place = place
        self.runner = runner
        self.vfs = FaultyVfs()
        self.tuning = Tuning(reserve_bytes=0, checkpoint_bytes=24 * 1024, base_vfs=self.vfs.name)
        self.on_fatal: Callable[[BaseException], None] | None = None

    def operations(self) -> list[str]:
        """The names of all operations of one run, in order."""
        read_end, write_end = os.pipe()

        def child() -> None:
            names: list[str] = []
            self.vfs.before = lambda operation, _file, _end: names.append(operation)
            self._run(lambda _fact: None)
            with os.fdopen(write_end, "wb") as pipe:
                pickle.dump(names, pipe)

        pid = _fork(child)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            names: list[str] = pickle.load(pipe)
        os.waitpid(pid, 0)
        return names

    def fail(self, number: int, report: Report, kind: str | None = None) -> None:
        """Let operation `number` (from 0), of one kind or of all, fail in a new process, then look
        at the database."""
        read_end, write_end = os.pipe()

        def child() -> None:
            count = 0

            def before(operation: str, _file: str, _end: int) -> None:
                nonlocal count
                count += kind in (None, operation)
                if count == number + 1:
                    os.write(write_end, _frame(FAULT + operation.encode()))
                    raise io_error(operation)

            self.vfs.before = before
            self._run(lambda fact: os.write(write_end, _frame(pickle.dumps(fact))))

        pid = _fork(child)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            messages = _frames(pipe.read())
        _, status = os.waitpid(pid, 0)
        self._judge(number, messages, os.waitstatus_to_exitcode(status), report)

    def _run(self, note: Callable[[object], None]) -> None:
        for file in self.place.iterdir():
            file.unlink()
        threads = self.runner is Runner.THREADS
        trio.run(
            lambda: workload.run(
                self.place / "db",
                note,
                tuning=self.tuning,
                runner=self.runner,
                on_fatal=self.on_fatal,
                sends=SENDS,
                tasks=3 if threads else 1,
                joins=1,
            )
        )

    def _judge(self, number: int, messages: list[bytes], exit_code: int, report: Report) -> None:
        report.operations += 1
        faults = [i for i, message in enumerate(messages) if message.startswith(FAULT)]
        facts = [pickle.loads(m) for m in messages if not m.startswith(FAULT)]
        where = f"operation {number}"
        if not faults:
            report.not_reached += 1
        else:
            operation = messages[faults[0]][len(FAULT) :].decode()
            where += f" ({operation})"
            after = messages[faults[0] + 1 :]
            if exit_code == EXIT_DATABASE_FAILED:
                report.ended[operation] += 1
                if after and self.runner is Runner.INLINE:
                    report.wrong.append(f"{where}: acknowledged after the failure")
            elif exit_code == 0:
                report.went_on[operation] += 1
                if operation in NEVER_DONE_WITHOUT:
                    report.wrong.append(f"{where}: went on without it")
        if exit_code not in (0, EXIT_DATABASE_FAILED):
            report.wrong.append(f"{where}: exit code {exit_code}")
        try:
            self._look(facts)
        except (workload.Broken, apsw.Error, StoreError, StoreFailure) as error:
            report.wrong.append(f"{where}: {error!r}")

    def _look(self, facts: list[object]) -> None:
        store = Store.open(
            self.place / "db",
            runner=Runner.INLINE,
            migrations=workload.RELEASES[-1],
            tuning=self.tuning,
            on_fatal=_raise,
        )
        try:
            workload.check(store._writer.connection, facts)
        finally:
            store.close()


class StoreFailure(Exception):
    """The restarted store failed."""


def _raise(error: BaseException) -> None:
    raise StoreFailure(repr(error)) from error


def _fork(child: Callable[[], None]) -> int:
    """Run `child` in a new process; its exit code is 0, 1 for an exception, or its own."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        child()
        code = 0
    finally:
        os._exit(code)


def _frame(message: bytes) -> bytes:
    """One message in a pipe; short enough to be written whole."""
    return len(message).to_bytes(4, "big") + message


def _frames(data: bytes) -> list[bytes]:
    messages, start = [], 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "big")
        messages.append(data[start + 4 : end])
        start = end
    return messages


def careless(harness: Harness) -> None:
    """Make the store one that overlooks failures: the control."""
    harness.on_fatal = lambda _error: None
    Failures.report = lambda _self, _error: None  # type: ignore[method-assign]
    Writer._own = lambda _self, _error: None  # type: ignore


def run(runner: Runner, most: int | None = None, *, control: bool = False) -> Report:
    """Let every operation fail, or `most` of them, spread over the whole workload."""
    report = Report()
    memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    harness = Harness(place, runner)
    if control:
        careless(harness)
    try:
        names = harness.operations()
        step = 1 if most is None else max(1, len(names) // most)
        for number in range(0, len(names), step):
            harness.fail(number, report)
        if most is not None:  # which may have left out all of them
            for number in range(min(SYNCS, names.count("xSync"))):
                harness.fail(number, report, "xSync")
    finally:
        shutil.rmtree(place)
        harness.vfs.unregister()
    return report


def main(with_threads: int) -> int:
    good = True
    for runner, most in ((Runner.INLINE, None), (Runner.THREADS, with_threads)):
        started = time.monotonic()
        # A process of its own for each: the checksum VFS keeps to its first base.
        report = _in_child(lambda runner=runner, most=most: run(runner, most))
        print(f"{runner.value}: {report} ({time.monotonic() - started:.1f} s)", flush=True)
        for line in report.wrong[:10]:
            print("   ", line)
        good = good and not report.wrong and report.ended["xSync"] > 0
    control = _in_child(lambda: run(Runner.INLINE, 60, control=True))
    for line in control.wrong[:3]:
        print("   ", line)
    print(f"a store that overlooks failures (must be found out): {control}")
    good = good and any("Lost" in line for line in control.wrong)
    print("proved" if good else "FAILED")
    return 0 if good else 1


def _in_child(function: Callable[[], Report]) -> Report:
    read_end, write_end = os.pipe()

    def child() -> None:
        with os.fdopen(write_end, "wb") as pipe:
            pickle.dump(function(), pipe)

    pid = _fork(child)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        report: Report = pickle.load(pipe)
    os.waitpid(pid, 0)
    return report


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else WITH_THREADS))
