"""History that is found after what came later: where it is missing, and how it gets its place.

Matrix v1.19, Server-Server API, "Backfilling and retrieving missing events" ([C9.04], [B11.01]).
An event whose parents are not here is the newer end of a gap, its anchor.  What is found behind it
stands directly before it in the timeline.  Such an event is judged by the events that authorise it
and by the state before it, never by the current state, and changes neither that nor the room's end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import frozen

from matrixbox.core.events import CREATE, Event
from matrixbox.core.identifiers import EventId, ServerName, server_of
from matrixbox.core.room_versions import RoomRules
from matrixbox.rooms import checks, outliers, redactions
from matrixbox.rooms.checks import Finding, Surroundings
from matrixbox.rooms.commit import DISPUTED, NO_EFFECT, fill_gap, relate
from matrixbox.rooms.env import Env
from matrixbox.rooms.extremities import DUMMY
from matrixbox.rooms.state import SnapshotState, after, resolved
from matrixbox.rooms.timeline import BEGINNING, Looker, place_of_time
from matrixbox.rooms.tokens import Place
from matrixbox.store import events, hearsay, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import HIDDEN, Placement, Status
from matrixbox.store.hearsay import Told
from matrixbox.store.nids import EventNid, RoomNid, SnapshotNid
from matrixbox.store.transaction import Tx

MAX_ASKED = 20  # missing events that one request names
FAR = 2**32  # places left free between an event and one found long before it
_NEVER = Status.REJECTED | Status.REJECTED_BY_AUTH


@frozen
class Gap:
    """Missing events and the event that cites them."""

    room: RoomNid
    anchor: EventNid
    place: Place
    missing: tuple[EventId, ...]
    server: ServerName  # of who sent the anchor
    pages: int = 0  # of what comes before it that are fetched without anybody asking for them


@frozen
class Found:
    """An event with good hash and signatures; the state before it where another server told it."""

    event: Event
    pruned: bool = False
    state: tuple[EventId, ...] | None = None


# --- where something is missing


def gaps(tx: Tx, room: RoomNid, older: Place, newer: Place) -> list[Gap]:
    """The gaps that one meets between two places, at the newer but not at the older one.

    The newest comes first.  A gap is just before its anchor.
    """
    missing: dict[EventNid, list[EventId]] = {}
    for nid, event_id in rooms.gaps(tx, room):
        missing.setdefault(nid, []).append(event_id)
    found = []
    for nid, event_ids in missing.items():
        stored = events.by_nid(tx, nid)
        place = place_of(stored)
        if older < Place.before(place.pos, place.sub) <= newer and not stored.status & _NEVER:
            sender = server_of(stored.event.sender)
            found.append(Gap(room, nid, place, tuple(event_ids[:MAX_ASKED]), sender))
    return sorted(found, key=lambda gap: gap.place, reverse=True)


def gap_at(looker: Looker, ts: int, *, back: bool) -> Gap | None:
    """The gap that hides what was sent at a time and just before or after it, if there is one."""
    tx, room = looker.tx, looker.room
    place = place_of_time(looker, ts + 1 if back else ts)
    nid = events.first_at(tx, room, (place.pos, place.sub))
    if nid is None:
        return None
    there = place_of(events.by_nid(tx, nid))
    found = gaps(tx, room, Place.before(there.pos, there.sub - 1), there)
    return found[0] if found else None


def place_of(stored: StoredEvent) -> Place:
    """Where an event stands, or would if it were shown."""
    return Place(stored.nid if stored.pos is None else stored.pos, stored.sub)


def in_graph(tx: Tx, event_id: EventId) -> StoredEvent | None:
    """An event whose surroundings are known; None for outliers and what is not here."""
    stored = events.by_id(tx, event_id)
    return None if stored is None or stored.snapshot is None else stored


def not_stored(tx: Tx, event_ids: Iterable[EventId]) -> list[EventId]:
    """Those of some events that are not here in any form."""
    return [one for one in dict.fromkeys(event_ids) if events.nid_of(tx, one) is None]


def not_in_graph(tx: Tx, event_ids: Iterable[EventId]) -> set[EventId]:
    """Those of some events whose surroundings are not known here."""
    return {one for one in event_ids if in_graph(tx, one) is None}


# --- the order of what was found


def behind(start: Iterable[EventId], found: Mapping[EventId, Event]) -> dict[EventId, Event]:
    """Those of the found events to which parents lead from the start."""
    reached: dict[EventId, Event] = {}
    waiting = [*start]
    while waiting:
        event_id = waiting.pop()
        event = found.get(event_id)
        if event is not None and event_id not in reached:
            reached[event_id] = event
            waiting.extend(event.prev_event_ids)
    return reached


def in_order(
    found: Mapping[EventId, Event], cited: Callable[[Event], Sequence[EventId]]
) -> list[Event]:
    """Events after those that they cite; what cites itself in a circle is left out (T007)."""
    needs = {
        event_id: {one for one in cited(event) if one in found} for event_id, event in found.items()
    }
    needed_by: dict[EventId, list[EventId]] = {}
    for event_id, ones in needs.items():
        for one in ones:
            needed_by.setdefault(one, []).append(event_id)
    ready = [event_id for event_id, ones in needs.items() if not ones]
    ordered: list[Event] = []
    while ready:
        event_id = ready.pop()
        ordered.append(found[event_id])
        for other in needed_by.get(event_id, ()):
            needs[other].discard(event_id)
            if not needs[other]:
                ready.append(other)
    return ordered


def by_parents(event: Event) -> Sequence[EventId]:
    """What an event comes after."""
    return event.prev_event_ids


def by_auth(event: Event) -> Sequence[EventId]:
    """What an event is authorised by."""
    return event.auth_event_ids


# --- giving it a place


def place(tx: Tx, env: Env, gap: Gap, found: Sequence[Found], following: int = 0) -> int:
    """Place events, each after its parents, before the anchor of their gap; how many came in.

    ``following`` is the number of events that will be placed between these and the anchor.  Where
    neither all parents nor the state are known, or an auth event is missing, an event is left out,
    and so are those that build on it.
    """
    return _Placing(tx, env, gap).place_all(found, following)


class _Placing:
    def __init__(self, tx: Tx, env: Env, gap: Gap) -> None:
        self.tx, self.env, self.gap = tx, env, gap
        self.rules: RoomRules = rooms.rules(tx, gap.room)
        self.room_id = names.room_id(tx, gap.room)
        create = rooms.create_nid(tx, gap.room)
        self.create = None if create is None else events.by_nid(tx, create)

    def place_all(self, found: Sequence[Found], following: int) -> int:
        anchor = events.by_nid(self.tx, self.gap.anchor)
        top = place_of(anchor)
        floor = _floor(self.tx, self.gap.room, top)
        sub = top.sub - following - len(found)
        if floor is not None:
            sub = max(sub, floor + 1)
        count = 0
        for one in found:
            if sub >= top.sub:
                break  # no place is left before the anchor
            stored = self._place(one, (top.pos, sub))
            if stored is not None:
                count += 1
                sub += 1
        self._note_gaps(found, anchor)
        return count

    def _place(self, found: Found, at: tuple[int, int]) -> StoredEvent | None:
        tx, event = self.tx, found.event
        known = events.by_id(tx, event.event_id)
        if event.room_id != self.room_id or (known is not None and known.snapshot is not None):
            return None
        auth = [events.by_id(tx, event_id) for event_id in event.auth_event_ids]
        cited = [one for one in auth if one is not None]
        told = None if found.state is None else self._told(found.state)
        before = self._before(event, told)
        if before is None or len(cited) < len(auth):
            return None
        status = self._judged(event, cited, before).status
        parents = [in_graph(tx, event_id) for event_id in event.prev_event_ids]
        if told is not None or any(one and one.status & Status.HEARSAY for one in parents):
            status = Status.HEARSAY | (DISPUTED if status is Status.REJECTED else status)
        stored = self._store(found, known, status, cited, before, at)
        if told is not None:
            self._note_told(stored, told)
        return stored

    def _note_told(self, stored: StoredEvent, told: SnapshotNid) -> None:
        """The gap moves back: it is tried on, if it was, by who tried so far."""
        further = Told(stored.nid, stored.room, told, max(self.gap.pages - 1, 0))
        hearsay.put(self.tx, further, self.env.clock.now_ms())

    def _told(self, state: Sequence[EventId]) -> SnapshotNid | None:
        """The snapshot of a state that another server told; None where it is of no use."""
        found = (events.by_id(self.tx, event_id) for event_id in state)
        stored = [one for one in found if one is not None]
        if len(stored) < len(state):
            return None
        try:
            return outliers.snapshot_of(self.tx, self.gap.room, stored)
        except outliers.UnusableState:
            return None

    def _before(self, event: Event, told: SnapshotNid | None) -> SnapshotNid | None:
        """The state before an event; None where it is not known."""
        tx = self.tx
        if not event.prev_event_ids:
            return snapshots.EMPTY
        parents = [in_graph(tx, event_id) for event_id in event.prev_event_ids]
        known = [one for one in parents if one is not None and one.room == self.gap.room]
        branches = [after(one) for one in known]
        if len(known) < len(parents):
            if told is None:
                return None
            branches.append(told)
        return resolved(tx, self.gap.room, branches)

    def _judged(self, event: Event, auth: Sequence[StoredEvent], before: SnapshotNid) -> Finding:
        create = self.create
        if event.type == CREATE[0] and (create is None or create.event.event_id != event.event_id):
            return Finding(_NEVER, "the room has another create event")  # T022
        rejected = {one.event.event_id for one in auth if one.status & _NEVER}
        state = SnapshotState(self.tx, before)
        around = Surroundings(
            [one.event for one in auth],
            rejected.__contains__,
            None if create is None or event.type == CREATE[0] else create.event,
            state,
            state,
        )
        return checks.judge(self.rules, event, around)

    def _store(
        self,
        found: Found,
        known: StoredEvent | None,
        status: Status,
        auth: Sequence[StoredEvent],
        before: SnapshotNid,
        at: tuple[int, int],
    ) -> StoredEvent:
        tx, event, room = self.tx, found.event, self.gap.room
        nid = EventNid(tx.position()) if known is None else known.nid
        body = event
        if known is not None and not (known.status & Status.PRUNED and not found.pruned):
            body = known.event
        if body is event and found.pruned:
            status |= Status.PRUNED
        if redactions.must_wait(tx, self.rules, room, event, status, before):
            status |= Status.HELD
        slot = None
        following = before
        if event.state_key is not None:
            slot = names.add_slot(tx, (event.type, event.state_key))
            if not status & NO_EFFECT:
                following = snapshots.derive(tx, before, {slot: nid})
        visible = not status & HIDDEN and event.type != DUMMY
        placement = Placement(
            room=room,
            status=status,
            slot=slot,
            snapshot=before,
            after=following if following != before else None,
            auth=tuple(one.nid for one in auth),
            in_timeline=visible or bool(status & Status.HELD),
        )
        if known is None:
            stored = events.insert(tx, nid, event, placement, at)
        else:
            if events.redaction_of(tx, nid) is not None:
                body = known.event
            pos = at[0] if placement.in_timeline else None
            stored = events.place(tx, known, body, placement, pos, at[1])
        if visible:
            relate(tx, stored)
        redactions.apply(tx, self.rules, stored)
        fill_gap(tx, room, event.event_id)
        return stored

    def _note_gaps(self, found: Sequence[Found], anchor: StoredEvent) -> None:
        """Record what is missing behind each event that came in, at an event with a place."""
        anchors: dict[EventId, EventNid] = {}
        for one in reversed(found):
            event = one.event
            stored = in_graph(self.tx, event.event_id)
            if stored is None:
                continue
            mine = stored.nid if stored.pos is not None else anchors.get(event.event_id, anchor.nid)
            for parent in event.prev_event_ids:
                anchors.setdefault(parent, mine)
                if in_graph(self.tx, parent) is None:
                    rooms.add_gap(self.tx, self.gap.room, parent, mine)


def _floor(tx: Tx, room: RoomNid, top: Place) -> int | None:
    """The sub of the event before a place, if it has the same position."""
    below = events.before(tx, room, (top.pos, top.sub - 1), (BEGINNING.pos, BEGINNING.sub), 1)
    if not below:
        return None
    stored = events.by_nid(tx, below[0])
    return stored.sub if stored.pos == top.pos else None


def place_far(tx: Tx, env: Env, gap: Gap, found: Found) -> StoredEvent | None:
    """Place one event long before the anchor of a gap, with room for what lies between."""
    placing = _Placing(tx, env, gap)
    top = place_of(events.by_nid(tx, gap.anchor))
    floor = _floor(tx, gap.room, top)
    sub = top.sub - FAR
    if floor is not None and floor >= sub:
        sub = (floor + top.sub) // 2
        if sub == floor:
            return None
    stored = placing._place(found, (top.pos, sub))
    if stored is not None:
        placing._note_gaps([found], stored)
    return stored
