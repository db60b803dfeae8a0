"""Password hashes: right answers, the same cost for everybody, never too many at once."""

from __future__ import annotations

import statistics
import threading
import time

import pytest
import trio

from matrixbox.accounts import passwords
from matrixbox.accounts.passwords import Passwords
from matrixbox.errors import InvalidParam, LimitExceeded, WeakPassword


async def test_a_password_matches_its_hash_only():
    hashes = Passwords("lowest")
    stored = await hashes.hash("correct horse ü")
    assert stored.startswith("$argon2id$")
    assert "correct" not in stored
    assert await hashes.verify(stored, "correct horse ü")
    assert not await hashes.verify(stored, "correct horse u")
    assert not await hashes.verify(stored, "")
    assert stored != await hashes.hash("correct horse ü")


async def test_the_normal_cost_is_what_the_threat_page_asks_for():
    stored = await Passwords().hash("12345678")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_an_unknown_user_never_matches():
    assert not await Passwords("lowest").verify(None, "whatever")


async def test_a_broken_hash_in_the_database_matches_nothing():
    for broken in (
        "nonsense",
        "",
        "$argon2id$v=19$m=8,t=1,p=1$$",
        "$argon2id$v=19$m=8,t=1,p=1$!!$!!",
    ):
        assert not await Passwords("lowest").verify(broken, "whatever")


async def test_t094_an_unknown_user_costs_as_much_as_a_wrong_password():
    hashes = Passwords()
    stored = await hashes.hash("12345678")

    async def cost(against: str | None) -> float:
        before = time.process_time()
        assert not await hashes.verify(against, "wrong one")
        return time.process_time() - before

    known, unknown = [], []
    for _ in range(12):
        known.append(await cost(stored))
        unknown.append(await cost(None))
    assert 0.6 < statistics.median(unknown) / statistics.median(known) < 1.7


async def test_a_hash_of_another_cost_asks_for_a_new_one():
    cheap = await Passwords("lowest").hash("12345678")
    assert Passwords().needs_rehash(cheap)
    assert await Passwords().verify(cheap, "12345678")
    assert not Passwords("lowest").needs_rehash(cheap)


@pytest.mark.parametrize("length", [8, 512])
def test_lengths_within_the_bounds_are_accepted(length):
    Passwords().check_new("x" * length)
    Passwords().check_new("ü" * (length // 2))


@pytest.mark.parametrize("password", ["", "x" * 7, "x" * 513, "ü" * 257])
async def test_lengths_outside_the_bounds_are_refused_for_new_passwords(password):
    with pytest.raises(WeakPassword) as caught:
        await Passwords().hash(password)
    assert caught.value.status == 400


async def test_where_hashes_are_cheap_passwords_may_be_short():
    hashes = Passwords("lowest")
    assert await hashes.verify(await hashes.hash("four"), "four")
    with pytest.raises(WeakPassword):
        await hashes.hash("two")


async def test_t095_overlong_and_impossible_passwords_are_refused_unhashed(monkeypatch):
    hashes = Passwords("lowest")
    monkeypatch.setattr(hashes, "_matches", lambda *_: pytest.fail("was hashed"))
    for password in ("x" * 513, "\ud800" * 8):
        with pytest.raises(InvalidParam) as caught:
            await hashes.verify(None, password)
        assert caught.value.status == 400


async def test_t095_two_hash_at_once_ten_wait_and_the_rest_is_told_to_come_back(monkeypatch):
    hashes = Passwords("lowest")
    gate = threading.Event()
    running: list[int] = []
    most = 0
    outcomes: list[str] = []

    def slow(stored: str, tried: bytes) -> bool:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        gate.wait(60)
        running.pop()
        return True

    monkeypatch.setattr(hashes, "_matches", slow)

    async def attempt() -> None:
        try:
            await hashes.verify("x", "12345678")
            outcomes.append("answered")
        except LimitExceeded as error:
            outcomes.append(f"again in {error.retry_after_ms} ms")

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(attempt)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(30):
            while len(running) < passwords.AT_ONCE:  # threads start when they like
                await trio.sleep(0.001)
        assert outcomes == ["again in 2000 ms"] * 18
        gate.set()
    assert outcomes.count("answered") == passwords.AT_ONCE + passwords.WAITING
    assert most == passwords.AT_ONCE
    assert await hashes.verify("x", "12345678")


async def test_the_event_loop_turns_while_a_password_is_hashed():
    hashes = Passwords()
    done = False
    turns = 0

    async def one() -> None:
        nonlocal done
        for _ in range(3):
            await hashes.hash("12345678")
        done = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        while not done:
            turns += 1
            await trio.sleep(0.002)
    assert turns >= 3
