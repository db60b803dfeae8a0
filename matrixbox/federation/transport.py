"""How requests reach another server: what federation asks of the network, and a seam for tests.

The real one finds the server's address and speaks HTTP over TLS (``federation.network``); a
simulation hands requests to another server in the same process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from matrixbox.core.identifiers import ServerName
from matrixbox.net.exchange import Answer, Limits, Request

__all__ = ["Answer", "Limits", "Request", "StreamedAnswer", "Transport"]


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
