"""Where the work that waits for the disk runs: in threads, or inline in tests and simulation.

A thread hands its results to the Trio thread through `Gate`. Measured here, an empty round trip
costs 63 us through a thread of our own and the gate, 117 us through `trio.to_thread`, 92 us when
the thread answers by `TrioToken.run_sync_soon`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Generic, Protocol, TypeVar

import trio
from attrs import frozen

T = TypeVar("T")

SWITCH_INTERVAL_S = 0.0001
"""How long a thread waits for the interpreter before it asks for it. With Python's own 5 ms a busy
Trio loop, which gives the interpreter up for a moment at each tick, starves our threads for
seconds: a commit took 14 s at worst in 2 ms ticks, and 16 ms with this value."""


class Runner(Enum):
    """How a store works: with threads, or everything at once in the calling task."""

    THREADS = "threads"
    INLINE = "inline"


@frozen
class Result(Generic[T]):
    """What a function returned or raised; both are None while it has done neither."""

    value: T | None = None
    error: BaseException | None = None


def run(function: Callable[[], T]) -> Result[T]:
    """Call a function, whatever happens."""
    try:
        return Result(value=function())
    except BaseException as error:  # noqa: BLE001 (given to whoever waits for the result)
        return Result(error=error)


class Worker(Protocol):
    """Runs one function after the other; `done` is called in the Trio thread."""

    def submit(self, function: Callable[[], T], done: Callable[[Result[T]], None]) -> None: ...

    def stop(self) -> None: ...


class InlineWorker:
    """Runs at once, in the caller: the same order of things, without any thread."""

    def submit(self, function: Callable[[], T], done: Callable[[Result[T]], None]) -> None:
        """Run the function and report, before this returns."""
        done(run(function))

    def stop(self) -> None:
        """Nothing to stop."""


class Gate:
    """Runs functions in the Trio thread on behalf of other threads.

    What is posted must not raise: it would end the whole run. A pipe wakes the loop; one byte
    does for all that was posted before the loop looked.
    """

    def __init__(self) -> None:
        self._posted: deque[Callable[[], None]] = deque()
        self._reading = self._writing = -1
        self._signalled = False
        self._pump_scope: trio.CancelScope | None = None

    def enter(self) -> None:
        """Start serving the running Trio loop; called before anything waits for a thread."""
        if self._pump_scope is None:
            self._reading, self._writing = os.pipe()
            os.set_blocking(self._reading, False)
            self._pump_scope = trio.CancelScope()
            trio.lowlevel.spawn_system_task(self._pump, self._pump_scope, name="store.gate")

    def post(self, function: Callable[[], None]) -> None:
        """Have a function called in the Trio thread soon. From any thread."""
        self._posted.append(function)
        if not self._signalled and self._writing >= 0:
            self._signalled = True
            os.write(self._writing, b"!")

    async def _pump(self, scope: trio.CancelScope) -> None:
        try:
            with scope:
                while True:
                    await trio.lowlevel.wait_readable(self._reading)
                    with contextlib.suppress(BlockingIOError):  # woken for nothing
                        os.read(self._reading, 64)
                    self.serve()
        finally:
            reading, writing = self._reading, self._writing
            self._reading = self._writing = -1  # first: their numbers may be used anew at once
            os.close(reading)
            os.close(writing)

    def serve(self) -> None:
        """Call what was posted."""
        self._signalled = False  # before looking: what comes now signals again
        while self._posted:
            self._posted.popleft()()

    def close(self) -> None:
        """Serve what is left, and stop. In the Trio thread, once no other thread posts any more."""
        if self._pump_scope is not None:
            self.serve()
            self._pump_scope.cancel()  # the pump closes the pipe when it has left it


class ThreadWorker:
    """One long-lived thread that runs functions in order, started when first needed."""

    def __init__(self, gate: Gate, name: str) -> None:
        self._gate = gate
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[[], T], done: Callable[[Result[T]], None]) -> None:
        """Run the function in the thread, then `done` in the Trio thread."""

        def job() -> None:
            result = run(function)
            self._gate.post(lambda: done(result))

        if self._thread is None:
            sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def stop(self) -> None:
        """Let the thread finish what it has, and wait for it."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
