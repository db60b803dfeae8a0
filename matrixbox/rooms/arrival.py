"""Coming into a room that other servers have: its auth chain, its state, then our join.

Matrix v1.19, Server-Server API, "Joining Rooms" ([B8.04], [B8.06], T036).  The events come as
outliers, and the members after them, some hundreds in each transaction, so that nobody waits for a
large room; nothing of a room without a head is visible.  The last transaction makes the snapshot,
lays the state over what was known of the room, and stores our join upon it: after a crash the room
is either joined or not.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping, Sequence

from attrs import frozen

from matrixbox.core.events import CREATE, Event, StateMap, membership_of
from matrixbox.core.identifiers import EventId, RoomId, ServerName, UserId, server_of
from matrixbox.core.room_versions import RoomRules
from matrixbox.rooms import checks, commit, outliers, succession, unchecked
from matrixbox.rooms.commit import Candidate
from matrixbox.rooms.env import Env
from matrixbox.rooms.restricted import VOUCHER
from matrixbox.rooms.state import SnapshotState
from matrixbox.store import (
    events,
    inbound,
    joins,
    members,
    names,
    outbound,
    rooms,
    servers,
    snapshots,
    undecided,
)
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from matrixbox.store.joins import Entry, PartialRoom
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import EventNid, RoomNid, SlotNid
from matrixbox.store.rooms import Head
from matrixbox.store.transaction import Tx
from matrixbox.store.undecided import Kept

MEMBER = "m.room.member"
MAX_OURS = 1_000  # users of ours who were in a room before
_OUT = (Membership.LEAVE, Membership.BAN)

State = Mapping[SlotNid, EventNid]


class Unusable(Exception):
    """What the other server told is no state that our user could have joined; the text says why."""


@frozen
class Partial:
    """That the members were left out of the state, and the servers in the room before the join."""

    resident: ServerName
    servers: tuple[ServerName, ...]


@frozen
class Arrived:
    """Our join as it was signed, and the state before it as a server has told it."""

    join: Event
    state: State
    server: ServerName
    partial: Partial | None = None
    undecided: Sequence[Kept] = ()  # events of that state that could not be checked yet


def begin(tx: Tx, _env: Env, room_id: RoomId, rules: RoomRules) -> RoomNid:
    """A number for the room, with the version that its events were read by."""
    room = names.room_nid(tx, room_id)
    if room is None:
        return rooms.add(tx, room_id, rules.version)
    if rooms.rules(tx, room) is not rules:
        if rooms.create_nid(tx, room) is not None:
            raise Unusable("the room has another version than the one it is known by")
        joins.set_version(tx, room, rules.version)
    return room


def admit(
    tx: Tx,
    env: Env,
    room: RoomNid,
    rules: RoomRules,
    batch: Sequence[Event],
    pruned: Collection[EventId],
) -> None:
    """Store some events of the auth chain and the state, those first that others cite."""
    outliers.admit(tx, env, room, rules, batch, pruned)


def state_of(tx: Tx, room: RoomNid, event_ids: Iterable[EventId]) -> State:
    """The state that some stored events make; those that were rejected are no part of it.

    Raises Unusable without the room's own create event, or with two events for one slot.
    """
    found: dict[SlotNid, EventNid] = {}
    for _, nid, slot, status in joins.state_rows(tx, room, event_ids):
        if not status & Status.REJECTED and found.setdefault(slot, nid) != nid:
            raise Unusable("two events for one type and state key")
    create = names.slot_nid(tx, CREATE)
    if create is None or found.get(create) != rooms.create_nid(tx, room):
        raise Unusable("the room's create event is missing")
    return found


def far_members(
    tx: Tx, env: Env, entries: Iterable[tuple[SlotNid, EventNid]]
) -> list[tuple[SlotNid, EventNid, UserId, Membership]]:
    """Those entries of a state that say what users of other servers are in the room."""
    found = []
    for slot, nid in entries:
        kind, state_key = names.slot_key(tx, slot)
        if kind == MEMBER and not _is_ours(env, state_key):
            word = Membership.of(membership_of(events.by_nid(tx, nid).event))
            found.append((slot, nid, UserId(state_key), word))
    return found


def prepare(tx: Tx, env: Env, room: RoomNid, some: Sequence[tuple[SlotNid, EventNid]]) -> None:
    """Put memberships of users of other servers where the room's current state has none yet."""
    found = [
        Entry(slot, nid, names.add_user(tx, user_id), word)
        for slot, nid, user_id, word in far_members(tx, env, some)
    ]
    if found:
        joins.add_far_members(tx, room, tx.position(), found)


