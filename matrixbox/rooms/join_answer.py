"""What a server gets to know of a room when one of its users has joined.

Matrix v1.19, Server-Server API, `send_join` ([B8.04], [B8.05], [C8.15]).
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from matrixbox.core.events import Event, membership_of
from matrixbox.core.identifiers import ServerName
from matrixbox.store import chains, events, members, names, snapshots
from matrixbox.store.nids import EventNid, RoomNid, SlotNid, SnapshotNid
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"
HEROES = 5
_NAMES = (("m.room.name", "name"), ("m.room.canonical_alias", "alias"))


@frozen
class JoinAnswer:
    """The join as it stands here, the state before it, and the auth chains of both."""

    join: Event
    state: Sequence[EventNid]
    auth_chain: Sequence[EventNid]
    servers: Sequence[ServerName] | None  # in the room; only where members were left out


def answer(tx: Tx, nid: EventNid, *, omit_members: bool) -> JoinAnswer:
    """The answer about a join that was accepted; takes long in large rooms."""
    stored = events.by_nid(tx, nid)
    assert stored.snapshot is not None
    before = snapshots.state(tx, SnapshotNid(stored.snapshot))
    if not omit_members:
        state = [*before.values()]
        return JoinAnswer(stored.event, state, chains.auth_chain(tx, [*state, nid]), None)
    state = _without_members(tx, stored.room, before, stored.event)
    chain = set(chains.auth_chain(tx, [*state, nid])).difference(state)
    servers = [*members.servers(tx, stored.room)]
    joining = ServerName(stored.event.sender.partition(":")[2])
    if not _was_there(tx, before, joining):
        servers = [server for server in servers if server != joining]
    return JoinAnswer(stored.event, state, sorted(chain), servers)


def _without_members(
    tx: Tx, room: RoomNid, before: dict[SlotNid, EventNid], join: Event
) -> list[EventNid]:
    """The state but for memberships, except those that name the room and the user's own."""
    kept = []
    own = None
    for slot, nid in before.items():
        kind, state_key = names.slot_key(tx, slot)
        if kind != MEMBER:
            kept.append(nid)
        elif state_key == join.sender:
            own = nid
    heroes = [] if _has_name(tx, before) else _heroes(tx, room, before, join)
    return [*kept, *heroes, *([] if own is None else [own])]


def _has_name(tx: Tx, before: dict[SlotNid, EventNid]) -> bool:
    for kind, key in _NAMES:
        slot = names.slot_nid(tx, (kind, ""))
        nid = None if slot is None else before.get(slot)
        if nid is not None and events.by_nid(tx, nid).event.content.get(key):
            return True
    return False


def _heroes(tx: Tx, room: RoomNid, before: dict[SlotNid, EventNid], join: Event) -> list[EventNid]:
    """The memberships of those who give a nameless room its name."""
    found = []
    user = names.user_nid(tx, join.sender)
    assert user is not None
    for hero in members.some(tx, room, user, HEROES):
        slot = names.slot_nid(tx, (MEMBER, names.user_id(tx, hero)))
        if slot is not None and slot in before:
            found.append(before[slot])
    return found


def _was_there(tx: Tx, before: dict[SlotNid, EventNid], server: ServerName) -> bool:
    for slot, nid in before.items():
        kind, state_key = names.slot_key(tx, slot)
        if (
            kind == MEMBER
            and state_key.partition(":")[2] == server
            and membership_of(events.by_nid(tx, nid).event) == "join"
        ):
            return True
    return False
