"""Reading requests of sliding sync, in either form.

MSC4186, "Request Body", and its changelog for the form with the unstable prefix (T082).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from matrixbox.api import parse
from matrixbox.api.parse import Body
from matrixbox.core.identifiers import RoomId, UserId
from matrixbox.core.json import Json
from matrixbox.errors import BadJson, InvalidParam, MissingParam
from matrixbox.sync.sliding_request import (
    MEMBER,
    Extensions,
    Form,
    ListConfig,
    Pattern,
    Required,
    RoomConfig,
    RoomExtension,
    RoomFilters,
    ToDevice,
)

MAX_LISTS = 100
MAX_SUBSCRIPTIONS = 100
MAX_RANGES = 10
MAX_PATTERNS = 200
"""Kinds of state that one list or subscription asks for."""
MAX_FILTERED = 200
"""Spaces, tags or types in one filter."""
MAX_NAME = 255

ANY = "*"
LAZY = "$LAZY"
ME = "$ME"

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "to_device": ("to_device",),
    "e2ee": ("e2ee",),
    "account_data": ("account_data",),
    "receipts": ("receipts",),
    "typing": ("typing", "org.matrix.msc4508.typing"),
    "thread_subscriptions": (
        "thread_subscriptions",
        "io.element.msc4308.thread_subscriptions",
    ),
}
"""What extensions are called."""

T = TypeVar("T")


def lists(body: Body, form: Form, me: UserId) -> dict[str, ListConfig]:
    """The lists.  Raises BadJson, MissingParam, InvalidParam."""
    return _each(body, "lists", MAX_LISTS, partial(_list, form, me))


def subscriptions(body: Body, form: Form, me: UserId) -> dict[RoomId, RoomConfig]:
    """The subscriptions.  Raises BadJson, MissingParam, InvalidParam."""
    found = _each(body, "room_subscriptions", MAX_SUBSCRIPTIONS, partial(_room, form, me))
    return {RoomId(room): config for room, config in found.items()}


def _each(body: Body, key: str, most: int, read: Callable[[Body], T]) -> dict[str, T]:
    wanted = parse.optional_object(body, key) or {}
    if len(wanted) > most:
        raise InvalidParam(f"There are more than {most} entries in `{key}`.")
    if any(len(name) > MAX_NAME for name in wanted):
        raise InvalidParam(f"A name in `{key}` is too long.")
    return {name: read(_object(wanted, name)) for name in wanted}


def _object(body: Body, key: str) -> Body:
    found = parse.optional_object(body, key)
    return {} if found is None else found


def _room(form: Form, me: UserId, body: Body) -> RoomConfig:
    limit = parse.optional_integer(body, "timeline_limit")
    if limit is None:
        raise MissingParam("`timeline_limit` is missing.")
    if limit < 0:
        raise InvalidParam("`timeline_limit` is not negative.")
    if body.get("required_state") is None:
        raise MissingParam("`required_state` is missing.")
    if form is Form.UNSTABLE:
        return RoomConfig(limit, _pairs(parse.optional_list(body, "required_state"), me))
    return RoomConfig(limit, _required(_object(body, "required_state")))


def _list(form: Form, me: UserId, body: Body) -> ListConfig:
    if form is Form.UNSTABLE:
        given = parse.optional_list(body, "ranges")
        ranges = None if body.get("ranges") is None else tuple(map(_range, given))
        if len(given) > MAX_RANGES:
            raise InvalidParam(f"There are more than {MAX_RANGES} ranges.")
    else:
        single = body.get("range")
        ranges = None if single is None else (_range(single),)
    filters = _filters(_object(body, "filters"), form)
    return ListConfig(_room(form, me, body), ranges, filters)


def _range(given: Json) -> tuple[int, int]:
    if not isinstance(given, list) or len(given) != 2:
        raise BadJson("A range has a first and a last place.")
    first, last = given
    if type(first) is not int or type(last) is not int:
        raise BadJson("The places of a range are integers.")
    if not 0 <= first <= last:
        raise InvalidParam("A range begins at 0 or later, and not after its end.")
    return first, last


# --- required state


def _pairs(given: list[Json], me: UserId) -> Required:
    """Pairs of a type and a state key, with `*`, `$ME` and `$LAZY`."""
    _check_number(given)
    include: dict[Pattern, None] = {}
    lazy = False
    for pair in given:
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadJson("`required_state` holds pairs of a type and a state key.")
        kind, key = pair
        if not isinstance(kind, str) or not isinstance(key, str):
            raise BadJson("`required_state` holds pairs of strings.")
        if key == LAZY:
            lazy = lazy or kind in (MEMBER, ANY)
            continue
        pattern = (None if kind == ANY else kind, None if key == ANY else me if key == ME else key)
        include[pattern] = None
    return Required(tuple(include), (), lazy and (MEMBER, None) not in include)


def _required(given: Body) -> Required:
    include = parse.optional_list(given, "include")
    exclude = parse.optional_list(given, "exclude")
    _check_number(include + exclude)
    return Required(
        tuple(dict.fromkeys(map(_pattern, include))),
        tuple(dict.fromkeys(map(_pattern, exclude))),
        parse.flag(given, "lazy_members"),
    )


def _pattern(given: Json) -> Pattern:
    if not isinstance(given, Mapping):
        raise BadJson("`include` and `exclude` hold objects.")
    return parse.optional_text(given, "type"), parse.optional_text(given, "state_key")


def _check_number(given: list[Json]) -> None:
    if len(given) > MAX_PATTERNS:
        raise InvalidParam(f"There are more than {MAX_PATTERNS} entries in `required_state`.")


# --- filters


def _filters(body: Body, form: Form) -> RoomFilters:
    invited = "is_invite" if form is Form.UNSTABLE else "is_invited"
    not_types = _kinds(body, "not_room_types")
    not_tags = _texts(body, "not_tags")
    return RoomFilters(
        is_dm=_flag(body, "is_dm"),
        spaces=_texts(body, "spaces"),
        is_encrypted=_flag(body, "is_encrypted"),
        is_invited=_flag(body, invited),
        room_types=_kinds(body, "room_types"),
        not_room_types=not_types or frozenset(),
        tags=_texts(body, "tags"),
        not_tags=not_tags or frozenset(),
    )


def _flag(body: Body, key: str) -> bool | None:
    return None if body.get(key) is None else parse.flag(body, key)


def _texts(body: Body, key: str) -> frozenset[str] | None:
    if body.get(key) is None:
        return None
    found = parse.texts(body, key)
    if len(found) > MAX_FILTERED:
        raise InvalidParam(f"There are more than {MAX_FILTERED} entries in `{key}`.")
    return frozenset(found)


def _kinds(body: Body, key: str) -> frozenset[str | None] | None:
    if body.get(key) is None:
        return None
    found = parse.optional_list(body, key)
    if len(found) > MAX_FILTERED:
        raise InvalidParam(f"There are more than {MAX_FILTERED} entries in `{key}`.")
    kinds = [kind for kind in found if kind is None or isinstance(kind, str)]
    if len(kinds) < len(found):
        raise BadJson(f"`{key}` holds strings and null.")
    return frozenset(kinds)


# --- extensions


def extensions(body: Body, form: Form) -> Extensions:
    """What else is wanted; what nobody here knows is ignored.  Raises BadJson, InvalidParam."""
    given = _object(body, "extensions")
    names: dict[str, str] = {}
    asked: dict[str, Body] = {}
    for name, spellings in SPELLINGS.items():
        for spelling in spellings:
            found = _object(given, spelling)
            if parse.flag(found, "enabled") and name not in asked:
                asked[name], names[name] = found, spelling
    about_rooms = {
        name: _about_rooms(asked[name], form) if name in asked else None
        for name in ("account_data", "receipts", "typing")
    }
    threads = asked.get("thread_subscriptions")
    return Extensions(
        to_device=_to_device(asked["to_device"]) if "to_device" in asked else None,
        e2ee="e2ee" in asked,
        account_data=about_rooms["account_data"],
        receipts=about_rooms["receipts"],
        typing=about_rooms["typing"],
        threads=None if threads is None else _limit(threads),
        names=names,
    )


def _about_rooms(body: Body, form: Form) -> RoomExtension:
    return RoomExtension(_some(body, "lists", form), _some(body, "rooms", form))


def _some(body: Body, key: str, form: Form) -> frozenset[str] | None:
    if body.get(key) is None:
        return None
    found = frozenset(parse.texts(body, key))
    return None if form is Form.UNSTABLE and ANY in found else found


def _to_device(body: Body) -> ToDevice:
    since = parse.optional_text(body, "since")
    if since is not None and not (since.isascii() and since.isdigit() and len(since) <= 16):
        raise InvalidParam("`since` is no token of this server.")
    return ToDevice(None if since is None else int(since), _limit(body))


def _limit(body: Body) -> int:
    limit = parse.optional_integer(body, "limit")
    if limit is not None and limit < 1:
        raise InvalidParam("`limit` is at least 1.")
    return 100 if limit is None else limit
