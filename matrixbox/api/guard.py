"""One connection: what a peer sends and does ends here, and never reaches the next one.

HTTP/1.1 by RFC 9112, with Hypercorn's protocol class inside (threats T069-T077). One task per
connection reads a head, runs the application, sends its answer and starts over. Who is too late or
too slow is cut off by closing the socket, which also ends sends that are shielded from
cancellation.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

import trio
from attrs import frozen
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.worker_context import WorkerContext

from matrixbox.api.answers import CORS_HEADERS, JSON_HEADERS
from matrixbox.api.bounds import Bounds
from matrixbox.api.exchange import AsgiApp, Exchange
from matrixbox.api.framing import Refused, check_head, check_unfinished
from matrixbox.api.patience import Patience, Phase
from matrixbox.api.protocol import DoorConfig, PulledProtocol
from matrixbox.api.wire import RECEIVE_BYTES, Wire
from matrixbox.core import json
from matrixbox.observe import log

# TLS encrypts a whole piece before it sends any of it.
_PIECE_BYTES = 64 * 1024
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


@frozen
class Surroundings:
    """What all connections of a door share."""

    app: AsgiApp
    bounds: Bounds
    config: DoorConfig
    context: WorkerContext
    is_stopping: Callable[[], bool]


class Connection:
    """One accepted connection, from the TLS handshake to the last byte."""

    __slots__ = (
        "_buffer",
        "_client",
        "_closing",
        "_has_unread_input",
        "_out",
        "_patience",
        "_scheme",
        "_scope",
        "_server",
        "_shared",
        "_sslcontext",
        "_stream",
        "_wire",
        "bounds",
        "protocol",
    )

    def __init__(
        self,
        shared: Surroundings,
        wire: Wire,
        sslcontext: ssl.SSLContext | None,
        client: tuple[str, int],
        server: tuple[str, int],
    ) -> None:
        self._shared = shared
        self._wire = wire
        self._sslcontext = sslcontext
        self._scheme = "http" if sslcontext is None else "https"
        self._stream: Wire | trio.SSLStream[Wire] = wire
        self._client = client
        self._server = server
        self._scope = trio.CancelScope()
        self._patience = Patience(shared.bounds, wire)
        self._buffer = b""  # bytes of the next message, read with this one
        self._out: list[bytes] = []  # bytes of the answer, not yet handed to the socket
        self._closing = False
        self._has_unread_input = False
        self.bounds = shared.bounds
        self.protocol = PulledProtocol(
            shared.config,
            shared.context,
            self._on_protocol,
            is_tls=sslcontext is not None,
            client=client,
            server=server,
        )

    # For the door.

    @property
    def is_answering(self) -> bool:
        """Whether a request is being handled or answered."""
        return self._patience.is_answering

    @property
    def is_long_handled(self) -> bool:
        """Whether a handler has been at work for a while, so that a hang-up matters."""
        return self._patience.is_long_handled

    def fileno(self) -> int:
        """The socket's descriptor, or -1 once closed."""
        return self._wire.fileno()

    def tick(self, elapsed_s: float) -> None:
        """Let time go by, and cut the connection off when its peer is too late."""
        if self._patience.is_exhausted(elapsed_s):
            log.debug("connection cut", address=self._client[0], phase=self._patience.phase.value)
            self.cut()

    def cut(self) -> None:
        """End the connection now, whatever it is doing and whatever is shielded."""
        # What a slow reader has not taken is not left with the kernel to deliver.
        self._wire.close(reset=self._patience.phase is Phase.SENDING)
        self._scope.cancel()

    # The connection's own task.

    async def run(self) -> None:
        """Serve the connection to its end; raises only cancellation from outside, and bugs."""
        try:
            with self._scope, suppress(*_GONE):
                # A peer that goes away is no error, whatever was going on.
                self._wire.prepare()
                await self._handshake()
                await self._converse()
                await self._say_goodbye()
        finally:
            self._wire.close()

    async def _handshake(self) -> None:
        if self._sslcontext is not None:
            # Not "https_compatible": that would keep the closing notice from the peer.
            self._stream = trio.SSLStream(self._wire, self._sslcontext, server_side=True)
            await self._stream.do_handshake()

    async def _converse(self) -> None:
        self._patience.enter(Phase.HEAD, self.bounds.head_s)
        try:
            while not self._closing:
                head = await self._read_head()
                if head is None:
                    return
                framing = check_head(head, self.bounds)
                await self.protocol.take(head)
                await self._answer(Exchange(self, framing))
                self._patience.enter(Phase.IDLE, self.bounds.idle_s)
        except Refused as refused:
            await self._refuse(refused)

    async def _read_head(self) -> bytes | None:
        """The next head up to and with its empty line; None when the peer has no more requests."""
        received = self._buffer
        searched = 0
        while True:
            end = received.find(b"\r\n\r\n", searched)
            if end >= 0:
                self._buffer = received[end + 4 :]
                return received[: end + 4]
            if received:
                check_unfinished(received, self.bounds)
                if self._patience.phase is Phase.IDLE:
                    self._patience.enter(Phase.HEAD, self.bounds.head_s)
            searched = max(0, len(received) - 3)
            data = await self._stream.receive_some(RECEIVE_BYTES)
            if not data:
                return None
            received += data

    async def _answer(self, exchange: Exchange) -> None:
        """Run the application for one request, and bring the connection to the next one."""
        scope = exchange.scope(scheme=self._scheme, client=self._client, server=self._server)
        self._patience.begin_handling()
        try:
            await self._shared.app(scope, exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001 one request fails alone
            log.bug("application failed", error, address=self._client[0])
        if exchange.refused is not None and not exchange.started:
            raise exchange.refused
        if not self.protocol.is_answered:
            if not exchange.started:
                raise Refused(500, "Internal server error")
            # Half an answer can only be ended by breaking off.
            self._closing = True
            return
        await exchange.finish()

    async def _refuse(self, refused: Refused) -> None:
        log.debug("request refused", address=self._client[0], status=refused.status)
        self._closing = True
        self._has_unread_input = True
        body = json.encode({"errcode": refused.errcode, "error": refused.text})
        headers = [
            *JSON_HEADERS,
            *CORS_HEADERS,
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *self._shared.config.response_headers("h11"),
        ]
        reason = HTTPStatus(refused.status).phrase.encode("ascii")
        self._out = [b"HTTP/1.1 %d %s\r\n" % (refused.status, reason)]
        self._out += [b"%s: %s\r\n" % header for header in headers]
        self._out += [b"\r\n", body]
        await self.flush()

    async def _say_goodbye(self) -> None:
        """Close so that the last answer arrives.

        Closing a socket that holds unread bytes resets the connection, and the peer may lose what
        we sent; so a little of what it still sends is read, for a little while.
        """
        self._patience.enter(Phase.CLOSING, self.bounds.drain_s)
        if self._has_unread_input or self._buffer or not self.protocol.complete:
            if isinstance(self._stream, Wire):
                self._wire.shut_sending()
            limit = self._wire.received + self.bounds.drain_bytes
            while self._wire.received < limit and await self._wire.receive_some():
                pass
        if not isinstance(self._stream, Wire) and self._closing:
            await self._stream.aclose()

    # For the exchange.

    @property
    def is_stopping(self) -> bool:
        """Whether the server is being stopped, so that no request may follow this one."""
        return self._shared.is_stopping()

    def allow_body_time(self, total_s: float) -> None:
        """The body of the current request may take `total_s` to arrive."""
        self._patience.allow_body(total_s)

    def read_ahead(self) -> bytes:
        """Bytes after the head that are here already."""
        data, self._buffer = self._buffer, b""
        return data

    def unread(self, data: bytes) -> None:
        """Keep bytes for the next message."""
        self._buffer = data

    async def read_body(self, *, phase: Phase) -> bytes:
        """Bytes after the head; ends the connection when the peer is gone."""
        if self._buffer:
            return self.read_ahead()
        if phase is Phase.BODY:
            self._patience.begin_reading()
        else:
            self._patience.enter(phase, self.bounds.drain_s)
        data = b""
        with suppress(*_GONE):
            data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
        if not data:
            await self._end()
        if phase is Phase.BODY:
            self._patience.end_reading()
        return data

    async def flush(self) -> None:
        """Send what the protocol has written.

        Shielded: an answer that has been begun is finished, or the connection is cut. The send has
        deadlines of its own.
        """
        out, self._out = self._out, []
        self._patience.begin_sending()
        try:
            with trio.CancelScope(shield=True):
                if sum(map(len, out)) <= _PIECE_BYTES:
                    await self._stream.send_all(b"".join(out))
                else:
                    await self._send_pieces(out)
        except _GONE:
            await self._end()
        self._patience.end_sending()

    async def _send_pieces(self, out: list[bytes]) -> None:
        """Send much without a copy of it: slow readers must not cost memory."""
        for data in out:
            with memoryview(data) as view:
                for start in range(0, len(view), _PIECE_BYTES):
                    await self._stream.send_all(view[start : start + _PIECE_BYTES])

    async def _end(self) -> None:
        """The peer is gone: cancel whatever works for it."""
        self.cut()
        await trio.lowlevel.checkpoint()

    async def _on_protocol(self, event: Event) -> None:
        if isinstance(event, RawData):
            self._out.append(event.data)
        elif isinstance(event, Closed):
            self._closing = True
