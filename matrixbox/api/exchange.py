"""One request and its answer, as ASGI sees them.

The body is pulled from the socket when the application asks for it, so a handler that does not read
makes the peer wait. The bytes of an answer are collected and leave in one piece. When the peer is
gone, the connection's scope is cancelled, and with it the handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol
from urllib.parse import unquote

import trio
from hypercorn.protocol.events import Body, EndBody, StreamClosed
from hypercorn.protocol.events import Response as StreamResponse

from matrixbox.api.bounds import Bounds
from matrixbox.api.framing import Head, Refused
from matrixbox.api.patience import Phase
from matrixbox.api.protocol import PulledProtocol

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]

_STREAM_ID = 1
_ASGI = {"version": "3.0", "spec_version": "2.3"}
_NO_BODY = frozenset({204, 304})


class Line(Protocol):
    """What an exchange needs of its connection."""

    bounds: Bounds
    protocol: PulledProtocol

    @property
    def is_stopping(self) -> bool:
        """Whether this is to be the connection's last exchange."""

    async def read_body(self, *, phase: Phase) -> bytes:
        """Bytes after the head, read ahead or awaited; b"" when the peer is gone."""

    def unread(self, data: bytes) -> None:
        """Give back bytes that belong to the next message."""

    def read_ahead(self) -> bytes:
        """Bytes that are there already."""

    async def flush(self) -> None:
        """Send what the protocol has written."""

    def allow_body_time(self, total_s: float) -> None:
        """The body may take this long."""


class Exchange:
    """ASGI `receive` and `send` for one request."""

    __slots__ = (
        "_continued",
        "_ended",
        "_head",
        "_line",
        "_protocol",
        "_start",
        "_suppress_body",
        "refused",
        "started",
    )

    def __init__(self, line: Line, head: Head) -> None:
        self._line = line
        self._protocol = line.protocol
        self._head = head
        self._start: Message | None = None
        self._suppress_body = False
        self._continued = False
        self._ended = False
        self.started = False
        self.refused: Refused | None = None

    def scope(self, *, scheme: str, client: tuple[str, int], server: tuple[str, int]) -> Message:
        """The ASGI scope; routes are found by `raw_path`, which is the target as it came."""
        request = self._protocol.request
        assert request is not None
        target = bytes(request.target)
        raw_path, _, query = target.partition(b"?")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii"),
            "scheme": scheme,
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": client,
            "server": server,
            "state": {},
            "extensions": {"matrixbox.exchange": self, "matrixbox.target": target},
        }

    def allow_body_time(self, total_s: float) -> None:
        """The body may take `total_s` to arrive, instead of the time of a JSON body."""
        self._line.allow_body_time(total_s)

    async def receive(self) -> Message:
        """The next piece of the body; after its end, wait until the peer hangs up."""
        protocol = self._protocol
        if self._ended:
            await trio.sleep_forever()
        if not protocol.chunks and not protocol.complete and not await self._pull():
            return {"type": "http.disconnect"}
        body = protocol.chunks.popleft() if protocol.chunks else b""
        self._ended = protocol.complete and not protocol.chunks
        return {"type": "http.request", "body": body, "more_body": not self._ended}

    async def _pull(self) -> bool:
        """Read more of the body; False when there will be no more of it."""
        if self._head.expects_continue and not self._continued and not self.started:
            self._continued = True
            await self._protocol.stream_send(StreamResponse(_STREAM_ID, [], 100))
            await self._line.flush()
        data = await self._line.read_body(phase=Phase.BODY)
        try:
            await self._feed(data)
        except Refused as refused:
            self.refused = refused
            return False
        return data != b""

    async def _feed(self, data: bytes) -> bool:
        """Give h11 what belongs to this message, and the rest back; True at the body's end."""
        taken = self._head.body.take(data)
        if taken < len(data):
            self._line.unread(data[taken:])
        if taken:
            await self._protocol.take(data[:taken])
        return self._protocol.complete

    async def send(self, message: Message) -> None:
        """Part of the answer; whole answers leave in one piece."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self.refused is not None:
            # The application answers although the request broke off; the refusal is the answer.
            return
        if self._start is not None:
            start, self._start = self._start, None
            await self._send_start(start)
        body = message.get("body", b"")
        if body and not self._suppress_body:
            await self._protocol.stream_send(Body(_STREAM_ID, body))
        if not message.get("more_body", False):
            await self._protocol.stream_send(EndBody(_STREAM_ID))
        await self._line.flush()

    async def _send_start(self, start: Message) -> None:
        request = self._protocol.request
        assert request is not None
        status = int(start["status"])
        headers = list(start.get("headers", ()))
        self.started = True
        self._suppress_body = request.method == b"HEAD" or status in _NO_BODY
        if self._line.is_stopping or not await self._can_go_on():
            headers.append((b"connection", b"close"))
        await self._protocol.stream_send(StreamResponse(_STREAM_ID, headers, status))

    async def _can_go_on(self) -> bool:
        """Whether another request can follow: the rest of the body is here, or short."""
        if self._protocol.complete:
            return True
        try:
            if await self._feed(self._line.read_ahead()):
                return True
        except Refused:
            return False
        if self._head.expects_continue and not self._continued:
            return False
        remaining = self._head.body.remaining
        return remaining is not None and remaining <= self._line.bounds.drain_bytes

    async def finish(self) -> None:
        """After the answer: read what is left of the body, and get ready for the next request."""
        if not self._line.is_stopping and await self._can_go_on():
            while not self._protocol.complete:
                data = await self._line.read_body(phase=Phase.CLOSING)
                if not data:
                    break
                await self._feed(data)
        await self._protocol.stream_send(StreamClosed(_STREAM_ID))
