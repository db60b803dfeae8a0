"""What a gateway is told.

Matrix v1.19, Push Gateway API, "Homeserver behaviour" ([E.02] to [E.04]; T105, T108, T111).
Whether an event is still worth a notification is asked again just before it is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen

from matrixbox.core.events import Event, PowerLevels, StateKey
from matrixbox.core.json import Json, decode_stored, encode
from matrixbox.core.push_evaluation import Situation, tweaks_of
from matrixbox.rooms import counts, push_rules
from matrixbox.rooms.reading import ignored_users
from matrixbox.rooms.state import CurrentState
from matrixbox.store import events, joins, members, names, rooms
from matrixbox.store.caches import StoredEvent
from matrixbox.store.memberships import Member, Membership
from matrixbox.store.nids import EventNid, RoomNid
from matrixbox.store.pushers import Pusher
from matrixbox.store.transaction import Tx

STALE_MS = 24 * 3600 * 1000
"""An event older than that is news to nobody; the count still tells of it."""
MEMBER = "m.room.member"
NAME: StateKey = ("m.room.name", "")
ALIAS: StateKey = ("m.room.canonical_alias", "")

Room = Callable[[StateKey], Mapping[str, Json] | None]
"""The content of an entry of the state that the user may know."""


@frozen
class News:
    """Something to tell: an event, or an invitation to a room that this server is not in."""

    pos: int
    room: RoomNid
    event: EventNid | None = None


def body_for(tx: Tx, pusher: Pusher, news: News, unread: int, now_ms: int) -> bytes | None:
    """The notification of an event; None where there is nothing to tell any more."""
    if news.event is None:
        return _invitation_elsewhere(tx, pusher, news.room, unread)
    stored = events.by_nid(tx, news.event)
    actions = counts.actions_for(tx, stored.notify, pusher.user)
    present = members.get(tx, stored.room, pusher.user)
    if actions is None or present is None or not _is_news(tx, present, stored, now_ms):
        return None
    if present.membership is Membership.INVITE:
        room = _stripped(tx, pusher, stored.room)
    else:
        room = _current(tx, stored.room)
    return _told(tx, pusher, stored.event, room, tweaks_of(actions), unread)


def badge_for(pusher: Pusher, unread: int) -> bytes:
    """A notification of nothing but a count ([E.04]).

    Zero is told too, though counts of zero "should" be left out: gateways clear a badge only then.
    """
    notification: dict[str, Json] = {
        "prio": "low",
        "counts": {"unread": unread},
        "devices": [_device(pusher)],
    }
    return encode({"notification": notification})


def _is_news(tx: Tx, present: Member, stored: StoredEvent, now_ms: int) -> bool:
    """Whether the user is (still) to hear of an event: in the room, and not having read it."""
    if stored.redacted_by is not None or stored.event.origin_server_ts < now_ms - STALE_MS:
        return False
    if present.membership is Membership.INVITE:
        return present.event == stored.nid
    if present.membership is not Membership.JOIN:
        return False
    return not counts.is_read(tx, stored, counts.marks(tx, present.user, stored.room))


def _told(
    tx: Tx,
    pusher: Pusher,
    event: Event,
    room: Room,
    tweaks: Mapping[str, Json],
    unread: int,
) -> bytes:
    """The notification of an event, in the format that the pusher asked for ([E.02], [E.03])."""
    about: dict[str, Json] = {"event_id": event.event_id, "room_id": event.room_id}
    if pusher.data.get("format") == "event_id_only":
        about["devices"] = [_device(pusher)]
    else:
        about.update(
            type=event.type,
            sender=event.sender,
            sender_display_name=_text(room((MEMBER, event.sender)), "displayname"),
            room_name=_text(room(NAME), "name"),
            room_alias=_text(room(ALIAS), "alias"),
            prio="high",
            content=event.content,
            devices=[{**_device(pusher), "tweaks": dict(tweaks)}],
        )
        if event.type == MEMBER:
            about["user_is_target"] = event.state_key == names.user_id(tx, pusher.user)
    about["counts"] = {"unread": unread} if unread else {}
    shown = {name: value for name, value in about.items() if value is not None}
    return encode({"notification": shown})


def _device(pusher: Pusher) -> dict[str, Json]:
    data = {key: value for key, value in pusher.data.items() if key != "url"}
    return {
        "app_id": pusher.app_id,
        "pushkey": pusher.pushkey,
        "pushkey_ts": pusher.set_ms // 1000,  # seconds, unlike everything else
        "data": data,
    }


def _text(content: Mapping[str, Json] | None, key: str) -> str | None:
    found = None if content is None else content.get(key)
    return found if isinstance(found, str) and found else None


def _current(tx: Tx, room: RoomNid) -> Room:
    """The state of a room that the user is in."""
    state = CurrentState(tx, room)

    def content(key: StateKey) -> Mapping[str, Json] | None:
        event = state.get(key)
        return None if event is None else event.content

    return content


def _stripped(tx: Tx, pusher: Pusher, room: RoomNid) -> Room:
    """What an invited user may know of a room."""
    stored = members.stripped(tx, room, pusher.user)
    found: dict[StateKey, Mapping[str, Json]] = {}
    entries = [] if stored is None else decode_stored(stored)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and isinstance(entry.get("content"), Mapping):
            found[str(entry.get("type")), str(entry.get("state_key"))] = entry["content"]
    return found.get


def _invitation_elsewhere(tx: Tx, pusher: Pusher, room: RoomNid, unread: int) -> bytes | None:
    """An invitation to a room that this server is not in: its rules are asked now."""
    user_id = names.user_id(tx, pusher.user)
    present, found = members.get(tx, room, pusher.user), joins.outside(tx, room, pusher.user)
    if present is None or present.membership is not Membership.INVITE or found is None:
        return None
    if found.sender in ignored_users(tx, pusher.user):
        return None
    known = _stripped(tx, pusher, room)
    rules = rooms.rules(tx, room)
    event = Event(
        event_id=found.event_id,
        room_id=names.room_id(tx, room),
        type=MEMBER,
        sender=found.sender,
        state_key=user_id,
        content=known((MEMBER, user_id)) or {"membership": "invite"},
        origin_server_ts=0,
        depth=0,
        prev_event_ids=(),
        auth_event_ids=(),
        redacts=None,
        json={},
        rules=rules,
    )
    levels = PowerLevels(rules, frozenset(), None)
    outcome = push_rules.compiled(tx, pusher.user).evaluate(Situation(event, 2, levels), None)
    if outcome is None or not outcome.notify:
        return None
    return _told(tx, pusher, event, known, outcome.tweaks, unread)
