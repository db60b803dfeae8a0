"""The only way into a room.

An event, ours or another server's, is judged by its surroundings and stored with the verdict, the
state around it and all that follows from it, in one transaction (``commit``).

Our own events are built inside the same transaction function that stores them.  Functions of the
writer run one after the other, so the graph's end cannot move between the choice of parents and
the commit, and no lock is held while the disk syncs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import sha256

from attrs import evolve, frozen

from matrixbox.core.events import CREATE, Event
from matrixbox.core.identifiers import EventId, RoomId
from matrixbox.core.json import encode
from matrixbox.core.room_versions import RoomRules
from matrixbox.errors import Forbidden, NotFound
from matrixbox.rooms import build, commit, distribution, partial
from matrixbox.rooms.checks import Finding, Surroundings, judge
from matrixbox.rooms.commit import Candidate
from matrixbox.rooms.env import Env
from matrixbox.rooms.extremities import DUMMY, joiner
from matrixbox.rooms.policy import NeedsSignature, policy_of
from matrixbox.rooms.state import (
    NEVER_RESOLVED,
    CurrentState,
    NeedsResolution,
    SnapshotState,
    after,
    resolved,
)
from matrixbox.store import accounts, events, hearsay, names, rooms, snapshots
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
    key = (room, draft_key(draft))
    event = env.policies.signed(key)
    if event is None:
        prev = [events.by_nid(tx, nid) for nid in head.extremities[-build.MAX_PREV_EVENTS :]]
        cited = (state.stored(slot) for slot in build.auth_keys(rules, draft))
        auth = [found for found in cited if found is not None]
        room_id = names.room_id(tx, room)
        event = build.build(env, rules, room_id, draft, build.Citations(prev, auth))
    else:  # made a moment ago, and signed by the policy server since
        prev = _all_of(tx, event.prev_event_ids)
        auth = _all_of(tx, event.auth_event_ids)
    before = head.snapshot
    if {one.nid for one in prev} != {*head.extremities}:
        before = resolved(tx, room, map(after, prev))
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
    policy = policy_of(tx, room)
    if policy is not None and not policy.approves(event):
        raise NeedsSignature(env.policies, key, policy, event)
    tx.after_commit(env.policies.done, key)
    return Candidate(event, room, rules, prev, auth), before, head


def draft_key(draft: build.Draft) -> bytes:
    """What tells drafts apart."""
    fields = [draft.type, draft.sender, draft.state_key, draft.redacts, draft.ts]
    return sha256(encode([*fields, dict(draft.content)])).digest()


def _all_of(tx: Tx, names: Iterable[EventId]) -> list[StoredEvent]:
    found = [events.by_id(tx, name) for name in names]
    return [one for one in found if one is not None]


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

    Where the state before an event is another server's word, or descends from one, that it does
    not allow the event is no reason to count it as rejected, which would reject for ever all that
    cite it: a lie could take a room's own power levels from us so (T020, T027).  It is disputed
    then: hidden and without effect, and judged again when the gap is filled (``revising``).
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
    if finding.status is Status.REJECTED and commit.is_hearsay(candidate):
        finding = Finding(commit.DISPUTED, finding.reason)
    if refused_by_policy and finding.status is Status.ACCEPTED:
        finding = Finding(Status.SOFT_FAILED, "the policy server does not recommend it")
    stored = commit.store(tx, env, candidate, finding.status, before, head, known=known)
    if finding.status is Status.SOFT_FAILED and commit.is_doubtful(tx, head):
        hearsay.doubt(tx, room, stored.nid)
    partial.assume_members(tx, env, stored, candidate.auth)
    with suppress(
        NeedsResolution, NeedsSignature
    ):  # the receiver joins them in a transaction of its own
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
