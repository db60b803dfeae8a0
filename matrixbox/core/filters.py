"""Client filters: reading them, and applying them to events.

Matrix v1.19, Client-Server API, "Filtering"; definitions sync_filter, event_filter and
room_event_filter [C8.08]-[C8.11].  Filters come from our own clients and are read strictly; keys
that nobody here knows are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from attrs import evolve, field, frozen

from matrixbox.core.globs import Glob
from matrixbox.core.identifiers import InvalidIdentifier, RoomId, is_user_id, parse_room_id
from matrixbox.core.json import Json
from matrixbox.core.paths import Path, look_up, parse_path

_T = TypeVar("_T")
_MISSING: Json = "\0 not there"  # no property has this value by identity


class InvalidFilter(ValueError):
    """The filter is not one; the text tells the client why (400)."""


@frozen
class EventFilter:
    """What one list of events may hold.

    `None` as a list includes everything, an empty list nothing; what is excluded stays out even if
    it is included too.
    """

    limit: int | None = None  # 0, which clients should not send, wants no events
    types: tuple[Glob, ...] | None = None
    not_types: tuple[Glob, ...] = ()
    senders: frozenset[str] | None = None
    not_senders: frozenset[str] = frozenset()
    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False

    def allows_room(self, room_id: RoomId) -> bool:
        """Whether events of this room pass."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)

    def in_room(self, room_id: RoomId) -> EventFilter:
        """The filter for events of one room: nothing passes if the room does not."""
        return self if self.allows_room(room_id) else evolve(self, types=())

    def allows(
        self, event_type: str, sender: str | None, content: Mapping[str, Json] | None = None
    ) -> bool:
        """Whether an event passes; the room is asked about separately, once.

        `sender` is None for what nobody sent, like account data: an include list lets none of that
        through.
        """
        if self.senders is not None and sender not in self.senders:
            return False
        if sender in self.not_senders:
            return False
        if self.types is not None and not _matches(self.types, event_type):
            return False
        if self.not_types and _matches(self.not_types, event_type):
            return False
        return self.contains_url is None or self.contains_url is ("url" in (content or {}))


