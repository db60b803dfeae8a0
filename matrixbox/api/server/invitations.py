"""Invitations of our users by other servers.

Matrix v1.19, Server-Server API, "Inviting to a room", "Third-party invites" ([B9.03] to [B9.08],
[B10.03]; T031 to T033).  An invitation is signed when every field of it is what it must be; what
it tells of the room is checked where the room version asks for that, and bounded in any case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matrixbox.accounts.throttle import Rate
from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.bounds import BODY_FEDERATION_MEMBERSHIP
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.api.server import common
from matrixbox.api.server.membership import V1, V2, require_signed
from matrixbox.core.events import CREATE, Event
from matrixbox.core.identifiers import RoomId, is_user_id, server_of
from matrixbox.core.json import Json, encode
from matrixbox.core.redaction import redact
from matrixbox.core.room_versions import ROOM_VERSIONS, RoomRules
from matrixbox.core.signing import sign_redacted
from matrixbox.errors import IncompatibleRoomVersion, InvalidParam, MissingParam
from matrixbox.rooms import handshake, outside, receipt, third_party
from matrixbox.rooms.handshake import Submission
from matrixbox.rooms.outside import MAX_SHOWN, Notice
from matrixbox.rooms.receipt import Dropped
from matrixbox.rooms.remote import Signed
from matrixbox.store import names, rooms
from matrixbox.store.transaction import Tx

routes = RouteTable()

INVITATIONS_PER_HOUR = 20  # of one server
FROM_ONE_SERVER = Rate(INVITATIONS_PER_HOUR, 3_600 / INVITATIONS_PER_HOUR)
OLD = ("1", "2")


@routes.put(
    f"{V2}/invite/{{room_id}}/{{event_id}}",
    auth=Auth.FEDERATION,
    body_limit=BODY_FEDERATION_MEMBERSHIP,
)
async def invite(call: Call) -> Response:
    """Sign an invitation of a user of ours, and tell the user."""
    body = await call.json()
    version = body.get("room_version")
    if not isinstance(version, str):
        raise MissingParam("`room_version` is missing.")
    rules = ROOM_VERSIONS.get(version)
    if rules is None:
        raise IncompatibleRoomVersion(
            "This server does not know that room version.", room_version=version
        )
    shown = parse.optional_list(body, "invite_room_state")
    signed = await _invited(call, rules, body.get("event"), shown)
    return Response(body=encode({"event": signed}), headers=JSON_HEADERS)


@routes.put(
    f"{V1}/invite/{{room_id}}/{{event_id}}",
    auth=Auth.FEDERATION,
    body_limit=BODY_FEDERATION_MEMBERSHIP,
)
async def invite_v1(call: Call) -> Response:
    """The same of old servers, for rooms of versions 1 and 2 ([B9.03])."""
    body = await call.json()
    rules = call.services.store.read(_old_rules, common.room_id(call))
    unsigned = body.get("unsigned")
    shown = unsigned.get("invite_room_state") if isinstance(unsigned, Mapping) else None
    signed = await _invited(call, rules, body, shown if isinstance(shown, list) else [])
    return Response(body=b"[200," + encode({"event": signed}) + b"]", headers=JSON_HEADERS)


def _old_rules(tx: Tx, room_id: RoomId) -> RoomRules:
    room = names.room_nid(tx, room_id)
    rules = ROOM_VERSIONS[OLD[0]] if room is None else rooms.rules(tx, room)
    if rules.version not in OLD:
        raise IncompatibleRoomVersion(
            "Rooms of this version need the second version of this endpoint.",
            room_version=rules.version,
        )
    return rules


async def _invited(
    call: Call, rules: RoomRules, pdu: Json, shown: Sequence[Json]
) -> dict[str, Json]:
    """The invitation as it came with our signature, once the user knows of it."""
    services = call.services
    wanted = Submission(
        call.origin, common.room_id(call), parse.event_id(call.path["event_id"]), "invite"
    )
    event = handshake.read_event(rules, pdu, wanted)
    own = services.env.server_name
    if not is_user_id(event.state_key) or server_of(event.state_key) != own:
        raise InvalidParam("The invited user is not of this server.")
    user = services.store.read(outside.invited_account, services.env, event, call.origin)
    services.throttle.take(FROM_ONE_SERVER, call.origin)
    _check_third_party(event)
    await require_signed(call, event)
    await _require_signature_of(call, event)
    kept = await _shown(call, event, shown)
    notice = Notice(rules, event, kept, [call.origin])
    await services.write(outside.put, notice, user)
    assert isinstance(pdu, dict)
    return sign_redacted(rules, pdu, own, services.env.key)


def _check_third_party(event: Event) -> None:
    """An invitation by e-mail address names who proved to have it; the rest is for the room."""
    if "third_party_invite" not in event.content:
        return
    third = event.content["third_party_invite"]
    signed = third.get("signed") if isinstance(third, Mapping) else None
    if (
        not isinstance(signed, Mapping)
        or signed.get("mxid") != event.state_key
        or not isinstance(signed.get("token"), str)
        or not isinstance(signed.get("signatures"), Mapping)
    ):
        raise InvalidParam("The third-party invite is not for that user.")


async def _require_signature_of(call: Call, event: Event) -> None:
    """The asking server must have signed, also where the room would do without ([A4.05])."""
    keyring = call.services.federation.keyring
    pruned = redact(event.rules, event.json)
    verdict = await keyring.verify_json(call.origin, pruned, event.origin_server_ts)
    if verdict is not Signed.VALID:
        raise InvalidParam("The invitation is not signed by your server.")


async def _shown(call: Call, event: Event, shown: Sequence[Json]) -> Sequence[Json]:
    """What may be shown of the room ([B9.06], T032).

    From room version 12 on it is whole events, and all must be genuine; before, stripped state is
    common, and what is wrong with it is left out later.
    """
    if not event.rules.room_id_is_create_hash:
        return shown[: 4 * MAX_SHOWN]
    if len(shown) > MAX_SHOWN:
        raise InvalidParam("`invite_room_state` has too many entries.")
    pdus = [entry for entry in shown if isinstance(entry, dict)]
    if len(pdus) < len(shown):
        raise InvalidParam("An entry of `invite_room_state` is no event.")
    keyring = call.services.federation.keyring
    checked = await receipt.check(keyring, event.rules, event.room_id, pdus)
    for one in checked:
        if isinstance(one, Dropped):
            raise InvalidParam(f"An entry of `invite_room_state` is {one.reason}.")
    events = [one.event for one in checked if not isinstance(one, Dropped)]
    if CREATE not in {(one.type, one.state_key) for one in events}:
        raise InvalidParam("`invite_room_state` has no create event.")
    return [one.json for one in events]


@routes.put(
    f"{V1}/exchange_third_party_invite/{{room_id}}",
    auth=Auth.FEDERATION,
    body_limit=BODY_FEDERATION_MEMBERSHIP,
)
async def exchange(call: Call) -> dict[str, Json]:
    """Turn an invitation by e-mail address into one of the user who proved to have it."""
    services = call.services
    room_id = common.room_id(call)
    body = await call.json()
    made = await services.write(third_party.exchange, room_id, call.origin, body)
    if made.invitation is not None:
        server = server_of(made.invited)
        await services.federation.memberships.deliver(made.invitation, server)
    return {}
