"""matrix-js-sdk on sliding sync, in company of clients on `/sync` (MSC4186)."""

from __future__ import annotations

from itertools import count

import pytest
import trio

from tests.clients.conversation import Client, Company, Program, connected, event_of, texts
from tests.server import Server

TAGS = count(1)


@pytest.fixture
async def house(server: Server, js_program: Program, nursery: trio.Nursery) -> Company:
    """Clients of the common server, all on the one library that knows sliding sync."""
    return Company(server, await connected({"js": js_program}, nursery), f"s{next(TAGS)}")


async def together(house: Company, **start: object) -> tuple[Client, Client, str]:
    """Alice on sliding sync and Bob on `/sync`, in a room that he made."""
    alice = await house.register("js", "alice", sliding=True, **start)
    bob = await house.register("js", "bob", **start)
    room = await bob.create_room(preset="private_chat", name="Kitchen", invite=[alice.user_id])
    invited = await alice.until(lambda view: view["membership"] == "invite", room=room)
    assert (invited["name"], invited["invited_by"]) == ("Kitchen", bob.user_id)
    await alice.do("join", room=room)
    await alice.until(lambda view: view["membership"] == "join", room=room)
    await bob.until(lambda view: view["joined"] == 2, room=room)
    return alice, bob, room


async def test_a_conversation(house: Company):
    alice, bob, room = await together(house)
    for number in range(5):
        await alice.say(room, f"alice {number}")
        await bob.say(room, f"bob {number}")
    mistake = await bob.say(room, "Wrong room")
    last = await alice.say(room, "Good")
    await bob.do("redact", room=room, event=mistake)
    edit = await bob.edit(room, last, "never shown as his")
    await alice.sees(room, edit)
    for client in (alice, bob):
        view = await client.until(lambda view: event_of(view, edit), room=room)
        said = [f"{name} {number}" for number in range(5) for name in ("alice", "bob")]
        assert [text for text in texts(view) if text][:10] == said
        assert event_of(view, mistake)["redacted"]
    heart = await bob.react(room, last, "❤️")
    await alice.sees(room, heart)
    await bob.do("set_state", room=room, type="m.room.topic", content={"topic": "Dinner"})
    await alice.until(lambda view: view["topic"] == "Dinner", room=room)


async def test_typing_receipts_and_account_data(house: Company):
    alice, bob, room = await together(house)
    said = await bob.say(room, "hello")
    view = await alice.until(lambda view: view["unread"] == 1, room=room)
    assert event_of(view, said)
    await alice.do("receipt", room=room, event=said)
    await bob.until(lambda view: view["receipts"]["m.read"].get(alice.user_id) == said, room=room)
    await alice.until(lambda view: view["unread"] == 0, room=room)
    mine = await alice.say(room, "hello")
    await bob.sees(room, mine)
    await bob.do("receipt", room=room, event=mine)
    await alice.until(lambda view: view["receipts"]["m.read"].get(bob.user_id) == mine, room=room)
    await bob.do("typing", room=room, on=True)
    await alice.until(lambda view: view["typing"] == [bob.user_id], room=room)
    await bob.do("typing", room=room, on=False)
    await alice.until(lambda view: view["typing"] == [], room=room)
    await alice.do("sdk", method="setAccountData", args=["u.test", {"n": 1}])
    await alice.until_true("account_data", lambda found: found == {"n": 1}, type="u.test")
    await alice.do("sdk", method="setRoomTag", args=[room, "m.favourite", {"order": 0.5}])
    await alice.until(lambda view: "m.favourite" in view["tags"], room=room)


async def test_who_is_banned_sees_the_ban_and_nothing_after_it(house: Company):
    """T105."""
    alice, bob, room = await together(house)
    await bob.say(room, "before")
    await bob.do("ban", room=room, user=alice.user_id)
    await bob.say(room, "after")
    view = await alice.until(lambda view: view["membership"] == "ban", room=room)
    other = await alice.create_room(name="Elsewhere")
    last = await alice.say(other, "there")
    await alice.sees(other, last)
    view = await alice.do("view", room=room)
    assert "after" not in texts(view)


async def test_what_was_missed_without_network_comes_once(house: Company):
    alice, bob, room = await together(house)
    await alice.do("pause")
    said = [await bob.say(room, f"missed {number}") for number in range(3)]
    await alice.do("resume")
    view = await alice.until(lambda view: event_of(view, said[-1]), room=room)
    assert texts(view)[-3:] == ["missed 0", "missed 1", "missed 2"]


async def test_an_encrypted_conversation(house: Company):
    """Messages between devices, device lists and key counts come over sliding sync, too."""
    alice, bob, room = await together(house, encryption=True)
    content = {"algorithm": "m.megolm.v1.aes-sha2"}
    await bob.do("set_state", room=room, type="m.room.encryption", content=content)
    for client, other, body in ((bob, alice, "to alice"), (alice, bob, "to bob")):
        said = await client.say(room, body)
        view = await other.until(
            lambda view, said=said, body=body: (event_of(view, said) or {}).get("body") == body,
            room=room,
        )
        assert event_of(view, said)["type"] == "m.room.message"
