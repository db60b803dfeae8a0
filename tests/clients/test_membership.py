"""Who gets into a room, and how they leave it."""

from __future__ import annotations

import pytest

from tests.clients.conversation import Client, Company, Kind, Refused, View, texts

KINDS: list[Kind] = ["nio", "js"]
PAIRS: list[tuple[Kind, Kind]] = [("nio", "js"), ("js", "nio")]


def is_joined(view: View) -> bool:
    """Whether the client sees itself in the room."""
    return view["membership"] == "join"


def is_left(view: View) -> bool:
    """Whether the client sees that it is not in the room any more."""
    return view["membership"] in ("leave", "ban")


@pytest.fixture(params=PAIRS, ids="-".join)
async def pair(request: pytest.FixtureRequest, house: Company) -> tuple[Client, Client]:
    """Alice and Bob."""
    first, second = request.param
    return await house.register(first, "alice"), await house.register(second, "bob")


async def test_a_public_room_is_joined_by_its_alias(house: Company, pair: tuple[Client, Client]):
    alice, bob = pair
    name = house.local("garden")
    room = await alice.create_room(
        visibility="public", preset="public_chat", room_alias_name=name, name="Garden"
    )
    alias = f"#{name}:{house.server.name}"
    assert (await alice.until(lambda view: view["alias"], room=room))["alias"] == alias
    assert await bob.do("join", room=alias) == room
    view = await bob.until(is_joined, room=room)
    assert (view["name"], view["join_rule"]) == ("Garden", "public")
    await alice.until(lambda view: view["joined"] == 2, room=room)


