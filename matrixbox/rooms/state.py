"""The state of a room: current, before an event, resolved over several branches.

Matrix v1.19, room versions, "State resolution".  Views are mappings that load what is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import frozen

from matrixbox.core.events import Event, StateKey
from matrixbox.core.identifiers import EventId
from matrixbox.core.resolve import resolve
from matrixbox.store import events, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from matrixbox.store.nids import EventNid, RoomNid, SlotNid, SnapshotNid
from matrixbox.store.transaction import Tx

NEVER_RESOLVED = Status.REJECTED_BY_AUTH


class _View(Mapping[StateKey, Event]):
    """A state whose events are loaded when asked for."""

    __slots__ = ("_found", "tx")

    def __init__(self, tx: Tx) -> None:
        self.tx = tx
        self._found: dict[StateKey, StoredEvent | None] = {}

    def _nid(self, key: StateKey) -> EventNid | None:
        raise NotImplementedError

    def _all(self) -> Iterable[SlotNid]:
        raise NotImplementedError

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


@frozen
class StoredGraph:
    """The event graph of ``core.resolve``, read from the database."""

    tx: Tx

    def event(self, event_id: EventId) -> Event | None:
        """An event by its name."""
        found = events.by_id(self.tx, event_id)
        return None if found is None else found.event

    def auth_event_ids(self, event_id: EventId) -> Sequence[EventId]:
        """The auth events of a stored event."""
        found = events.by_id(self.tx, event_id)
        return () if found is None else found.event.auth_event_ids

    def is_rejected(self, event_id: EventId) -> bool:
        """Whether the event failed against its own auth events ([A6.11])."""
        found = events.by_id(self.tx, event_id)
        return found is not None and bool(found.status & NEVER_RESOLVED)


def after(stored: StoredEvent) -> SnapshotNid:
    """The state after an event."""
    if stored.after is not None:
        return SnapshotNid(stored.after)
    assert stored.snapshot is not None, "an outlier has no state"
    return SnapshotNid(stored.snapshot)


def resolved(
    tx: Tx,
    room: RoomNid,
    branches: Iterable[SnapshotNid],
    resolver: Callable[..., dict[StateKey, EventId]] = resolve,
) -> SnapshotNid:
    """The snapshot that several branches resolve to ([A6.01])."""
    distinct = sorted(set(branches))
    if len(distinct) == 1:
        return distinct[0]
    create = rooms.create_nid(tx, room)
    assert create is not None, "a room with branches has a create event"
    sets = [
        {
            names.slot_key(tx, slot): events.by_nid(tx, nid).event.event_id
            for slot, nid in snapshots.state(tx, snapshot).items()
        }
        for snapshot in distinct
    ]
    winner = resolver(
        rooms.rules(tx, room), sets, StoredGraph(tx), events.by_nid(tx, create).event.event_id
    )
    base = snapshots.state(tx, distinct[0])
    changes: dict[SlotNid, EventNid] = {}
    for key, event_id in winner.items():
        slot, nid = names.slot_nid(tx, key), events.nid_of(tx, event_id)
        assert slot is not None
        assert nid is not None
        if base.pop(slot, None) != nid:
            changes[slot] = nid
    changes.update(dict.fromkeys(base, EventNid(0)))
    return snapshots.derive(tx, distinct[0], changes)
