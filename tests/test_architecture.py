"""The order of imports and the shape of modules, read from the sources.

A folder imports lower rows only, never a neighbour in its own row; the core waits for nothing;
nothing uses asyncio; `random` is for jitter alone (threats T052); modules stay small and say what
they are.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

TOP = Path(__file__).resolve().parents[1]
PACKAGE = TOP / "matrixbox"

# From the lowest row to the highest. `keyfile` and `datafolder` are small modules of their own.
ROWS = (
    ("core",),
    ("errors", "config", "clock", "observe"),
    ("store", "net", "tasks", "keyfile", "datafolder"),
    ("accounts", "tls"),
    ("rooms",),
    ("e2ee", "media"),
    ("sync", "federation", "push", "appservice"),
    ("household",),
    ("api",),
    ("serve",),
    ("cli",),
    ("__main__",),
)
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}

# Row 1 is the one row whose members may see each other where it is written here: log lines tell
# our own errors by their type.
NEIGHBOURS = {("observe", "errors")}

CORE_PACKAGES = {"nacl", "canonicaljson", "attrs", "attr", "orjson"}
CORE_FORBIDDEN = {
    "asyncio", "datetime", "http", "io", "logging", "multiprocessing", "os", "pathlib", "random",
    "secrets", "select", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile",
    "threading", "time", "urllib", "uuid",
}  # fmt: skip
ONLY_IN = {
    "apsw": {"store"},
    "quart": {"api"},
    "quart_trio": {"api"},
    "hypercorn": {"api"},
    "argon2": {"accounts"},
    "dns": {"net"},
    "h11": {"net", "api"},
    "smtplib": {"net"},
    "tomllib": {"config"},
    "argparse": {"cli"},
    "nacl": {"core", "household", "accounts"},
}
"""Each library is wrapped in one folder, so that it can be replaced there."""

MAX_LINES = 500
MAX_FUNCTION_LINES = 80


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(module: Path) -> str:
    return str(module.relative_to(TOP))


def place_of(module: Path) -> str:
    """The folder or module directly under matrixbox/ that a file belongs to."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree_of(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def imports_of(module: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported, wherever in the module it stands."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(module)}:{node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def own_imports(module: Path) -> Iterator[tuple[int, str]]:
    """Line and place of everything imported from this project."""
    for line, name in imports_of(module):
        parts = name.split(".")
        if parts[0] == "matrixbox" and len(parts) > 1:
            yield line, parts[1]


Check: TypeAlias = Callable[[Path], Iterator[str]]


def problems(check: Check) -> list[str]:
    """What a check has to say about all modules, each with its file."""
    return [f"{name_of(module)}:{text}" for module in modules() for text in check(module)]


def upward_imports(module: Path) -> Iterator[str]:
    here = place_of(module)
    for line, there in own_imports(module):
        allowed = (
            here == there
            or there.startswith("__")
            or ROW_OF[there] < ROW_OF.get(here, -1)
            or (here, there) in NEIGHBOURS
        )
        if not allowed:
            yield f"{line}: {here} must not import {there}"


def impurities(module: Path) -> Iterator[str]:
    if place_of(module) != "core":
        return
    for line, name in imports_of(module):
        package = name.partition(".")[0]
        known = package in CORE_PACKAGES | {"matrixbox"} or package in sys.stdlib_module_names
        if not known or package in CORE_FORBIDDEN:
            yield f"{line}: the core must not import {name}"
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"{node.lineno}: the core does not wait"


def other_event_loops(module: Path) -> Iterator[str]:
    for line, name in imports_of(module):
        if name.partition(".")[0] in ("asyncio", "anyio", "curio"):
            yield f"{line}: imports {name}"


def guessable_randomness(module: Path) -> Iterator[str]:
    for line, name in imports_of(module):
        if name.partition(".")[0] == "random" and name_of(module) != "matrixbox/tasks.py":
            yield f"{line}: imports {name}"


def libraries_out_of_place(module: Path) -> Iterator[str]:
    for line, name in imports_of(module):
        places = ONLY_IN.get(name.partition(".")[0])
        if places is not None and place_of(module) not in places:
            yield f"{line}: imports {name}, which belongs into {' or '.join(sorted(places))}"


def oversized_or_unexplained(module: Path) -> Iterator[str]:
    tree = tree_of(module)
    lines = module.read_text(encoding="utf-8").count("\n")
    if lines > MAX_LINES:
        yield f"1: {lines} lines: split it by concern"
    if tree.body and not ast.get_docstring(tree):
        yield "1: what is this module?"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{node.lineno}: {node.name} has {length} lines"


def hidden_cycles(module: Path) -> Iterator[str]:
    """Imports of ours that only the type checker sees."""
    for block in ast.walk(tree_of(module)):
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test):
            for node in ast.walk(block):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("matrixbox"):
                    yield f"{node.lineno}: the running program does not see this import"


