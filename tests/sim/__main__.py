"""Run many simulations, and tell which failed and how to see one again.

python -m tests.sim --seeds 3000            all of them, on two processors
python -m tests.sim --first 17 --seeds 1 --show     one, with its course
python -m tests.sim --seeds 300 --with v2           a negative control: some must fail
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time

from tests.sim.faults import FAULTS
from tests.sim.plans import PLANS
from tests.sim.running import Outcome, simulate


def main() -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--with", dest="fault", choices=sorted(FAULTS))
    parser.add_argument("--plan", choices=sorted(PLANS), help="else drawn from the seed")
    parser.add_argument("--liar", choices=["always", "never"], help="else in half of the worlds")
    parser.add_argument("--show", action="store_true", help="print the course of events")
    parser.add_argument("--twice", action="store_true", help="run each seed twice: same trace?")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of strings is part of what happens.
        again = [sys.executable, "-m", "tests.sim", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})
    started = time.monotonic()
    seeds = range(options.first, options.first + options.seeds)
    liar = None if options.liar is None else options.liar == "always"
    work = [(seed, options.fault, options.show, liar, options.plan) for seed in seeds]
    work = [each for each in work for _ in range(2 if options.twice else 1)]
    failed: list[Outcome] = []
    digests: dict[int, str] = {}
    with multiprocessing.Pool(options.jobs, maxtasksperchild=50) as pool:
        outcomes = pool.imap(_simulate, work) if options.jobs > 1 else map(_simulate, work)
        for outcome in outcomes:
            if options.show:
                print("\n".join(outcome.lines))
            if outcome.error or options.seeds <= 20:
                print(outcome, flush=True)
            if outcome.error:
                failed.append(outcome)
            if digests.setdefault(outcome.seed, outcome.digest) != outcome.digest:
                print(f"seed {outcome.seed}: not the same trace twice")
                failed.append(outcome)
    took = time.monotonic() - started
    print(f"{len(work)} simulations in {took:.0f} s, {len(failed)} failed")
    print("seeds:", " ".join(str(outcome.seed) for outcome in failed)) if failed else None
    return 1 if failed else 0


def _simulate(work: tuple[int, str | None, bool, bool | None, str | None]) -> Outcome:
    seed, fault, keep, liar, plan = work
    return simulate(seed, fault=fault, keep=keep, liar=liar, plan=PLANS.get(plan or ""))


if __name__ == "__main__":
    sys.exit(main())
