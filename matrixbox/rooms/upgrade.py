"""Replacing a room by one of another version.

Matrix v1.19, Client-Server API, "Room upgrades" ([A7.08] to [A7.11]).
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from matrixbox.core.events import CREATE, creators_of, power_levels
from matrixbox.core.identifiers import RoomId, UserId
from matrixbox.core.json import Json
from matrixbox.core.room_versions import ROOM_VERSIONS, RoomRules
from matrixbox.errors import Forbidden, UnsupportedRoomVersion
from matrixbox.rooms import ingest
from matrixbox.rooms.build import Draft
from matrixbox.rooms.create import TOMBSTONE, RoomRequest, StateDraft, create_room, creators
from matrixbox.rooms.env import Env
from matrixbox.rooms.power import POWER
from matrixbox.rooms.state import CurrentState
from matrixbox.store import events, names, rooms
from matrixbox.store.caches import Session
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

CARRIED = (
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
)


def upgrade(
    tx: Tx,
    env: Env,
    who: Session,
    room: RoomNid,
    version: str,
    additional_creators: tuple[UserId, ...] = (),
) -> RoomId:
    """Make the successor, move what can be moved, close the old room; the new room's id."""
    rules = ROOM_VERSIONS.get(version)
    if rules is None:
        raise UnsupportedRoomVersion("This server does not know that room version.")
    state = CurrentState(tx, room)
    old_rules = rooms.rules(tx, room)
    levels = power_levels(old_rules, state[CREATE], state.get((POWER, "")))
    own = levels.user(who.user_id)
    if own < levels.required_for(TOMBSTONE, is_state=True):
        raise Forbidden("You may not close this room.")
    request = _successor(tx, room, who, rules, state, additional_creators)
    final = request.power_levels
    request = evolve(request, power_levels=_enough_to_build(rules, who, final))
    new_id = create_room(tx, env, who, request)
    new = names.room_nid(tx, new_id)
    assert new is not None
    _move_aliases(tx, env, who, state, room, new)
    if request.power_levels != final:
        ingest.send(tx, env, new, Draft(POWER, who.user_id, final, ""))
    tombstone = {"body": "This room has been replaced", "replacement_room": new_id}
    ingest.send(tx, env, room, Draft(TOMBSTONE, who.user_id, tombstone, ""))
    _quiet(tx, env, who, room, state)
    if rooms.is_published(tx, room):
        rooms.set_published(tx, room, 0)
        rooms.set_published(tx, new, 1)
    return new_id


def _successor(
    tx: Tx,
    room: RoomNid,
    who: Session,
    rules: RoomRules,
    state: CurrentState,
    additional_creators: tuple[UserId, ...],
) -> RoomRequest:
    old_create = state[CREATE].content
    predecessor: dict[str, Json] = {"room_id": names.room_id(tx, room)}
    if not rules.room_id_is_create_hash:
        head = rooms.head(tx, room)
        assert head is not None
        predecessor["event_id"] = _last_event(tx, head)
    creation: dict[str, Json] = {"predecessor": predecessor}
    for key in ("type", "m.federate"):
        if key in old_create:
            creation[key] = old_create[key]
    if rules.privileged_creators and additional_creators:
        creation["additional_creators"] = list(additional_creators)
    carried = [
        StateDraft(kind, "", dict(state[kind, ""].content))
        for kind in CARRIED
        if (kind, "") in state
    ]
    power = _power(tx, room, who, rules, state, creation)
    return RoomRequest(
        version=rules.version,
        preset="private_chat",
        initial_state=tuple(carried),
        creation_content=creation,
        power_levels=power,
    )


def _enough_to_build(
    rules: RoomRules, who: Session, final: Mapping[str, Json]
) -> Mapping[str, Json]:
    """The final levels, but with the power for the user to set up the room first."""
    users, events_ = final.get("users"), final.get("events")
    if rules.privileged_creators or not isinstance(users, Mapping):
        return final
    named = events_.values() if isinstance(events_, Mapping) else ()
    needed = [final.get("state_default", 50), users.get(who.user_id, 0), 100, *named]
    highest = max(level for level in needed if isinstance(level, int))
    return {**final, "users": {**users, who.user_id: highest}}


def _last_event(tx: Tx, head: rooms.Head) -> str:
    return events.by_nid(tx, head.extremities[-1]).event.event_id


def _power(
    tx: Tx,
    room: RoomNid,
    who: Session,
    rules: RoomRules,
    state: CurrentState,
    creation: Mapping[str, Json],
) -> dict[str, Json]:
    """The old power levels as the new version reads them ([A7.10])."""
    present = state.get((POWER, ""))
    content: dict[str, Json] = {} if present is None else dict(present.content)
    old_rules = rooms.rules(tx, room)
    named_users = content.get("users")
    users = dict(named_users) if isinstance(named_users, Mapping) else {}
    if old_rules.privileged_creators and not rules.privileged_creators:
        highest = max([100, *(level for level in users.values() if isinstance(level, int))])
        for creator in creators_of(state[CREATE]):
            users[creator] = highest
    for creator in creators(rules, who.user_id, creation):
        users.pop(creator, None)
    if not rules.privileged_creators:
        users.setdefault(who.user_id, 100)
    content["users"] = users
    if rules.privileged_creators:
        named = content.get("events")
        needed = dict(named) if isinstance(named, Mapping) else {}
        default = content.get("state_default", 50)
        floor = max(150, default + 1 if isinstance(default, int) else 150)
        level = needed.get(TOMBSTONE)
        needed[TOMBSTONE] = max(floor, level) if isinstance(level, int) else floor
        content["events"] = needed
    return content


def _move_aliases(
    tx: Tx, env: Env, who: Session, state: CurrentState, old: RoomNid, new: RoomNid
) -> None:
    """Local aliases lead to the successor, which says so if the old room did."""
    rooms.move_aliases(tx, old, new)
    present = state.get(("m.room.canonical_alias", ""))
    if present is not None:
        draft = Draft("m.room.canonical_alias", who.user_id, dict(present.content), "")
        ingest.send(tx, env, new, draft)


def _quiet(tx: Tx, env: Env, who: Session, room: RoomNid, state: CurrentState) -> None:
    """Raise what talking and inviting need in the old room, as far as the user may."""
    present = state.get((POWER, ""))
    content: dict[str, Json] = {} if present is None else dict(present.content)
    default = content.get("users_default", 0)
    quiet = max(50, default + 1 if isinstance(default, int) else 50)
    changed = False
    for key in ("events_default", "invite"):
        level = content.get(key, 0)
        if isinstance(level, int) and level < quiet:
            content[key] = quiet
            changed = True
    if not changed:
        return
    levels = power_levels(rooms.rules(tx, room), state[CREATE], present)
    if levels.user(who.user_id) >= max(quiet, levels.required_for(POWER, is_state=True)):
        ingest.send(tx, env, room, Draft(POWER, who.user_id, content, ""))
