"""Rooms whose members are not all known yet: joined at once, completed in the background.

Matrix v1.19, Server-Server API, `send_join` with `omit_members` ([B8.05]).  Until all members are
known, an event is judged by the memberships that it cites, where the state has none; they were
judged themselves when they were stored.  When the state is whole, everything that came since the
join is judged again upon it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import define, field

from matrixbox.core.events import CREATE, Event, StateKey, StateMap
from matrixbox.rooms import arrival, checks
from matrixbox.rooms.arrival import MEMBER, State
from matrixbox.rooms.checks import Surroundings
from matrixbox.rooms.env import Env
from matrixbox.rooms.state import SnapshotState, resolved
from matrixbox.store import events, joins, names, rooms, servers, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import HIDDEN, Status
from matrixbox.store.joins import PartialRoom
from matrixbox.store.nids import EventNid, RoomNid, SnapshotNid
from matrixbox.store.rooms import Head
from matrixbox.store.transaction import Tx


class WithMembers(Mapping[StateKey, Event]):
    """A state, with the memberships that an event cites where the state has none."""

    __slots__ = ("_cited", "_state")

    def __init__(self, state: StateMap, cited: Sequence[Event]) -> None:
        self._state = state
        self._cited = {
            (event.type, event.state_key or ""): event for event in cited if event.type == MEMBER
        }

    def __getitem__(self, key: StateKey) -> Event:
        found = self._state.get(key)
        return self._cited[key] if found is None else found

    def __iter__(self) -> Iterator[StateKey]:
        yield from self._state
        yield from (key for key in self._cited if key not in self._state)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def as_known(tx: Tx, room: RoomNid, cited: Sequence[Event], state: StateMap) -> StateMap:
    """What an event of a room is judged by: the state, or what is known of it so far."""
    return state if joins.partial(tx, room) is None else WithMembers(state, cited)


def is_partial(tx: Tx, room: RoomNid) -> bool:
    """Whether members of a room are missing."""
    return joins.partial(tx, room) is not None


def assume_members(tx: Tx, env: Env, stored: StoredEvent, cited: Sequence[StoredEvent]) -> None:
    """Take the memberships that an accepted event cites for those of the room, where it has none.

    So clients learn who writes to them, and what these users send besides is believed.
    """
    room = stored.room
    if stored.status & HIDDEN or joins.partial(tx, room) is None:
        return
    entries = []
    for one in cited:
        if one.event.type == MEMBER and not one.status & Status.REJECTED:
            slot = names.add_slot(tx, (MEMBER, one.event.state_key or ""))
            entries.append((slot, one.nid))
    arrival.prepare(tx, env, room, entries)


def complete(tx: Tx, env: Env, flag: PartialRoom, state: State) -> None:
    """Put the room on its whole state: all that came since our join is judged again upon it.

    Takes long: it belongs into a transaction of the writer's thread.  Raises Unusable when the
    state does not let our user in.
    """
    room = flag.room
    if joins.partial(tx, room) != flag:
        return
    full = snapshots.derive(tx, snapshots.EMPTY, state)
    again = _Again(tx, room)
    join = events.by_nid(tx, flag.join)
    again.put(join, full)
    if join.nid in again.failed:
        raise arrival.Unusable("the whole state does not allow our join")
    since = joins.placed_since(tx, room, flag.join)
    for nid in since:
        again.redo(events.by_nid(tx, nid))
    ends = _ends(tx, [flag.join, *since])
    current = resolved(tx, room, [again.after_of(nid) for nid in ends], at_any_cost=True)
    arrival.lay(tx, env, room, snapshots.state(tx, current))
    rooms.set_head(tx, room, Head(ends, current))
    pos = tx.position()
    joins.drop_partial(tx, room, pos)
    servers.settle(tx, room, pos)
    tx.changed(rooms=(room,))


def _ends(tx: Tx, since: Sequence[EventNid]) -> tuple[EventNid, ...]:
    """The ends of the graph among the events since our join, which is one of them."""
    found = [events.by_nid(tx, nid) for nid in since]
    standing = [one for one in found if not one.status & (Status.REJECTED | Status.SOFT_FAILED)]
    cited = {event_id for one in standing for event_id in one.event.prev_event_ids}
    return tuple(one.nid for one in standing if one.event.event_id not in cited)


@define(eq=False)
class _Again:
    """The states around the events of a room, worked out anew."""

    tx: Tx
    room: RoomNid
    after: dict[EventNid, SnapshotNid] = field(factory=dict)
    failed: set[EventNid] = field(factory=set)

    def after_of(self, nid: EventNid) -> SnapshotNid:
        """The state after an event."""
        found = self.after.get(nid)
        if found is not None:
            return found
        stored = events.by_nid(self.tx, nid)
        return SnapshotNid(stored.after or stored.snapshot or 0)

    def redo(self, stored: StoredEvent) -> None:
        """The state before an event is that after its parents, if these have changed."""
        parents = [events.by_id(self.tx, one) for one in stored.event.prev_event_ids]
        placed = [one for one in parents if one is not None and one.snapshot is not None]
        if len(placed) < len(parents) or all(one.nid not in self.after for one in placed):
            return  # its state was told by others, or has nothing to do with our join
        branches = [self.after_of(one.nid) for one in placed]
        self.put(stored, resolved(self.tx, self.room, branches, at_any_cost=True))

    def put(self, stored: StoredEvent, before: SnapshotNid) -> None:
        """Give an event the state before it, and judge it by that.

        What its own auth events refuse stays refused; no other verdict is for ever.
        """
        tx, event = self.tx, stored.event
        status = Status(stored.status)
        if not status & Status.REJECTED_BY_AUTH:
            status &= ~(Status.REJECTED | Status.SOFT_FAILED)
            if not self._allows(stored, before):
                status |= Status.REJECTED
                self.failed.add(stored.nid)
        following = before
        if event.state_key is not None and not status & Status.REJECTED:
            slot = names.add_slot(tx, (event.type, event.state_key))
            following = snapshots.derive(tx, before, {slot: stored.nid})
        self.after[stored.nid] = following
        after = None if following == before else following
        joins.replace_snapshots(tx, stored.nid, before, after, int(status))

    def _allows(self, stored: StoredEvent, before: SnapshotNid) -> bool:
        tx = self.tx
        found = [events.by_id(tx, event_id) for event_id in stored.event.auth_event_ids]
        auth = [one for one in found if one is not None]
        rejected = {one.event.event_id for one in auth if one.status & Status.REJECTED}
        state = SnapshotState(tx, before)
        around = Surroundings(
            [one.event for one in auth], rejected.__contains__, state.get(CREATE), state, state
        )
        return not checks.judge(stored.event.rules, stored.event, around).status
