"""What our own clients may write as power levels.

Matrix v1.19, Client-Server API, "m.room.power_levels": integers, whatever older room versions
would let through ([C10.03], [A5.24], T025).  Who may write them is for the auth rules to say.
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.core.json import Json
from matrixbox.errors import BadJson

POWER = "m.room.power_levels"
_LEVELS = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")
_TABLES = ("users", "events", "notifications")


def check_levels(content: Mapping[str, Json]) -> None:
    """Raise BadJson for a level that is no integer, in the fields that mean something."""
    for name in _LEVELS:
        if type(content.get(name, 0)) is not int:
            raise BadJson(f"`{name}` is an integer.")
    for name in _TABLES:
        table = content.get(name, {})
        if not isinstance(table, Mapping) or any(
            type(level) is not int for level in table.values()
        ):
            raise BadJson(f"`{name}` is an object of integers.")
