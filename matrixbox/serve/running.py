"""Starts the server's parts in order, owns their tasks, stops them in order.

Opened first and closed last is the store; the listeners start last and stop first.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from functools import partial

import trio

from matrixbox.config import Settings
from matrixbox.household import control
from matrixbox.observe import log
from matrixbox.observe.health import LoopWatch, Notifier
from matrixbox.serve.base import open_base
from matrixbox.serve.listeners import certificate_of, make_door
from matrixbox.serve.services import run_services
from matrixbox.tasks import keep_running

THREADS = 8  # Trio's default of 40 would let 40 password hashes run at once


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
    with (
        open_base(settings) as base,
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
    ):
        async with (
            run_services(settings, base) as running,
            trio.open_nursery() as nursery,
        ):
            certificate = certificate_of(settings, base.parts)
            door = make_door(settings, base, running.federation, running.authenticator, certificate)
            functions = base.users.functions()
            socket = base.folder.control_socket
            await nursery.start(partial(control.listen, socket, functions))
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
    log.info("stopped")
