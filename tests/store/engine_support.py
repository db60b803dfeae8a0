"""A small schema and a few transaction functions for the tests of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from matrixbox.store.changes import StreamPos
from matrixbox.store.database import Store, Tuning
from matrixbox.store.migrate import Migration
from matrixbox.store.runner import Runner
from matrixbox.store.transaction import Tx

SCHEMA = """
CREATE TABLE stream (reserved INTEGER NOT NULL) STRICT;
INSERT INTO stream VALUES (0);
CREATE TABLE entry (key TEXT PRIMARY KEY, value TEXT NOT NULL, pos INTEGER NOT NULL) STRICT;
CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT;
CREATE TABLE child (
    id INTEGER PRIMARY KEY,
    parent INTEGER NOT NULL REFERENCES parent (id),
    later INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED
) STRICT;
"""
MIGRATIONS = (Migration(1, "0001_test.sql", SCHEMA),)
SMALL = Tuning(reserve_bytes=0)
ROOM = 7


class Refused(Exception):
    """What a transaction function raises of its own accord."""


def open_store(
    path: Path | str,
    *,
    runner: Runner = Runner.THREADS,
    migrations: Sequence[Migration] = MIGRATIONS,
    tuning: Tuning = SMALL,
    on_fatal: Callable[[BaseException], None] | None = None,
) -> Store:
    """A store whose failures are errors of the test."""
    return Store.open(
        path,
        runner=runner,
        migrations=migrations,
        tuning=tuning,
        on_fatal=on_fatal or fail_test,
    )


def fail_test(error: BaseException) -> None:
    raise AssertionError("the store failed") from error


def put(tx: Tx, key: str, value: str) -> StreamPos:
    pos = tx.position()
    tx.run("INSERT OR REPLACE INTO entry (key, value, pos) VALUES (?, ?, ?)", key, value, pos)
    tx.changed(rooms=(ROOM,))
    return pos


def put_and_refuse(tx: Tx, key: str, value: str) -> None:
    put(tx, key, value)
    raise Refused(key)


def get(tx: Tx, key: str) -> str | None:
    row = tx.one("SELECT value FROM entry WHERE key = ?", key)
    return None if row is None else row[0]


def everything(tx: Tx) -> dict[str, str]:
    return dict(tx.run("SELECT key, value FROM entry ORDER BY key"))


async def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run async functions at once; their results, or what they raised, in order."""
    results: list[Any] = [None] * len(calls)

    async def one(index: int, call: Callable[[], Any]) -> None:
        try:
            results[index] = await call()
        except Exception as error:  # noqa: BLE001 (compared by the test)
            results[index] = error

    async with trio.open_nursery() as nursery:
        for index, call in enumerate(calls):
            nursery.start_soon(one, index, call)
    return results
