"""Hypercorn's HTTP/1.1 protocol class, pulled by the guard instead of pushing into tasks.

What stays Hypercorn's: the h11 connection, turning an answer into bytes, keep-alive and the number
of requests, and the start of the next cycle. What is replaced: upgrades and HTTP/2 are not looked
at, `100 Continue` is not sent by itself, and a request is kept for the guard to read from in its
own task, so that there is no task, channel or timer per request.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any, cast

import h11
from hypercorn.config import Config
from hypercorn.events import Event, RawData
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from matrixbox.api.bounds import Bounds
from matrixbox.api.framing import Refused


class DoorConfig(Config):
    """The few settings that the protocol class reads; the Date header is made once a second."""

    include_server_header = False

    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self.keep_alive_max_requests = bounds.requests_per_connection
        # The guard hands over whole heads and pieces of bodies, so this is only a second wall.
        self.h11_max_incomplete_size = bounds.head_bytes
        self._date_s = 0
        self._date_headers: list[tuple[bytes, bytes]] = []

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """The headers that every answer has."""
        now_s = int(time.time())
        if now_s != self._date_s:
            self._date_s = now_s
            self._date_headers = [(b"date", formatdate(now_s, usegmt=True).encode())]
        return self._date_headers


class _NoStream:
    """Stands where Hypercorn keeps the task of a request; here the guard has it."""

    async def handle(self, event: StreamEvent) -> None:
        """Hypercorn tells its streams when they are closed; nothing is left to do."""


class PulledProtocol(H11Protocol):
    """One connection's HTTP/1.1: the current request, as far as it has been read.

    `request` is its head, `chunks` what is there of its body, `complete` whether that is all.
    """

    def __init__(
        self,
        config: DoorConfig,
        context: WorkerContext,
        send: Callable[[Event], Awaitable[None]],
        *,
        is_tls: bool,
        client: tuple[str, int],
        server: tuple[str, int],
    ) -> None:
        # No application and no task group: this class starts no task.
        nothing = cast(Any, None)
        super().__init__(
            nothing, config, context, nothing, ConnectionState({}), is_tls, client, server, send
        )
        self._no_stream = cast(Any, _NoStream())
        self.request: h11.Request | None = None
        self.chunks: deque[bytes] = deque()
        self.complete = True

    @property
    def is_answered(self) -> bool:
        """Whether the answer to the current request has been sent whole."""
        return self.connection.our_state in (h11.DONE, h11.MUST_CLOSE)

    async def take(self, data: bytes) -> None:
        """Feed bytes of the current message; raises Refused where h11 does not accept them."""
        try:
            await self.handle(RawData(data))
        except h11.RemoteProtocolError as error:
            raise Refused(400, "The request is malformed") from error

    async def _handle_events(self) -> None:
        connection = cast(h11.Connection, self.connection)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                self.chunks.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self.complete = True
                return
            elif isinstance(event, h11.Request):
                self.request = event
                self.chunks.clear()
                self.complete = False
                self.stream = self._no_stream
                self.keep_alive_requests += 1
            else:
                # More bytes are needed, or h11 waits for the answer to be finished.
                return
