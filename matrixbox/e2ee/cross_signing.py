"""Cross-signing keys, and the signatures that users and devices put on keys.

Matrix v1.19, Client-Server API, "Cross-signing" ([C17.06] to [C17.10], T126).
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.core.identifiers import DeviceId, InvalidIdentifier, UserId, parse_user_id
from matrixbox.core.json import Json, decode_stored, encode_canonical
from matrixbox.e2ee import shapes
from matrixbox.errors import (
    Forbidden,
    InvalidParam,
    InvalidSignature,
    MatrixError,
    MissingParam,
    NotFound,
)
from matrixbox.store import accounts, device_lists, keys, names
from matrixbox.store.caches import Session
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

MASTER, SELF_SIGNING, USER_SIGNING = "master", "self_signing", "user_signing"
USAGES = (MASTER, SELF_SIGNING, USER_SIGNING)

MAX_SIGNED = 1_000
"""Objects in one upload of signatures."""

Keys = Mapping[str, Mapping[str, Json]]
"""Cross-signing keys by usage, of good shape."""


class ConsentNeeded(Exception):
    """The upload would replace keys: the user has to authenticate for it."""


def parse(body: Mapping[str, Json], user_id: UserId) -> dict[str, dict[str, Json]]:
    """The keys of an upload; raises BadJson, InvalidParam."""
    return {
        usage: shapes.cross_signing_key(body[f"{usage}_key"], user_id, usage)
        for usage in USAGES
        if body.get(f"{usage}_key") is not None
    }


def upload(tx: Tx, who: Session, new: Keys, consented: bool) -> None:
    """Store a user's cross-signing keys; those who follow the user's devices learn of a change.

    Raises ConsentNeeded, MissingParam without a master key, InvalidSignature, Forbidden for a key
    with the name of a device.
    """
    stored = _stored(tx, who.user)
    _check(tx, who, stored, new)
    changes = {usage: key for usage, key in new.items() if not _is_known(stored, usage, key)}
    if not changes:
        return
    if not consented and MASTER in stored and any(_is_other(stored, *key) for key in new.items()):
        raise ConsentNeeded
    for usage, key in changes.items():
        present = stored.get(usage)
        if present is not None and shapes.is_same_but_for_signatures(present, key):
            key = shapes.with_signatures(present, key)  # noqa: PLW2901
        keys.put_cross_signing_key(tx, who.user, usage, encode_canonical(key))
    if MASTER in changes:
        _drop_unsigned(tx, who, stored, new)
    device_lists.signing_keys_changed(tx, who.user)


def _stored(tx: Tx, user: UserNid) -> dict[str, dict[str, Json]]:
    found = {}
    for usage, json in keys.cross_signing_keys(tx, user).items():
        value = decode_stored(json)
        assert isinstance(value, dict)
        found[usage] = value
    return found


def _check(tx: Tx, who: Session, stored: Keys, new: Keys) -> None:
    master = new.get(MASTER, stored.get(MASTER))
    if master is None:
        raise MissingParam("There is no master key.")
    for usage in (SELF_SIGNING, USER_SIGNING):
        if usage in new:
            what = f"The {usage} key"
            shapes.require_signed(new[usage], who.user_id, shapes.key_of(master), what)
    for usage, key in new.items():
        if accounts.device_nid(tx, who.user, shapes.key_of(key)) is not None:
            raise Forbidden(f"The {usage} key has the name of a device.")


def _is_other(stored: Keys, usage: str, key: Mapping[str, Json]) -> bool:
    present = stored.get(usage)
    return present is None or not shapes.is_same_but_for_signatures(present, key)


def _is_known(stored: Keys, usage: str, key: Mapping[str, Json]) -> bool:
    """Whether a key is there already with all the signatures that it brings."""
    present = stored.get(usage)
    if present is None or _is_other(stored, usage, key):
        return False
    return shapes.with_signatures(present, key) == shapes.with_signatures(present, {})


def _drop_unsigned(tx: Tx, who: Session, stored: Keys, new: Keys) -> None:
    """A new master key has not signed the other keys that were there."""
    if shapes.key_of(new[MASTER]) == (shapes.key_of(stored[MASTER]) if MASTER in stored else ""):
        return
    for usage in (SELF_SIGNING, USER_SIGNING):
        if usage in stored and usage not in new:
            keys.remove_cross_signing_key(tx, who.user, usage)


# --- signatures


def add_signatures(tx: Tx, who: Session, signed: Mapping[str, Json]) -> dict[str, dict[str, Json]]:
    """Add signatures to keys; what failed, by user and key ([C17.09])."""
    own_changed: set[DeviceId] = set()
    master_changed = other_changed = False
    failures: dict[str, dict[str, Json]] = {}
    for user_id, objects in signed.items():
        assert isinstance(objects, Mapping)
        for key_id, value in objects.items():
            try:
                if user_id != who.user_id:
                    other_changed |= _sign_other(tx, who, user_id, key_id, value)
                elif _sign_own_device(tx, who, key_id, value):
                    own_changed.add(DeviceId(key_id))
                elif accounts.device_nid(tx, who.user, key_id) is None:
                    master_changed |= _sign_own_master(tx, who, key_id, value)
            except MatrixError as error:
                answer: dict[str, Json] = error.json()  # type: ignore[assignment]
                failures.setdefault(user_id, {})[key_id] = answer
    for device_id in own_changed:
        device_lists.device_changed(tx, who.user, device_id)
    if master_changed:
        device_lists.signing_keys_changed(tx, who.user)
    if other_changed:
        tx.changed(users=(who.user,), topics=(device_lists.CHANGES,))
    return failures


def check_signed(body: Mapping[str, Json]) -> None:
    """Raise InvalidParam for an upload of signatures that cannot be one."""
    if not all(isinstance(objects, Mapping) for objects in body.values()):
        raise InvalidParam("Signed objects come by user and key.")
    if sum(len(o) for o in body.values() if isinstance(o, Mapping)) > MAX_SIGNED:
        raise InvalidParam(f"At most {MAX_SIGNED} objects can be uploaded at once.")


def _same(stored: bytes, value: Json) -> tuple[dict[str, Json], Mapping[str, Json]]:
    """What is stored, and what was signed; raises InvalidSignature where they differ."""
    known = decode_stored(stored)
    assert isinstance(known, dict)
    if not isinstance(value, Mapping) or not shapes.is_same_but_for_signatures(known, value):
        raise InvalidSignature("What was signed is not the key that is stored.")
    return known, value


def _sign_own_device(tx: Tx, who: Session, device_id: str, value: Json) -> bool:
    """Sign one's own device with the self-signing key; False: it is none, or was signed so."""
    device = accounts.device_nid(tx, who.user, device_id)
    if device is None:
        return False
    stored = keys.device_keys(tx, device)
    if stored is None:
        raise NotFound("That device has no keys.")
    known, given = _same(stored, value)
    own = _stored(tx, who.user).get(SELF_SIGNING)
    if own is None:
        raise InvalidSignature("You have no self-signing key.")
    json = _with_signature(known, given, who.user_id, shapes.key_of(own))
    if json == stored:
        return False
    keys.put_device_keys(tx, device, json)
    return True


