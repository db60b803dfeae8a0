"""A TLS web server on loopback that does what a test wants, and a dialler that leads to it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from ipaddress import ip_address

import h11
import trio
import trustme
from attrs import Factory, define, frozen

from matrixbox.net.dial import Dialler, Place

Stream = trio.SSLStream


@cache
def authority() -> trustme.CA:
    """The authority that tests trust."""
    return trustme.CA()


def trusting_context() -> ssl.SSLContext:
    """As new_client_context makes it, with the tests' authority alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    authority().configure_trust(context)
    return context


@cache
def server_context(*names: str) -> ssl.SSLContext:
    """A context with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(*names).configure_cert(context)
    return context


@frozen
class Seen:
    """A request that arrived."""

    connection: int
    sni: str | None
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def host(self) -> str:
        """The Host header."""
        return self.headers["host"]


Reply = Callable[[Stream, Seen], Awaitable[None]]


def reply(body: bytes = b"{}", status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Reply:
    """An ordinary answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]

    return raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def raw(data: bytes, *, hang_up: bool = False) -> Reply:
    """These bytes, and perhaps the end of the connection."""

    async def send(stream: Stream, seen: Seen) -> None:
        await stream.send_all(data)
        if hang_up:
            await stream.aclose()

    return send


def dripping(head: bytes, piece: bytes, every_s: float) -> Reply:
    """A head, and then the same piece for ever."""

    async def send(stream: Stream, seen: Seen) -> None:
        await stream.send_all(head)
        while True:
            await stream.send_all(piece)
            await trio.sleep(every_s)

    return send


async def silence(stream: Stream, seen: Seen) -> None:
    """No answer at all."""
    await trio.sleep_forever()


async def hang_up(stream: Stream, seen: Seen) -> None:
    """The end of the connection without an answer."""
    await stream.aclose()


@define
class Web:
    """Answers by (Host, target), (Host,) or (); the certificate is chosen by SNI."""

    port: int = 0
    names: dict[str | None, ssl.SSLContext] = Factory(dict)
    replies: dict[tuple[str, ...], Reply] = Factory(dict)
    seen: list[Seen] = Factory(list)
    connections: int = 0
    handshakes: list[str | None] = Factory(list)
    before_sni: ssl.SSLContext = Factory(lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def certify(self, *names: str) -> None:
        """Have a certificate for these names; clients of an address send no SNI."""
        for name in names:
            self.names[None if _is_literal(name) else name] = server_context(name)

    def on(self, host: str, target: str | None, answer: Reply) -> None:
        """Answer requests for this host (and target)."""
        self.replies[(host,) if target is None else (host, target)] = answer

    def _reply_to(self, seen: Seen) -> Reply:
        for key in ((seen.host, seen.target), (seen.host,), ()):
            if key in self.replies:
                return self.replies[key]
        return reply(b"nothing here", 404)

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection."""
        self.connections += 1
        number = self.connections
        sni: list[str | None] = []

        def choose(sock: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
            sni.append(name)
            self.handshakes.append(name)
            if name not in self.names:
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            sock.context = self.names[name]
            return None

        context = self.before_sni
        _any_cert().configure_cert(context)
        context.sni_callback = choose
        secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
            await secured.do_handshake()
            await self._requests(secured, number, sni)

    async def _requests(self, stream: Stream, number: int, sni: list[str | None]) -> None:
        while True:
            http = h11.Connection(h11.SERVER)
            request: h11.Request | None = None
            body = b""
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await stream.receive_some(65536))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    return
            assert request is not None
            headers = {name.decode(): value.decode() for name, value in request.headers}
            method, target = request.method.decode(), request.target.decode()
            seen = Seen(number, sni[0] if sni else None, method, target, headers, body)
            self.seen.append(seen)
            await self._reply_to(seen)(stream, seen)


@cache
def _any_cert() -> trustme.LeafCert:
    return authority().issue_cert("nobody.invalid")


def _is_literal(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@asynccontextmanager
async def web() -> AsyncIterator[Web]:
    """Run one."""
    server = Web()
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        server.port = listeners[0].socket.getsockname()[1]
        yield server
        nursery.cancel_scope.cancel()


class Switchboard(Dialler):
    """Does everything as always, but at the very end connects to where the test says.

    `lines` maps address and port to a local port; what is not in it refuses.  `rings` are all
    attempts.
    """

    def __init__(self, *arguments, **more) -> None:
        super().__init__(*arguments, **more)
        self.lines: dict[tuple[str, int], int | None] = {}
        self.rings: list[tuple[str, int]] = []

    async def _connect(self, place: Place) -> trio.SocketStream:
        key = (str(place.address), place.port)
        self.rings.append(key)
        await trio.lowlevel.checkpoint()
        if key not in self.lines:
            raise ConnectionRefusedError(111, "Connection refused")
        port = self.lines[key]
        if port is None:  # packets vanish
            await trio.sleep_forever()
        return await trio.open_tcp_stream("127.0.0.1", port)
