"""Rooms and timelines of the Rust SDK in the words that all clients of the tests use."""

from __future__ import annotations

import json
from typing import Any

Said = dict[str, Any]
MEMBERSHIPS = {"INVITED": "invite", "JOINED": "join", "LEFT": "leave", "KNOCKED": "knock"}


def shown_room(info: Any) -> Said:
    """A room as the room list shows it."""
    return {
        "membership": MEMBERSHIPS.get(info.membership.name, "ban"),
        "name": info.display_name,
        "topic": info.topic,
        "version": info.room_version,
        "encrypted": info.encryption_state.name == "ENCRYPTED",
        "direct": info.is_direct,
        "joined": info.joined_members_count,
        "unread": info.num_unread_notifications,
        "unread_messages": info.num_unread_messages,
        "invited_by": info.inviter.user_id if info.inviter is not None else None,
    }


def shown(items: list[Any]) -> list[Said]:
    """The events of a timeline, without those that only this app has so far."""
    events = [item.as_event() for item in items]
    return [_shown_event(event) for event in events if event is not None and event.is_remote]


def _shown_event(event: Any) -> Said:
    source = json.loads(event.lazy_provider.latest_json() or "{}")
    relation = source.get("content", {}).get("m.relates_to") or {}
    kind, body, redacted = event.event_type_raw, None, False
    if event.content.is_MSG_LIKE():
        what = event.content.content.kind
        redacted = what.is_REDACTED()
        if what.is_MESSAGE():
            body = what.content.body
        elif what.is_UNABLE_TO_DECRYPT():
            kind = "m.room.encrypted"
    return {
        "id": event.event_or_transaction_id.event_id,
        "type": kind or source.get("type"),
        "sender": event.sender,
        "key": source.get("state_key"),
        "body": body,
        "content": source.get("content", {}),
        "rel_type": relation.get("rel_type"),
        "rel_event": relation.get("event_id"),
        "rel_key": relation.get("key"),
        "redacted": redacted,
        "receipts": sorted(event.read_receipts),
        "txn": None,
        "status": None,
    }