def finish(tx: Tx, env: Env, room: RoomNid, arrived: Arrived) -> StoredEvent:
    """Take the state for the room's own, and our join for its end.  Raises Unusable."""
    state = arrived.state
    if arrived.partial is not None:
        state = {**_voucher_of(tx, room, arrived.join), **state}
    before = snapshots.derive(tx, snapshots.EMPTY, state)
    auth = _judged(tx, room, arrived.join, SnapshotState(tx, before))
    ends = _not_handed_over(tx, env, room, arrived.server, SnapshotState(tx, before), auth)
    if arrived.partial is not None:
        state = {**_ours_who_are_out(tx, room, arrived.join), **state}
        before = snapshots.derive(tx, snapshots.EMPTY, state)
    lay(tx, env, room, state)
    # What was the room's end is past; it is part of the history that our join closes.
    rooms.set_head(tx, room, Head(ends, before))
    earlier = events.by_id(tx, arrived.join.event_id)
    unknown = [
        event_id
        for event_id in arrived.join.prev_event_ids
        if (parent := events.by_id(tx, event_id)) is None or parent.snapshot is None
    ]
    candidate = Candidate(
        arrived.join, room, rooms.rules(tx, room), (), auth, missing=unknown, told=before
    )
    stored = commit.store(
        tx, env, candidate, Status.ACCEPTED, before, Head(ends, before), known=earlier
    )
    _settle(tx, room, stored, arrived.partial)
    unchecked.keep(tx, room, stored.nid, arrived.undecided)
    return stored


def _not_handed_over(
    tx: Tx,
    env: Env,
    room: RoomNid,
    server: ServerName,
    told: StateMap,
    cited: Sequence[StoredEvent],
) -> tuple[EventNid, ...]:
    """The old ends of the graph that are ours, and that the server which let us in is still owed.

    It cannot have had them, so our join does not stand on them, and what it told lacks them: they
    stay ends, and their states are resolved with that of the join.  Or it had them, and only its
    answer was lost: then those failed there (check 6) that the state does not allow which it has
    told, or what our join cites where members are left out.  Nobody ever joins such an end, and it
    could put our user out again.
    """
    head, number = rooms.head(tx, room), outbound.server_of(tx, server)
    if head is None or number is None:
        return ()
    after = outbound.cursor(tx, number)
    return tuple(
        nid
        for nid in head.extremities
        if server_of((event := events.by_nid(tx, nid).event).sender) == env.server_name
        and outbound.is_owed(tx, number, room, nid, after)
        and _is_allowed(tx, event, told, cited)
    )


def _is_allowed(tx: Tx, event: Event, told: StateMap, cited: Sequence[StoredEvent]) -> bool:
    """Whether a state allows an event, with what our join and the event cite where it has none."""
    own = (events.by_id(tx, event_id) for event_id in event.auth_event_ids)
    known = [*(one for one in own if one is not None), *cited]  # the last one counts
    rest = {(one.event.type, one.event.state_key or ""): one.event for one in known}
    state = ChainMap(told, rest)  # type: ignore[arg-type]  # it is only read
    return not checks.judge_by_state(event.rules, event, state, Status.SOFT_FAILED).status


