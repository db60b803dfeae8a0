"""What everything stands on: the data folder, the database, the key, the accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from attrs import field, frozen

from matrixbox.accounts.passwords import Passwords
from matrixbox.accounts.throttle import Throttle
from matrixbox.clock import Clock, SystemClock
from matrixbox.config import Settings
from matrixbox.core.identifiers import ServerName
from matrixbox.core.signing import SigningKey
from matrixbox.datafolder import DataFolder, FolderError
from matrixbox.household.departures import close_account
from matrixbox.household.rotation import rotate
from matrixbox.household.users import Users
from matrixbox.keyfile import open_key
from matrixbox.observe.health import Parts
from matrixbox.rooms import time_floor
from matrixbox.rooms.delaying import Delays
from matrixbox.rooms.env import Env
from matrixbox.rooms.presence import Presence
from matrixbox.rooms.time_floor import TimeFloor
from matrixbox.rooms.typing import Typing
from matrixbox.store import meta
from matrixbox.store.database import Store
from matrixbox.store.transaction import Tx


@frozen
class Base:
    """What everything stands on: the data folder, the database, the key."""

    folder: DataFolder
    store: Store
    env: Env
    time: TimeFloor
    passwords: Passwords
    users: Users
    throttle: Throttle
    delays: Delays
    parts: Parts = field(factory=Parts)


@contextmanager
def open_base(
    settings: Settings,
    *,
    clock: Clock | None = None,
    open_store: Callable[[Path], Store] = Store.open,
) -> Iterator[Base]:
    """Lock the folder, open the database and the key.  Raises FolderError, KeyFileError.

    A simulation brings its own clock, and a way to open the database without threads.
    """
    assert settings.server.data_dir is not None
    with DataFolder.open(settings.server.data_dir) as folder:
        store = open_store(folder.database)
        try:
            floor_ms = store.read(time_floor.stored) if clock is None else 0
            time = TimeFloor(clock or SystemClock(), floor_ms)
            yield _base(settings, folder, store, time)
        finally:
            store.close()


def _base(settings: Settings, folder: DataFolder, store: Store, time: TimeFloor) -> Base:
    server_name = ServerName(settings.server.name)
    known_name = store.read(meta.get_text, "server_name")
    if known_name not in (None, server_name):
        raise FolderError(
            f"The data folder {folder.path} belongs to the server {known_name}, which is not "
            f"{server_name}. A server's name cannot be changed: use another folder."
        )
    known_key = store.read(meta.get_text, "key_id")
    key = open_key(folder.signing_key, [] if known_key is None else [known_key])
    # Serial numbers of an earlier run are below those of a later one; see Typing.
    serial = int(store.read(meta.get_text, "boots") or 0) + 1 << 32
    typing = Typing(store.doorbell, serial)
    presence = Presence(store, time.clock, server_name, typing)
    env = Env(
        server_name,
        key,
        time.clock,
        typing,
        settings.rooms.default_version,
        publish_by_anyone=settings.rooms.publish == "anyone",
        rooms_per_user=settings.limits.rooms_per_user,
        presence=presence if settings.features.presence else None,
    )
    passwords = Passwords(settings.limits.password_hash_cost)
    users = Users(store, passwords, server_name, time.clock, close_account)
    throttle = Throttle(time.clock, enabled=settings.limits.rate_limits)
    delays = Delays(store, env, time, throttle)
    return Base(folder, store, env, time, passwords, users, throttle, delays)


def remember(tx: Tx, server_name: str, key: SigningKey) -> None:
    """From now on the database belongs to this name and this key (T051)."""
    meta.put_text(tx, "server_name", server_name)
    meta.put_text(tx, "key_id", key.key_id)
    meta.count_up(tx, "boots")


@asynccontextmanager
async def open_users(settings: Settings) -> AsyncIterator[Users]:
    """The accounts of a server that does not run, for the command line."""
    with open_base(settings) as base:
        await base.store.write(remember, base.env.server_name, base.env.key)
        yield base.users


async def rotate_key(settings: Settings) -> tuple[SigningKey, SigningKey]:
    """Give a server that does not run a new signing key; the old one and the new one."""
    with open_base(settings) as base:
        old = base.env.key
        await base.store.write(remember, base.env.server_name, old)
        return old, await rotate(base.store, base.folder.signing_key, old, base.env.clock)
