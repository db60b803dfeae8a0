"""The only way into a room.

An event, ours or another server's, is judged by its surroundings and stored with the verdict, the
state around it and all that follows from it, in one transaction (``commit``).

Our own events are built inside the same transaction function that stores them.  Functions of the
writer run one after the other, so the graph's end cannot move between the choice of parents and
the commit, and no lock is held while the disk syncs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from attrs import evolve, frozen

from matrixbox.core.events import CREATE, Event
from matrixbox.core.identifiers import EventId, RoomId
from matrixbox.core.room_versions import RoomRules
from matrixbox.errors import Forbidden, NotFound
from matrixbox.rooms import build, commit, distribution, partial
from matrixbox.rooms.checks import Finding, Surroundings, judge
from matrixbox.rooms.commit import Candidate
from matrixbox.rooms.env import Env
from matrixbox.rooms.extremities import DUMMY, joiner
from matrixbox.rooms.state import (
    NEVER_RESOLVED,
    CurrentState,
    NeedsResolution,
    SnapshotState,
    after,
    resolved,
)
from matrixbox.store import accounts, events, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from matrixbox.store.nids import DeviceNid, RoomNid, SnapshotNid
from matrixbox.store.rooms import Head
from matrixbox.store.transaction import Tx


@frozen
class Transaction:
    """The transaction identifier under which a device sends something ([C1.03])."""

    device: DeviceNid
    key: bytes  # hash of endpoint, path and identifier
    txn_id: str


def send(
    tx: Tx, env: Env, room: RoomNid, draft: build.Draft, transaction: Transaction | None = None
) -> StoredEvent:
    """Build an event of our own at the end of the room's graph and let it in.

    The same transaction again gives the same event and stores nothing.  Raises Forbidden when the
    room's rules do not allow the event, NotFound without a room, and what ``build`` raises.
    """
    if transaction is not None:
        known = accounts.transaction(tx, transaction.device, transaction.key)
        if known is not None:
            return events.by_nid(tx, known)
    candidate, before, head = _built(tx, env, room, draft)
    stored = commit.store(
        tx,
        env,
        candidate,
        Status.ACCEPTED,
        before,
        head,
        None if transaction is None else (transaction.device, transaction.txn_id),
    )
    if transaction is not None:
        accounts.put_transaction(tx, transaction.device, transaction.key, stored.nid)
    distribution.distribute(tx, env, stored)
    if env.presence is not None and draft.type != DUMMY:
        tx.after_commit(env.presence.active, draft.sender)
    return stored


def propose(tx: Tx, env: Env, room: RoomNid, draft: build.Draft) -> Event:
    """An event of our own that the room would take now; nothing is stored.

    For what another server has to sign before it comes in by :func:`receive`.  Raises as ``send``.
    """
    return _built(tx, env, room, draft)[0].event


def _built(
    tx: Tx, env: Env, room: RoomNid, draft: build.Draft
) -> tuple[Candidate, SnapshotNid, Head]:
    """An event at the end of the room's graph, with the state before it and that end."""
    rules = rooms.rules(tx, room)
    head = rooms.head(tx, room)
    if head is None:
        raise NotFound("This server is not in that room.")
    state = CurrentState(tx, room)
    prev = [events.by_nid(tx, nid) for nid in head.extremities[-build.MAX_PREV_EVENTS :]]
    before = head.snapshot
    if len(prev) < len(head.extremities):
        before = resolved(tx, room, map(after, prev))
    auth = [
        found for key in build.auth_keys(rules, draft) if (found := state.stored(key)) is not None
    ]
    event = build.build(env, rules, names.room_id(tx, room), draft, build.Citations(prev, auth))
    around = Surroundings(
        [stored.event for stored in auth],
        _was_rejected(auth),
        state.get(CREATE),
        state if before == head.snapshot else SnapshotState(tx, before),
        state,
    )
    finding = judge(rules, event, around)
    if finding.status is not Status.ACCEPTED:
        raise Forbidden(finding.reason)
    return Candidate(event, room, rules, prev, auth), before, head