async def test_presets_and_options_of_a_new_room_are_honoured(pair: tuple[Client, Client]):
    alice, bob = pair
    room = await alice.create_room(
        preset="trusted_private_chat",
        name="Attic",
        topic="Boxes",
        invite=[bob.user_id],
        is_direct=True,
        room_version="11",
        initial_state=[
            {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
        ],
        power_level_content_override={"events": {"m.room.topic": 0}},
    )
    await bob.until(lambda view: view["membership"] == "invite", room=room)
    await bob.do("join", room=room)
    view = await bob.until(is_joined, room=room)
    assert (view["version"], view["name"], view["topic"]) == ("11", "Attic", "Boxes")
    # Bob may set the name: a trusted room gives those who are invited the maker's level.
    await bob.do("set_state", room=room, type="m.room.name", content={"name": "Loft"})
    view = await alice.until(lambda view: view["name"] == "Loft", room=room)
    levels = {event["type"]: event["content"] for event in view["timeline"] if event["key"] == ""}
    assert levels["m.room.power_levels"]["users"][bob.user_id] == 100


async def test_an_invitation_can_be_declined_and_a_private_room_stays_closed(
    pair: tuple[Client, Client],
):
    alice, bob = pair
    room = await alice.create_room(preset="private_chat", name="Office", invite=[bob.user_id])
    await bob.until(lambda view: view["membership"] == "invite", room=room)
    await bob.do("leave", room=room)
    await alice.until(
        lambda view: view["members"].get(bob.user_id, {}).get("membership") != "invite", room=room
    )
    with pytest.raises(Refused) as refused:
        await bob.do("join", room=room)
    assert refused.value.errcode == "M_FORBIDDEN"


async def test_kick_ban_and_unban(pair: tuple[Client, Client]):
    alice, bob = pair
    room = await alice.create_room(preset="public_chat")
    await bob.do("join", room=room)
    await bob.until(is_joined, room=room)
    await alice.do("kick", room=room, user=bob.user_id, reason="bedtime")
    await bob.until(is_left, room=room)
    await bob.do("join", room=room)
    await bob.until(is_joined, room=room)

    await alice.do("ban", room=room, user=bob.user_id, reason="again")
    await bob.until(is_left, room=room)
    for how in ("join", "leave"):
        with pytest.raises(Refused) as refused:
            await bob.do(how, room=room)
        assert refused.value.errcode == "M_FORBIDDEN"
    await alice.do("unban", room=room, user=bob.user_id)
    await bob.do("join", room=room)
    await bob.until(is_joined, room=room)
    # What may not be done is refused, and says so.
    with pytest.raises(Refused) as refused:
        await bob.do("kick", room=room, user=alice.user_id)
    assert refused.value.errcode == "M_FORBIDDEN"


async def test_a_knock_is_answered(pair: tuple[Client, Client]):
    alice, bob = pair
    room = await alice.create_room(
        preset="private_chat",
        name="Workshop",
        initial_state=[{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}],
    )
    await bob.do("knock", room=room, reason="may I?")
    knock = await alice.until(
        lambda view: [event for event in view["timeline"] if event["key"] == bob.user_id], room=room
    )
    knocked = [event for event in knock["timeline"] if event["key"] == bob.user_id][-1]
    assert knocked["content"]["membership"] == "knock"
    assert knocked["content"]["reason"] == "may I?"
    if bob.kind == "js":
        view = await bob.until(lambda view: view["membership"] == "knock", room=room)
        assert view["name"] == "Workshop"
    await alice.do("invite", room=room, user=bob.user_id)
    await bob.until(lambda view: view["membership"] == "invite", room=room)
    await bob.do("join", room=room)
    await bob.until(is_joined, room=room)


async def test_a_restricted_room_lets_members_of_the_other_room_in(pair: tuple[Client, Client]):
    alice, bob = pair
    space = await alice.create_room(preset="public_chat", creation_content={"type": "m.space"})
    allow = [{"type": "m.room_membership", "room_id": space}]
    rules = {"join_rule": "restricted", "allow": allow}
    room = await alice.create_room(
        preset="private_chat", initial_state=[{"type": "m.room.join_rules", "content": rules}]
    )
    await alice.do(
        "set_state",
        room=space,
        type="m.space.child",
        key=room,
        content={"via": [alice.user_id.partition(":")[2]]},
    )
    with pytest.raises(Refused) as refused:
        await bob.do("join", room=room)
    assert refused.value.errcode == "M_FORBIDDEN"
    await bob.do("join", room=space)
    await bob.do("join", room=room)
    await bob.until(is_joined, room=room)


async def test_leaving_and_forgetting(pair: tuple[Client, Client]):
    alice, bob = pair
    room = await alice.create_room(preset="public_chat")
    await bob.do("join", room=room)
    await bob.until(is_joined, room=room)
    await bob.sees(room, await alice.say(room, "before"))
    await bob.do("leave", room=room)
    await bob.until(is_left, room=room)
    await alice.until(lambda view: view["joined"] == 1, room=room)
    await alice.say(room, "behind your back")
    await bob.do("forget", room=room)
    assert room not in await bob.do("rooms")
    await bob.do("join", room=room)
    view = await bob.until(lambda view: is_joined(view) and view["joined"] == 2, room=room)
    assert view["membership"] == "join"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_new_device_sees_left_rooms_only_if_it_asks(house: Company, kind: Kind):
    alice = await house.register("js", "alice")
    bob = await house.register(kind, "bob")
    room = await alice.create_room(preset="public_chat")
    await bob.do("join", room=room)
    await bob.until(is_joined, room=room)
    await bob.sees(room, await alice.say(room, "before"))
    await bob.do("leave", room=room)
    await bob.until(is_left, room=room)
    phone = await house.login(kind, "bob", "phone")
    archive = await house.login(kind, "bob", "archive", left=True)
    assert room not in await phone.do("rooms")
    assert (await archive.do("rooms"))[room] == "leave"
    if kind == "js":
        await archive.do("back", room=room, limit=5)
        assert texts(await archive.until(is_left, room=room)) == ["before"]


# matrix-nio makes the new room by itself, in a way that room version 12 does not allow, and lets
# people talk on in the old one.
@pytest.mark.parametrize(("kind", "old", "new"), [("nio", "10", "11"), ("js", "11", "12")])
async def test_a_room_is_upgraded_and_people_follow(house: Company, kind: Kind, old: str, new: str):
    alice = await house.register(kind, "alice")
    bob = await house.register("js", "bob")
    alias = house.local("old")
    room = await alice.create_room(
        preset="public_chat", room_version=old, name="Cellar", room_alias_name=alias
    )
    await bob.do("join", room=room)
    await bob.until(is_joined, room=room)
    await alice.until(lambda view: view["joined"] == 2, room=room)
    replacement = await alice.do("upgrade", room=room, version=new)
    view = await bob.until(lambda view: view["replacement"], room=room)
    assert view["replacement"] == replacement
    await bob.do("join", room=replacement)
    view = await bob.until(is_joined, room=replacement)
    assert (view["version"], view["name"]) == (new, "Cellar")
    moved = await bob.until(lambda view: view["alias"], room=replacement)
    assert moved["alias"] == f"#{alias}:{house.server.name}"
    create = moved["timeline"][0]
    assert create["type"] == "m.room.create"
    assert create["content"]["predecessor"]["room_id"] == room
    if kind == "js":
        with pytest.raises(Refused) as refused:
            await bob.say(room, "anybody here?")
        assert refused.value.errcode == "M_FORBIDDEN"
