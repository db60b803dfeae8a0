"""Whether a third-party invite carries a signature that the room's offer vouches for.

Matrix v1.19, rooms/v1 rule 5.3.1.7 and appendices "Checking for a signature".
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.exceptions import ValueError as NaclValueError
from nacl.signing import VerifyKey


def third_party_invite_is_signed(signed: Mapping[str, Any], offer: Mapping[str, Any]) -> bool:
    """Any signature in `signed` matches any public key in the offer's content."""
    unsigned = {k: v for k, v in signed.items() if k not in ("signatures", "unsigned")}
    message = json.dumps(
        unsigned, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    return any(
        matches(message, signature, key)
        for _, _, signature in signatures_of(signed)
        for key in public_keys_of(offer)
    )


def public_keys_of(offer: Mapping[str, Any]) -> Iterator[object]:
    if "public_key" in offer:
        yield offer["public_key"]
    if isinstance(offer.get("public_keys"), list):
        for entry in offer["public_keys"]:
            if isinstance(entry, Mapping):
                yield entry.get("public_key")


def signatures_of(signed: Mapping[str, Any]) -> Iterator[tuple[str, str, object]]:
    """Server, key id and signature, as far as the algorithm is the one there is."""
    signatures = signed.get("signatures")
    if not isinstance(signatures, Mapping):
        return
    for server, by_key in signatures.items():
        if isinstance(by_key, Mapping):
            for key_id, signature in by_key.items():
                if key_id.startswith("ed25519:"):
                    yield server, key_id, signature


def matches(message: bytes, signature: object, key: object) -> bool:
    try:
        VerifyKey(base64_of(key)).verify(message, base64_of(signature))
    except (BadSignatureError, NaclValueError, binascii.Error, TypeError, ValueError):
        return False
    return True


def base64_of(text: object) -> bytes:
    """Unpadded base64, standard or URL-safe alphabet."""
    if not isinstance(text, str):
        raise TypeError("not base64")
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
