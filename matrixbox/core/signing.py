"""Signatures of JSON objects and of events.

Matrix v1.19, appendices, "Signing JSON" and "Checking for a Signature"; Server-Server API,
"Signing Events" [A4.01]-[A4.06]; rooms/v8 rule 4.2.  Only PyNaCl signs and verifies: it refuses
the degenerate keys and signatures that others let pass (T045).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen
from nacl import signing as nacl_signing
from nacl.exceptions import BadSignatureError

from matrixbox.core.events import Event
from matrixbox.core.hashes import (
    content_hash,
    content_hash_matches,
    decode_base64,
    encode_base64,
    event_id_of,
    is_canonical_base64,
    reference_hash,
)
from matrixbox.core.identifiers import (
    KeyId,
    ServerName,
    is_user_id,
    parse_key_id,
    server_of,
)
from matrixbox.core.json import Json, encode_canonical
from matrixbox.core.pruning import redact
from matrixbox.core.room_versions import RoomRules

__all__ = [
    "SigningKey",
    "citation",
    "content_hash",
    "content_hash_matches",
    "decode_base64",
    "encode_base64",
    "event_id_of",
    "event_signature_valid",
    "generate",
    "hash_and_sign_event",
    "is_canonical_base64",
    "is_third_party_invite",
    "json_signature_valid",
    "reference_hash",
    "required_signers",
    "sign_json",
    "sign_redacted",
    "signatures_by",
    "signed_bytes",
    "verify",
]

SEED_BYTES = 32
_SIGNATURE_BYTES = 64
_PUBLIC_KEY_BYTES = 32


@frozen(eq=False)
class SigningKey:
    """A server's Ed25519 key.  Its repr shows no secret (T051)."""

    version: str
    seed: bytes = field(repr=False)
    _key: nacl_signing.SigningKey = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Raise ValueError for a seed that is not 32 bytes, or a version that names no key."""
        parse_key_id(f"ed25519:{self.version}")
        object.__setattr__(self, "_key", nacl_signing.SigningKey(self.seed))

    @property
    def key_id(self) -> KeyId:
        """The signing key identifier, `ed25519:version`."""
        return KeyId(f"ed25519:{self.version}")

    @property
    def verify_key(self) -> bytes:
        """The public key, 32 bytes."""
        return bytes(self._key.verify_key)

    @property
    def verify_key_base64(self) -> str:
        """The public key in unpadded base64."""
        return encode_base64(self.verify_key)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of a message."""
        return self._key.sign(message).signature


def generate(random_bytes: Callable[[int], bytes]) -> SigningKey:
    """Make a new key out of `random_bytes(n)`, such as `secrets.token_bytes`."""
    return SigningKey("a_" + random_bytes(3).hex(), random_bytes(SEED_BYTES))


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether an Ed25519 signature is good; False for keys and signatures of any other shape."""
    if len(public_key) != _PUBLIC_KEY_BYTES or len(signature) != _SIGNATURE_BYTES:
        return False
    try:
        nacl_signing.VerifyKey(public_key).verify(message, signature)
    except BadSignatureError:
        return False
    return True


# --- objects


def sign_json(obj: Mapping[str, Json], server_name: str, key: SigningKey) -> dict[str, Json]:
    """A copy of the object with one more signature; `unsigned` is neither covered nor lost."""
    signature = encode_base64(key.sign(signed_bytes(obj)))
    return {**obj, "signatures": _with_signature(obj, server_name, key.key_id, signature)}


def json_signature_valid(
    obj: Mapping[str, Json], server_name: str, key_id: str, public_key: bytes
) -> bool:
    """Whether the object carries a good signature of that entity with that key; never raises."""
    encoded = signatures_by(obj, server_name).get(key_id)
    if encoded is None:
        return False
    try:
        return verify(public_key, signed_bytes(obj), decode_base64(encoded))
    except ValueError:
        return False


def signatures_by(obj: Mapping[str, Json], server_name: str) -> dict[str, str]:
    """The Ed25519 signatures an entity has put on an object: base64 by key ID.

    Signatures of other algorithms and entries of other types are passed over.
    """
    signatures = obj.get("signatures")
    entry = signatures.get(server_name) if isinstance(signatures, Mapping) else None
    if not isinstance(entry, Mapping):
        return {}
    return {
        key_id: signature
        for key_id, signature in entry.items()
        if key_id.startswith("ed25519:") and isinstance(signature, str)
    }


def signed_bytes(obj: Mapping[str, Json]) -> bytes:
    """What a signature on an object covers: all but `signatures` and `unsigned`."""
    return encode_canonical(
        {key: value for key, value in obj.items() if key not in ("signatures", "unsigned")}
    )


def _with_signature(
    obj: Mapping[str, Json], server_name: str, key_id: str, signature: str
) -> dict[str, Json]:
    signatures = obj.get("signatures")
    others = dict(signatures) if isinstance(signatures, Mapping) else {}
    entry = others.get(server_name)
    return {
        **others,
        server_name: {**(entry if isinstance(entry, Mapping) else {}), key_id: signature},
    }


# --- events


def hash_and_sign_event(
    rules: RoomRules, pdu: Mapping[str, Json], server_name: str, key: SigningKey
) -> dict[str, Json]:
    """A copy of the PDU with its content hash and our signature [A4.03].

    Raises JsonError for content that canonical JSON cannot hold.
    """
    hashed = {**pdu, "hashes": {"sha256": encode_base64(content_hash(pdu))}}
    return sign_redacted(rules, hashed, server_name, key)


def sign_redacted(
    rules: RoomRules, pdu: Mapping[str, Json], server_name: str, key: SigningKey
) -> dict[str, Json]:
    """A copy of the PDU with one more signature over its redacted form; hashes stay."""
    signature = encode_base64(key.sign(signed_bytes(redact(rules, pdu))))
    return {**pdu, "signatures": _with_signature(pdu, server_name, key.key_id, signature)}


def event_signature_valid(
    rules: RoomRules, pdu: Mapping[str, Json], server_name: str, key_id: str, public_key: bytes
) -> bool:
    """Whether the event's redacted form carries a good signature with that key; never raises."""
    return json_signature_valid(redact(rules, pdu), server_name, key_id, public_key)


def is_third_party_invite(event: Event) -> bool:
    """Whether the event turns a third-party invite into an invite [A4.05]."""
    return (
        event.type == "m.room.member"
        and event.content.get("membership") == "invite"
        and "third_party_invite" in event.content
    )


def required_signers(rules: RoomRules, event: Event) -> frozenset[ServerName]:
    """The servers without whose signatures the event is dropped; others are ignored (T044).

    An authorising user that is no user ID at all asks nobody to sign: the auth rules reject it.
    """
    servers = set()
    if not is_third_party_invite(event):
        servers.add(server_of(event.sender))
    if rules.event_id_server_signs:
        servers.add(server_of(event.event_id))
    if rules.restricted and event.type == "m.room.member":
        # rule 4.2 (5.2 in v12): on any membership [K.10]
        authorising = event.content.get("join_authorised_via_users_server")
        if is_user_id(authorising):
            servers.add(server_of(authorising))
    return frozenset(servers)


def citation(event: Event) -> Json:
    """How an event is named in the `prev_events` and `auth_events` of others."""
    if not event.rules.event_id_in_pdu:
        return event.event_id
    return [event.event_id, {"sha256": encode_base64(reference_hash(event.rules, event.json))}]
