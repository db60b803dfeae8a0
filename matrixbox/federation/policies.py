"""Signatures of policy servers.

Matrix v1.19, Server-Server API, `POST /_matrix/policy/v1/sign` ([B12.02], T135).
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define

from matrixbox.core.identifiers import ServerName
from matrixbox.core.json import Json
from matrixbox.core.room_versions import RoomRules
from matrixbox.federation.client import KIB, FederationClient
from matrixbox.federation.transport import Limits
from matrixbox.rooms.remote import Pdu

_URI = "/_matrix/policy/v1/sign"
_LIMITS = Limits(total_s=10, idle_s=10, max_bytes=64 * KIB)


@define(eq=False)
class PolicyRemotes:
    """Implements rooms.policy.PolicyRemote."""

    client: FederationClient

    async def policy_signature(
        self, server: ServerName, rules: RoomRules, pdu: Pdu
    ) -> Mapping[str, Json]:
        """The signatures that the server answers with; raises RemoteError when it refuses."""
        return await self.client.post_json(server, _URI, pdu, limits=_LIMITS)
