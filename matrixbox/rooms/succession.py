"""What a user takes along from a room to the one that replaces it.

Matrix v1.19, Client-Server API, "Room upgrades": tags, push rules for the room, whether it is a
direct chat ([A7.12]).  The old room has to name the new one, or else any room could call itself the
heir of another; who makes the new room takes along before the old one is closed.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from matrixbox.core.events import CREATE
from matrixbox.core.identifiers import RoomId
from matrixbox.core.json import Json, decode_stored, encode
from matrixbox.core.push_rules import Kind
from matrixbox.rooms import push_rules
from matrixbox.rooms.state import CurrentState
from matrixbox.store import account_data, names
from matrixbox.store.account_data import GLOBAL, Entry
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx

TOMBSTONE = ("m.room.tombstone", "")
TAGS = "m.tag"
DIRECT = "m.direct"


def inherit(tx: Tx, user: UserNid, room: RoomNid) -> None:
    """Give a user of ours who has come into a room what he had in its predecessor."""
    old = _predecessor(tx, user, room)
    if old is None:
        return
    old_id, new_id = names.room_id(tx, old), names.room_id(tx, room)
    tags = account_data.get(tx, user, old, TAGS)
    if tags is not None and account_data.get(tx, user, room, TAGS) is None:
        account_data.put(tx, user, Entry(room, TAGS, tags, tx.position()))
    _inherit_rule(tx, user, old_id, new_id)
    _inherit_direct(tx, user, old_id, new_id)
    tx.changed(users=(user,))


def _predecessor(tx: Tx, user: UserNid, room: RoomNid) -> RoomNid | None:
    create = CurrentState(tx, room).get(CREATE)
    named = None if create is None else create.content.get("predecessor")
    old_id = named.get("room_id") if isinstance(named, Mapping) else None
    old = names.room_nid(tx, RoomId(old_id)) if isinstance(old_id, str) else None
    if create is None or old is None:
        return None
    if create.sender == names.user_id(tx, user):
        return old
    tombstone = CurrentState(tx, old).get(TOMBSTONE)
    heir = None if tombstone is None else tombstone.content.get("replacement_room")
    return old if heir == names.room_id(tx, room) else None


def _inherit_rule(tx: Tx, user: UserNid, old_id: RoomId, new_id: RoomId) -> None:
    own, changes = push_rules.own_rules(tx, user)
    rules = own.get(Kind.ROOM, [])
    theirs = [rule for rule in rules if rule.rule_id == old_id]
    if theirs and all(rule.rule_id != new_id for rule in rules):
        more = [evolve(rule, rule_id=new_id) for rule in theirs]
        push_rules.store(tx, user, {**own, Kind.ROOM: [*rules, *more]}, changes)


def _inherit_direct(tx: Tx, user: UserNid, old_id: RoomId, new_id: RoomId) -> None:
    stored = account_data.get(tx, user, GLOBAL, DIRECT)
    content = None if stored is None else decode_stored(stored)
    if not isinstance(content, Mapping):
        return
    found: dict[str, Json] = dict(content)
    for person, listed in content.items():
        if isinstance(listed, list) and old_id in listed and new_id not in listed:
            found[person] = [*listed, new_id]
    if found != content:
        account_data.put(tx, user, Entry(GLOBAL, DIRECT, encode(found), tx.position()))
