"""What is tried again and again until it succeeds, each thing at its own time, so many at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

import trio
from attrs import define, field

from matrixbox.tasks import jittered

Key = TypeVar("Key", bound=Hashable)

IDLE_S = 3600.0  # the longest sleep


@define(eq=False)
class Agenda(Generic[Key]):
    """Keys, and when each is due in Trio's time; a key is worked off by one task at a time."""

    at_once: int
    _due: dict[Key, float] = field(factory=dict, repr=False)
    _busy: set[Key] = field(factory=set, repr=False)
    _news: trio.Event = field(factory=trio.Event, repr=False)

    def __contains__(self, key: Key) -> bool:
        """Whether a key has a time, which one that is being worked off may have anew."""
        return key in self._due

    async def run(self, work: Callable[[Key], Awaitable[None]]) -> None:
        """Work off what is due, for ever. What ``work`` raises ends it."""
        limiter = trio.CapacityLimiter(self.at_once)
        async with trio.open_nursery() as nursery:
            while True:
                self._news = trio.Event()
                now = trio.current_time()
                for key in [key for key, due in self._due.items() if due <= now]:
                    if key not in self._busy:
                        del self._due[key]
                        self._busy.add(key)
                        nursery.start_soon(self._work_off, key, work, limiter)
                waiting = [due for key, due in self._due.items() if key not in self._busy]
                with trio.move_on_after(max(0.0, min([*waiting, now + IDLE_S]) - now)):
                    await self._news.wait()

    async def _work_off(
        self,
        key: Key,
        work: Callable[[Key], Awaitable[None]],
        limiter: trio.CapacityLimiter,
    ) -> None:
        try:
            async with limiter:
                await work(key)
        finally:
            self._busy.discard(key)
            self._news.set()

    def put_off(self, key: Key, pause_s: float) -> None:
        """Let a key be due after about this many seconds, and at no other time."""
        self._due[key] = trio.current_time() + jittered(pause_s)
        self._news.set()

    def drop(self, key: Key) -> None:
        """Let a key have no time any more."""
        self._due.pop(key, None)

    def later_than(self, within_s: float, *, with_busy: bool) -> list[Key]:
        """The keys that are due later than so many seconds from now.

        ``with_busy``: those too that are being worked off just now and have no time of their own.
        """
        latest = trio.current_time() + within_s
        later = [key for key, due in self._due.items() if due > latest]
        return later + [key for key in self._busy if key not in self._due] if with_busy else later

    def hasten(self, keys: Iterable[Key], within_s: float) -> None:
        """Let keys be due in so many seconds."""
        due = trio.current_time() + within_s
        for key in keys:
            self._due[key] = due
            self._news.set()
