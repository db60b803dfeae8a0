"""What follows from an event with its verdict, in one transaction.

The event's row, the state after it, the room's extremities and current state, memberships, the
effect of redactions, relations, and whom it notifies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from attrs import frozen

from matrixbox.core.events import Event
from matrixbox.core.identifiers import EventId, UserId, server_of
from matrixbox.core.relations import relation_of
from matrixbox.core.room_versions import RoomRules
from matrixbox.rooms import counts, outliers, redactions, stripped
from matrixbox.rooms.distribution import tell_the_parted, tell_who_is_out
from matrixbox.rooms.env import Env
from matrixbox.rooms.extremities import DUMMY, superseded
from matrixbox.rooms.state import Branches, NeedsResolution, after, resolved
from matrixbox.store import events, hearsay, members, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import HIDDEN, Placement, Relation, Status
from matrixbox.store.hearsay import Told
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import DeviceNid, EventNid, RoomNid, SlotNid, SnapshotNid
from matrixbox.store.rooms import Head
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"
NO_EFFECT = Status.REJECTED | Status.DISPUTED
"""What keeps an event out of the state after it."""

DISPUTED = Status.SOFT_FAILED | Status.DISPUTED
"""Not allowed by a state that descends from another server's word, which is no verdict for ever."""

MAX_PAGES = 20  # of history that are fetched to fill a gap at which a state was told
FIRST_PAUSE_MS = 5_000  # before that is tried


@frozen
class Candidate:
    """An event with its room and what it cites, all of it stored.

    Where parents are missing, either the state before the event was told by another server, or
    it follows from the parents that are here.
    """

    event: Event
    room: RoomNid
    rules: RoomRules
    prev: Sequence[StoredEvent]
    auth: Sequence[StoredEvent]
    pruned: bool = False  # its content did not match its hash and was taken off
    missing: Sequence[EventId] = ()  # the parents that are not here
    told: SnapshotNid | None = None  # the state before it, as another server says
    is_past: bool = False  # it is fetched because others cite it
    is_hearsay: bool = False  # what was told has yet to be compared with what happened


def is_hearsay(candidate: Candidate) -> bool:
    """Whether the state before an event descends from what another server told of it."""
    if candidate.is_hearsay:
        return True
    return any(parent.status & Status.HEARSAY for parent in candidate.prev)


