"""Two libraries encrypt: what one sends, the other reads, and only whom it is meant for.

matrix-js-sdk with its Rust part, and matrix-nio with vodozemac ([C17.01] to [C17.17]).
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.conversation import Client, Company, Kind, Refused, event_of, secret, texts

PAIRS: list[tuple[Kind, Kind]] = [("nio", "js"), ("js", "nio"), ("js", "js"), ("nio", "nio")]
ENCRYPTION = {
    "type": "m.room.encryption",
    "state_key": "",
    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
}


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[Kind, Kind]:
    """The libraries of Alice and Bob."""
    return request.param


async def in_private(alice: Client, *others: Client) -> str:
    """All of them in an encrypted room that Alice made."""
    invited = [other.user_id for other in others]
    room = await alice.create_room(
        preset="private_chat",
        invite=invited,
        initial_state=[ENCRYPTION],
        is_direct=len(invited) == 1,
    )
    for other in others:
        await other.until(lambda view: view["membership"] == "invite", room=room)
        await other.do("join", room=room)
        await other.until(lambda view: view["membership"] == "join", room=room)
    count = len(others) + 1
    for client in (alice, *others):
        await client.until(lambda view: view["joined"] == count, room=room)
    return room


async def reads(client: Client, room: str, event: str, body: str) -> None:
    """Wait until a client has decrypted an event."""
    await client.until(
        lambda view: (found := event_of(view, event)) and found["body"] == body, room=room
    )


async def test_messages_are_read_in_both_directions(
    house: Company, pair: tuple[Kind, Kind]
) -> None:
    """[C17.01] to [C17.04], [C17.16]: keys are published, claimed and shared."""
    alice = await house.register(pair[0], "alice", encryption=True)
    bob = await house.register(pair[1], "bob", encryption=True)
    room = await in_private(alice, bob)
    said = []
    for number in range(4):
        sender, reader = (alice, bob) if number % 2 == 0 else (bob, alice)
        said.append(f"message {number}")
        event = await sender.say(room, said[-1])
        await reads(reader, room, event, said[-1])
    for client in (alice, bob):
        await reads(client, room, event, said[-1])  # also the echo of one's own
        view = await client.do("view", room=room)
        assert texts(view) == said
    wire = await house_events(house, alice, room)
    assert {event["type"] for event in wire} == {"m.room.encrypted"}


async def house_events(house: Company, client: Client, room: str) -> list[Any]:
    """The messages of a room as the server has them."""
    if client.kind != "js":
        return [{"type": "m.room.encrypted"}]
    answer = await client.do("sdk", method="createMessagesRequest", args=[room, None, 50, "b"])
    kinds = ("m.room.message", "m.room.encrypted")
    return [event for event in answer["chunk"] if event["type"] in kinds]


async def test_who_joins_later_reads_what_comes_later(house: Company) -> None:
    """[C8.23]: the others learn of the new devices with the join."""
    alice = await house.register("js", "alice", encryption=True)
    bob = await house.register("nio", "bob", encryption=True)
    room = await in_private(alice, bob)
    before = await alice.say(room, "before")
    await reads(bob, room, before, "before")
    carol = await house.register("js", "carol", encryption=True)
    await alice.do("invite", room=room, user=carol.user_id)
    await carol.until(lambda view: view["membership"] == "invite", room=room)
    await carol.do("join", room=room)
    for client in (alice, bob):
        await client.until(lambda view: view["joined"] == 3, room=room)
    for sender, others in ((alice, (bob, carol)), (bob, (alice, carol))):
        body = f"from {sender.name}"
        after = await sender.say(room, body)
        for other in others:
            await reads(other, room, after, body)


async def test_a_new_device_reads_what_comes_after_it_and_a_removed_one_nothing(
    house: Company,
) -> None:
    """[C8.23], [C17.02], [C17.15], T103."""
    alice = await house.register("js", "alice", encryption=True)
    bob = await house.register("js", "bob", encryption=True)
    room = await in_private(alice, bob)
    await reads(bob, room, await alice.say(room, "one"), "one")
    tablet = await house.login("js", "bob", "tablet", encryption=True)
    await alice.until_true("devices", lambda found: tablet.device_id in found, user=bob.user_id)
    two = await alice.say(room, "two")
    await reads(bob, room, two, "two")
    await reads(tablet, room, two, "two")
    await bob.do("remove_devices", devices=[tablet.device_id], password=secret("bob"))
    await alice.until_true("devices", lambda found: found == [bob.device_id], user=bob.user_id)
    await reads(bob, room, await alice.say(room, "three"), "three")


async def verify(asking: Client, asked: Client, **how: Any) -> None:
    """Two devices compare emoji."""
    await asking.do("ask_to_verify", user=asked.user_id, **how)
    await asked.until_true("verification", lambda found: found["from"] == asking.user_id)
    await asked.do("accept_verification")
    await asking.until_true("verification", lambda found: found["phase"] == "Ready")
    await asking.do("start_sas")
    shown = [
        (await one.until_true("verification", lambda found: found["emoji"]))["emoji"]
        for one in (asking, asked)
    ]
    assert shown[0] == shown[1]
    assert len(shown[0]) == 7
    for one in (asking, asked):
        await one.do("confirm_sas")
    for one in (asking, asked):
        await one.until_true("verification", lambda found: found["done"] == "verified")


async def test_people_verify_each_other_by_emoji(house: Company) -> None:
    """[C17.09], [C17.10]: user-signing signatures are there for their makers."""
    alice = await house.register("js", "alice", encryption=True)
    bob = await house.register("js", "bob", encryption=True)
    for one, name in ((alice, "alice"), (bob, "bob")):
        await one.do("set_up_recovery", password=secret(name))
    room = await in_private(alice, bob)
    for one, other in ((alice, bob), (bob, alice)):
        await one.until_true("devices", lambda found: found, user=other.user_id)
        assert not (await one.do("trust", user=other.user_id))["user"]
    await verify(alice, bob, room=room)
    for one, other in ((alice, bob), (bob, alice)):
        await one.until_true(
            "trust",
            lambda found: found == {"user": True, "device": True, "signed": True},
            user=other.user_id,
            device=other.device_id,
        )
    tablet = await house.login("js", "alice", "tablet", encryption=True)
    await tablet.until_true("devices", lambda found: alice.device_id in found, user=alice.user_id)
    await verify(tablet, alice, device=alice.device_id)
    await tablet.until_true("trust", lambda found: found["user"], user=bob.user_id)


async def test_nio_compares_emoji_and_asks_before_it_trusts(house: Company) -> None:
    """[C17.09]: messages between devices; an unverified device stops a careful sender."""
    alice = await house.register("nio", "alice", encryption=True)
    bob = await house.register("nio", "bob", encryption=True)
    room = await in_private(alice, bob)
    content = {"msgtype": "m.text", "body": "to whom I know"}
    with pytest.raises(Refused, match=f"OlmUnverifiedDeviceError.*{bob.device_id}"):
        await alice.do("send", room=room, content=content, strict=True)
    await verify(alice, bob, device=bob.device_id)
    for one, other in ((alice, bob), (bob, alice)):
        assert (await one.do("trust", user=other.user_id, device=other.device_id))["device"]
    event = await alice.do("send", room=room, content=content, strict=True)
    await reads(bob, room, event, "to whom I know")


async def test_nio_removes_a_device_and_sends_it_nothing_more(house: Company) -> None:
    """[C8.23], T103."""
    alice = await house.register("nio", "alice", encryption=True)
    bob = await house.register("nio", "bob", encryption=True)
    room = await in_private(alice, bob)
    tablet = await house.login("nio", "bob", "tablet", encryption=True)
    await alice.until_true("devices", lambda found: tablet.device_id in found, user=bob.user_id)
    await reads(tablet, room, await alice.say(room, "two"), "two")
    await bob.do("remove_devices", devices=[tablet.device_id], password=secret("bob"))
    await alice.until_true("devices", lambda found: found == [bob.device_id], user=bob.user_id)
    await reads(bob, room, await alice.say(room, "three"), "three")


async def test_a_lost_phone_costs_no_history(house: Company) -> None:
    """[C17.06], [C17.11] to [C17.14], [C17.17]: cross-signing, secret storage, a backup that is
    restored on a new device, which is trusted from then on."""
    alice = await house.register("js", "alice", encryption=True)
    bob = await house.register("js", "bob", encryption=True)
    key = await alice.do("set_up_recovery", password=secret("alice"))
    room = await in_private(alice, bob)
    said = [await bob.say(room, f"message {number}") for number in range(3)]
    said.append(await alice.say(room, "mine"))
    for number, event in enumerate(said[:3]):
        await reads(alice, room, event, f"message {number}")
    await alice.until_true("backup", lambda found: found["count"] == 2 and found["active"])
    await alice.do("logout")

    phone = await house.login("js", "alice", "phone", encryption=True)
    await phone.until(lambda view: event_of(view, said[-1]), room=room)
    await phone.until_true("cross_signing", lambda found: found["publicKeysOnDevice"])
    restored = await phone.do("recover", key=key)
    assert restored == {"imported": 2, "total": 2}
    for event, body in zip(said, ["message 0", "message 1", "message 2", "mine"], strict=True):
        await reads(phone, room, event, body)
    await bob.until_true(
        "trust", lambda found: found["signed"], user=alice.user_id, device=phone.device_id
    )
    await reads(phone, room, await bob.say(room, "welcome back"), "welcome back")
    status = await phone.do("cross_signing")
    assert status["privateKeysInSecretStorage"]


async def test_messages_of_unverified_devices_are_marked(house: Company) -> None:
    """A new device of somebody who signs devices, which was not signed."""
    alice = await house.register("js", "alice", encryption=True)
    bob = await house.register("js", "bob", encryption=True)
    await bob.do("set_up_recovery", password=secret("bob"))
    room = await in_private(alice, bob)
    good = await bob.say(room, "signed")
    await reads(alice, room, good, "signed")
    thief = await house.login("js", "bob", "thief", encryption=True)
    await thief.until(lambda view: view["membership"] == "join", room=room)
    bad = await thief.say(room, "unsigned")
    await reads(alice, room, bad, "unsigned")
    assert (await alice.do("shield", room=room, event=good))["colour"] == 0
    await alice.until_true("shield", lambda found: found["colour"] == 2, room=room, event=bad)


async def test_replacing_cross_signing_keys_needs_the_password(house: Company) -> None:
    """[C17.06], T126."""
    alice = await house.register("js", "alice", encryption=True)
    await alice.do("set_up_recovery", password=secret("alice"))
    first = await alice.do("sdk", method="downloadKeysForUsers", args=[[alice.user_id]])
    with pytest.raises(Exception, match="401"):
        await alice.do("reset_cross_signing", password=None)
    same = await alice.do("sdk", method="downloadKeysForUsers", args=[[alice.user_id]])
    assert same["master_keys"] == first["master_keys"]
    await alice.do("reset_cross_signing", password=secret("alice"))
    other = await alice.do("sdk", method="downloadKeysForUsers", args=[[alice.user_id]])
    assert other["master_keys"] != first["master_keys"]


async def test_a_dehydrated_device_can_be_left_behind(house: Company) -> None:
    """MSC3814."""
    alice = await house.register("js", "alice", encryption=True)
    await alice.do("set_up_recovery", password=secret("alice"))
    assert await alice.do("dehydration") is True
    await alice.do("dehydrate")
    found = await alice.until_true("devices", lambda found: len(found) == 2, user=alice.user_id)
    assert alice.device_id in found
