"""Room aliases and the list of published rooms.

Matrix v1.19, Client-Server API, "Room aliases", "Published room directory" ([C12.01] to [C12.04]).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matrixbox.core.events import CREATE, power_levels
from matrixbox.core.identifiers import (
    InvalidIdentifier,
    RoomAlias,
    RoomId,
    ServerName,
    parse_room_alias,
    server_of,
)
from matrixbox.core.json import Json
from matrixbox.core.visibility import HistoryVisibility
from matrixbox.errors import BadAlias, Conflict, Forbidden, InvalidParam, NotFound
from matrixbox.rooms import ingest
from matrixbox.rooms.build import Draft
from matrixbox.rooms.env import Env
from matrixbox.rooms.state import CurrentState
from matrixbox.store import members, names, rooms
from matrixbox.store.caches import Session
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

Content = Mapping[str, Json]
CANONICAL = "m.room.canonical_alias"


def parse_alias(text: str) -> RoomAlias:
    """A room alias; raises InvalidParam."""
    try:
        return parse_room_alias(text)
    except InvalidIdentifier as error:
        raise InvalidParam("That is not a room alias.") from error


def resolve_alias(tx: Tx, alias: RoomAlias) -> tuple[RoomId, list[ServerName]]:
    """The room behind an alias of ours, and servers that are in it; raises NotFound."""
    found = rooms.alias_target(tx, alias)
    if found is None:
        raise NotFound("There is no such alias.")
    room_id, _ = found
    room = names.room_nid(tx, room_id)
    assert room is not None
    return room_id, servers_in(tx, room, server_of(alias))


def servers_in(tx: Tx, room: RoomNid, own: ServerName, limit: int = 50) -> list[ServerName]:
    """Servers in a room, ours first; also where its members are not all known ([B8.05])."""
    return list(dict.fromkeys([own, *members.servers(tx, room)]))[:limit]


def add_alias(tx: Tx, env: Env, who: Session, alias: RoomAlias, room_id: RoomId) -> None:
    """Point a new alias of our server to a room that the user is in."""
    if server_of(alias) != env.server_name:
        raise InvalidParam("Only aliases of this server can be made here.")
    room = names.room_nid(tx, room_id)
    present = None if room is None else members.get(tx, room, who.user)
    if room is None or present is None or present.membership is not Membership.JOIN:
        raise Forbidden("You are not in that room.")
    if not rooms.add_alias(tx, alias, room, who.user):
        raise Conflict("That alias is taken.")


def remove_alias(tx: Tx, env: Env, who: Session, alias: RoomAlias) -> None:
    """Forget an alias: for its maker, those who may set the canonical alias, admins (T041)."""
    found = rooms.alias_target(tx, alias)
    if found is None:
        raise NotFound("There is no such alias.")
    room_id, creator = found
    room = names.room_nid(tx, room_id)
    assert room is not None
    if not (creator == who.user or who.admin or may_send_state(tx, who, room, CANONICAL)):
        raise Forbidden("Only the maker of an alias and the room's moderators may remove it.")
    rooms.remove_alias(tx, alias)
    _drop_canonical(tx, env, who, room, alias)


def _drop_canonical(tx: Tx, env: Env, who: Session, room: RoomNid, alias: RoomAlias) -> None:
    """Take a removed alias out of the room's state, if the user may change that."""
    present = CurrentState(tx, room).get((CANONICAL, ""))
    if present is None or not may_send_state(tx, who, room, CANONICAL):
        return
    content = dict(present.content)
    others = content.get("alt_aliases")
    if isinstance(others, list):
        content["alt_aliases"] = [other for other in others if other != alias]
    if content.get("alias") == alias:
        del content["alias"]
    if content != present.content:
        ingest.send(tx, env, room, Draft(CANONICAL, who.user_id, content, ""))


def may_send_state(tx: Tx, who: Session, room: RoomNid, event_type: str) -> bool:
    """Whether a user is in the room with the power to set such state."""
    present = members.get(tx, room, who.user)
    if present is None or present.membership is not Membership.JOIN:
        return False
    state = CurrentState(tx, room)
    levels = power_levels(
        rooms.rules(tx, room), state[CREATE], state.get(("m.room.power_levels", ""))
    )
    return levels.user(who.user_id) >= levels.required_for(event_type, is_state=True)


def aliases_for(tx: Tx, who: Session, room: RoomNid) -> Sequence[str]:
    """The local aliases of a room: for its members, or anybody where all may read."""
    present = members.get(tx, room, who.user)
    joined = present is not None and present.membership is Membership.JOIN
    history = CurrentState(tx, room).get(("m.room.history_visibility", ""))
    if not joined and HistoryVisibility.of(history) is not HistoryVisibility.WORLD_READABLE:
        raise Forbidden("You are not in that room.")
    return rooms.aliases(tx, room)


def aliases_of(content: Content) -> list[Json]:
    """All aliases that a canonical alias event names, of whatever JSON type."""
    named: list[Json] = []
    if content.get("alias") is not None:
        named.append(content["alias"])
    others = content.get("alt_aliases")
    if isinstance(others, Sequence) and not isinstance(others, str):
        named.extend(others)
    return named


def check_canonical_alias(tx: Tx, env: Env, room: RoomNid, old: Content, new: Content) -> None:
    """New aliases must be well-formed and lead to this room ([C10.02])."""
    others = new.get("alt_aliases")
    if others is not None and not isinstance(others, list):
        raise InvalidParam("`alt_aliases` is a list.")
    unchanged = aliases_of(old)
    for alias in aliases_of(new):
        if alias in unchanged:
            continue
        if not isinstance(alias, str):
            raise InvalidParam("An alias is a string.")
        parsed = parse_alias(alias)
        found = rooms.alias_target(tx, parsed)
        if found is None or names.room_nid(tx, found[0]) != room:
            raise BadAlias(f"{parsed} does not lead to this room.")


def set_published(tx: Tx, env: Env, who: Session, room_id: RoomId, published: int) -> None:
    """List a room in our directory, or take it out: for those who may name its alias."""
    room = names.room_nid(tx, room_id)
    if room is None:
        raise NotFound("This server does not know that room.")
    if not (who.admin or env.publish_by_anyone or may_send_state(tx, who, room, CANONICAL)):
        raise Forbidden("You may not publish this room.")
    present = members.get(tx, room, who.user)
    if not who.admin and (present is None or present.membership is not Membership.JOIN):
        raise Forbidden("You are not in that room.")
    rooms.set_published(tx, room, published)
