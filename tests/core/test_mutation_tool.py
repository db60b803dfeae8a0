"""The mutation tester itself: that its mutants differ, are installed, and count."""

from __future__ import annotations

import ast
import sys
from types import ModuleType

import pytest

from tests import mutation

SOURCE = '''
"""A docstring is left alone."""
__all__ = ["f"]
LIMIT = 5


class Box:
    size: int = 3

    @property
    def big(self) -> bool:
        """So is this one."""
        return self.size > LIMIT


def f(x: "int", y=1):
    if x is not None and not x in (1, 2):
        x += y
        list("side effect")
    while x > 10:
        x = x - 1
        continue
    if x == -1:
        raise ValueError(f"left {x} alone")
    return "a" if x else b"b"
'''


def mutants() -> list[mutation.Mutant]:
    return mutation.Finder("sample", SOURCE).run()


def test_every_operator_makes_its_mutants():
    changes = [mutant.change for mutant in mutants()]
    for expected in (
        "5  ->  6",
        "self.size > LIMIT  ->  self.size >= LIMIT",
        "self.size > LIMIT  ->  self.size < LIMIT",
        "return self.size > LIMIT  ->  return None",
        "x is not None and (not x in (1, 2))  ->  x is not None or not x in (1, 2)",
        "x is not None  ->  x is None",
        "not x in (1, 2)  ->  x in (1, 2)",
        "x in (1, 2)  ->  x not in (1, 2)",
        "x += y  ->  x -= y",
        "x += y  ->  pass",
        "list('side effect')  ->  pass",
        "'side effect'  ->  'side effectX'",
        "while x > 10:  ->  while not x > 10:",
        "x - 1  ->  x + 1",
        "continue  ->  break",
        "if x == -1:  ->  if not x == -1:",
        "-1  ->  1",
        "raise ValueError(f'left {x} alone')  ->  pass",
        "'a' if x else b'b'  ->  'a' if not x else b'b'",
        "b'b'  ->  b'bX'",
    ):
        assert changes.count(expected) == 1, expected
    assert not any("docstring" in change or "alone'X" in change for change in changes)
    assert len({mutant.key for mutant in mutants()}) == len(changes)


def test_every_mutant_is_another_program():
    original = ast.unparse(ast.parse(SOURCE))
    programs = {ast.unparse(mutant.tree) for mutant in mutants()}
    assert original not in programs
    assert len(programs) == len(mutants())


def sample() -> ModuleType:
    module = ModuleType("sample_for_mutation")
    module.__file__ = "sample.py"
    exec(compile(ast.parse(SOURCE), "sample.py", "exec"), vars(module))
    return module


def test_changed_functions_methods_and_constants_are_installed(monkeypatch):
    def with_change(change: str) -> ModuleType:
        module = sample()
        monkeypatch.setitem(sys.modules, module.__name__, module)
        mutation.install(next(m for m in mutants() if m.change == change), module)
        return module

    assert with_change("x - 1  ->  x + 1").f(3) == "a"
    module = sample()
    function = module.f
    assert function(5) == "a"
    assert with_change("'a' if x else b'b'  ->  'a' if not x else b'b'").f(5) == b"b"
    assert sample().Box().big is False
    assert with_change("self.size > LIMIT  ->  self.size < LIMIT").Box().big is True
    assert with_change("5  ->  6").LIMIT == 6


def test_a_survivor_lowers_the_score_and_a_stale_entry_fails(capsys):
    made = mutants()
    assert mutation.report(made, [], set()) == 0
    assert mutation.report(made, made[:5], set()) == 1
    assert mutation.report(made, [], {("sample", "f", "gone")}) == 1
    assert "stale" in capsys.readouterr().out


def test_every_listed_equivalent_has_a_reason_and_matches_a_mutant():
    made = {
        mutant.key
        for name in mutation.MODULES
        for mutant in mutation.Finder(
            name, (mutation.ROOT / "matrixbox" / "core" / f"{name}.py").read_text()
        ).run()
    }
    for key, reason in mutation.load_equivalents().items():
        assert key in made
        assert len(reason) > 20


@pytest.mark.parametrize("name", mutation.MODULES)
def test_every_module_makes_mutants(name):
    source = (mutation.ROOT / "matrixbox" / "core" / f"{name}.py").read_text()
    assert len(mutation.Finder(name, source).run()) > 10
