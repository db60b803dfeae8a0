"""Events, their format, and lazy readers for what the protocol asks of them.

Matrix v1.19, rooms/v1 to v12, "Event format"; Client-Server API, "Size limits"; receipt check 1
[A3.01]-[A3.07].  What other servers send is read field by field: a wrong type in a field that
nobody asks about changes nothing (T025, rule 7 of the threat page).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from attrs import field, frozen

from matrixbox.core.hashes import event_id_of
from matrixbox.core.identifiers import (
    MAX_ID_BYTES,
    EventId,
    RoomId,
    UserId,
    fits,
    has_event_id_form,
    has_room_id_form,
    has_user_id_form,
)
from matrixbox.core.json import (
    MAX_INTEGER,
    Json,
    JsonError,
    RawNumber,
    encode_canonical,
    encode_strict,
)
from matrixbox.core.levels import read_level
from matrixbox.core.room_versions import RoomRules
from matrixbox.core.verdict import NotAllowed

StateKey = tuple[str, str]  # (type, state_key)

CREATE: StateKey = ("m.room.create", "")
POWER_LEVELS: StateKey = ("m.room.power_levels", "")
JOIN_RULES: StateKey = ("m.room.join_rules", "")

MAX_DEPTH = MAX_INTEGER  # in every version, though the schema of 1 to 5 says 2^63-1 (T004)
MAX_PDU_BYTES = 65536
MAX_AUTH_EVENTS = 10
MAX_PREV_EVENTS = 20
_INT64 = 2**63


class MalformedEvent(Exception):
    """The PDU is not an event of its room version: it is dropped.

    `too_large` tells events over the size limits from others.
    """

    def __init__(self, reason: str, *, too_large: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.too_large = too_large


@frozen(eq=False)
class Event:
    """One event.  Events are told apart by identity; compare `event_id` where that is meant."""

    event_id: EventId
    room_id: RoomId
    type: str
    sender: UserId
    state_key: str | None
    content: Mapping[str, Json] = field(repr=False)
    origin_server_ts: int  # ms
    depth: int
    prev_event_ids: tuple[EventId, ...]  # without repetitions
    auth_event_ids: tuple[EventId, ...]  # as they stand in the event
    redacts: EventId | None
    json: Mapping[str, Json] = field(repr=False)  # the PDU without `unsigned`; nobody edits it
    rules: RoomRules = field(repr=False)
    # Room versions 1 to 10: an identifier takes more than 255 bytes; to be stored as rejected.
    overlong: bool = field(default=False, repr=False)


StateMap = Mapping[StateKey, Event]


def parse_event(
    rules: RoomRules, pdu: Mapping[str, Json], *, exempt_from_counts: bool = False
) -> Event:
    """Check format and sizes of a PDU and name it; raise MalformedEvent (receipt check 1).

    Hashes and signatures are not verified here.  `exempt_from_counts`: the event comes out of a
    `/backfill` answer, where the bounds on cited events do not apply [A3.02].
    """
    json = {key: value for key, value in pdu.items() if key != "unsigned"}
    _check_encoding(rules, json)
    type_ = _string(json, "type")
    sender = _string(json, "sender")
    if not has_user_id_form(sender):
        raise MalformedEvent("the sender is not a user ID")
    content = json.get("content")
    if not isinstance(content, Mapping):
        raise MalformedEvent("content is not an object")
    _check_hashes_and_signatures(json)
    event_id = _event_id(rules, json)
    room_id = _room_id(rules, json, event_id)
    if not has_room_id_form(room_id):
        raise MalformedEvent("room_id is not a room ID")
    state_key = _string(json, "state_key") if "state_key" in json else None
    prev_event_ids = tuple(dict.fromkeys(_cited(rules, json, "prev_events")))
    auth_event_ids = tuple(_cited(rules, json, "auth_events"))
    if not exempt_from_counts:
        _check_counts(prev_event_ids, auth_event_ids)
    return Event(
        event_id=event_id,
        room_id=room_id,
        type=type_,
        sender=UserId(sender),
        state_key=state_key,
        content=content,
        origin_server_ts=_timestamp(json.get("origin_server_ts")),
        depth=_depth(json.get("depth")),
        prev_event_ids=prev_event_ids,
        auth_event_ids=auth_event_ids,
        redacts=redacts_of(rules, json),
        json=json,
        rules=rules,
        overlong=_is_overlong(rules, type_, state_key or "", sender, room_id, event_id),
    )


def event_from_stored(rules: RoomRules, event_id: EventId, pdu: Mapping[str, Json]) -> Event:
    """The event of a PDU that went through `parse_event` before it was stored; no checks."""
    prev_events: Sequence[Json] = pdu["prev_events"]  # type: ignore[assignment]
    auth_events: Sequence[Json] = pdu["auth_events"]  # type: ignore[assignment]
    if rules.event_id_in_pdu:
        prev_events = [pair[0] for pair in prev_events]  # type: ignore[index]
        auth_events = [pair[0] for pair in auth_events]  # type: ignore[index]
    get = pdu.get
    ts = pdu["origin_server_ts"]
    return Event(
        event_id,
        _room_id(rules, pdu, event_id),
        pdu["type"],  # type: ignore[arg-type]
        pdu["sender"],  # type: ignore[arg-type]
        get("state_key"),  # type: ignore[arg-type]
        pdu["content"],  # type: ignore[arg-type]
        ts if type(ts) is int else _timestamp(ts),
        pdu["depth"],  # type: ignore[arg-type]
        tuple(dict.fromkeys(prev_events)),  # type: ignore[arg-type]
        tuple(auth_events),  # type: ignore[arg-type]
        redacts_of(rules, pdu),
        pdu,
        rules,
    )


def _check_encoding(rules: RoomRules, json: Mapping[str, Json]) -> None:
    """Canonical JSON where the room version enforces it, and the size of the whole event."""
    try:
        size = len(encode_canonical(json) if rules.exact_numbers else encode_strict(json))
    except JsonError as error:
        raise MalformedEvent(str(error)) from error
    if size > MAX_PDU_BYTES:
        raise MalformedEvent("the event is larger than 65536 bytes", too_large=True)


def _string(json: Mapping[str, Json], key: str) -> str:
    value = json.get(key)
    if not isinstance(value, str):
        raise MalformedEvent(f"{key} is not a string")
    return value


def _check_hashes_and_signatures(json: Mapping[str, Json]) -> None:
    hashes = json.get("hashes")
    if not isinstance(hashes, Mapping) or not isinstance(hashes.get("sha256"), str):
        raise MalformedEvent("hashes has no sha256")
    if not isinstance(json.get("signatures"), Mapping):
        raise MalformedEvent("signatures is not an object")


def _event_id(rules: RoomRules, json: Mapping[str, Json]) -> EventId:
    if rules.event_id_in_pdu and not has_event_id_form(_string(json, "event_id"), with_domain=True):
        raise MalformedEvent("event_id is not an event ID")
    return event_id_of(rules, json)


def _room_id(rules: RoomRules, json: Mapping[str, Json], event_id: EventId) -> RoomId:
    """The room the event says it is in; from v12 on a create event makes its own [A3.07].

    Such a create event must not have a `room_id`: auth rule 1.2 rejects it.
    """
    if rules.room_id_is_create_hash and json.get("type") == "m.room.create":
        return RoomId("!" + event_id[1:])
    return RoomId(_string(json, "room_id"))


def _cited(rules: RoomRules, json: Mapping[str, Json], key: str) -> list[EventId]:
    """The event IDs in `prev_events` or `auth_events`."""
    citations = json.get(key)
    if not isinstance(citations, list):
        raise MalformedEvent(f"{key} is not a list")
    return [_cited_id(rules, citation, key) for citation in citations]


def _cited_id(rules: RoomRules, citation: Json, key: str) -> EventId:
    if rules.event_id_in_pdu:
        # [event_id, {"sha256": hash}]; nobody reads the hash
        if not isinstance(citation, list) or len(citation) != 2:
            raise MalformedEvent(f"{key} holds something that is not a pair")
        citation = citation[0]
    if (
        not isinstance(citation, str)
        or not has_event_id_form(citation)
        or len(citation) > MAX_ID_BYTES
    ):
        raise MalformedEvent(f"{key} holds something that is not an event ID")
    return EventId(citation)


def _check_counts(prev: Sequence[EventId], auth: Sequence[EventId]) -> None:
    """[A3.02], T003.  Doubled auth events are left to the auth rules."""
    if len(prev) > MAX_PREV_EVENTS:
        raise MalformedEvent("more than 20 prev_events")
    if len(set(auth)) > MAX_AUTH_EVENTS:
        raise MalformedEvent("more than 10 auth_events")


def _timestamp(value: Json) -> int:
    """Any 64-bit integer: timestamps are taken as they come (T024)."""
    number = value.integer() if isinstance(value, RawNumber) else value
    if type(number) is not int or not -_INT64 <= number < _INT64:
        raise MalformedEvent("origin_server_ts is not a 64-bit integer")
    return number


def _depth(value: Json) -> int:
    if type(value) is not int or not 0 <= value <= MAX_DEPTH:
        raise MalformedEvent("depth is out of range")
    return value


def redacts_of(rules: RoomRules, pdu: Mapping[str, Json]) -> EventId | None:
    """The event a redaction names, at the place of its room version [A3.06]."""
    if pdu.get("type") != "m.room.redaction":
        return None
    content = pdu.get("content")
    place = content if rules.redacts_in_content else pdu
    target = place.get("redacts") if isinstance(place, Mapping) else None
    return EventId(target) if isinstance(target, str) else None


def _is_overlong(rules: RoomRules, *identifiers: str) -> bool:
    """Whether an identifier is over 255 bytes; raise where that makes the event malformed (T002).

    Before version 11 servers counted code points, so such events exist and are rejected only.
    """
    overlong = [text for text in identifiers if not fits(text)]
    if any(rules.strict_byte_limits or len(text) > MAX_ID_BYTES for text in overlong):
        raise MalformedEvent("an identifier is longer than 255 bytes", too_large=True)
    return bool(overlong)


# --- readers


def membership_of(event: Event | None) -> str | None:
    """The membership a member event sets; None without event or without a readable one."""
    return _text(event, "membership")


def join_rule_of(event: Event | None) -> str | None:
    """The join rule of a join rules event; None without event or without a readable one."""
    return _text(event, "join_rule")


def _text(event: Event | None, key: str) -> str | None:
    value = None if event is None else event.content.get(key)
    return value if isinstance(value, str) else None


@lru_cache(maxsize=256)
def creators_of(create: Event) -> frozenset[str]:
    """The creators of a room: one, or from version 12 on also the additional ones."""
    if not create.rules.creator_is_sender:
        creator = create.content.get("creator")
        return frozenset({creator} if isinstance(creator, str) else ())
    if not create.rules.privileged_creators:
        return frozenset({create.sender})
    additional = create.content.get("additional_creators")
    others = additional if isinstance(additional, list) else ()
    return frozenset({create.sender, *(user for user in others if isinstance(user, str))})


@frozen(eq=False)
class PowerLevels:
    """The power levels in force, read on demand as the room version reads them [A5.21]-[A5.24].

    Levels that can't be read, which rooms up to version 9 may hold, count as absent; for the
    authorisation rules, `strict`, they satisfy no rule: reading them raises NotAllowed.
    """

    rules: RoomRules
    creators: frozenset[str]
    content: Mapping[str, Json] | None  # None: there is no power levels event
    strict: bool = False

    def user(self, user_id: str) -> float:
        """A user's level; `math.inf` for the creators of a version 12 room."""
        if self.rules.privileged_creators and user_id in self.creators:
            return math.inf
        if self.content is None:
            return 100 if user_id in self.creators else 0
        level = self._entry("users", user_id)
        return self._named("users_default", 0) if level is None else level

    def required_for(self, event_type: str, *, is_state: bool) -> int:
        """The level needed to send an event that is no membership event [A5.16]."""
        level = self._entry("events", event_type)
        if level is not None:
            return level
        return self._named("state_default", 50) if is_state else self._named("events_default", 0)

    @property
    def invite(self) -> int:
        """The invite level."""
        return self._named("invite", 0)

    @property
    def kick(self) -> int:
        """The kick level."""
        return self._named("kick", 50)

    @property
    def ban(self) -> int:
        """The ban level."""
        return self._named("ban", 50)

    @property
    def redact(self) -> int:
        """The redact level."""
        return self._named("redact", 50)

    def notification(self, key: str) -> int:
        """The level needed to notify the room in the way `key` says, such as "room"."""
        level = self._entry("notifications", key)
        return 50 if level is None else level

    def _named(self, name: str, default: int) -> int:
        if self.content is None:
            return default
        level = self._read(self.content, name)
        return default if level is None else level

    def _entry(self, table: str, key: str) -> int | None:
        entries = None if self.content is None else self.content.get(table)
        if not isinstance(entries, Mapping):
            return None
        return self._read(entries, key)

    def _read(self, entries: Mapping[str, Json], key: str) -> int | None:
        level = read_level(self.rules, entries.get(key))
        if level is None and self.strict and key in entries:
            raise NotAllowed("a power level in force that cannot be read")
        return level


@lru_cache(maxsize=512)
def power_levels(
    rules: RoomRules, create: Event, event: Event | None, *, strict: bool = False
) -> PowerLevels:
    """The reader for a room's power levels event, or for its absence."""
    content = None if event is None else event.content
    return PowerLevels(rules, creators_of(create), content, strict)
