"""Whether this server has a room's graph to itself, or at first hand: whether it is in the room.

When the last user of ours leaves a room, what is known of it stays, and grows old.  Nothing may be
built upon it then: the others have gone on.

State resolution can take the last of our users out of a room while nobody has left, kicked or
banned them.  Servers with other branches of its graph may still count them in, and a later merge
can bring them back; so the room's events are taken on.  Nothing is built or shown for these users
meanwhile.
"""

from __future__ import annotations

from matrixbox.core.events import Event, membership_of
from matrixbox.core.identifiers import RoomId
from matrixbox.errors import NotFound
from matrixbox.rooms.env import Env
from matrixbox.store import events, joins, members, names, rooms
from matrixbox.store.memberships import Member
from matrixbox.store.nids import EventNid, RoomNid
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"
MAX_TAKEN = 2_000  # events of a room that our users were put out of by resolution alone
MAX_USERS = 50  # of ours, looked at
MAX_STEPS = 100  # from one membership of a user to the one before it


def is_resident(tx: Tx, env: Env, room: RoomNid) -> bool:
    """Whether what is known of a room is what is so: a user of ours, or nobody, is in it."""
    if rooms.head(tx, room) is None:
        return False
    present = members.servers(tx, room)
    return env.server_name in present or not present


def resident_room(tx: Tx, env: Env, room_id: RoomId) -> RoomNid | None:
    """The number of a room that this server is in, or None."""
    room = names.room_nid(tx, room_id)
    return room if room is not None and is_resident(tx, env, room) else None


def required_room(tx: Tx, env: Env, room_id: RoomId) -> RoomNid:
    """The number of a room that this server is in; raises NotFound."""
    room = resident_room(tx, env, room_id)
    if room is None:
        raise NotFound("This server is not in that room.")
    return room


def whole_room(tx: Tx, env: Env, room_id: RoomId) -> RoomNid:
    """A room that this server is in and knows all members of; raises NotFound ([B8.05])."""
    room = required_room(tx, env, room_id)
    if joins.partial(tx, room) is not None:
        raise NotFound("This server does not know all of that room yet.")
    return room


def is_followed(tx: Tx, env: Env, room: RoomNid) -> bool:
    """Whether a room's events are of use: we are in it, or are out by state resolution alone."""
    if rooms.head(tx, room) is None:
        return False
    if env.server_name in members.servers(tx, room):
        return True
    gone = members.local_gone(tx, room, MAX_USERS)
    return any(_was_resolved_away(tx, one) for one in gone)


def _was_resolved_away(tx: Tx, member: Member) -> bool:
    """Whether the user had joined, and no event has ended that; for so many events of the room."""
    slot = names.slot_nid(tx, (MEMBER, names.user_id(tx, member.user)))
    past = [] if slot is None else rooms.slot_history(tx, member.room, slot)
    if not past or past[-1][0] != member.pos:
        return False  # what was heard of the user since came from outside of the room
    since: list[EventNid] = []
    for _, nid in reversed(past):
        event = events.by_nid(tx, nid).event if nid else None
        if event is not None and membership_of(event) == "join":
            return all(not nid or _is_before(tx, nid, event) for nid in since) and not (
                events.are_more(tx, member.room, member.pos, MAX_TAKEN)
            )
        since.append(nid)
    return False


def _is_before(tx: Tx, nid: EventNid, join: Event) -> bool:
    """Whether one membership of a user is among those that led to a join."""
    wanted = events.by_nid(tx, nid).event.event_id
    current = join
    for _ in range(MAX_STEPS):
        if wanted in current.auth_event_ids:
            return True
        cited = (events.by_id(tx, one) for one in current.auth_event_ids)
        earlier = (
            one.event
            for one in cited
            if one is not None and (one.event.type, one.event.state_key) == (MEMBER, join.state_key)
        )
        found = next(earlier, None)
        if found is None:
            return False
        current = found
    return False
