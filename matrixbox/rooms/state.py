"""The state of a room: current, before an event, resolved over several branches.

Matrix v1.19, room versions, "State resolution".  Views are mappings that load what is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from matrixbox.core.events import Event, StateKey
from matrixbox.core.identifiers import EventId
from matrixbox.core.resolve import resolve
from matrixbox.store import events, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from matrixbox.store.nids import EventNid, RoomNid, SlotNid, SnapshotNid
from matrixbox.store.transaction import Tx

NEVER_RESOLVED = Status.REJECTED_BY_AUTH

# What is resolved inside a transaction: beyond, it would hold up everybody who writes.
MAX_INLINE_ENTRIES = 2_000  # of all branches together
MAX_INLINE_EVENTS = 300
MAX_EVENTS = 100_000  # looked at for any one resolution, which also has the 30 s of a long read


class _View(Mapping[StateKey, Event], ABC):
    """A state whose events are loaded when asked for."""

    __slots__ = ("_found", "tx")

    def __init__(self, tx: Tx) -> None:
        self.tx = tx
        self._found: dict[StateKey, StoredEvent | None] = {}

    @abstractmethod
    def _nid(self, key: StateKey) -> EventNid | None:
        """The event in a slot."""

    @abstractmethod
    def _all(self) -> Iterable[SlotNid]:
        """Every slot that holds an event."""

    def stored(self, key: StateKey) -> StoredEvent | None:
        """The stored event in a slot."""
        if key in self._found:
            return self._found[key]
        nid = self._nid(key)
        found = None if nid is None else events.by_nid(self.tx, nid)
        self._found[key] = found
        return found

    def __getitem__(self, key: StateKey) -> Event:
        found = self.stored(key)
        if found is None:
            raise KeyError(key)
        return found.event

    def __contains__(self, key: object) -> bool:
        return isinstance(key, tuple) and self.stored(key) is not None

    def __iter__(self) -> Iterator[StateKey]:
        return (names.slot_key(self.tx, slot) for slot in self._all())

    def __len__(self) -> int:
        return sum(1 for _ in self._all())


class CurrentState(_View):
    """The current state of a room."""

    __slots__ = ("room",)

    def __init__(self, tx: Tx, room: RoomNid) -> None:
        super().__init__(tx)
        self.room = room

    def _nid(self, key: StateKey) -> EventNid | None:
        return rooms.current_event(self.tx, self.room, key)

    def _all(self) -> Iterable[SlotNid]:
        return rooms.current_state(self.tx, self.room)


class SnapshotState(_View):
    """The state of a room at one snapshot."""

    __slots__ = ("snapshot",)

    def __init__(self, tx: Tx, snapshot: SnapshotNid) -> None:
        super().__init__(tx)
        self.snapshot = snapshot

    def _nid(self, key: StateKey) -> EventNid | None:
        slot = names.slot_nid(self.tx, key)
        if slot is None:
            return None
        return snapshots.lookup(self.tx, self.snapshot, [slot]).get(slot)

    def _all(self) -> Iterable[SlotNid]:
        return snapshots.state(self.tx, self.snapshot)


class TooCostly(Exception):
    """A resolution looked at more events than it may."""


class StoredGraph:
    """The event graph of ``core.resolve``, read from the database, so many events of it."""

    def __init__(self, tx: Tx, max_events: int) -> None:
        self.tx = tx
        self._left = max_events
        self._looked_at: set[EventId] = set()

    def _found(self, event_id: EventId) -> StoredEvent | None:
        if event_id not in self._looked_at:
            if self._left == 0:
                raise TooCostly
            self._left -= 1
            self._looked_at.add(event_id)
        return events.by_id(self.tx, event_id)

    def event(self, event_id: EventId) -> Event | None:
        """An event by its name."""
        found = self._found(event_id)
        return None if found is None else found.event

    def auth_event_ids(self, event_id: EventId) -> Sequence[EventId]:
        """The auth events of a stored event."""
        found = self._found(event_id)
        return () if found is None else found.event.auth_event_ids

    def is_rejected(self, event_id: EventId) -> bool:
        """Whether the event failed against its own auth events ([A6.11])."""
        found = self._found(event_id)
        return found is not None and bool(found.status & NEVER_RESOLVED)


def after(stored: StoredEvent) -> SnapshotNid:
    """The state after an event."""
    if stored.after is not None:
        return SnapshotNid(stored.after)
    assert stored.snapshot is not None, "an outlier has no state"
    return SnapshotNid(stored.snapshot)


Branches = tuple[SnapshotNid, ...]  # ascending, all different


class NeedsResolution(Exception):
    """The branches cost too much to be resolved inside a transaction of the writer.

    Whoever asked for the transaction has them resolved elsewhere and asks again: ``resolution``.
    Where ``first`` is given, it is a transaction function that makes the branches durable and
    names them.
    """

    def __init__(
        self,
        room: RoomNid,
        branches: Branches,
        first: Callable[[Tx], Branches] | None = None,
    ) -> None:
        super().__init__(f"room {room}: {len(branches)} branches")
        self.room = room
        self.branches = branches
        self.first = first


def resolved(
    tx: Tx,
    room: RoomNid,
    branches: Iterable[SnapshotNid],
    resolver: Callable[..., dict[StateKey, EventId]] = resolve,
    *,
    at_any_cost: bool = False,
) -> SnapshotNid:
    """The snapshot that several branches resolve to ([A6.01]).

    Raises NeedsResolution when that costs much, unless it may be done ``at_any_cost``.
    """
    distinct = tuple(sorted(set(branches)))
    if len(distinct) == 1:
        return distinct[0]
    known = tx.caches.resolved.get(distinct)
    if known is not None:
        return known
    changes = tx.caches.resolutions.get(distinct)
    if changes is None:
        entries = sum(snapshots.size(tx, branch) for branch in distinct)
        if entries > MAX_INLINE_ENTRIES and not at_any_cost:
            raise NeedsResolution(room, distinct)
        most = MAX_EVENTS if at_any_cost else MAX_INLINE_EVENTS
        try:
            changes = resolution(tx, room, distinct, most, resolver)
        except TooCostly as error:
            raise NeedsResolution(room, distinct) from error
    found = snapshots.derive(tx, distinct[0], changes)
    tx.after_commit(tx.caches.resolved.put, distinct, found)
    return found


def resolution(
    tx: Tx,
    room: RoomNid,
    distinct: Branches,
    max_events: int,
    resolver: Callable[..., dict[StateKey, EventId]] = resolve,
) -> dict[SlotNid, EventNid]:
    """What the branches resolve to, as changes of the first one (0: nothing in that slot).

    Raises TooCostly when it would look at more than so many events.
    """
    create = rooms.create_nid(tx, room)
    assert create is not None, "a room with branches has a create event"
    states = [snapshots.state(tx, snapshot) for snapshot in distinct]
    sets = [
        {names.slot_key(tx, slot): events.id_of(tx, nid) for slot, nid in state.items()}
        for state in states
    ]
    graph = StoredGraph(tx, max_events)
    winner = resolver(rooms.rules(tx, room), sets, graph, events.id_of(tx, create))
    base = states[0]
    changes: dict[SlotNid, EventNid] = {}
    for key, event_id in winner.items():
        slot, nid = names.slot_nid(tx, key), events.nid_of(tx, event_id)
        assert slot is not None
        assert nid is not None
        if base.pop(slot, None) != nid:
            changes[slot] = nid
    changes.update(dict.fromkeys(base, EventNid(0)))
    return changes
