"""The schema that the migrations make, as one file to read: matrixbox/store/schema.sql.

python -m tests.store.engine_schema      writes it anew, after a new migration
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import apsw

import matrixbox.store
from matrixbox.store.migrate import Migration, migrate, shipped_migrations

SCHEMA_FILE = Path(matrixbox.store.__file__).with_name("schema.sql")


def schema_text(steps: Sequence[Migration]) -> str:
    """All statements of the schema, in the order of their creation."""
    connection = apsw.Connection(":memory:")
    migrate(connection, steps)
    statements = connection.execute(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid"
    ).fetchall()
    head = (
        f"-- What the migrations make, up to number {len(steps)}. Made by a command: don't edit.\n"
    )
    return head + "".join(f"\n{sql};\n" for (sql,) in statements)


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(shipped_migrations()), "utf-8")
