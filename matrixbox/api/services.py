"""What handlers work with: made once in ``serve``, handed to every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

from attrs import frozen

from matrixbox.accounts.login_tokens import LoginTokens
from matrixbox.accounts.nonces import Nonces
from matrixbox.accounts.passwords import Passwords
from matrixbox.accounts.throttle import Throttle
from matrixbox.accounts.uia import Uia
from matrixbox.config import Settings
from matrixbox.federation.parts import Federation
from matrixbox.rooms import resolution
from matrixbox.rooms.delaying import Delays
from matrixbox.rooms.env import Env
from matrixbox.rooms.time_floor import TimeFloor
from matrixbox.store.database import Store
from matrixbox.store.transaction import Tx
from matrixbox.sync.old import OldSync
from matrixbox.sync.sliding import SlidingService
from matrixbox.sync.v3 import SyncService

T = TypeVar("T")
Args = TypeVarTuple("Args")


@frozen
class Services:
    """The parts of the server that answer clients."""

    settings: Settings
    store: Store
    env: Env
    passwords: Passwords
    throttle: Throttle
    uia: Uia
    nonces: Nonces
    login_tokens: LoginTokens
    sync: SyncService
    sliding: SlidingService
    old_sync: OldSync
    base_url: str
    time: TimeFloor
    federation: Federation
    delays: Delays

    async def write(self, function: Callable[[Tx, Env, Unpack[Args]], T], *args: *Args) -> T:
        """Run a transaction function of ``rooms``, which takes the environment second.

        Raises Unavailable while the server's clock cannot be right.
        """
        await self.time.wait()
        return await resolution.write(self.store, function, self.env, *args)
