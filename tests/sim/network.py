"""The network between simulated servers: requests that are late, lost, doubled, cut off.

`SimTransport` is what each server is given as its ``federation.transport.Transport``.  A request
goes to the other server's application whole, with its authorisation header, which is checked there
as in earnest.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Set
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import unquote

import trio
from attrs import define, field, frozen

from matrixbox.api.exchange import AsgiApp, Message
from matrixbox.core.identifiers import ServerName
from matrixbox.errors import RemoteInvalid, RemoteTimeout, RemoteUnreachable
from matrixbox.federation.transport import Answer, Limits, Request
from tests.sim.determinism import Trace


@define
class Weather:
    """How bad the network is; shares are probabilities, times seconds."""

    delay_s: float = 0.05  # the mean of an exponential distribution, one way
    slow_share: float = 0.0
    slow_s: float = 5.0
    loss: float = 0.0  # of a request or of an answer, each
    double: float = 0.0

    @classmethod
    def calm(cls) -> Weather:
        """No faults."""
        return cls()

    @classmethod
    def random(cls, rng: random.Random) -> Weather:
        """Some kind of bad weather."""
        return cls(
            delay_s=rng.choice([0.02, 0.1, 0.5]),
            slow_share=rng.choice([0.0, 0.05, 0.2]),
            slow_s=rng.choice([2.0, 15.0]),
            loss=rng.choice([0.0, 0.02, 0.1]),
            double=rng.choice([0.0, 0.1]),
        )


@frozen
class Joining:
    """A server's join, handed to another one."""

    server: ServerName
    room_id: str
    at_s: float


class Host(Protocol):
    """A server that the network reaches."""

    name: ServerName

    async def handle(self, origin: ServerName, request: Request) -> Answer | None:
        """Its answer; None when it is down, or goes down before it has answered."""


@define(eq=False)
class Network:
    """All links."""

    rng: random.Random
    trace: Trace
    weather: Weather = field(factory=Weather.calm)
    hosts: dict[ServerName, Host] = field(factory=dict)
    cut: set[frozenset[ServerName]] = field(factory=set)
    tasks: trio.Nursery | None = None  # where the copies of requests run
    requests: int = 0
    joins: list[Joining] = field(factory=list)

    def partition(self, group: set[ServerName], between: Set[ServerName] = frozenset()) -> None:
        """Cut all links between a group of servers and the others, but for those ``between``."""
        others = set(self.hosts) - group - between
        group = group - between
        self.cut |= {frozenset((a, b)) for a in group for b in others}
        self.trace.note("cut", *sorted(group))

    def heal(self) -> None:
        """No more faults."""
        self.cut.clear()
        self.weather = Weather.calm()
        self.trace.note("healed")

    def delay(self) -> float:
        """One way."""
        if self.rng.random() < self.weather.slow_share:
            return self.rng.expovariate(1 / self.weather.slow_s)
        return self.rng.expovariate(1 / self.weather.delay_s)

    async def carry(self, origin: ServerName, to: ServerName, request: Request) -> Answer:
        """A request's way there and back.  Waits for ever where something was lost."""
        self.requests += 1
        number = self.requests
        self.trace.note("ask", number, origin, to, request.method, request.target)
        if "/send_join/" in request.target:
            room_id = unquote(request.target.split("/")[5])
            self.joins.append(Joining(origin, room_id, trio.current_time()))
        link = frozenset((origin, to))
        host = self.hosts.get(to)
        if host is None:
            raise RemoteUnreachable(to, "no such server")
        await trio.sleep(self.delay())
        if link in self.cut:
            if self.rng.random() < 0.5:
                raise RemoteUnreachable(to, "no route")
            await trio.sleep_forever()
        if self.rng.random() < self.weather.loss:
            self.trace.note("lost", number)
            await trio.sleep_forever()
        if self.rng.random() < self.weather.double and self.tasks is not None:
            self.tasks.start_soon(self._again, number, host, origin, request)
        answer = await host.handle(origin, request)
        if answer is None:
            raise RemoteUnreachable(to, "connection refused or broken")
        size = len(answer.body)
        self.trace.note("answer", number, answer.status, answer.body if size < 400 else size)
        await trio.sleep(self.delay())
        if link in self.cut or self.rng.random() < self.weather.loss:
            self.trace.note("answer lost", number)
            await trio.sleep_forever()
        return answer

    async def _again(self, number: int, host: Host, origin: ServerName, request: Request) -> None:
        await trio.sleep(self.delay())
        self.trace.note("double", number)
        await host.handle(origin, request)


@frozen(eq=False)
class SimTransport:
    """One server's way to the others."""

    network: Network
    origin: ServerName

    async def exchange(self, server: ServerName, request: Request, limits: Limits) -> Answer:
        """See ``Transport``; an answer comes in one piece or, for so long, not at all."""
        with trio.move_on_after(min(limits.total_s, limits.idle_s)):
            answer = await self.network.carry(self.origin, server, request)
            if len(answer.body) > limits.max_bytes:
                raise RemoteInvalid(server, "the answer is too large")
            return answer
        raise RemoteTimeout(server, "no answer in time")

    @asynccontextmanager
    async def stream(
        self, server: ServerName, request: Request, limits: Limits
    ) -> AsyncIterator[Pieces]:
        """See ``Transport``."""
        answer = await self.exchange(server, request, limits)
        yield Pieces(answer.status, answer.headers, answer.body)


@define(eq=False)
class SimGateway:
    """A push gateway: takes notifications, late or not at all like everybody."""

    network: Network
    taken: int = 0

    async def notify(self, url: str, body: bytes) -> frozenset[str]:
        """See ``push.gateway.Gateway``."""
        await trio.sleep(self.network.delay())
        if self.network.rng.random() < self.network.weather.loss:
            raise RemoteTimeout(url, "no answer in time")
        self.taken += 1
        self.network.trace.note("push", url, len(body))
        return frozenset()


@frozen
class Pieces:
    """An answer that comes in pieces of awkward size."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.body), 1_000):
            await trio.lowlevel.checkpoint()
            yield self.body[start : start + 1_000]


async def call(app: AsgiApp, request: Request, *, host: str, address: str) -> Answer:
    """One request to an ASGI application in this process."""
    path, _, query = request.target.partition("?")
    headers = [(name.lower().encode(), value.encode()) for name, value in request.headers]
    if not any(name == b"host" for name, _ in headers):
        headers.append((b"host", host.encode()))
    if request.body:
        headers.append((b"content-length", b"%d" % len(request.body)))
    scope: Message = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "https",
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": headers,
        "client": (address, 40_000),
        "server": (host, 443),
        "state": {},
        "extensions": {},
    }
    sent: list[Message] = []
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        if asked > 1:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    await app(scope, receive, send)
    start, *parts = sent
    return Answer(
        start["status"],
        {name.decode().lower(): value.decode() for name, value in start["headers"]},
        b"".join(part.get("body", b"") for part in parts),
    )
