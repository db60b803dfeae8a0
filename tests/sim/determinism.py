"""One seed decides everything: the order of tasks, what is random, and what a thread would do.

    with deterministic(seed):
        trio.run(main, clock=MockClock(autojump_threshold=0))

Python's hash seed decides the order of sets of strings, so a trace is the same again only in
processes that share it; the command sets it (see ``__main__``).
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
from attrs import define, field
from trio._core import _run

T = TypeVar("T")


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """While this lasts, Trio's scheduler, all randomness and all threads follow the seed.

    What would run in a thread runs at once instead: the order of things without the time that
    they take.
    """
    source = random.Random(f"entropy {seed}")
    scheduler: Any = _run
    before = (
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING,
        scheduler._r.getstate(),
        random.getstate(),
        random._urandom,  # type: ignore[attr-defined]  # what `secrets` draws from
        os.urandom,
        trio.to_thread.run_sync,
    )
    try:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
        scheduler._r.seed(seed)
        random.seed(seed)
        random._urandom = source.randbytes  # type: ignore[attr-defined]
        os.urandom = source.randbytes
        trio.to_thread.run_sync = _at_once  # type: ignore[assignment]
        yield
    finally:
        (
            scheduler._ALLOW_DETERMINISTIC_SCHEDULING,
            scheduler_state,
            random_state,
            random._urandom,  # type: ignore[attr-defined]
            os.urandom,
            trio.to_thread.run_sync,
        ) = before
        scheduler._r.setstate(scheduler_state)
        random.setstate(random_state)


async def _at_once(function: Callable[..., T], *args: Any, **_: Any) -> T:
    await trio.lowlevel.checkpoint()
    return function(*args)


@define
class Trace:
    """What happened, in order, as one hash; the lines themselves only when somebody wants them."""

    keep: bool = False
    lines: list[str] = field(factory=list)
    length: int = 0
    _hash: Any = field(factory=hashlib.sha256)

    def note(self, *words: object) -> None:
        """Something happened now."""
        line = f"{trio.current_time():.6f} {' '.join(map(str, words))}"
        self._hash.update(line.encode() + b"\n")
        self.length += 1
        if self.keep:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        """The name of this course of events."""
        found: str = self._hash.hexdigest()[:16]
        return found
