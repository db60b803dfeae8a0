"""Summaries of rooms and of the rooms in spaces, and who may have them.

Matrix v1.19, Client-Server API, "Spaces" and "Room summaries"; Server-Server API, "Spaces"
([B13.03], [C12.05] to [C12.09], T107): whoever is in the room, may join or knock, and everybody
where all may read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from matrixbox.core.client_format import stripped_state
from matrixbox.core.events import CREATE, JOIN_RULES, Event, join_rule_of
from matrixbox.core.identifiers import InvalidIdentifier, RoomId, ServerName, parse_room_id
from matrixbox.core.json import Json
from matrixbox.core.visibility import HistoryVisibility
from matrixbox.rooms import public_rooms, servers
from matrixbox.rooms.reading import HISTORY
from matrixbox.rooms.state import CurrentState
from matrixbox.store import events, members, names, rooms
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx

Summary = Mapping[str, Json]

CHILD = "m.space.child"
SPACE = "m.space"
OPEN_RULES = ("public", "knock", "knock_restricted")
RESTRICTED_RULES = ("restricted", "knock_restricted")
MAX_ALLOWED = 50  # rooms whose members may join a restricted one, as far as we look
MAX_CHILDREN = 1_000  # of one space
MAX_SUMMARIES = 50  # of children, in one answer to a server
MAX_VIA = 50
_INSIDE = (Membership.JOIN, Membership.INVITE)


# --- what a room looks like


def summary(tx: Tx, room: RoomNid) -> dict[str, Json]:
    """What is told of a room to those who may know of it."""
    state = CurrentState(tx, room)
    shown = public_rooms.summary(tx, room)
    shown["room_version"] = rooms.rules(tx, room).version
    encryption = state.get(("m.room.encryption", ""))
    algorithm = None if encryption is None else encryption.content.get("algorithm")
    if isinstance(algorithm, str):
        shown["encryption"] = algorithm
    rule = state.get(JOIN_RULES)
    if join_rule_of(rule) in RESTRICTED_RULES:
        shown["allowed_room_ids"] = [*allowed_rooms(rule)]
    return shown


def allowed_rooms(join_rules: Event | None) -> list[RoomId]:
    """The rooms whose members may join a restricted room."""
    conditions = None if join_rules is None else join_rules.content.get("allow")
    found: list[RoomId] = []
    for condition in conditions if isinstance(conditions, list) else []:
        if isinstance(condition, Mapping) and condition.get("type") == "m.room_membership":
            room_id = as_room_id(condition.get("room_id"))
            if room_id is not None and len(found) < MAX_ALLOWED:
                found.append(room_id)
    return found


def as_room_id(value: Json) -> RoomId | None:
    """A room id in somebody's event; None for anything else."""
    try:
        return parse_room_id(value) if isinstance(value, str) else None
    except InvalidIdentifier:
        return None


def is_space(shown: Summary) -> bool:
    """Whether a room that looks so is a space."""
    return shown.get("room_type") == SPACE


def children_state(tx: Tx, room: RoomNid, *, suggested_only: bool = False) -> list[Json]:
    """The children of a space as its events name them, in the order in which to show them."""
    state = CurrentState(tx, room)
    create = state.get(CREATE)
    if create is None or create.content.get("type") != SPACE:
        return []
    found = (events.by_nid(tx, nid).event for nid in rooms.current_of_type(tx, room, CHILD))
    named: list[Json] = [
        {**stripped_state(event), "origin_server_ts": event.origin_server_ts} for event in found
    ]
    return sorted_children(named, suggested_only=suggested_only)


def sorted_children(named: Iterable[Json], *, suggested_only: bool) -> list[Json]:
    """Stripped child events that are valid, by `order`, then time, then room ([C12.07])."""
    chosen = [
        child
        for child in named
        if isinstance(child, Mapping)
        and as_room_id(child.get("state_key")) is not None
        and via_of(child)
        and (not suggested_only or _content(child).get("suggested") is True)
    ]
    chosen.sort(key=_order)
    return [*chosen[:MAX_CHILDREN]]


def via_of(child: Mapping[str, Json]) -> list[ServerName]:
    """The servers by which a child can be joined; empty for what is no child ([C12.08])."""
    via = _content(child).get("via")
    if not isinstance(via, list):
        return []
    return [ServerName(one) for one in via[:MAX_VIA] if isinstance(one, str)]


def _content(child: Mapping[str, Json]) -> Mapping[str, Json]:
    content = child.get("content")
    return content if isinstance(content, Mapping) else {}


