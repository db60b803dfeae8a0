"""Events as clients get them.

Matrix v1.19, Client-Server API, "Room event format", "Stripped state"; rooms/v11, "Moving the
`redacts` property" [A4.16], [C8.26].  What goes into `unsigned` is the caller's to find out.
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.core.events import Event
from matrixbox.core.identifiers import EventId
from matrixbox.core.json import Json


def client_event(
    event: Event, unsigned: Mapping[str, Json] | None = None, *, with_room_id: bool = True
) -> dict[str, Json]:
    """The event in client format; inside `/sync` without `room_id`.

    Redactions carry `redacts` at the top level and in `content`, whatever the room version.
    """
    formatted: dict[str, Json] = {
        "type": event.type,
        "sender": event.sender,
        "content": event.content,
        "origin_server_ts": event.origin_server_ts,
        "event_id": event.event_id,
    }
    if event.state_key is not None:
        formatted["state_key"] = event.state_key
    if event.redacts is not None:
        formatted["redacts"] = event.redacts
        formatted["content"] = {**event.content, "redacts": event.redacts}
    if with_room_id:
        formatted["room_id"] = event.room_id
    if unsigned:
        formatted["unsigned"] = unsigned
    return formatted


def federation_event(event: Event, unsigned: Mapping[str, Json] | None = None) -> dict[str, Json]:
    """The event in the format of the federation, for filters with `event_format: federation`.

    With `event_id` and `room_id` even where the PDU has none: a client could not tell.
    """
    formatted = {**event.json, "event_id": event.event_id, "room_id": event.room_id}
    if unsigned:
        formatted["unsigned"] = unsigned
    return formatted


def unsigned_data(
    *,
    age: int | None = None,
    transaction_id: str | None = None,
    prev_content: Mapping[str, Json] | None = None,
    replaces_state: EventId | None = None,
    membership: str | None = None,
    redacted_because: Mapping[str, Json] | None = None,
    relations: Mapping[str, Json] | None = None,
) -> dict[str, Json]:
    """The `unsigned` of an event: those of the facts that are given.  `age` is in ms."""
    facts: dict[str, Json] = {
        "age": age,
        "transaction_id": transaction_id,
        "prev_content": prev_content,
        "replaces_state": replaces_state,
        "membership": membership,
        "redacted_because": redacted_because,
        "m.relations": relations or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def stripped_state(event: Event) -> dict[str, Json]:
    """A state event as people see it who are not in the room."""
    return {
        "type": event.type,
        "state_key": event.state_key,
        "sender": event.sender,
        "content": event.content,
    }


def strip_foreign(value: Json) -> dict[str, Json] | None:
    """Prune an entry of another server's invite or knock state to stripped state.

    None if it is not even of that shape (T032).
    """
    if not isinstance(value, Mapping):
        return None
    fields = {name: value.get(name) for name in ("type", "state_key", "sender")}
    content = value.get("content")
    if not all(isinstance(text, str) for text in fields.values()) or not isinstance(
        content, Mapping
    ):
        return None
    return {**fields, "content": content}
