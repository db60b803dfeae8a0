"""Which servers an event of a room goes to.

Matrix v1.19, Server-Server API, "Transactions", "Joining Rooms" ([B8.07], [B9.12]).  An event goes
to all servers that are in the room when it happens, and one that makes somebody leave to that
user's server, which may be in the room no more, or never was: an invitation that is withdrawn.

When two branches of a room meet, a user may be out who joined on the other one and was banned on
ours.  Their server was not in the room when that was sent, and goes on for ever believing that it
is: so it is given the ban, if it is ours.

Nor does a server know that it is out when who put it out told all others but it.  When an event of
it comes that is no longer allowed, it is given what ended its user's membership, whoever sent that:
once, and only what happened while that user was in the room, whose surroundings it may have.
"""

from __future__ import annotations

from matrixbox.core.events import membership_of
from matrixbox.core.identifiers import ServerName, UserId, server_of
from matrixbox.rooms.env import Env
from matrixbox.rooms.state import SnapshotState
from matrixbox.store import events, names, outbound, rooms, servers, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from matrixbox.store.nids import EventNid, RoomNid, SnapshotNid
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"
MAX_TOLD = 20  # events, to a server that was parted from a room
MAX_STEPS = 10  # from a membership back to the one that ended a user's time in the room
_NOT_SENT = Status.REJECTED | Status.SOFT_FAILED | Status.OUTLIER


def distribute(tx: Tx, env: Env, stored: StoredEvent) -> None:
    """Queue an event, just stored, for the other servers in its room.

    For what our users send, and for what we let in on behalf of others: joins, leaves and knocks
    through us.  Nothing is queued of what failed a check.
    """
    if stored.status & _NOT_SENT:
        return
    also = _parted(tx, env, stored)
    if also is not None or servers.has_others(tx, stored.room, env.server_name):
        pos = max(tx.changed(), stored.nid) if stored.pos is None else stored.pos
        outbound.put_event(tx, stored.room, pos, stored.nid, also=() if also is None else (also,))


def tell_the_parted(
    tx: Tx, env: Env, room: RoomNid, branch: SnapshotNid, current: SnapshotNid, pos: int
) -> None:
    """Give our part of what has prevailed to servers that are in a room on one branch alone.

    ``branch`` is the state at an end of the graph that is new here.
    """
    own = env.server_name
    differences = snapshots.difference(tx, branch, current)
    parted: set[ServerName] = set()
    prevailed: list[tuple[EventNid, ServerName]] = []
    for slot, (there, here) in differences.items():
        kind, state_key = names.slot_key(tx, slot)
        is_far = kind == MEMBER and state_key.partition(":")[2] != own
        if is_far and there and membership_of(events.by_nid(tx, EventNid(there)).event) == "join":
            server = server_of(UserId(state_key))
            parted.add(server)
            if here and server_of(events.by_nid(tx, EventNid(here)).event.sender) == own:
                prevailed.append((EventNid(here), server))
    for server in sorted(parted):
        if not servers.is_in_room(tx, room, server):
            told = [nid for nid, target in prevailed if target == server]
            outbound.part(tx, server, pos, told[:MAX_TOLD])


def tell_who_is_out(tx: Tx, env: Env, stored: StoredEvent, pos: int) -> None:
    """Give the server of an event's sender, who is in the room no more, what put that user out.

    For an event that was let in elsewhere, or comes from a server that knows no better.
    """
    sender = stored.event.sender
    server = server_of(sender)
    if server == env.server_name or servers.is_in_room(tx, stored.room, server):
        return
    current = rooms.current_event(tx, stored.room, (MEMBER, sender))
    end = None if not current else _end_of_joining(tx, events.by_nid(tx, current))
    if end is not None and server_of(end.event.sender) != server:
        outbound.part(tx, server, pos, [end.nid])


def _end_of_joining(tx: Tx, found: StoredEvent) -> StoredEvent | None:
    """The leave or ban by which somebody's joining ended, from what the membership is since."""
    key = (MEMBER, found.event.state_key or "")
    for _ in range(MAX_STEPS):
        if membership_of(found.event) == "join" or found.snapshot is None:
            return None
        earlier = SnapshotState(tx, SnapshotNid(found.snapshot)).stored(key)
        if earlier is None:
            return None
        if membership_of(earlier.event) == "join":
            return found if membership_of(found.event) in ("leave", "ban") else None
        found = earlier
    return None


def _parted(tx: Tx, env: Env, stored: StoredEvent) -> ServerName | None:
    """The server of a user of another one whose joining, invitation or knock ends with an event."""
    event = stored.event
    if event.type != MEMBER or event.state_key is None or event.sender == event.state_key:
        return None
    server = server_of(UserId(event.state_key))
    if server == env.server_name or membership_of(event) not in ("leave", "ban"):
        return None
    if servers.is_in_room(tx, stored.room, server) or stored.snapshot is None:
        return None
    earlier = SnapshotState(tx, SnapshotNid(stored.snapshot)).get((MEMBER, event.state_key))
    ended = None if earlier is None else membership_of(earlier)
    return server if ended in ("join", "invite", "knock") else None
