"""Coming into a room that other servers have: its auth chain, its state, then our join.

Matrix v1.19, Server-Server API, "Joining Rooms" ([B8.04], [B8.06], T036).  The events come as
outliers, some hundreds in each transaction, so that nobody waits for a large room; nothing of them
is visible.  The last transaction makes the snapshot, lays it over what was known of the room, and
stores our join upon it: after a crash the room is either joined or not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrs import frozen

from matrixbox.core.events import Event, membership_of
from matrixbox.core.identifiers import EventId, RoomId, ServerName, UserId
from matrixbox.core.room_versions import RoomRules
from matrixbox.rooms import checks, commit, outliers
from matrixbox.rooms.commit import Candidate
from matrixbox.rooms.env import Env
from matrixbox.rooms.state import SnapshotState
from matrixbox.store import events, joins, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from matrixbox.store.joins import PartialRoom
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import EventNid, RoomNid, SlotNid, SnapshotNid, UserNid
from matrixbox.store.rooms import Head
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"


class Unusable(Exception):
    """What the other server told is no state that our user could have joined; the text says why."""


@frozen
class Partial:
    """That the members were left out of the state, and the servers in the room before the join."""

    resident: ServerName
    servers: tuple[ServerName, ...]


@frozen
class Arrived:
    """Our join as it was signed, and the state before it by the ids of its events."""

    join: Event
    state: Sequence[EventId]
    partial: Partial | None = None


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


def finish(tx: Tx, env: Env, room: RoomNid, arrived: Arrived) -> StoredEvent:
    """Take the state for the room's own, and our join for its end.  Raises Unusable."""
    rules = rooms.rules(tx, room)
    before = _snapshot(tx, room, arrived.state)
    auth = [events.by_id(tx, event_id) for event_id in arrived.join.auth_event_ids]
    known = [one for one in auth if one is not None]
    if len(known) < len(auth):
        raise Unusable("an auth event of our join is missing")
    state = SnapshotState(tx, before)
    rejected = {one.event.event_id for one in known if one.status & Status.REJECTED}
    create = rooms.create_nid(tx, room)
    finding = checks.judge(
        rules,
        arrived.join,
        checks.Surroundings(
            [one.event for one in known],
            rejected.__contains__,
            None if create is None else events.by_nid(tx, create).event,
            state,
            state,
        ),
    )
    if finding.status:
        raise Unusable(f"the state does not allow our join: {finding.reason}")
    _take_over(tx, env, room, before)
    candidate = Candidate(arrived.join, room, rules, (), known)
    earlier = events.by_id(tx, arrived.join.event_id)
    stored = commit.store(
        tx, env, candidate, finding.status, before, Head((), before), known=earlier
    )
    for parent in arrived.join.prev_event_ids:
        found = events.by_id(tx, parent)
        if found is None or found.status & Status.OUTLIER:
            rooms.add_gap(tx, room, parent, stored.nid)
    _settle(tx, room, stored, arrived.partial)
    return stored


def _snapshot(tx: Tx, room: RoomNid, state: Sequence[EventId]) -> SnapshotNid:
    found = [one for event_id in state if (one := events.by_id(tx, event_id)) is not None]
    try:
        return outliers.snapshot_of(tx, room, found)
    except outliers.UnusableState as error:
        raise Unusable(str(error)) from error


def _settle(tx: Tx, room: RoomNid, stored: StoredEvent, partial: Partial | None) -> None:
    """What was remembered of the user's invitation is over; the members may be still to come."""
    user = names.add_user(tx, stored.event.sender)
    joins.drop_outside(tx, room, user)
    if partial is None:
        joins.drop_partial(tx, room)
    else:
        flag = PartialRoom(room, stored.nid, partial.resident, partial.servers)
        joins.put_partial(tx, flag)


def _take_over(tx: Tx, env: Env, room: RoomNid, state: SnapshotNid) -> None:
    """Make a state told by others the room's current one, at a position before our join."""
    head = rooms.head(tx, room)
    old = snapshots.EMPTY if head is None else head.snapshot
    replace_current(tx, env, room, old, state)
    # What was the room's end is past; it is part of the history that our join closes.
    rooms.set_head(tx, room, Head((), state))


def replace_current(tx: Tx, env: Env, room: RoomNid, old: SnapshotNid, new: SnapshotNid) -> None:
    """Lay one state over another, many rows at once where they concern other servers only."""
    changes = snapshots.difference(tx, old, new)
    if not changes:
        return
    pos = tx.position()
    plain: list[tuple[SlotNid, int, EventNid]] = []
    far: list[tuple[UserNid, Membership, EventNid]] = []
    ours: dict[SlotNid, tuple[int, int]] = {}
    for slot, (before, after) in changes.items():
        kind, state_key = names.slot_key(tx, slot)
        if not after or (kind == MEMBER and _is_ours(env, state_key)):
            ours[slot] = (before, after)
            continue
        nid = EventNid(after)
        plain.append((slot, before, nid))
        if kind == MEMBER:
            word = Membership.of(membership_of(events.by_nid(tx, nid).event))
            far.append((names.add_user(tx, UserId(state_key)), word, nid))
    joins.put_state(tx, room, pos, plain)
    joins.put_members(tx, room, pos, far)
    commit.change_current_state(tx, env, room, pos, ours)
    tx.changed(rooms=(room,))


def _is_ours(env: Env, state_key: str) -> bool:
    return state_key.partition(":")[2] == env.server_name
