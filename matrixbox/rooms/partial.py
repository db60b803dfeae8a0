"""Rooms whose members are not all known yet: joined at once, completed in the background.

Matrix v1.19, Server-Server API, `send_join` with `omit_members` ([B8.05]).  Until all members are
known, an event is judged by the memberships that it cites, where the state has none; they were
judged themselves when they were stored.  When the state is whole, everything that came since the
join is judged again upon it.

Events of the state whose signers' keys could not be had are no part of it for now, which says
nothing about them (T027): they are kept, and when they can be checked the same is done once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import define, field

from matrixbox.core.events import CREATE, Event, StateKey, StateMap, membership_of
from matrixbox.core.identifiers import EventId, ServerName, UserId, server_of
from matrixbox.core.resolve import resolve
from matrixbox.rooms import arrival, checks, commit, redactions, unchecked
from matrixbox.rooms.arrival import MEMBER, State
from matrixbox.rooms.checks import Surroundings
from matrixbox.rooms.env import Env
from matrixbox.rooms.extremities import DUMMY
from matrixbox.rooms.policy import allows_now
from matrixbox.rooms.state import (
    MAX_INLINE_EVENTS,
    SnapshotState,
    StoredGraph,
    TooCostly,
    resolved,
)
from matrixbox.store import (
    device_lists,
    events,
    joins,
    members,
    names,
    rooms,
    servers,
    snapshots,
    undecided,
)
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import HIDDEN, Status
from matrixbox.store.joins import PartialRoom
from matrixbox.store.nids import EventNid, RoomNid, SnapshotNid
from matrixbox.store.rooms import Head
from matrixbox.store.transaction import Tx
from matrixbox.store.undecided import Kept, UndecidedRoom

MAX_GONE = 50  # servers that left a room before its members were known, and are told of devices


class WithMembers(Mapping[StateKey, Event]):
    """A state, with the memberships that an event cites where the state has none.

    ``prevailing`` are some of those that go before what the state has.
    """

    __slots__ = ("_cited", "_prevailing", "_state")

    def __init__(
        self, state: StateMap, cited: Sequence[Event], prevailing: Iterable[Event] = ()
    ) -> None:
        self._state = state
        self._cited = {_key(event): event for event in cited if event.type == MEMBER}
        self._prevailing = {_key(event): event for event in prevailing}

    def __getitem__(self, key: StateKey) -> Event:
        found = self._prevailing.get(key) or self._state.get(key)
        return self._cited[key] if found is None else found

    def __iter__(self) -> Iterator[StateKey]:
        yield from self._state
        yield from (key for key in self._cited if key not in self._state)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _key(event: Event) -> StateKey:
    return event.type, event.state_key or ""


def as_known(tx: Tx, room: RoomNid, cited: Sequence[Event], state: StateMap) -> StateMap:
    """What an event of a room is judged by: the state, or what is known of it so far."""
    if joins.partial(tx, room) is not None:
        return WithMembers(state, cited, _prevailing(tx, room, cited, state))
    if undecided.of_room(tx, room) is not None:
        # What is cited was checked by now, or it would not be stored; the state lacks it yet.
        late = undecided.are_state(tx, room, (event.event_id for event in cited))
        return WithMembers(state, [event for event in cited if event.event_id in late])
    return state


def _prevailing(tx: Tx, room: RoomNid, cited: Sequence[Event], state: StateMap) -> Sequence[Event]:
    """The memberships that an event cites and that prevail over others in the state.

    Either may be wrong while the members are not known: who was kicked since our join was so by
    somebody who had left, perhaps.  They are two branches of the room, and resolved like that.
    """
    base = {key: found for key in map(_key, cited) if (found := state.get(key)) is not None}
    against = [
        event
        for event in cited
        if event.type == MEMBER and base.get(_key(event), event).event_id != event.event_id
    ]
    create = state.get(CREATE)
    if not against or create is None:
        return ()
    ours = {key: event.event_id for key, event in base.items()} | {CREATE: create.event_id}
    theirs = ours | {_key(event): event.event_id for event in against}
    graph = StoredGraph(tx, MAX_INLINE_EVENTS)
    try:
        winner = resolve(rooms.rules(tx, room), [ours, theirs], graph, create.event_id)
    except TooCostly:
        return ()
    return [event for event in against if winner.get(_key(event)) == event.event_id]


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


def complete(tx: Tx, env: Env, flag: PartialRoom, state: State, kept: Sequence[Kept] = ()) -> None:
    """Put the room on its whole state: all that came since our join is judged again upon it.

    ``kept`` are events of that state that could not be checked.  Takes long: it belongs into a
    transaction of the writer's thread.  Raises Unusable when the state does not let our user in.
    """
    room = flag.room
    if joins.partial(tx, room) != flag:
        return
    _lay_anew(tx, env, room, flag.join, snapshots.derive(tx, snapshots.EMPTY, state))
    pos = tx.position()
    joins.drop_partial(tx, room, pos)
    servers.settle(tx, room, pos)
    _tell_devices(tx, room)
    _tell_devices_to_gone(tx, room, flag.join)
    unchecked.keep(tx, room, flag.join, kept)
    tx.changed(rooms=(room,))


def settle(
    tx: Tx, env: Env, found: UndecidedRoom, decided: Sequence[EventId], false: Sequence[EventId]
) -> None:
    """Put the room on the state before our join with what is known of it now.

    Those ``decided`` are stored; those ``false`` are no events of the room.  Takes long, like
    :func:`complete`.  Raises Unusable when the state does not let our user in.
    """
    room = found.room
    if undecided.of_room(tx, room) != found:
        return
    wanted = undecided.are_state(tx, room, decided)
    before = snapshots.state(tx, SnapshotNid(events.by_nid(tx, found.join).snapshot or 0))
    further = {
        slot: nid
        for _, nid, slot, status in joins.state_rows(tx, room, sorted(wanted))
        if not status & Status.REJECTED and slot not in before
    }
    undecided.drop_events(tx, room, [*decided, *false])
    if further:
        full = snapshots.derive(tx, snapshots.EMPTY, {**before, **further})
        _lay_anew(tx, env, room, found.join, full)
        if joins.partial(tx, room) is None:
            joins.drop_partial(tx, room, tx.position())
            _tell_devices(tx, room)
    if undecided.of_room(tx, room) is None:
        unchecked.forget(tx, room)


def _tell_devices(tx: Tx, room: RoomNid) -> None:
    """Tell of our users' devices, also to servers that the join did not tell of."""
    for user in members.local_joined(tx, room):
        if device_lists.stream_id(tx, user):  # else there never was anything to tell
            device_lists.joined(tx, user, room)


