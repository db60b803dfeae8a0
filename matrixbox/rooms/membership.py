"""Joining, inviting, leaving, kicking, banning, knocking and forgetting.

Matrix v1.19, Client-Server API, "Room membership" ([C11.01] to [C11.06]).  Whether a change is
allowed is for the room's auth rules to say; what is checked here is what they leave open.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from matrixbox.core.events import Event
from matrixbox.core.identifiers import RoomId, UserId, server_of
from matrixbox.core.json import Json, decode_stored
from matrixbox.errors import BadJson, BadState, Forbidden, InviteBlocked, NotFound, Unknown
from matrixbox.rooms import guests, ingest, stripped, succession
from matrixbox.rooms.build import Draft
from matrixbox.rooms.env import Env
from matrixbox.rooms.reading import blocks_invites
from matrixbox.rooms.restricted import VOUCHER, voucher
from matrixbox.rooms.state import CurrentState
from matrixbox.store import account_data, accounts, members, names
from matrixbox.store.caches import Session, StoredEvent
from matrixbox.store.memberships import Member, Membership
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx

Content = Mapping[str, Json]
MEMBER = "m.room.member"
IN_ROOM = (Membership.JOIN, Membership.INVITE, Membership.KNOCK)


def profile_content(tx: Tx, user: UserNid) -> dict[str, Json]:
    """What a local user's membership events say of the user ([C10.07])."""
    fields = account_data.profile(tx, user)
    return {
        key: decode_stored(fields[key]) for key in ("displayname", "avatar_url") if key in fields
    }


def _current(tx: Tx, room: RoomNid, user_id: UserId) -> Member | None:
    user = names.user_nid(tx, user_id)
    return None if user is None else members.get(tx, room, user)


def _send(
    tx: Tx, env: Env, who: Session, room: RoomNid, target: UserId, content: Content
) -> StoredEvent:
    """Send a membership event, or give the present one when it says the same already."""
    present = CurrentState(tx, room).stored((MEMBER, target))
    if (
        present is not None
        and present.event.sender == who.user_id
        and present.event.content == content
    ):
        return present
    return ingest.send(tx, env, room, Draft(MEMBER, who.user_id, content, target))


def join(
    tx: Tx, env: Env, who: Session, room: RoomNid, content: Content | None = None
) -> StoredEvent | None:
    """Join a room; None when the user is in it already."""
    present = members.get(tx, room, who.user)
    joined = present is not None and present.membership is Membership.JOIN
    if joined and not content:
        return None
    full: dict[str, Json] = {**profile_content(tx, who.user), **(content or {})}
    full["membership"] = "join"
    full.pop(VOUCHER, None)
    invited = present is not None and present.membership is Membership.INVITE
    if who.guest:
        guests.require_open(tx, room)
    if not joined:
        require_room_for_more(tx, env, who)
    if not joined and not invited:
        vouching = voucher(tx, env, room, who.user_id)
        if vouching is not None:
            full[VOUCHER] = vouching
    stored = _send(tx, env, who, room, who.user_id, full)
    if not joined:
        succession.inherit(tx, who.user, room)
    return stored


def require_room_for_more(tx: Tx, env: Env, who: Session) -> None:
    """Raise Forbidden for somebody who is in as many rooms as one account may be."""
    if members.joined_room_count(tx, who.user) >= env.rooms_per_user:
        raise Forbidden("You are in as many rooms as one account may be.")


def invite(
    tx: Tx, env: Env, who: Session, room: RoomNid, target: UserId, content: Content
) -> StoredEvent | None:
    """Invite a user of ours; None when an invitation stands already ([C11.02])."""
    _require_joined(tx, room, who)
    user = names.user_nid(tx, target)
    account = None if user is None else accounts.get(tx, user)
    if account is None or account.state is accounts.AccountState.DEACTIVATED:
        raise NotFound("There is no such user.")
    present = members.get(tx, room, account.user)
    if present is not None and present.membership is Membership.INVITE:
        return None
    if blocks_invites(tx, account.user):
        raise InviteBlocked("That user does not accept invitations.")
    full = {**profile_content(tx, account.user), **content, "membership": "invite"}
    return _send(tx, env, who, room, target, full)


def _require_joined(tx: Tx, room: RoomNid, who: Session) -> None:
    inviter = members.get(tx, room, who.user)
    if inviter is None or inviter.membership is not Membership.JOIN:
        raise Forbidden("You are not in that room.")  # before anything is told of the target


