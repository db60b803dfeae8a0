"""How requests reach another server: what federation asks of the network, and a seam for tests.

The real one finds the server's address and speaks HTTP over TLS (``federation.network``); a
simulation hands requests to another server in the same process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from attrs import frozen

from matrixbox.core.identifiers import ServerName


@frozen
class Request:
    """A request as it goes on the wire; `target` is the path and query, percent-encoded."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@frozen
class Limits:
    """Bounds of one exchange: seconds, and bytes of the answer's body."""

    total_s: float = 60.0
    idle_s: float = 20.0
    max_bytes: int = 8 * 1024 * 1024


@frozen
class Answer:
    """An answer of any status; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class StreamedAnswer(Protocol):
    """An answer whose body comes in pieces."""

    status: int
    headers: Mapping[str, str]

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Transport(Protocol):
    """Carries requests.  Both raise RemoteUnreachable, RemoteTimeout, AddressRefused, RemoteInvalid
    (an answer that is not HTTP or above its limit), never anything else of the network."""

    async def exchange(self, server: ServerName, request: Request, limits: Limits) -> Answer: ...

    def stream(
        self, server: ServerName, request: Request, limits: Limits
    ) -> AbstractAsyncContextManager[StreamedAnswer]: ...