def is_doubtful(tx: Tx, head: Head) -> bool:
    """Whether the current state descends from what another server told of it."""
    return any(events.by_nid(tx, nid).status & Status.HEARSAY for nid in head.extremities)


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
    citing = _citing(tx, candidate)
    if is_hearsay(candidate):
        status |= Status.HEARSAY
    if head.extremities and (citing or _is_past(candidate, known)):
        status |= Status.PAST
    if candidate.pruned:
        status |= Status.PRUNED
    if redactions.must_wait(tx, candidate.rules, room, event, status, before):
        status |= Status.HELD
    slot = None if event.state_key is None else names.add_slot(tx, (event.type, event.state_key))
    changes_state = slot is not None and not status & NO_EFFECT
    following = _following(tx, before, slot, nid) if slot and changes_state else before
    visible = not status & HIDDEN and event.type != DUMMY
    placement = Placement(
        room=room,
        status=status,
        slot=slot,
        snapshot=before,
        after=following if following != before else None,
        auth=tuple(stored.nid for stored in candidate.auth),
        notify=counts.evaluate(tx, room, event, before, head.snapshot) if visible else None,
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
    if candidate.is_hearsay and candidate.told is not None:
        told = Told(nid, room, candidate.told, MAX_PAGES)
        hearsay.put(tx, told, env.clock.now_ms() + FIRST_PAUSE_MS)
    _fill_gap(tx, candidate, nid)
    if not status & (Status.REJECTED | Status.SOFT_FAILED):
        end = _End(head, following, pos)
        if not status & Status.PAST:
            _move_head(tx, env, candidate, stored, end)
        elif citing:
            _close_gap(tx, env, candidate, end)
    elif not status & (Status.REJECTED | Status.PAST):
        # It was let in elsewhere, and comes too late here.
        told_at = max(pos, tx.changed())
        if event.type == MEMBER and not status & NO_EFFECT:
            tell_the_parted(tx, env, room, following, head.snapshot, told_at)
        tell_who_is_out(tx, env, stored, told_at)
    if visible:
        relate(tx, stored)
    redactions.apply(tx, candidate.rules, stored)
    tx.changed(rooms=(room,))
    return stored


@frozen
class _End:
    """The room's end before an event, and what the event brings there."""

    head: Head
    following: SnapshotNid  # the state after the event
    pos: int  # of the change


def _move_head(tx: Tx, env: Env, candidate: Candidate, stored: StoredEvent, end: _End) -> None:
    """Make the event a forward extremity and bring the current state up to it."""
    head = end.head
    others = _others(tx, candidate, head)
    current = _resolved_end(tx, env, candidate, stored, others, end.following)
    rooms.set_head(tx, candidate.room, Head((*others, stored.nid), current))
    event = stored.event
    if others:
        _doubt_that_it_is_new(tx, env, candidate)
    if others and current != end.following and _is_new_branch(candidate, head):
        pos = max(end.pos, tx.changed())
        tell_the_parted(tx, env, candidate.room, end.following, current, pos)
    if current == head.snapshot:
        return
    if not others and stored.snapshot == head.snapshot and event.state_key is not None:
        slot = names.slot_nid(tx, (event.type, event.state_key))
        assert slot is not None
        old = rooms.current_event(tx, candidate.room, (event.type, event.state_key))
        changes: Mapping[SlotNid, tuple[int, int]] = {slot: (old or 0, stored.nid)}
    else:
        changes = snapshots.difference(tx, head.snapshot, current)
    change_current_state(tx, env, candidate.room, end.pos, changes)


def _doubt_that_it_is_new(tx: Tx, env: Env, candidate: Candidate) -> None:
    """Have the history looked at before a join of ours that an event may belong to.

    All that the event comes after is from an earlier time of ours in the room, and it is less deep
    than the join by which we came back.  It is a branch of its own, or what others did while we
    were away and the server that let us in has seen: then it is no end of the room, and its state
    would put those out who have come since (T020).
    """
    event, room = candidate.event, candidate.room
    if not candidate.prev:
        return
    newest = max(parent.nid for parent in candidate.prev)
    for nid in {nid for nid, _ in rooms.gaps(tx, room) if nid > newest}:
        join = events.by_nid(tx, nid)
        if (
            join.event.type == MEMBER
            and server_of(join.event.sender) == env.server_name
            and not join.status & Status.HEARSAY
            and event.depth < join.event.depth
            and hearsay.get(tx, nid) is None
        ):
            told = Told(nid, room, SnapshotNid(join.snapshot or 0), MAX_PAGES)
            hearsay.put(tx, told, env.clock.now_ms() + FIRST_PAUSE_MS)


def _is_new_branch(candidate: Candidate, head: Head) -> bool:
    """Whether an event shows a state that no end of the room has shown before."""
    parents = {parent.nid for parent in candidate.prev}
    return candidate.event.type == MEMBER or not parents <= {*head.extremities}


def _close_gap(tx: Tx, env: Env, candidate: Candidate, end: _End) -> None:
    """The event leads from what was an extremity to what cites it: that is one no more."""
    head = end.head
    others = _others(tx, candidate, head)
    if others and len(others) < len(head.extremities):
        branches = [after(events.by_nid(tx, nid)) for nid in others]
        current = resolved(tx, candidate.room, branches)
        rooms.set_head(tx, candidate.room, Head(tuple(others), current))
        changes = snapshots.difference(tx, head.snapshot, current)
        change_current_state(tx, env, candidate.room, end.pos, changes)


def _is_past(candidate: Candidate, known: StoredEvent | None) -> bool:
    """Whether an event is known to be cited by others, which are nearer to the room's end.

    That is what outliers are here for: they belong to the state or the auth chain of something.
    """
    if known is not None and known.status & Status.OUTLIER:
        return not known.status & Status.FRESH
    return candidate.is_past


def _others(tx: Tx, candidate: Candidate, head: Head) -> list[EventNid]:
    """The extremities that stay when the event becomes one."""
    behind = superseded(tx, candidate.prev)
    return [nid for nid in head.extremities if nid not in behind]


def _resolved_end(
    tx: Tx,
    env: Env,
    candidate: Candidate,
    stored: StoredEvent,
    others: Sequence[EventNid],
    following: SnapshotNid,
) -> SnapshotNid:
    """The resolution over the room's new end."""
    branches = [following, *(after(events.by_nid(tx, nid)) for nid in others)]
    if server_of(stored.event.sender) == env.server_name:
        # Our own event is built anew each time: nobody could work on its state beforehand.
        return resolved(tx, candidate.room, branches, at_any_cost=True)
    try:
        return resolved(tx, candidate.room, branches)
    except NeedsResolution as needed:
        before = SnapshotNid(stored.snapshot or 0)
        if tx.caches.following.get((before, stored.nid)) == following or following == before:
            raise
        first = partial(_prepare, env=env, candidate=candidate)
        raise NeedsResolution(needed.room, needed.branches, first) from needed


def _prepare(tx: Tx, *, env: Env, candidate: Candidate) -> Branches:
    """Make an event and the state after it durable, so that the end can be worked out with it."""
    event, room = candidate.event, candidate.room
    pruned = {event.event_id} if candidate.pruned else ()
    rules = candidate.rules
    found = outliers.admit(tx, env, room, rules, [event], pruned, status=Status.FRESH)
    stored = found[event.event_id]
    assert event.state_key is not None, "an event that is no state adds no branch"
    slot = names.add_slot(tx, (event.type, event.state_key))
    before = state_before(tx, candidate)
    following = snapshots.derive(tx, before, {slot: stored.nid})
    tx.after_commit(tx.caches.following.put, (before, stored.nid), following)
    head = rooms.head(tx, room) or Head((), snapshots.EMPTY)
    others = (after(events.by_nid(tx, nid)) for nid in _others(tx, candidate, head))
    return tuple(sorted({following, *others}))


def state_before(tx: Tx, candidate: Candidate) -> SnapshotNid:
    """The state before an event, told by others or after its parents.  Raises NeedsResolution.

    What is told is resolved with what the event's known parents say: nobody takes a room over by
    telling a state (T020).
    """
    branches = [after(parent) for parent in candidate.prev if parent.room == candidate.room]
    if candidate.told is not None:
        branches.append(candidate.told)
    return resolved(tx, candidate.room, branches) if branches else snapshots.EMPTY


def _following(tx: Tx, before: SnapshotNid, slot: SlotNid, nid: EventNid) -> SnapshotNid:
    """The state after a state event."""
    known = tx.caches.following.get((before, nid))
    return snapshots.derive(tx, before, {slot: nid}) if known is None else known


def _fill_gap(tx: Tx, candidate: Candidate, nid: EventNid) -> None:
    """Note that an event is here, and which of its parents are missing."""
    for missing in candidate.missing:
        rooms.add_gap(tx, candidate.room, missing, nid)
    fill_gap(tx, candidate.room, candidate.event.event_id)


def fill_gap(tx: Tx, room: RoomNid, event_id: EventId) -> None:
    """An event is here that others may cite: what was told of those can be worked out now."""
    if rooms.citing(tx, room, event_id) and hearsay.is_any(tx, room):
        hearsay.ask_revision(tx, room)
    rooms.fill_gap(tx, room, event_id)


def _citing(tx: Tx, candidate: Candidate) -> bool:
    """Whether events that are here, and did not fail, cite the event as their parent."""
    citing = rooms.citing(tx, candidate.room, candidate.event.event_id)
    failed = Status.REJECTED | Status.SOFT_FAILED
    return any(not events.by_nid(tx, one).status & failed for one in citing)


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
    elif members.is_account(tx, user) and members.get(tx, room, user) is not None:
        # State resolution left no event: the user is out, and their clients have to be told.
        members.put(tx, room, user, Membership.LEAVE, EventNid(0), pos)
        members.drop_stripped(tx, room, user)
    elif members.is_account(tx, user):
        # Resolution left no membership; to our users that is a leave like others.
        members.put(tx, room, user, Membership.LEAVE, EventNid(0), pos)
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
