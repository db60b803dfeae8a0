"""All that runs beside the listeners for as long as the server does.

The process starts it, and a simulation does, with its own network, push gateway and clock: what is
listed here runs in both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import frozen

from matrixbox.api.auth import Authenticator
from matrixbox.config import Settings
from matrixbox.e2ee.to_device import KEPT_IDS_MS
from matrixbox.federation.parts import Federation
from matrixbox.federation.transport import Transport
from matrixbox.household.departures import Departures
from matrixbox.household.guests import GuestKeeper
from matrixbox.push.gateway import Gateway
from matrixbox.rooms import time_floor
from matrixbox.rooms.delayed import ENDED_FOR_S
from matrixbox.serve.base import Base, remember
from matrixbox.serve.network import open_network
from matrixbox.serve.pushing import push_services
from matrixbox.store import accounts, delayed, to_device
from matrixbox.tasks import Offload, in_thread, keep_running

CLEANING_EVERY_S = 300.0
KEPT_TRANSACTIONS = 200_000  # stream positions for which clients' transactions are remembered

Service = Callable[[], Awaitable[None]]


@frozen
class Running:
    """What answers are made with while everything runs."""

    federation: Federation
    authenticator: Authenticator


@asynccontextmanager
async def run_services(
    settings: Settings,
    base: Base,
    transport: Transport | None = None,
    gateway: Gateway | None = None,
    *,
    offload: Offload = in_thread,
) -> AsyncIterator[Running]:
    """Everything but the listeners, running inside the block.

    A simulation brings its own transport and push gateway, and does what is heavy without threads
    (`at_once`).
    """
    await base.store.write(remember, base.env.server_name, base.env.key)
    authenticator = Authenticator(base.store, base.env.clock)
    async with (
        open_network(settings, base, transport, offload=offload) as federation,
        trio.open_nursery() as nursery,
    ):
        for services in (
            _household(base, authenticator),
            push_services(settings, base, federation, gateway),
            _mail(settings, base),
        ):
            for name, service in services:
                nursery.start_soon(partial(keep_running, service, name=name), name=name)
        try:
            yield Running(federation, authenticator)
        finally:
            nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await authenticator.store_seen()
        await base.store.write(time_floor.store, base.time)


def _household(base: Base, authenticator: Authenticator) -> Iterator[tuple[str, Service]]:
    yield "rooms.typing", base.env.typing.run
    yield "store.cleaning", partial(_clean, base, authenticator)
    yield "accounts.sessions", authenticator.run
    yield "rooms.delayed", base.delays.run
    yield "household.departures", Departures(base.store, base.env).run
    yield "household.guests", GuestKeeper(base.store, base.env).run


def _mail(settings: Settings, base: Base) -> Iterator[tuple[str, Service]]:
    if settings.email.smtp_host:
        # The library for messages is a large one, and most servers send none.
        from matrixbox.serve.mailing import mail_services  # noqa: PLC0415

        yield from mail_services(settings, base)


async def _clean(base: Base, authenticator: Authenticator) -> None:
    while True:
        await trio.sleep(CLEANING_EVERY_S)
        await authenticator.store_seen()
        oldest = base.store.doorbell.position - KEPT_TRANSACTIONS
        await base.store.write(accounts.prune_transactions, oldest)
        before_ms = base.env.clock.now_ms() - KEPT_IDS_MS
        await base.store.write(to_device.forget_received, before_ms)
        before_ms = base.env.clock.now_ms() - ENDED_FOR_S * 1000
        await base.store.write(delayed.forget_older, before_ms)
        await base.store.write(time_floor.store, base.time)
