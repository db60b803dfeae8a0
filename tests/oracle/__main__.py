"""`python -m tests.oracle`: compare random rooms three ways.

Exit status 1 if a judge says something that nothing explains.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator

from tests.oracle.compare import BATCH, Comparison, Failure, reproducer
from tests.oracle.explaining import BY_NAME
from tests.oracle.synapse_pipe import Synapse, environment
from tests.oracle.tally import Tally

PORTION = BATCH * 25
SHOWN = 5
"""Reproducers are worth reading; more than these are counted only."""


def main() -> int:
    options = arguments().parse_args()
    if options.departures:
        for known in BY_NAME.values():
            print(f"{known.name}\n    {known.why}")
        return 0
    interpreter = None if options.without_synapse else environment()
    tally, failures, started, done = Tally(), list[str](), time.monotonic(), 0
    ranges = [
        range(start, min(start + PORTION, options.first + options.graphs))
        for start in range(options.first, options.first + options.graphs, PORTION)
    ]
    tasks = [(options.seed, numbers, interpreter, not options.without_core) for numbers in ranges]
    for numbers, (told, found) in zip(ranges, portions(tasks, options.jobs), strict=True):
        tally.add(told)
        failures += found
        done += len(numbers)
        rate = done / (time.monotonic() - started)
        print(f"{done} graphs, {rate:.0f}/s, {len(failures)} unexplained", file=sys.stderr)
    print("\n".join(tally.lines()))
    print(f"{done} graphs in {time.monotonic() - started:.0f} s, {len(failures)} unexplained")
    print("\n\n".join(failures[:SHOWN]))
    return 1 if failures else 0


def portions(tasks: list[tuple], jobs: int) -> Iterator[tuple[Tally, list[str]]]:
    """Work through the tasks in order; with more than one job in that many processes."""
    if jobs == 1:
        yield from map(portion, tasks)
    else:
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            yield from pool.imap(portion, tasks)


def portion(task: tuple) -> tuple[Tally, list[str]]:
    seed, numbers, interpreter, with_core = task
    synapse = None if interpreter is None else Synapse(interpreter)
    comparison = Comparison(seed, synapse, with_core)
    found: list[Failure] = list(comparison.run(numbers))
    told = [
        reproducer(failure, synapse) if shown < SHOWN else failure.headline()
        for shown, failure in enumerate(found)
    ]
    if synapse is not None:
        synapse.close()
    return comparison.tally, told


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument("--graphs", type=int, default=2000, help="how many rooms")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other rooms")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with a Synapse")
    parser.add_argument("--without-core", action="store_true", help="reference and Synapse only")
    parser.add_argument("--without-synapse", action="store_true", help="core and reference only")
    parser.add_argument("--departures", action="store_true", help="list the known ones and exit")
    return parser


if __name__ == "__main__":
    sys.exit(main())
