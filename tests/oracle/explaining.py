"""Which departures explain an answer of Synapse."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tests.oracle import departures, failures
from tests.reference import ROOM_VERSIONS, RoomVersion

BY_NAME = {**departures.TABLE, **failures.TABLE}
ALL = frozenset(BY_NAME)


@functools.cache
def depart(version: str, names: frozenset[str]) -> RoomVersion:
    """The reference for a room version with the named departures."""
    origin = ROOM_VERSIONS[version]
    classes: dict[str, Any] = {"rules": type(origin.rules), "resolution": type(origin.resolution)}
    for departed in BY_NAME.values():
        if departed.name in names:
            classes[departed.of] = departed.rewrite(classes[departed.of])
    rules = classes["rules"]()
    return RoomVersion(version, rules, classes["resolution"](rules))


def explain(version: str, gives: Callable[[RoomVersion], bool]) -> tuple[str, ...] | None:
    """The fewest departures with which the reference gives Synapse's answer.

    `gives` says whether a variant of the reference does.  None: all of them together do not.
    """
    if not gives(depart(version, ALL)):
        return None
    for name in BY_NAME:
        if gives(depart(version, frozenset({name}))):
            return (name,)
    needed = set(ALL)
    for name in BY_NAME:
        if gives(depart(version, frozenset(needed - {name}))):
            needed.remove(name)
    return tuple(name for name in BY_NAME if name in needed)