def doors_for_tests(module: Path) -> Iterator[str]:
    text = module.read_text(encoding="utf-8").lower()
    for word in ("pytest", "unittest", "_testing", "test_mode"):
        if word in text:
            yield f"1: knows about {word}"


def test_every_place_has_a_row():
    places = {place_of(module) for module in modules()} - {"__init__"}
    assert places <= set(ROW_OF), "give it a row in ROWS, and in the architecture"


def test_imports_go_downwards_only():
    assert problems(upward_imports) == []


def test_the_core_is_pure():
    assert problems(impurities) == []


def test_there_is_one_event_loop_library():
    assert problems(other_event_loops) == []


def test_t052_random_is_for_jitter_only():
    assert problems(guessable_randomness) == []


def test_each_library_is_wrapped_in_one_place():
    assert problems(libraries_out_of_place) == []


def test_modules_and_functions_are_small_and_say_what_they_are():
    assert problems(oversized_or_unexplained) == []


def test_no_cycle_is_hidden_from_the_running_program():
    assert problems(hidden_cycles) == []


def test_t171_nothing_depends_on_being_under_test():
    assert problems(doors_for_tests) == []


@pytest.mark.parametrize(
    ("check", "file", "text"),
    [
        (upward_imports, "core/wrong.py", "from matrixbox import errors"),
        (upward_imports, "core/wrong.py", "import matrixbox.store.database"),
        (upward_imports, "store/wrong.py", "def f():\n    from matrixbox.tasks import one_error"),
        (upward_imports, "__init__.py", "import matrixbox.core"),
        (impurities, "core/wrong.py", "import socket"),
        (impurities, "core/wrong.py", "import trio"),
        (impurities, "core/wrong.py", "async def f(): pass"),
        (other_event_loops, "store/wrong.py", "import asyncio.subprocess"),
        (guessable_randomness, "accounts/wrong.py", "from random import choice"),
        (libraries_out_of_place, "rooms/wrong.py", "import apsw"),
        (oversized_or_unexplained, "rooms/wrong.py", "x = 1"),
        (oversized_or_unexplained, "rooms/wrong.py", '"""X."""' + "\n" * 501),
        (oversized_or_unexplained, "rooms/wrong.py", '"""X."""\ndef f():\n' + " x\n" * 80),
        (hidden_cycles, "rooms/wrong.py", "if TYPE_CHECKING:\n    from matrixbox.sync import v3"),
        (doors_for_tests, "rooms/wrong.py", "import unittest.mock"),
    ],
)
def test_what_must_be_refused_is_refused(tmp_path, monkeypatch, check, file, text):
    """The negative control of each check above."""
    monkeypatch.setattr(sys.modules[__name__], "TOP", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "matrixbox")
    wrong = tmp_path / "matrixbox" / file
    wrong.parent.mkdir(parents=True, exist_ok=True)
    wrong.write_text(text)
    assert len(problems(check)) == 1