@frozen
class Invitation:
    """An invitation that another server has to sign, and what that server may show of the room."""

    event: Event
    shown: tuple[Json, ...]


def propose_invite(
    tx: Tx, env: Env, who: Session, room: RoomNid, target: UserId, content: Content
) -> Invitation | None:
    """An invitation of a user of another server; None when one stands already ([B9.10])."""
    _require_joined(tx, room, who)
    present = _current(tx, room, target)
    if present is not None and present.membership is Membership.INVITE:
        return None
    full = {**content, "membership": "invite"}
    return invitation(tx, env, room, Draft(MEMBER, who.user_id, full, target))


def invitation(tx: Tx, env: Env, room: RoomNid, draft: Draft) -> Invitation:
    """An invitation with the room's face, of whatever kind; raises Forbidden ([B9.06])."""
    event = ingest.propose(tx, env, room, draft)
    state = CurrentState(tx, room)
    keys = (*stripped.SHOWN, (MEMBER, draft.sender))
    return Invitation(event, tuple(dict(state[key].json) for key in keys if key in state))


def leave(
    tx: Tx, env: Env, who: Session, room: RoomNid, content: Content | None = None
) -> StoredEvent | None:
    """Leave a room, refuse an invitation or take back a knock; None when out already."""
    present = members.get(tx, room, who.user)
    if present is None or present.membership is Membership.BAN:
        raise Forbidden("You are not in that room.")
    if present.membership is Membership.LEAVE:
        return None
    full = {**(content or {}), "membership": "leave"}
    return _send(tx, env, who, room, who.user_id, full)


def kick(
    tx: Tx, env: Env, who: Session, room: RoomNid, target: UserId, content: Content
) -> StoredEvent:
    """Make somebody else leave, or withdraw an invitation or refuse a knock ([C11.04])."""
    present = _current(tx, room, target)
    if present is None or present.membership not in IN_ROOM:
        raise Forbidden("That user is not in the room.")
    return _send(tx, env, who, room, target, {**content, "membership": "leave"})


def ban(
    tx: Tx, env: Env, who: Session, room: RoomNid, target: UserId, content: Content
) -> StoredEvent:
    """Keep somebody out of the room, making him leave if he is in it."""
    return _send(tx, env, who, room, target, {**content, "membership": "ban"})


def unban(
    tx: Tx, env: Env, who: Session, room: RoomNid, target: UserId, content: Content
) -> StoredEvent:
    """Let a banned user come in again, when invited or where the room lets him."""
    present = _current(tx, room, target)
    if present is None or present.membership is not Membership.BAN:
        raise BadState("That user is not banned.")
    return _send(tx, env, who, room, target, {**content, "membership": "leave"})


def knock(
    tx: Tx, env: Env, who: Session, room: RoomNid, content: Content | None = None
) -> StoredEvent:
    """Ask to be let in."""
    full = {**profile_content(tx, who.user), **(content or {}), "membership": "knock"}
    return _send(tx, env, who, room, who.user_id, full)


def forget(tx: Tx, env: Env, who: Session, room_id: RoomId) -> None:
    """Hide a room that the user has left ([C11.03])."""
    room = names.room_nid(tx, room_id)
    present = None if room is None else members.get(tx, room, who.user)
    if room is None or present is None:
        raise Unknown("You were never in that room.")
    if present.membership in IN_ROOM:
        raise Unknown("You must leave the room first.")
    members.forget(tx, room, who.user)
    tx.changed(users=(who.user,))


def set_membership(
    tx: Tx, env: Env, who: Session, room: RoomNid, target: UserId, content: Content
) -> StoredEvent:
    """A membership event given whole, through ``PUT /state`` ([C10.04])."""
    word = content.get("membership")
    if not isinstance(word, str):
        raise BadJson("`membership` is a string.")
    myself = target == who.user_id
    done: StoredEvent | None
    if word == "join" and myself:
        done = join(tx, env, who, room, content)
    elif word == "invite" and server_of(target) != env.server_name:
        raise Forbidden("Users of other servers are invited through these.")
    elif word == "invite":
        done = invite(tx, env, who, room, target, content)
    elif word == "leave" and myself:
        done = leave(tx, env, who, room, content)
    elif word == "leave":
        present = _current(tx, room, target)
        banned = present is not None and present.membership is Membership.BAN
        done = (unban if banned else kick)(tx, env, who, room, target, content)
    else:
        done = _send(tx, env, who, room, target, content)
    if done is None:
        done = CurrentState(tx, room).stored((MEMBER, target))
        assert done is not None
    return done
