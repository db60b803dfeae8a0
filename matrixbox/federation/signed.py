"""Which servers must have signed a PDU, and whether they have; pure functions.

Matrix v1.19, Server-Server API, "Validating hashes and signatures on received events" ([A4.04] to
[A4.06], T044, T045).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from matrixbox.core.identifiers import (
    EventId,
    KeyId,
    ServerName,
    UserId,
    has_user_id_form,
    is_user_id,
    server_of,
)
from matrixbox.core.json import Json, JsonError, RawNumber
from matrixbox.core.pruning import redact
from matrixbox.core.room_versions import RoomRules
from matrixbox.core.signing import decode_base64, signatures_by, signed_bytes
from matrixbox.core.signing import verify as signature_is_good
from matrixbox.rooms.remote import Pdu, Signed

POLICY_KEY = KeyId("ed25519:policy_server")


@frozen
class Part:
    """What one server must have signed, and the keys that may be used for it."""

    signatures: Mapping[KeyId, str]
    keys: Mapping[KeyId, bytes]
    is_settled: bool  # no other keys will be found


@frozen
class Required:
    """The servers that must have signed a PDU, with what stands there in their names."""

    servers: Mapping[ServerName, Mapping[KeyId, str]]
    at_ms: int | None


def required(rules: RoomRules, pdu: Pdu) -> Required | None:
    """None for PDUs that cannot be valid, whatever keys there are.

    The same servers as ``core.signing.required_signers``, read from the PDU as it came.
    """
    servers = _signers(rules, pdu)
    if servers is None:
        return None
    at_ms = None
    if rules.enforce_key_validity:  # room versions 5 and later [B3.04]
        ts = pdu.get("origin_server_ts")
        at_ms = ts.integer() if isinstance(ts, RawNumber) else ts if type(ts) is int else None
        if at_ms is None:
            return None
    found = {server: signatures_of(pdu, server) for server in servers}
    return Required(found, at_ms) if all(found.values()) else None


def _signers(rules: RoomRules, pdu: Pdu) -> set[ServerName] | None:
    sender, content = pdu.get("sender"), pdu.get("content")
    if not isinstance(sender, str) or not has_user_id_form(sender):
        return None
    if not isinstance(content, Mapping):
        return None
    servers = set()
    is_member = pdu.get("type") == "m.room.member"
    if not (
        is_member and content.get("membership") == "invite" and "third_party_invite" in content
    ):
        servers.add(server_of(UserId(sender)))  # [A4.05]
    if rules.event_id_server_signs:
        event_id = pdu.get("event_id")
        if not isinstance(event_id, str) or ":" not in event_id:
            return None
        servers.add(server_of(EventId(event_id)))
    if rules.restricted and is_member:
        authorising = content.get("join_authorised_via_users_server")
        if is_user_id(authorising):
            servers.add(server_of(authorising))
    return servers


def signatures_of(obj: Mapping[str, Json], server: ServerName) -> dict[KeyId, str]:
    """What stands in a server's name; the key of policy servers is not published [A4.06]."""
    found = signatures_by(obj, server)
    found.pop(POLICY_KEY, None)
    return {KeyId(key_id): signature for key_id, signature in found.items()}


Job = tuple[RoomRules, Pdu, Sequence[Part] | None]


def check_pdus(jobs: Sequence[Job]) -> list[Signed]:
    return [check_pdu(*job) for job in jobs]


def check_pdu(rules: RoomRules, pdu: Pdu, parts: Sequence[Part] | None) -> Signed:
    if parts is None:
        return Signed.INVALID
    try:
        return check(signed_bytes(redact(rules, pdu)), parts)
    except JsonError:
        return Signed.INVALID


def check(message: bytes, parts: Sequence[Part]) -> Signed:
    """Signatures with unknown keys are passed over; of the others all must be good, and there must
    be one [A4.04]."""
    is_unknown = False
    for part in parts:
        for key_id, key in part.keys.items():
            if not _is_good(key, message, part.signatures[key_id]):
                return Signed.INVALID
        if not part.keys:
            if part.is_settled:
                return Signed.INVALID
            is_unknown = True
    return Signed.UNKNOWN if is_unknown else Signed.VALID


def _is_good(key: bytes, message: bytes, signature: str) -> bool:
    try:
        return signature_is_good(key, message, decode_base64(signature))
    except ValueError:
        return False
