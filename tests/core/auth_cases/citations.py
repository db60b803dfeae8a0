"""Rules 2 and 3: what an event cites."""

from __future__ import annotations

from typing import Any

from tests.core.auth_cases.registry import (
    BOB,
    CAROL,
    Verdict,
    allows,
    refuses,
)
from tests.core.making import CREATOR, Room

# --- 2. and 3. auth_events


def citing(room: Room, *others: Any, **how: Any) -> Verdict:
    """A message of Bob's that cites what it should and `others`."""
    cited = [*room.selected("m.room.message", BOB, None, {}), *others]
    event = room.make("m.room.message", {}, sender=BOB, auth=cited, **how)
    return room.citations_verdict(event, cited, room.create)


@allows("2 room ID of a create event")
def event_of_a_known_room(room: Room) -> Verdict:
    return citing(room)


@refuses("2 room ID of a create event", "does not name a create event")
def event_of_an_unknown_room(room: Room) -> Verdict:
    event = room.make("m.room.message", {}, sender=BOB)
    return room.citations_verdict(event, [], None)


@refuses("2 room ID of a create event", "does not name a create event")
def event_of_another_room(room: Room) -> Verdict:
    event = room.make("m.room.message", {}, sender=BOB, room_id="!other")
    return room.citations_verdict(event, [], room.create)


@refuses("2 room ID of a create event", "does not name a create event")
def event_whose_room_id_names_another_event(room: Room) -> Verdict:
    event = room.make("m.room.message", {}, sender=BOB)
    return room.citations_verdict(event, [], room.state["m.room.join_rules", ""])


@refuses("2 room ID of a create event", "create event was rejected")
def event_of_a_rejected_room(room: Room) -> Verdict:
    room.rejected.add(room.create.event_id)
    return citing(room)


@refuses("2 room ID of a create event", "does not name a create event")
def event_against_the_state_of_another_room(room: Room) -> Verdict:
    event = room.make("m.room.message", {}, sender=BOB)
    room.state["m.room.create", ""] = Room("12", other=True).create
    return room.verdict(event)


@allows("3.1 duplicates")
def event_with_one_entry_for_each_key(room: Room) -> Verdict:
    return citing(room)


@refuses("3.1 duplicates", "cited twice")
def event_that_cites_the_same_event_twice(room: Room) -> Verdict:
    cited = room.selected("m.room.message", BOB, None, {})
    event = room.make("m.room.message", {}, sender=BOB, auth=[*cited, cited[0]])
    return room.citations_verdict(event, cited, room.create)


@refuses("3.1 duplicates", "same type and state_key")
def event_that_cites_two_events_for_one_key(room: Room) -> Verdict:
    older = room.state["m.room.power_levels", ""]
    room.levels()
    return citing(room, older)


@allows("3.2 selection")
def event_with_all_it_needs(room: Room) -> Verdict:
    content = {"membership": "join"}
    cited = room.selected("m.room.member", BOB, BOB, content)
    event = room.make("m.room.member", content, sender=BOB, key=BOB, auth=cited)
    return room.citations_verdict(event, cited, room.create)


@allows("3.2 selection")
def event_with_less_than_it_might_cite(room: Room) -> Verdict:
    cited = [] if room.rules.room_id_is_create_hash else [room.create]
    event = room.make("m.room.message", {}, sender=BOB, auth=cited)
    return room.citations_verdict(event, cited, room.create)


@refuses("3.2 selection", "does not need")
def event_citing_join_rules_for_a_message(room: Room) -> Verdict:
    return citing(room, room.state["m.room.join_rules", ""])


@refuses("3.2 selection", "does not need")
def event_citing_another_member(room: Room) -> Verdict:
    return citing(room, room.state["m.room.member", CAROL])


@refuses("3.2 selection", "does not need")
def event_citing_a_message(room: Room) -> Verdict:
    return citing(room, room.make("m.room.message", {}, sender=BOB))


@refuses("3.2 selection", "does not need", first=12)
def event_citing_the_create_event(room: Room) -> Verdict:
    return citing(room, room.create)


@allows("3.3 rejected")
def event_citing_accepted_events(room: Room) -> Verdict:
    room.rejected.add(room.state["m.room.join_rules", ""].event_id)
    return citing(room)


@refuses("3.3 rejected", "auth event was rejected")
def event_citing_a_rejected_event(room: Room) -> Verdict:
    room.rejected.add(room.state["m.room.power_levels", ""].event_id)
    return citing(room)


@allows("3.4 create among them")
def event_citing_the_create_event_in_old_versions(room: Room) -> Verdict:
    return citing(room)


@refuses("3.4 create among them", "create event is not among")
def event_without_the_create_event(room: Room) -> Verdict:
    cited = room.selected("m.room.message", BOB, None, {})[1:]
    event = room.make("m.room.message", {}, sender=BOB, auth=cited)
    return room.citations_verdict(event, cited, room.create)


@allows("3.5 same room")
def event_citing_events_of_its_room(room: Room) -> Verdict:
    return citing(room)


@refuses("3.5 same room", "another room")
def event_citing_an_event_of_another_room(room: Room) -> Verdict:
    room.put("m.room.power_levels", {}, sender=CREATOR, key="", room_id="!other:one.test")
    return citing(room)
