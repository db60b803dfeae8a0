"""What another server may know of a room, and walks through the room's history on its behalf.

Matrix v1.19, Server-Server API, "Retrieving events", "Backfilling and retrieving missing events"
([B11.01] to [B11.06], T106).  The visibility rules are written for users: a server may see what
one of its users may.  To a server in the room, what it may not see is given in redacted form, so
that the graph has no holes; other servers do not get it at all.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence

from attrs import define, field, frozen

from matrixbox.core.events import Event, StateKey, membership_of
from matrixbox.core.identifiers import EventId, ServerName
from matrixbox.core.redaction import redacted
from matrixbox.core.visibility import HistoryVisibility, Standing, may_see
from matrixbox.rooms.reading import HISTORY
from matrixbox.rooms.state import after
from matrixbox.store import (
    chains,
    erasure,
    events,
    joins,
    members,
    names,
    outbound,
    rooms,
    snapshots,
)
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import EventNid, RoomNid, SlotNid, SnapshotNid
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"
MAX_BACKFILL = 100
MAX_MISSING = 20
MAX_WALK = 500  # events looked at for one answer
MAX_USERS = 500  # of one server, looked at to find one who was in the room
_NOT_SERVED = Status.REJECTED | Status.REJECTED_BY_AUTH


@define(eq=False)
class ServerReader:
    """One server looking into one room, for one request."""

    tx: Tx
    room: RoomNid
    server: ServerName
    is_in_room: bool = field(init=False)
    _members: list[SlotNid] | None = None
    _last_joined: int | None = None
    _visibilities: dict[SnapshotNid, HistoryVisibility] = field(factory=dict)
    _standings: dict[SnapshotNid, frozenset[str]] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.is_in_room = self.server in members.servers(self.tx, self.room)

    def is_served(self, stored: StoredEvent) -> bool:
        """Whether an event is one that servers may ask for: of this room, and not rejected.

        Of the events whose surroundings are unknown, these are the ones that are state.
        """
        if stored.room != self.room or stored.status & _NOT_SERVED:
            return False
        return stored.snapshot is not None or stored.event.state_key is not None

    def may_see(self, stored: StoredEvent) -> bool:
        """Whether a user of the server may see an event of the room."""
        if not self.is_served(stored):
            return False
        if stored.snapshot is None:
            # Whoever is in the room gets it as a part of the room's state too.
            return self.is_in_room
        event, before = stored.event, SnapshotNid(stored.snapshot)
        key = (event.type, event.state_key)
        is_own_member = event.type == MEMBER and _server_of(event.state_key) == self.server
        following = after(stored) if is_own_member or key == HISTORY else before
        settings = self._visibility(before), self._visibility(following)
        if HistoryVisibility.WORLD_READABLE in settings:
            return True
        if HistoryVisibility.SHARED in settings and (self.is_in_room or self._came_after(stored)):
            return True
        memberships = self._memberships(before)
        if is_own_member:
            member = self._event(following, (MEMBER, event.state_key or ""))
            memberships |= {membership_of(member) or "leave"}
        return may_see(*settings, (Standing.at(membership) for membership in memberships))

    def may_see_before(self, stored: StoredEvent) -> bool:
        """Whether a user of the server may see what was sent just before an event."""
        if stored.snapshot is None:
            return False
        before = SnapshotNid(stored.snapshot)
        setting = self._visibility(before)
        if setting is HistoryVisibility.WORLD_READABLE:
            return True
        if setting is HistoryVisibility.SHARED:
            return self.is_in_room or self._came_after(stored)
        return may_see(setting, setting, map(Standing.at, self._memberships(before)))

    def shown(self, stored: StoredEvent) -> Event | None:
        """An event as the server may get it; None for one that it may not know of."""
        if self.may_see(stored) and not self._is_erased_for(stored.event):
            return stored.event
        return redacted(stored.event) if self.is_in_room and self.is_served(stored) else None

    def _is_erased_for(self, event: Event) -> bool:
        """Whether its sender was erased before the server came into the room ([C4.09])."""
        pos = erasure.erased(self.tx).get(event.sender)
        if pos is None or not erasure.hides(event):
            return False
        server = names.server_nid(self.tx, self.server)
        since = None if server is None else erasure.server_since(self.tx, self.room, server)
        return since is None or since > pos

    def _event(self, snapshot: SnapshotNid, key: StateKey) -> Event | None:
        slot = names.slot_nid(self.tx, key)
        found = {} if slot is None else snapshots.lookup(self.tx, snapshot, [slot])
        nid = None if slot is None else found.get(slot)
        return None if nid is None else events.by_nid(self.tx, nid).event

    def _visibility(self, snapshot: SnapshotNid) -> HistoryVisibility:
        if snapshot not in self._visibilities:
            self._visibilities[snapshot] = HistoryVisibility.of(self._event(snapshot, HISTORY))
        return self._visibilities[snapshot]

    def _memberships(self, snapshot: SnapshotNid) -> frozenset[str]:
        """The memberships that users of the server have in a state; a join ends the search."""
        known = self._standings.get(snapshot)
        if known is None:
            found: set[str] = set()
            for nid in snapshots.lookup(self.tx, snapshot, self._slots()).values():
                found.add(membership_of(events.by_nid(self.tx, nid).event) or "leave")
                if "join" in found:
                    break
            known = self._standings[snapshot] = frozenset(found)
        return known

    def had_joined(self, snapshot: SnapshotNid) -> bool:
        """Whether a user of the server is in the room in a state."""
        return "join" in self._memberships(snapshot)

    def _slots(self) -> list[SlotNid]:
        """The state slots of the server's users, those who are in the room first."""
        if self._members is None:
            found = members.of_server(self.tx, self.room, self.server)
            found.sort(key=lambda pair: pair[1] is not Membership.JOIN)
            slots = (
                names.slot_nid(self.tx, (MEMBER, names.user_id(self.tx, user)))
                for user, _ in found[:MAX_USERS]
            )
            self._members = [slot for slot in slots if slot is not None]
        return self._members

    def _came_after(self, stored: StoredEvent) -> bool:
        """Whether a server that is not in the room now joined it at some time after an event."""
        if self._last_joined is None:
            self._last_joined = max(self._joins(), default=-1)
        return stored.pos is not None and stored.pos <= self._last_joined

    def _joins(self) -> Iterator[int]:
        for slot in self._slots():
            for pos, nid in rooms.slot_history(self.tx, self.room, slot):
                if nid and membership_of(events.by_nid(self.tx, nid).event) == "join":
                    yield pos


