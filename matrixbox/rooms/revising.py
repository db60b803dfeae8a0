"""States that were told, worked out anew when the events are here that they come from.

Matrix v1.19, Server-Server API, "Checks performed on receipt of a PDU", "Rejection", "Soft failure"
([B6.05], [B6.06], [B6.11], [B6.12]; T011, T012, T020, T027).  At a gap the state before an event is
another server's word, and so are the states of all that comes after it: these events bear a mark.
What such a state does not allow is *disputed*: hidden and without effect, but not rejected.  When
parents come that were missing, the marked events are gone through, parents first: where the state
before one comes out differently, it is judged again, and so is what builds on it.  At last the
room's end and its current state follow, and what was hidden wrongly comes out.

Some events are worked on in each transaction.  A revision that was broken off is begun again after
a restart; what it has done already comes out the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import trio
from attrs import define, frozen

from matrixbox.core.events import CREATE, Event
from matrixbox.core.identifiers import EventId
from matrixbox.observe import log
from matrixbox.rooms import checks, commit, redactions, resolution
from matrixbox.rooms.checks import Finding, Surroundings
from matrixbox.rooms.commit import Candidate
from matrixbox.rooms.env import Env
from matrixbox.rooms.partial import as_known
from matrixbox.rooms.policy import allows_now
from matrixbox.rooms.resolution import RoomTooCostly
from matrixbox.rooms.state import CurrentState, SnapshotState, after, resolved
from matrixbox.store import events, hearsay, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.changes import StreamPos
from matrixbox.store.database import Store
from matrixbox.store.errors import StoreError
from matrixbox.store.events import Status
from matrixbox.store.nids import EventNid, RoomNid, SnapshotNid
from matrixbox.store.rooms import Head
from matrixbox.store.transaction import Tx

BATCH = 20  # events in one transaction
MAX_REVISED = 50_000  # marked events of a room; with more, what was told stays
MAX_WALK = 500  # events looked at to see whether one end of a room comes after another
AGAIN_S = 60.0  # after a failure
_FAILED = Status.REJECTED | Status.SOFT_FAILED
_OPEN = Status.REJECTED | Status.REJECTED_BY_AUTH | commit.DISPUTED | Status.HEARSAY


@frozen
class _Plan:
    """The marked events of a room, parents first, and what they cite as parents."""

    order: tuple[EventNid, ...]
    cited: frozenset[EventId]


@define(eq=False)
class Revisions:
    """Works out anew what was told, whenever a gap was filled."""

    store: Store
    env: Env

    async def run(self) -> None:
        """For as long as the server runs."""
        while True:
            position = self.store.doorbell.position
            failed = False
            for room, begun in self.store.read(hearsay.revisions):
                failed |= not await self._revise_alone(room, begun=begun)
            with trio.move_on_after(AGAIN_S if failed else float("inf")):
                await self.store.doorbell.beyond(StreamPos(position), hearsay.REVISION)

    async def _revise_alone(self, room: RoomNid, *, begun: bool) -> bool:
        """One room fails alone (T009); whether it did not."""
        try:
            await self.revise(room, begun=begun)
        except StoreError:
            raise
        except RoomTooCostly as error:
            log.warning("states not worked out anew", room=room, why=error.text)
            await self.store.write(hearsay.end_revision, room)
        except Exception as error:  # noqa: BLE001 one room fails alone; it is tried again
            log.bug("states not worked out anew", error, room=room)
            return False
        return True

    async def revise(self, room: RoomNid, *, begun: bool = False) -> None:
        """Work out anew the states of a room.  ``begun``: an earlier run did not come to its end.

        Raises RoomTooCostly.
        """
        changed: set[EventNid] = set()
        cited: set[EventId] = set()
        order: list[EventNid] = []
        is_done = False
        while not is_done:
            plan = await self.store.read_long(_plan, room, frozenset(order))
            if len(order) + len(plan.order) > MAX_REVISED:
                raise RoomTooCostly(room)
            order += plan.order
            cited |= plan.cited
            for part in _batches(plan.order):
                revise = partial(_revise, changed=frozenset(changed), everything=begun)
                changed |= await resolution.write(self.store, revise, room, part)
            mend = partial(_mend_end, planned=frozenset(order))
            is_done = await resolution.write(self.store, mend, self.env, room)
        release = partial(_release, cited=frozenset(cited))
        while not await resolution.write(self.store, release, self.env, room):
            pass


def _batches(order: Sequence[EventNid]) -> Iterator[Sequence[EventNid]]:
    for start in range(0, len(order), BATCH):
        yield order[start : start + BATCH]


def _plan(tx: Tx, room: RoomNid, known: frozenset[EventNid]) -> _Plan:
    marked = [nid for nid in hearsay.descending(tx, room) if nid not in known]
    if len(marked) > MAX_REVISED:
        return _Plan(tuple(marked), frozenset())
    found = {(event := events.by_nid(tx, nid).event).event_id: (nid, event) for nid in marked}
    cited = {parent for _, event in found.values() for parent in event.prev_event_ids}
    return _Plan(tuple(_in_order(found)), frozenset(cited))


def _in_order(found: dict[EventId, tuple[EventNid, Event]]) -> list[EventNid]:
    """Parents before children; what is in a cycle is left out (T007)."""
    waiting = {
        name: {parent for parent in event.prev_event_ids if parent in found}
        for name, (_, event) in found.items()
    }
    children: dict[EventId, list[EventId]] = {}
    for name, parents in waiting.items():
        for parent in parents:
            children.setdefault(parent, []).append(name)
    order = [name for name, parents in waiting.items() if not parents]
    for name in order:  # grows
        for child in children.get(name, ()):
            waiting[child].discard(name)
            if not waiting[child]:
                order.append(child)
    return [found[name][0] for name in order]


# --- some events


def _revise(
    tx: Tx,
    room: RoomNid,
    part: Sequence[EventNid],
    *,
    changed: frozenset[EventNid],
    everything: bool,
) -> set[EventNid]:
    """Work out some events anew, each after its parents; those for which it makes a difference."""
    different: set[EventNid] = set()
    for nid in part:
        stored = events.by_nid(tx, nid)
        if not stored.status & Status.HEARSAY or stored.snapshot is None:
            continue
        told = hearsay.get(tx, nid)
        parents = _parents(tx, stored)
        is_touched = any(one.nid in changed or one.nid in different for one in parents)
        if (everything or told is not None or is_touched) and _is_new(tx, stored, told, parents):
            different.add(nid)
    if different:
        hearsay.begin_revision(tx, room)
    return different


def _parents(tx: Tx, stored: StoredEvent) -> list[StoredEvent]:
    """Those parents of an event that are here with the state around them."""
    found = (events.by_id(tx, event_id) for event_id in stored.event.prev_event_ids)
    return [
        one
        for one in found
        if one is not None and one.snapshot is not None and one.room == stored.room
    ]


def _is_new(
    tx: Tx, stored: StoredEvent, told: hearsay.Told | None, parents: Sequence[StoredEvent]
) -> bool:
    """Whether an event has another state before it, or another verdict, than it had so far."""
    event = stored.event
    is_closed = len(parents) == len(event.prev_event_ids)
    branches = [after(one) for one in parents]
    if not is_closed:
        if told is None:
            return False
        branches.append(told.state)
    elif told is not None:
        hearsay.drop(tx, stored.nid)
    before = resolved(tx, stored.room, branches)
    if not snapshots.difference(tx, SnapshotNid(stored.snapshot or 0), before):
        before = SnapshotNid(stored.snapshot or 0)
    marked = not is_closed or any(one.status & Status.HEARSAY for one in parents)
    status = _status(tx, stored, before, marked=marked)
    following = before
    if event.state_key is not None and not status & commit.NO_EFFECT:
        slot = names.add_slot(tx, (event.type, event.state_key))
        following = snapshots.derive(tx, before, {slot: stored.nid})
        if stored.after and not snapshots.difference(tx, SnapshotNid(stored.after), following):
            following = SnapshotNid(stored.after)
    if (before, following, int(status)) == (stored.snapshot, after(stored), stored.status):
        return False
    events.revise(tx, stored.nid, before, None if following == before else following, status)
    if status & Status.SOFT_FAILED and not status & commit.NO_EFFECT:
        hearsay.doubt(tx, stored.room, stored.nid)
    return True


def _status(tx: Tx, stored: StoredEvent, before: SnapshotNid, *, marked: bool) -> Status:
    """The verdict on an event by the state before it.

    What is allowed now and was not stays soft-failed until the current state is known.
    """
    was = Status(stored.status)
    mark = Status.HEARSAY if marked else Status.ACCEPTED
    if was & Status.REJECTED_BY_AUTH:
        return was & ~Status.HEARSAY | mark
    status = was & ~_OPEN | mark
    finding = _judged(tx, stored, before)
    if finding.status is Status.REJECTED and marked:
        return status | commit.DISPUTED
    if finding.status:
        return status | finding.status
    return status | (Status.SOFT_FAILED if was & _FAILED else Status.ACCEPTED)


def _judged(tx: Tx, stored: StoredEvent, before: SnapshotNid) -> Finding:
    """Steps 4 and 5: what an event cites may have another verdict now, too."""
    auth = _auth(tx, stored)
    cited = [one.event for one in auth]
    rejected = {one.event.event_id for one in auth if one.status & Status.REJECTED}
    state = as_known(tx, stored.room, cited, SnapshotState(tx, before))
    around = Surroundings(cited, rejected.__contains__, state.get(CREATE), state, state)
    return checks.judge(stored.event.rules, stored.event, around)


def _auth(tx: Tx, stored: StoredEvent) -> list[StoredEvent]:
    found = (events.by_id(tx, event_id) for event_id in stored.event.auth_event_ids)
    return [one for one in found if one is not None]


# --- the room's end


def _mend_end(tx: Tx, env: Env, room: RoomNid, *, planned: frozenset[EventNid]) -> bool:
    """Take ends away that failed, or that others come after; work out the current state.

    False if marked events came meanwhile that were not gone through yet.
    """
    if not planned.issuperset(hearsay.descending(tx, room)):
        return False
    head = rooms.head(tx, room)
    if head is None:
        return True
    ends = _ends(tx, head)
    current = resolved(tx, room, (after(one) for one in ends))
    extremities = tuple(one.nid for one in ends)
    if (extremities, current) == (head.extremities, head.snapshot):
        return True
    rooms.set_head(tx, room, Head(extremities, current))
    changes = snapshots.difference(tx, head.snapshot, current)
    if changes:
        commit.change_current_state(tx, env, room, tx.position(), changes)
    tx.changed(rooms=(room,))
    return True


def _ends(tx: Tx, head: Head) -> list[StoredEvent]:
    """The ends of the room's graph, in place of those that failed what they came after."""
    found: dict[EventNid, StoredEvent] = {}
    ahead = [events.by_nid(tx, nid) for nid in head.extremities]
    for one in ahead:  # grows
        if one.nid in found or len(found) > MAX_WALK:
            continue
        found[one.nid] = one
        if one.status & _FAILED:
            ahead += _parents(tx, one)
    ends = [one for one in found.values() if not one.status & _FAILED]
    if len(ends) > 1:
        behind = _behind(tx, ends, min(one.event.depth for one in ends))
        ends = [one for one in ends if one.nid not in behind]
    return ends or [events.by_nid(tx, nid) for nid in head.extremities]


