"""Restricted rooms: whose members may join, and who of ours may let them in.

Matrix v1.19, Client-Server API, "Restricted rooms"; Server-Server API, "Restricted rooms" ([B8.09]
to [B8.12], [C11.06], T035).
"""

from __future__ import annotations

from collections.abc import Iterator

from matrixbox.core.events import CREATE, JOIN_RULES, POWER_LEVELS, join_rule_of, power_levels
from matrixbox.core.identifiers import InvalidIdentifier, RoomId, UserId, parse_room_id
from matrixbox.core.json import Json
from matrixbox.core.room_versions import RoomRules
from matrixbox.errors import Forbidden, UnableToAuthoriseJoin, UnableToGrantJoin
from matrixbox.rooms.env import Env
from matrixbox.rooms.residence import is_resident
from matrixbox.rooms.state import CurrentState
from matrixbox.store import members, names, rooms
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

VOUCHER = "join_authorised_via_users_server"


def restricted_join_rules(rules: RoomRules) -> tuple[str, ...]:
    """The join rules of the version that look at memberships in other rooms."""
    return ("restricted",) * rules.restricted + ("knock_restricted",) * rules.knock_restricted


def voucher(tx: Tx, env: Env, room: RoomNid, user_id: UserId) -> UserId | None:
    """A user of ours who lets this one in; None where nobody has to.

    Nobody has to in rooms with other join rules, and for whom is invited or in the room already.
    Raises Forbidden when no condition is met, UnableToAuthoriseJoin when that cannot be told here,
    and UnableToGrantJoin when nobody of ours may invite.
    """
    rules = rooms.rules(tx, room)
    state = CurrentState(tx, room)
    join_rules = state.get(JOIN_RULES)
    if join_rules is None or join_rule_of(join_rules) not in restricted_join_rules(rules):
        return None
    user = names.user_nid(tx, user_id)
    present = None if user is None else members.get(tx, room, user)
    if present is not None and present.membership is Membership.BAN:
        raise Forbidden("That user is banned from the room.")
    if present is not None and present.membership in (Membership.JOIN, Membership.INVITE):
        return None
    _check_conditions(tx, env, join_rules.content.get("allow"), user_id)
    levels = power_levels(rules, state[CREATE], state.get(POWER_LEVELS))
    for ours in members.local_joined(tx, room):
        our_id = names.user_id(tx, ours)
        if levels.user(our_id) >= levels.invite:
            return our_id
    raise UnableToGrantJoin("Nobody on this server may invite into that room.")


def _check_conditions(tx: Tx, env: Env, allow: Json, user_id: UserId) -> None:
    unknown = False
    user = names.user_nid(tx, user_id)
    for room_id in _allowed_rooms(allow):
        room = names.room_nid(tx, room_id)
        if room is None or not is_resident(tx, env, room):
            unknown = True
            continue
        present = None if user is None else members.get(tx, room, user)
        if present is not None and present.membership is Membership.JOIN:
            return
    if unknown:
        raise UnableToAuthoriseJoin("This server is not in the rooms whose members may join.")
    raise Forbidden("You are not in any of the rooms whose members may join this one.")


def _allowed_rooms(allow: Json) -> Iterator[RoomId]:
    """The rooms that valid entries of ``allow`` name; other entries do not count ([B8.11])."""
    for entry in allow if isinstance(allow, list) else ():
        if isinstance(entry, dict) and entry.get("type") == "m.room_membership":
            room_id = entry.get("room_id")
            if isinstance(room_id, str):
                try:
                    yield parse_room_id(room_id)
                except InvalidIdentifier:
                    continue
