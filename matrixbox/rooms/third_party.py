"""Invitations by e-mail address or telephone number, when somebody has proved to have it.

Matrix v1.19, Server-Server API, "Third-party invites"; rooms/v12 rule 5.4.1 ([B10.03], [A5.09]).
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from matrixbox.core.identifiers import RoomId, ServerName, UserId, is_user_id, server_of
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden, InvalidParam
from matrixbox.rooms import ingest, membership, servers
from matrixbox.rooms.build import Draft
from matrixbox.rooms.env import Env
from matrixbox.rooms.membership import Invitation
from matrixbox.rooms.residence import required_room
from matrixbox.rooms.state import CurrentState
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"
THIRD_PARTY = "m.room.third_party_invite"


@frozen
class Exchanged:
    """Who is invited now, and the event where that user's server has to sign it first."""

    invited: UserId
    invitation: Invitation | None


def exchange(
    tx: Tx, env: Env, room_id: RoomId, origin: ServerName, partial: Mapping[str, Json]
) -> Exchanged:
    """Invite whom the signed part names, in the name of who sent the third-party invitation.

    Everything is read from the room's state and the signed part; the rest of what came is only
    compared.  Raises NotFound, Forbidden, InvalidParam; whether a key of the invitation has signed
    is for the auth rules to say.
    """
    room = required_room(tx, env, room_id)
    if not servers.is_allowed(tx, room, origin):
        raise Forbidden("Your server is kept out of that room by its access control list.")
    content = partial.get("content")
    third = content.get("third_party_invite") if isinstance(content, Mapping) else None
    signed = third.get("signed") if isinstance(third, Mapping) else None
    if not isinstance(signed, Mapping) or not isinstance(content, Mapping):
        raise InvalidParam("There is no signed third-party invite in the event.")
    token, invited = signed.get("token"), signed.get("mxid")
    if (
        not isinstance(token, str)
        or not is_user_id(invited)
        or partial.get("type") != MEMBER
        or partial.get("room_id", room_id) != room_id
        or partial.get("state_key") != invited
        or content.get("membership") != "invite"
    ):
        raise InvalidParam("The event is no third-party invite of this room.")
    made = CurrentState(tx, room).get((THIRD_PARTY, token))
    if made is None:
        raise Forbidden("There is no such third-party invite in the room.")
    if server_of(made.sender) != env.server_name or partial.get("sender") != made.sender:
        raise Forbidden("Somebody else sent that invitation.")
    kept = {name: signed[name] for name in ("mxid", "token", "signatures") if name in signed}
    shown = made.content.get("display_name")
    proof: dict[str, Json] = {
        "display_name": shown if isinstance(shown, str) else "",
        "signed": kept,
    }
    full: dict[str, Json] = {"membership": "invite", "third_party_invite": proof}
    draft = Draft(MEMBER, made.sender, full, invited)
    if server_of(invited) == env.server_name:
        ingest.send(tx, env, room, draft)
        return Exchanged(invited, None)
    return Exchanged(invited, membership.invitation(tx, env, room, draft))
