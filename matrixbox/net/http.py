"""The HTTP client for everything that leaves this server.

HTTP/1.1 over connections that belong to one route each: name, Host, certificate name, targets.  No
redirects, no proxies, no cookies, no compression.  Deadlines and caps are those of the call's
`Limits`; what a peer sends decides about nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv6Address
from typing import TypeAlias
from urllib.parse import urlsplit

import trio
from attrs import Factory, define, frozen

from matrixbox.errors import RemoteTimeout, RemoteUnreachable
from matrixbox.net.connection import Connection, NothingAnswered
from matrixbox.net.dial import Dialler
from matrixbox.net.exchange import Answer, Limits, Request, Route, Target
from matrixbox.net.guard import is_port_allowed, parse_host

AT_ONCE_PER_ROUTE = 6
AT_ONCE = 256
IDLE_PER_ROUTE = 1
IDLE_IN_ALL = 64
IDLE_S = 25.0
"""A connection that has not been used for so long is closed (T156: none dead is kept over 30 s)."""
MAX_AGE_S = 600.0
"""After that a route is looked up and dialled anew, however busy the connection is."""
SWEEP_S = 5.0
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
MAX_URL_CHARACTERS = 4096


class InvalidUrl(ValueError):
    """Not an absolute URL that this server would call."""


@frozen
class Url:
    """An absolute http or https URL, in parts; `target` is the path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host and port as the Host header shows them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def route(self) -> Route:
        """How it is reached."""
        tls_name = self.host if self.scheme == "https" else None
        target = Target(self.host, self.port)
        return Route(f"{self.scheme}://{self.authority}", self.authority, tls_name, (target,))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


_PORTS = {"https": 443, "http": 80}


def parse_url(text: str, *, plain: bool = False) -> Url:
    """Read an https URL, or also an http one if `plain`; raise InvalidUrl.

    No user names, no characters outside of ASCII, no blanks or control characters, which
    `urlsplit` would drop in silence; the fragment is left out.
    """
    if len(text) > MAX_URL_CHARACTERS or not text.isascii() or not text.isprintable():
        raise InvalidUrl("not a URL")
    try:
        parts = urlsplit(text)
        port = parts.port
        host = parse_host(parts.netloc.rpartition(":")[0] if port is not None else parts.netloc)
    except ValueError as error:
        raise InvalidUrl(f"not a URL: {error}") from error
    if " " in text or parts.scheme not in (("https", "http") if plain else ("https",)):
        raise InvalidUrl("not an https URL")
    number = _PORTS[parts.scheme] if port is None else port
    if not is_port_allowed(number):
        raise InvalidUrl("a port that is not called")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    name = host if isinstance(host, str) else str(host)
    if isinstance(host, IPv6Address) and not parts.netloc.startswith("["):
        raise InvalidUrl("not a URL")
    return Url(parts.scheme, name, number, target)


