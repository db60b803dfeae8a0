"""One HTTP/1.1 connection: a request out, an answer in, with bounds on everything that comes."""

from __future__ import annotations

from collections.abc import Mapping

import h11
import trio
from attrs import frozen

from matrixbox.errors import RemoteInvalid, RemoteTimeout, RemoteUnreachable
from matrixbox.net.dial import Stream
from matrixbox.net.exchange import Limits, Request, Route

RECEIVE_BYTES = 64 * 1024
MAX_HEAD_BYTES = 32 * 1024
MAX_FIELDS = 100
MAX_INTERIM_ANSWERS = 7
SLOWEST_BYTES_PER_S = 1024
SLOW_GRACE_S = 20.0
SEND_PIECE_BYTES = 256 * 1024


class NothingAnswered(Exception):
    """The connection ended before the first byte of an answer."""


@frozen
class Head:
    """Status and headers of an answer; names in lower case."""

    status: int
    headers: Mapping[str, str]


class Connection:
    """An open connection on which one exchange after the other is made."""

    def __init__(self, route: Route, stream: Stream) -> None:
        self._route = route
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._limits = Limits()
        self._deadline_s = 0.0
        self._waited_s = 0.0
        self._received_bytes = 0
        self._body_bytes = 0
        self._ended = False
        self.opened_s = trio.current_time()
        self.idle_since_s = self.opened_s

    @property
    def is_stale(self) -> bool:
        """Whether the other side has closed it, or said something that nobody asked for."""
        stream = self._stream
        raw = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        try:
            return raw.socket.is_readable()
        except (OSError, ValueError):
            return True

    async def aclose(self) -> None:
        """Close at once."""
        await trio.aclose_forcefully(self._stream)

    def reset(self) -> bool:
        """Make ready for the next exchange; false when the connection cannot be used again."""
        http = self._http
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            return False
        if http.trailing_data[0]:
            return False
        http.start_next_cycle()
        self.idle_since_s = trio.current_time()
        return True

    async def begin(self, request: Request, limits: Limits, deadline_s: float) -> Head:
        """Send a request and wait for the head of its answer.

        Raises NothingAnswered when the connection ended before, and RemoteError.
        """
        self._limits, self._deadline_s = limits, deadline_s
        self._waited_s, self._received_bytes, self._body_bytes = 0.0, 0, 0
        await self._send(request)
        return await self._read_head()

    async def body_part(self) -> bytes:
        """The next piece of the body; empty at its end.  Raises RemoteError."""
        if self._http.their_state is not h11.SEND_BODY:
            return b""
        event = await self._event()
        if isinstance(event, h11.Data):
            data = bytes(event.data)
            self._body_bytes += len(data)
            if self._body_bytes > self._limits.max_bytes:
                raise RemoteInvalid(self._route.name, "the answer is too large")
            return data
        return b""  # h11 gives nothing else in a body but its end

    async def _send(self, request: Request) -> None:
        headers = [
            ("Host", self._route.host),
            *request.headers,
            ("Accept-Encoding", "identity"),
        ]
        if request.body or request.method in ("POST", "PUT"):
            headers.append(("Content-Length", str(len(request.body))))
        try:
            head = h11.Request(method=request.method, target=request.target, headers=headers)
            data = self._http.send(head) or b""
            data += self._http.send(h11.Data(data=request.body)) or b""
            data += self._http.send(h11.EndOfMessage()) or b""
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise RemoteInvalid(self._route.name, f"the request cannot be sent: {error}") from error
        view = memoryview(data)
        try:
            for start in range(0, len(view), SEND_PIECE_BYTES):
                with trio.fail_at(self._until()):
                    await self._stream.send_all(view[start : start + SEND_PIECE_BYTES])
        except trio.TooSlowError as error:
            raise RemoteTimeout(self._route.name, "it does not take the request") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # it may have answered before it stopped listening; else reading tells

    async def _read_head(self) -> Head:
        for _ in range(MAX_INTERIM_ANSWERS + 1):
            event = await self._event()
            if isinstance(event, h11.Response):
                return self._checked(event)
            if not isinstance(event, h11.InformationalResponse):
                break
        raise RemoteInvalid(self._route.name, "no answer but interim ones")

    def _checked(self, event: h11.Response) -> Head:
        raw = [(bytes(name).decode("ascii"), bytes(value)) for name, value in event.headers]
        if len(raw) > MAX_FIELDS or sum(len(n) + len(v) for n, v in raw) > MAX_HEAD_BYTES:
            raise RemoteInvalid(self._route.name, "the answer's head is too large")
        headers: dict[str, str] = {}
        for name, value in raw:
            text = value.decode("latin-1")
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
        if "transfer-encoding" in headers and "content-length" in headers:
            raise RemoteInvalid(self._route.name, "the answer has two lengths")
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise RemoteInvalid(self._route.name, "the answer is compressed, unasked")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._limits.max_bytes:
            raise RemoteInvalid(self._route.name, "the answer is too large")
        return Head(event.status_code, headers)

    async def _event(self) -> h11.Event:
        """The next event; raises NothingAnswered, RemoteError."""
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if self._received_bytes == 0:
                    raise NothingAnswered from error
                if self._ended:
                    text = "the answer was cut off"
                    raise RemoteUnreachable(self._route.name, text) from error
                raise RemoteInvalid(self._route.name, f"not HTTP: {error}") from error
            if event is h11.NEED_DATA:
                await self._receive()
            elif isinstance(event, h11.Event):
                return event
            else:  # paused: it said it switches protocols, which nobody asked for
                raise RemoteInvalid(self._route.name, "it switches protocols")

    async def _receive(self) -> None:
        before = trio.current_time()
        try:
            with trio.fail_at(self._until()):
                data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except trio.TooSlowError as error:
            raise RemoteTimeout(self._route.name, "no answer in time") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if self._received_bytes == 0:
                raise NothingAnswered from error
            raise RemoteUnreachable(self._route.name, "the answer was cut off") from error
        self._waited_s += trio.current_time() - before
        self._received_bytes += len(data)
        self._ended = not data
        late_s = self._waited_s - max(SLOW_GRACE_S, self._limits.idle_s)
        if data and self._received_bytes < late_s * SLOWEST_BYTES_PER_S:
            raise RemoteTimeout(self._route.name, "the answer is too slow")
        self._http.receive_data(data)

    def _until(self) -> float:
        return min(self._deadline_s, trio.current_time() + self._limits.idle_s)
