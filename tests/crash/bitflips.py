"""Flip one bit in each page of a database: it must be noticed when the page is read (T146).

    python -m tests.crash.bitflips            one bit in each page
    python -m tests.crash.bitflips 20         20 bits in each page

The control: without checksums, some flips in the same places go unnoticed by everything.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import apsw
import trio
from attrs import define, field

from matrixbox.store.connection import CHECKSUM_BYTES, locate
from matrixbox.store.database import PAGE_SIZE, Store, Tuning
from matrixbox.store.errors import StoreError
from matrixbox.store.runner import Runner
from tests.crash import workload

TUNING = Tuning(reserve_bytes=0)


class Noticed(Exception):
    """The store reported a failing database."""


@define
class Report:
    """What became of the flips."""

    flips: int = 0
    noticed: int = 0
    harmless: int = 0  # in pages that nothing uses
    served: list[str] = field(factory=list)

    def __str__(self) -> str:
        return (
            f"{self.flips} flips: {self.noticed} noticed, {self.harmless} in unused pages,"
            f" {len(self.served)} served as if nothing were"
        )


def read_everything(connection: apsw.Connection) -> list[object]:
    """The content of all tables, by table and by index, and SQLite's own check."""
    content: list[object] = [
        connection.execute("SELECT * FROM event").fetchall(),
        connection.execute("SELECT * FROM room").fetchall(),
        connection.execute("SELECT * FROM txn").fetchall(),
        connection.execute("SELECT * FROM tally").fetchall(),
        connection.execute("SELECT * FROM stream").fetchall(),
        connection.execute("SELECT id FROM event ORDER BY id").fetchall(),
        connection.execute("SELECT room, pos FROM event ORDER BY room, pos").fetchall(),
    ]
    content.append(connection.execute("PRAGMA integrity_check").fetchall())
    return content


def read_through_store(path: Path) -> list[object]:
    """As the server would. Raises Noticed or a StoreError."""

    def notice(error: BaseException) -> None:
        raise Noticed(repr(error)) from error

    store = Store.open(
        path,
        runner=Runner.INLINE,
        migrations=workload.RELEASES[-1],
        on_fatal=notice,
        tuning=TUNING,
    )
    try:
        return read_everything(store._points.connection)
    finally:
        store.close()


def read_without_checksums(path: Path) -> list[object]:
    """The control: SQLite alone."""
    connection = apsw.Connection(str(path), vfs="unix")
    try:
        return read_everything(connection)
    finally:
        connection.close()


def unused_pages(path: Path) -> set[int]:
    """Pages of the free list: nothing reads them before they are written anew."""
    connection = apsw.Connection(locate(path).filename, vfs=locate(path).vfs)
    used = {row[0] for row in connection.execute("SELECT pageno FROM dbstat")}
    count = connection.pragma("page_count")
    connection.close()
    return set(range(1, count + 1)) - used


def flip_all(path: Path, flips_per_page: int, report: Report, control: Report) -> None:
    """Flip bits in each page in turn; the file is whole again afterwards."""
    whole = path.read_bytes()
    truth = read_through_store(path)
    unused = unused_pages(path)
    chance = random.Random(5)
    for page in range(1, len(whole) // PAGE_SIZE + 1):
        for _ in range(flips_per_page):
            place = chance.randrange((page - 1) * PAGE_SIZE, page * PAGE_SIZE)
            bit = 1 << chance.randrange(8)
            damaged = bytearray(whole)
            damaged[place] ^= bit
            where = f"page {page}, byte {place % PAGE_SIZE}, bit {bit:#x}"
            path.write_bytes(damaged)
            _judge(read_through_store, path, truth, page in unused, where, report)
            path.write_bytes(damaged)
            if place % PAGE_SIZE < PAGE_SIZE - CHECKSUM_BYTES:
                _judge(read_without_checksums, path, truth, page in unused, where, control)
    path.write_bytes(whole)


def _judge(
    read: object, path: Path, truth: list[object], unused: bool, where: str, report: Report
) -> None:
    assert callable(read)
    report.flips += 1
    try:
        content = read(path)
    except (Noticed, StoreError, apsw.Error, UnicodeDecodeError):
        report.noticed += 1
        return
    if content[-1] != [("ok",)]:
        report.noticed += 1
    elif unused and content == truth:
        report.harmless += 1
    else:
        report.served.append(where)


def run(flips_per_page: int) -> tuple[Report, Report]:
    """Make a database, damage it; what came of it with and without checksums."""
    report, control = Report(), Report()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "db"
        trio.run(lambda: workload.run(path, lambda _fact: None, tuning=TUNING))
        flip_all(path, flips_per_page, report, control)
    return report, control


def main(flips_per_page: int) -> int:
    started = time.monotonic()
    report, control = run(flips_per_page)
    print(f"{report} ({time.monotonic() - started:.1f} s)")
    for line in report.served[:10]:
        print("   ", line)
    print(f"without checksums (some must be served): {control}")
    good = report.noticed and not report.served and control.served
    print("proved" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
