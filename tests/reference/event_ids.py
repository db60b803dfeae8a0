"""Redaction, reference hash and event ids, and the event as it is on the wire.

Matrix v1.19, rooms/fragments v1-, v6-, v9- and v11-redactions, rooms/v8, v1-event-ids,
v4-event-ids; Server-Server API, "Calculating the reference hash for an event".
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEPT_V1 = frozenset(
    [
        "event_id",
        "type",
        "room_id",
        "sender",
        "state_key",
        "content",
        "hashes",
        "signatures",
        "depth",
        "prev_events",
        "prev_state",
        "auth_events",
        "origin",
        "origin_server_ts",
        "membership",
    ]
)
KEPT_V11 = KEPT_V1 - {"prev_state", "origin", "membership"}
LEVELS_V1 = frozenset(
    ["ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"]
)
CONTENT_V1 = {
    "m.room.member": frozenset({"membership"}),
    "m.room.create": frozenset({"creator"}),
    "m.room.join_rules": frozenset({"join_rule"}),
    "m.room.power_levels": LEVELS_V1,
    "m.room.aliases": frozenset({"aliases"}),
    "m.room.history_visibility": frozenset({"history_visibility"}),
}
CONTENT_V6 = {kind: kept for kind, kept in CONTENT_V1.items() if kind != "m.room.aliases"}
CONTENT_V8 = CONTENT_V6 | {"m.room.join_rules": frozenset({"join_rule", "allow"})}
CONTENT_V9 = CONTENT_V8 | {
    "m.room.member": frozenset({"membership", "join_authorised_via_users_server"})
}
CONTENT_V11 = CONTENT_V9 | {
    "m.room.power_levels": LEVELS_V1 | {"invite"},
    "m.room.redaction": frozenset({"redacts"}),
}


def redact(version: str, pdu: Mapping[str, Any]) -> dict[str, Any]:
    number, kind, content = int(version), pdu["type"], pdu["content"]
    kept = KEPT_V11 if number >= 11 else KEPT_V1
    redacted = {key: value for key, value in pdu.items() if key in kept}
    redacted["content"] = {
        key: value for key, value in content.items() if key in kept_content(number, kind, content)
    }
    if number >= 11 and kind == "m.room.member":
        invite = content.get("third_party_invite")
        if isinstance(invite, Mapping):
            kept_of_invite = {key: value for key, value in invite.items() if key == "signed"}
            redacted["content"]["third_party_invite"] = kept_of_invite
    return redacted


def kept_content(number: int, kind: str, content: Mapping[str, Any]) -> frozenset[str]:
    if number >= 11:
        return frozenset(content) if kind == "m.room.create" else CONTENT_V11.get(kind, frozenset())
    by_kind = (
        CONTENT_V9
        if number >= 9
        else CONTENT_V8
        if number == 8
        else CONTENT_V6
        if number >= 6
        else CONTENT_V1
    )
    return by_kind.get(kind, frozenset())


CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_json(value: object) -> bytes:
    return CANONICAL.encode(value).encode()


def event_id_of(version: str, pdu: Mapping[str, Any]) -> str:
    """The event id by reference hash, for rooms 3 and later."""
    redacted = redact(version, pdu)
    redacted.pop("signatures", None)
    digest = hashlib.sha256(canonical_json(redacted)).digest()
    encode = base64.b64encode if version == "3" else base64.urlsafe_b64encode
    return "$" + encode(digest).decode().rstrip("=")


def on_the_wire(version: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """The PDU of an event of this package (rooms 1 and 2 pair ids with hashes)."""
    pdu = dict(event)
    if version in ("1", "2"):
        for field in ("auth_events", "prev_events"):
            pdu[field] = [[event_id, {"sha256": "x"}] for event_id in event[field]]
    else:
        pdu.pop("event_id", None)
    return pdu
