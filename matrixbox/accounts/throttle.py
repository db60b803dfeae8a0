"""Limits on attempts: per account, per address, per user.

`design` limits: sign-in attempts per account 5, then one per 30 s; per address 20, then one per
10 s (T093).  Buckets count in memory; durations come from the monotonic clock (T153).
"""

from __future__ import annotations

from collections.abc import Hashable

from attrs import define, field, frozen

from matrixbox.clock import Clock
from matrixbox.errors import LimitExceeded

_FORGET_ABOVE = 20_000  # buckets; full ones are dropped first


@frozen
class Rate:
    """A burst, and the seconds after which one more is allowed."""

    burst: int
    every_s: float


SIGN_IN_ACCOUNT = Rate(5, 30)
SIGN_IN_ADDRESS = Rate(20, 10)
REGISTRATION_ADDRESS = Rate(20, 10)
GUESTS_ADDRESS = Rate(5, 60)
REFRESHING_ADDRESS = Rate(60, 2)
MAIL_ADDRESS = Rate(10, 60)  # messages that one network address asks for
MAIL_RECIPIENT = Rate(5, 900)  # that one person gets
MAIL_CHECKS = Rate(60, 1)  # whether something was confirmed: clients ask every other second
LOGIN_TOKENS = Rate(1, 60)  # of one user ([C2.06])
MESSAGES = Rate(100, 0.1)
JOINS = Rate(50, 1)
INVITES = Rate(50, 2)
REPORTS = Rate(10, 60)
LOOK_UPS = Rate(60, 1)  # of aliases and profiles at other servers
SEARCHES = Rate(20, 2)  # in directories and spaces of other servers
ROOM_CREATIONS = Rate(20, 6)


@define(eq=False)
class Throttle:
    """Token buckets by name.  Switched off, it allows everything."""

    clock: Clock
    enabled: bool = True
    _buckets: dict[tuple[Rate, Hashable], tuple[float, float]] = field(factory=dict)

    def take(self, rate: Rate, who: Hashable) -> None:
        """Count one attempt; raises LimitExceeded when there were too many."""
        if not self.enabled:
            return
        wait_s = self._wait(rate, who)
        if wait_s > 0:
            raise LimitExceeded(retry_after_ms=int(wait_s * 1000) + 1)
        left, _ = self._level(rate, who)
        self._buckets[rate, who] = (left - 1, self.clock.monotonic_s())
        if len(self._buckets) > _FORGET_ABOVE:
            self._forget()

    def require(self, rate: Rate, who: Hashable) -> None:
        """Raise LimitExceeded when no further attempt is allowed, without counting one."""
        if self.enabled and (wait_s := self._wait(rate, who)) > 0:
            raise LimitExceeded(retry_after_ms=int(wait_s * 1000) + 1)

    def give_back(self, rate: Rate, who: Hashable) -> None:
        """An attempt that was counted turned out to be good."""
        if (rate, who) in self._buckets:
            left, then = self._buckets[rate, who]
            self._buckets[rate, who] = (min(left + 1, rate.burst), then)

    def _level(self, rate: Rate, who: Hashable) -> tuple[float, float]:
        now = self.clock.monotonic_s()
        left, then = self._buckets.get((rate, who), (float(rate.burst), now))
        return min(rate.burst, left + max(0.0, now - then) / rate.every_s), now

    def _wait(self, rate: Rate, who: Hashable) -> float:
        left, _ = self._level(rate, who)
        return 0.0 if left >= 1 else (1 - left) * rate.every_s

    def _forget(self) -> None:
        full = [key for key in self._buckets if self._level(*key)[0] >= key[0].burst]
        for key in full or list(self._buckets)[: _FORGET_ABOVE // 10]:
            del self._buckets[key]
