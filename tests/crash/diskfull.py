"""The disk becomes full, at any write (T144).

    python -m tests.crash.diskfull            at 40 positions of the workload
    python -m tests.crash.diskfull 400
    python -m tests.crash.diskfull FOLDER     once, on a real file system of a few MiB

Under the real store lies a disk of limited size: a write that would make a file longer than there
is room for fails. Clients write until nothing goes any more: first the reserve is given up and
writing goes on, then writes are refused, while reading goes on. When there is space again, writing
goes on by itself. At the end the database is sound, and holds all that was acknowledged and nothing
that was refused. The same workload on a disk that never fills is the control: it must not fail.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

import apsw
import trio
from attrs import define, field

from matrixbox.store import space
from matrixbox.store.database import Store, Tuning
from matrixbox.store.errors import StoreFull, StoreReadOnly
from matrixbox.store.runner import Runner
from matrixbox.store.space import Space
from tests.crash import workload
from tests.crash.faulty import FaultyVfs

POSITIONS = 40
KIB = 1024
RESERVE = 256 * KIB
MARGIN = 64 * KIB
ENDLESS = 1 << 40


class SmallDisk:
    """So many bytes for the files of the database and the reserve beside it."""

    def __init__(self, vfs: FaultyVfs, place: Path) -> None:
        self.capacity = ENDLESS
        self.place = place
        vfs.before = self._before

    def used(self, but: str = "") -> int:
        """Bytes in use by files, except one."""
        total = 0
        for file in os.scandir(self.place):
            with contextlib.suppress(FileNotFoundError):  # the reserve, given up just now
                total += file.stat().st_size if file.name != but else 0
        return total

    def free(self) -> int:
        """Bytes left."""
        return max(0, self.capacity - self.used())

    def _before(self, operation: str, file: str, end: int) -> None:
        if operation == "xWrite":
            path = self.place / file
            size = path.stat().st_size if path.exists() else 0
            if end > size and self.used(but=file) + end > self.capacity:
                raise apsw.FullError("made to fail: no space")


@define
class Report:
    """What was seen at the positions."""

    positions: int = 0
    states: set[Space] = field(factory=set)
    full: int = 0
    refused: int = 0
    acknowledged: int = 0
    wrong: list[str] = field(factory=list)

    def __str__(self) -> str:
        return (
            f"full at {self.positions} positions: {self.acknowledged} writes acknowledged,"
            f" {self.full} found no space, {self.refused} were refused; wrong: {len(self.wrong)}"
        )


async def _fill(
    store: Store, device: int, known: list[object], report: Report, *, sends: int, start: int
) -> None:
    """Send until a write is refused without a try, or there is no more to send."""
    for i in range(start, start + sends):
        key, body = f"{device}.{i}", bytes([i % 256]) * 1500
        try:
            if device == 0 and i % 7 == 3:
                pos = await store.write(workload.send_many, 1, f"many {key}", 25, heavy=True)
                known.append(workload.Many(pos, f"many {key}"))
            else:
                pos = await store.write(workload.send_once, i % 3, device, key, body, False)
                known.append(workload.Sent(pos, f"${device}.{key}", device, key))
            report.acknowledged += 1
        except StoreReadOnly:
            report.refused += 1
            return
        except StoreFull:
            report.full += 1
        report.states.add(store.space)


async def at_capacity(
    vfs: FaultyVfs, place: Path, room: int, checkpoint_bytes: int, report: Report
) -> None:
    """The whole story on a disk with `room` bytes for the database."""
    disk = SmallDisk(vfs, place)
    tuning = Tuning(
        reserve_bytes=RESERVE,
        checkpoint_bytes=checkpoint_bytes,
        base_vfs=vfs.name,
        free_bytes=disk.free,
    )
    known: list[object] = []
    async with Store.open(
        place / "db", migrations=workload.RELEASES[0], tuning=tuning, on_fatal=_raise
    ) as store:
        disk.capacity = disk.used() + room
        async with trio.open_nursery() as nursery:
            for device in range(3):
                nursery.start_soon(
                    lambda device=device: _fill(store, device, known, report, sends=400, start=0)
                )
        if disk.capacity < ENDLESS:
            if store.space is not Space.NONE:
                report.wrong.append(f"room {room}: still {store.space}")
            if disk.free() > RESERVE + MARGIN:
                report.wrong.append(f"room {room}: {disk.free()} bytes free, and not used")
        await _reading_goes_on(store, known)
        disk.capacity = ENDLESS
        before = report.refused + report.full
        await _fill(store, 9, known, report, sends=5, start=1000)
        if report.refused + report.full != before or store.space is not Space.ENOUGH:
            report.wrong.append(f"room {room}: not writing again, {store.space}")
        reserve = place / "db-reserve"
        if not reserve.exists() or reserve.stat().st_size != RESERVE:
            report.wrong.append(f"room {room}: no reserve again")
    store = Store.open(
        place / "db", runner=Runner.INLINE, migrations=workload.RELEASES[1], tuning=tuning
    )
    try:
        workload.check(store._writer.connection, known)
        events = store.read(lambda tx: tx.run("SELECT pos FROM event"))
        acknowledged = {getattr(fact, "pos", 0) for fact in known}
        extra = {row[0] for row in events} - acknowledged
        if len(extra) != 24 * sum(isinstance(fact, workload.Many) for fact in known):
            report.wrong.append(f"room {room}: something that was refused is there")
    except workload.Broken as error:
        report.wrong.append(f"room {room}: {error!r}")
    finally:
        store.close()
    report.positions += 1


async def _reading_goes_on(store: Store, known: list[object]) -> None:
    events = store.read(lambda tx: tx.run("SELECT pos FROM event"))
    assert {fact.pos for fact in known if isinstance(fact, workload.Sent)} <= {e[0] for e in events}
    assert await store.read_long(lambda tx: tx.run("SELECT pos FROM event")) == events


def _raise(error: BaseException) -> None:
    raise AssertionError("a full disk is no failing disk") from error


def main(positions: int) -> int:
    space.SMALLEST_MARGIN_BYTES = MARGIN
    memory = Path("/dev/shm")
    vfs = FaultyVfs()
    report, control = Report(), Report()
    started = time.monotonic()
    for number in range(positions):
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
            # 20 to 320 KiB in steps of an odd number of bytes: within headers, pages, frames.
            room = 20 * KIB + number * (300 * KIB // positions) + number * 37 % 1024
            # A checkpoint finds the disk full, or a commit does.
            checkpoint = 48 * KIB if number % 2 else ENDLESS
            trio.run(at_capacity, vfs, Path(place), room, checkpoint, report)
    print(f"{report} ({time.monotonic() - started:.1f} s)")
    for line in report.wrong[:10]:
        print("   ", line)
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        trio.run(at_capacity, vfs, Path(place), ENDLESS, 48 * KIB, control)
    print(f"with endless space (nothing may be refused): {control}")
    good = (
        report.positions == positions
        and not report.wrong
        and report.states == set(Space)
        and report.full >= positions // 2
        and not (control.wrong or control.full or control.refused)
    )
    print("proved" if good else "FAILED")
    return 0 if good else 1


async def on_real_disk(folder: Path) -> None:
    """Fill a real file system up to the last block, and free it again."""
    space.SMALLEST_MARGIN_BYTES = MARGIN
    known: list[object] = []
    report = Report()
    tuning = Tuning(reserve_bytes=RESERVE, checkpoint_bytes=ENDLESS)
    async with Store.open(
        folder / "db", migrations=workload.RELEASES[1], tuning=tuning, on_fatal=_raise
    ) as store:
        with open(folder / "ballast", "wb", buffering=0) as ballast:  # noqa: ASYNC230 (nothing else runs)
            while True:
                try:
                    ballast.write(bytes(4 * KIB))
                except OSError:
                    break
            ballast.truncate(ballast.tell() - 200 * KIB)
        await _fill(store, 1, known, report, sends=5000, start=0)
        assert store.space is Space.NONE
        assert report.full
        await _reading_goes_on(store, known)
        os.unlink(folder / "ballast")
        report.refused = report.full = 0
        await _fill(store, 2, known, report, sends=50, start=0)
        assert store.space is Space.ENOUGH
        assert not report.refused + report.full
        workload.check(store._writer.connection, known)
    print(f"{report.acknowledged} writes acknowledged, {report.states}: proved")


if __name__ == "__main__":
    if sys.argv[1:] and not sys.argv[1].isdecimal():
        trio.run(on_real_disk, Path(sys.argv[1]))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else POSITIONS))
