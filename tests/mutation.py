"""A small mutation tester for the modules whose correctness a room depends on.

    python tests/mutation.py [module ...] [--show N]

Each mutant is one small change in a module of matrixbox/core: a comparison, a Boolean or arithmetic
operator, a constant, a returned value, a condition turned round, a statement taken away.  It
survives if no test of tests/core notices.  The command fails if fewer than 95 of 100 mutants are
noticed, or if an entry of mutation_equivalents.toml matches no mutant any more.

How it works: tests are collected once, and once run to learn which lines of the modules each of
them executes.  For each mutant a child process is forked, in which the code of the changed function
is exchanged; it runs the tests that execute the changed line until one fails.  Texts of errors,
docstrings, annotations and declarations in class bodies are not changed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pytest  # noqa: E402
from _pytest.runner import runtestprotocol  # noqa: E402
from attrs import define, field, frozen  # noqa: E402

MODULES = (
    "auth",
    "auth_member",
    "graph",
    "hashes",
    "levels",
    "pruning",
    "redaction",
    "resolve",
    "resolve_v1",
    "resolve_v2",
    "signing",
    "visibility",
)
EQUIVALENTS = Path(__file__).with_name("mutation_equivalents.toml")
TARGET = 0.95
FIRST_ROUND = 150  # tests tried before all the others
TIMEOUT_S = 15.0


@frozen
class Mutant:
    """One changed module."""

    module: str
    function: str  # qualified name; "" for statements of the module itself
    line: int
    last_line: int  # of what was changed, without the bodies of statements
    change: str  # "before  ->  after"
    source: str = field(repr=False)
    before: ast.AST = field(repr=False)
    after: ast.AST = field(repr=False)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.module, self.function, self.change

    @property
    def tree(self) -> ast.Module:
        """The changed module."""
        tree = ast.parse(self.source)
        swap(tree, self.before, copy.deepcopy(self.after))
        return tree


# --- making mutants

Edit = Callable[[], ast.AST]

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """The changed forms of one node."""
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            for other in COMPARISONS[type(op)]:
                ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.BinOp):
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from constants(node.value)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(negated(node.test), node.body, node.orelse)
    elif isinstance(node, ast.If):
        yield ast.If(negated(node.test), node.body, node.orelse)
    elif isinstance(node, ast.While):
        yield ast.While(negated(node.test), node.body, node.orelse)
    elif isinstance(node, ast.Return) and not isinstance(node.value, ast.Constant | None):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.AugAssign):
        yield ast.AugAssign(node.target, OPERATORS[type(node.op)](), node.value)
        yield ast.Pass()
    elif isinstance(node, ast.Continue):
        yield ast.Break()
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.Expr | ast.Raise | ast.Delete):
        yield ast.Pass()


def constants(value: Any) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(value + 1.0)
    elif isinstance(value, str):
        yield ast.Constant(value + "X")
    elif isinstance(value, bytes):
        yield ast.Constant(value + b"X")


def negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


class Finder(ast.NodeVisitor):
    """Walks over a module and makes a mutant of every change."""

    def __init__(self, module: str, source: str) -> None:
        self.module = module
        self.source = source
        self.tree = ast.parse(source)
        self.scope: list[str] = []
        self.in_class_body = False
        self.mutants: list[Mutant] = []
        self.seen: dict[tuple[str, str], int] = {}

    def run(self) -> list[Mutant]:
        for node in self.tree.body:
            self.visit_statement(node)
        return self.mutants

    def visit_statement(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom) or is_docstring(node):
            return
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    self.visit_function(inner, node.name)
        elif isinstance(node, ast.FunctionDef):
            self.visit_function(node)
        elif not is_dunder_all(node):
            self.walk(node, "")

    def visit_function(self, node: ast.FunctionDef, owner: str = "") -> None:
        name = f"{owner}.{node.name}" if owner else node.name
        for inner in node.body:
            if not is_docstring(inner):
                self.walk(inner, name)

    def walk(self, node: ast.AST, function: str) -> None:
        """Change this node, then go into it; texts of errors and annotations stay as they are."""
        self.change(node, function)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            children = value if isinstance(value, list) else [value]
            for child in children:
                if not isinstance(child, ast.AST) or is_docstring(child):
                    continue
                if isinstance(node, ast.Raise) and isinstance(child, ast.Call):
                    continue
                if isinstance(child, ast.Constant) and isinstance(node, ast.JoinedStr):
                    continue
                self.walk(child, function)

    def change(self, node: ast.AST, function: str) -> None:
        for replacement in replacements(node):
            change = f"{brief(node)}  ->  {brief(replacement)}"
            count = self.seen.get((function, change), 0)
            self.seen[function, change] = count + 1
            if count:
                change += f"  ({count + 1})"
            first, last = span(node)
            mutant = Mutant(
                self.module, function, first, last, change, self.source, node, replacement
            )
            self.mutants.append(mutant)


def span(node: ast.AST) -> tuple[int, int]:
    """The lines of a node, without the bodies of statements."""
    end = node.test if isinstance(node, ast.If | ast.While) else node
    return getattr(node, "lineno", 0), getattr(end, "end_lineno", 0)


def brief(node: ast.AST) -> str:
    """A node on one line, without the bodies of statements."""
    if isinstance(node, ast.If | ast.While):
        keyword = "if" if isinstance(node, ast.If) else "while"
        return f"{keyword} {ast.unparse(node.test)}:"
    return " ".join(ast.unparse(ast.fix_missing_locations(node)).split())


def swap(tree: ast.Module, old: ast.AST, new: ast.AST) -> None:
    """Put a copy of `new` in the place that `old` has in a fresh copy of its tree."""
    place = (type(old), old.lineno, old.col_offset, old.end_lineno, old.end_col_offset)  # type: ignore[attr-defined]

    class Swap(ast.NodeTransformer):
        done = False

        def visit(self, node: ast.AST) -> ast.AST:
            here = (
                type(node),
                getattr(node, "lineno", None),
                getattr(node, "col_offset", None),
                getattr(node, "end_lineno", None),
                getattr(node, "end_col_offset", None),
            )
            if not self.done and here == place:
                self.done = True
                return ast.copy_location(new, node)
            return self.generic_visit(node)

    swapping = Swap()
    swapping.visit(tree)
    assert swapping.done, ast.unparse(old)
    ast.fix_missing_locations(tree)


def is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def is_dunder_all(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
    )


# --- exchanging code


def install(mutant: Mutant, module: ModuleType) -> None:
    """Give the module's function, or its constants, the mutant's code.  Only in a child process."""
    tree = mutant.tree
    code = compile(tree, str(module.__file__), "exec")
    if mutant.function:
        found = [
            function for function in functions(module) if function.__qualname__ == mutant.function
        ]
        for function in found:
            function.__code__ = find_code(code, mutant.function)
        assert found, mutant.function
        return
    namespace: dict[str, Any] = {"__name__": module.__name__, "__file__": module.__file__}
    exec(code, namespace)
    changed = {target.id for target in assigned(tree, mutant.line)}
    for name in changed:
        old = vars(module)[name]
        for other in list(sys.modules.values()):
            if getattr(other, name, None) is old:
                setattr(other, name, namespace[name])


def functions(module: ModuleType) -> Iterator[FunctionType]:
    """All functions and methods that a module defines."""
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == module.__name__:
            for member in vars(value).values():
                inner = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if isinstance(inner, FunctionType):
                    yield inner
        inner = getattr(value, "__wrapped__", value)
        if isinstance(inner, FunctionType) and inner.__module__ == module.__name__:
            yield inner


def find_code(code: CodeType, qualname: str) -> CodeType:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_qualname == qualname:
                return constant
            if qualname.startswith(constant.co_qualname + "."):
                return find_code(constant, qualname)
    raise LookupError(qualname)


def assigned(tree: ast.Module, line: int) -> Iterator[ast.Name]:
    for node in tree.body:
        if node.lineno <= line <= (node.end_lineno or node.lineno):
            targets = (
                node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            )
            for target in targets:
                if isinstance(target, ast.Name):
                    yield target


# --- running tests


@define
class Collected:
    """A pytest plugin that does something else with the collected tests than running them."""

    run: Callable[[pytest.Session], None]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.run(session)
        return True


def passes(item: pytest.Item) -> bool:
    reports = runtestprotocol(item, log=False, nextitem=None)
    return all(report.passed for report in reports)


def learn(items: list[pytest.Item], files: set[str]) -> dict[str, dict[tuple[str, int], None]]:
    """For each test the lines of the modules that it executes."""
    lines: dict[tuple[str, int], None] = {}

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            lines[frame.f_code.co_filename, frame.f_lineno] = None
        return local

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        return local if frame.f_code.co_filename in files else None

    found = {}
    for item in items:
        lines = {}
        sys.settrace(trace)
        try:
            ok = passes(item)
        finally:
            sys.settrace(None)
        if not ok:
            raise SystemExit(f"{item.nodeid} fails without any mutation")
        found[item.nodeid] = lines
    return found


def is_noticed(mutant: Mutant, module: ModuleType, tests: list[pytest.Item]) -> bool:
    """Fork, exchange the code, run the tests; True if one fails or nothing ends in time."""
    child = os.fork()
    if child == 0:
        noticed = True
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            install(mutant, module)
            noticed = not all(map(passes, tests))
        finally:
            os._exit(1 if noticed else 0)
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status != 0
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return True
        time.sleep(0.002)


def examine(
    mutants: list[Mutant], modules: dict[str, ModuleType], session: pytest.Session
) -> list[Mutant]:
    """The mutants that survive."""
    files = {str(module.__file__) for module in modules.values()}
    items = [item for item in session.items if isinstance(item, pytest.Item)]
    started = time.monotonic()
    reached = learn(items, files)
    covering: dict[tuple[str, int], list[pytest.Item]] = {}
    for item in sorted(items, key=lambda item: len(reached[item.nodeid])):
        for place in reached[item.nodeid]:
            covering.setdefault(place, []).append(item)
    print(f"{len(items)} tests, lines learnt in {time.monotonic() - started:.0f} s", flush=True)
    survivors = []
    for number, mutant in enumerate(mutants, 1):
        module = modules[mutant.module]
        tests = relevant(mutant, str(module.__file__), covering, items)
        noticed = is_noticed(mutant, module, spread(tests)) or (
            len(tests) > FIRST_ROUND and is_noticed(mutant, module, tests)
        )
        if not noticed:
            survivors.append(mutant)
        if number % 100 == 0:
            seconds = time.monotonic() - started
            print(f"{number} of {len(mutants)}, {len(survivors)} left, {seconds:.0f} s", flush=True)
    return survivors


def relevant(
    mutant: Mutant,
    file: str,
    covering: dict[tuple[str, int], list[pytest.Item]],
    items: list[pytest.Item],
) -> list[pytest.Item]:
    """The tests that execute the changed lines; for statements of a module, all tests."""
    if not mutant.function:
        return items
    lines = range(mutant.line, mutant.last_line + 1)
    return list(dict.fromkeys(test for line in lines for test in covering.get((file, line), ())))


def spread(tests: list[pytest.Item]) -> list[pytest.Item]:
    """At most a first round's worth of tests, from everywhere in the list."""
    step = max(1, len(tests) // FIRST_ROUND)
    return tests[::step]


# --- the command


def load_equivalents() -> dict[tuple[str, str, str], str]:
    """Mutants that change nothing anybody could notice, each with the reason."""
    entries = tomllib.loads(EQUIVALENTS.read_text()).get("equivalent", [])
    return {
        (entry["module"], entry["function"], entry["change"]): entry["reason"] for entry in entries
    }


def report(mutants: list[Mutant], survivors: list[Mutant], stale: set[tuple[str, str, str]]) -> int:
    for name in sorted({mutant.module for mutant in mutants}):
        made = sum(mutant.module == name for mutant in mutants)
        left = sum(mutant.module == name for mutant in survivors)
        print(f"{name:12} {made:5} mutants {left:4} survive  {1 - left / made:7.1%}")
    for mutant in survivors:
        where = f"{mutant.module}.py:{mutant.line} {mutant.function or '(module)'}"
        print(f"survives: {where}\n    {mutant.change}")
    for module, function, change in sorted(stale):
        print(f"stale entry of {EQUIVALENTS.name}: {module} {function}\n    {change}")
    score = 1 - len(survivors) / len(mutants)
    print(f"score {score:.1%} of {len(mutants)} mutants")
    return 0 if score >= TARGET and not stale else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation testing of matrixbox/core")
    parser.add_argument("module", nargs="*", help="default: all of " + " ".join(MODULES))
    names = parser.parse_args().module or list(MODULES)
    equivalents = load_equivalents()
    made: list[Mutant] = []
    for name in names:
        source = (ROOT / "matrixbox" / "core" / f"{name}.py").read_text()
        made += Finder(name, source).run()
    stale = {key for key in equivalents if key[0] in names} - {mutant.key for mutant in made}
    mutants = [mutant for mutant in made if mutant.key not in equivalents]
    print(f"{len(mutants)} mutants, {len(made) - len(mutants)} known to be equivalent", flush=True)
    found: list[list[Mutant]] = []

    def run(session: pytest.Session) -> None:
        modules = {name: importlib.import_module(f"matrixbox.core.{name}") for name in names}
        found.append(examine(mutants, modules, session))

    os.environ["MATRIXBOX_TEST_SIZE"] = "mutation"
    plugin = Collected(run)
    options = ["-q", "-p", "no:cacheprovider", "-s", "--no-header"]
    pytest.main([*options, str(ROOT / "tests" / "core")], plugins=[plugin])
    if not found:
        print("the tests could not be run")
        return 2
    return report(mutants, found[0], stale)


if __name__ == "__main__":
    sys.exit(main())
