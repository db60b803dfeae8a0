"""From a server's name to where it is: every step of the specification.

Matrix v1.19, Server-Server API, "Resolving server names" [B2.01]-[B2.11]; threats T053 to T059.
The certificate and the Host header are those of the name, or of the name it delegates to, never of
an SRV record's target.
"""

from __future__ import annotations

import trio
from attrs import frozen

from matrixbox.core.identifiers import (
    InvalidIdentifier,
    ServerName,
    hostname_of,
    parse_server_name,
)
from matrixbox.errors import AddressRefused, RemoteUnreachable
from matrixbox.federation.well_known import WellKnown
from matrixbox.net.dns import Resolver
from matrixbox.net.exchange import Route, Target
from matrixbox.net.guard import InvalidHost, is_port_allowed, parse_host
from matrixbox.net.http import HttpClient
from matrixbox.net.records import LookupFailed

PORT = 8448


@frozen
class Address:
    """A server name in parts: `host` is a DNS name or an address literal without brackets."""

    host: str
    is_literal: bool
    port: int | None


def parse_address(server: ServerName) -> Address:
    """The parts of a server name; raises AddressRefused for what is never dialled."""
    try:
        parse_server_name(server)
        hostname = hostname_of(server)
        host = parse_host(hostname)
    except (InvalidIdentifier, InvalidHost) as error:
        raise AddressRefused(server, "not a name that can be dialled") from error
    written = server[len(hostname) + 1 :]
    port = int(written) if written else None
    if port is not None and not is_port_allowed(port):
        raise AddressRefused(server, f"port {port} is not dialled")
    if isinstance(host, str):
        return Address(host, is_literal=False, port=port)
    return Address(str(host), is_literal=True, port=port)


class Discovery:
    """Finds the route to a server; what it finds is kept by the resolver and the well-known."""

    def __init__(self, http: HttpClient, resolver: Resolver, *, srv_lookups: bool = True) -> None:
        self._well_known = WellKnown(http)
        self._resolver = resolver
        self._srv_lookups = srv_lookups

    async def route(self, server: ServerName) -> Route:
        """How to reach a server.  Raises AddressRefused, RemoteUnreachable.

        The route may lead nowhere: addresses are looked up and checked when it is dialled.
        """
        address = parse_address(server)
        if address.is_literal or address.port is not None:
            return _direct(server, server, address)  # steps 1 and 2
        delegated = await self._well_known.delegation(address.host)  # step 3
        if delegated is None:
            return await self._by_service(server, server, address)  # steps 4 to 6
        try:
            address = parse_address(delegated)
        except AddressRefused as error:
            raise AddressRefused(server, f"delegates to {delegated}, which is refused") from error
        if address.is_literal or address.port is not None:
            return _direct(server, delegated, address)  # steps 3.1 and 3.2
        return await self._by_service(server, delegated, address)  # steps 3.3 to 3.5

    def doubt(self, server: ServerName) -> None:
        """The route to this server led nowhere: what it was made of may be out of date."""
        self._well_known.doubt(hostname_of(server).lower())

    async def _by_service(self, server: ServerName, named: ServerName, address: Address) -> Route:
        """By SRV records if there are any, else the name itself on port 8448."""
        targets: tuple[Target, ...] | None = None
        if self._srv_lookups:
            targets = await self._services(address.host)
        if targets is None:
            targets = (Target(address.host, PORT),)
        if not targets:
            raise RemoteUnreachable(server, "its SRV records lead nowhere")
        return Route(server, named, address.host, targets)

    async def _services(self, host: str) -> tuple[Target, ...] | None:
        """The targets of the new SRV name, else of the old one; both are asked for at once.

        A look-up that fails counts as "none": some routers never answer for SRV.
        """
        found: dict[str, tuple[Target, ...] | None] = {}

        async def ask(service: str) -> None:
            try:
                found[service] = await self._resolver.services(f"{service}.{host}")
            except LookupFailed:
                found[service] = None

        async with trio.open_nursery() as nursery:
            for service in ("_matrix-fed._tcp", "_matrix._tcp"):
                nursery.start_soon(ask, service)
        newer = found["_matrix-fed._tcp"]
        return found["_matrix._tcp"] if newer is None else newer


def _direct(server: ServerName, named: ServerName, address: Address) -> Route:
    port = PORT if address.port is None else address.port
    return Route(server, named, address.host, (Target(address.host, port),))
