"""Passwords: argon2id, off the event loop, a few at a time.

The specification leaves the hash to the server. Here: argon2id with 19 MiB, 2 passes, 1 lane, two
at once, ten more waiting, beyond that 429 (threats T095: hashing must not become a weapon). An
unknown user costs as much as a wrong password (T094).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, TypeVar

import argon2
import attrs
import trio
from argon2.exceptions import InvalidHashError, VerificationError

from matrixbox.errors import InvalidParam, LimitExceeded, WeakPassword

MIN_PASSWORD_BYTES = 8
MAX_PASSWORD_BYTES = 512
HASH_MEMORY_KIB = 19 * 1024
HASH_PASSES = 2
AT_ONCE = 2
"""19 MiB each: two fit beside everything else on a machine with 1 GB, and it has few cores."""
WAITING = 10
RETRY_AFTER_MS = 2_000

T = TypeVar("T")

# A salt and digest of the right sizes that no password is known for: checking against it takes as
# long as against a real one, since only the parameters and the password's length decide.
_NOBODY = "bm9ib2R5IGxpdmVzIGhlcmU$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@attrs.frozen
class Cost:
    """What one hash costs: memory in KiB, and passes over it; and the shortest new password."""

    memory_kib: int
    passes: int
    shortest: int


COSTS = {
    "normal": Cost(HASH_MEMORY_KIB, HASH_PASSES, MIN_PASSWORD_BYTES),
    "lowest": Cost(8, 1, 4),  # for tests: those of others make accounts with shorter passwords
}


class Passwords:
    """Makes and checks password hashes; one for the whole process, because it bounds them."""

    def __init__(self, cost: Literal["normal", "lowest"] = "normal") -> None:
        chosen = COSTS[cost]
        self._shortest = chosen.shortest
        self._hasher = argon2.PasswordHasher(
            time_cost=chosen.passes,
            memory_cost=chosen.memory_kib,
            parallelism=1,
            hash_len=32,
            salt_len=16,
            type=argon2.Type.ID,
        )
        self._nobody = f"$argon2id$v=19$m={chosen.memory_kib},t={chosen.passes},p=1${_NOBODY}"
        self._threads = trio.CapacityLimiter(AT_ONCE)
        self._inside = 0

    def check_new(self, password: str) -> None:
        """Raise WeakPassword unless a new password has an acceptable length.

        The length counts bytes of UTF-8. Nothing else is asked for: rules about characters make
        passwords worse.
        """
        size = len(password.encode("utf-8", "replace"))
        if size < self._shortest:
            raise WeakPassword(f"The password must be at least {self._shortest} bytes long")
        if size > MAX_PASSWORD_BYTES:
            raise WeakPassword(f"The password must be at most {MAX_PASSWORD_BYTES} bytes long")

    async def hash(self, password: str) -> str:
        """The hash to store for a new password.

        Raises WeakPassword, and LimitExceeded when too many are waiting.
        """
        self.check_new(password)
        return await self._in_thread(functools.partial(self._hasher.hash, _encoded(password)))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether `password` is the one behind the `stored` hash.

        None stands for an account that does not exist or has no password: as slow, and False.
        Raises InvalidParam for passwords that nobody can have (refused unhashed), LimitExceeded.
        """
        tried = _encoded(password)
        if len(tried) > MAX_PASSWORD_BYTES:
            raise InvalidParam(f"A password has at most {MAX_PASSWORD_BYTES} bytes")
        check = functools.partial(self._matches, self._nobody if stored is None else stored, tried)
        return await self._in_thread(check) and stored is not None

    def needs_rehash(self, stored: str) -> bool:
        """Whether a hash that just matched was made at another cost than is usual now."""
        return self._hasher.check_needs_rehash(stored)

    def _matches(self, stored: str, tried: bytes) -> bool:
        try:
            return self._hasher.verify(stored, tried)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._inside >= AT_ONCE + WAITING:
            raise LimitExceeded(RETRY_AFTER_MS, "Too many sign-ins at once")
        self._inside += 1
        try:
            return await trio.to_thread.run_sync(work, limiter=self._threads)
        finally:
            self._inside -= 1


def _encoded(password: str) -> bytes:
    try:
        return password.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidParam("The password is not valid text") from error
