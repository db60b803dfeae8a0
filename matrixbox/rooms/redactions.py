"""The effect of redactions.

Matrix v1.19, room versions, "Handling redactions": a redaction acts once both events are known and
it is allowed; until its target is known it is held back from clients (T039).
"""

from __future__ import annotations

from matrixbox.core.events import Event
from matrixbox.core.redaction import redacted, redaction_allowed
from matrixbox.core.room_versions import RoomRules
from matrixbox.rooms.state import CurrentState, SnapshotState
from matrixbox.store import events
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from matrixbox.store.nids import SnapshotNid
from matrixbox.store.transaction import Tx

REDACTION = "m.room.redaction"


def must_wait(tx: Tx, event: Event, status: Status) -> bool:
    """Whether an accepted redaction has to be held back, its target being unknown."""
    if event.type != REDACTION or status & (Status.REJECTED | Status.SOFT_FAILED):
        return False
    return event.redacts is not None and events.nid_of(tx, event.redacts) is None


def apply(tx: Tx, rules: RoomRules, stored: StoredEvent) -> None:
    """Let a new event redact its target, or be redacted by those that waited for it."""
    event = stored.event
    if event.type == REDACTION and event.redacts is not None:
        if stored.status & Status.HELD:
            events.hold_redaction(tx, event.redacts, stored.nid)
        elif not stored.status & (Status.REJECTED | Status.SOFT_FAILED):
            target = events.by_id(tx, event.redacts)
            if target is not None:
                _redact(tx, rules, stored, target)
    for nid in events.take_held_redactions(tx, event.event_id):
        redaction = events.by_nid(tx, nid)
        events.release(tx, nid)
        _redact(tx, rules, redaction, stored)


def _redact(tx: Tx, rules: RoomRules, redaction: StoredEvent, target: StoredEvent) -> None:
    """Prune the target if the redaction may do that; else it stays an event without effect."""
    if target.room != redaction.room or target.redacted_by is not None:
        return
    state = (
        CurrentState(tx, redaction.room)
        if redaction.snapshot is None
        else SnapshotState(tx, SnapshotNid(redaction.snapshot))
    )
    if not redaction_allowed(rules, redaction.event, target.event, state):
        return
    events.redact(tx, target.nid, redacted(target.event).json, redaction.nid)
    tx.changed(rooms=(target.room,))
