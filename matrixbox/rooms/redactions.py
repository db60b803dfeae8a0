"""The effect of redactions.

Matrix v1.19, room versions, "Handling redactions" ([A4.14], [A4.15], T039): a redaction acts once
both events are here, valid, and the one may redact the other.  Until then it is held back from
clients, which act on every redaction that they see; one that may never act is never shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from matrixbox.core.events import Event, StateKey
from matrixbox.core.redaction import redacted, redaction_allowed
from matrixbox.core.room_versions import RoomRules
from matrixbox.rooms import stripped
from matrixbox.rooms.state import SnapshotState
from matrixbox.store import events, members, names, rooms
from matrixbox.store.caches import Caches, StoredEvent
from matrixbox.store.events import HIDDEN, Status
from matrixbox.store.nids import RoomNid, SnapshotNid, UserNid
from matrixbox.store.transaction import Tx

REDACTION = "m.room.redaction"


def must_wait(
    tx: Tx, rules: RoomRules, room: RoomNid, event: Event, status: Status, before: SnapshotNid
) -> bool:
    """Whether a new event is a redaction to hold back.  ``before`` is the state before it."""
    if event.type != REDACTION or event.redacts is None or status & HIDDEN:
        return False
    target = events.by_id(tx, event.redacts)
    return target is None or not _may_act(tx, rules, room, event, before, target)


def _may_act(
    tx: Tx, rules: RoomRules, room: RoomNid, event: Event, before: SnapshotNid, target: StoredEvent
) -> bool:
    return (
        target.room == room
        and not target.status & Status.REJECTED
        and redaction_allowed(rules, event, target.event, SnapshotState(tx, before))
    )


def apply(tx: Tx, rules: RoomRules, stored: StoredEvent) -> None:
    """Let a new event redact its target, or be redacted by those that waited for it."""
    event = stored.event
    if event.type == REDACTION and event.redacts is not None:
        target = events.by_id(tx, event.redacts)
        if stored.status & Status.HELD and target is None:
            events.hold_redaction(tx, event.redacts, stored.nid)
        elif not stored.status & HIDDEN and target is not None:
            _redact(tx, stored, target)
    for nid in events.take_held_redactions(tx, event.event_id):
        redaction = events.by_nid(tx, nid)
        before = SnapshotNid(redaction.snapshot or 0)
        if _may_act(tx, rules, redaction.room, redaction.event, before, stored):
            events.release(tx, nid)
            _redact(tx, redaction, stored)


def _redact(tx: Tx, redaction: StoredEvent, target: StoredEvent) -> None:
    """Prune the target, everywhere that something of it is kept (T040)."""
    if events.redaction_of(tx, target.nid) is not None:
        return
    events.redact(tx, target.nid, redacted(target.event).json, redaction.nid)
    note_state(tx, target)
    # Nobody is notified of it any more (T133).
    tx.after_commit(_forget_counts, tx.caches, target.room, members.local_joined(tx, target.room))
    tx.changed(rooms=(target.room,))


def note_state(tx: Tx, target: StoredEvent) -> None:
    """Tell that an event has other content now: what is made from it may look different."""
    if target.event.state_key is None:
        return
    key: StateKey = (target.event.type, target.event.state_key)
    if rooms.current_event(tx, target.room, key) == target.nid:
        slot = names.add_slot(tx, key)
        rooms.change_state(tx, target.room, tx.position(), [(slot, target.nid, target.nid)])
        stripped.renew(tx, target.room)


def _forget_counts(caches: Caches, room: RoomNid, users: Sequence[UserNid]) -> None:
    for user in users:
        caches.unread.drop((user, room))
