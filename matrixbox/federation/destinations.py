"""Which servers are worth a try: back-off after failures.

The specification is silent ([B5.06]; T083, T156).  A server that failed
is left alone for a minute, then twice as long each time, up to a day.  Any sign of life ends the
waiting, at most once a minute: a request of its own, or an answer to one of ours.  How servers
stand survives a restart; times inside a run come from Trio's clock, which does not step (T152).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
from attrs import define, field

from matrixbox.clock import Clock
from matrixbox.core.identifiers import ServerName
from matrixbox.store import outbound
from matrixbox.store.database import Store
from matrixbox.store.outbound import FailureKind, Trouble
from matrixbox.tasks import jittered

FIRST_PAUSE_S = 60.0
LONGEST_PAUSE_S = 24 * 3600.0
WOKEN_EVERY_S = 60.0
"""A server that calls us ends its waiting at most so often (T083)."""
MAX_KNOWN = 20_000
OUTAGE_S = 300.0
"""Nobody could be reached for so long, and then somebody: the fault was on our side."""
_STORE_AFTER_S = 1.0


@define(eq=False)
class _State:
    """A server that failed, in Trio's time."""

    failures: int
    kind: FailureKind
    retry_at: float
    woken_at: float = float("-inf")


@define(eq=False)
class Destinations:
    """How other servers stand.  Belongs to the Trio thread; `run` writes down what changes."""

    store: Store
    clock: Clock
    longest_s: float = LONGEST_PAUSE_S
    on_sign_of_life: list[Callable[[ServerName], None]] = field(factory=list, repr=False)
    on_recovery: list[Callable[[], None]] = field(factory=list, repr=False)
    on_delivery: list[Callable[[ServerName], None]] = field(factory=list, repr=False)
    on_call: list[Callable[[ServerName], None]] = field(factory=list, repr=False)
    _states: dict[ServerName, _State] = field(factory=dict)
    _heard_at: dict[ServerName, float] = field(factory=dict)
    _changed: dict[ServerName, None] = field(factory=dict)
    _news: trio.Event = field(factory=trio.Event)
    _good_at: float = field(factory=trio.current_time)
    _failed_since: bool = False

    def load(self) -> None:
        """Read how servers stood at the end of the last run."""
        now, now_ms = trio.current_time(), self.clock.now_ms()
        for trouble in self.store.read(outbound.troubles):
            pause_s = max(0.0, min((trouble.retry_ms - now_ms) / 1000, self.longest_s))
            self._states[trouble.server] = _State(trouble.failures, trouble.kind, now + pause_s)

    # --- asking

    def may_try(self, server: ServerName) -> bool:
        """Whether a request to a server is worth a try now."""
        state = self._states.get(server)
        return (
            state is None
            or state.kind is FailureKind.REFUSING
            or trio.current_time() >= state.retry_at
        )

    def send_at(self, server: ServerName) -> float:
        """When, in Trio's time, a server may be sent its next transaction; the past for now."""
        state = self._states.get(server)
        return float("-inf") if state is None else state.retry_at

    def failures(self, server: ServerName) -> int:
        """How often a server failed in a row."""
        state = self._states.get(server)
        return 0 if state is None else state.failures

    def heard_within(self, server: ServerName, seconds: float) -> bool:
        """Whether a server gave a sign of life so recently."""
        heard_at = self._heard_at.get(server)
        return heard_at is not None and heard_at >= trio.current_time() - seconds

    # --- telling

    def failed(
        self,
        server: ServerName,
        kind: FailureKind = FailureKind.UNREACHABLE,
        at_least_s: float = 0.0,
    ) -> None:
        """A server failed.  Failures at the same time count as one."""
        now = trio.current_time()
        self._failed_since = True
        state = self._states.get(server)
        if state is None:
            state = self._states[server] = _State(0, kind, now)
            if len(self._states) > MAX_KNOWN:
                del self._states[next(iter(self._states))]
        elif now < state.retry_at:
            return
        # The exponent is bounded too: 2.0 ** 1100 overflows.
        pause_s = min(self.longest_s, FIRST_PAUSE_S * 2.0 ** min(state.failures, 30))
        pause_s = max(jittered(pause_s), min(at_least_s, self.longest_s))
        state.failures += 1
        state.kind = kind
        state.retry_at = now + pause_s
        self._note(server)

    def succeeded(self, server: ServerName) -> None:
        """A server answered one of our requests, whatever it said."""
        self._hear(server)
        state = self._states.get(server)
        if state is None:
            return
        if state.kind is FailureKind.UNREACHABLE:
            self._clear(server)
        else:
            self._wake(server, state)

    def delivered(self, server: ServerName) -> None:
        """A server took a transaction."""
        self._hear(server)
        for call in self.on_delivery:
            call(server)
        if server in self._states:
            self._clear(server)

    def alive(self, server: ServerName) -> None:
        """A server called us."""
        self._hear(server)
        for call in self.on_call:
            call(server)
        state = self._states.get(server)
        if state is not None:
            self._wake(server, state)

    def _clear(self, server: ServerName) -> None:
        del self._states[server]
        self._note(server)
        for call in self.on_sign_of_life:
            call(server)

    def _wake(self, server: ServerName, state: _State) -> None:
        now = trio.current_time()
        if now - state.woken_at < WOKEN_EVERY_S:
            return
        state.woken_at = now
        if now < state.retry_at:
            state.retry_at = now
            self._note(server)
        # Those who wait longer than the back-off lasts want to know as well.
        for call in self.on_sign_of_life:
            call(server)

    def _hear(self, server: ServerName) -> None:
        now = trio.current_time()
        self._heard_at.pop(server, None)
        self._heard_at[server] = now
        if len(self._heard_at) > MAX_KNOWN:
            del self._heard_at[next(iter(self._heard_at))]
        was_silent = self._failed_since and now - self._good_at >= OUTAGE_S
        self._good_at, self._failed_since = now, False
        if was_silent:
            for call in self.on_recovery:
                call()

    # --- writing down

    def _note(self, server: ServerName) -> None:
        self._changed[server] = None
        self._news.set()

    async def run(self) -> None:
        """Write down what changes, together with what changes soon after."""
        try:
            while True:
                await self._news.wait()
                self._news = trio.Event()
                await trio.sleep(_STORE_AFTER_S)
                await self.write_down()
        finally:
            with trio.move_on_after(5) as scope:
                scope.shield = True
                await self.write_down()

    async def write_down(self) -> None:
        """Write down what changed and was not written yet."""
        changed, self._changed = self._changed, {}
        if changed:
            await self.store.write(outbound.put_troubles, self._as_stored([*changed]))

    def _as_stored(self, servers: Sequence[ServerName]) -> list[Trouble]:
        now, now_ms = trio.current_time(), self.clock.now_ms()
        found = []
        for server in servers:
            state = self._states.get(server)
            if state is None:
                found.append(Trouble(server, 0, FailureKind.NONE, 0))
            else:
                retry_ms = now_ms + round((state.retry_at - now) * 1000)
                found.append(Trouble(server, state.failures, state.kind, retry_ms))
        return found