class StreamedBody:
    """An answer whose body is read piece by piece: iterate once."""

    def __init__(self, connection: Connection, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next piece; raises RemoteError when it does not come."""
        if data := await self._connection.body_part():
            return data
        raise StopAsyncIteration


_Key: TypeAlias = "tuple[str, str, str | None, frozenset[Target]]"


@define
class _Pool:
    """The connections of one route."""

    slots: trio.Semaphore = Factory(lambda: trio.Semaphore(AT_ONCE_PER_ROUTE))
    idle: deque[Connection] = Factory(deque)
    users: int = 0


class HttpClient:
    """Makes requests; connections are kept for a while and used again by the same route.

    `run` closes idle connections in time; without it they are closed when they are looked at.
    """

    def __init__(self, dialler: Dialler, *, user_agent: str = "matrixbox") -> None:
        self._dialler = dialler
        self._agent = ("User-Agent", user_agent)
        self._pools: dict[_Key, _Pool] = {}
        self._slots = trio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Close idle connections, for ever; on the way out all of them."""
        try:
            while True:
                await trio.sleep(SWEEP_S)
                await self._sweep()
        finally:
            for pool in self._pools.values():
                while pool.idle:
                    with trio.CancelScope(shield=True):
                        await pool.idle.popleft().aclose()

    async def exchange(self, route: Route, request: Request, limits: Limits) -> Answer:
        """The whole answer; raises RemoteUnreachable, RemoteTimeout, RemoteInvalid,
        AddressRefused."""
        async with self.stream(route, request, limits) as answer:
            body = b"".join([piece async for piece in answer])
            return Answer(answer.status, answer.headers, body)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        limits: Limits | None = None,
        plain: bool = False,
    ) -> Answer:
        """Call an https URL (or http if `plain`) with the same guard as everything.

        Raises InvalidUrl, and what `exchange` raises.
        """
        parsed = parse_url(url, plain=plain)
        request = Request(method, parsed.target, tuple(headers), body)
        return await self.exchange(parsed.route, request, limits or Limits())

    @asynccontextmanager
    async def stream(
        self, route: Route, request: Request, limits: Limits
    ) -> AsyncIterator[StreamedBody]:
        """The answer's head, and its body to be read inside the block; raises as `exchange`.

        The total deadline ends reading, not the block.
        """
        deadline_s = trio.current_time() + limits.total_s
        key = (route.name, route.host, route.tls_name, frozenset(route.targets))
        pool = self._pools.setdefault(key, _Pool())
        pool.users += 1
        try:
            async with self._slot(pool, route, deadline_s):
                connection, answer = await self._begin(pool, route, request, limits, deadline_s)
                is_kept = False
                try:
                    yield answer
                    is_kept = await self._keep(pool, connection)
                finally:
                    if not is_kept:
                        await connection.aclose()
        finally:
            pool.users -= 1
            if not (pool.users or pool.idle):
                self._pools.pop(key, None)

    @asynccontextmanager
    async def _slot(self, pool: _Pool, route: Route, deadline_s: float) -> AsyncIterator[None]:
        """One of the slots of the route, and one of all."""
        held: list[trio.Semaphore] = []
        try:
            try:
                with trio.fail_at(deadline_s):
                    for slots in (pool.slots, self._slots):
                        await slots.acquire()
                        held.append(slots)
            except trio.TooSlowError as error:
                raise RemoteTimeout(route.name, "earlier requests take too long") from error
            yield
        finally:
            for slots in held:
                slots.release()

    async def _begin(
        self, pool: _Pool, route: Route, request: Request, limits: Limits, deadline_s: float
    ) -> tuple[Connection, StreamedBody]:
        """Send on an idle connection if there is one, else on a new one.

        An idle connection may be closed by the other side while the request is on its way: then
        the request is made again, if doing it twice does no harm.
        """
        whole = Request(
            request.method, request.target, (self._agent, *request.headers), request.body
        )
        while True:
            connection = await self._idle_one(pool)
            is_reused = connection is not None
            if connection is None:
                connection = await self._dial(route, deadline_s)
            try:
                head = await connection.begin(whole, limits, deadline_s)
            except NothingAnswered as error:
                await connection.aclose()
                if is_reused and request.method in IDEMPOTENT:
                    continue
                raise RemoteUnreachable(route.name, "it hung up without an answer") from error
            except BaseException:
                await connection.aclose()
                raise
            return connection, StreamedBody(connection, head.status, head.headers)

    async def _dial(self, route: Route, deadline_s: float) -> Connection:
        try:
            with trio.fail_at(deadline_s):
                return Connection(route, await self._dialler.dial(route))
        except trio.TooSlowError as error:
            raise RemoteTimeout(route.name, "no connection in time") from error

    async def _idle_one(self, pool: _Pool) -> Connection | None:
        while pool.idle:
            connection = pool.idle.pop()
            if _may_live(connection):
                return connection
            await connection.aclose()
        return None

    async def _keep(self, pool: _Pool, connection: Connection) -> bool:
        """Whether the connection waits for the next request now; the oldest one makes room."""
        if len(pool.idle) >= IDLE_PER_ROUTE or not connection.reset() or not _may_live(connection):
            return False
        idle = [(each, kept) for each in self._pools.values() for kept in each.idle]
        if len(idle) >= IDLE_IN_ALL:
            its_pool, oldest = min(idle, key=lambda found: found[1].idle_since_s)
            its_pool.idle.remove(oldest)
            await oldest.aclose()
        pool.idle.append(connection)
        return True

    async def _sweep(self) -> None:
        for key, pool in [*self._pools.items()]:
            dead = [each for each in pool.idle if not _may_live(each)]
            pool.idle = deque(each for each in pool.idle if each not in dead)
            if not (pool.users or pool.idle):
                self._pools.pop(key, None)
            for connection in dead:
                await connection.aclose()


def _may_live(connection: Connection) -> bool:
    now = trio.current_time()
    return (
        now - connection.idle_since_s < IDLE_S
        and now - connection.opened_s < MAX_AGE_S
        and not connection.is_stale
    )
