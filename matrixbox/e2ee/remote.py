"""What this folder asks of other servers; ``federation`` implements it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen

from matrixbox.core.identifiers import ServerName, UserId
from matrixbox.core.json import Json
from matrixbox.errors import RemoteUnreachable


class KeysRemote(Protocol):
    """Calls of the Server-Server API about devices and keys.  Answers are objects that passed the
    border and nothing more; all calls raise RemoteError."""

    async def user_devices(self, server: ServerName, user_id: UserId) -> Mapping[str, Json]: ...

    async def query_keys(
        self, server: ServerName, wanted: Mapping[UserId, Sequence[str]]
    ) -> Mapping[str, Json]: ...

    async def claim_keys(
        self, server: ServerName, wanted: Mapping[UserId, Mapping[str, str]]
    ) -> Mapping[str, Json]: ...


@frozen
class NoRemote:
    """Reaches nobody, for tests and for servers without federation."""

    async def user_devices(self, server: ServerName, user_id: UserId) -> Mapping[str, Json]:
        """Raises RemoteUnreachable."""
        raise RemoteUnreachable(server, "there is no federation")

    async def query_keys(
        self, server: ServerName, wanted: Mapping[UserId, Sequence[str]]
    ) -> Mapping[str, Json]:
        """Raises RemoteUnreachable."""
        raise RemoteUnreachable(server, "there is no federation")

    async def claim_keys(
        self, server: ServerName, wanted: Mapping[UserId, Mapping[str, str]]
    ) -> Mapping[str, Json]:
        """Raises RemoteUnreachable."""
        raise RemoteUnreachable(server, "there is no federation")
