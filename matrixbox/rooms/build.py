"""Our own events: choose what they cite, hash and sign them.

Matrix v1.19, Server-Server API, "Auth events selection", "Signing Events"; room versions, "Event
format".  A built event enters the room like any other, through ``ingest``.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from attrs import frozen

from matrixbox.core.auth import select_auth_keys
from matrixbox.core.events import CREATE, MAX_DEPTH, Event, MalformedEvent, parse_event
from matrixbox.core.identifiers import EventId, RoomId, UserId
from matrixbox.core.json import Json, JsonError
from matrixbox.core.room_versions import RoomRules
from matrixbox.core.signing import citation, hash_and_sign_event
from matrixbox.errors import BadJson, TooLarge
from matrixbox.rooms.env import Env
from matrixbox.store.caches import StoredEvent

MAX_PREV_EVENTS = 10


@frozen
class Draft:
    """What an event is to say; the rest follows from the room."""

    type: str
    sender: UserId
    content: Mapping[str, Json]
    state_key: str | None = None
    redacts: EventId | None = None
    ts: int | None = None  # ms; None: now


@frozen
class Citations:
    """The events that a new one names."""

    prev: Sequence[StoredEvent]
    auth: Sequence[StoredEvent]


def build(
    env: Env, rules: RoomRules, room_id: RoomId | None, draft: Draft, cites: Citations
) -> Event:
    """Hash and sign an event.  ``room_id`` is None for a create event that makes its own.

    Raises BadJson for content that canonical JSON cannot hold, TooLarge ([A3.05]).
    """
    depth = 1 + max((parent.event.depth for parent in cites.prev), default=0)
    content = dict(draft.content)
    pdu: dict[str, Json] = {
        "type": draft.type,
        "sender": draft.sender,
        "content": content,
        "origin_server_ts": env.clock.now_ms() if draft.ts is None else draft.ts,
        "depth": min(depth, MAX_DEPTH),
        "prev_events": [citation(parent.event) for parent in cites.prev],
        "auth_events": [citation(auth.event) for auth in cites.auth],
    }
    if room_id is not None:
        pdu["room_id"] = room_id
    if draft.state_key is not None:
        pdu["state_key"] = draft.state_key
    if draft.redacts is not None:
        if rules.redacts_in_content:
            content["redacts"] = draft.redacts
        else:
            pdu["redacts"] = draft.redacts
    if rules.event_id_in_pdu:
        pdu["event_id"] = f"${secrets.token_urlsafe(24)}:{env.server_name}"
    try:
        return parse_event(rules, hash_and_sign_event(rules, pdu, env.server_name, env.key))
    except MalformedEvent as error:
        if error.too_large:
            raise TooLarge("The event is too large.") from error
        raise BadJson(f"No event can be made of this: {error.reason}") from error
    except JsonError as error:
        raise BadJson(f"No event can be made of this: {error}") from error


def auth_keys(rules: RoomRules, draft: Draft) -> list[tuple[str, str]]:
    """The state slots whose events the new event cites ([A5.25])."""
    keys = select_auth_keys(rules, draft.type, draft.sender, draft.state_key, draft.content)
    return [key for key in keys if key != CREATE or not rules.room_id_is_create_hash]
