"""The list of published rooms.

Matrix v1.19, Client-Server API, "Published room directory" ([C12.02], [C12.03]): most members
first, then by name of the room.
"""

from __future__ import annotations

from attrs import frozen

from matrixbox.core.events import CREATE, JOIN_RULES, Event, join_rule_of
from matrixbox.core.json import Json
from matrixbox.core.visibility import HistoryVisibility
from matrixbox.errors import InvalidParam
from matrixbox.rooms.reading import HISTORY
from matrixbox.rooms.state import CurrentState
from matrixbox.store import members, names, rooms
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

MAX_LIMIT = 1_000  # rooms on one page


@frozen
class Search:
    """What is looked for."""

    limit: int
    since: str | None = None
    term: str | None = None
    room_types: tuple[Json, ...] | None = None  # None among them: rooms without a type


def summary(tx: Tx, room: RoomNid) -> dict[str, Json]:
    """What strangers may know of a published room."""
    state = CurrentState(tx, room)
    guests = state.get(("m.room.guest_access", ""))
    shown: dict[str, Json] = {
        "room_id": names.room_id(tx, room),
        "num_joined_members": members.joined_count(tx, room),
        "world_readable": HistoryVisibility.of(state.get(HISTORY))
        is HistoryVisibility.WORLD_READABLE,
        "guest_can_join": guests is not None and guests.content.get("guest_access") == "can_join",
    }
    join_rule = join_rule_of(state.get(JOIN_RULES))
    if join_rule is not None:
        shown["join_rule"] = join_rule
    for key, kind, field in (
        ("name", "m.room.name", "name"),
        ("topic", "m.room.topic", "topic"),
        ("avatar_url", "m.room.avatar", "url"),
        ("canonical_alias", "m.room.canonical_alias", "alias"),
    ):
        value = _text(state.get((kind, "")), field)
        if value:
            shown[key] = value
    kind_of_room = _text(state.get(CREATE), "type")
    if kind_of_room is not None:
        shown["room_type"] = kind_of_room
    return shown


def _text(event: Event | None, key: str) -> str | None:
    value = None if event is None else event.content.get(key)
    return value if isinstance(value, str) else None


def find(tx: Tx, wanted: Search) -> dict[str, Json]:
    """A page of the published rooms that fit; a limit of 0 stands for none."""
    start = _start(wanted.since)
    found = [
        shown
        for shown in (summary(tx, room) for room in rooms.published(tx))
        if _fits(shown, wanted)
    ]
    found.sort(key=lambda shown: (-_count(shown), str(shown["room_id"])))
    end = start + wanted.limit if wanted.limit else len(found)
    answer: dict[str, Json] = {
        "chunk": [*found[start:end]],
        "total_room_count_estimate": len(found),
    }
    if end < len(found):
        answer["next_batch"] = f"p{end}"
    if start:
        answer["prev_batch"] = f"p{max(0, start - wanted.limit)}"
    return answer


def _count(shown: dict[str, Json]) -> int:
    count = shown["num_joined_members"]
    assert isinstance(count, int)
    return count


def _start(since: str | None) -> int:
    if not since:
        return 0
    digits = since.removeprefix("p")
    if not since.startswith("p") or not (digits.isascii() and digits.isdigit()) or len(digits) > 9:
        raise InvalidParam("That is not a token of this list.")
    return int(digits)


def _fits(shown: dict[str, Json], wanted: Search) -> bool:
    if wanted.room_types is not None and shown.get("room_type") not in wanted.room_types:
        return False
    if not wanted.term:
        return True
    term = wanted.term.casefold()
    texts = (str(shown.get(key, "")) for key in ("name", "topic", "canonical_alias"))
    return any(term in text.casefold() for text in texts)
