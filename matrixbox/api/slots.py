"""How many requests are handled at once: in all, for one user, for one server.

A request waits in line for a slot, for a bounded time, and then is told to come back later (429).
While it waits for one of its user's slots it holds none of the common ones, so a single account
cannot use up the server. A long poll that waits for news gives its slots back and is counted apart:
a household whose devices all wait still has every slot for those that write (threats T078, T082).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import inf

import trio

from matrixbox.api.bounds import Bounds
from matrixbox.errors import LimitExceeded

_COME_BACK_MS = 2000


class Slots:
    """So many at once; the others wait in line, first come first served."""

    __slots__ = ("_at_once", "_in_use", "_line", "_line_length", "_wait_s")

    def __init__(self, at_once: int, *, line_length: float = inf, wait_s: float) -> None:
        self._at_once = at_once
        self._line_length = line_length
        self._wait_s = wait_s
        self._in_use = 0
        self._line = trio.lowlevel.ParkingLot()

    @property
    def is_unused(self) -> bool:
        """Whether nobody has a slot or waits for one."""
        return not self._in_use and not self._line

    def take_now(self) -> bool:
        """Take a slot if there is one."""
        if self._in_use >= self._at_once:
            return False
        self._in_use += 1
        return True

    async def take(self) -> None:
        """Take a slot, after a wait if need be; raises LimitExceeded after too long a one."""
        if self.take_now():
            return
        if len(self._line) < self._line_length:
            with trio.move_on_after(self._wait_s):
                # Who gives a slot back hands it to the first in line.
                await self._line.park()
                return
        raise LimitExceeded(_COME_BACK_MS)

    def give_back(self) -> None:
        """Give a slot back, to the first in line if there is one."""
        if self._line:
            self._line.unpark()
        else:
            self._in_use -= 1


class Turns:
    """All slots of the server."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.common = Slots(bounds.requests_at_once, wait_s=bounds.slot_wait_s)
        self.large_bodies = Slots(bounds.large_bodies_at_once, wait_s=bounds.large_body_wait_s)
        self.waiting = LongPolls(bounds)
        self._of_spender: dict[str, Slots] = {}

    def of_spender(self, spender: str, *, is_server: bool) -> Slots:
        """The slots of one user or server."""
        slots = self._of_spender.get(spender)
        if slots is None:
            bounds = self.bounds
            slots = self._of_spender[spender] = Slots(
                bounds.requests_per_origin if is_server else bounds.requests_per_user,
                line_length=bounds.requests_queued_per_origin if is_server else inf,
                wait_s=bounds.slot_wait_s,
            )
        return slots

    def forget_unused(self, spender: str) -> None:
        """Drop the record of a spender who has nothing in use."""
        slots = self._of_spender.get(spender)
        if slots is not None and slots.is_unused:
            del self._of_spender[spender]


class Turn:
    """The slots of one request."""

    __slots__ = ("_has_common", "_has_large", "_is_server", "_own", "_spender", "_turns")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._has_common = False
        self._has_large = False
        self._spender: str | None = None
        self._is_server = False
        self._own: Slots | None = None

    async def begin(self) -> None:
        """Take one of the common slots."""
        if not self._turns.common.take_now():
            await self._turns.common.take()
        self._has_common = True

    async def charge(self, spender: str, *, is_server: bool) -> None:
        """The requester is known: take one of theirs as well."""
        self._spender = spender
        self._is_server = is_server
        slots = self._turns.of_spender(spender, is_server=is_server)
        if not slots.take_now():
            self._give_back_common()
            await slots.take()
            self._own = slots
            await self.begin()
        self._own = slots

    async def take_large_body(self) -> None:
        """A large body is going to be parsed; what it becomes lives until the request ends."""
        if not self._has_large:
            await self._turns.large_bodies.take()
            self._has_large = True

    def end(self) -> None:
        """Give everything back."""
        self._give_back_common()
        if self._has_large:
            self._has_large = False
            self._turns.large_bodies.give_back()
        if self._own is not None:
            self._own.give_back()
            self._own = None
        if self._spender is not None:
            self._turns.forget_unused(self._spender)

    @asynccontextmanager
    async def waiting(self, timeout_s: float) -> AsyncIterator[trio.CancelScope]:
        """Wait inside for at most `timeout_s` without holding slots; see Call.waiting."""
        polls = self._turns.waiting
        with polls.counted(self._spender or ""):
            self.end()
            with polls.scope(timeout_s) as scope:
                yield scope
        await self.begin()
        if self._spender is not None:
            await self.charge(self._spender, is_server=self._is_server)

    def _give_back_common(self) -> None:
        if self._has_common:
            self._has_common = False
            self._turns.common.give_back()


class LongPolls:
    """The requests that wait for news; they can all be told to answer now."""

    def __init__(self, bounds: Bounds) -> None:
        self._per_user = bounds.waiting_per_user
        self._counts: Counter[str] = Counter()
        self._scopes: set[trio.CancelScope] = set()
        self.is_stopping = False

    def __len__(self) -> int:
        return len(self._scopes)

    def stop(self) -> None:
        """End all waiting, now and from now on: the server stops."""
        self.is_stopping = True
        for scope in self._scopes:
            scope.cancel()

    @contextmanager
    def counted(self, spender: str) -> Iterator[None]:
        """One more waits for this user; raises LimitExceeded for too many."""
        if self._counts[spender] >= self._per_user:
            raise LimitExceeded(_COME_BACK_MS)
        self._counts[spender] += 1
        try:
            yield
        finally:
            self._counts[spender] -= 1
            if not self._counts[spender]:
                del self._counts[spender]

    @contextmanager
    def scope(self, timeout_s: float) -> Iterator[trio.CancelScope]:
        """A wait that ends after `timeout_s`, or when the server stops."""
        with trio.move_on_after(timeout_s) as scope:
            self._scopes.add(scope)
            if self.is_stopping:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)
