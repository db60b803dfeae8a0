"""What follows from an event with its verdict, in one transaction.

The event's row, the state after it, the room's extremities and current state, memberships, the
effect of redactions, relations, and whom it notifies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from matrixbox.core.events import Event
from matrixbox.core.identifiers import EventId, UserId
from matrixbox.core.relations import relation_of
from matrixbox.core.room_versions import RoomRules
from matrixbox.rooms import counts, redactions, stripped
from matrixbox.rooms.env import Env
from matrixbox.rooms.extremities import DUMMY, superseded
from matrixbox.rooms.state import after, resolved
from matrixbox.store import events, members, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import HIDDEN, Placement, Relation, Status
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import DeviceNid, EventNid, RoomNid, SlotNid, SnapshotNid
from matrixbox.store.rooms import Head
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"


@frozen
class Candidate:
    """An event with its room and what it cites, all of it stored."""

    event: Event
    room: RoomNid
    rules: RoomRules
    prev: Sequence[StoredEvent]
    auth: Sequence[StoredEvent]
    pruned: bool = False  # its content did not match its hash and was taken off


def store(
    tx: Tx,
    env: Env,
    candidate: Candidate,
    status: Status,
    before: SnapshotNid,
    head: Head,
    sent: tuple[DeviceNid, str] | None = None,
    known: StoredEvent | None = None,
) -> StoredEvent:
    """Store a judged event and all that follows from it.

    ``sent`` is the device and the transaction identifier of a client that sent it; ``known`` the
    event as it stands here so far, without place or without effect.
    """
    event, room = candidate.event, candidate.room
    pos = tx.position()
    nid = EventNid(pos) if known is None else known.nid
    if candidate.pruned:
        status |= Status.PRUNED
    if redactions.must_wait(tx, candidate.rules, room, event, status, before):
        status |= Status.HELD
    slot = None if event.state_key is None else names.add_slot(tx, (event.type, event.state_key))
    changes_state = slot is not None and not status & Status.REJECTED
    following = (
        snapshots.derive(tx, before, {slot: nid}) if slot is not None and changes_state else before
    )
    visible = not status & HIDDEN and event.type != DUMMY
    placement = Placement(
        room=room,
        status=status,
        slot=slot,
        snapshot=before,
        after=following if following != before else None,
        auth=tuple(stored.nid for stored in candidate.auth),
        notify=counts.evaluate(tx, room, event) if visible else None,
        in_timeline=visible,
        sent_by=sent and sent[0],
        txn_id=sent and sent[1],
    )
    if known is None:
        stored = events.insert(tx, nid, event, placement)
    else:
        body = event if events.redaction_of(tx, nid) is None else known.event
        stored = events.place(tx, known, body, placement, pos if visible else None)
    if event.type == "m.room.create" and visible:
        rooms.set_create(tx, room, nid)
    if not status & (Status.REJECTED | Status.SOFT_FAILED):
        _move_head(tx, env, candidate, stored, following, head, pos)
    if visible:
        relate(tx, stored)
    redactions.apply(tx, candidate.rules, stored)
    tx.changed(rooms=(room,))
    return stored


def _move_head(
    tx: Tx,
    env: Env,
    candidate: Candidate,
    stored: StoredEvent,
    following: SnapshotNid,
    head: Head,
    pos: int,
) -> None:
    """Make the event a forward extremity and bring the current state up to it."""
    behind = superseded(tx, candidate.prev)
    others = [nid for nid in head.extremities if nid not in behind]
    if others:
        branches = [after(events.by_nid(tx, nid)) for nid in others]
        current = resolved(tx, candidate.room, [*branches, following])
    else:
        current = following
    rooms.set_head(tx, candidate.room, Head((*others, stored.nid), current))
    if current == head.snapshot:
        return
    event = stored.event
    if not others and stored.snapshot == head.snapshot and event.state_key is not None:
        slot = names.slot_nid(tx, (event.type, event.state_key))
        assert slot is not None
        old = rooms.current_event(tx, candidate.room, (event.type, event.state_key))
        change_current_state(tx, env, candidate.room, pos, {slot: (old or 0, stored.nid)})
    else:
        changes = snapshots.difference(tx, head.snapshot, current)
        change_current_state(tx, env, candidate.room, pos, changes)


def change_current_state(
    tx: Tx, env: Env, room: RoomNid, pos: int, changes: Mapping[SlotNid, tuple[int, int]]
) -> None:
    """Apply changes (old event, new event; 0: none) to the current state and to memberships."""
    rooms.change_state(tx, room, pos, ((slot, old, new) for slot, (old, new) in changes.items()))
    for slot, (_, new) in changes.items():
        kind, state_key = names.slot_key(tx, slot)
        if kind == MEMBER:
            _change_member(tx, env, room, pos, UserId(state_key), EventNid(new))


def _change_member(
    tx: Tx, env: Env, room: RoomNid, pos: int, user_id: UserId, nid: EventNid
) -> None:
    user = names.add_user(tx, user_id)
    membership = None
    if nid:
        event = events.by_nid(tx, nid).event
        membership = Membership.of(event.content.get("membership"))
        members.put(tx, room, user, membership, nid, pos)
        if membership in (Membership.INVITE, Membership.KNOCK) and members.is_account(tx, user):
            stripped.remember(tx, room, user, event)
        else:
            members.drop_stripped(tx, room, user)
    else:
        members.remove(tx, room, user)
    if membership is not Membership.JOIN:
        tx.after_commit(env.typing.stop, room, user_id)
    tx.changed(users=(user,))


def relate(tx: Tx, stored: StoredEvent) -> None:
    """Record what an event relates to."""
    relation = relation_of(stored.event)
    if relation is None:
        return
    sender = names.add_user(tx, stored.event.sender)
    events.add_relation(
        tx,
        stored.room,
        EventId(relation.event_id),
        Relation(stored.nid, relation.rel_type, stored.event.type, sender, relation.key),
    )


def restore(tx: Tx, known: StoredEvent, event: Event) -> StoredEvent:
    """Give an accepted event the content that it was stored without (T046).

    Its verdict and the state stay: what the auth rules read of it survives the pruning, but for
    third-party invites, which are rejected without their content and then received anew.
    """
    status = Status(known.status) & ~Status.PRUNED
    if events.redaction_of(tx, known.nid) is not None:
        event = known.event
    stored = events.restore(tx, known, event, status)
    if not status & HIDDEN:
        relate(tx, stored)
        redactions.note_state(tx, stored)
    tx.changed(rooms=(stored.room,))
    return stored