def _tell_devices_to_gone(tx: Tx, room: RoomNid, join: EventNid) -> None:
    """Tell of our users' devices where it was not known that they shared this room, as well.

    Somebody's server may have been in the room with our users until it left, and been told nothing:
    the join did not name it, or its user was taken to be gone.  What it knows of our users' devices
    by another room may be out of date.
    """
    gone: dict[ServerName, None] = {}
    for nid in joins.placed_since(tx, room, join):
        event = events.by_nid(tx, nid).event
        if event.type == MEMBER and event.state_key and membership_of(event) != "join":
            gone[server_of(UserId(event.state_key))] = None
    some = [one for one in gone if not servers.is_in_room(tx, room, one)][:MAX_GONE]
    for user in members.local_joined(tx, room):
        if device_lists.stream_id(tx, user):
            shared = {servers.shared_room(tx, user, server) for server in some}
            for other in sorted(one for one in shared if one is not None):
                device_lists.joined(tx, user, other)


def _lay_anew(tx: Tx, env: Env, room: RoomNid, join_nid: EventNid, full: SnapshotNid) -> None:
    """Put our join, and all that came since, on another state."""
    again = _Again(tx, room)
    join = events.by_nid(tx, join_nid)
    again.put(join, full)
    if join.nid in again.failed:
        raise arrival.Unusable("the whole state does not allow our join")
    since = _in_order(tx, joins.placed_since(tx, room, join_nid))
    for nid in since:
        again.redo(events.by_nid(tx, nid))
    head = rooms.head(tx, room)
    # Ends that have nothing to do with our join: see arrival.finish.
    others = {*(() if head is None else head.extremities)} - {join_nid, *since}
    ends = (*sorted(others), *_ends(tx, [join_nid, *since]))
    current = resolved(tx, room, [again.after_of(nid) for nid in ends], at_any_cost=True)
    if again.release(current):
        ends = (*sorted(others), *_ends(tx, [join_nid, *since]))
        current = resolved(tx, room, [again.after_of(nid) for nid in ends], at_any_cost=True)
    arrival.lay(tx, env, room, snapshots.state(tx, current))
    rooms.set_head(tx, room, Head(ends, current))


