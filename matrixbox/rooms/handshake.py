"""How users of other servers come into a room of ours, or leave it: templates, and what comes back.

Matrix v1.19, Server-Server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms" ([B8.01]
to [B8.10], [B9.01], [B9.02], [B9.11]).  A template is never signed here; what comes back is judged
like any event, and nothing of it is kept unless it is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from matrixbox.core.auth import NotAllowed, check_auth
from matrixbox.core.events import (
    MAX_DEPTH,
    Event,
    MalformedEvent,
    membership_of,
    parse_event,
)
from matrixbox.core.identifiers import EventId, RoomId, ServerName, UserId, server_of
from matrixbox.core.json import Json
from matrixbox.core.room_versions import RoomRules
from matrixbox.core.signing import citation, content_hash_matches
from matrixbox.errors import (
    BadJson,
    Forbidden,
    IncompatibleRoomVersion,
    InvalidParam,
    TooLarge,
)
from matrixbox.rooms import build, ingest, servers
from matrixbox.rooms.commit import Candidate
from matrixbox.rooms.distribution import distribute
from matrixbox.rooms.env import Env
from matrixbox.rooms.residence import required_room, whole_room
from matrixbox.rooms.restricted import VOUCHER, voucher
from matrixbox.rooms.state import CurrentState
from matrixbox.store import events, rooms
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"
REFUSED = Status.REJECTED | Status.SOFT_FAILED


@frozen
class Wish:
    """What a user of another server wants to become in a room: join, leave or knock."""

    origin: ServerName
    room_id: RoomId
    user_id: UserId
    membership: str


@frozen
class Submission:
    """What the event must be that another server hands in."""

    origin: ServerName
    room_id: RoomId
    event_id: EventId
    membership: str


@frozen
class Template:
    """An event for the other server to complete and sign."""

    rules: RoomRules
    pdu: dict[str, Json]


def template(tx: Tx, env: Env, wish: Wish, versions: Sequence[str] | None) -> Template:
    """The event that would do it, unsigned.  ``versions`` are those the other server knows.

    Raises NotFound, Forbidden, IncompatibleRoomVersion, UnableToAuthoriseJoin, UnableToGrantJoin.
    """
    if server_of(wish.user_id) != wish.origin:
        raise Forbidden("That user is not of your server.")  # T034
    room = whole_room(tx, env, wish.room_id)
    if not servers.is_allowed(tx, room, wish.origin):
        raise Forbidden("Your server is kept out of that room by its access control list.")
    rules = rooms.rules(tx, room)
    if versions is not None and rules.version not in versions:
        raise IncompatibleRoomVersion(
            "Your server does not know the version of that room.", room_version=rules.version
        )
    content: dict[str, Json] = {"membership": wish.membership}
    if wish.membership == "join":
        vouching = voucher(tx, env, room, wish.user_id)
        if vouching is not None:
            content[VOUCHER] = vouching
    return Template(rules, _unsigned(tx, env, room, rules, wish, content))


def _unsigned(
    tx: Tx, env: Env, room: RoomNid, rules: RoomRules, wish: Wish, content: dict[str, Json]
) -> dict[str, Json]:
    head = rooms.head(tx, room)
    assert head is not None
    state = CurrentState(tx, room)
    draft = build.Draft(MEMBER, wish.user_id, content, wish.user_id)
    auth = [found for key in build.auth_keys(rules, draft) if (found := state.get(key)) is not None]
    prev = [events.by_nid(tx, nid).event for nid in head.extremities[-build.MAX_PREV_EVENTS :]]
    pdu: dict[str, Json] = {
        "type": MEMBER,
        "room_id": wish.room_id,
        "sender": wish.user_id,
        "state_key": wish.user_id,
        "content": content,
        "origin": env.server_name,
        "origin_server_ts": env.clock.now_ms(),
        "depth": min(1 + max(event.depth for event in prev), MAX_DEPTH),
        "prev_events": [citation(event) for event in prev],
        "auth_events": [citation(event) for event in auth],
    }
    # The rules read whether the voucher's server has signed; it will, when all is checked again.
    trial: dict[str, Json] = {
        **pdu,
        "hashes": {"sha256": ""},
        "signatures": {env.server_name: {"ed25519:later": ""}},
    }
    if rules.event_id_in_pdu:
        trial["event_id"] = f"$later:{env.server_name}"
    try:
        check_auth(rules, parse_event(rules, trial), state)
    except NotAllowed as error:
        raise Forbidden(f"That is not allowed: {error}.") from error
    return pdu


def read_event(rules: RoomRules, pdu: Json, wanted: Submission) -> Event:
    """The event that the other server has completed, if it is what it may be.

    Signatures are not looked at.  Raises InvalidParam, TooLarge ([B8.03], T034).
    """
    if not isinstance(pdu, dict):
        raise BadJson("An event is an object.")
    try:
        event = parse_event(rules, pdu)
    except MalformedEvent as error:
        if error.too_large:
            raise TooLarge("The event is too large.") from error
        raise InvalidParam(f"That is no event of the room's version: {error.reason}.") from error
    is_invite = wanted.membership == "invite"
    if server_of(event.sender) != wanted.origin:
        refusal = InvalidParam if is_invite else Forbidden
        raise refusal("The event's sender is not of your server.")
    for right, what in (
        (event.type == MEMBER, "type"),
        (membership_of(event) == wanted.membership, "membership"),
        (is_invite or event.state_key == event.sender, "state_key"),
        (event.room_id == wanted.room_id, "room_id"),
        (event.event_id == wanted.event_id, "event id"),
        (content_hash_matches(event.json), "hash"),
    ):
        if not right:
            raise InvalidParam(f"The event's {what} is not what it must be here.")
    return event


def needs_our_signature(env: Env, event: Event) -> bool:
    """Whether a join says that a user of ours lets it in."""
    named = event.content.get(VOUCHER)
    return (
        event.rules.restricted
        and isinstance(named, str)
        and named.partition(":")[2] == env.server_name
    )


def check_voucher(tx: Tx, env: Env, event: Event) -> None:
    """Check anew what our signature on a restricted join will say ([B8.09], T035).

    Raises Forbidden, UnableToAuthoriseJoin, UnableToGrantJoin, NotFound.
    """
    room = whole_room(tx, env, event.room_id)
    named = event.content.get(VOUCHER)
    if voucher(tx, env, room, event.sender) is None:
        # Invited meanwhile, or the room is open now: then our word costs nothing, but the user
        # named must be one who could give it, which the auth rules say.
        return
    present = CurrentState(tx, room).get((MEMBER, str(named)))
    if membership_of(present) != "join":
        raise InvalidParam("The user who is said to let this one in is not in the room.")


def accept(tx: Tx, env: Env, event: Event) -> StoredEvent:
    """Let in an event whose signatures were checked; one that is here already is given again.

    Raises Forbidden for what the rules refuse, InvalidParam for citations of unknown events;
    nothing is stored then.
    """
    room = whole_room(tx, env, event.room_id)
    if not servers.is_allowed(tx, room, server_of(event.sender)):
        raise Forbidden("Your server is kept out of that room by its access control list.")
    rules = rooms.rules(tx, room)
    prev, auth = _cited(tx, event.prev_event_ids), _cited(tx, event.auth_event_ids)
    if any(parent.snapshot is None for parent in prev):
        raise InvalidParam("The event cites events whose place is unknown here.")
    known = events.by_id(tx, event.event_id)
    stored = ingest.receive(tx, env, Candidate(event, room, rules, prev, auth))
    if stored.room != room or stored.status & REFUSED:
        raise Forbidden("The rules of the room do not allow that.")
    if known is None:
        distribute(tx, env, stored)
    return stored


def take_back(tx: Tx, env: Env, event: Event) -> StoredEvent:
    """Let in an event of ours that another server had to vouch for, into a room that we are in.

    Raises as :func:`accept` does.
    """
    return take_up(tx, env, required_room(tx, env, event.room_id), event)


def take_up(tx: Tx, env: Env, room: RoomNid, event: Event) -> StoredEvent:
    """The same for a room that we were in, and whose end we know.  Raises as :func:`accept`."""
    prev, auth = _cited(tx, event.prev_event_ids), _cited(tx, event.auth_event_ids)
    candidate = Candidate(event, room, rooms.rules(tx, room), prev, auth)
    stored = ingest.receive(tx, env, candidate)
    if stored.room != room or stored.status & REFUSED:
        raise Forbidden("The rules of the room do not allow that.")
    return stored


def take_invitation(tx: Tx, env: Env, event: Event) -> StoredEvent:
    """Let in an invitation of ours that the invited user's server has signed, and tell the others.

    Raises as :func:`accept` does.
    """
    stored = take_back(tx, env, event)
    distribute(tx, env, stored)
    return stored


def _cited(tx: Tx, event_ids: Sequence[EventId]) -> list[StoredEvent]:
    found = [events.by_id(tx, event_id) for event_id in event_ids]
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        raise InvalidParam("The event cites events that are unknown here.")
    return known


def stripped_events(tx: Tx, room: RoomNid, keys: Sequence[tuple[str, str]]) -> list[Json]:
    """Some of the current state as whole events, for other servers ([B9.01], [B9.06])."""
    state = CurrentState(tx, room)
    return [dict(state[key].json) for key in keys if key in state]
