"""A small household in a database: what is written, and what must hold whatever happened.

Rooms are chains of events. Tasks send to them at once, with transaction ids; some sends fail and
roll back, some events are redacted, now and then many events come in one heavy transaction; the
checkpointer runs; half way through, the server stops, and starts again as a newer release with one
more migration. Every acknowledgement is noted.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw
import trio
from attrs import frozen

from matrixbox.store.database import Store, Tuning
from matrixbox.store.migrate import Migration
from matrixbox.store.runner import Runner
from matrixbox.store.transaction import Tx

FIRST = """
CREATE TABLE stream (reserved INTEGER NOT NULL) STRICT;
INSERT INTO stream VALUES (0);
CREATE TABLE room (id INTEGER PRIMARY KEY, head INTEGER NOT NULL, length INTEGER NOT NULL) STRICT;
CREATE TABLE event (
    pos INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    room INTEGER NOT NULL,
    prev INTEGER REFERENCES event (pos),
    redacted INTEGER NOT NULL DEFAULT 0,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE txn (device INTEGER, key TEXT, pos INTEGER NOT NULL REFERENCES event (pos),
    PRIMARY KEY (device, key)) STRICT, WITHOUT ROWID;
"""
SECOND = """
CREATE INDEX event_by_room ON event (room, pos);
CREATE TABLE tally (room INTEGER PRIMARY KEY, redacted INTEGER NOT NULL) STRICT;
INSERT INTO tally SELECT room, sum(redacted > 0) FROM event GROUP BY room;
"""
RELEASES = (
    (Migration(1, "0001_first.sql", FIRST),),
    (Migration(1, "0001_first.sql", FIRST), Migration(2, "0002_second.sql", SECOND)),
)
ROOMS = 3


class Refused(Exception):
    """A send that rolls back."""


@frozen
class Sent:
    """An acknowledged event."""

    pos: int
    event_id: str
    device: int
    key: str


@frozen
class Redacted:
    """An acknowledged redaction."""

    pos: int


@frozen
class Many:
    """An acknowledged heavy transaction, and the position of its last event."""

    pos: int
    name: str


def send(tx: Tx, room: int, event_id: str, body: bytes) -> int:
    """One event at the end of a room."""
    pos = tx.position()
    row = tx.one("SELECT head, length FROM room WHERE id = ?", room)
    prev, length = row or (None, 0)
    tx.run(
        "INSERT INTO event (pos, id, room, prev, body) VALUES (?, ?, ?, ?, ?)",
        pos,
        event_id,
        room,
        prev,
        body,
    )
    tx.run("INSERT OR REPLACE INTO room (id, head, length) VALUES (?, ?, ?)", room, pos, length + 1)
    tx.changed(rooms=(room,))
    return pos


def send_once(tx: Tx, room: int, device: int, key: str, body: bytes, refuse: bool) -> int:
    """A client's send: a repeat of the transaction id gives the same event."""
    known = tx.one("SELECT pos FROM txn WHERE device = ? AND key = ?", device, key)
    if known is not None:
        return int(known[0])
    pos = send(tx, room, f"${device}.{key}", body)
    tx.run("INSERT INTO txn (device, key, pos) VALUES (?, ?, ?)", device, key, pos)
    if refuse:
        raise Refused
    return pos


def send_many(tx: Tx, room: int, name: str, count: int) -> int:
    """Many events in one transaction."""
    for i in range(count):
        pos = send(tx, room, f"${name}.{i}", b"many" * 30)
    return pos


def redact(tx: Tx, pos: int, has_tally: bool) -> None:
    """Empty an event's body, and note at which position that was."""
    at = tx.position()
    tx.run("UPDATE event SET body = x'', redacted = ? WHERE pos = ?", at, pos)
    (room,) = tx.run("SELECT room FROM event WHERE pos = ?", pos)[0]
    if has_tally:
        tx.run(
            "INSERT INTO tally (room, redacted) VALUES (?, 1)"
            " ON CONFLICT (room) DO UPDATE SET redacted = redacted + 1",
            room,
        )
    tx.changed(rooms=(room,))


async def run(
    path: Path,
    note: Callable[[object], None],
    *,
    tuning: Tuning,
    runner: Runner = Runner.THREADS,
    on_fatal: Callable[[BaseException], None] | None = None,
    sends: int = 25,
    tasks: int = 4,
    joins: int = 3,
    seed: int = 1,
) -> None:
    """The whole story, through the real store: two releases, each with its tasks."""
    for release, migrations in enumerate(RELEASES):
        options: dict[str, Any] = {} if on_fatal is None else {"on_fatal": on_fatal}
        store = Store.open(path, runner=runner, migrations=migrations, tuning=tuning, **options)
        async with store:
            note(("release", release))
            async with trio.open_nursery() as nursery:
                for task in range(tasks):
                    chance = random.Random(f"{seed} {release} {task}")
                    nursery.start_soon(_client, store, note, release, task, sends, chance)
                nursery.start_soon(_joiner, store, note, release, joins)


async def _client(
    store: Store,
    note: Callable[[object], None],
    release: int,
    device: int,
    sends: int,
    chance: random.Random,
) -> None:
    for i in range(sends):
        room, key = chance.randrange(ROOMS), f"{release}.{i}"
        body = chance.randbytes(chance.choice((20, 300, 700, 3000)))
        refuse = chance.random() < 0.1
        with contextlib.suppress(Refused):
            pos = await store.write(send_once, room, device, key, body, refuse)
            note(Sent(pos, f"${device}.{key}", device, key))
            if chance.random() < 0.3:
                await store.write(redact, pos, release > 0)
                note(Redacted(pos))


async def _joiner(store: Store, note: Callable[[object], None], release: int, joins: int) -> None:
    for i in range(joins):
        name = f"many {release}.{i}"
        pos = await store.write(send_many, i % ROOMS, name, 25, heavy=True)
        note(Many(pos, name))
        await store.read_long(lambda tx: tx.run("SELECT count(*) FROM event"))


class Broken(Exception):
    """A database that is not as it must be, and how."""


class Lost(Broken):
    """Something acknowledged is missing."""


def check(connection: apsw.Connection, known: Sequence[object]) -> None:
    """Raise Broken unless the database is sound and holds everything that is known."""

    def rows(sql: str) -> list[tuple[Any, ...]]:
        return connection.execute(sql).fetchall()

    if rows("PRAGMA integrity_check") != [("ok",)]:
        raise Broken("integrity check")
    if rows("PRAGMA foreign_key_check"):
        raise Broken("foreign key check")
    events = {row[0]: row[1:] for row in rows("SELECT pos, id, room, prev, redacted FROM event")}
    taken = [*events, *(event[3] for event in events.values() if event[3])]
    if sorted(taken) != list(range(1, len(taken) + 1)):
        raise Broken("a hole in the order of commits")
    heads: dict[int, tuple[int, int]] = {}
    for pos, (_, room, prev, _) in sorted(events.items()):
        if prev != heads.get(room, (None, 0))[0]:
            raise Broken(f"room {room} is no chain at {pos}")
        heads[room] = (pos, heads.get(room, (0, 0))[1] + 1)
    if {row[0]: (row[1], row[2]) for row in rows("SELECT id, head, length FROM room")} != heads:
        raise Broken("heads of rooms")
    sent = {(row[0], row[1]): row[2] for row in rows("SELECT device, key, pos FROM txn")}
    singles = {pos for pos, event in events.items() if not event[0].startswith("$many")}
    if set(sent.values()) != singles or len(sent) != len(singles):
        raise Broken("transaction ids and events differ")
    if (len(events) - len(singles)) % 25:
        raise Broken("a heavy transaction is there in part")
    if connection.pragma("user_version") == 2:
        tally = dict(rows("SELECT room, redacted FROM tally WHERE redacted > 0"))
        counted = dict(rows("SELECT room, count(*) FROM event WHERE redacted GROUP BY room"))
        if tally != counted:
            raise Broken("tally")
    _check_known(events, sent, known)


def _check_known(
    events: dict[int, tuple[Any, ...]], sent: dict[tuple[int, str], int], known: Sequence[object]
) -> None:
    for fact in known:
        if isinstance(fact, Sent):
            if sent.get((fact.device, fact.key)) != fact.pos:
                raise Lost(f"the transaction id of {fact}")
            if events[fact.pos][0] != fact.event_id:
                raise Lost(str(fact))
        elif isinstance(fact, Redacted):
            if not events.get(fact.pos, (0, 0, 0, 0))[3]:
                raise Lost(str(fact))
        elif isinstance(fact, Many) and events.get(fact.pos, ("",))[0] != f"${fact.name}.24":
            raise Lost(str(fact))
