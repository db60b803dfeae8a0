"""Words the rules use: domains, user ids, levels and the shape of events and states.

Matrix v1.19, appendices "User identifiers" and "Server name"; rooms/fragments
v1-stringy-power-levels and v1-floaty-power-levels.
"""

from __future__ import annotations

import functools
import ipaddress
import math
import re
from collections.abc import Mapping
from typing import Any

Event = Mapping[str, Any]
StateKey = tuple[str, str]
State = Mapping[StateKey, Event]
Events = Mapping[str, Event]
"""Everything the server knows, by event id."""

CREATE = ("m.room.create", "")
POWER_LEVELS = ("m.room.power_levels", "")
JOIN_RULES = ("m.room.join_rules", "")


class Reject(Exception):
    """The event is not allowed; the text names the sentence that says so."""


class NotALevel(Exception):
    """A value stands where a power level is needed and is none."""


def key_of(event: Event) -> StateKey:
    return (event["type"], event["state_key"])


def domain_of(identifier: object) -> str | None:
    """What follows the first colon; None if there is no colon."""
    if not isinstance(identifier, str) or ":" not in identifier:
        return None
    return identifier.split(":", 1)[1]


@functools.cache
def is_server_name(text: str) -> bool:
    """Appendices, "Server name"."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,255})(:[0-9]{1,5})?", text)
    if match is None:
        return False
    host = match.group(1)
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
    return True


def is_user_id(text: object) -> bool:
    """Appendices, "User identifiers" with "Historical user IDs"."""
    if not isinstance(text, str) or not text.startswith("@") or ":" not in text:
        return False
    localpart, server_name = text[1:].split(":", 1)
    return "\0" not in localpart and is_server_name(server_name) and len(text.encode()) <= 255


def integer(value: object) -> int:
    """A JSON integer.  `true` is not one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotALevel(value)
    return value


def integer_or_string(value: object) -> int:
    """Rooms 6 to 9: also a string that is an integer."""
    if isinstance(value, str):
        if re.fullmatch(r"\s*[+-]?[0-9]+\s*", value) is None:
            raise NotALevel(value)
        return int(value)
    return integer(value)


def integer_string_or_float(value: object) -> int:
    """Rooms 1 to 5: also a float, cut off at the decimal point."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotALevel(value)
        return math.trunc(value)
    return integer_or_string(value)
