"""Cut the power everywhere: record the workload once, then look at thousands of disks (T141, T157).

    python -m tests.crash.powercut            5,000 disks
    python -m tests.crash.powercut 50000

On every disk the real store must start, bring the database up to the newest release, show every
acknowledged write, hold the invariants of the workload, and accept a write with a position beyond
all others. The same workload with `synchronous=NORMAL` must lose acknowledged writes, and with
`OFF` must corrupt the database: if the harness does not notice that, it proves nothing.
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw
import trio
from attrs import define, evolve, field

from matrixbox.store.database import Store, Tuning
from matrixbox.store.errors import StoreError
from matrixbox.store.runner import Runner
from tests.crash import workload
from tests.crash.recording import Cut, Entry, Recording, disks_after_cuts

TUNING = Tuning(reserve_bytes=0, checkpoint_bytes=48 * 1024)
DISKS = 5_000
DISKS_OF_CONTROLS = 400


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory, where there is one: the cuts are simulated, the disk is not the point."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def record(synchronous: str, seed: int = 1) -> list[Entry]:
    """Run the workload through the real store over a recording VFS, in a process of its own:
    the checksum VFS takes what lies below it once and for all."""
    command = [sys.executable, "-m", "tests.crash.powercut", "record", synchronous, str(seed)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    log: list[Entry] = pickle.loads(output)
    return log


def record_here(synchronous: str, seed: int) -> None:
    """What that process does."""
    recording = Recording()
    tuning = evolve(TUNING, synchronous=synchronous, base_vfs=recording.name)
    with folder() as place:
        trio.run(lambda: workload.run(place / "db", recording.note, tuning=tuning, seed=seed))
    pickle.dump(recording.log, sys.stdout.buffer)


@define
class Report:
    """What was seen on the disks."""

    disks: int = 0
    lost: int = 0
    broken: int = 0
    seconds: float = 0.0
    modes: Counter[str] = field(factory=Counter)
    examples: list[str] = field(factory=list)

    def __str__(self) -> str:
        return (
            f"{self.disks} disks in {self.seconds:.1f} s ({self.disks / self.seconds:.0f}/s):"
            f" {self.lost} lost acknowledged writes, {self.broken} were corrupt"
        )


def look_at(log: Sequence[Entry], count: int, seed: int = 42) -> Report:
    """Rebuild `count` disks and try each."""
    return trio.run(_look_at, log, count, seed)


async def _look_at(log: Sequence[Entry], count: int, seed: int) -> Report:
    report = Report()
    started = time.monotonic()
    with folder() as place:
        for cut in disks_after_cuts(log, count, seed):
            report.disks += 1
            try:
                await try_disk(place / "disk", cut)
            except workload.Lost as error:
                report.lost += 1
                report.examples.append(f"cut after {cut.at}, {cut.mode}: lost {error}")
            except (workload.Broken, StoreError, apsw.Error, BadStart) as error:
                report.broken += 1
                report.modes[cut.mode] += 1
                report.examples.append(f"cut after {cut.at}, {cut.mode}: {error!r}")
    report.seconds = time.monotonic() - started
    return report


class BadStart(Exception):
    """The store reported a failing database."""


def _fail(error: BaseException) -> None:
    raise BadStart(repr(error)) from error


async def try_disk(place: Path, cut: Cut) -> None:
    """Start from a disk; raises when anything is not as it must be."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()  # noqa: ASYNC240 (inline runner: nothing else runs)
    for name, content in cut.disk.items():
        (place / name).write_bytes(content)
    store = Store.open(
        place / "db",
        runner=Runner.INLINE,
        migrations=workload.RELEASES[-1],
        on_fatal=_fail,
        tuning=TUNING,
    )
    try:
        workload.check(store._writer.connection, cut.known)
        await _write_one_more(store, cut)
    finally:
        store.close()


async def _write_one_more(store: Store, cut: Cut) -> None:
    highest = max((f.pos for f in cut.known if isinstance(f, workload.Sent)), default=0)
    if store.doorbell.position < highest:
        raise workload.Lost("the position of the stream")
    if await store.write(workload.send, 0, "$one more", b"") <= highest:
        raise workload.Broken("a position given twice")


def controls(count: int = DISKS_OF_CONTROLS) -> tuple[Report, Report]:
    """The known-bad settings: NORMAL, OFF."""
    return look_at(record("NORMAL"), count), look_at(record("OFF"), count)


def main(count: int) -> int:
    log = record("FULL")
    print(f"FULL: {len(log)} operations recorded")
    full = look_at(log, count)
    print(f"FULL: {full}")
    for line in full.examples[:10]:
        print("   ", line)
    normal, off = controls()
    print(f"NORMAL (must lose): {normal}")
    print(f"OFF (must corrupt): {off}")
    good = full.disks == count and not full.lost and not full.broken and normal.lost and off.broken
    print("proved" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["record"]:
        record_here(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else DISKS))
