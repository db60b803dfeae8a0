"""Stream positions: one count for everything, allotted inside the transaction.

Positions must never come twice, not even when the rows with the highest ones were deleted before
a restart. So they are reserved in blocks in the one-row table `stream`, in the same transaction
that first uses the block: a page in a thousand commits. What a block still held at a crash is
skipped; an orderly close gives it back.
"""

from __future__ import annotations

from typing import Any

import apsw

from matrixbox.store.errors import StoreMisuse

BLOCK = 1_000

Mark = tuple[int, int]


class StreamPositions:
    """The counter of the one writer."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()
        try:
            rows: list[tuple[Any, ...]]
            rows = self._cursor.execute("SELECT reserved FROM stream").fetchall()
        except apsw.SQLError as error:
            raise StoreMisuse("the schema has no table stream (reserved)") from error
        if len(rows) != 1:
            raise StoreMisuse("the table stream must hold one row")
        self.last: int = rows[0][0]
        self._reserved = self.last

    def allot(self) -> int:
        """The next position; now and then this writes."""
        if self.last == self._reserved:
            self._cursor.execute("UPDATE stream SET reserved = ?", (self._reserved + BLOCK,))
            self._reserved += BLOCK
        self.last += 1
        return self.last

    def mark(self) -> Mark:
        """Where the counter stands, to rewind to when a transaction rolls back."""
        return self.last, self._reserved

    def rewind(self, mark: Mark) -> None:
        """Give back what was allotted since `mark`."""
        self.last, self._reserved = mark

    def give_back(self) -> None:
        """At an orderly close: the rest of the block is not skipped by the next start."""
        if self.last != self._reserved:
            self._cursor.execute("UPDATE stream SET reserved = ?", (self.last,))
            self._reserved = self.last
