"""The composition root: builds the server's parts in order, owns their tasks, stops them in order.

Wiring only.  Opened first and closed last is the store; the listeners start last and stop first.
"""

from __future__ import annotations

import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import trio
from attrs import evolve, frozen

from matrixbox.accounts.nonces import Nonces
from matrixbox.accounts.passwords import Passwords
from matrixbox.accounts.throttle import Throttle
from matrixbox.accounts.uia import Uia
from matrixbox.api.app import make_quart
from matrixbox.api.asgi import Application
from matrixbox.api.auth import Authenticator
from matrixbox.api.bounds import Bounds
from matrixbox.api.client.table import client_routes
from matrixbox.api.listener import Bind, Door, new_server_context
from matrixbox.api.routes import Auth
from matrixbox.api.services import Services
from matrixbox.clock import SystemClock
from matrixbox.config import Settings
from matrixbox.core.identifiers import ServerName
from matrixbox.core.signing import SigningKey
from matrixbox.datafolder import DataFolder, FolderError
from matrixbox.household import control
from matrixbox.household.departures import close_account
from matrixbox.household.users import Users
from matrixbox.keyfile import open_key
from matrixbox.observe import log
from matrixbox.observe.health import LoopWatch, Notifier
from matrixbox.rooms.env import Env
from matrixbox.rooms.typing import Typing
from matrixbox.store import accounts, meta
from matrixbox.store.accounts import Account
from matrixbox.store.database import Store
from matrixbox.store.transaction import Tx
from matrixbox.sync.v3 import SyncService
from matrixbox.tasks import keep_running

THREADS = 8  # Trio's default of 40 would let 40 password hashes run at once
CLEANING_EVERY_S = 300.0
KEPT_TRANSACTIONS = 200_000  # stream positions for which clients' transactions are remembered


@frozen
class Base:
    """What everything stands on: the data folder, the database, the key."""

    folder: DataFolder
    store: Store
    env: Env
    passwords: Passwords
    users: Users


@contextmanager
def open_base(settings: Settings) -> Iterator[Base]:
    """Lock the folder, open the database and the key.  Raises FolderError, KeyFileError."""
    assert settings.server.data_dir is not None
    with DataFolder.open(settings.server.data_dir) as folder:
        store = Store.open(folder.database)
        try:
            yield _base(settings, folder, store)
        finally:
            store.close()


def _base(settings: Settings, folder: DataFolder, store: Store) -> Base:
    server_name = ServerName(settings.server.name)
    known_name = store.read(meta.get_text, "server_name")
    if known_name not in (None, server_name):
        raise FolderError(
            f"The data folder {folder.path} belongs to the server {known_name}, which is not "
            f"{server_name}. A server's name cannot be changed: use another folder."
        )
    known_key = store.read(meta.get_text, "key_id")
    key = open_key(folder.signing_key, [] if known_key is None else [known_key])
    clock = SystemClock()
    # Serial numbers of an earlier run are below those of a later one; see Typing.
    serial = int(store.read(meta.get_text, "boots") or 0) + 1 << 32
    typing = Typing(store.doorbell, serial)
    env = Env(
        server_name,
        key,
        clock,
        typing,
        settings.rooms.default_version,
        publish_by_anyone=settings.rooms.publish == "anyone",
    )
    passwords = Passwords(settings.limits.password_hash_cost)
    close = partial(_close_account, env)
    return Base(folder, store, env, passwords, Users(store, passwords, server_name, clock, close))


def _close_account(env: Env, tx: Tx, account: Account) -> None:
    close_account(tx, env, account)


def _remember(tx: Tx, server_name: str, key: SigningKey) -> None:
    """From now on the database belongs to this name and this key (T051)."""
    meta.put_text(tx, "server_name", server_name)
    meta.put_text(tx, "key_id", key.key_id)
    meta.count_up(tx, "boots")


@asynccontextmanager
async def open_users(settings: Settings) -> AsyncIterator[Users]:
    """The accounts of a server that does not run, for the command line."""
    with open_base(settings) as base:
        await base.store.write(_remember, base.env.server_name, base.env.key)
        yield base.users


def main(settings: Settings, ready: Callable[[], None]) -> int:
    """Run until SIGINT or SIGTERM; the exit code.  ``ready`` is called when all listen."""
    trio.run(run, settings, ready, strict_exception_groups=True)
    return 0


async def run(settings: Settings, ready: Callable[[], None]) -> None:
    """The server, from its first file to its last."""
    started = time.monotonic()
    trio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    trio.lowlevel.add_instrument(LoopWatch())
    notifier = Notifier.from_environment()
    with open_base(settings) as base:
        await base.store.write(_remember, base.env.server_name, base.env.key)
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                authenticator = Authenticator(base.store, base.env.clock)
                door = make_door(settings, base, authenticator)
                functions = base.users.functions()
                socket = base.folder.control_socket
                await nursery.start(partial(control.listen, socket, functions))
                _start(nursery, base, authenticator)
                bound = await nursery.start(door.run)
                log.info(
                    "ready",
                    server=base.env.server_name,
                    listening=[f"{host}:{port}" for host, port in bound],
                    took_ms=round((time.monotonic() - started) * 1000),
                )
                nursery.start_soon(notifier.feed_watchdog)
                notifier.ready()
                ready()
                async for number in signals:
                    log.info("stopping", signal=signal.Signals(number).name)
                    break
                notifier.stopping()
                await door.stop()
                nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await authenticator.store_seen()
    log.info("stopped")


def _start(nursery: trio.Nursery, base: Base, authenticator: Authenticator) -> None:
    async def cleaning() -> None:
        while True:
            await trio.sleep(CLEANING_EVERY_S)
            await authenticator.store_seen()
            oldest = base.store.doorbell.position - KEPT_TRANSACTIONS
            await base.store.write(accounts.prune_transactions, oldest)

    for name, service in (("rooms.typing", base.env.typing.run), ("store.cleaning", cleaning)):
        nursery.start_soon(partial(keep_running, service, name=name), name=name)


def make_door(settings: Settings, base: Base, authenticator: Authenticator) -> Door:
    """The listeners, with the application behind them."""
    limited = settings.limits.rate_limits
    bounds = Bounds()
    if not limited:
        bounds = evolve(
            bounds,
            connections_per_address=bounds.connections,
            requests_per_user=bounds.requests_at_once,
            waiting_per_user=bounds.connections,
        )
    clock = base.env.clock
    services = Services(
        settings=settings,
        store=base.store,
        env=base.env,
        passwords=base.passwords,
        throttle=Throttle(clock, enabled=limited),
        uia=Uia(clock),
        nonces=Nonces(clock),
        sync=SyncService(base.store, base.env),
        base_url=settings.base_url,
    )
    app = Application(
        client_routes(),
        services=services,
        authenticators={Auth.USER: authenticator.user, Auth.OPTIONAL: authenticator.optional},
        bounds=bounds,
        spool_folder=base.folder.path,
        quart=make_quart,
    )
    return Door(
        app,
        [*_binds(settings)],
        bounds=bounds,
        tell_stopping=app.turns.waiting.stop,
    )


def _binds(settings: Settings) -> Iterator[Bind]:
    for address in settings.listen.http:
        yield Bind(address.host, address.port)
    if settings.listen.https:
        context = _context(settings)
        for address in settings.listen.https:
            yield Bind(address.host, address.port, lambda: context)


def _context(settings: Settings) -> ssl.SSLContext:
    context = new_server_context()
    assert settings.tls.cert is not None
    assert settings.tls.key is not None
    context.load_cert_chain(settings.tls.cert, settings.tls.key)
    return context