def _server_of(user_id: str | None) -> str:
    return (user_id or "").partition(":")[2]


# --- history


def _in_graph(reader: ServerReader, event_id: EventId) -> StoredEvent | None:
    """An event of the room whose surroundings are known here."""
    stored = events.by_id(reader.tx, event_id)
    if stored is None or stored.room != reader.room or stored.snapshot is None:
        return None
    return stored


def backwards(reader: ServerReader, start: Iterable[EventId], limit: int) -> list[Event]:
    """Some events and what came before them, the deepest first ([B11.01]).

    What the server may not see is in it in redacted form.  Empty if none of the events is known.
    """
    waiting: list[tuple[int, int, StoredEvent]] = []
    seen: set[EventId] = set()
    chosen: list[Event] = []

    def add(event_ids: Iterable[EventId]) -> None:
        for event_id in event_ids:
            if event_id not in seen and len(seen) < MAX_WALK:
                seen.add(event_id)
                stored = _in_graph(reader, event_id)
                if stored is not None:
                    heapq.heappush(waiting, (-stored.event.depth, -stored.nid, stored))

    add(start)
    while waiting and len(chosen) < limit:
        _, _, stored = heapq.heappop(waiting)
        shown = reader.shown(stored)
        if shown is not None:
            chosen.append(shown)
        add(stored.event.prev_event_ids)
    return chosen


def between(
    reader: ServerReader,
    earliest: Collection[EventId],
    latest: Iterable[EventId],
    limit: int,
    min_depth: int,
) -> list[Event]:
    """What lies behind the latest events, without going behind the earliest ([B11.02]).

    Found breadth first from the latest ones, and given with the oldest first.
    """
    seen = {*earliest}
    waiting: deque[EventId] = deque()
    chosen: list[Event] = []

    def add(stored: StoredEvent) -> None:
        for event_id in stored.event.prev_event_ids:
            if event_id not in seen and len(seen) < MAX_WALK:
                seen.add(event_id)
                waiting.append(event_id)

    for event_id in dict.fromkeys(latest):
        seen.add(event_id)
    for event_id in dict.fromkeys(latest):
        stored = _in_graph(reader, event_id)
        if stored is not None:
            add(stored)
    while waiting and len(chosen) < limit:
        stored = _in_graph(reader, waiting.popleft())
        if stored is None or stored.event.depth < min_depth:
            continue
        shown = reader.shown(stored)
        if shown is not None:
            chosen.append(shown)
        add(stored)
    chosen.reverse()
    return chosen


# --- states


def was_in_room(tx: Tx, room: RoomNid, server: ServerName, event_id: EventId) -> bool:
    """Whether the server was in the room just before an event.

    What was around that event was its own affair then.  Without it, a server that was put out of
    the room and lacks what the ban cites cannot find out that it was.
    """
    stored = events.by_id(tx, event_id)
    if stored is None or stored.room != room or stored.snapshot is None:
        return False
    if ServerReader(tx, room, server).had_joined(SnapshotNid(stored.snapshot)):
        return True
    # It joined on another branch, and was given the ban that has prevailed: see distribution.
    return outbound.was_parted(tx, server, stored.nid)


@frozen
class Whole:
    """The state before an event, and the auth chains of its events."""

    state: Sequence[EventNid]
    auth_chain: Sequence[EventNid]


def state_before(tx: Tx, room: RoomNid, event_id: EventId) -> Whole | None:
    """The state before an event of a room; None where there is no such event ([B11.03])."""
    stored = events.by_id(tx, event_id)
    if stored is None or stored.room != room or stored.snapshot is None:
        return None
    if stored.status & _NOT_SERVED or joins.partial(tx, room) is not None:
        return None  # the latter: what is here of the state is not all of it
    state = [*snapshots.state(tx, SnapshotNid(stored.snapshot)).values()]
    return Whole(state, chains.auth_chain(tx, state))


def auth_chain_of(tx: Tx, room: RoomNid, event_id: EventId) -> list[EventNid] | None:
    """The auth chain of an event of a room; None where there is no such event ([B11.04])."""
    stored = events.by_id(tx, event_id)
    if stored is None or stored.room != room:
        return None
    return chains.auth_chain(tx, [stored.nid])
