"""From a route to an open connection: look up, check, connect, shake hands.

The address that was checked is the address that is dialled; nothing is looked up in between
(threats T053, T054).  Addresses of both families are tried with a head start for each before the
next (RFC 8305; T156); when the TLS handshake with one fails, the others are still tried.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import TypeAlias

import trio
from attrs import frozen

from matrixbox.errors import AddressRefused, RemoteError, RemoteUnreachable
from matrixbox.net.dns import Resolver
from matrixbox.net.exchange import Route, Target
from matrixbox.net.guard import AddressGuard, InvalidHost, IPAddress, is_port_allowed
from matrixbox.net.records import LookupFailed
from matrixbox.net.tls import new_client_context

MAX_ADDRESSES = 4
CONNECT_S = 5.0
HEAD_START_S = 0.25
TLS_S = 10.0

Stream: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"


@frozen
class Place:
    """One address and port."""

    address: IPAddress
    port: int


class Dialler:
    """Opens connections to where the guard allows.

    Without a `context` the system's authorities are trusted, and read when TLS is first wanted:
    that takes a while, and the start of the server should not wait for it.
    """

    def __init__(
        self, resolver: Resolver, guard: AddressGuard, context: ssl.SSLContext | None = None
    ) -> None:
        self._resolver = resolver
        self._guard = guard
        self._context = context

    async def dial(self, route: Route) -> Stream:
        """A connection with its TLS handshake done; raises RemoteUnreachable, AddressRefused.

        The deadline of the whole is the caller's.
        """
        places = await self._places(route)
        reasons: list[str] = []
        while places:
            place, stream, failed = await self._race(places)
            reasons.extend(failed.values())
            if stream is None or place is None:
                break
            if route.tls_name is None:
                return stream
            try:
                return await self._secured(stream, route.tls_name)
            except (trio.BrokenResourceError, trio.TooSlowError, ssl.SSLError, ValueError) as error:
                reasons.append(_tls_reason(error))
            places = [each for each in places if each not in failed and each != place]
        raise RemoteUnreachable(route.name, "; ".join(dict.fromkeys(reasons)) or "no address")

    async def _places(self, route: Route) -> list[Place]:
        """Where to try, best first; raises when there is nowhere."""
        found = await self._all_addresses(route.targets)
        per_target = MAX_ADDRESSES if len(found) == 1 else max(2, MAX_ADDRESSES // len(found))
        places: list[Place] = []
        refused = False
        reasons: list[str] = []
        for target, addresses in zip(route.targets, found, strict=True):
            if isinstance(addresses, str):
                reasons.append(addresses)
                continue
            allowed = [each for each in addresses if self._guard.allows(each)]
            refused = refused or len(allowed) < len(addresses)
            if not is_port_allowed(target.port):
                refused = True
                continue
            places.extend(Place(each, target.port) for each in allowed[:per_target])
        if not places:
            failure: type[RemoteError] = AddressRefused if refused else RemoteUnreachable
            text = "its addresses are not dialled" if refused else "; ".join(reasons)
            raise failure(route.name, text or "no such name")
        return list(dict.fromkeys(places))[:MAX_ADDRESSES]

    async def _all_addresses(self, targets: Sequence[Target]) -> list[Sequence[IPAddress] | str]:
        """The addresses of each target, or why it has none; all are looked up at once."""
        found: dict[Target, Sequence[IPAddress] | str] = {}

        async def look_up(target: Target) -> None:
            found[target] = await self._addresses(target)

        async with trio.open_nursery() as nursery:
            for target in dict.fromkeys(targets):
                nursery.start_soon(look_up, target)
        return [found[target] for target in targets]

    async def _addresses(self, target: Target) -> Sequence[IPAddress] | str:
        """The addresses of a target, or why there are none."""
        try:
            return await self._resolver.addresses(target.host) or "no such name"
        except (LookupFailed, InvalidHost) as error:
            return str(error)

    async def _race(
        self, places: Sequence[Place]
    ) -> tuple[Place | None, trio.SocketStream | None, dict[Place, str]]:
        """The first connection that stands, and which attempts failed before."""
        won: list[tuple[Place, trio.SocketStream]] = []
        failed: dict[Place, str] = {}

        async with trio.open_nursery() as nursery:

            async def attempt(place: Place, done: trio.Event) -> None:
                try:
                    with trio.fail_after(CONNECT_S):
                        stream = await self._checked(place)
                except trio.TooSlowError:
                    failed[place] = "no connection in time"
                except OSError as error:
                    failed[place] = error.strerror or type(error).__name__
                else:
                    if won:
                        await trio.aclose_forcefully(stream)
                        return
                    won.append((place, stream))
                    nursery.cancel_scope.cancel()
                finally:
                    done.set()

            for place in places:
                done = trio.Event()
                nursery.start_soon(attempt, place, done)
                with trio.move_on_after(HEAD_START_S):
                    await done.wait()
        if not won:
            return None, None, failed
        return (*won[0], failed)

    async def _checked(self, place: Place) -> trio.SocketStream:
        """A connection to an address that is checked once more."""
        if not self._guard.allows(place.address):
            raise PermissionError(0, "the address is not dialled")
        return await self._connect(place)

    async def _connect(self, place: Place) -> trio.SocketStream:
        """A connection to exactly this address."""
        family = trio.socket.AF_INET6 if place.address.version == 6 else trio.socket.AF_INET
        sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
        try:
            await sock.connect((str(place.address), place.port))
        except BaseException:
            sock.close()
            raise
        return trio.SocketStream(sock)

    async def _secured(self, stream: trio.SocketStream, name: str) -> Stream:
        """The connection with TLS; closed when the handshake fails."""
        ends: Stream = stream
        try:
            if self._context is None:
                context = await trio.to_thread.run_sync(new_client_context)
                self._context = self._context or context
            ends = secured = trio.SSLStream(
                stream, self._context, server_hostname=name, https_compatible=True
            )
            with trio.fail_after(TLS_S):
                await secured.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(ends)
            raise
        return secured


def _tls_reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate: {cause.verify_message}"
    if isinstance(cause, trio.TooSlowError):
        return "no TLS handshake in time"
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason or cause}"
    return "the connection broke in the TLS handshake"
