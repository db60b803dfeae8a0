"""Two people talk: what one library sends, the other shows."""

from __future__ import annotations

import pytest

from tests.clients.conversation import Client, Company, Kind, View, event_of, texts

PAIRS: list[tuple[Kind, Kind]] = [("nio", "js"), ("js", "nio"), ("js", "js")]


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[Kind, Kind]:
    """The libraries of Alice and Bob."""
    return request.param


async def together(
    house: Company, pair: tuple[Kind, Kind], **start: object
) -> tuple[Client, Client, str]:
    """Alice and Bob in a room that she made."""
    alice = await house.register(pair[0], "alice", **start)
    bob = await house.register(pair[1], "bob", **start)
    room = await alice.create_room(preset="private_chat", invite=[bob.user_id])
    await bob.until(lambda view: view["membership"] == "invite", room=room)
    await bob.do("join", room=room)
    await bob.until(lambda view: view["membership"] == "join", room=room)
    await alice.until(lambda view: view["joined"] == 2, room=room)
    return alice, bob, room


def thread(view: View, root: str) -> list[str]:
    """The ids of a thread's events, with its root, as matrix-js-sdk shows it."""
    return [event["id"] for event in view["threads"].get(root, {"events": []})["events"]]


async def test_two_clients_hold_a_conversation(house: Company, pair: tuple[Kind, Kind]):
    alice = await house.register(pair[0], "alice")
    bob = await house.register(pair[1], "bob")
    room = await alice.create_room(name="Kitchen", topic="Dinner", preset="private_chat")
    await alice.do("invite", room=room, user=bob.user_id)
    invited = await bob.until(lambda view: view["membership"] == "invite", room=room)
    assert invited["name"] == "Kitchen"
    assert invited["invited_by"] == alice.user_id
    assert await bob.do("join", room=room) == room
    await bob.until(lambda view: view["membership"] == "join", room=room)
    view = await alice.until(lambda view: view["joined"] == 2, room=room)
    assert {user: found["membership"] for user, found in view["members"].items()} == {
        alice.user_id: "join",
        bob.user_id: "join",
    }

    question = await alice.say(room, "When do we eat?")
    await bob.sees(room, question)
    answer = await bob.say(room, "At seven")
    await alice.sees(room, answer)
    for number in range(5):
        await alice.say(room, f"alice {number}")
        await bob.say(room, f"bob {number}")
    last = await alice.say(room, "Good")
    said = ["When do we eat?", "At seven"]
    said += [f"{name} {number}" for number in range(5) for name in ("alice", "bob")]
    for client in (alice, bob):
        view = await client.until(lambda view: event_of(view, last), room=room)
        assert texts(view) == [*said, "Good"]
        assert (view["name"], view["topic"]) == ("Kitchen", "Dinner")


async def test_edits_reactions_and_redactions_reach_the_other_client(
    house: Company, pair: tuple[Kind, Kind]
):
    alice, bob, room = await together(house, pair)
    message = await alice.say(room, "Sope is ready")
    await bob.sees(room, message)
    edit = await alice.edit(room, message, "Soup is ready")
    heart = await bob.react(room, message, "❤️")
    thumb = await bob.react(room, message, "👍")
    mistake = await bob.say(room, "Wrong room")
    for client in (alice, bob):
        await client.sees(room, mistake)
        view = await client.until(
            lambda view: event_of(view, message)["body"] == "Soup is ready", room=room
        )
        found = event_of(view, edit)
        assert (found["rel_type"], found["rel_event"]) == ("m.replace", message)
        for reaction, key in ((heart, "❤️"), (thumb, "👍")):
            found = event_of(view, reaction)
            assert found["type"] == "m.reaction"
            relation = (found["rel_type"], found["rel_event"], found["rel_key"])
            assert relation == ("m.annotation", message, key)
        if client.kind == "js":
            reactions = await client.do("reactions", room=room, event=message)
            assert reactions == {"❤️": [bob.user_id], "👍": [bob.user_id]}

    await bob.do("redact", room=room, event=mistake, reason="not here")
    await bob.do("redact", room=room, event=thumb)
    for client in (alice, bob):
        view = await client.until(
            lambda view: event_of(view, mistake)["redacted"] and event_of(view, thumb)["redacted"],
            room=room,
        )
        assert event_of(view, mistake)["body"] is None
        assert not event_of(view, message)["redacted"]
        if client.kind == "js":
            reactions = await client.do("reactions", room=room, event=message)
            assert reactions == {"❤️": [bob.user_id]}


