"""No event is signed while the clock is known to be wrong (threats T152).

A board without a battery starts in 1970, or at the time of its last shutdown, until the network
tells the time.  An event signed then would carry that time for ever.  So there is a floor: the day
of this release, or the last time that was stored if that is later.  Below it whatever makes events
waits a while, and then is refused.
"""

from __future__ import annotations

import trio
from attrs import define

from matrixbox.clock import Clock
from matrixbox.errors import Unavailable
from matrixbox.store import meta
from matrixbox.store.transaction import Tx

RELEASED_MS = 1_793_491_200_000  # 2026-11-01; set anew for each release
WAIT_S = 30.0
LOOK_EVERY_S = 0.5
TOLERATED_MS = 120_000  # a clock that is set back a little by its time server is no broken one


@define(eq=False)
class TimeFloor:
    """Whether the wall clock can be right."""

    clock: Clock
    floor_ms: int = RELEASED_MS

    @property
    def is_plausible(self) -> bool:
        """Whether the clock is not below the floor."""
        return self.clock.now_ms() >= self.floor_ms - TOLERATED_MS

    async def wait(self) -> None:
        """Return when the clock can be right; raises Unavailable (503) after 30 s."""
        if self.is_plausible:
            return
        with trio.move_on_after(WAIT_S):
            while not self.is_plausible:  # noqa: ASYNC110 - nothing tells of a clock that is set
                await trio.sleep(LOOK_EVERY_S)
        if not self.is_plausible:
            raise Unavailable("This server does not know the time yet. Try again in a minute.")

    def raise_to_now(self) -> None:
        """Raise the floor to the present time, if that can be right."""
        if self.is_plausible:
            self.floor_ms = max(self.floor_ms, self.clock.now_ms())


def stored(tx: Tx) -> int:
    """The floor as this database knows it, ms."""
    return max(RELEASED_MS, int(meta.get_text(tx, "time_ms") or 0))


def store(tx: Tx, floor: TimeFloor) -> None:
    """Remember the present time, if it can be right."""
    floor.raise_to_now()
    meta.put_text(tx, "time_ms", str(floor.floor_ms))