def _in_order(tx: Tx, since: Sequence[EventNid]) -> list[EventNid]:
    """Events, each one after those of its parents that are among them."""
    wanted, order, entered = set(since), list[EventNid](), set[EventNid]()
    for first in since:
        walk = [first]
        while walk:
            nid = walk[-1]
            parents = [events.by_id(tx, one) for one in events.by_nid(tx, nid).event.prev_event_ids]
            ahead = [
                one.nid
                for one in parents
                if one is not None and one.nid in wanted and one.nid not in entered
            ]
            if nid in entered or not ahead:
                walk.pop()
                if nid not in entered:
                    order.append(nid)
                entered.add(nid)
            else:
                walk += ahead
    return order


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
    doubted: list[EventNid] = field(factory=list)  # hidden before, and allowed where they stand

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

        What its own auth events refuse stays refused; no other verdict is for ever.  What was
        hidden stays soft-failed until the current state is known (see `release`).
        """
        tx, event = self.tx, stored.event
        status = Status(stored.status)
        if not status & Status.REJECTED_BY_AUTH:
            was_hidden = status & (Status.REJECTED | Status.SOFT_FAILED)
            status &= ~(Status.REJECTED | commit.DISPUTED)
            if not self._allows(stored, before):
                hearsay = status & Status.HEARSAY
                status |= commit.DISPUTED if hearsay else Status.REJECTED
                self.failed.add(stored.nid)
            elif was_hidden:
                status |= Status.SOFT_FAILED
                self.doubted.append(stored.nid)
        following = before
        if event.state_key is not None and not status & commit.NO_EFFECT:
            slot = names.add_slot(tx, (event.type, event.state_key))
            following = snapshots.derive(tx, before, {slot: stored.nid})
        self.after[stored.nid] = following
        after = None if following == before else following
        joins.replace_snapshots(tx, stored.nid, before, after, int(status))

    def release(self, current: SnapshotNid) -> bool:
        """Let out what was hidden, if the current state allows it too; whether anything came out.

        Otherwise what somebody says who was put out of the room meanwhile would be shown, and would
        be an end of the room (T027).
        """
        tx = self.tx
        released: list[Event] = []
        is_any = False
        for nid in self.doubted:
            stored = events.by_nid(tx, nid)
            event, status = stored.event, Status(stored.status) & ~Status.SOFT_FAILED
            state = WithMembers(SnapshotState(tx, current), (), released)
            if not allows_now(tx, self.room, event, state):
                continue
            is_any = True
            after = None if stored.after is None else SnapshotNid(stored.after)
            joins.replace_snapshots(tx, nid, SnapshotNid(stored.snapshot or 0), after, int(status))
            if event.state_key is not None and not status & commit.NO_EFFECT:
                released.append(event)
            if not status & HIDDEN and event.type != DUMMY:
                joins.show(tx, nid, tx.position())
                found = events.by_nid(tx, nid)
                commit.relate(tx, found)
                redactions.apply(tx, event.rules, found)
        return is_any

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
