"""Every SQL statement of the tree is a literal, lives in store/, and fits the schema.

Statements are collected from the source: the first argument of `.run`, `.one` and `.many` calls.
Each is compiled against a fresh schema and against one that was upgraded from every version.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import apsw
import apsw.ext
import pytest
from attrs import frozen

import matrixbox
from matrixbox.store.migrate import migrate, shipped_migrations

TREE = Path(matrixbox.__file__).parent
METHODS = {"run", "one", "many"}

# The engine's own modules: they hold transactions, pragmas and the table of positions.
ENGINE = {"checkpoint", "connection", "migrate", "positions", "readers", "transaction", "writer"}

NOT_FOR_FUNCTIONS = {
    "BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE",
    "PRAGMA", "ATTACH", "DETACH", "VACUUM", "CREATE", "DROP", "ALTER", "REINDEX",
}  # fmt: skip


@frozen
class Statement:
    """One call that runs SQL."""

    module: str
    line: int
    sql: str | None  # None: not a literal

    def __str__(self) -> str:
        return f"{self.module}:{self.line}"


def is_transaction(node: ast.expr) -> bool:
    """Whether an expression names a transaction: `tx`, `self.tx`, `write_tx` …"""
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return name == "tx" or name.endswith("_tx")


def statements_in(source: str, module: str) -> Iterator[Statement]:
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in METHODS
            and is_transaction(node.func.value)
        ):
            first = node.args[0] if node.args else None
            literal = isinstance(first, ast.Constant) and isinstance(first.value, str)
            yield Statement(module, node.lineno, first.value if literal else None)


def modules() -> Iterator[tuple[str, str]]:
    for path in sorted(TREE.rglob("*.py")):
        yield str(path.relative_to(TREE).with_suffix("")), path.read_text("utf-8")


def all_statements() -> list[Statement]:
    found = []
    for module, source in modules():
        if module.removeprefix("store/") not in ENGINE:
            found.extend(statements_in(source, module))
    return found


def schema_upgraded_from(version: int) -> apsw.Connection:
    """A database that stood at `version`, and was then brought up to date; 0: a new one."""
    connection = apsw.Connection(":memory:")
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    steps = shipped_migrations()
    migrate(connection, steps[:version])
    migrate(connection, steps)
    return connection


def compiles(connection: apsw.Connection, sql: str) -> str | None:
    """What is wrong with a statement, or None."""
    try:
        info = apsw.ext.query_info(connection, sql, explain=True)
    except apsw.Error as error:
        return str(error)
    if info.query_remaining and info.query_remaining.strip():
        return "more than one statement"
    return None


@pytest.mark.parametrize("version", range(len(shipped_migrations()) + 1))
def test_every_statement_compiles_against_the_schema(version: int) -> None:
    connection = schema_upgraded_from(version)
    wrong = {
        str(statement): problem
        for statement in all_statements()
        if statement.sql is not None and (problem := compiles(connection, statement.sql))
    }
    assert wrong == {}


def test_there_are_statements_to_check() -> None:
    assert len(all_statements()) > 50


def test_sql_is_whole_and_literal() -> None:
    assert [str(statement) for statement in all_statements() if statement.sql is None] == []


def test_sql_lives_in_the_store_only() -> None:
    assert [str(s) for s in all_statements() if not s.module.startswith("store/")] == []


def test_only_the_store_imports_apsw() -> None:
    def imports_apsw(source: str) -> bool:
        return any(
            (
                isinstance(node, ast.Import)
                and any(n.name.split(".")[0] == "apsw" for n in node.names)
            )
            or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "apsw")
            for node in ast.walk(ast.parse(source))
        )

    guilty = [name for name, source in modules() if imports_apsw(source)]
    assert [name for name in guilty if not name.startswith("store/")] == []


def test_transaction_functions_leave_transactions_and_the_schema_alone() -> None:
    bad = [
        str(statement)
        for statement in all_statements()
        if statement.sql and statement.sql.split(maxsplit=1)[0].upper() in NOT_FOR_FUNCTIONS
    ]
    assert bad == []


@pytest.mark.parametrize(
    ("source", "literal"),
    [
        ('tx.run("SELECT 1")', True),
        ('tx.run("SELECT" " 1", x)', True),
        ('self.tx.one("SELECT " + column)', False),
        ('tx.many(f"DELETE FROM {table}", rows)', False),
        ("read_tx.run(QUERY)", False),
        ("tx.run()", False),
    ],
)
def test_the_collector_tells_literals_from_the_rest(source: str, literal: bool) -> None:
    (found,) = statements_in(source, "x")
    assert (found.sql is not None) == literal


def test_the_collector_leaves_other_calls_alone() -> None:
    assert list(statements_in("trio.run(main); worker.run(1); row.one()", "x")) == []


def test_what_does_not_fit_the_schema_is_found() -> None:
    connection = schema_upgraded_from(0)
    assert compiles(connection, "SELECT nid FROM event WHERE nid = ?") is None
    assert compiles(connection, "SELECT no_such_column FROM event") is not None
    assert compiles(connection, 'SELECT nid FROM event WHERE event_id = "x"') is not None
    assert compiles(connection, "SELECT 1; SELECT 2") == "more than one statement"