def begin(
    tx: Tx, env: Env, rules: RoomRules, draft: build.Draft, room_id: RoomId | None
) -> RoomNid:
    """Store the create event of a new room of ours; ``room_id`` is None where its hash names it."""
    event = build.build(env, rules, room_id, draft, build.Citations((), ()))
    finding = judge(rules, event, Surroundings((), lambda _: False, None, {}, {}))
    if finding.status is not Status.ACCEPTED:
        raise Forbidden(finding.reason)
    room = rooms.add(tx, event.room_id, rules.version)
    nowhere = Head((), snapshots.EMPTY)
    candidate = Candidate(event, room, rules, (), ())
    commit.store(tx, env, candidate, finding.status, snapshots.EMPTY, nowhere)
    return room


def receive(
    tx: Tx, env: Env, candidate: Candidate, *, refused_by_policy: bool = False
) -> StoredEvent:
    """Let in an event whose format, signatures and hash were checked (steps 1 to 3).

    All that it cites is stored here.  The verdict is in the result's status; an event that is
    known already is given back as it stands, but an outlier gets its place now.
    """
    known = events.by_id(tx, candidate.event.event_id)
    if known is not None:
        if not _is_news(known, candidate):
            return known
        if candidate.pruned and not known.status & Status.PRUNED:
            candidate = evolve(candidate, event=known.event, pruned=False)
        elif not known.status & (Status.OUTLIER | Status.REJECTED):
            return commit.restore(tx, known, candidate.event)
    room = candidate.room
    head = rooms.head(tx, room) or Head((), snapshots.EMPTY)
    before = commit.state_before(tx, candidate)
    finding = _misplaced(tx, candidate) or _judged(tx, candidate, before, head)
    if refused_by_policy and finding.status is Status.ACCEPTED:
        finding = Finding(Status.SOFT_FAILED, "the policy server does not recommend it")
    stored = commit.store(tx, env, candidate, finding.status, before, head, known=known)
    partial.assume_members(tx, env, stored, candidate.auth)
    with suppress(NeedsResolution):  # the receiver joins them in a transaction of its own
        join_extremities(tx, env, room)
    return stored


def _is_news(known: StoredEvent, candidate: Candidate) -> bool:
    """Whether there is more to an event than what is stored of it: a place, or its content."""
    if known.room != candidate.room:
        return False
    restores = known.status & Status.PRUNED and not candidate.pruned
    return bool(known.status & Status.OUTLIER or restores)


def _judged(tx: Tx, candidate: Candidate, before: SnapshotNid, head: Head) -> Finding:
    state = CurrentState(tx, candidate.room)
    cited = [stored.event for stored in candidate.auth]
    current = partial.as_known(tx, candidate.room, cited, state)
    around = Surroundings(
        cited,
        _was_rejected(candidate.auth),
        state.get(CREATE),
        current
        if before == head.snapshot
        else partial.as_known(tx, candidate.room, cited, SnapshotState(tx, before)),
        current,
    )
    return judge(candidate.rules, candidate.event, around)


def _misplaced(tx: Tx, candidate: Candidate) -> Finding | None:
    """A verdict on events that no auth rule refuses, although they cannot be of this room."""
    if any(parent.room != candidate.room for parent in candidate.prev):
        return Finding(_NEVER, "a parent in another room")
    event = candidate.event
    if event.type == "m.room.create":
        if event.state_key != "":
            return Finding(_NEVER, "a create event that is no state of the room")
        create = rooms.create_nid(tx, candidate.room)
        if create is not None and create != events.nid_of(tx, event.event_id):
            return Finding(_NEVER, "the room has a create event")  # the first one stays (T022)
    return None


_NEVER = Status.REJECTED | Status.REJECTED_BY_AUTH


def join_extremities(tx: Tx, env: Env, room: RoomNid) -> None:
    """Keep the number of extremities below what an event of ours can cite (T014).

    Raises NeedsResolution before anything is written.
    """
    head = rooms.head(tx, room)
    if head is not None and len(head.extremities) > build.MAX_PREV_EVENTS:
        sender = joiner(tx, room)
        if sender is not None:
            send(tx, env, room, build.Draft(DUMMY, sender, {}))


def _was_rejected(auth: Sequence[StoredEvent]) -> Callable[[EventId], bool]:
    rejected = {
        stored.event.event_id
        for stored in auth
        if stored.status & (Status.REJECTED | NEVER_RESOLVED)
    }

    def is_rejected(event_id: EventId) -> bool:
        return event_id in rejected

    return is_rejected
