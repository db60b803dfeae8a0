"""What people keep on the server: profiles, account data, tags, push rules."""

from __future__ import annotations

import pytest

from tests.clients.conversation import Client, Company, Kind

PAIRS: list[tuple[Kind, Kind]] = [("nio", "js"), ("js", "nio")]
AVATAR = "mxc://home.test/portrait"


@pytest.fixture(params=PAIRS, ids="-".join)
async def pair(request: pytest.FixtureRequest, house: Company) -> tuple[Client, Client]:
    """Alice and Bob."""
    first, second = request.param
    return await house.register(first, "alice"), await house.register(second, "bob")


async def test_a_profile_is_seen_in_rooms_and_on_its_own(pair: tuple[Client, Client]):
    alice, bob = pair
    await alice.do("set_profile", key="displayname", value="Alice 🦊")
    room = await alice.create_room(preset="public_chat")
    await bob.do("join", room=room)
    view = await bob.until(lambda view: alice.user_id in view.get("members", {}), room=room)
    assert view["members"][alice.user_id]["name"] == "Alice 🦊"
    await alice.do("set_profile", key="avatar_url", value=AVATAR)
    await bob.until(lambda view: view["members"][alice.user_id]["avatar"] == AVATAR, room=room)
    await alice.do("set_profile", key="displayname", value="Alice")
    view = await bob.until(
        lambda view: view["members"][alice.user_id]["name"] == "Alice", room=room
    )
    assert view["members"][alice.user_id]["avatar"] == AVATAR
    profile = await bob.do("profile", user=alice.user_id)
    assert (profile["displayname"], profile["avatar_url"]) == ("Alice", AVATAR)


async def test_fields_of_an_extended_profile(house: Company):
    alice = await house.register("js", "alice")
    bob = await house.register("js", "bob")
    assert await alice.do("sdk", method="doesServerSupportExtendedProfiles")
    zone = ["m.tz", "Europe/Paris"]
    await alice.do("sdk", method="setExtendedProfileProperty", args=zone)
    asked = [alice.user_id, "m.tz"]
    assert await bob.do("sdk", method="getExtendedProfileProperty", args=asked) == zone[1]
    profile = await bob.do("sdk", method="getExtendedProfile", args=[alice.user_id])
    assert profile["m.tz"] == zone[1]
    await alice.do("sdk", method="deleteExtendedProfileProperty", args=["m.tz"])
    profile = await bob.do("sdk", method="getExtendedProfile", args=[alice.user_id])
    assert "m.tz" not in profile


async def test_account_data_and_tags_reach_the_other_device(house: Company):
    laptop = await house.register("js", "ann")
    devices = [await house.login(kind, "ann", f"ann's {kind}") for kind in ("nio", "js")]
    room = await laptop.create_room(preset="private_chat")
    data = {"nested": [1, {"deep": None}], "text": "ü"}
    await laptop.do("sdk", method="setAccountData", args=["org.example.own", data])
    await laptop.do("sdk", method="setRoomTag", args=[room, "m.favourite", {"order": 0.5}])
    await laptop.do("sdk", method="setRoomTag", args=[room, "u.Work", {}])
    for device in devices:
        await device.until_true("account_data", lambda found: found == data, type="org.example.own")
        view = await device.until(lambda view: "u.Work" in view["tags"], room=room)
        assert view["tags"] == {"m.favourite": {"order": 0.5}, "u.Work": {}}
    await laptop.do("sdk", method="deleteRoomTag", args=[room, "u.Work"])
    await laptop.do("sdk", method="setAccountData", args=["org.example.own", {"new": True}])
    for device in devices:
        await device.until(lambda view: list(view["tags"]) == ["m.favourite"], room=room)
        await device.until_true(
            "account_data", lambda found: "new" in found, type="org.example.own"
        )
    fresh = await house.login("js", "ann", "fresh")
    assert await fresh.do("account_data", type="org.example.own") == {"new": True}
    view = await fresh.until(lambda view: view["tags"], room=room)
    assert view["tags"] == {"m.favourite": {"order": 0.5}}


async def test_somebody_who_is_ignored_is_not_heard(house: Company):
    alice = await house.register("js", "alice")
    bob = await house.register("js", "bob")
    carl = await house.register("nio", "carl")
    room = await alice.create_room(preset="public_chat")
    for client in (bob, carl):
        await client.do("join", room=room)
    await alice.until(lambda view: view["joined"] == 3, room=room)
    await alice.do("sdk", method="setIgnoredUsers", args=[[bob.user_id]])
    unheard = await bob.say(room, "Can you hear me?")
    heard = await carl.say(room, "Hello")
    view = await alice.until(
        lambda view: heard in [event["id"] for event in view["timeline"]], room=room
    )
    assert unheard not in [event["id"] for event in view["timeline"]]
    await carl.sees(room, unheard)


def ids(rules: dict[str, list[dict[str, object]]], kind: str) -> list[object]:
    """The ids of the rules of one kind, in order."""
    return [rule["rule_id"] for rule in rules[kind]]


async def test_push_rules_are_edited_and_obeyed(house: Company):
    bob = await house.register("js", "bob")
    phone = await house.login("nio", "bob", "bob's phone")
    alice = await house.register("nio", "alice")
    room = await alice.create_room(preset="public_chat")
    await bob.do("join", room=room)
    await bob.until(lambda view: view["membership"] == "join", room=room)
    for device in (bob, phone):
        rules = await device.until_true("push_rules", lambda found: found)
        assert ".m.rule.master" in ids(rules, "override")
        assert ".m.rule.message" in ids(rules, "underride")

    word = await alice.say(room, "the cake is ready")
    await bob.sees(room, word)
    assert await bob.do("notifies", room=room, event=word)
    rule = {"actions": []}
    await bob.do("sdk", method="addPushRule", args=["global", "room", room, rule])
    cake = {"pattern": "cake", "actions": ["notify", {"set_tweak": "highlight"}]}
    await bob.do("sdk", method="addPushRule", args=["global", "content", "cake", cake])
    for device in (bob, phone):
        await device.until_true("push_rules", lambda rules: room in ids(rules, "room"))
        await device.until_true("push_rules", lambda rules: "cake" in ids(rules, "content"))
    quiet = await alice.say(room, "nothing")
    loud = await alice.say(room, "more cake")
    for device in (bob, phone):
        await device.sees(room, loud)
        # The server counts as the rules say: the first message, and the one with the word.
        await device.until(lambda view: (view["unread"], view["highlights"]) == (2, 1), room=room)
    assert not await bob.do("notifies", room=room, event=quiet)
    assert await bob.do("notifies", room=room, event=loud)

    await phone.do("push_rule", what="enable_pushrule", kind="content", rule="cake", enable=False)
    await phone.do("push_rule", what="delete_pushrule", kind="room", rule=room)
    await phone.do(
        "push_rule",
        what="set_pushrule_actions",
        kind="underride",
        rule=".m.rule.message",
        actions=["notify", {"set_tweak": "sound", "value": "ping"}],
    )
    await bob.until_true("push_rules", lambda rules: room not in ids(rules, "room"))
    rules = await bob.until_true(
        "push_rules",
        lambda rules: (
            [rule["actions"] for rule in rules["underride"] if rule["rule_id"] == ".m.rule.message"]
            == [2]
        ),
    )
    assert [rule["enabled"] for rule in rules["content"] if rule["rule_id"] == "cake"] == [False]
