"""What end-to-end encryption asks of other servers.

Matrix v1.19, Server-Server API, "Device Management", "End-to-End Encryption" ([B13.04], [B13.05]).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from matrixbox.core.identifiers import ServerName, UserId
from matrixbox.core.json import Json
from matrixbox.federation.client import MIB, FederationClient, target
from matrixbox.federation.transport import Limits

LIMITS = Limits(total_s=10, idle_s=10, max_bytes=4 * MIB)


@frozen
class KeyRemotes:
    """Implements ``e2ee.remote.KeysRemote``."""

    client: FederationClient

    async def user_devices(self, server: ServerName, user_id: UserId) -> Mapping[str, Json]:
        """All devices of a user.  Raises RemoteError."""
        return await self.client.get_json(
            server, target("v1", "user", "devices", user_id), limits=LIMITS
        )

    async def query_keys(
        self, server: ServerName, wanted: Mapping[UserId, Sequence[str]]
    ) -> Mapping[str, Json]:
        """Keys of users.  Raises RemoteError."""
        body: dict[str, Json] = {"device_keys": {user: list(ids) for user, ids in wanted.items()}}
        return await self.client.post_json(
            server, target("v1", "user", "keys", "query"), body, limits=LIMITS
        )

    async def claim_keys(
        self, server: ServerName, wanted: Mapping[UserId, Mapping[str, str]]
    ) -> Mapping[str, Json]:
        """One-time keys of devices.  Raises RemoteError."""
        body: dict[str, Json] = {"one_time_keys": {user: dict(d) for user, d in wanted.items()}}
        return await self.client.post_json(
            server, target("v1", "user", "keys", "claim"), body, limits=LIMITS
        )
