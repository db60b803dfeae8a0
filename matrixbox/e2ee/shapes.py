"""What keys must look like.

Matrix v1.19, Client-Server API, "End-to-End Encryption" (T122, T125, T126).  What was accepted here
can always be sent on to other servers: it has a canonical form, and a bounded size.
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.core.identifiers import DeviceId, UserId
from matrixbox.core.json import Json, JsonError, encode_strict
from matrixbox.core.signing import decode_base64, json_signature_valid
from matrixbox.errors import BadJson, InvalidParam, InvalidSignature
from matrixbox.store.keys import OneTimeKey

MAX_DEVICE_KEYS = 32 * 1024
MAX_CROSS_SIGNING_KEY = 32 * 1024
MAX_PREKEY = 4 * 1024
MAX_KEY_NAME = 255
_PUBLIC_KEY_BYTES = 32

Object = Mapping[str, Json]


def canonical(value: Json, most: int, what: str) -> bytes:
    """The canonical form; raises BadJson without one, InvalidParam for one that is too long."""
    try:
        found = encode_strict(value)
    except JsonError as error:
        raise BadJson(f"{what} cannot be signed: {error}.") from error
    if len(found) > most:
        raise InvalidParam(f"{what} is larger than {most} bytes.")
    return found


def public_key(encoded: Json) -> bytes | None:
    """An Ed25519 key, or None for what is none."""
    if not isinstance(encoded, str):
        return None
    try:
        found = decode_base64(encoded)
    except ValueError:
        return None
    return found if len(found) == _PUBLIC_KEY_BYTES else None


def device_keys(value: Json, user_id: UserId, device_id: DeviceId) -> dict[str, Json]:
    """The identity keys of a device, without `unsigned`, signed by the device itself.

    Programs that never encrypt, such as those that try servers out, publish keys with no signature
    at all.  Clients use none of these, and that they must check is the specification's rule; so
    only a signature that is there has to be right.  Raises BadJson, InvalidParam.
    """
    found = device_keys_of_peer(value, user_id, device_id)
    algorithms = found.get("algorithms")
    if not isinstance(algorithms, list) or not all(isinstance(one, str) for one in algorithms):
        raise BadJson("`device_keys` needs `algorithms`, a list of strings.")
    key_id = f"ed25519:{device_id}"
    keys = found["keys"]
    assert isinstance(keys, Mapping)
    key = public_key(keys.get(key_id))
    if key is None:
        raise InvalidParam(f"`device_keys` holds no {key_id}.")
    if found["signatures"] != {} and not json_signature_valid(found, user_id, key_id, key):
        raise InvalidParam(f"`device_keys` is not signed by {key_id}.")
    return found


def device_keys_of_peer(value: Json, user_id: str, device_id: str) -> dict[str, Json]:
    """The same without a look at signatures, which are for clients to check."""
    if not isinstance(value, Mapping):
        raise BadJson("`device_keys` is an object.")
    found = {key: member for key, member in value.items() if key != "unsigned"}
    if found.get("user_id") != user_id or found.get("device_id") != device_id:
        raise InvalidParam("`device_keys` are those of another device.")
    keys = found.get("keys")
    if not isinstance(keys, Mapping) or not all(isinstance(key, str) for key in keys.values()):
        raise BadJson("`device_keys` needs `keys`, an object of strings.")
    found["signatures"] = signatures(found)
    canonical(found, MAX_DEVICE_KEYS, "`device_keys`")
    return found


def signatures(value: Object) -> dict[str, dict[str, Json]]:
    """The signatures on an object, by who made them and the key; raises BadJson."""
    given = value.get("signatures", {})
    if not isinstance(given, Mapping):
        raise BadJson("`signatures` is an object.")
    found: dict[str, dict[str, Json]] = {}
    for signer, entry in given.items():
        if not isinstance(entry, Mapping) or not all(isinstance(s, str) for s in entry.values()):
            raise BadJson("`signatures` holds objects of strings.")
        found[signer] = dict(entry)
    return found


def with_signatures(value: Object, more: Object) -> dict[str, Json]:
    """An object with the signatures of another added to its own."""
    merged = signatures(value)
    for signer, entry in signatures(more).items():
        merged.setdefault(signer, {}).update(entry)
    return {**value, "signatures": merged}


def is_same_but_for_signatures(one: Object, other: Object) -> bool:
    """Whether two objects say the same."""
    return _bare(one) == _bare(other)


def _bare(value: Object) -> dict[str, Json]:
    return {key: member for key, member in value.items() if key not in ("signatures", "unsigned")}


def prekeys(given: Object, what: str) -> list[OneTimeKey]:
    """One-time or fallback keys, in their order; raises BadJson, InvalidParam."""
    found = []
    for name, value in given.items():
        algorithm, colon, key_id = name.partition(":")
        if not (algorithm and colon and key_id) or len(name) > MAX_KEY_NAME:
            raise InvalidParam(f"`{what}` has names of the form algorithm:id.")
        if isinstance(value, Mapping):
            if not isinstance(value.get("key"), str):
                raise BadJson(f"`{what}` holds objects with a `key`.")
            signatures(value)
        elif not isinstance(value, str):
            raise BadJson(f"`{what}` holds objects and strings.")
        json = canonical(value, MAX_PREKEY, f"A key of `{what}`")
        found.append(OneTimeKey(algorithm, key_id, json))
    return found


def cross_signing_key(value: Json, user_id: str, usage: str) -> dict[str, Json]:
    """A public cross-signing key, without `unsigned`; raises BadJson, InvalidParam."""
    if not isinstance(value, Mapping):
        raise BadJson(f"The {usage} key is an object.")
    found = {key: member for key, member in value.items() if key != "unsigned"}
    if found.get("user_id") != user_id:
        raise InvalidParam(f"The {usage} key is that of another user.")
    usages = found.get("usage")
    if not isinstance(usages, list) or usage not in usages:
        raise InvalidParam(f"The {usage} key is not meant for that.")
    keys = found.get("keys")
    if not isinstance(keys, Mapping) or len(keys) != 1:
        raise InvalidParam(f"The {usage} key needs `keys`, an object with one key.")
    ((key_id, key),) = keys.items()
    if public_key(key) is None or key_id != f"ed25519:{key}":
        raise InvalidParam(f"The {usage} key is not an Ed25519 key, or its name is not the key.")
    if "signatures" in found:
        found["signatures"] = signatures(found)
    canonical(found, MAX_CROSS_SIGNING_KEY, f"The {usage} key")
    return found


def key_of(cross_signing: Object) -> str:
    """The public key in a cross-signing key that was checked."""
    keys = cross_signing["keys"]
    assert isinstance(keys, Mapping)
    return str(next(iter(keys.values())))


def is_signed_by(value: Object, user_id: str, key_id: str, key: str) -> bool:
    """Whether a user has signed an object with a key."""
    known = public_key(key)
    return known is not None and json_signature_valid(value, user_id, key_id, known)


def require_signed(value: Object, user_id: str, key: str, what: str) -> None:
    """Raise InvalidSignature unless a user has signed an object with a key that names itself."""
    if not is_signed_by(value, user_id, f"ed25519:{key}", key):
        raise InvalidSignature(f"{what} is not signed by {key}.")
