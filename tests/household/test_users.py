"""Accounts as the one who runs the server manages them."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from matrixbox.accounts import registration
from matrixbox.accounts.passwords import Passwords
from matrixbox.clock import SimulatedClock
from matrixbox.core.identifiers import ServerName
from matrixbox.errors import InvalidUsername, NotFound, UserDeactivated, UserInUse, WeakPassword
from matrixbox.household.users import Users
from matrixbox.store import accounts
from matrixbox.store.accounts import AccountState
from matrixbox.store.database import Store
from matrixbox.store.runner import Runner

SERVER = ServerName("home.test")


def close_account(tx, account):
    accounts.set_state(tx, account.user, AccountState.DEACTIVATED)


@asynccontextmanager
async def household():
    async with Store.open(":memory:", runner=Runner.INLINE) as store:
        yield Users(store, Passwords("lowest"), SERVER, SimulatedClock(), close_account)


async def test_an_added_account_has_the_password_and_is_listed():
    async with household() as users:
        assert await users.add("Ann", "correct horse", admin=True) == "@ann:home.test"
        await users.add("@bo:home.test", "correct horse", admin=False)
        ann, bo = users.everybody()
        assert (ann.localpart, ann.admin, bo.admin) == ("ann", True, False)
        assert await users.passwords.verify(ann.password_hash, "correct horse")


async def test_names_and_passwords_are_checked_before_anything_is_stored():
    async with household() as users:
        await users.add("ann", "correct horse", admin=False)
        with pytest.raises(UserInUse):
            await users.add("ann", "correct horse", admin=False)
        with pytest.raises(InvalidUsername):
            await users.add("bo bo", "correct horse", admin=False)
        with pytest.raises(WeakPassword):
            await users.add("bo", "bad", admin=False)
        with pytest.raises(NotFound, match="not a user of this server"):
            await users.add("@bo:elsewhere.test", "correct horse", admin=False)
        assert [account.localpart for account in users.everybody()] == ["ann"]


@pytest.mark.parametrize("keep", [True, False])
async def test_a_new_password_ends_the_sessions_unless_told_otherwise(keep):
    async with household() as users:

        def register(tx):
            _, signed_in = registration.register(tx, SERVER, "ann", "old", 0, (None, None))
            return signed_in

        await users.store.write(register)
        assert await users.set_password("ann", "correct horse", keep_sessions=keep)
        (ann,) = users.everybody()
        assert await users.passwords.verify(ann.password_hash, "correct horse")
        devices = users.store.read(accounts.devices, ann.user)
        assert len(devices) == (1 if keep else 0)


async def test_a_deactivated_account_stays_listed_and_cannot_be_changed():
    async with household() as users:
        await users.add("ann", "correct horse", admin=False)
        assert await users.deactivate("@ann") == "@ann:home.test"
        (ann,) = users.everybody()
        assert ann.state is AccountState.DEACTIVATED
        with pytest.raises(UserDeactivated):
            await users.deactivate("ann")
        with pytest.raises(UserDeactivated):
            await users.set_password("ann", "correct horse", keep_sessions=False)
        with pytest.raises(UserInUse):
            await users.add("ann", "correct horse", admin=False)


async def test_unknown_accounts_are_named():
    async with household() as users:
        with pytest.raises(NotFound, match='no account "bo"'):
            await users.deactivate("bo")


async def test_the_control_functions_do_the_same():
    async with household() as users:
        functions = users.functions()
        call = {"name": "ann", "password": "correct horse", "admin": True}
        assert await functions["user.add"](call) == "@ann:home.test"
        assert await functions["user.passwd"]({"name": "ann", "password": "new horse!"})
        assert await functions["user.deactivate"]({"name": "ann"}) == "@ann:home.test"
        (listed,) = await functions["user.list"]({})
        assert listed["user_id"] == "@ann:home.test"
        assert listed["admin"]
        assert listed["deactivated"]
        assert "password_hash" not in listed
        with pytest.raises(NotFound, match="lacks name"):
            await functions["user.add"]({"name": 1, "password": "x"})
