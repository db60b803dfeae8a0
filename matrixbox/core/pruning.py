"""The redaction algorithm: what is left of an event when it is redacted.

Matrix v1.19, rooms/v1, v6, v8, v9, v11, "Redactions"; the tables are in room_versions.py.
Whether a redaction may act is decided in redaction.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.core.json import Json
from matrixbox.core.room_versions import RoomRules

_NOTHING: frozenset[str] = frozenset()


def redact(rules: RoomRules, pdu: Mapping[str, Json]) -> dict[str, Json]:
    """A copy of the PDU with only what its room version protects; never raises.

    `unsigned` is in no list of protected keys and disappears [A4.13].
    """
    kept = {key: value for key, value in pdu.items() if key in rules.redaction.top_level}
    content = pdu.get("content")
    kept["content"] = (
        _redact_content(rules, pdu.get("type"), content) if isinstance(content, Mapping) else {}
    )
    return kept


def _redact_content(
    rules: RoomRules, type_: Json, content: Mapping[str, Json]
) -> Mapping[str, Json]:
    if not isinstance(type_, str):
        return {}
    if type_ == "m.room.create" and rules.redaction.create_keeps_all:
        return content
    keys = rules.redaction.content.get(type_, _NOTHING)
    kept = {key: content[key] for key in keys if key in content}
    if type_ == "m.room.member" and rules.redaction.keeps_third_party_signed:
        invite = content.get("third_party_invite")
        if isinstance(invite, Mapping):
            # "the signed key of the third_party_invite key": an object without one stays, empty,
            # as in the servers whose event IDs we have to agree with.
            kept["third_party_invite"] = {"signed": invite["signed"]} if "signed" in invite else {}
    return kept