def _ours_who_are_out(tx: Tx, room: RoomNid, join: Event) -> State:
    """The leaves and bans of users of ours, but for the one who joins, as they are known here.

    The members of the state that was told are still to come.  Meanwhile a late event of a branch on
    which these users were in the room would bring them back: they would be the only ones for whom
    nobody else takes us to be in it, and who could never be told the rest.
    """
    found: dict[SlotNid, EventNid] = {}
    for one in members.local_gone(tx, room, MAX_OURS, forgotten=True):
        user_id = names.user_id(tx, one.user)
        slot = names.slot_nid(tx, (MEMBER, user_id))
        if user_id != join.sender and slot and one.event and one.membership in _OUT:
            found[slot] = one.event
    return found


def _voucher_of(tx: Tx, room: RoomNid, join: Event) -> State:
    """The membership of the user who let ours in, by which the join is judged ([B8.09]).

    Servers that leave the members out of the state leave out this one too; the join cites it.
    """
    wanted = names.slot_nid(tx, (MEMBER, str(join.content.get(VOUCHER))))
    return {
        slot: nid
        for _, nid, slot, status in joins.state_rows(tx, room, join.auth_event_ids)
        if slot == wanted and not status & Status.REJECTED
    }


def _judged(tx: Tx, room: RoomNid, join: Event, state: SnapshotState) -> list[StoredEvent]:
    """The auth events of our join, which the state must allow.  Raises Unusable."""
    found = [events.by_id(tx, event_id) for event_id in join.auth_event_ids]
    auth = [one for one in found if one is not None]
    if len(auth) < len(found):
        raise Unusable("an auth event of our join is missing")
    rejected = {one.event.event_id for one in auth if one.status & Status.REJECTED}
    create = rooms.create_nid(tx, room)
    around = checks.Surroundings(
        [one.event for one in auth],
        rejected.__contains__,
        None if create is None else events.by_nid(tx, create).event,
        state,
        state,
    )
    finding = checks.judge(rooms.rules(tx, room), join, around)
    if finding.status:
        raise Unusable(f"the state does not allow our join: {finding.reason}")
    return auth


def _settle(tx: Tx, room: RoomNid, stored: StoredEvent, partial: Partial | None) -> None:
    """What was remembered of the user's invitation is over; the members may be still to come.

    A room that took no events because it cost too much begins anew with the state that was told.
    """
    inbound.unpark(tx, room)
    user = names.add_user(tx, stored.event.sender)
    joins.drop_outside(tx, room, user)
    undecided.drop_join(tx, room, user)
    succession.inherit(tx, user, room)
    if partial is None:
        joins.drop_partial(tx, room)
        return
    pos = stored.nid if stored.pos is None else stored.pos
    joins.put_partial(tx, PartialRoom(room, stored.nid, partial.resident, partial.servers))
    servers.assume(tx, room, partial.servers, pos)


def lay(tx: Tx, env: Env, room: RoomNid, state: State) -> None:
    """Make a state the current one, at a position of its own.

    Memberships of users of other servers that were not known before are no change: whoever reads
    the room from now on takes them to have been there.
    """
    present = rooms.current_state(tx, room)
    changes: dict[SlotNid, tuple[int, int]] = {}
    new: list[tuple[SlotNid, EventNid]] = []
    for slot, nid in state.items():
        before = present.pop(slot, EventNid(0))
        if before == nid:
            continue
        if before:
            changes[slot] = (before, nid)
        else:
            new.append((slot, nid))
    changes.update({slot: (nid, 0) for slot, nid in present.items()})
    far = {slot for slot, *_ in far_members(tx, env, new)}
    prepare(tx, env, room, [(slot, nid) for slot, nid in new if slot in far])
    changes.update({slot: (0, nid) for slot, nid in new if slot not in far})
    if changes:
        commit.change_current_state(tx, env, room, tx.position(), changes)
    tx.changed(rooms=(room,))


def _is_ours(env: Env, state_key: str) -> bool:
    return state_key.partition(":")[2] == env.server_name
