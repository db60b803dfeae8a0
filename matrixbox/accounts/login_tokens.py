"""Tokens with which a second device signs in, handed over by the first.

Matrix v1.19, Client-Server API, "Token-based login" ([C2.06]).  They live for two minutes and in
memory: a restart makes them useless, which costs one more try.
"""

from __future__ import annotations

import secrets

from attrs import define, field

from matrixbox.accounts.hashing import hash_token
from matrixbox.clock import Clock
from matrixbox.store.nids import UserNid

LIFETIME_S = 120.0
MAX_TOKENS = 1_000


@define(eq=False)
class LoginTokens:
    """The tokens that were given out and not used; the oldest gives way when there are many."""

    clock: Clock
    _given: dict[bytes, tuple[float, UserNid]] = field(factory=dict)

    def make(self, user: UserNid) -> str:
        """A token that signs a user in once."""
        if len(self._given) >= MAX_TOKENS:
            del self._given[next(iter(self._given))]
        token = f"mbl_{secrets.token_urlsafe(32)}"
        self._given[hash_token(token)] = (self.clock.monotonic_s() + LIFETIME_S, user)
        return token

    def take(self, token: str) -> UserNid | None:
        """Whom a token signs in; it is used up."""
        until_s, user = self._given.pop(hash_token(token), (0.0, UserNid(0)))
        return user if user and until_s > self.clock.monotonic_s() else None