def _with_signature(
    known: Mapping[str, Json], given: Mapping[str, Json], user_id: UserId, key: str
) -> bytes:
    """A stored object with one more signature, which is checked."""
    shapes.require_signed(given, user_id, key, "That")
    name = f"ed25519:{key}"
    signature = shapes.signatures(given)[user_id][name]
    more: dict[str, Json] = {"signatures": {user_id: {name: signature}}}
    merged = shapes.with_signatures(known, more)
    return shapes.canonical(merged, shapes.MAX_DEVICE_KEYS, "That key with its signatures")


def _sign_own_master(tx: Tx, who: Session, key_id: str, value: Json) -> bool:
    """Sign one's own master key with devices."""
    stored = keys.cross_signing_keys(tx, who.user).get(MASTER)
    known = None if stored is None else decode_stored(stored)
    if stored is None or not isinstance(known, dict) or shapes.key_of(known) != key_id:
        raise NotFound("You have no such device or key.")
    known, given = _same(stored, value)
    signers = shapes.signatures(given).get(who.user_id, {})
    json = stored
    for name in signers:
        device_id = name.removeprefix("ed25519:")
        signature_of = _device_key(tx, who.user, device_id)
        if signature_of is None:
            continue  # a signature by what is no device of the user's
        if not shapes.is_signed_by(given, who.user_id, name, signature_of):
            raise InvalidSignature(f"That is not signed by {device_id}.")
        more: dict[str, Json] = {"signatures": {who.user_id: {name: signers[name]}}}
        known = shapes.with_signatures(known, more)
        json = shapes.canonical(known, shapes.MAX_CROSS_SIGNING_KEY, "The master key")
    if json == stored:
        if not signers:
            raise InvalidSignature("That bears no signature of yours.")
        return False
    keys.put_cross_signing_key(tx, who.user, MASTER, json)
    return True


def _device_key(tx: Tx, user: UserNid, device_id: str) -> str | None:
    """The Ed25519 key of one's own device."""
    device = accounts.device_nid(tx, user, device_id)
    stored = None if device is None else keys.device_keys(tx, device)
    if stored is None:
        return None
    value = decode_stored(stored)
    assert isinstance(value, dict)
    found = value["keys"].get(f"ed25519:{device_id}")
    return found if isinstance(found, str) else None


def _sign_other(tx: Tx, who: Session, user_id: str, key_id: str, value: Json) -> bool:
    """Sign somebody's master key with the user-signing key, for oneself alone."""
    try:
        target = names.user_nid(tx, parse_user_id(user_id))
    except InvalidIdentifier as error:
        raise InvalidParam("That is not a user id.") from error
    stored = None if target is None else keys.cross_signing_keys(tx, target).get(MASTER)
    if target is None or stored is None:
        raise NotFound("That user's master key is not known here.")
    known, given = _same(stored, value)
    if shapes.key_of(known) != key_id:
        raise NotFound("That is not the user's master key.")
    own = _stored(tx, who.user).get(USER_SIGNING)
    if own is None:
        raise InvalidSignature("You have no user-signing key.")
    key = shapes.key_of(own)
    shapes.require_signed(given, who.user_id, key, "That")
    name = f"ed25519:{key}"
    signature = str(shapes.signatures(given)[who.user_id][name])
    if keys.user_signature(tx, who.user, target, key_id) == (name, signature):
        return False
    keys.put_user_signature(tx, who.user, target, key_id, name, signature)
    return True
