"""What clients put into rooms besides memberships: messages, state, redactions.

Matrix v1.19, Client-Server API, "Sending events to a room", "Redactions" ([C10.01] to [C10.05]).
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.core.events import CREATE, creators_of, power_levels
from matrixbox.core.identifiers import EventId, InvalidIdentifier, RoomId, UserId, parse_user_id
from matrixbox.core.json import Json
from matrixbox.core.relations import relation_in
from matrixbox.errors import (
    BadJson,
    DuplicateAnnotation,
    Forbidden,
    InvalidParam,
    NotFound,
    Unknown,
    UserSuspended,
)
from matrixbox.rooms import directory, ingest, membership
from matrixbox.rooms.build import Draft
from matrixbox.rooms.env import Env
from matrixbox.rooms.ingest import Transaction
from matrixbox.rooms.power import POWER, check_levels
from matrixbox.rooms.state import CurrentState
from matrixbox.store import accounts, events, names, rooms
from matrixbox.store.caches import Session, StoredEvent
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

Content = Mapping[str, Json]
REDACTION = "m.room.redaction"


def send_message(
    tx: Tx,
    env: Env,
    who: Session,
    room: RoomNid,
    event_type: str,
    content: Content,
    transaction: Transaction,
) -> StoredEvent:
    """Send an event that is not state.  A redaction is accepted here too ([A4.17])."""
    known = accounts.transaction(tx, transaction.device, transaction.key)
    if known is not None:
        return events.by_nid(tx, known)
    if event_type == REDACTION:
        target = content.get("redacts")
        if not isinstance(target, str):
            raise BadJson("A redaction names the event it redacts in `redacts`.")
        rest = {key: value for key, value in content.items() if key != "redacts"}
        return redact(tx, env, who, room, EventId(target), rest, transaction)
    _check_relation(tx, who, event_type, content)
    return ingest.send(tx, env, room, Draft(event_type, who.user_id, content), transaction)


def _check_relation(tx: Tx, who: Session, event_type: str, content: Content) -> None:
    relation = relation_in(content)
    if relation is None:
        return
    if relation.rel_type == "m.annotation" and relation.key is not None:
        parent = EventId(relation.event_id)
        if events.annotation_exists(tx, parent, who.user, event_type, relation.key):
            raise DuplicateAnnotation("You reacted so to that event already.")
    if relation.rel_type == "m.thread":
        root = events.by_id(tx, EventId(relation.event_id))
        if root is not None and relation_in(root.event.content) is not None:
            raise Unknown("A thread cannot begin at an event that relates to another one.")


def redact(
    tx: Tx,
    env: Env,
    who: Session,
    room: RoomNid,
    target_id: EventId,
    content: Content,
    transaction: Transaction,
) -> StoredEvent:
    """Redact an event: one's own, or anybody's with the power to ([C10.05])."""
    known = accounts.transaction(tx, transaction.device, transaction.key)
    if known is not None:
        return events.by_nid(tx, known)
    target = events.by_id(tx, target_id)
    if target is not None and target.room != room:
        raise NotFound("There is no such event in this room.")
    if target is not None and target.event.type == "m.room.create":
        raise Forbidden("The event that made a room cannot be redacted.")
    # What is not known here can be redacted by who may redact everything ([A4.17]).
    if target is None or target.event.sender != who.user_id:
        if who.suspended:
            raise UserSuspended("You cannot do that while your account is suspended.")
        state = CurrentState(tx, room)
        create = state.get(CREATE)
        if create is None:
            raise NotFound("This server is not in that room.")  # or no more, or not yet
        levels = power_levels(rooms.rules(tx, room), create, state.get(("m.room.power_levels", "")))
        if levels.user(who.user_id) < levels.redact:
            if target is None:
                raise NotFound("There is no such event in this room.")
            raise Forbidden("You may redact only your own events here.")
    draft = Draft(REDACTION, who.user_id, content, redacts=target_id)
    return ingest.send(tx, env, room, draft, transaction)


def send_state(
    tx: Tx,
    env: Env,
    who: Session,
    room: RoomNid,
    event_type: str,
    state_key: str,
    content: Content,
) -> StoredEvent:
    """Set state.  The same content again gives the event that stands ([C10.02])."""
    if event_type == "m.room.create":
        raise InvalidParam("A room is created once.")
    if event_type == membership.MEMBER:
        target = _user_id(state_key)
        return membership.set_membership(tx, env, who, room, target, content)
    state = CurrentState(tx, room)
    if event_type == POWER:
        check_levels(content)
        _check_creators(tx, room, state, content)
    present = state.stored((event_type, state_key))
    if (
        present is not None
        and present.event.sender == who.user_id
        and present.event.content == content
    ):
        return present
    if event_type == "m.room.canonical_alias":
        old = {} if present is None else present.event.content
        directory.check_canonical_alias(tx, env, room, old, content)
    return ingest.send(tx, env, room, Draft(event_type, who.user_id, content, state_key))


def _check_creators(tx: Tx, room: RoomNid, state: CurrentState, content: Content) -> None:
    """Creators stand above all levels in version 12, and are not listed ([A5.21])."""
    users, create = content.get("users"), state.get(CREATE)
    if create is None:
        raise NotFound("This server is not in that room.")
    if rooms.rules(tx, room).privileged_creators and isinstance(users, Mapping):
        listed = creators_of(create).intersection(users)
        if listed:
            raise InvalidParam(f"{min(listed)} created this room, and needs no power level.")


def _user_id(text: str) -> UserId:
    try:
        return parse_user_id(text)
    except InvalidIdentifier as error:
        raise InvalidParam("The state key of a membership is a user id.") from error


def resident(tx: Tx, room_id: RoomId) -> RoomNid:
    """The room, which must be known here; who is in it is for the auth rules."""
    room = names.room_nid(tx, room_id)
    if room is None or rooms.head(tx, room) is None:
        raise Forbidden("You are not in that room.")
    return room
