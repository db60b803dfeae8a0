"""What the storage engine costs.

    python -m tests.store.engine_measure [FOLDER]      on the disk of FOLDER; the default is here

Round trips of a write, commits per second under 1 and 10 callers, reads, rings, what one message
writes by page size, and what the checksums cost.
"""

from __future__ import annotations

import array
import base64
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import trio
import trio.testing
from attrs import evolve

from matrixbox.store import connection
from matrixbox.store.changes import Change, Doorbell, StreamPos
from matrixbox.store.database import Store, Tuning
from matrixbox.store.migrate import Migration
from matrixbox.store.transaction import Tx
from tests.store.engine_support import MIGRATIONS, get, put

TUNING = Tuning(reserve_bytes=0)

# One message, as the real schema stores it: a row, its two indexes, the head of its room, the
# transaction id.
MESSAGES = (
    Migration(
        1,
        "0001_measure.sql",
        """
        CREATE TABLE stream (reserved INTEGER NOT NULL) STRICT;
        INSERT INTO stream VALUES (0);
        CREATE TABLE event (nid INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE,
            room INTEGER NOT NULL, pos INTEGER, sub INTEGER NOT NULL, auth BLOB NOT NULL,
            json BLOB NOT NULL) STRICT;
        CREATE INDEX event_timeline ON event (room, pos, sub);
        CREATE TABLE head (room INTEGER PRIMARY KEY, extremities BLOB NOT NULL) STRICT;
        CREATE TABLE txn (device INTEGER, key BLOB, nid INTEGER NOT NULL,
            PRIMARY KEY (device, key)) STRICT, WITHOUT ROWID;
        """,
    ),
)
chance = random.Random(3)


def new_id() -> str:
    return "$" + base64.urlsafe_b64encode(chance.randbytes(32)).decode().rstrip("=")


def send(tx: Tx) -> None:
    """One message to one of 60 rooms."""
    nid, room = tx.position(), 1 + min(int(chance.expovariate(0.1)), 59)
    pdu = {
        "type": "m.room.message",
        "room_id": f"!{room:043d}",
        "sender": "@alice:example.org",
        "content": {"msgtype": "m.text", "body": "x" * chance.randint(5, 200)},
        "auth_events": [new_id() for _ in range(3)],
        "prev_events": [new_id()],
        "depth": 1000,
        "origin_server_ts": 1_700_000_000_000,
        "hashes": {"sha256": new_id()},
        "signatures": {"example.org": {"ed25519:a_abcd": new_id() + new_id()}},
    }
    tx.run(
        "INSERT INTO event (nid, event_id, room, pos, sub, auth, json)"
        " VALUES (?, ?, ?, ?, 0, ?, ?)",
        nid,
        new_id(),
        room,
        nid,
        array.array("Q", [1, 2, 3]).tobytes(),
        json.dumps(pdu).encode(),
    )
    tx.run(
        "INSERT OR REPLACE INTO head (room, extremities) VALUES (?, ?)",
        room,
        array.array("Q", [nid]).tobytes(),
    )
    tx.run(
        "INSERT INTO txn (device, key, nid) VALUES (?, ?, ?)",
        chance.randint(1, 6),
        chance.randbytes(16),
        nid,
    )
    tx.changed(rooms=(room,))


def send_many(tx: Tx, count: int) -> None:
    for _ in range(count):
        send(tx)


def nothing(_tx: Tx) -> None:
    """An empty transaction function."""


