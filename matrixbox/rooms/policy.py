"""The last check on receipt: the policy server of the room.

Matrix v1.19, Server-Server API, "Policy Servers" (step 7; [B12.01] to [B12.06], T135).  The key is
the one that the room's state names.  The verdict says whether clients should see an event; it is
no part of the auth rules or of state resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import evolve, frozen

from matrixbox.core.events import Event
from matrixbox.core.identifiers import InvalidIdentifier, ServerName, parse_server_name
from matrixbox.core.json import Json
from matrixbox.core.room_versions import RoomRules
from matrixbox.core.signing import decode_base64, event_signature_valid, signatures_by
from matrixbox.rooms import servers
from matrixbox.rooms.remote import Pdu
from matrixbox.rooms.state import CurrentState
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

POLICY = ("m.room.policy", "")
KEY_ID = "ed25519:policy_server"
ASK_S = 10.0  # for one signature, all in all


class PolicyRemote(Protocol):
    """What is asked of a policy server; raises RemoteError."""

    async def policy_signature(
        self, server: ServerName, rules: RoomRules, pdu: Pdu
    ) -> Mapping[str, Json]:
        """The answer of `POST /_matrix/policy/v1/sign`: signatures by server and key."""
        ...


@frozen
class Policy:
    """The policy server of a room, and the key that its signatures are made with."""

    server: ServerName
    key: bytes

    def approves(self, event: Event) -> bool:
        """Whether the event bears the policy server's signature, or needs none."""
        if (event.type, event.state_key) == POLICY:
            return True
        return event_signature_valid(event.rules, event.json, self.server, KEY_ID, self.key)

    def signed(self, event: Event, answer: Mapping[str, Json]) -> Event | None:
        """The event with the signature that the policy server gave; None if that is not good."""
        signature = signatures_by({"signatures": answer}, self.server).get(KEY_ID)
        if signature is None:
            return None
        given = event.json.get("signatures")
        signatures = dict(given) if isinstance(given, Mapping) else {}
        own = signatures.get(self.server)
        others = own if isinstance(own, Mapping) else {}
        signatures[self.server] = {**others, KEY_ID: signature}
        found = evolve(event, json={**event.json, "signatures": signatures})
        return found if self.approves(found) else None


def policy_of(tx: Tx, room: RoomNid) -> Policy | None:
    """The policy server that a room has at present; None where it has none ([B12.01])."""
    event = CurrentState(tx, room).get(POLICY)
    if event is None:
        return None
    via, keys = event.content.get("via"), event.content.get("public_keys")
    encoded = keys.get("ed25519") if isinstance(keys, Mapping) else None
    if not isinstance(via, str) or not isinstance(encoded, str):
        return None
    try:
        server = parse_server_name(via)
        key = decode_base64(encoded)  # either alphabet ([B12.07])
    except (InvalidIdentifier, ValueError):
        return None
    return Policy(server, key) if servers.is_in_room(tx, room, server) else None
