"""Refresh tokens: rotation, lost answers, thieves (C2.04, C2.07, C2.08, T100)."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from attrs import define, field

from matrixbox.accounts import refreshing, registration, sessions
from matrixbox.api.auth import Authenticator
from matrixbox.clock import SimulatedClock
from matrixbox.core.identifiers import ServerName
from matrixbox.errors import UnknownToken, UserLocked
from matrixbox.store import accounts
from matrixbox.store.accounts import AccountState
from matrixbox.store.database import Store
from matrixbox.store.runner import Runner

HOUR_S = 3600
SERVER = ServerName("home.test")


@define
class Desk:
    """One account, and what its client and others do with its tokens."""

    store: Store
    clock: SimulatedClock
    authenticator: Authenticator
    user: int = 0
    first: sessions.SignedIn | None = None
    settled: list[bytes] = field(factory=list)

    async def begin(self) -> sessions.SignedIn:
        """A session of a client that takes refresh tokens."""

        def register(tx):
            account, opened = registration.register(
                tx, SERVER, "ann", None, 0, (None, None), self.clock.now_ms()
            )
            return account.user, opened

        self.user, opened = await self.store.write(register)
        return opened

    async def use(self, access_token):
        """A request with an access token."""
        now_ms = self.clock.now_ms()
        session = self.store.read(sessions.authenticate, access_token, now_ms)
        if session.unsettled is not None:  # what the authenticator does
            used = [(session.unsettled, session.device)]
            await self.store.write(refreshing.settle, used, now_ms)
        return session

    async def refresh(self, token):
        """A new pair."""
        return await refreshing.refresh(self.store, token, self.clock.now_ms())


@asynccontextmanager
async def desk():
    async with Store.open(":memory:", runner=Runner.INLINE) as store:
        clock = SimulatedClock()
        yield Desk(store, clock, Authenticator(store, clock))


async def refused(made, *, soft):
    with pytest.raises(UnknownToken) as caught:
        await made
    assert caught.value.fields == {"soft_logout": soft}


async def test_an_access_token_expires_and_a_refresh_token_replaces_it(autojump_clock):
    """C2.08: with soft logout, so that the client keeps its keys."""
    async with desk() as it:
        opened = await it.begin()
        assert opened.expires_in_ms == HOUR_S * 1000
        before = await it.use(opened.access_token)
        await trio.sleep(HOUR_S + 1)
        await refused(it.use(opened.access_token), soft=True)
        pair = await it.refresh(opened.refresh_token)
        assert pair.access_token != opened.access_token
        assert pair.refresh_token != opened.refresh_token
        after = await it.use(pair.access_token)
        assert (after.user_id, after.device_id) == (before.user_id, before.device_id)


async def test_sessions_of_other_clients_do_not_expire(autojump_clock):
    async with desk() as it:

        def register(tx):
            return registration.register(tx, SERVER, "bo", None, 0, (None, None))[1]

        opened = await it.store.write(register)
        assert (opened.refresh_token, opened.expires_in_ms) == (None, None)
        await trio.sleep(1000 * HOUR_S)
        await it.use(opened.access_token)


async def test_t100_an_answer_that_was_lost_does_no_harm(autojump_clock):
    """The old token is good until one of the new ones has been used."""
    async with desk() as it:
        opened = await it.begin()
        lost = [await it.refresh(opened.refresh_token) for _ in range(20)]
        await it.use(opened.access_token)
        pair = await it.refresh(opened.refresh_token)
        await it.use(pair.access_token)
        await it.refresh(pair.refresh_token)
        for one in lost:
            with pytest.raises(UnknownToken):
                await it.use(one.access_token)


async def test_t100_two_uses_in_parallel_leave_one_session(autojump_clock):
    """A client that refreshes twice at the same time goes on with either answer."""
    async with desk() as it:
        opened = await it.begin()
        one, other = [await it.refresh(opened.refresh_token) for _ in range(2)]
        await it.use(other.access_token)
        await refused(it.use(one.access_token), soft=True)
        await it.refresh(other.refresh_token)


@pytest.mark.parametrize("by_refreshing", [True, False])
async def test_t100_an_old_token_ends_the_session_once_its_successor_was_used(
    by_refreshing, autojump_clock
):
    async with desk() as it:
        opened = await it.begin()
        pair = await it.refresh(opened.refresh_token)
        if by_refreshing:
            pair = await it.refresh(pair.refresh_token)
        await it.use(pair.access_token)
        await refused(it.refresh(opened.refresh_token), soft=True)
        # For everybody: nobody knows who of the two was the thief.
        await refused(it.use(pair.access_token), soft=True)
        await refused(it.refresh(pair.refresh_token), soft=True)
        await refused(it.use(opened.access_token), soft=True)


async def test_t100_a_thief_who_is_faster_is_found_out_when_the_client_refreshes(autojump_clock):
    async with desk() as it:
        opened = await it.begin()
        stolen = await it.refresh(opened.refresh_token)
        await it.use(stolen.access_token)
        await refused(it.use(opened.access_token), soft=True)
        await refused(it.refresh(opened.refresh_token), soft=True)
        await refused(it.use(stolen.access_token), soft=True)


async def test_after_soft_logout_the_same_device_signs_in_again(autojump_clock):
    async with desk() as it:
        opened = await it.begin()
        await it.use((await it.refresh(opened.refresh_token)).access_token)
        await refused(it.refresh(opened.refresh_token), soft=True)

        def again(tx):
            account = accounts.get(tx, it.user)
            return sessions.open_session(tx, account, opened.device_id, None, it.clock.now_ms())

        fresh = await it.store.write(again)
        assert fresh.device_id == opened.device_id
        await it.use(fresh.access_token)
        await refused(it.refresh(opened.refresh_token), soft=False)
        await it.refresh(fresh.refresh_token)


async def test_nothing_refreshes_a_session_that_is_over(autojump_clock):
    """T042, T103: signed out, deactivated, locked."""
    async with desk() as it:
        opened = await it.begin()
        await refused(it.refresh("mbr_unknown"), soft=False)
        await refused(it.refresh(opened.access_token), soft=False)

        def lock(tx, locked):
            accounts.set_locked(tx, it.user, locked=locked)

        await it.store.write(lock, True)
        with pytest.raises(UserLocked):
            await it.refresh(opened.refresh_token)
        await it.store.write(lock, False)
        pair = await it.refresh(opened.refresh_token)

        def deactivate(tx, state):
            accounts.set_state(tx, it.user, state)

        await it.store.write(deactivate, AccountState.DEACTIVATED)
        await refused(it.refresh(pair.refresh_token), soft=False)
        await it.store.write(deactivate, AccountState.ACTIVE)
        session = await it.use(pair.access_token)
        await it.store.write(sessions.log_out, session)
        await refused(it.refresh(pair.refresh_token), soft=False)
        assert it.store.read(lambda tx: tx.run("SELECT * FROM refresh_token")) == []


async def test_t052_tokens_are_stored_as_hashes_only(autojump_clock):
    async with desk() as it:
        opened = await it.begin()
        pair = await it.refresh(opened.refresh_token)
        rows = it.store.read(
            lambda tx: tx.run("SELECT * FROM refresh_token") + tx.run("SELECT * FROM access_token")
        )
        for token in (opened.refresh_token, pair.refresh_token, pair.access_token):
            assert token not in repr(rows)
            assert token[4:20] not in repr(rows)


async def test_what_is_kept_of_old_tokens_is_bounded(autojump_clock):
    async with desk() as it:
        opened = await it.begin()
        token = opened.refresh_token
        for _ in range(24 * 100):
            await trio.sleep(HOUR_S)
            pair = await it.refresh(token)
            await it.use(pair.access_token)
            token = pair.refresh_token
        retired, access = it.store.read(
            lambda tx: (
                tx.one("SELECT COUNT(*) FROM refresh_token")[0],
                tx.one("SELECT COUNT(*) FROM access_token")[0],
            )
        )
        assert retired <= 24 * 60 + 5
        assert access <= 24 * 7 + 5


@pytest.mark.parametrize("seed", range(20))
async def test_t100_a_client_with_lost_answers_is_never_signed_out_and_a_thief_never_stays(
    seed, autojump_clock
):
    """Random losses; then somebody else uses a token too, which ends the session for both."""
    chance = random.Random(seed)
    async with desk() as it:
        opened = await it.begin()
        access, token, steps = opened.access_token, opened.refresh_token, 30
        for _ in range(steps):
            await trio.sleep(1)
            if chance.random() < 0.6:
                await it.use(access)
                continue
            pair = await it.refresh(token)
            if chance.random() < 0.5:  # the answer arrives
                access, token = pair.access_token, pair.refresh_token
        await it.use(access)
        await trio.sleep(1)
        stolen = await it.refresh(token)
        thief, owner = [stolen.access_token, stolen.refresh_token], [access, token]
        for _ in range(3):
            for tokens in chance.sample([thief, owner], 2):
                with suppress(UnknownToken):
                    with suppress(UnknownToken):  # then a client refreshes
                        await it.use(tokens[0])
                    pair = await it.refresh(tokens[1])
                    tokens[:] = [pair.access_token, pair.refresh_token]
        for access, token in (thief, owner):
            await refused(it.use(access), soft=True)
            await refused(it.refresh(token), soft=True)


async def test_the_first_request_with_a_new_token_is_noted_by_the_authenticator(
    autojump_clock, nursery
):
    class Route:
        guest_ok = True
        patterns = ("/x",)
        method = "GET"

    class Call:
        route = Route()
        path = None
        address = "192.0.2.1"
        spender = None

        def __init__(self, token):
            self.token = token

        def header(self, name):
            return f"Bearer {self.token}" if name == "authorization" else None

    async with desk() as it:
        nursery.start_soon(it.authenticator.run)
        opened = await it.begin()
        pair = await it.refresh(opened.refresh_token)
        it.authenticator.user(Call(pair.access_token))
        await trio.sleep(0.1)
        with pytest.raises(UnknownToken):
            it.authenticator.user(Call(opened.access_token))
        await refused(it.refresh(opened.refresh_token), soft=True)
        nursery.cancel_scope.cancel()
