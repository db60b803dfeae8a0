"""Soak a server under faults.

python -m tests.soak --minutes 20           and what it saw, a line a round
python -m tests.soak --minutes 2 --seed 7   the same faults again, as far as time allows
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

import trio

from tests.soak.running import soak


def main() -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--folder", type=Path, help="where everything lies; kept")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(10_000)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"seed {seed}, in {folder}", flush=True)
    outcome = trio.run(
        soak, folder, options.minutes * 60, seed, lambda line: print(line, flush=True)
    )
    print(outcome)
    for trouble in outcome.troubles:
        print(trouble)
    return 1 if outcome.troubles else 0


if __name__ == "__main__":
    sys.exit(main())
