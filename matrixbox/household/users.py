"""Accounts as the one who runs the server sees them: add, set a password, list, deactivate.

Used by the command line, through the control socket of a running server or directly on the
database. Names may be given as `ann`, `@ann` or `@ann:server`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from attrs import frozen

from matrixbox.accounts import registration, sessions
from matrixbox.accounts.passwords import Passwords
from matrixbox.clock import Clock
from matrixbox.core.identifiers import ServerName
from matrixbox.core.json import Json
from matrixbox.errors import NotFound, UserDeactivated
from matrixbox.household import parked, reports
from matrixbox.household.control import Function, text_of
from matrixbox.store import accounts
from matrixbox.store.accounts import Account, AccountState
from matrixbox.store.database import Store
from matrixbox.store.transaction import Tx


@frozen
class Users:
    """The accounts of this server.

    `close_account` is the transaction function that deactivates an account and lets it leave its
    rooms; it belongs to a higher place than this one and is passed in.
    """

    store: Store
    passwords: Passwords
    server_name: ServerName
    clock: Clock
    close_account: Callable[[Tx, Account], None]

    async def add(self, name: str, password: str, *, admin: bool) -> str:
        """Make an account; returns its user id. Raises UserInUse, InvalidUsername, WeakPassword."""
        localpart = registration.parse_localpart(self._localpart(name), self.server_name)
        self.store.read(registration.require_free, localpart)  # before the work of hashing
        hashed = await self.passwords.hash(password)
        make = partial(registration.make_account, admin=admin)
        account = await self.store.write(
            make, self.server_name, localpart, hashed, self.clock.now_ms()
        )
        return account.user_id

    async def set_password(self, name: str, password: str, *, keep_sessions: bool) -> str:
        """Give an account another password and, unless told otherwise, end all its sessions.

        Returns the user id. Raises NotFound, UserDeactivated, WeakPassword.
        """
        account = self._find(name)
        hashed = await self.passwords.hash(password)

        def change(tx: Tx) -> None:
            accounts.set_password(tx, account.user, hashed)
            if not keep_sessions:
                sessions.log_out_everywhere(tx, account.user)

        await self.store.write(change)
        return account.user_id

    async def deactivate(self, name: str) -> str:
        """End an account for good; its name stays taken. Raises NotFound, UserDeactivated."""
        account = self._find(name)
        await self.store.write(self.close_account, account)
        return account.user_id

    def everybody(self) -> list[Account]:
        """All accounts by name, deactivated ones too."""
        return self.store.read(accounts.everybody)

    def functions(self) -> dict[str, Function]:
        """What the control socket offers, by name."""
        return {
            "user.add": self._call_add,
            "user.passwd": self._call_passwd,
            "user.list": self._call_list,
            "user.deactivate": self._call_deactivate,
            **reports.functions(self.store),
            **parked.functions(self.store),
        }

    async def _call_add(self, arguments: Mapping[str, Json]) -> Json:
        name, password = text_of(arguments, "name"), text_of(arguments, "password")
        return await self.add(name, password, admin=arguments.get("admin") is True)

    async def _call_passwd(self, arguments: Mapping[str, Json]) -> Json:
        name, password = text_of(arguments, "name"), text_of(arguments, "password")
        keep = arguments.get("keep_sessions") is True
        return await self.set_password(name, password, keep_sessions=keep)

    async def _call_list(self, arguments: Mapping[str, Json]) -> Json:
        return [
            {
                "user_id": account.user_id,
                "created_ms": account.created_ms,
                "admin": account.admin,
                "deactivated": account.state is AccountState.DEACTIVATED,
            }
            for account in self.everybody()
        ]

    async def _call_deactivate(self, arguments: Mapping[str, Json]) -> Json:
        return await self.deactivate(text_of(arguments, "name"))

    def _find(self, name: str) -> Account:
        account = self.store.read(accounts.find, self._localpart(name).lower())
        if account is None:
            raise NotFound(f'There is no account "{name}" on this server')
        if account.state is AccountState.DEACTIVATED:
            raise UserDeactivated(f"{account.user_id} has been deactivated for good")
        return account

    def _localpart(self, name: str) -> str:
        """The part between @ and the colon; raises NotFound for a user of another server."""
        localpart, colon, server = name.removeprefix("@").partition(":")
        if colon and server != self.server_name:
            raise NotFound(f"{name} is not a user of this server, {self.server_name}")
        return localpart
