"""Soak a server under faults.

python -m tests.soak --minutes 20           and what it saw, a line a round
python -m tests.soak --minutes 2 --seed 7   the same faults again, as far as time allows
python -m tests.soak --minutes 2 --with letters_lost    a negative control: must find troubles
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from functools import partial
from pathlib import Path

import trio

from tests.soak.faults import CONTROLS, FAULTS
from tests.soak.running import soak

NAMED = CONTROLS | {fault.__name__: fault for fault in FAULTS}


def main() -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--folder", type=Path, help="where everything lies; kept")
    parser.add_argument("--with", dest="only", choices=sorted(NAMED), help="this fault only")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(10_000)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"seed {seed}, in {folder}", flush=True)
    tell = partial(print, flush=True)
    only = NAMED.get(options.only)
    outcome = trio.run(soak, folder, options.minutes * 60, seed, tell, only)
    print(f"{outcome}\n{len(outcome.troubles)} troubles")
    return 1 if outcome.troubles else 0


if __name__ == "__main__":
    sys.exit(main())