def _behind(tx: Tx, ends: Sequence[StoredEvent], least: int) -> set[EventNid]:
    """What comes before some events, near to them and of some depth at least."""
    found: set[EventNid] = set()
    ahead = [parent for one in ends for parent in _parents(tx, one)]
    for one in ahead:  # grows
        if one.nid not in found and len(found) < MAX_WALK and one.event.depth >= least:
            found.add(one.nid)
            ahead += _parents(tx, one)
    return found


def _release(tx: Tx, env: Env, room: RoomNid, *, cited: frozenset[EventId]) -> bool:
    """Let events out that are hidden, if only the current state spoke against them and does not.

    Whether that was all, and the room is done.
    """
    part = hearsay.take_doubts(tx, room, BATCH)
    for nid in part:
        stored = events.by_nid(tx, nid)
        status = Status(stored.status)
        is_soft = status & Status.SOFT_FAILED and not status & commit.NO_EFFECT
        if not is_soft or stored.snapshot is None or not _is_allowed_now(tx, stored):
            continue
        if stored.sub:
            _release_history(tx, stored)
        else:
            _release_one(tx, env, stored, is_past=stored.event.event_id in cited)
    if not part:
        hearsay.end_revision(tx, room)
    return not part


def _is_allowed_now(tx: Tx, stored: StoredEvent) -> bool:
    """Steps 6 and 7."""
    cited = [one.event for one in _auth(tx, stored)]
    state = as_known(tx, stored.room, cited, CurrentState(tx, stored.room))
    return allows_now(tx, stored.room, stored.event, state)


def _release_history(tx: Tx, stored: StoredEvent) -> None:
    """Its place in the timeline is not known any more; all else is as it would have been."""
    status = Status(stored.status) & ~Status.SOFT_FAILED
    following = None if stored.after is None else SnapshotNid(stored.after)
    found = events.revise(tx, stored.nid, SnapshotNid(stored.snapshot or 0), following, status)
    commit.relate(tx, found)
    redactions.apply(tx, found.event.rules, found)


def _release_one(tx: Tx, env: Env, stored: StoredEvent, *, is_past: bool) -> None:
    head = rooms.head(tx, stored.room)
    assert head is not None
    ends = [events.by_nid(tx, nid) for nid in head.extremities]
    candidate = Candidate(
        stored.event,
        stored.room,
        stored.event.rules,
        _parents(tx, stored),
        _auth(tx, stored),
        pruned=bool(stored.status & Status.PRUNED),
        is_past=is_past or stored.nid in _behind(tx, ends, stored.event.depth),
        is_hearsay=bool(stored.status & Status.HEARSAY),
    )
    before = SnapshotNid(stored.snapshot or 0)
    commit.store(tx, env, candidate, Status.ACCEPTED, before, head, known=stored)
