"""Invitations and knocks of our users in rooms that this server is not in.

Matrix v1.19, Server-Server API, "Inviting to a room", "Knocking upon a room", "Leaving Rooms"
([B9.03] to [B9.12]; T031 to T033).  Of such a room we know what its servers told us: nothing of it
enters a graph, and what is kept for the user is what a client is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

from matrixbox.core.client_format import client_event, strip_foreign, stripped_state
from matrixbox.core.events import Event, membership_of
from matrixbox.core.identifiers import RoomId, ServerName, UserId, server_of
from matrixbox.core.json import Json, encode
from matrixbox.core.room_versions import RoomRules
from matrixbox.errors import Forbidden, InviteBlocked, LimitExceeded, NotFound
from matrixbox.rooms import servers
from matrixbox.rooms.env import Env
from matrixbox.rooms.reading import blocks_invites
from matrixbox.rooms.residence import is_resident
from matrixbox.store import accounts, joins, members, names, rooms, undecided
from matrixbox.store.caches import Session
from matrixbox.store.joins import Outside
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import EventNid, RoomNid, UserNid
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"
MAX_SHOWN = 32
MAX_SHOWN_BYTES = 128 * 1024
MAX_WAITING = 200  # invitations that a user has not answered
MAX_SERVERS = 20
MAX_GONE = 20  # users of ours that a server is told of to have left
RETRY_MS = 3_600_000
GONE = (Membership.LEAVE, Membership.BAN)
NO_EVENT = EventNid(0)  # one that is in no graph here


@frozen
class Notice:
    """A membership of a user of ours elsewhere, and what may be shown of the room."""

    rules: RoomRules
    event: Event
    shown: Sequence[Json]  # entries as the other server gave them
    servers: Sequence[ServerName]  # that can be asked about the room


def invited_account(tx: Tx, env: Env, event: Event, origin: ServerName) -> UserNid:
    """The user of ours whom another server invites, if that may be.

    Raises NotFound, InviteBlocked, Forbidden, LimitExceeded.
    """
    target = UserId(event.state_key or "")
    user = names.user_nid(tx, target)
    account = None if user is None else accounts.get(tx, user)
    if account is None or account.state is accounts.AccountState.DEACTIVATED:
        raise NotFound("There is no such user.")
    room = names.room_nid(tx, event.room_id)
    if room is not None and is_resident(tx, env, room):
        if not servers.is_allowed(tx, room, origin):
            raise Forbidden("Your server is kept out of that room by its access control list.")
        present = members.get(tx, room, account.user)
        if present is not None and present.membership in (Membership.JOIN, Membership.BAN):
            raise Forbidden("That user is in the room, or banned from it.")
    if blocks_invites(tx, account.user):
        raise InviteBlocked("That user does not accept invitations.")
    if joins.waiting_invitations(tx, account.user) >= MAX_WAITING:
        raise LimitExceeded(RETRY_MS, "That user has too many invitations.")  # T033
    return account.user


def put(tx: Tx, env: Env, notice: Notice, user: UserNid) -> None:
    """Keep an invitation or a knock.  Rooms that we are in learn of it by the event itself."""
    event = notice.event
    room = names.room_nid(tx, event.room_id)
    if room is not None and is_resident(tx, env, room):
        return
    if room is None:
        room = rooms.add(tx, event.room_id, notice.rules.version)
    elif rooms.create_nid(tx, room) is None:
        joins.set_version(tx, room, notice.rules.version)
    present = members.get(tx, room, user)
    word = Membership.of(membership_of(event))
    found = Outside(event.event_id, event.sender, tuple(notice.servers)[:MAX_SERVERS])
    if present is not None and joins.outside(tx, room, user) == found:
        return  # told twice ([B9.08])
    joins.put_outside(tx, room, user, found)
    members.set_stripped(tx, room, user, encode([*_kept(notice.shown), stripped_state(event)]))
    members.put(tx, room, user, word, NO_EVENT, tx.position())
    tx.changed(users=(user,))


def _kept(shown: Iterable[Json]) -> list[dict[str, Json]]:
    """The entries that are stripped state at all, within bounds (T032)."""
    kept: list[dict[str, Json]] = []
    size = 0
    for entry in shown:
        stripped = strip_foreign(entry)
        if stripped is None:
            continue
        size += len(encode(stripped))
        if len(kept) >= MAX_SHOWN or size > MAX_SHOWN_BYTES:
            break
        kept.append(stripped)
    return kept


def put_left(tx: Tx, _env: Env, room: RoomNid, user: UserNid, event: Event | None = None) -> None:
    """An invitation refused or withdrawn, a knock taken back or refused.

    The event that did it, if there is one, is kept to be shown to the user's clients ([C8.20]).
    """
    present = members.get(tx, room, user)
    if present is None or present.membership not in (Membership.INVITE, Membership.KNOCK):
        return
    joins.drop_outside(tx, room, user)
    if event is None:
        members.drop_stripped(tx, room, user)
    else:
        shown = client_event(event, with_room_id=False)
        members.set_stripped(tx, room, user, encode([shown]))
    members.put(tx, room, user, Membership.LEAVE, NO_EVENT, tx.position())
    tx.changed(users=(user,))


def withdraw(tx: Tx, env: Env, event: Event) -> bool:
    """Take a leave or ban for an end of an invitation or knock; whether there was one ([B9.12]).

    The event's signatures were checked.  Without the room's state its right cannot be: only who
    invited may withdraw that, and what the servers say through which a user knocked is believed.
    """
    room = names.room_nid(tx, event.room_id)
    if event.type != MEMBER or event.state_key is None or room is None:
        return False
    user = names.user_nid(tx, UserId(event.state_key))
    if membership_of(event) not in ("leave", "ban") or user is None or is_resident(tx, env, room):
        return False
    found = joins.outside(tx, room, user)
    if found is None or not members.is_account(tx, user):
        return False
    present = members.get(tx, room, user)
    if present is not None and present.membership is Membership.INVITE:
        if event.sender != found.sender:
            return False
    elif server_of(event.sender) not in (server_of(found.sender), *found.servers):
        return False
    put_left(tx, env, room, user, event)
    return True


def unaware_of(
    tx: Tx, env: Env, room: RoomNid, server: ServerName, given: Iterable[Event]
) -> list[UserNid]:
    """The users of ours that a server may take to be in a room which all of ours are out of.

    Our leaves went to the servers that were there then, by what we knew.  Who had left by that
    time, and has come back by way of one that is gone since, may hear of them from nobody, and
    sends us its events for ever.  Or another branch of the room has prevailed since one of ours was
    banned, and nobody has shown us: they are out for us, and leave for the others as well.
    Nobody is told but who was in the room with us once, as the membership of who sends shows.
    """
    if is_resident(tx, env, room):
        return []
    given_up = [owed.user for owed in undecided.joins(tx) if owed.room == room and not owed.goes_on]
    if given_up:
        return given_up  # others may have let them in, and those have told this server
    senders = {event.sender for event in given if server_of(event.sender) == server}
    users = (names.user_nid(tx, sender) for sender in senders)
    if not any(user is not None and members.get(tx, room, user) is not None for user in users):
        return []
    return [
        member.user
        for member in members.local_gone(tx, room, MAX_GONE, forgotten=True)
        if member.membership in GONE and member.event
    ]


def servers_to_ask(tx: Tx, env: Env, room_id: RoomId, user: UserNid | None) -> list[ServerName]:
    """Servers that may be in a room, as far as we know: who invited first, then members of old."""
    room = names.room_nid(tx, room_id)
    if room is None:
        return []
    found = None if user is None else joins.outside(tx, room, user)
    known = [] if found is None else [server_of(found.sender), *found.servers]
    return [
        server
        for server in dict.fromkeys([*known, *list(members.servers(tx, room))[:MAX_SERVERS]])
        if server != env.server_name
    ]


def is_outside(tx: Tx, env: Env, who: Session, room_id: RoomId) -> RoomNid | None:
    """The room, if the user has an invitation or a knock in it and this server is not in it."""
    room = names.room_nid(tx, room_id)
    if room is None or is_resident(tx, env, room):
        return None
    present = members.get(tx, room, who.user)
    waiting = present is not None and present.membership in (Membership.INVITE, Membership.KNOCK)
    return room if waiting else None
