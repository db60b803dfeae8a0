"""Reading what clients send: members of bodies, query parameters, identifiers.

Raises BadJson or MissingParam for bodies, InvalidParam for paths and queries ([C1.12], T090).  A
boolean is not an integer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from matrixbox.core.identifiers import (
    EventId,
    InvalidIdentifier,
    RoomAlias,
    RoomId,
    ServerName,
    UserId,
    parse_event_id,
    parse_room_alias,
    parse_room_id,
    parse_server_name,
    parse_user_id,
)
from matrixbox.core.json import Json
from matrixbox.errors import BadJson, InvalidParam, MissingParam
from matrixbox.rooms.public_rooms import MAX_LIMIT, Search

Body = Mapping[str, Json]
T = TypeVar("T")


def text(body: Body, key: str) -> str:
    """A string that must be there."""
    if key not in body:
        raise MissingParam(f"`{key}` is missing.")
    found = optional_text(body, key)
    if found is None:
        raise BadJson(f"`{key}` is a string.")
    return found


def optional_text(body: Body, key: str) -> str | None:
    """A string, or None where it is absent or null."""
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise BadJson(f"`{key}` is a string.")
    return value


def flag(body: Body, key: str, *, default: bool = False) -> bool:
    """A boolean."""
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadJson(f"`{key}` is true or false.")
    return value


def optional_integer(body: Body, key: str) -> int | None:
    """An integer."""
    value = body.get(key)
    if value is not None and type(value) is not int:
        raise BadJson(f"`{key}` is an integer.")
    return value


def optional_object(body: Body, key: str) -> Body | None:
    """An object."""
    value = body.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise BadJson(f"`{key}` is an object.")
    return value


def optional_list(body: Body, key: str) -> list[Json]:
    """A list; empty where it is absent."""
    value = body.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadJson(f"`{key}` is a list.")
    return value


def texts(body: Body, key: str) -> list[str]:
    """A list of strings; empty where it is absent."""
    found = optional_list(body, key)
    if not all(isinstance(item, str) for item in found):
        raise BadJson(f"`{key}` is a list of strings.")
    return [str(item) for item in found]


def room_search(body: Body, default: int) -> Search:
    """What the body of a search in the list of rooms looks for; a limit of 0 is the largest."""
    wanted = optional_object(body, "filter") or {}
    limit = optional_integer(body, "limit")
    types = optional_list(wanted, "room_types")
    if not all(kind is None or isinstance(kind, str) for kind in types):
        raise BadJson("`room_types` holds strings and null.")
    return Search(
        limit=min(max(default if limit is None else limit, 0), MAX_LIMIT) or MAX_LIMIT,
        since=optional_text(body, "since"),
        term=optional_text(wanted, "generic_search_term"),
        room_types=None if wanted.get("room_types") is None else tuple(types),
    )


# --- identifiers


def _identifier(parser: Callable[[str], T], value: str, what: str) -> T:
    try:
        return parser(value)
    except InvalidIdentifier as error:
        raise InvalidParam(f"That is not {what}.") from error


def user_id(value: str) -> UserId:
    """A user id."""
    return _identifier(parse_user_id, value, "a user id")


def room_id(value: str) -> RoomId:
    """A room id."""
    return _identifier(parse_room_id, value, "a room id")


def event_id(value: str) -> EventId:
    """An event id."""
    return _identifier(parse_event_id, value, "an event id")


def room_alias(value: str) -> RoomAlias:
    """A room alias."""
    return _identifier(parse_room_alias, value, "a room alias")


def server_name(value: str) -> ServerName:
    """A server name."""
    return _identifier(parse_server_name, value, "a server name")


# --- queries


def query_integer(value: str | None, name: str, default: int, least: int, most: int) -> int:
    """An integer from the query; above ``most`` it counts as that."""
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and len(value) <= 16) or int(value) < least:
        raise InvalidParam(f"`{name}` is an integer of at least {least}.")
    return min(int(value), most)


def query_flag(value: str | None, name: str) -> bool:
    """``true`` or ``false`` from the query."""
    if value not in (None, "true", "false"):
        raise InvalidParam(f"`{name}` is true or false.")
    return value == "true"


def query_choice(value: str | None, name: str, choices: tuple[str, ...]) -> str | None:
    """One of some words from the query."""
    if value is not None and value not in choices:
        raise InvalidParam(f"`{name}` is one of {', '.join(choices)}.")
    return value
