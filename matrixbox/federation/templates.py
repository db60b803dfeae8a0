"""Memberships of our users that another server let us build: from its template, but our own words.

Matrix v1.19, Server-Server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms"
([B8.01], [B8.02], [B9.01]; T030, T035).  A template is never signed as it came: from it we take
what the new event cites, its depth and who vouches for it, and nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from attrs import frozen

from matrixbox.core.events import (
    MAX_AUTH_EVENTS,
    MAX_DEPTH,
    MAX_PREV_EVENTS,
    Event,
    MalformedEvent,
    parse_event,
)
from matrixbox.core.identifiers import RoomId, ServerName, UserId, is_user_id, server_of
from matrixbox.core.json import Json, JsonError
from matrixbox.core.room_versions import ROOM_VERSIONS, RoomRules
from matrixbox.core.signing import hash_and_sign_event
from matrixbox.errors import RemoteInvalid
from matrixbox.rooms.env import Env
from matrixbox.rooms.restricted import VOUCHER

MEMBER = "m.room.member"
OLDEST = "1"  # what a template is of that names no room version: this one or 2, which look the same


@frozen
class Change:
    """What a user of ours wants to become in a room."""

    room_id: RoomId
    user_id: UserId
    membership: str
    content: Mapping[str, Json]  # without `membership`


@frozen
class Built:
    """Our event, and whether its room version is only a guess between 1 and 2."""

    event: Event
    is_old: bool


def build(env: Env, server: ServerName, change: Change, answer: Mapping[str, Json]) -> Built:
    """Our event, made with what the server's template says of the room.

    Raises RemoteInvalid for a template of anything else than what was asked for.
    """
    version = answer.get("room_version", OLDEST)
    rules = ROOM_VERSIONS.get(version) if isinstance(version, str) else None
    if rules is None:
        raise RemoteInvalid(server, "its template is of a room version that was not asked for")
    template = answer.get("event")
    if not isinstance(template, Mapping):
        raise RemoteInvalid(server, "its template is no object")
    _check(server, change, template)
    try:
        signed = hash_and_sign_event(
            rules, _pdu(env, rules, server, change, template), env.server_name, env.key
        )
        event = parse_event(rules, signed)
    except (MalformedEvent, JsonError) as error:
        raise RemoteInvalid(server, f"no event can be made of its template: {error}") from error
    return Built(event, "room_version" not in answer)


def _check(server: ServerName, change: Change, template: Mapping[str, Json]) -> None:
    content = template.get("content")
    word = content.get("membership") if isinstance(content, Mapping) else None
    expected = {
        "type": MEMBER,
        "room_id": change.room_id,
        "sender": change.user_id,
        "state_key": change.user_id,
    }
    for key, value in expected.items():
        if template.get(key) != value:
            raise RemoteInvalid(server, f"the {key} of its template is another one")
    if word != change.membership:
        raise RemoteInvalid(server, "the membership of its template is another one")


def _pdu(
    env: Env,
    rules: RoomRules,
    server: ServerName,
    change: Change,
    template: Mapping[str, Json],
) -> dict[str, Json]:
    content: dict[str, Json] = {**change.content, "membership": change.membership}
    content.pop(VOUCHER, None)
    voucher = _voucher(server, template)
    if voucher is not None and change.membership == "join" and rules.restricted:
        content[VOUCHER] = voucher
    depth = template.get("depth")
    if type(depth) is not int or not 0 <= depth <= MAX_DEPTH:
        raise RemoteInvalid(server, "the depth of its template is no depth")
    pdu: dict[str, Json] = {
        "type": MEMBER,
        "room_id": change.room_id,
        "sender": change.user_id,
        "state_key": change.user_id,
        "content": content,
        "origin_server_ts": env.clock.now_ms(),
        "depth": depth,
        "prev_events": _cited(server, template, "prev_events", MAX_PREV_EVENTS),
        "auth_events": _cited(server, template, "auth_events", MAX_AUTH_EVENTS),
    }
    if not rules.strict_byte_limits:
        pdu["origin"] = env.server_name  # part of events up to room version 10
    if rules.event_id_in_pdu:
        pdu["event_id"] = f"${secrets.token_urlsafe(24)}:{env.server_name}"
    return pdu


def _cited(server: ServerName, template: Mapping[str, Json], key: str, most: int) -> Json:
    """The list of citations; what stands in it is checked when the event is read."""
    cited = template.get(key)
    if not isinstance(cited, list) or not 1 <= len(cited) <= most:
        raise RemoteInvalid(server, f"the {key} of its template are no list of events")
    return cited


def _voucher(server: ServerName, template: Mapping[str, Json]) -> UserId | None:
    """Who lets our user in: somebody of the server that was asked.

    Never one of ours, for whom our signature would then speak unchecked (T035).
    """
    content = template.get("content")
    named = content.get(VOUCHER) if isinstance(content, Mapping) else None
    if named is None:
        return None
    if not is_user_id(named) or server_of(named) != server:
        raise RemoteInvalid(server, "somebody else is to let our user in")
    return named


def with_signatures_of(event: Event, answer: Mapping[str, Json], own: ServerName) -> Event:
    """Our event with the signatures that others put on it; nothing else is taken (T030).

    Raises MalformedEvent when it would grow too large.
    """
    theirs, ours = answer.get("signatures"), event.json["signatures"]
    assert isinstance(ours, Mapping)
    added = (
        {name: found for name, found in theirs.items() if name != own}
        if isinstance(theirs, Mapping)
        else {}
    )
    return parse_event(event.rules, {**event.json, "signatures": {**added, **ours}})
