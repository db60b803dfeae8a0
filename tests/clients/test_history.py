"""What was said before: paging through it, and filling the gaps that `/sync` leaves."""

from __future__ import annotations

import pytest

from tests.clients.conversation import Client, Company, Kind, bodies, event_of, texts

KINDS: list[Kind] = ["nio", "js"]


async def talk(client: Client, room: str, count: int, begin: int = 0) -> list[str]:
    """Say so many things; the ids."""
    return [await client.say(room, f"message {begin + number}") for number in range(count)]


def said(count: int) -> list[str]:
    """What `talk` says."""
    return [f"message {number}" for number in range(count)]


async def read_back(client: Client, room: str, limit: int) -> None:
    """Page to the beginning of the room."""
    while await client.do("back", room=room, limit=limit):
        pass


@pytest.mark.parametrize("kind", KINDS)
async def test_history_is_read_back_to_the_beginning(house: Company, kind: Kind):
    alice = await house.register("js", "alice")
    room = await alice.create_room(preset="private_chat", name="Log")
    events = await talk(alice, room, 45)
    phone = await house.login(kind, "alice", "phone", limit=6)
    assert texts(await phone.until(lambda view: view["timeline"], room=room)) == said(45)[-6:]
    await read_back(phone, room, 7)
    view = await phone.until(lambda view: event_of(view, events[0]), room=room)
    assert texts(view) == said(45)
    types = [event["type"] for event in view["timeline"]]
    assert types[:2] == ["m.room.create", "m.room.member"]
    assert types.count("m.room.name") == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_history_is_read_in_both_directions_from_the_middle(house: Company, kind: Kind):
    alice = await house.register("js", "alice")
    room = await alice.create_room(preset="private_chat")
    events = await talk(alice, room, 45)
    phone = await house.login(kind, "alice", "phone", limit=3)
    found = await phone.do("around", room=room, event=events[20], limit=6)
    assert found["found"]
    assert bodies(found["events"]) == said(45)
    assert found["events"][0]["type"] == "m.room.create"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_gap_is_filled_without_a_loss_or_a_double(house: Company, kind: Kind):
    alice = await house.register("js", "alice")
    bob = await house.register(kind, "bob", limit=5)
    room = await alice.create_room(preset="public_chat", name="Before")
    await bob.do("join", room=room)
    events = await talk(alice, room, 4)
    await bob.sees(room, events[-1])
    await bob.do("pause")
    await alice.do("set_state", room=room, type="m.room.name", content={"name": "Meanwhile"})
    events += await talk(alice, room, 30, 4)
    await alice.do("set_state", room=room, type="m.room.name", content={"name": "After"})
    events += await talk(alice, room, 10, 34)
    await bob.do("resume")
    view = await bob.until(lambda view: event_of(view, events[-1]), room=room)
    assert view["name"] == "After"
    if kind == "js":
        # The SDK has begun a new timeline, apart from the one with the first messages.
        shown = len(texts(view))
        assert shown < 40
        assert texts(view) == said(44)[-shown:]
        while len(texts(view)) < 44:
            assert await bob.do("back", room=room, limit=9)
            view = await bob.until(lambda view: view, room=room)
    assert texts(view) == said(44)
    # What comes next goes on from there.
    events += await talk(alice, room, 1, 44)
    await bob.sees(room, events[-1])
    await read_back(bob, room, 20)
    assert texts(await bob.until(lambda view: view, room=room)) == said(45)


@pytest.mark.parametrize("kind", KINDS)
async def test_members_are_loaded_when_they_are_needed(house: Company, kind: Kind):
    alice = await house.register("js", "alice")
    room = await alice.create_room(preset="public_chat")
    others = [await house.register("nio", f"other-{number}") for number in range(6)]
    for other in others:
        await other.do("join", room=room)
        await other.until(lambda view: view["membership"] == "join", room=room)
    early = await others[5].say(room, "early")
    await talk(alice, room, 12)
    last = await others[1].say(room, "late")
    phone = await house.login(kind, "alice", "phone", lazy=True, limit=3)
    view = await phone.until(lambda view: event_of(view, last), room=room)
    assert view["joined"] == 7
    # Who spoke last, and the five that stand for a room without a name.
    known = {alice.user_id, *(other.user_id for other in others[:5])}
    assert set(view["members"]) == known
    await read_back(phone, room, 20)
    assert event_of(await phone.until(lambda view: view, room=room), early)
    everybody = {alice.user_id, *(other.user_id for other in others)}
    assert set(await phone.do("load_members", room=room)) == everybody
    # Who joins later is told of, lazily or not.
    late = await house.register("nio", "late")
    await late.do("join", room=room)
    await phone.until(lambda view: late.user_id in view["members"], room=room)
