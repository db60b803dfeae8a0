"""Documents say what the code does."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import attrs
import pytest

from matrixbox import __version__
from matrixbox.cli.parser import parser

TOP = Path(__file__).resolve().parents[1]
DOCS = TOP / "matrixbox" / "docs"

UNITS = {
    "": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "s": 1, "min": 60, "h": 3600,
}  # fmt: skip
ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<value>[^|]+) \| `(?P<where>[\w.]+:[\w.]+)` \|$", re.M)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """The lines in a document's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def documented(value: str) -> float:
    number, _, unit = value.partition(" ")
    return float(number.replace(",", "")) * UNITS[unit]


def coded(where: str) -> float:
    """A constant, or a field's default, in bytes or seconds."""
    module, _, path = where.partition(":")
    found: object = import_module(f"matrixbox.{module}")
    for name in path.split("."):
        if isinstance(found, type) and attrs.has(found):
            found = found()  # the defaults
        found = getattr(found, name)
    assert isinstance(found, int | float)
    return found * (1024 if where.endswith("_KIB") else 1)


def test_the_readme_has_exactly_two_commands():
    serve, test = commands(read(TOP / "README.md"))
    assert serve.endswith(".venv/bin/matrixbox serve")
    assert test == "python3 tests/run.py"
    assert test in read(TOP / ".ci" / "run").splitlines()


def test_every_limit_in_the_documents_is_the_one_in_the_code():
    rows = list(ROW.finditer(read(DOCS / "limits.md")))
    lines = [line for line in read(DOCS / "limits.md").splitlines() if "`" in line and "|" in line]
    assert len(rows) == len(lines) > 40
    wrong = {
        row["where"]: (row["value"], coded(row["where"]))
        for row in rows
        if documented(row["value"]) != coded(row["where"])
    }
    assert wrong == {}


def test_every_bound_of_the_front_door_is_documented():
    bounds = attrs.fields(import_module("matrixbox.api.bounds").Bounds)
    text = read(DOCS / "limits.md")
    missing = {field.name for field in bounds if f"Bounds.{field.name}`" not in text}
    # How the bounds are kept, not what somebody outside meets.
    assert missing == {
        "drain_bytes",
        "drain_s",
        "large_body_bytes",
        "slot_wait_s",
        "spare_descriptors",
        "spool_over_bytes",
        "stop_s",
        "sweep_s",
        "waiting_per_user",
    }


def test_commands_in_the_documents_exist():
    shown = re.findall(r"`matrixbox ((?:serve|init|check|user|key|settings)[^`…]*)`", "".join(
        read(path) for path in [TOP / "README.md", *sorted(DOCS.glob("*.md"))]
    ))  # fmt: skip
    assert len(shown) >= 8
    for command in shown:
        words = shlex.split(command)
        if words == ["user"]:
            continue
        try:
            parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"matrixbox {command}")


def test_files_named_in_the_documents_exist():
    texts = {path: read(path) for path in [TOP / "README.md", *sorted(DOCS.glob("*.md"))]}
    for path, text in texts.items():
        for name in re.findall(r"`((?:matrixbox|tests|packaging)/[\w./-]+)`", text):
            assert (TOP / name).exists(), f"{path.name} names {name}"


def test_every_suite_is_explained():
    text = read(TOP / "tests" / "README.md")
    suites = [path.name for path in (TOP / "tests").iterdir() if (path / "__init__.py").exists()]
    assert [name for name in suites if f"`{name}/`" not in text] == []


def test_versions_agree():
    assert f'version = "{__version__}"' in read(TOP / "pyproject.toml")
    assert f"## {__version__}" in read(DOCS / "changes.md")


def test_the_top_level_holds_what_was_agreed():
    names = {path.name for path in TOP.iterdir() if not path.name.startswith(".")}
    agreed = {"pyproject.toml", "matrixbox", "tests", "packaging", "matrixbox.toml", "README.md"}
    assert names - {"build", "dist", "node_modules"} == agreed | {"LICENSE"}
