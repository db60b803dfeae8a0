"""What servers say about their keys: read, bounded, and merged with what was known before.

Matrix v1.19, Server-Server API, "Publishing Keys" ([B3.01] to [B3.03], T047).  Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from attrs import evolve, frozen

from matrixbox.core.identifiers import InvalidIdentifier, KeyId, ServerName, parse_key_id
from matrixbox.core.json import Json, JsonError, RawNumber, encode_canonical
from matrixbox.core.signing import decode_base64, json_signature_valid, signatures_by
from matrixbox.store.server_keys import KeyAnswer, Keys, ServerKey

MAX_VALIDITY_S = 7 * 24 * 3600
"""However long a server says its keys are valid [B3.03]."""
MAX_VALIDITY_MS = MAX_VALIDITY_S * 1000
MAX_CURRENT_KEYS = 20
MAX_OLD_KEYS = 100

_NOT_IN_KEY_ANSWERS = frozenset(
    {"type", "room_id", "sender", "content", "event_id", "method", "uri", "origin", "destination"}
)
"""What would make an answer look like an event or a request; never countersigned (T050)."""

REFUSED_KEYS = frozenset(
    decode_base64(text)
    for text in (
        # ELEMENTSEC-2025-1670, CVE-2026-24044: one key made for many installations.
        "l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og",
        # The private half stands in the specification, appendices, "Signing Key".
        "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI",
    )
)
"""Public keys whose private halves are known to others (T047)."""


class BadKeyAnswer(ValueError):
    """The answer is not one about this server's keys, or is not signed by it."""


@frozen
class ReadAnswer:
    """A server's answer about its keys, checked."""

    keys: Keys
    answer: KeyAnswer


def read_answer(server: ServerName, value: Mapping[str, Json], now_ms: int) -> ReadAnswer:
    """Check an answer and take its keys; raise BadKeyAnswer.

    It must name the server and bear a good signature with one of the keys that it lists as
    current.  Entries that are no Ed25519 keys are passed over, as is what exceeds the bounds.
    """
    if value.get("server_name") != server:
        raise BadKeyAnswer("it is about another server")
    if not _NOT_IN_KEY_ANSWERS.isdisjoint(value):
        raise BadKeyAnswer("it could be taken for something else")
    until = _integer(value.get("valid_until_ts"))
    if until is None:
        raise BadKeyAnswer("valid_until_ts is not an integer")
    until = min(until, now_ms + MAX_VALIDITY_MS)
    current = _current_keys(value.get("verify_keys"))
    _check_self_signature(server, value, current)
    keys = {key_id: ServerKey(key, until, is_old=False) for key_id, key in current.items()}
    # A key in both lists is an old one: it authenticates nothing.
    keys.update(_old_keys(value.get("old_verify_keys"), now_ms))
    try:
        encoded = encode_canonical(value)
    except JsonError as error:
        raise BadKeyAnswer("it has no canonical form") from error
    return ReadAnswer(MappingProxyType(keys), KeyAnswer(now_ms, until, encoded))


def _check_self_signature(
    server: ServerName, value: Mapping[str, Json], current: Mapping[KeyId, bytes]
) -> None:
    claimed = [key_id for key_id in signatures_by(value, server) if key_id in current]
    if not claimed:
        raise BadKeyAnswer("it is not signed with any of its keys")
    for key_id in claimed:
        if not json_signature_valid(value, server, key_id, current[KeyId(key_id)]):
            raise BadKeyAnswer("a signature of its own is wrong")


def _current_keys(listed: Json) -> dict[KeyId, bytes]:
    keys: dict[KeyId, bytes] = {}
    for key_id, entry in _entries(listed):
        key = _public_key(entry)
        if key is not None and len(keys) < MAX_CURRENT_KEYS:
            keys[key_id] = key
    return keys


def _old_keys(listed: Json, now_ms: int) -> dict[KeyId, ServerKey]:
    """The old keys, those that expired last where there are too many."""
    found = []
    for key_id, entry in _entries(listed):
        key, expired = _public_key(entry), _integer(entry.get("expired_ts"))
        if key is not None and expired is not None:
            found.append((min(expired, now_ms), key_id, key))
    found.sort(reverse=True)
    return {
        key_id: ServerKey(key, expired, is_old=True)
        for expired, key_id, key in found[:MAX_OLD_KEYS]
    }


def _entries(listed: Json) -> list[tuple[KeyId, Mapping[str, Json]]]:
    found = []
    for name, entry in listed.items() if isinstance(listed, Mapping) else ():
        try:
            key_id = parse_key_id(name)
        except InvalidIdentifier:
            continue  # `rsa:1`, `ed25519:`: of no use to us, and no harm
        if isinstance(entry, Mapping):
            found.append((key_id, entry))
    return found


def _public_key(entry: Mapping[str, Json]) -> bytes | None:
    text = entry.get("key")
    if not isinstance(text, str):
        return None
    try:
        key = decode_base64(text)
    except ValueError:
        return None
    return key if len(key) == 32 and key not in REFUSED_KEYS else None


def _integer(value: Json) -> int | None:
    number = value.integer() if isinstance(value, RawNumber) else value
    if type(number) is not int:
        return None
    return max(-(2**53), min(number, 2**53))  # the column holds 64 bits


# --- merging


class OnOtherBytes(Protocol):
    """Told of a key id that stands for another key than before."""

    def __call__(self, key_id: KeyId) -> None: ...


def merge_direct(known: Keys, said: Keys, now_ms: int, on_other_bytes: OnOtherBytes) -> Keys:
    """What is known after the server itself has answered: it is believed in everything.

    Keys that it does not list any more sign no requests from now on, and stay for older events.
    """
    merged = dict(said)
    for key_id, key in known.items():
        new = said.get(key_id)
        if new is None:
            until = min(key.valid_until_ms, now_ms)
            merged[key_id] = evolve(key, valid_until_ms=until, is_old=True)
        elif new.public_key != key.public_key:
            on_other_bytes(key_id)
    return _bounded(merged)


def merge_notarised(known: Keys, said: Keys, on_other_bytes: OnOtherBytes) -> Keys:
    """What is known after another server has passed on an answer, perhaps an old one.

    It adds keys, and lengthens the validity of those with the same bytes; it revokes nothing and
    replaces nothing (T047).
    """
    merged = dict(known)
    for key_id, key in said.items():
        old = known.get(key_id)
        if old is None:
            merged[key_id] = key
        elif old.public_key != key.public_key:
            on_other_bytes(key_id)
        elif old.is_old == key.is_old:
            merged[key_id] = max(old, key, key=lambda one: one.valid_until_ms)
    return _bounded(merged)


def _bounded(keys: Mapping[KeyId, ServerKey]) -> Keys:
    if len(keys) > MAX_CURRENT_KEYS + MAX_OLD_KEYS:
        # Current ones first, then those that were valid last.
        order = sorted(
            keys.items(),
            key=lambda item: (not item[1].is_old, item[1].valid_until_ms),
            reverse=True,
        )
        keys = dict(order[: MAX_CURRENT_KEYS + MAX_OLD_KEYS])
    return MappingProxyType(dict(keys))
