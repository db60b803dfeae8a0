"""Reading what Go's test programs print, and the table that is kept of it.

Both forms are read: the lines of `go test -v`, and the JSON that `go test -json` or `go tool
test2json` makes of them.  A test that began and never ended counts as failed: its program died.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

Results = dict[tuple[str, str], str]
"""Package and test: "pass", "fail" or "skip"."""

HEADER = "package\ttest\tresult"
WORDS = ("pass", "fail", "skip")
_BEGUN = re.compile(r"=== RUN +(\S.*)")
_ENDED = re.compile(r"--- (PASS|FAIL|SKIP): (\S.*) \([0-9.]+s\)")


def read(lines: Iterable[str], package: str | None = None) -> Results:
    """The results of one run.

    ``package`` is the name of a run whose lines do not tell it.  Raises ValueError without either.
    """
    found: Results = {}
    for line in lines:
        event = _event(line)
        if event is None:
            continue
        name, test, result = event
        name = package or name
        if not name:
            raise ValueError("these lines do not name their package: write NAME=FILE")
        if result is not None:
            found[name, test] = result
        else:
            found.setdefault((name, test), "fail")
    return found


def _event(line: str) -> tuple[str, str, str | None] | None:
    """Package, test and result of a line; None for a line about something else."""
    if line.startswith("{"):
        return _json_event(line)
    text = line.strip().lstrip("\x16")
    if begun := _BEGUN.fullmatch(text):
        return "", begun[1], None
    if ended := _ENDED.fullmatch(text):
        return "", ended[2], ended[1].lower()
    return None


def _json_event(line: str) -> tuple[str, str, str | None] | None:
    try:
        event: Any = json.loads(line)
    except ValueError:
        return None  # what a test printed
    if not isinstance(event, dict) or not event.get("Test"):
        return None
    action = event.get("Action")
    if action not in ("run", *WORDS):
        return None
    return short_name(event.get("Package", "")), event["Test"], None if action == "run" else action


def short_name(package: str) -> str:
    """The end of a package's path behind its folder of tests, or the last part."""
    _, inside, rest = package.rpartition("/tests/")
    return rest if inside else package.rpartition("/")[2]


def table(results: Mapping[tuple[str, str], str]) -> str:
    """The results as lines, sorted."""
    rows = ["\t".join((*key, results[key])) for key in sorted(results)]
    return "\n".join([HEADER, *rows, ""])


def parse(text: str) -> Results:
    """The results in a table.  Raises ValueError for what is none."""
    header, *rows = text.splitlines()
    if header != HEADER:
        raise ValueError("that is not a table of results")
    found: Results = {}
    for row in rows:
        package, test, result = row.split("\t")
        if result not in WORDS:
            raise ValueError(f"no such result: {result}")
        found[package, test] = result
    return found


def merged(old: Results, new: Results) -> Results:
    """New results over old ones: packages that were run are replaced as a whole."""
    run = {package for package, _ in new}
    return {**{key: result for key, result in old.items() if key[0] not in run}, **new}


def changes(old: Results, new: Results) -> list[str]:
    """What differs between two tables, a line for each test, the losses first."""
    differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    differing.sort(key=lambda key: (old.get(key) != "pass", key))
    return [
        f"{package} {test}: {old.get((package, test), 'not there')}"
        f" -> {new.get((package, test), 'not there')}"
        for package, test in differing
    ]


def counts(results: Results) -> list[str]:
    """For each package how many tests, of those without others below them, ended how."""
    parents = {
        (package, test[:at]) for package, test in results for at in _slashes(test)
    }  # what looks like a parent need not be one: names have slashes too
    ended: dict[str, Counter[str]] = {}
    for key in sorted(results.keys() - parents):
        ended.setdefault(key[0], Counter())[results[key]] += 1
    return [
        f"{package}: {', '.join(f'{found[word]} {word}' for word in WORDS)}"
        for package, found in ended.items()
    ]


def _slashes(test: str) -> list[int]:
    return [at for at, letter in enumerate(test) if letter == "/"]