def _order(child: Mapping[str, Json]) -> tuple[bool, str, int, str]:
    order, sent = _content(child).get("order"), child.get("origin_server_ts")
    valid = isinstance(order, str) and len(order) <= 50 and all(" " <= c <= "~" for c in order)
    return (
        not valid,
        str(order) if valid else "",
        sent if isinstance(sent, int) else 0,
        str(child.get("state_key")),
    )


# --- who may know of it


def is_open_to_user(tx: Tx, room: RoomNid, user: UserNid | None) -> bool:
    """Whether a user may know of a room; None stands for somebody without an account here."""
    state = CurrentState(tx, room)
    if HistoryVisibility.of(state.get(HISTORY)) is HistoryVisibility.WORLD_READABLE:
        return True
    present = None if user is None else members.get(tx, room, user)
    if present is not None and present.membership is Membership.BAN:
        return False
    if present is not None and present.membership in _INSIDE:
        return True
    rule = state.get(JOIN_RULES)
    if join_rule_of(rule) in OPEN_RULES:
        return True
    return join_rule_of(rule) in RESTRICTED_RULES and _is_in_any(tx, user, allowed_rooms(rule))


def may_have_told(tx: Tx, user: UserNid, shown: Summary) -> bool:
    """Whether a user may know of a room of which another server told us ([B13.03])."""
    room_id = as_room_id(shown.get("room_id"))
    room = None if room_id is None else names.room_nid(tx, room_id)
    present = None if room is None else members.get(tx, room, user)
    if shown.get("world_readable") is True:
        return True
    if present is not None and present.membership is Membership.BAN:
        return False
    if present is not None and present.membership in _INSIDE:
        return True
    rule = shown.get("join_rule", "public")
    if rule in OPEN_RULES:
        return True
    allowed = shown.get("allowed_room_ids")
    wanted = allowed if isinstance(allowed, list) else []
    return rule in RESTRICTED_RULES and _is_in_any(tx, user, wanted)


def _is_in_any(tx: Tx, user: UserNid | None, wanted: Sequence[Json]) -> bool:
    if user is None:
        return False
    for room_id in wanted[:MAX_ALLOWED]:
        room = names.room_nid(tx, RoomId(room_id)) if isinstance(room_id, str) else None
        present = None if room is None else members.get(tx, room, user)
        if present is not None and present.membership is Membership.JOIN:
            return True
    return False


def standing(tx: Tx, user: UserNid, room_id: RoomId) -> str:
    """A user's membership in a room, as far as it is known here."""
    room = names.room_nid(tx, room_id)
    present = None if room is None else members.get(tx, room, user)
    return "leave" if present is None else present.membership.name.lower()


def is_open_to_server(tx: Tx, room: RoomNid, server: ServerName) -> bool:
    """Whether some user of a server may know of a room."""
    state = CurrentState(tx, room)
    if not servers.is_allowed(tx, room, server):
        return False
    if HistoryVisibility.of(state.get(HISTORY)) is HistoryVisibility.WORLD_READABLE:
        return True
    rule = state.get(JOIN_RULES)
    if join_rule_of(rule) in OPEN_RULES or servers.is_in_room(tx, room, server):
        return True
    if any(membership in _INSIDE for _, membership in members.of_server(tx, room, server)):
        return True
    if join_rule_of(rule) not in RESTRICTED_RULES:
        return False
    known = (names.room_nid(tx, room_id) for room_id in allowed_rooms(rule))
    return any(one is not None and servers.is_in_room(tx, one, server) for one in known)


# --- for servers


def resident_room(tx: Tx, room_id: RoomId) -> RoomNid | None:
    """A room that users of ours are in, so that what we know of it is true."""
    room = names.room_nid(tx, room_id)
    if room is None or rooms.head(tx, room) is None or not members.local_joined(tx, room):
        return None
    return room


def for_server(
    tx: Tx, room_id: RoomId, server: ServerName, *, suggested_only: bool
) -> dict[str, Json] | None:
    """A space with its children, as another server may know them; None for nothing."""
    room = resident_room(tx, room_id)
    if room is None or not is_open_to_server(tx, room, server):
        return None
    named = children_state(tx, room, suggested_only=suggested_only)
    shown: list[Json] = []
    closed: list[Json] = []
    for child in named[:MAX_SUMMARIES]:
        assert isinstance(child, Mapping)
        child_id = RoomId(str(child["state_key"]))
        there = resident_room(tx, child_id)
        if there is None:
            continue
        if is_open_to_server(tx, there, server):
            shown.append({**summary(tx, there), "children_state": []})
        else:
            closed.append(child_id)
    return {
        "room": {**summary(tx, room), "children_state": named},
        "children": shown,
        "inaccessible_children": closed,
    }
