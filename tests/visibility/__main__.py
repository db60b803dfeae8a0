"""Run the matrix and say what is wrong: `python -m tests.visibility [STORY ...]`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import trio

from tests.visibility.cells import HOLE, LEAK, Report
from tests.visibility.matrix import played
from tests.visibility.story import FAR_STORIES, STORIES


def tell(found: Report) -> None:
    """What some stories gave, each problem once."""
    for one in dict.fromkeys(str(problem) for problem in found.problems):
        print(one)
    print(f"  {found.cells.total()} cells, {len(found.problems)} problems", flush=True)


def main() -> int:
    """Play, look, print; 1 where something is wrong."""
    chosen = [
        one for one in (*STORIES, *FAR_STORIES) if not sys.argv[1:] or one.name in sys.argv[1:]
    ]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report: Report = trio.run(played, Path(folder), chosen, tell)
    print(
        f"{report.cells.total()} cells of {len(report.cells)} endpoints in "
        f"{time.monotonic() - started:.0f} s: {len(report.of(LEAK))} leaks, "
        f"{len(report.of(HOLE))} holes"
    )
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
