"""Content hashes, reference hashes and event IDs.

Matrix v1.19, Server-Server API, "Calculating the content hash for an event" and "Calculating the
reference hash for an event"; rooms/v3 and v4, "Event IDs" [A4.01], [A4.02].
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import sha256

from matrixbox.core.identifiers import EventId
from matrixbox.core.json import Json, encode_canonical
from matrixbox.core.pruning import redact
from matrixbox.core.room_versions import RoomRules

_NOT_HASHED = frozenset({"unsigned", "signatures", "hashes"})


def encode_base64(data: bytes) -> str:
    """Unpadded base64 in the standard alphabet (appendices, "Unpadded Base64")."""
    return b64encode(data).decode().rstrip("=")


_ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_JUNK = bytes(set(range(256)) - _ALPHABET)
_STANDARD = bytes.maketrans(b"-_", b"+/")
_URL_SAFE = str.maketrans("+/", "-_")


def decode_base64(text: str) -> bytes:
    """Decode base64 as leniently as other servers do; raise ValueError for impossible lengths.

    Either alphabet, with or without padding; other characters are passed over, spare bits ignored
    [F4.03] (T045).  So compare what was decoded, never the text.
    """
    data = text.encode(errors="replace").translate(_STANDARD).translate(None, _JUNK)
    try:
        return b64decode(data + b"==")  # more padding than needed does no harm
    except binascii.Error as error:
        raise ValueError("not base64") from error


def is_canonical_base64(text: str) -> bool:
    """Whether text is the one unpadded standard encoding of its bytes, as clients must send it."""
    try:
        return encode_base64(decode_base64(text)) == text
    except ValueError:
        return False


def content_hash(pdu: Mapping[str, Json]) -> bytes:
    """The SHA-256 that covers the complete event, content included.

    Raises JsonError for what has no canonical form.
    """
    hashed = {key: value for key, value in pdu.items() if key not in _NOT_HASHED}
    return sha256(encode_canonical(hashed)).digest()


def content_hash_matches(pdu: Mapping[str, Json]) -> bool:
    """Whether the event still is what its `hashes` say (receipt check 3); never raises."""
    hashes = pdu.get("hashes")
    claimed = hashes.get("sha256") if isinstance(hashes, Mapping) else None
    if not isinstance(claimed, str):
        return False
    try:
        return decode_base64(claimed) == content_hash(pdu)
    except ValueError:
        return False


def reference_hash(rules: RoomRules, pdu: Mapping[str, Json]) -> bytes:
    """The SHA-256 over the event's redacted form, which names it from room version 3 on."""
    kept = redact(rules, pdu)  # without `unsigned` already
    kept.pop("signatures", None)
    return sha256(encode_canonical(kept)).digest()


def event_id_of(rules: RoomRules, pdu: Mapping[str, Json]) -> EventId:
    """The event's ID: computed, or in room versions 1 and 2 as the PDU says (a str there)."""
    if rules.event_id_in_pdu:
        return EventId(str(pdu["event_id"]))
    name = encode_base64(reference_hash(rules, pdu))
    if rules.event_id_url_safe:
        name = name.translate(_URL_SAFE)
    return EventId("$" + name)
