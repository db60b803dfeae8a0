"""Rule 1: create events."""

from __future__ import annotations

from typing import Any

from tests.core.auth_cases.registry import (
    BOB,
    Verdict,
    allows,
    refuses,
)
from tests.core.making import CREATOR, Room

# --- 1. m.room.create


def create(room: Room, content: dict[str, Any] | None = None, **how: Any) -> Verdict:
    body = {"creator": CREATOR, "room_version": room.version} if content is None else content
    event = room.make("m.room.create", body, **{"sender": CREATOR, "key": "", **how})
    return room.verdict(event, {})


@allows("1.1 prev_events")
def create_without_prev_events(room: Room) -> Verdict:
    return create(room)


@refuses("1.1 prev_events", "prev_events")
def create_with_prev_events(room: Room) -> Verdict:
    return create(room, prev=[room.create])


@allows("1.2 domain of the room ID")
def create_in_a_room_of_its_sender(room: Room) -> Verdict:
    return create(room, sender="@a:b:80", room_id="!x:b:80")


@refuses("1.2 domain of the room ID", "another server")
def create_in_a_room_of_another_server(room: Room) -> Verdict:
    return create(room, room_id="!x:two.test")


@refuses("1.2 domain of the room ID", "another server")
def create_in_a_room_with_another_port(room: Room) -> Verdict:
    return create(room, room_id="!x:one.test:8448")


@refuses("1.2 domain of the room ID", "another server")
def create_in_a_room_without_domain(room: Room) -> Verdict:
    return create(room, room_id="!x")


@allows("1.2 no room ID")
def create_without_room_id(room: Room) -> Verdict:
    return create(room)


@refuses("1.2 no room ID", "room_id")
def create_with_a_room_id(room: Room) -> Verdict:
    return create(room, room_id="!x:one.test")


@refuses("1.2 no room ID", "room_id")
def create_with_an_odd_room_id(room: Room) -> Verdict:
    return create(room, room_id=[])


@allows("1.3 room version")
def create_without_version(room: Room) -> Verdict:
    return create(room, {"creator": CREATOR})


@allows("1.3 room version")
def create_with_any_known_version(room: Room) -> Verdict:
    return create(room, {"creator": CREATOR, "room_version": "7"})


@refuses("1.3 room version", "room version")
def create_with_unknown_version(room: Room) -> Verdict:
    return create(room, {"creator": CREATOR, "room_version": "13"})


@refuses("1.3 room version", "room version")
def create_with_a_number_as_version(room: Room) -> Verdict:
    return create(room, {"creator": CREATOR, "room_version": 1})


@allows("1.4 creator")
def create_with_creator(room: Room) -> Verdict:
    return create(room, {"creator": "@else:where"})


@allows("1.4 creator")
def create_with_an_odd_creator(room: Room) -> Verdict:
    return create(room, {"creator": None})


@refuses("1.4 creator", "without creator")
def create_without_creator(room: Room) -> Verdict:
    return create(room, {})


@allows("1.4 creator", first=11, last=12)
def create_without_creator_in_new_versions(room: Room) -> Verdict:
    return create(room, {})


@allows("1.4 additional creators")
def create_with_additional_creators(room: Room) -> Verdict:
    return create(room, {"additional_creators": [BOB, "@Old style!:a", CREATOR]})


@allows("1.4 additional creators")
def create_with_an_empty_list_of_creators(room: Room) -> Verdict:
    return create(room, {"additional_creators": []})


@allows("1.4 additional creators")
def create_without_additional_creators(room: Room) -> Verdict:
    return create(room, {})


@refuses("1.4 additional creators", "additional_creators")
def create_with_an_additional_creator_that_is_none(room: Room) -> Verdict:
    return create(room, {"additional_creators": [BOB, "bob"]})


@refuses("1.4 additional creators", "additional_creators")
def create_with_a_number_as_additional_creator(room: Room) -> Verdict:
    return create(room, {"additional_creators": [5]})


@refuses("1.4 additional creators", "additional_creators")
def create_with_text_as_additional_creators(room: Room) -> Verdict:
    return create(room, {"additional_creators": BOB})


@refuses("1.4 additional creators", "additional_creators")
def create_with_null_as_additional_creators(room: Room) -> Verdict:
    return create(room, {"additional_creators": None})


@allows("1.4 additional creators", first=1, last=11)
def create_with_odd_additional_creators_in_old_versions(room: Room) -> Verdict:
    return create(room, {"creator": CREATOR, "additional_creators": 5})
