"""How long a peer may take, for each thing that a connection does.

A change of phase costs two assignments; the door lets time go by for all connections together, a
few times a second. A deadline is therefore met to within one such step, and no request pays for
timers.
"""

from __future__ import annotations

from enum import Enum

from matrixbox.api.bounds import UNBOUNDED, Bounds
from matrixbox.api.wire import Wire


class Phase(Enum):
    """What a connection is doing."""

    HANDSHAKE = "handshake"
    IDLE = "idle"
    HEAD = "head"
    HANDLING = "handling"
    BODY = "body"
    SENDING = "sending"
    CLOSING = "closing"


class Pace:
    """Whether a transfer keeps up: a longest stall, and a slowest rate over a window.

    Time counts only while the transfer waits for the peer; every byte that moves earns some of it
    back, up to the window. All in seconds and bytes.
    """

    __slots__ = ("_credit_s", "_mark", "_rate", "_stall_s", "_stalled_s", "_window_s")

    def __init__(
        self, *, moved: int, rate: float, grace_s: float, window_s: float, stall_s: float
    ) -> None:
        self._rate = rate
        self._credit_s = grace_s
        self._window_s = window_s
        self._stall_s = stall_s
        self._stalled_s = 0.0
        self._mark = moved

    def begin(self) -> None:
        """The transfer waits for the peer from now on."""
        self._stalled_s = 0.0

    def keeps_up(self, moved: int, waited_s: float) -> bool:
        """Account for `waited_s` of waiting, when `moved` bytes in all have gone by."""
        if moved != self._mark:
            self._credit_s = min(self._window_s, self._credit_s + (moved - self._mark) / self._rate)
            self._mark = moved
            self._stalled_s = 0.0
        else:
            self._stalled_s += waited_s
        self._credit_s -= waited_s
        return self._credit_s >= 0 and self._stalled_s <= self._stall_s


class Patience:
    """The phase of one connection, and whether its peer is too late in it."""

    __slots__ = (
        "_body_left_s",
        "_bounds",
        "_handled_s",
        "_left_s",
        "_reading",
        "_sending",
        "_wire",
        "phase",
    )

    def __init__(self, bounds: Bounds, wire: Wire) -> None:
        self.phase = Phase.HANDSHAKE
        self._bounds = bounds
        self._wire = wire
        self._left_s = bounds.handshake_s
        self._body_left_s = bounds.json_body_s
        self._handled_s = 0.0
        self._sending = Pace(
            moved=0,
            rate=bounds.slowest_bytes_per_s,
            grace_s=bounds.rate_window_s,
            window_s=bounds.rate_window_s,
            stall_s=bounds.send_stall_s,
        )
        self._reading: Pace | None = None

    @property
    def is_answering(self) -> bool:
        """Whether a request is being handled, read or answered."""
        return self.phase in (Phase.HANDLING, Phase.BODY, Phase.SENDING)

    @property
    def is_long_handled(self) -> bool:
        """Whether a handler has been at work for a while, so that a hang-up matters."""
        return self.phase is Phase.HANDLING and self._handled_s > 0

    def enter(self, phase: Phase, left_s: float) -> None:
        """The connection starts something that may take `left_s`."""
        self.phase = phase
        self._left_s = left_s

    def begin_handling(self) -> None:
        """A request's head is complete; its handler takes as long as it takes."""
        self.phase = Phase.HANDLING
        self._left_s = UNBOUNDED
        self._handled_s = 0.0
        self._body_left_s = self._bounds.json_body_s
        self._reading = None

    def allow_body(self, total_s: float) -> None:
        """The body of the current request may take `total_s` of waiting."""
        self._body_left_s = total_s

    def begin_reading(self) -> None:
        """The handler waits for more of the body."""
        if self._reading is None:
            self._reading = Pace(
                moved=self._wire.received,
                rate=self._bounds.slowest_bytes_per_s,
                grace_s=self._bounds.body_grace_s,
                window_s=self._bounds.rate_window_s,
                stall_s=UNBOUNDED,
            )
        self._reading.begin()
        self.enter(Phase.BODY, self._body_left_s)

    def end_reading(self) -> None:
        """Some of the body has come."""
        self._body_left_s = self._left_s
        self.enter(Phase.HANDLING, UNBOUNDED)

    def begin_sending(self) -> None:
        """Bytes of an answer wait for the peer to take them."""
        self._sending.begin()
        self.enter(Phase.SENDING, UNBOUNDED)

    def end_sending(self) -> None:
        """They are with the kernel."""
        self.enter(Phase.HANDLING, UNBOUNDED)

    def is_exhausted(self, elapsed_s: float) -> bool:
        """Let `elapsed_s` go by; True when the peer has taken too long."""
        if self.phase is Phase.HANDLING:
            self._handled_s += elapsed_s
            return False
        self._left_s -= elapsed_s
        if self.phase is Phase.SENDING:
            return not self._sending.keeps_up(self._wire.sent, elapsed_s)
        if self.phase is Phase.BODY and self._reading is not None:
            keeps_up = self._reading.keeps_up(self._wire.received, elapsed_s)
            return self._left_s < 0 or not keeps_up
        return self._left_s < 0
