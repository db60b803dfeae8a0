"""Limits on attempts: bursts, recovery, who is counted with whom."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from matrixbox.accounts import registration, sessions
from matrixbox.accounts.passwords import Passwords
from matrixbox.accounts.throttle import SIGN_IN_ACCOUNT, SIGN_IN_ADDRESS, Rate, Throttle
from matrixbox.clock import SimulatedClock
from matrixbox.core.identifiers import ServerName
from matrixbox.errors import Forbidden, LimitExceeded
from matrixbox.store.database import Store
from tests.rooms.house import open_house

HOME = ServerName("home.test")
AT_HOME, ABROAD = "192.168.1.7", "203.0.113.9"


class Counting(Passwords):
    """Passwords that count how often something was hashed."""

    hashed = 0

    async def verify(self, stored: str | None, password: str) -> bool:
        self.hashed += 1
        return password == "right horse"


@pytest.fixture
async def guarded(autojump_clock: MockClock) -> AsyncIterator[Guarded]:
    house = open_house()
    yield Guarded(house.store)
    house.store.close()


class Guarded:
    """Two accounts, and who tries to sign in to them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.passwords = Counting("lowest")

    async def begin(self) -> None:
        self.throttle = Throttle(SimulatedClock())
        for name in ("ann", "ben"):
            await self.store.write(registration.register, HOME, name, "hash", 0, None)

    async def guess(self, name: str, password: str, address: str) -> str:
        """What became of an attempt."""
        check = sessions.check_password
        try:
            await check(self.store, self.passwords, self.throttle, name, password, address)
        except LimitExceeded:
            return "limited"
        except Forbidden:
            return "wrong"
        return "in"


async def test_t093_ten_thousand_guesses_in_a_minute_cost_few_hashes(guarded: Guarded):
    """From one address, from many, against one account and against all."""
    await guarded.begin()
    for number in range(10_000):
        name = ("ann", "ben", "cy")[number % 3]
        address = ABROAD if number % 2 else f"203.0.113.{number % 250}"
        assert await guarded.guess(name, f"guess {number}", address) in ("wrong", "limited")
        await trio.sleep(60 / 10_000)
    assert 15 <= guarded.passwords.hashed <= 60


async def test_t093_strangers_do_not_lock_out_who_is_at_home(guarded: Guarded):
    await guarded.begin()
    for number in range(50):
        await guarded.guess("ann", "wrong", f"203.0.113.{number}")
    assert await guarded.guess("ann", "right horse", "198.51.100.1") == "limited"
    assert await guarded.guess("ann", "right horse", AT_HOME) == "in"
    assert await guarded.guess("ben", "right horse", "198.51.100.1") == "in"


async def test_t093_nor_does_one_machine_at_home_lock_out_another(guarded: Guarded):
    await guarded.begin()
    for _ in range(10):
        await guarded.guess("ann", "wrong", AT_HOME)
    assert await guarded.guess("ann", "right horse", AT_HOME) == "limited"
    assert await guarded.guess("ann", "right horse", "fe80::1%eth0") == "in"


async def test_good_sign_ins_use_up_nothing(guarded: Guarded):
    await guarded.begin()
    for _ in range(100):
        assert await guarded.guess("ann", "right horse", ABROAD) == "in"


@pytest.mark.parametrize("rate", [SIGN_IN_ACCOUNT, SIGN_IN_ADDRESS, Rate(3, 0.5)])
async def test_a_bucket_fills_again_at_its_rate(rate: Rate, autojump_clock: MockClock):
    throttle = Throttle(SimulatedClock())
    for _ in range(rate.burst):
        throttle.take(rate, "x")
    with pytest.raises(LimitExceeded):
        throttle.take(rate, "x")
    throttle.take(rate, "y")
    await trio.sleep(rate.every_s * 2 + 0.001)
    for _ in range(2):
        throttle.take(rate, "x")
    with pytest.raises(LimitExceeded) as limited:
        throttle.require(rate, "x")
    await trio.sleep(limited.value.fields["retry_after_ms"] / 1000)
    throttle.require(rate, "x")


async def test_a_throttle_that_is_off_counts_nothing():
    throttle = Throttle(SimulatedClock(), enabled=False)
    for _ in range(1_000):
        throttle.take(Rate(1, 1e9), "x")


async def test_t073_buckets_of_many_strangers_are_forgotten(autojump_clock: MockClock):
    throttle = Throttle(SimulatedClock())
    for number in range(50_000):
        throttle.take(SIGN_IN_ADDRESS, number)
    assert len(throttle._buckets) <= 20_001
