"""Starts the server's parts in order, owns their tasks, stops them in order.

Opened first and closed last is the store; the listeners start last and stop first.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import trio

from matrixbox.api.auth import Authenticator
from matrixbox.config import Settings
from matrixbox.e2ee.to_device import KEPT_IDS_MS
from matrixbox.household import control
from matrixbox.household.departures import Departures
from matrixbox.household.guests import GuestKeeper
from matrixbox.observe import log
from matrixbox.observe.health import LoopWatch, Notifier
from matrixbox.rooms import time_floor
from matrixbox.rooms.delayed import ENDED_FOR_S
from matrixbox.serve.base import Base, open_base, remember
from matrixbox.serve.listeners import certificate_of, make_door
from matrixbox.serve.network import open_network
from matrixbox.serve.pushing import push_services
from matrixbox.store import accounts, delayed, to_device
from matrixbox.tasks import keep_running

THREADS = 8  # Trio's default of 40 would let 40 password hashes run at once
CLEANING_EVERY_S = 300.0
KEPT_TRANSACTIONS = 200_000  # stream positions for which clients' transactions are remembered


def main(settings: Settings, ready: Callable[[Mapping[str, str]], None]) -> int:
    """Run until SIGINT or SIGTERM; the exit code.

    ``ready`` is called when all listen, with what does not work and why.
    """
    trio.run(run, settings, ready, strict_exception_groups=True)
    return 0


async def run(settings: Settings, ready: Callable[[Mapping[str, str]], None]) -> None:
    """The server, from its first file to its last."""
    started = time.monotonic()
    trio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    trio.lowlevel.add_instrument(LoopWatch())
    notifier = Notifier.from_environment()
    with open_base(settings) as base:
        await base.store.write(remember, base.env.server_name, base.env.key)
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with (
                open_network(settings, base) as federation,
                trio.open_nursery() as nursery,
            ):
                authenticator = Authenticator(base.store, base.env.clock)
                certificate = certificate_of(settings, base.parts)
                door = make_door(settings, base, federation, authenticator, certificate)
                functions = base.users.functions()
                socket = base.folder.control_socket
                await nursery.start(partial(control.listen, socket, functions))
                _start(nursery, base, authenticator)
                for name, service in push_services(settings, base, federation):
                    nursery.start_soon(partial(keep_running, service, name=name), name=name)
                if certificate is not None:
                    service, name = certificate.run, "serve.certificate"
                    nursery.start_soon(partial(keep_running, service, name=name), name=name)
                bound = await nursery.start(door.run)
                if not base.time.is_plausible:
                    log.warning("the clock is wrong: nothing is sent before it is set")
                log.info(
                    "ready",
                    server=base.env.server_name,
                    listening=[f"{host}:{port}" for host, port in bound],
                    took_ms=round((time.monotonic() - started) * 1000),
                )
                nursery.start_soon(notifier.feed_watchdog)
                notifier.ready()
                problems = base.parts.problems()
                if problems:
                    notifier.status("does not work: " + ", ".join(problems))
                ready(problems)
                async for number in signals:
                    log.info("stopping", signal=signal.Signals(number).name)
                    break
                notifier.stopping()
                await door.stop()
                nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await authenticator.store_seen()
                await base.store.write(time_floor.store, base.time)
    log.info("stopped")


def _start(nursery: trio.Nursery, base: Base, authenticator: Authenticator) -> None:
    async def cleaning() -> None:
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

    services: dict[str, Callable[[], Awaitable[None]]] = {
        "rooms.typing": base.env.typing.run,
        "store.cleaning": cleaning,
        "accounts.sessions": authenticator.run,
        "rooms.delayed": base.delays.run,
        "household.departures": Departures(base.store, base.env).run,
        "household.guests": GuestKeeper(base.store, base.env).run,
    }
    for name, service in services.items():
        nursery.start_soon(partial(keep_running, service, name=name), name=name)