@frozen
class RoomFilter:
    """What `/sync` tells about rooms; the filters of events come after that of rooms."""

    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    include_leave: bool = False
    state: EventFilter = EventFilter()
    timeline: EventFilter = EventFilter()
    ephemeral: EventFilter = EventFilter()
    account_data: EventFilter = EventFilter()

    def allows_room(self, room_id: RoomId) -> bool:
        """Whether the room appears at all."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)


@frozen
class Filter:
    """A filter for `/sync`."""

    room: RoomFilter = RoomFilter()
    presence: EventFilter = EventFilter()
    account_data: EventFilter = EventFilter()
    event_fields: tuple[Path, ...] | None = field(default=None)
    federation_format: bool = False

    def project(self, event: Mapping[str, Json]) -> Mapping[str, Json]:
        """The event with only the fields that the client asked for."""
        return event if self.event_fields is None else project(event, self.event_fields)


def _matches(globs: Sequence[Glob], text: str) -> bool:
    return any(glob.matches(text) for glob in globs)


def project(event: Mapping[str, Json], paths: Sequence[Path]) -> dict[str, Json]:
    """Keep only the properties at these paths."""
    kept: dict[str, Json] = {}
    # Shorter paths first: what they keep whole, longer ones need not go into.
    for path in sorted(paths, key=len):
        value = look_up(event, path, _MISSING)
        if value is not _MISSING:
            _put(kept, path, value)
    return kept


def _put(kept: dict[str, Json], path: Path, value: Json) -> None:
    *parents, name = path
    for parent in parents:
        inner = kept.setdefault(parent, _Partial())
        if not isinstance(inner, _Partial):
            return  # kept whole already
        kept = inner
    kept[name] = value


class _Partial(dict[str, Json]):
    """An object of which only some properties are kept."""


# --- reading


def parse_filter(value: Json) -> Filter:
    """Read a filter for `/sync`; raise InvalidFilter."""
    body = _object(value, "The filter")
    event_format = body.get("event_format", "client")
    if event_format not in ("client", "federation"):
        raise InvalidFilter("event_format is neither 'client' nor 'federation'.")
    paths = _list(body, "event_fields", _string)
    return Filter(
        room=_room_filter(body.get("room", {})),
        presence=_event_filter(body, "presence"),
        account_data=_event_filter(body, "account_data"),
        event_fields=None if paths is None else tuple(map(parse_path, paths)),
        federation_format=event_format == "federation",
    )


def parse_event_filter(value: Json) -> EventFilter:
    """Read a RoomEventFilter, as `/messages` and `/context` take them; raise InvalidFilter."""
    found = _event_filter({"filter": value}, "filter")
    if found.limit == 0:  # a page of nothing would lead nowhere
        raise InvalidFilter("limit is not an integer greater than 0.")
    return found


def _room_filter(value: Json) -> RoomFilter:
    body = _object(value, "room")
    return RoomFilter(
        rooms=_set(body, "rooms", _room_id),
        not_rooms=_set(body, "not_rooms", _room_id) or frozenset(),
        include_leave=_flag(body, "include_leave") or False,
        state=_event_filter(body, "state"),
        timeline=_event_filter(body, "timeline"),
        ephemeral=_event_filter(body, "ephemeral"),
        account_data=_event_filter(body, "account_data"),
    )


def _event_filter(parent: Mapping[str, Json], name: str) -> EventFilter:
    body = _object(parent.get(name, {}), name)
    types = _list(body, "types", _string)
    return EventFilter(
        limit=_limit(body),
        types=None if types is None else _globs(types),
        not_types=_globs(_list(body, "not_types", _string) or []),
        senders=_set(body, "senders", _user_id),
        not_senders=_set(body, "not_senders", _user_id) or frozenset(),
        rooms=_set(body, "rooms", _room_id),
        not_rooms=_set(body, "not_rooms", _room_id) or frozenset(),
        contains_url=_flag(body, "contains_url"),
        lazy_load_members=_flag(body, "lazy_load_members") or False,
        include_redundant_members=_flag(body, "include_redundant_members") or False,
        unread_thread_notifications=_flag(body, "unread_thread_notifications") or False,
    )


def _globs(patterns: Sequence[str]) -> tuple[Glob, ...]:
    """In filters only `*` is special."""
    return tuple(Glob.of(pattern, single=False) for pattern in patterns)


def _object(value: Json, name: str) -> Mapping[str, Json]:
    if not isinstance(value, Mapping):
        raise InvalidFilter(f"{name} is not an object.")
    return value


def _limit(body: Mapping[str, Json]) -> int | None:
    if "limit" not in body:
        return None
    limit = body["limit"]
    if type(limit) is not int or limit < 0:
        raise InvalidFilter("limit is not an integer greater than 0.")
    return limit


def _flag(body: Mapping[str, Json], name: str) -> bool | None:
    if name not in body:
        return None
    flag = body[name]
    if not isinstance(flag, bool):
        raise InvalidFilter(f"{name} is not a boolean.")
    return flag


def _list(
    body: Mapping[str, Json], name: str, read: Callable[[Json], _T | None]
) -> list[_T] | None:
    if name not in body:
        return None
    items = body[name]
    if not isinstance(items, list):
        raise InvalidFilter(f"{name} is not a list.")
    found = [read(item) for item in items]
    good = [item for item in found if item is not None]
    if len(good) != len(found):
        raise InvalidFilter(f"{name} holds something of the wrong kind.")
    return good


def _set(
    body: Mapping[str, Json], name: str, read: Callable[[Json], str | None]
) -> frozenset[str] | None:
    found = _list(body, name, read)
    return None if found is None else frozenset(found)


def _string(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _user_id(value: Json) -> str | None:
    return value if is_user_id(value) else None


def _room_id(value: Json) -> str | None:
    try:
        return parse_room_id(value) if isinstance(value, str) else None
    except InvalidIdentifier:
        return None
