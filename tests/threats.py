"""Which threats of the catalogue have a test.

    python -m tests.threats             all of them
    python -m tests.threats A B C       some groups
    python -m tests.threats --missing   those without a test

A test counts for a threat when it cites its number: `t042` in a name, `T042` in a text.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

HERE = Path(__file__).resolve().parent
_NUMBER = re.compile(r"(?<![A-Za-z0-9])[Tt](\d{3})(?![0-9])|(?<=_)t(\d{3})(?=_)")


@frozen
class Threat:
    """One entry of the catalogue."""

    number: str
    group: str
    title: str


def catalogue() -> list[Threat]:
    """All entries."""
    with (HERE / "threats.tsv").open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [Threat(row["number"], row["group"], row["threat"]) for row in rows]


def cited() -> dict[str, list[str]]:
    """The files of tests that cite a number."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.rglob("*.py")):
        if path == Path(__file__).resolve() or "node_modules" in path.parts:
            continue
        numbers = {one or other for one, other in _NUMBER.findall(path.read_text())}
        for number in numbers:
            found.setdefault(f"T{number}", []).append(str(path.relative_to(HERE)))
    return found


def table(threats: Sequence[Threat], files: Mapping[str, Sequence[str]]) -> str:
    """One line for each threat."""
    return "\n".join(
        f"{threat.number} {threat.group} {threat.title}: "
        f"{', '.join(files.get(threat.number, ())) or '-'}"
        for threat in threats
    )


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m tests.threats", description=__doc__)
    parser.add_argument("groups", nargs="*")
    parser.add_argument("--missing", action="store_true")
    options = parser.parse_args()
    files = cited()
    threats = [
        threat
        for threat in catalogue()
        if (not options.groups or threat.group in options.groups)
        and not (options.missing and threat.number in files)
    ]
    print(table(threats, files))
    covered = sum(threat.number in files for threat in threats)
    print(f"{covered} of {len(threats)} have a test")
    return 0


if __name__ == "__main__":
    sys.exit(main())
