"""Making rooms.

Matrix v1.19, Client-Server API, "Creation": the events of a new room, in the order the
specification gives, all in one transaction ([A7.01] to [A7.07]).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from attrs import Factory, frozen

from matrixbox.core.identifiers import RoomId, UserId, server_of
from matrixbox.core.json import Json
from matrixbox.core.room_versions import ROOM_VERSIONS, RoomRules
from matrixbox.errors import (
    Forbidden,
    InvalidParam,
    InvalidRoomState,
    RoomInUse,
    UnsupportedRoomVersion,
)
from matrixbox.rooms import ingest, membership, sending, succession
from matrixbox.rooms.build import Draft
from matrixbox.rooms.env import Env
from matrixbox.rooms.power import POWER, check_levels
from matrixbox.store import names, rooms
from matrixbox.store.caches import Session
from matrixbox.store.transaction import Tx

Content = Mapping[str, Json]

ENTROPY_KEY = "org.matrixbox.entropy"
TOMBSTONE = "m.room.tombstone"
TRUSTED = "trusted_private_chat"
PRESETS: Mapping[str, tuple[str, str, str]] = {
    # join rule, history visibility, guest access
    "private_chat": ("invite", "shared", "can_join"),
    TRUSTED: ("invite", "shared", "can_join"),
    "public_chat": ("public", "shared", "forbidden"),
}


@frozen
class StateDraft:
    """One state event that the client wants in the room from the start."""

    type: str
    state_key: str
    content: Content


@frozen
class RoomRequest:
    """What a client asked ``createRoom`` for."""

    version: str
    preset: str
    published: bool = False
    name: str | None = None
    topic: str | None = None
    alias: str | None = None  # whole alias, of our server
    invites: tuple[UserId, ...] = ()
    is_direct: bool = False
    initial_state: tuple[StateDraft, ...] = ()
    creation_content: Content = Factory(dict)
    power_levels: Content = Factory(dict)


def create_room(tx: Tx, env: Env, who: Session, request: RoomRequest) -> RoomId:
    """Make a room and give its id.

    Raises UnsupportedRoomVersion, RoomInUse for a taken alias, and InvalidRoomState when a step is
    not allowed by the steps before it.
    """
    rules = ROOM_VERSIONS.get(request.version)
    if rules is None:
        raise UnsupportedRoomVersion("This server does not know that room version.")
    create = create_content(rules, who.user_id, request)
    room_id = None if rules.room_id_is_create_hash else RoomId(_new_room_id(env))
    draft = Draft("m.room.create", who.user_id, create, state_key="")
    try:
        room = ingest.begin(tx, env, rules, draft, room_id)
        if request.alias is not None and not rooms.add_alias(tx, request.alias, room, who.user):
            raise RoomInUse("That alias is taken.")
        for step in _first_steps(tx, rules, who, create, request):
            ingest.send(tx, env, room, Draft(step.type, who.user_id, step.content, step.state_key))
        for step in _further_steps(request):
            sending.send_state(tx, env, who, room, step.type, step.state_key, step.content)
        for invitee in request.invites:
            if server_of(invitee) != env.server_name:
                continue  # invited when there is a room to tell the other server of
            extra: Content = {"is_direct": True} if request.is_direct else {}
            membership.invite(tx, env, who, room, invitee, extra)
    except (Forbidden, InvalidParam) as error:
        raise InvalidRoomState(f"The room cannot be made so: {error}") from error
    if request.published:
        rooms.set_published(tx, room, 1)
    succession.inherit(tx, who.user, room)
    return names.room_id(tx, room)


def _new_room_id(env: Env) -> str:
    return f"!{secrets.token_urlsafe(18)}:{env.server_name}"


def create_content(rules: RoomRules, creator: UserId, request: RoomRequest) -> dict[str, Json]:
    """The content of the create event ([A7.05], [A7.06])."""
    content: dict[str, Json] = dict(request.creation_content)
    content.pop("creator", None)
    content["room_version"] = rules.version
    if not rules.creator_is_sender:
        content["creator"] = creator
    if rules.room_id_is_create_hash:
        content[ENTROPY_KEY] = secrets.token_urlsafe(12)  # equal rooms get unequal ids (T023)
        given = content.get("additional_creators", [])
        trusted = request.invites if request.preset == TRUSTED else ()
        if trusted and isinstance(given, list):
            content["additional_creators"] = list(dict.fromkeys([*given, *trusted]))
    return content


def creators(rules: RoomRules, creator: UserId, create: Content) -> list[str]:
    """The users with unlimited power, where the version has such."""
    if not rules.privileged_creators:
        return []
    others = create.get("additional_creators", [])
    return [creator, *(str(other) for other in others)] if isinstance(others, list) else [creator]


def _first_steps(
    tx: Tx, rules: RoomRules, who: Session, create: Content, request: RoomRequest
) -> list[StateDraft]:
    """What the server makes up: steps 2 to 5 of [A7.01]."""
    join = membership.profile_content(tx, who.user) | {"membership": "join"}
    levels = power_levels(rules, who.user_id, create, request)
    check_levels(levels)
    steps = [StateDraft("m.room.member", who.user_id, join), StateDraft(POWER, "", levels)]
    if request.alias is not None:
        steps.append(StateDraft("m.room.canonical_alias", "", {"alias": request.alias}))
    join_rule, history, guests = PRESETS[request.preset]
    asked = {(draft.type, draft.state_key) for draft in request.initial_state}
    for kind, key, value in (
        ("m.room.join_rules", "join_rule", join_rule),
        ("m.room.history_visibility", "history_visibility", history),
        ("m.room.guest_access", "guest_access", guests),
    ):
        # Guests are out where nothing is said of them, and public rooms begin with an event less.
        if (kind, "") not in asked and value != "forbidden":
            steps.append(StateDraft(kind, "", {key: value}))
    return steps


def _further_steps(request: RoomRequest) -> list[StateDraft]:
    """What the client wants in the room: steps 6 and 7."""
    steps = list(request.initial_state)
    if request.name is not None:
        steps.append(StateDraft("m.room.name", "", {"name": request.name}))
    if request.topic is not None:
        block = {"m.text": [{"body": request.topic, "mimetype": "text/plain"}]}
        steps.append(StateDraft("m.room.topic", "", {"topic": request.topic, "m.topic": block}))
    return steps


def power_levels(
    rules: RoomRules, creator: UserId, create: Content, request: RoomRequest
) -> dict[str, Json]:
    """The first power levels, with the client's own laid on top."""
    users: dict[str, Json] = {}
    unlimited = creators(rules, creator, create)
    if not unlimited:
        users[creator] = 100
        if request.preset == TRUSTED:
            users.update(dict.fromkeys(request.invites, 100))
    named: dict[str, Json] = {
        "m.room.name": 50,
        "m.room.avatar": 50,
        "m.room.canonical_alias": 50,
        POWER: 100,
        "m.room.history_visibility": 100,
        "m.room.server_acl": 100,
        "m.room.encryption": 100,
    }
    if not unlimited:
        named[TOMBSTONE] = 100
    content: dict[str, Json] = {
        "users": users,
        "users_default": 0,
        "events": named,
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 50 if request.preset == "public_chat" else 0,
    }
    content.update(request.power_levels)
    if unlimited:
        _protect_tombstone(content)
    return content


def _protect_tombstone(content: dict[str, Json]) -> None:
    """Closing the room needs more than other state, unless the client says how much ([A7.05])."""
    default, named = content["state_default"], content["events"]
    if isinstance(default, int) and isinstance(named, Mapping):
        content["events"] = {TOMBSTONE: max(150, default + 1), **named}
