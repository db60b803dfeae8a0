"""Policy servers: the last check on receipt, and a signature on what we send.

Matrix v1.19, Server-Server API, "Policy Servers" (step 7; [B12.01] to [B12.06], T135).  The key is
the one that the room's state names.  The verdict says whether clients should see an event; it is
no part of the auth rules or of state resolution.

Our own events are signed before they are stored.  A transaction function that makes an event for
such a room raises NeedsSignature; the policy server is asked outside of the writer, and the
function, run again, finds the event that it made before, now with the signature.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Protocol

import trio
from attrs import evolve, frozen

from matrixbox.core.events import Event, StateMap
from matrixbox.core.identifiers import InvalidIdentifier, ServerName, parse_server_name
from matrixbox.core.json import Json
from matrixbox.core.room_versions import RoomRules
from matrixbox.core.signing import decode_base64, event_signature_valid, signatures_by
from matrixbox.errors import Forbidden, RemoteError, RemoteRefused, Unavailable
from matrixbox.rooms import checks, servers
from matrixbox.rooms.remote import Pdu
from matrixbox.rooms.state import CurrentState
from matrixbox.store.caches import Lru
from matrixbox.store.events import Status
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

POLICY = ("m.room.policy", "")
KEY_ID = "ed25519:policy_server"
ASK_S = 10.0  # for one signature, all in all
_GIVEN_ON = (400, 403, 404, 429)


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


class RefusedByPolicy(Forbidden):
    """The policy server does not want an event; its error is given on ([B12.03])."""

    def __init__(self, error: RemoteRefused) -> None:
        told = error.text.removeprefix(f"{error.status} {error.errcode or ''} ")
        super().__init__(told, **error.fields)
        if error.status in _GIVEN_ON:
            self.status = error.status
            self.errcode = error.errcode or self.errcode


class NeedsSignature(Exception):
    """An event of ours lacks the signature of the room's policy server."""

    def __init__(self, desk: PolicyDesk, key: Hashable, policy: Policy, event: Event) -> None:
        super().__init__(f"{event.type} for {policy.server}")
        self.desk, self.key, self.policy, self.event = desk, key, policy, event


class PolicyDesk:
    """Has our events signed.  One for the server; ``remote`` comes with the network."""

    def __init__(self, own: ServerName) -> None:
        self.own = own
        self.remote: PolicyRemote | None = None
        self._signed: Lru[Hashable, Event] = Lru(200)

    def signed(self, key: Hashable) -> Event | None:
        """The signed event that was made for a draft before."""
        return self._signed.get(key)

    def done(self, key: Hashable) -> None:
        """The event is stored."""
        self._signed.drop(key)

    async def obtain(self, needed: NeedsSignature) -> None:
        """Ask for a signature.  Raises RefusedByPolicy, Unavailable, and Forbidden for one that
        is not good."""
        policy, event = needed.policy, needed.event
        if self.remote is None or policy.server == self.own:
            raise Forbidden("This server has no policy to sign events by.")
        try:
            with trio.fail_after(ASK_S):
                answer = await self.remote.policy_signature(policy.server, event.rules, event.json)
        except RemoteRefused as error:
            raise RefusedByPolicy(error) from error
        except (RemoteError, trio.TooSlowError) as error:
            raise Unavailable("The policy server of this room cannot be asked now.") from error
        found = policy.signed(event, answer)
        if found is None:
            raise Forbidden("The policy server of this room does not sign with its key.")
        self._signed.put(needed.key, found)


def allows_now(tx: Tx, room: RoomNid, event: Event, state: StateMap) -> bool:
    """Steps 6 and 7 of the checks on receipt: by a current state, and the policy server's word."""
    if checks.judge_by_state(event.rules, event, state, Status.SOFT_FAILED).status:
        return False
    policy = policy_of(tx, room)
    return policy is None or policy.approves(event)


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
