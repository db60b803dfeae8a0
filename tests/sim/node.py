"""One whole server of the simulation: its data folder, its parts, its restarts."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio
from attrs import define, field, frozen

from matrixbox.accounts import registration, sessions
from matrixbox.clock import SimulatedClock
from matrixbox.config import settings as config
from matrixbox.core.identifiers import ServerName
from matrixbox.federation.transport import Answer, Request, Transport
from matrixbox.serve.base import Base, open_base
from matrixbox.serve.listeners import make_application
from matrixbox.serve.services import run_services
from matrixbox.store.caches import Session
from matrixbox.store.database import Store, Tuning
from matrixbox.store.runner import Runner
from matrixbox.tasks import at_once
from tests.sim.network import Network, SimGateway, SimTransport, call

TUNING = Tuning(synchronous="OFF", reserve_bytes=0, free_bytes=lambda: 2**40)


def open_store(path: Path) -> Store:
    """Everything at once in the calling task; nothing waits for the disk."""
    return Store.open(path, runner=Runner.INLINE, tuning=TUNING)


@frozen
class Account:
    """A user of the household, signed in on one device."""

    user_id: str
    token: str
    session: Session


class Failed(Exception):
    """A client's request was answered with an error, or not at all (status 0)."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


@define(eq=False)
class Node:
    """A server that can be started, stopped and killed; what stays is its folder."""

    name: ServerName
    folder: Path
    network: Network
    rng: random.Random
    clock: SimulatedClock
    base: Base | None = None
    services: Any = None
    _app: Any = None
    _nursery: trio.Nursery | None = None
    _ended: trio.Event | None = None
    starts: int = 0
    is_honest: bool = True
    gateway: SimGateway = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.gateway = SimGateway(self.network)

    @property
    def settings(self) -> config.Settings:
        """Its configuration."""
        return config.Settings(
            server=config.Server(name=self.name, data_dir=self.folder),
            limits=config.Limits(rate_limits=False, password_hash_cost="lowest"),
        )

    @property
    def is_up(self) -> bool:
        """Whether it answers."""
        return self._nursery is not None

    @property
    def store(self) -> Store:
        """Its database; it must be up."""
        assert self.base is not None, f"{self.name} is down"
        return self.base.store

    # --- life

    async def start(self, nursery: trio.Nursery) -> None:
        """Start it, and return when it answers."""
        assert not self.is_up
        self.starts += 1
        self.network.trace.note("start", self.name)
        await nursery.start(self._run)

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        self._ended = trio.Event()
        try:
            with open_base(self.settings, clock=self.clock, open_store=open_store) as base:
                self.base = base
                services = run_services(
                    self.settings, base, self.transport(), self.gateway, offload=at_once
                )
                async with services as running, trio.open_nursery() as tasks:
                    app = make_application(
                        self.settings, base, running.federation, running.authenticator
                    )
                    self._app, self.services = app, app.shared.services
                    self._nursery = tasks
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            self._nursery = None
            self.base = self._app = self.services = None
            self._ended.set()

    def transport(self) -> Transport:
        """Its way to the others."""
        return SimTransport(self.network, self.name)

    async def stop(self) -> None:
        """End it in good order."""
        self.network.trace.note("stop", self.name)
        await self._end()

    async def kill(self) -> None:
        """End it as a crash would: what its tasks do while they end leaves no trace."""
        self.network.trace.note("kill", self.name)
        as_it_was = self.folder.with_name(self.folder.name + ".killed")
        shutil.copytree(self.folder, as_it_was, ignore=shutil.ignore_patterns("*.sock"))
        await self._end()
        shutil.rmtree(self.folder)
        as_it_was.rename(self.folder)

    async def _end(self) -> None:
        assert self._nursery is not None
        assert self._ended is not None
        self._nursery.cancel_scope.cancel()
        self._nursery = None  # from now on nobody is answered
        await self._ended.wait()

    # --- requests

    async def handle(self, origin: ServerName, request: Request) -> Answer | None:
        """See ``network.Host``."""
        return await self._within(
            partial(call, self._app, request, host=self.name, address=f"10.0.0.{len(origin)}")
        )

    async def _within(self, work: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """Run in this server's own tasks, which end when it ends.

        A caller that hangs up is noticed half of the time: then the work is given up.
        """
        if self._nursery is None:
            return None
        found: list[Answer] = []
        done = trio.Event()
        scope = trio.CancelScope()

        async def run() -> None:
            try:
                with scope:
                    found.append(await work())
            finally:
                done.set()

        self._nursery.start_soon(run)
        try:
            await done.wait()
        except trio.Cancelled:
            if self.rng.random() < 0.5:
                scope.cancel()
            raise
        return found[0] if found else None

    async def request(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        token: str | None = None,
        timeout_s: float = 120.0,
    ) -> Any:
        """A client's request; the answer's body.  Raises Failed."""
        headers = () if token is None else (("authorization", f"Bearer {token}"),)
        data = b"" if body is None else json.dumps(body).encode()
        asked = Request(method, target, headers, data)
        answer: Answer | None = None
        with trio.move_on_after(timeout_s):
            answer = await self._within(
                partial(call, self._app, asked, host=self.name, address="192.168.0.2")
            )
        if answer is None:
            raise Failed(0, "no answer")
        found = json.loads(answer.body)
        if answer.status != 200:
            raise Failed(answer.status, found)
        return found

    async def register(self, localpart: str) -> Account:
        """A new account with one device."""
        assert self.base is not None
        name, now = self.base.env.server_name, self.clock.now_ms()

        def make(tx: Any) -> Account:
            _, opened = registration.register(tx, name, localpart, None, now, (None, None))
            assert opened is not None
            session = sessions.authenticate(tx, opened.access_token)
            return Account(opened.user_id, opened.access_token, session)

        return await self.base.store.write(make)

    async def register_guest(self) -> Account:
        """An account of a guest."""
        assert self.base is not None
        name, now = self.base.env.server_name, self.clock.now_ms()

        def make(tx: Any) -> Account:
            opened = registration.register_guest(tx, name, now, None)
            session = sessions.authenticate(tx, opened.access_token)
            return Account(opened.user_id, opened.access_token, session)

        return await self.base.store.write(make)