def written_bytes() -> int:
    """What this process has handed to the storage layer so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


async def timed(name: str, count: int, call: Callable[[], Awaitable[object]]) -> None:
    """Print the median and the spread of `count` calls, and their processor time."""
    times, cpu = [], time.process_time()
    for _ in range(count):
        started = time.perf_counter()
        await call()
        times.append((time.perf_counter() - started) * 1e6)
    cpu = (time.process_time() - cpu) / count * 1e6
    times.sort()
    print(
        f"{name}: median {times[count // 2]:.0f} us, mean {statistics.mean(times):.0f},"
        f" p95 {times[count * 95 // 100]:.0f}; processor {cpu:.0f}"
    )


async def round_trips(place: Path) -> None:
    async with Store.open(place / "trips", migrations=MIGRATIONS, tuning=TUNING) as store:
        await timed("trio.to_thread, empty", 2000, lambda: trio.to_thread.run_sync(int))
        await timed("write, empty", 2000, lambda: store.write(nothing))
        await timed("write, one row", 2000, lambda: store.write(put, "key", "x" * 200))
        await timed("write heavy, one row", 1000, lambda: store.write(put, "k", "x", heavy=True))
        await timed("read_long, one row", 1000, lambda: store.read_long(get, "key"))
        for callers in (1, 10, 50):
            await _throughput(store, callers)
        for name, function, args in (("empty", nothing, ()), ("one row", get, ("key",))):
            started = time.perf_counter()
            for _ in range(20_000):
                store.read(function, *args)  # type: ignore[arg-type]
            each = (time.perf_counter() - started) / 20_000 * 1e6
            print(f"read, {name}: {each:.2f} us")


async def _throughput(store: Store, callers: int) -> None:
    done = 0
    until = time.perf_counter() + 2

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await store.write(put, f"key {done % 100}", "x" * 200)
            done += 1

    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(caller)
    print(f"writes of one row by {callers} callers: {done / 2:.0f}/s")


async def rings() -> None:
    bell = Doorbell(StreamPos(0))
    async with trio.open_nursery() as nursery:
        for i in range(300):
            nursery.start_soon(
                bell.beyond, StreamPos(0), frozenset(range(10_000 * i, 10_000 * i + 500))
            )
        await trio.testing.wait_all_tasks_blocked()
        for keys in (1, 500):
            change = [Change(StreamPos(i), frozenset(range(-keys, 0))) for i in range(1, 50)]
            started = time.perf_counter()
            for one in change:
                bell.ring(one)
            each = (time.perf_counter() - started) / len(change) * 1e6
            print(f"ring of {keys} keys past 300 waiters of 500 keys each: {each:.0f} us")
        nursery.cancel_scope.cancel()


async def pages(place: Path, page_size: int, before: int, sends: int = 4000) -> None:
    tuning = evolve(TUNING, page_size=page_size)
    path = place / f"pages {page_size}"
    async with Store.open(path, migrations=MESSAGES, tuning=tuning) as store:
        for _ in range(before // 2000):
            await store.write(send_many, 2000, heavy=True)
    size = path.stat().st_size
    async with Store.open(path, migrations=MESSAGES, tuning=tuning) as store:
        await store.write(send_many, 10)
        start, cpu, began = written_bytes(), time.process_time(), time.perf_counter()
        for _ in range(sends):
            await store.write(send)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        each = (written_bytes() - start) / sends / 1024
    path.unlink()
    print(
        f"pages of {page_size} bytes, {before} messages before: {each:.1f} KiB a message,"
        f" {sends / seconds:.0f}/s, {cpu / sends * 1e6:.0f} us of processor,"
        f" {size / before:.0f} bytes of disk a message"
    )


@contextlib.contextmanager
def without_checksums() -> Iterator[None]:
    """Open files on the plain VFS."""
    original = connection._checksums
    connection._checksums = lambda base: base
    try:
        yield
    finally:
        connection._checksums = original


async def checksums(place: Path) -> None:
    for name, how in (("with", contextlib.nullcontext), ("without", without_checksums)) * 2:
        with how():
            tuning = evolve(TUNING, checkpoint_bytes=1 << 20)
            path = place / f"sums {name} {time.monotonic()}"
            async with Store.open(path, migrations=MESSAGES, tuning=tuning) as store:
                cpu = time.process_time()
                await store.write(send_many, 20_000)
                for _ in range(2000):
                    await store.write(send)
                cpu = time.process_time() - cpu
            store = Store.open(path, migrations=MESSAGES, tuning=TUNING)
            started = time.perf_counter()
            store.read(lambda tx: tx.run("SELECT sum(length(json)) FROM event"))
            cold = time.perf_counter() - started
            store.close()
        print(f"{name} checksums: {cpu:.2f} s of processor to write, {cold * 1e3:.1f} ms to scan")


async def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        await round_trips(place)
        await rings()
        await checksums(place)
        for before in (20_000, 100_000):
            for page_size in (1024, 2048, 4096, 8192):
                await pages(place, page_size, before)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd())
