"""Tasks that keep running, one plain error out of a nursery, and waits with a bound.

Every service of the server runs under `keep_running`; every function that opens a nursery inside
uses `one_error`; every lock that is waited for is a `HeldLock`, whose bound names the holder.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

import trio
from attrs import define, field

from matrixbox.observe import log

T = TypeVar("T")
Args = TypeVarTuple("Args")

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
CALM_AFTER_S = 600.0
"""A task that has run this long is healthy: its next failure starts from the first pause."""

CRASHES_ALLOWED = 10
CRASH_WINDOW_S = 600.0
"""One more than so many failures within the window end the process; systemd starts it anew."""


class CrashLoop(Exception):
    """A task failed again and again; the process should end (exit code 70)."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"{name} failed {CRASHES_ALLOWED + 1} times in {CRASH_WINDOW_S:.0f} s")


class WaitTooLong(Exception):
    """A bounded wait inside the process passed its bound; `what` says what was waited for."""

    def __init__(self, what: str, seconds: float) -> None:
        self.what = what
        super().__init__(f"waited {seconds:g} s for {what}")


def jittered(seconds: float, share: float = 0.2) -> float:
    """`seconds`, up to `share` more or less, so that what failed together is not retried together.

    The one place that may use `random` (threats T052): nothing here is secret.
    """
    return seconds * random.uniform(1 - share, 1 + share)  # noqa: S311


def pause_after(failures: int) -> float:
    """How long to wait, in seconds, before trying again after so many failures in a row."""
    # The exponent is bounded too: 2.0 ** 1100 overflows.
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(max(failures - 1, 0), 30))


async def keep_running(service: Callable[[], Awaitable[None]], *, name: str) -> None:
    """Run `service` until it returns; when a bug ends it, log, back off and start it again.

    Raises CrashLoop when it does not stay up. Expected trouble belongs inside the service.
    """
    crashes: deque[float] = deque(maxlen=CRASHES_ALLOWED + 1)
    in_a_row = 0
    while True:
        started = trio.current_time()
        try:
            with one_error():
                return await service()
        except Exception as failure:
            now = trio.current_time()
            crashes.append(now)
            in_a_row = 1 if now - started >= CALM_AFTER_S else in_a_row + 1
            if len(crashes) > CRASHES_ALLOWED and now - crashes[0] <= CRASH_WINDOW_S:
                log.bug("task crashes again and again", failure, task=name)
                raise CrashLoop(name) from failure
            pause = jittered(pause_after(in_a_row))
            log.bug("task crashed", failure, task=name, again_in_s=round(pause, 1))
        await trio.sleep(pause)


@define(eq=False)
class Outliving:
    """Tasks of a service that go on when those who wanted them have gone away."""

    _nursery: trio.Nursery | None = field(default=None, init=False, repr=False)

    async def run(self) -> None:
        """Own the tasks, for as long as the service runs."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def start(
        self,
        task: Callable[[Unpack[Args]], Awaitable[object]],
        *args: *Args,
        name: str | None = None,
    ) -> None:
        """Start a task; while the service does not run, it is done here and now."""
        if self._nursery is None:
            await task(*args)
        else:
            self._nursery.start_soon(task, *args, name=name)


@contextlib.contextmanager
def one_error() -> Iterator[None]:
    """Around `async with trio.open_nursery()`: raise one plain exception instead of a group.

    The first real error in the group wins, those beside it are noted on it. What ends the program
    (KeyboardInterrupt) goes before ordinary errors. Cancellation alone passes as it is.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        chosen, others = _choose(group)
        if chosen is None:
            raise
        for other in others:
            chosen.add_note(f"at the same time: {type(other).__name__}")
        context = chosen.__context__
        try:
            raise chosen
        finally:
            chosen.__context__ = context  # else the group, which holds it, would be its context


def _choose(
    group: BaseExceptionGroup[BaseException],
) -> tuple[BaseException | None, list[BaseException]]:
    """The exception to raise, and the others; None when everything in the group is Cancelled."""
    real = [leaf for leaf in _leaves(group) if not isinstance(leaf, trio.Cancelled)]
    if not real:
        return None, []
    real.sort(key=lambda leaf: isinstance(leaf, Exception))  # stable: others keep their order
    return real[0], real[1:]


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    waiting: list[BaseException] = [group]
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, BaseExceptionGroup):
            waiting[0:0] = found.exceptions
        else:
            yield found


@contextlib.contextmanager
def at_most(seconds: float, what: str) -> Iterator[None]:
    """Raise WaitTooLong when the block takes longer; for waits inside the process."""
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise WaitTooLong(what, seconds)


class HeldLock:
    """A lock that knows who holds it, so that whoever waits in vain can say for whom."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.holder: str | None = None
        self._lock = trio.Lock()

    @property
    def is_idle(self) -> bool:
        """Whether nobody holds it or waits for it."""
        return not self._lock.locked()

    @contextlib.asynccontextmanager
    async def held(self, by: str, at_most_s: float) -> AsyncIterator[None]:
        """Hold it inside the block; raises WaitTooLong, naming the holder, after `at_most_s`."""
        with trio.move_on_after(at_most_s) as scope:
            await self._lock.acquire()
        if scope.cancelled_caught:
            raise WaitTooLong(f"{self.what}, held by {self.holder}", at_most_s)
        self.holder = by
        try:
            yield
        finally:
            self.holder = None
            self._lock.release()


class Offload(Protocol):
    """Runs a function that takes over about 10 ms of processor time, and waits for it (T079)."""

    async def __call__(self, function: Callable[[*Args], T], *args: *Args) -> T: ...


async def in_thread(function: Callable[[*Args], T], *args: *Args) -> T:
    """In a thread; the way of a server that runs."""
    return await trio.to_thread.run_sync(function, *args)


async def at_once(function: Callable[[*Args], T], *args: *Args) -> T:
    """In the calling task, for simulations, whose course no thread may change."""
    await trio.lowlevel.checkpoint()
    return function(*args)
