"""Redactions: what they leave of an event, and whether one may act.

Matrix v1.19, rooms/v1 rule 11 (versions 1 and 2) and fragments/v3-handling-redactions
[A4.14], [A4.15]; the algorithm itself is in pruning.py.
"""

from __future__ import annotations

from matrixbox.core.events import (
    CREATE,
    POWER_LEVELS,
    Event,
    StateMap,
    event_from_stored,
    power_levels,
)
from matrixbox.core.identifiers import server_of
from matrixbox.core.pruning import redact
from matrixbox.core.room_versions import RoomRules

__all__ = ["redact", "redacted", "redaction_allowed", "same_event_domain"]


def redacted(event: Event) -> Event:
    """The event with only what redaction leaves; its ID stays."""
    return event_from_stored(event.rules, event.event_id, redact(event.rules, event.json))


def redaction_allowed(rules: RoomRules, redaction: Event, target: Event, state: StateMap) -> bool:
    """Whether a valid redaction may act on its target, both being known and accepted (T039).

    `state` is the state before the redaction.  In room versions 1 and 2 the conditions are auth
    rule 11 and were met when the redaction was accepted; they are looked at again here.
    """
    create = state.get(CREATE)
    if (
        create is None
        or redaction.redacts != target.event_id
        or redaction.room_id != target.room_id
    ):
        return False
    levels = power_levels(rules, create, state.get(POWER_LEVELS))
    # 1. The sender's power level reaches the redact level.
    if levels.user(redaction.sender) >= levels.redact:
        return True
    # 2. Both events come from the same server.
    if rules.redaction_rule:
        return same_event_domain(redaction.event_id, target.event_id)
    return server_of(redaction.sender) == server_of(target.sender)


def same_event_domain(one: str, other: str) -> bool:
    """Whether two event IDs of room versions 1 and 2 have the same domain."""
    return one.partition(":")[2] == other.partition(":")[2]
