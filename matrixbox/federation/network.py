"""The transport of the real network: discovery, then HTTP over TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import evolve

from matrixbox import __version__
from matrixbox.config.settings import Outbound
from matrixbox.core.identifiers import ServerName
from matrixbox.errors import AddressRefused, RemoteTimeout, RemoteUnreachable
from matrixbox.federation.discovery import Discovery
from matrixbox.federation.transport import Answer, Limits, Request, StreamedAnswer
from matrixbox.net.dial import Dialler
from matrixbox.net.dns import Resolver
from matrixbox.net.exchange import Route
from matrixbox.net.guard import AddressGuard
from matrixbox.net.http import HttpClient
from matrixbox.net.tls import new_client_context
from matrixbox.observe.health import Parts


class NetworkTransport:
    """Carries requests to other servers; see `federation.transport.Transport`.

    `run` keeps its connections tidy, for as long as the server runs.  `http` is the client behind
    it, for everything else that is called (push gateways, previews).
    """

    def __init__(self, own_name: ServerName, http: HttpClient, discovery: Discovery) -> None:
        self._own_name = own_name
        self.http = http
        self._discovery = discovery

    async def run(self) -> None:
        """Close connections that are idle, for ever."""
        await self.http.run()

    async def exchange(self, server: ServerName, request: Request, limits: Limits) -> Answer:
        """The whole answer; the total deadline includes finding the server."""
        async with self.stream(server, request, limits) as answer:
            body = b"".join([piece async for piece in answer])
            return Answer(answer.status, answer.headers, body)

    @asynccontextmanager
    async def stream(
        self, server: ServerName, request: Request, limits: Limits
    ) -> AsyncIterator[StreamedAnswer]:
        """The answer's head, and its body to be read inside the block."""
        deadline_s = trio.current_time() + limits.total_s
        route = await self._route(server, deadline_s)
        left = evolve(limits, total_s=deadline_s - trio.current_time())
        try:
            async with self.http.stream(route, request, left) as answer:
                yield answer
        except RemoteUnreachable as error:
            if error.destination == server:
                self._discovery.doubt(server)
            raise

    async def _route(self, server: ServerName, deadline_s: float) -> Route:
        if server == self._own_name:
            raise AddressRefused(server, "that is this server")  # T058
        try:
            with trio.fail_at(deadline_s):
                return await self._discovery.route(server)
        except trio.TooSlowError as error:
            raise RemoteTimeout(server, "finding the server takes too long") from error


def new_http_client(settings: Outbound, resolver: Resolver, parts: Parts) -> HttpClient:
    """The client for all outgoing requests; `parts` is told of unreadable authorities (T151)."""
    guard = AddressGuard(allow_private=settings.allow_private_addresses)
    authorities = _usable(settings.extra_ca_files, parts)
    context = new_client_context(authorities) if authorities else None
    return HttpClient(Dialler(resolver, guard, context), user_agent=f"matrixbox/{__version__}")


def _usable(authorities: Sequence[Path], parts: Parts) -> list[Path]:
    usable = []
    for path in authorities:
        try:
            new_client_context([path])
        except OSError as error:
            parts.broken(f"authorities {path}", error.strerror or str(error))
        else:
            usable.append(path)
    return usable


def new_transport(settings: Outbound, own_name: ServerName, parts: Parts) -> NetworkTransport:
    """The transport that the settings ask for; `parts` as for `new_http_client`."""
    resolver = Resolver()
    http = new_http_client(settings, resolver, parts)
    discovery = Discovery(http, resolver, srv_lookups=settings.srv_lookups)
    return NetworkTransport(own_name, http, discovery)
