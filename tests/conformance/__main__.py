"""Take down what a public suite of tests said of this server.

    python -m tests.conformance RESULTS…             results.json, or csapi=results.log
    python -m tests.conformance --table FILE RESULTS…

Each RESULTS is a file with what the suite's test programs printed, as lines or as JSON, or - for
standard input; NAME= before it is the name of the package where the file does not tell.  Packages
in it replace those of the table, others stay.  What changed is printed, and how many there are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conformance.results import Results, changes, counts, merged, parse, read, table

TABLE = Path(__file__).resolve().with_name("complement.tsv")


def read_argument(argument: str) -> Results:
    """The results in one file of the command line."""
    name, named, path = argument.rpartition("=")
    package = name if named else None
    if path == "-":
        return read(sys.stdin, package)
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        return read(file, package)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("results", nargs="+", metavar="RESULTS")
    options = parser.parse_args(arguments)
    found: Results = {}
    for argument in options.results:
        try:
            results = read_argument(argument)
        except (OSError, ValueError) as error:
            parser.error(f"{argument}: {error}")
        if not results:
            parser.error(f"{argument}: there is no result of a test in it")
        found |= results
    old = parse(options.table.read_text(encoding="utf-8")) if options.table.exists() else {}
    new = merged(old, found)
    options.table.write_text(table(new), encoding="utf-8")
    print("\n".join([*changes(old, new), *counts(new)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
