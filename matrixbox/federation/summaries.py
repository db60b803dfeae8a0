"""What other servers say about their rooms, read field by field.

Matrix v1.19, Server-Server API, "Published room directory", "Spaces" ([B13.02], [B13.03]).  A field
of the wrong type is as good as absent; a room without the fields that must be there is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from matrixbox.core.client_format import strip_foreign
from matrixbox.core.identifiers import InvalidIdentifier, RoomId, parse_room_id
from matrixbox.core.json import Json, encode

Summary = Mapping[str, Json]

MAX_ROOMS = 1_000  # of one answer
MAX_CHILDREN = 1_000  # of one space
MAX_TEXT = 2_000  # characters of a name or a topic; the rest is cut off
MAX_WORD = 255  # characters of whatever else; longer ones are left out
_TEXTS = ("name", "topic")
_WORDS = (
    "avatar_url",
    "canonical_alias",
    "join_rule",
    "room_type",
    "encryption",
    "room_version",
)
_FLAGS = ("world_readable", "guest_can_join")


@frozen
class Space:
    """A room with what its server tells of its children."""

    room: Summary
    children: Mapping[RoomId, Summary]
    inaccessible: frozenset[str]

    @property
    def size(self) -> int:
        """About how many bytes it is."""
        return len(encode([self.room, *self.children.values(), *self.inaccessible]))


def room_summary(value: Json, *, with_children: bool = False) -> dict[str, Json] | None:
    """A summary of a room; None for what is none."""
    if not isinstance(value, Mapping):
        return None
    room_id, members = value.get("room_id"), value.get("num_joined_members")
    if not isinstance(room_id, str) or type(members) is not int or members < 0:
        return None
    try:
        shown: dict[str, Json] = {"room_id": parse_room_id(room_id), "num_joined_members": members}
    except InvalidIdentifier:
        return None
    shown.update({name: value.get(name) is True for name in _FLAGS})
    for name in (*_TEXTS, *_WORDS):
        text = value.get(name)
        if isinstance(text, str) and (name in _TEXTS or len(text) <= MAX_WORD):
            shown[name] = text[:MAX_TEXT]
    allowed = value.get("allowed_room_ids")
    if isinstance(allowed, list):
        shown["allowed_room_ids"] = [one for one in allowed[:MAX_ROOMS] if isinstance(one, str)]
    if with_children:
        shown["children_state"] = children(value.get("children_state"))
    return shown


def children(value: Json) -> list[Json]:
    """The `m.space.child` events of a space, in stripped form."""
    found: list[Json] = []
    for entry in (value if isinstance(value, list) else [])[:MAX_CHILDREN]:
        stripped = strip_foreign(entry)
        sent = entry.get("origin_server_ts") if isinstance(entry, Mapping) else None
        if stripped is not None and stripped["type"] == "m.space.child" and type(sent) is int:
            found.append({**stripped, "origin_server_ts": sent})
    return found


def rooms(value: Json, *, with_children: bool = False) -> Iterable[dict[str, Json]]:
    """The rooms of a list."""
    for entry in (value if isinstance(value, list) else [])[:MAX_ROOMS]:
        shown = room_summary(entry, with_children=with_children)
        if shown is not None:
            yield shown


def space(value: Mapping[str, Json], room_id: RoomId) -> Space | None:
    """An answer about the children of one room; None if it is not about that."""
    room = room_summary(value.get("room"), with_children=True)
    if room is None or room["room_id"] != room_id:
        return None
    found = rooms(value.get("children"), with_children=True)
    closed = value.get("inaccessible_children")
    return Space(
        room,
        {RoomId(str(child["room_id"])): child for child in found},
        frozenset(one for one in closed[:MAX_ROOMS] if isinstance(one, str))
        if isinstance(closed, list)
        else frozenset(),
    )
