"""The only way into a room.

An event, ours or another server's, is judged by its surroundings and stored with the verdict, the
state around it and all that follows from it, in one transaction (``commit``).

Our own events are built inside the same transaction function that stores them.  Functions of the
writer run one after the other, so the graph's end cannot move between the choice of parents and
the commit, and no lock is held while the disk syncs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from matrixbox.core.events import CREATE
from matrixbox.core.identifiers import EventId, RoomId
from matrixbox.core.room_versions import RoomRules
from matrixbox.errors import Forbidden, NotFound
from matrixbox.rooms import build, commit
from matrixbox.rooms.checks import Surroundings, judge
from matrixbox.rooms.commit import Candidate
from matrixbox.rooms.env import Env
from matrixbox.rooms.state import (
    NEVER_RESOLVED,
    CurrentState,
    SnapshotState,
    after,
    resolved,
)
from matrixbox.store import accounts, events, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from matrixbox.store.nids import DeviceNid, RoomNid
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
    rules = rooms.rules(tx, room)
    head = rooms.head(tx, room)
    if head is None:
        raise NotFound("This server is not in that room.")
    state = CurrentState(tx, room)
    prev = [events.by_nid(tx, nid) for nid in head.extremities[-build.MAX_PREV_EVENTS :]]
    auth = [
        found for key in build.auth_keys(rules, draft) if (found := state.stored(key)) is not None
    ]
    event = build.build(env, rules, names.room_id(tx, room), draft, build.Citations(prev, auth))
    around = Surroundings(
        [stored.event for stored in auth], _was_rejected(auth), state.get(CREATE), state, state
    )
    finding = judge(rules, event, around)
    if finding.status is not Status.ACCEPTED:
        raise Forbidden(finding.reason)
    stored = commit.store(
        tx,
        env,
        Candidate(event, room, rules, prev, auth),
        finding.status,
        head.snapshot,
        head,
        None if transaction is None else (transaction.device, transaction.txn_id),
    )
    if transaction is not None:
        accounts.put_transaction(tx, transaction.device, transaction.key, stored.nid)
    return stored


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


def receive(tx: Tx, env: Env, candidate: Candidate) -> StoredEvent:
    """Let in an event whose format, signatures and hash were checked (steps 1 to 3).

    All that it cites is stored here.  The verdict is in the result's status; an event that is
    known already is given back as it stands.
    """
    known = events.by_id(tx, candidate.event.event_id)
    if known is not None and not known.status & Status.OUTLIER:
        return known
    room = candidate.room
    head = rooms.head(tx, room) or Head((), snapshots.EMPTY)
    before = (
        resolved(tx, room, [after(parent) for parent in candidate.prev])
        if candidate.prev
        else snapshots.EMPTY
    )
    current = CurrentState(tx, room)
    create = current.get(CREATE)
    around = Surroundings(
        [stored.event for stored in candidate.auth],
        _was_rejected(candidate.auth),
        create,
        current if before == head.snapshot else SnapshotState(tx, before),
        current,
    )
    finding = judge(candidate.rules, candidate.event, around)
    return commit.store(tx, env, candidate, finding.status, before, head)


def _was_rejected(auth: Sequence[StoredEvent]) -> Callable[[EventId], bool]:
    rejected = {
        stored.event.event_id
        for stored in auth
        if stored.status & (Status.REJECTED | NEVER_RESOLVED)
    }

    def is_rejected(event_id: EventId) -> bool:
        return event_id in rejected

    return is_rejected
