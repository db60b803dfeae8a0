"""Numbers that can be used once, within a minute."""

from __future__ import annotations

import secrets

from attrs import define, field

from matrixbox.clock import Clock

LIFETIME_S = 60.0
MAX_NONCES = 1_000


@define(eq=False)
class Nonces:
    """The numbers that were given out and not used; the oldest gives way when there are many."""

    clock: Clock
    _until_s: dict[str, float] = field(factory=dict)

    def make(self) -> str:
        """A new number."""
        if len(self._until_s) >= MAX_NONCES:
            del self._until_s[next(iter(self._until_s))]
        nonce = secrets.token_hex(32)
        self._until_s[nonce] = self.clock.monotonic_s() + LIFETIME_S
        return nonce

    def take(self, nonce: str) -> bool:
        """Use a number up; False when it was not given out, or too long ago."""
        return self._until_s.pop(nonce, float("-inf")) > self.clock.monotonic_s()
