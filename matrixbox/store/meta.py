"""What the database knows about the server it belongs to."""

from __future__ import annotations

from matrixbox.store.transaction import Tx


def get_text(tx: Tx, key: str) -> str | None:
    """A stored text."""
    row = tx.one("SELECT value FROM meta WHERE key = ?", key)
    return None if row is None else str(row[0])


def put_text(tx: Tx, key: str, value: str) -> None:
    """Store a text."""
    tx.run(
        "INSERT INTO meta (key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        key,
        value,
    )


def count_up(tx: Tx, key: str) -> int:
    """The next number of a count that begins at 1."""
    row = tx.one("SELECT value FROM meta WHERE key = ?", key)
    number = 1 if row is None else int(row[0]) + 1
    tx.run(
        "INSERT INTO meta (key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        key,
        number,
    )
    return number
