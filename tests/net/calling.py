"""A client of tests: real guard, real TLS, real HTTP; names and wires of the test's making."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import frozen
from trio.testing import MockClock

from matrixbox.net.exchange import Limits, Request, Route, Target
from matrixbox.net.guard import AddressGuard
from matrixbox.net.http import HttpClient
from tests.net.names import NameServer, name_server, resolver_of
from tests.net.web import Switchboard, Web, reply, trusting_context, web

QUICK = Limits(total_s=5.0, idle_s=2.0, max_bytes=100_000)
GET = Request("GET", "/x")
IP = "1.2.3.4"
IP6 = "2a00::4"


def route(
    host: str = "a.test", port: int = 8448, *, name: str | None = None, tls: str | None = None
) -> Route:
    """A route to one target."""
    return Route(name or host, host, tls or host, (Target(host, port),))


@frozen
class Net:
    """Everything that goes out, and what it meets."""

    names: NameServer
    web: Web
    switchboard: Switchboard
    client: HttpClient

    def site(self, name: str, address: str = IP, *ports: int) -> None:
        """A name with an address where the web server answers with a certificate for the name."""
        self.names.add(name, "AAAA" if ":" in address else "A", address)
        self.web.certify(name)
        for port in ports or (443, 8448):
            self.switchboard.lines[address, port] = self.web.port

    async def hurry(self, clock: MockClock, rate: float) -> None:
        """Let time pass quickly, once there is a connection to a.test: TLS takes real time."""
        self.web.on("a.test", "/warm", reply())
        await self.client.exchange(route(), Request("GET", "/warm"), QUICK)
        clock.rate = rate


@asynccontextmanager
async def net(*, allow_private: bool = False) -> AsyncIterator[Net]:
    """Run it, with idle connections swept."""
    async with name_server() as names, web() as server, trio.open_nursery() as nursery:
        guard = AddressGuard(allow_private=allow_private)
        switchboard = Switchboard(resolver_of(names), guard, trusting_context())
        client = HttpClient(switchboard, user_agent="test")
        nursery.start_soon(client.run)
        yield Net(names, server, switchboard, client)
        nursery.cancel_scope.cancel()