async def test_receipts_and_markers_reach_whom_they_concern(
    house: Company, pair: tuple[Kind, Kind]
):
    alice, bob, room = await together(house, pair)
    phone = await house.login(pair[1], "bob", "bob's phone")
    first = await alice.say(room, "one")
    second = await alice.say(room, "two")
    third = await alice.say(room, "Bob: three", **{"m.mentions": {"user_ids": [bob.user_id]}})
    for client in (bob, phone):
        view = await client.until(lambda view: view["unread"] == 3, room=room)
        assert view["highlights"] == 1
        await client.sees(room, third)

    await bob.do("receipt", room=room, event=first, unthreaded=True)
    for client in (alice, phone):
        await client.until(
            lambda view: view["receipts"]["m.read"].get(bob.user_id) == first, room=room
        )
    await phone.until(lambda view: view["unread"] == 2, room=room)

    # Nobody else learns of a private receipt; it counts for one's own devices all the same.
    await bob.do("receipt", room=room, event=third, type="m.read.private", unthreaded=True)
    view = await phone.until(
        lambda view: (
            view["receipts"]["m.read.private"].get(bob.user_id) == third and view["unread"] == 0
        ),
        room=room,
    )
    assert view["highlights"] == 0
    await bob.do("read_markers", room=room, fully=second, read=second)
    await phone.until(lambda view: view["fully_read"] == second, room=room)
    view = await alice.until(
        lambda view: view["receipts"]["m.read"].get(bob.user_id) == second, room=room
    )
    assert view["receipts"]["m.read.private"] == {}
    assert view["fully_read"] is None


async def test_typing_is_seen_while_it_lasts(house: Company, pair: tuple[Kind, Kind]):
    alice, bob, room = await together(house, pair)
    await alice.do("typing", room=room, on=True)
    await bob.until(lambda view: view["typing"] == [alice.user_id], room=room)
    await bob.do("typing", room=room, on=True)
    both = {alice.user_id, bob.user_id}
    await alice.until(lambda view: set(view["typing"]) == both, room=room)
    await alice.do("typing", room=room, on=False)
    await bob.until(lambda view: view["typing"] == [bob.user_id], room=room)


async def test_a_thread_is_a_conversation_of_its_own(house: Company, pair: tuple[Kind, Kind]):
    alice, bob, room = await together(house, pair, threads=True)
    root = await alice.say(room, "Holidays")
    other = await bob.say(room, "Shopping")
    await bob.sees(room, root)
    await alice.sees(room, other)
    replies = [root]
    for number in range(3):
        for client in (alice, bob):
            event = await client.do(
                "say_in_thread", room=room, root=root, body=f"{client.name} {number}"
            )
            replies.append(event)
    await alice.do("say_in_thread", room=room, root=other, body="Milk")
    for client in (alice, bob):
        if client.kind == "js":
            view = await client.until(
                lambda view: thread(view, root)[-1:] == replies[-1:], room=room
            )
            assert thread(view, root) == replies
            assert [event["body"] for event in view["timeline"] if event["rel_type"]] == []
        else:
            view = await client.until(lambda view: event_of(view, replies[-1]), room=room)
            shown = [event["id"] for event in view["timeline"] if event["rel_event"] == root]
            assert shown == replies[1:]
        filled = await client.do("fill_thread", room=room, root=root, limit=2)
        assert [event["id"] for event in filled if event["id"] != root] == replies[1:]
        # The thread with the newest reply comes first.
        listed = await client.do("thread_list", room=room)
        assert set(listed) == {root, other}


async def test_receipts_of_a_thread_stay_in_it(house: Company):
    alice, bob, room = await together(house, ("js", "js"), threads=True)
    bot = await house.login("nio", "bob", "bob's bot", threads=True)
    root = await alice.say(room, "Holidays")
    await bob.sees(room, root)
    reply = await alice.do("say_in_thread", room=room, root=root, body="By the sea?")
    late = await alice.say(room, "Good night")
    await bob.until(lambda view: thread(view, root) == [root, reply], room=room)
    await bob.sees(room, late)
    await bob.do("receipt", room=room, event=reply)
    view = await alice.until(
        lambda view: (
            root in view["threads"]
            and view["threads"][root]["receipts"]["m.read"].get(bob.user_id) == reply
        ),
        room=room,
    )
    assert view["receipts"]["m.read"].get(bob.user_id) is None
    await bot.until(
        lambda view: view["thread_receipts"].get(bob.user_id, {}).get(root) == reply, room=room
    )
    await bob.do("receipt", room=room, event=late)
    await alice.until(lambda view: view["receipts"]["m.read"].get(bob.user_id) == late, room=room)
