"""Relations between events: edits, threads, references, annotations.

Matrix v1.19, Client-Server API, "Forming relationships between events", "Event replacements",
"Threading", "Reference relations" [C9.12]-[C9.15].  Finding the children is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import frozen

from matrixbox.core.events import Event
from matrixbox.core.identifiers import EventId
from matrixbox.core.json import Json

MAX_THREAD_HOPS = 3  # Client-Server API, "Marking notifications as read"


@frozen
class Relation:
    """What a child event says about its parent; `key` is that of an annotation."""

    rel_type: str
    event_id: EventId
    key: str | None


def relation_of(event: Event) -> Relation | None:
    """The relation in an event's `m.relates_to`; None if it has none that is well-formed."""
    return relation_in(event.content)


def relation_in(content: Mapping[str, Json]) -> Relation | None:
    """The relation that some content makes.  A rich reply is no relation of this kind."""
    relates_to = content.get("m.relates_to")
    if not isinstance(relates_to, Mapping):
        return None
    rel_type, event_id, key = (relates_to.get(name) for name in ("rel_type", "event_id", "key"))
    if not isinstance(rel_type, str) or not isinstance(event_id, str):
        return None
    return Relation(rel_type, EventId(event_id), key if isinstance(key, str) else None)


def has_relation(event: Event, rel_type: str) -> bool:
    """Whether the event has a relation of this type."""
    relation = relation_of(event)
    return relation is not None and relation.rel_type == rel_type


def may_start_thread(root: Event) -> bool:
    """Whether an event may be a thread's root: only if it relates to nothing itself [C10.01]."""
    return relation_of(root) is None


def thread_of(event: Event, parent: Callable[[EventId], Event | None]) -> EventId | None:
    """The root of the thread that an event is in, None for the main timeline.

    Follows relations for at most three hops, so that a reaction to a message counts to its thread.
    """
    current: Event | None = event
    for _ in range(MAX_THREAD_HOPS):
        relation = None if current is None else relation_of(current)
        if relation is None:
            return None
        if relation.rel_type == "m.thread":
            return relation.event_id
        current = parent(relation.event_id)
    return None


def leads_to(event: Event, wanted: str, parent: Callable[[EventId], Event | None]) -> bool:
    """Whether an event relates to another, itself or by what it relates to, in as many hops."""
    current: Event | None = event
    for _ in range(MAX_THREAD_HOPS):
        relation = None if current is None else relation_of(current)
        if relation is None:
            return False
        if relation.event_id == wanted:
            return True
        current = parent(relation.event_id)
    return False


def is_valid_edit(original: Event, edit: Event) -> bool:
    """Whether `edit` replaces `original` ("Validity of replacement events", [C9.13])."""
    relation = relation_of(edit)
    return (
        relation is not None
        and relation.rel_type == "m.replace"
        and relation.event_id == original.event_id
        and edit.room_id == original.room_id
        and edit.sender == original.sender
        and edit.type == original.type
        and edit.state_key is None
        and original.state_key is None
        and not has_relation(original, "m.replace")
        # The new content of an encrypted edit is in what we can't read.
        and ("m.new_content" in edit.content or edit.type == "m.room.encrypted")
    )


def latest_edit(original: Event, edits: Iterable[Event]) -> Event | None:
    """The most recent valid edit: by timestamp, then by event ID."""
    return max(
        (edit for edit in edits if is_valid_edit(original, edit)),
        key=lambda edit: (edit.origin_server_ts, edit.event_id),
        default=None,
    )


@frozen
class ThreadSummary:
    """What a thread's root tells about it, counted without ignored users."""

    latest_event: Mapping[str, Json]  # in client format
    count: int
    current_user_participated: bool


def bundle(
    *,
    edit: Mapping[str, Json] | None = None,
    thread: ThreadSummary | None = None,
    references: Sequence[EventId] = (),
) -> dict[str, Json]:
    """The `m.relations` of an event; empty if there is nothing to bundle.

    Leave out `edit` for redacted events; bundle nothing with state events.
    """
    relations: dict[str, Json] = {}
    if edit is not None:
        relations["m.replace"] = edit
    if thread is not None:
        relations["m.thread"] = {
            "latest_event": thread.latest_event,
            "count": thread.count,
            "current_user_participated": thread.current_user_participated,
        }
    if references:
        relations["m.reference"] = {"chunk": [{"event_id": event_id} for event_id in references]}
    return relations
