"""What differs between room versions, as one table of named flags.

Matrix v1.19, "Room Versions" and rooms/v1 to rooms/v12 [A2].  Nothing else in the program compares
versions: each version is the one before with changes, and each flag says where it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from attrs import evolve, frozen

_GRAMMAR = re.compile(r"[a-z0-9.\-]{1,32}")


class StateResolution(Enum):
    """The algorithm that merges the states of several branches."""

    V1 = "1"
    V2 = "2"
    V2_1 = "2.1"


@frozen
class RedactionRules:
    """What the redaction algorithm keeps.

    `content` lists the keys kept in the content of each event type; types that are missing there
    keep nothing.
    """

    top_level: frozenset[str]
    content: Mapping[str, frozenset[str]]
    create_keeps_all: bool = False
    keeps_third_party_signed: bool = False


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _keep(base: Mapping[str, frozenset[str]], **changes: str) -> Mapping[str, frozenset[str]]:
    """The table with the entries of some `m.room.*` types replaced; "" removes one."""
    table = dict(base)
    for name, keys in changes.items():
        table[f"m.room.{name}"] = _words(keys)
    return MappingProxyType({type_: keys for type_, keys in table.items() if keys})


_TOP_LEVEL_V1 = _words(
    "event_id type room_id sender state_key content hashes signatures depth prev_events prev_state"
    " auth_events origin origin_server_ts membership"
)
# fragments/v1-redactions [A4.08], [A4.09]
REDACTION_V1 = RedactionRules(
    top_level=_TOP_LEVEL_V1,
    content=_keep(
        {},
        member="membership",
        create="creator",
        join_rules="join_rule",
        power_levels="ban events events_default kick redact state_default users users_default",
        aliases="aliases",
        history_visibility="history_visibility",
    ),
)
# rooms/v6: m.room.aliases means nothing any more [A4.10]
REDACTION_V6 = evolve(REDACTION_V1, content=_keep(REDACTION_V1.content, aliases=""))
# rooms/v8: restricted rooms keep their allow list
REDACTION_V8 = evolve(
    REDACTION_V6, content=_keep(REDACTION_V6.content, join_rules="join_rule allow")
)
# rooms/v9: and a restricted join keeps the user who vouched for it
REDACTION_V9 = evolve(
    REDACTION_V8,
    content=_keep(REDACTION_V8.content, member="membership join_authorised_via_users_server"),
)
# rooms/v11, fragments/v11-redactions [A4.11]
REDACTION_V11 = evolve(
    REDACTION_V9,
    top_level=_TOP_LEVEL_V1 - {"origin", "membership", "prev_state"},
    content=_keep(
        REDACTION_V9.content,
        power_levels="ban events events_default invite kick redact state_default users"
        " users_default",
        redaction="redacts",
    ),
    create_keeps_all=True,
    keeps_third_party_signed=True,
)


@frozen(eq=False)
class RoomRules:
    """The rules of one room version; there is one instance per version."""

    version: str
    # --- event format
    event_id_in_pdu: bool  # v1, v2: `$opaque:domain`, in the PDU; citations are [id, hashes] pairs
    event_id_url_safe: bool  # v4+: the hash in an event ID is in the URL-safe alphabet
    exact_numbers: bool  # v1-v5: numbers outside canonical JSON are kept as they were written
    strict_byte_limits: bool  # v11+: identifiers over 255 bytes are malformed, before: rejected
    room_id_is_create_hash: bool  # v12: no room_id in the create event, no create in auth_events
    redacts_in_content: bool  # v11+: `redacts` lives in content
    # --- signatures
    event_id_server_signs: bool  # v1, v2: the server in the event ID signs too [A2.01]
    enforce_key_validity: bool  # v5+: valid_until_ts counts
    # --- authorisation
    aliases_rule: bool  # v1-v5: rule 4 about m.room.aliases
    redaction_rule: bool  # v1, v2: rule 11 about m.room.redaction
    notifications_checked: bool  # v6+: changes of `notifications` are checked like `events`
    knock: bool  # v7+: join rule and membership `knock`
    restricted: bool  # v8+: join rule `restricted`
    knock_restricted: bool  # v10+: join rule `knock_restricted`
    float_power_levels: bool  # v1-v5: fragments/v1-floaty-power-levels
    integer_power_levels: bool  # v10+: strings are no levels any more
    creator_is_sender: bool  # v11+: content.creator means nothing
    privileged_creators: bool  # v12: creators stand above every level; additional_creators
    # --- algorithms
    state_resolution: StateResolution
    redaction: RedactionRules


V1 = RoomRules(
    version="1",
    event_id_in_pdu=True,
    event_id_url_safe=False,
    exact_numbers=True,
    strict_byte_limits=False,
    room_id_is_create_hash=False,
    redacts_in_content=False,
    event_id_server_signs=True,
    enforce_key_validity=False,
    aliases_rule=True,
    redaction_rule=True,
    notifications_checked=False,
    knock=False,
    restricted=False,
    knock_restricted=False,
    float_power_levels=True,
    integer_power_levels=False,
    creator_is_sender=False,
    privileged_creators=False,
    state_resolution=StateResolution.V1,
    redaction=REDACTION_V1,
)
V2 = evolve(V1, version="2", state_resolution=StateResolution.V2)
V3 = evolve(
    V2, version="3", event_id_in_pdu=False, event_id_server_signs=False, redaction_rule=False
)
V4 = evolve(V3, version="4", event_id_url_safe=True)
V5 = evolve(V4, version="5", enforce_key_validity=True)
V6 = evolve(
    V5,
    version="6",
    exact_numbers=False,
    float_power_levels=False,
    aliases_rule=False,
    notifications_checked=True,
    redaction=REDACTION_V6,
)
V7 = evolve(V6, version="7", knock=True)
V8 = evolve(V7, version="8", restricted=True, redaction=REDACTION_V8)
V9 = evolve(V8, version="9", redaction=REDACTION_V9)
V10 = evolve(V9, version="10", integer_power_levels=True, knock_restricted=True)
V11 = evolve(
    V10,
    version="11",
    creator_is_sender=True,
    redacts_in_content=True,
    strict_byte_limits=True,
    redaction=REDACTION_V11,
)
V12 = evolve(
    V11,
    version="12",
    room_id_is_create_hash=True,
    privileged_creators=True,
    state_resolution=StateResolution.V2_1,
)

ROOM_VERSIONS: Mapping[str, RoomRules] = MappingProxyType(
    {rules.version: rules for rules in (V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12)}
)

# rooms/_index: servers SHOULD create rooms of this version [A1.02]
DEFAULT_VERSION = "12"


def is_room_version(text: str) -> bool:
    """Whether text follows the room version grammar, known or not [A1.03]."""
    return _GRAMMAR.fullmatch(text) is not None


def rules_of_create(content: Mapping[str, object]) -> RoomRules | None:
    """The rules a create event's content asks for, None if they are unknown.

    A missing `room_version` means "1" [A1.04].  Ask once, when the event is first accepted: up to
    version 10 a redacted create event has lost its version [A4.12] (T018).
    """
    version = content.get("room_version", "1")
    return ROOM_VERSIONS.get(version) if isinstance(version, str) else None
