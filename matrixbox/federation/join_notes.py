"""What joins look up in the database, and what they write down before they end.

Matrix v1.19, Server-Server API, "Joining Rooms".
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from matrixbox.core.events import Event
from matrixbox.core.identifiers import RoomId, ServerName
from matrixbox.core.json import Json
from matrixbox.core.room_versions import RoomRules
from matrixbox.rooms import partial
from matrixbox.rooms.env import Env
from matrixbox.store import events, members, names, outbound, rooms, undecided
from matrixbox.store.caches import Session
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx
from matrixbox.store.undecided import OwedJoin

MAX_SERVERS = 10  # that are remembered to have been handed a join


def left_behind(tx: Tx, join: Event) -> RoomNid | None:
    """The room of a join, if it was left partial and the join follows upon what is known of it."""
    room = names.room_nid(tx, join.room_id)
    if room is None or not partial.is_partial(tx, room):
        return None
    parents = [events.by_id(tx, event_id) for event_id in join.prev_event_ids]
    placed = all(one is not None and one.snapshot is not None for one in parents)
    return room if placed else None


def is_banned(tx: Tx, room_id: RoomId, who: Session) -> bool:
    """Whether the last that is known here of a user in a room is a ban."""
    room = names.room_nid(tx, room_id)
    present = None if room is None else members.get(tx, room, who.user)
    return present is not None and present.membership is Membership.BAN


def is_joined(tx: Tx, room: RoomNid, who: Session) -> bool:
    present = members.get(tx, room, who.user)
    return present is not None and present.membership is Membership.JOIN


def status(tx: Tx, event: Event) -> int | None:
    """The verdict on an event; None while it has none."""
    stored = events.by_id(tx, event.event_id)
    return None if stored is None or stored.snapshot is None else stored.status


def is_owed(tx: Tx, room_id: RoomId, server: ServerName) -> bool:
    """Whether events of ours in the room are still on their way to the server."""
    room, number = names.room_nid(tx, room_id), outbound.server_of(tx, server)
    if room is None or number is None:
        return False
    return room in outbound.rooms_owed(tx, number, outbound.cursor(tx, number))


# --- joins that did not come to their end


def owed(tx: Tx, room_id: RoomId, who: Session) -> OwedJoin | None:
    """The user's join that did not come to its end, if there is one."""
    room = names.room_nid(tx, room_id)
    return None if room is None else undecided.join_of(tx, room, who.user)


def owe(
    tx: Tx,
    _env: Env,
    rules: RoomRules,
    room_id: RoomId,
    who: Session,
    content: Mapping[str, Json],
    server: ServerName,
) -> OwedJoin:
    """Note that a server is about to be handed a join of a user's."""
    room = names.room_nid(tx, room_id)
    if room is None:
        room = rooms.add(tx, room_id, rules.version)
    before = undecided.join_of(tx, room, who.user)
    found = OwedJoin(room, who.user, (server,), content, goes_on=False)
    if before is not None:
        told = tuple(dict.fromkeys([server, *before.servers]))[:MAX_SERVERS]
        found = evolve(found, servers=told, goes_on=before.goes_on, attempts=before.attempts)
    undecided.put_join(tx, found)
    return found


def not_let_in(tx: Tx, _env: Env, owed: OwedJoin, server: ServerName) -> None:
    """A server has refused a join that it was handed."""
    rest = tuple(name for name in owed.servers if name != server)
    if rest:
        undecided.put_join(tx, evolve(owed, servers=rest))
    else:
        undecided.drop_join(tx, owed.room, owed.user)


def go_on(tx: Tx, _env: Env, owed: OwedJoin) -> None:
    """The user was let in, and only keys are missing: the join will be tried again."""
    undecided.put_join(tx, evolve(owed, goes_on=True))


def settle(tx: Tx, _env: Env, owed: OwedJoin) -> None:
    """A join came to its end."""
    undecided.drop_join(tx, owed.room, owed.user)
