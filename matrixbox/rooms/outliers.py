"""Events that are known without the state before them: outliers.

Matrix v1.19, Server-Server API, "Checks performed on receipt of a PDU" (step 4), "Rejection".
Auth chains and the state of rooms come from other servers as events whose own surroundings are
unknown.  Each is judged by the auth events that it cites, and by nothing else, until it is
received with its parents.  An event that cites what is not here is not stored: nothing can be
concluded from it, and it is judged when all is here (T027).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from matrixbox.core.events import CREATE, Event
from matrixbox.core.identifiers import EventId
from matrixbox.core.room_versions import RoomRules, rules_of_create
from matrixbox.rooms import redactions
from matrixbox.rooms.checks import Finding, judge_by_auth_events
from matrixbox.rooms.env import Env
from matrixbox.store import events, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Placement, Status
from matrixbox.store.nids import EventNid, RoomNid, SlotNid, SnapshotNid
from matrixbox.store.transaction import Tx

NEVER = Status.REJECTED | Status.REJECTED_BY_AUTH


class UnusableState(Exception):
    """Events that cannot be the state of a room at any point; the text says why (T022)."""


def admit(
    tx: Tx,
    _env: Env,
    room: RoomNid,
    rules: RoomRules,
    found: Iterable[Event],
    pruned: Container[EventId] = frozenset(),
    *,
    status: Status = Status.ACCEPTED,
) -> dict[EventId, StoredEvent]:
    """Store events with good hashes and signatures, each one after the auth events it cites.

    Gives those of them that are stored now, with their verdicts; what was known stays as it is.
    Not stored are events of other rooms, and those that cite an event which is not here.
    ``pruned`` names the events whose content did not match its hash, ``status`` adds to what is
    found.  At most some hundreds of events in one transaction.
    """
    admission = _Admission(tx, room, rules, pruned, status)
    for event in found:
        admission.take(event)
    return admission.stored


class _Admission:
    def __init__(
        self,
        tx: Tx,
        room: RoomNid,
        rules: RoomRules,
        pruned: Container[EventId],
        status: Status,
    ) -> None:
        self.tx, self.room, self.rules, self.pruned, self.status = tx, room, rules, pruned, status
        self.room_id = names.room_id(tx, room)
        self.stored: dict[EventId, StoredEvent] = {}
        create = rooms.create_nid(tx, room)
        self.create = None if create is None else events.by_nid(tx, create)
        self.is_known_graph = rooms.head(tx, room) is not None

    def take(self, event: Event) -> None:
        if event.room_id != self.room_id or event.event_id in self.stored:
            return  # the former: T005
        known = events.by_id(self.tx, event.event_id)
        if known is not None and not self._is_better(known, event):
            self.stored[event.event_id] = known
            return
        auth = [self._known(event_id) for event_id in event.auth_event_ids]
        cited = [one for one in auth if one is not None]
        if len(cited) == len(auth):
            finding = self._judged(event, cited)
            status = finding.status | Status.OUTLIER | self.status
            if event.event_id in self.pruned:
                status |= Status.PRUNED
            self._store(known, event, status, cited)

    def _is_better(self, known: StoredEvent, event: Event) -> bool:
        """Whether an outlier is known only without its content, and here it is (T046)."""
        return (
            bool(known.status & Status.PRUNED)
            and bool(known.status & Status.OUTLIER)
            and event.event_id not in self.pruned
            and events.redaction_of(self.tx, known.nid) is None
        )

    def _known(self, event_id: EventId) -> StoredEvent | None:
        return self.stored.get(event_id) or events.by_id(self.tx, event_id)

    def _judged(self, event: Event, cited: Sequence[StoredEvent]) -> Finding:
        if event.type == "m.room.create":
            return self._judged_create(event)
        create = None if self.create is None else self.create.event
        rejected = {one.event.event_id for one in cited if one.status & NEVER}
        auth = [one.event for one in cited]
        return judge_by_auth_events(self.rules, event, auth, rejected.__contains__, create)

    def _judged_create(self, event: Event) -> Finding:
        if self.is_known_graph and self.create is not None:
            return Finding(NEVER, "the room has a create event")  # the first one stays (T022)
        if event.state_key != "":
            return Finding(NEVER, "a create event that is no state of the room")
        # A create event that lost its content may have lost its room version too (T018).
        lost = event.event_id in self.pruned and "room_version" not in event.content
        if not lost and rules_of_create(event.content) is not self.rules:
            return Finding(NEVER, "a create event of another room version")
        return judge_by_auth_events(self.rules, event, (), lambda _: False, None)

    def _store(
        self,
        known: StoredEvent | None,
        event: Event,
        status: Status,
        cited: Sequence[StoredEvent],
    ) -> None:
        tx = self.tx
        key = None if event.state_key is None else (event.type, event.state_key)
        placement = Placement(
            room=self.room,
            status=status,
            slot=None if key is None else names.add_slot(tx, key),
            snapshot=None,
            after=None,
            auth=tuple(one.nid for one in cited),
            in_timeline=False,
        )
        if known is None:
            stored = events.insert(tx, EventNid(tx.position()), event, placement)
        else:
            stored = events.place(tx, known, event, placement)
        self.stored[event.event_id] = stored
        if key == CREATE and not status & NEVER:
            self.create = stored
            rooms.set_create(tx, self.room, stored.nid)
        redactions.apply(tx, self.rules, stored)


def snapshot_of(tx: Tx, room: RoomNid, stored: Iterable[StoredEvent]) -> SnapshotNid:
    """The snapshot of a state that another server told, out of its stored events.

    Rejected events, those of other rooms and those that are no state are left out (T005, T011).
    Raises UnusableState without the room's own create event, or with two events for one slot.
    """
    found: dict[SlotNid, EventNid] = {}
    for one in stored:
        if one.room != room or one.event.state_key is None or one.status & Status.REJECTED:
            continue
        slot = names.add_slot(tx, (one.event.type, one.event.state_key))
        if found.setdefault(slot, one.nid) != one.nid:
            raise UnusableState(f"two events for {one.event.type} and one state key")
    create = names.slot_nid(tx, CREATE)
    if create is None or found.get(create) != rooms.create_nid(tx, room):
        raise UnusableState("the room's create event is missing")
    return _snapshot(tx, room, found)


def _snapshot(tx: Tx, room: RoomNid, wanted: Mapping[SlotNid, EventNid]) -> SnapshotNid:
    """A snapshot with these entries, laid over the current state where that is much the same."""
    head = rooms.head(tx, room)
    base = snapshots.EMPTY if head is None else head.snapshot
    there = snapshots.state(tx, base)
    changes = {slot: nid for slot, nid in wanted.items() if there.get(slot) != nid}
    changes.update((slot, EventNid(0)) for slot in there if slot not in wanted)
    if 2 * len(changes) > len(wanted):
        base, changes = snapshots.EMPTY, dict(wanted)
    return snapshots.derive(tx, base, changes)
