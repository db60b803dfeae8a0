"""`Tx`: what a transaction function works with.

A transaction function is synchronous, takes a `Tx` first, and returns values. It never waits, and
its `Tx` ends with it. The same type serves reads; there, writing is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, Protocol, TypeVarTuple

import apsw

from matrixbox.store.caches import Caches
from matrixbox.store.changes import Key, StreamPos, inbox_key, receipts_key, room_key, user_key
from matrixbox.store.errors import StoreError, StoreMisuse, is_fatal, translate
from matrixbox.store.failures import Failures

Row = tuple[Any, ...]
Args = TypeVarTuple("Args")


class Positions(Protocol):
    """Where a writing transaction gets its stream positions from."""

    @property
    def last(self) -> int: ...

    def allot(self) -> int: ...


class Cursor(Protocol):
    """What `Tx` needs of an apsw cursor."""

    def execute(self, sql: str, bindings: Any = ..., /) -> Any: ...

    def executemany(self, sql: str, bindings: Any, /) -> Any: ...


class _Over:
    """In the place of the cursor once a transaction is over."""

    def execute(self, *_: object) -> NoReturn:
        raise StoreMisuse("this transaction is over")

    executemany = execute


OVER = _Over()


class Tx:
    """One transaction. Statements are cached by their text, so the text is always a literal.

    `writable` tells a write from a read. `caches` are the store's own in reads in the Trio thread
    and in ordinary writes, and empty private ones in long reads and heavy writes, which run in
    other threads: what is shared belongs to the Trio thread.
    """

    __slots__ = (
        "_after_commit",
        "_connection",
        "_cursor",
        "_failures",
        "_keys",
        "_lost",
        "_positions",
        "_started_at",
        "caches",
        "writable",
    )

    def __init__(
        self,
        connection: apsw.Connection,
        cursor: Cursor,
        failures: Failures,
        caches: Caches,
        positions: Positions | None = None,
    ) -> None:
        self._connection = connection
        self._cursor = cursor
        self._failures = failures
        self._positions = positions
        self._started_at = 0 if positions is None else positions.last
        self._keys: set[Key] = set()
        self._after_commit: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._lost: StoreError | None = None
        self.caches = caches
        self.writable = positions is not None

    def run(self, sql: str, *bindings: apsw.SQLiteValue) -> list[Row]:
        """Run one statement and return all its rows."""
        try:
            return self._cursor.execute(sql, bindings).fetchall()  # type: ignore[no-any-return]
        except apsw.Error as error:
            raise self._failure(error) from error

    def one(self, sql: str, *bindings: apsw.SQLiteValue) -> Row | None:
        """The first row, or None; meant for statements that find at most one."""
        rows = self.run(sql, *bindings)
        return rows[0] if rows else None

    def many(self, sql: str, rows: Iterable[Sequence[apsw.SQLiteValue]]) -> None:
        """Run one statement once for each row of bindings."""
        try:
            self._cursor.executemany(sql, rows).fetchall()
        except apsw.Error as error:
            raise self._failure(error) from error

    @property
    def last_rowid(self) -> int:
        """The row id of the last insertion into a table that has row ids."""
        return self._connection.last_insert_rowid()

    @property
    def rows_changed(self) -> int:
        """How many rows the last INSERT, UPDATE or DELETE touched, triggers not counted."""
        return self._connection.changes()

    def position(self) -> StreamPos:
        """Allot the next stream position; it is given back when the transaction rolls back."""
        if self._positions is None:
            raise StoreMisuse("a read has no stream position")
        try:
            return StreamPos(self._positions.allot())
        except apsw.Error as error:
            raise self._failure(error) from error

    def changed(
        self,
        *,
        rooms: Iterable[int] = (),
        users: Iterable[int] = (),
        receipts: Iterable[int] = (),
        inboxes: Iterable[int] = (),
        topics: Iterable[str] = (),
    ) -> StreamPos:
        """Record whom this transaction concerns: the doorbell rings for them after the commit.

        Returns the position of the change: the last one this transaction has allotted, or a new
        one if there is none yet. Rooms, users, the rooms of `receipts` and the users of `inboxes`
        are named by number; topics are names that services of ours listen to.
        """
        if self._positions is None:
            raise StoreMisuse("a read changes nothing")
        self._keys.update(map(room_key, rooms))
        self._keys.update(map(user_key, users))
        self._keys.update(map(receipts_key, receipts))
        self._keys.update(map(inbox_key, inboxes))
        self._keys.update(topics)
        last = self._positions.last
        return StreamPos(last) if last > self._started_at else self.position()

    def after_commit(self, function: Callable[[*Args], object], *args: *Args) -> None:
        """Call a function in the Trio thread once the commit is durable, before the doorbell
        rings and before anybody is answered: the place to update a cache. Dropped on rollback.
        """
        if self._positions is None:
            raise StoreMisuse("a read commits nothing")
        self._after_commit.append((function, args))

    def _failure(self, error: apsw.Error) -> StoreError:
        """Translate, and notice when SQLite itself has rolled the whole transaction back."""
        translated = translate(error)
        if self.writable and self._connection.get_autocommit():
            # No space, no memory, I/O error: what came next would commit statement by statement.
            self._lost = translated
            self._cursor = OVER
        if is_fatal(error) or (self.writable and isinstance(error, apsw.ReadOnlyError)):
            self._failures.report(error)
        return translated
