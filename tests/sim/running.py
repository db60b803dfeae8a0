"""One simulation from its seed to its outcome."""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
import time
import traceback
from contextlib import nullcontext
from pathlib import Path

import trio
from attrs import define, evolve, field
from trio.testing import MockClock

from tests.sim.determinism import Trace, deterministic
from tests.sim.faults import FAULTS
from tests.sim.network import Network
from tests.sim.world import Plan, World, Wrong

MEMORY = Path("/dev/shm")
"""Where it is there, files in it cost no disk access."""


@define
class Outcome:
    """What became of a seed."""

    seed: int
    digest: str
    events: int
    virtual_s: float
    agreed_after_s: float
    took_s: float
    plan: Plan | None = None
    error: str = ""
    lines: list[str] = field(factory=list, repr=False)

    def __str__(self) -> str:
        words = (
            f"seed {self.seed}: {self.digest} {self.events} steps, {self.virtual_s:.0f} virtual s, "
            f"agreed after {self.agreed_after_s:.0f} s, took {self.took_s:.2f} s"
        )
        return f"{words}\n{self.plan}\n{self.error}" if self.error else words


class Bugs(logging.Handler):
    """Collects what the servers log as errors: there must be none."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a line."""
        self.found.append(f"{record.getMessage()} {getattr(record, 'fields', '')}")


def simulate(
    seed: int,
    *,
    fault: str | None = None,
    keep: bool = False,
    plan: Plan | None = None,
    liar: bool | None = None,
) -> Outcome:
    """Run one world; what must not happen is told as the outcome's `error`.

    `plan` replaces what the seed says, and `liar` whether there is one.
    """
    started = time.perf_counter()
    folder = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    trace, bugs = Trace(keep), Bugs()
    rng = random.Random(seed)
    world: World | None = None
    end = 0.0

    async def main() -> None:
        nonlocal world, end
        network = Network(random.Random(rng.random()), trace)
        drawn = plan or Plan.draw(rng)
        drawn = drawn if liar is None else evolve(drawn, liar=liar)
        world = World(seed, folder, drawn, trace, rng, network)
        try:
            await world.run()
        finally:
            end = trio.current_time()

    error = ""
    logger = logging.getLogger("matrixbox")
    level, logger.level = logger.level, logging.ERROR
    logger.addHandler(bugs)
    try:
        with deterministic(seed), FAULTS[fault]() if fault else nullcontext():
            trio.run(main, clock=MockClock(autojump_threshold=0))
    except BaseException as failure:
        if isinstance(failure, KeyboardInterrupt):
            raise
        error = _told(failure)
    finally:
        logger.removeHandler(bugs)
        logger.level = level
        shutil.rmtree(folder, ignore_errors=True)
    if bugs.found:
        error += "\nlogged: " + "\nlogged: ".join(dict.fromkeys(bugs.found))
    return Outcome(
        seed,
        trace.digest,
        trace.length,
        end,
        world.agreed_after_s if world else -1,
        time.perf_counter() - started,
        world.plan if world else None,
        error,
        trace.lines,
    )


def _told(failure: BaseException) -> str:
    while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]
    if isinstance(failure, Wrong):
        return f"Wrong: {failure}"
    return "".join(traceback.format_exception(failure))
