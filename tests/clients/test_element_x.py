"""The Rust SDK under Element X, in company of matrix-js-sdk and matrix-nio.

Rooms come over sliding sync, as the app's room list service asks for them ([C14], MSC4186); keys,
verification, secret storage and backups as the app does it by itself ([C17.01] to [C17.17]).
"""

from __future__ import annotations

import pytest

from tests.clients.conversation import Client, Company, Kind, Refused, event_of, secret, texts
from tests.clients.test_encryption import in_private, reads, verify

PAIRS: list[tuple[Kind, Kind]] = [
    ("rust", "js"),
    ("js", "rust"),
    ("rust", "nio"),
    ("nio", "rust"),
    ("rust", "rust"),
]
WITH_IDENTITY: list[tuple[Kind, Kind]] = [("rust", "js"), ("js", "rust"), ("rust", "rust")]


def both(pairs: list[tuple[Kind, Kind]]) -> pytest.MarkDecorator:
    """Once for each pair of libraries."""
    return pytest.mark.parametrize("pair", pairs, ids="-".join)


async def with_identity(city: Company, kind: Kind, name: str) -> Client:
    """Somebody who signs devices: Element X does from the sign-in on."""
    client = await city.register(kind, name, encryption=True)
    if kind == "js":
        await client.do("set_up_recovery", password=secret(name))
    return client


async def know_each_other(alice: Client, bob: Client) -> None:
    """Wait until the app of each knows the devices and the identity of the other."""
    for one, other in ((alice, bob), (bob, alice)):
        await one.until_true(
            "trust",
            lambda found: found.get("known", True) and not found["user"],
            user=other.user_id,
        )


async def test_sliding_sync_from_empty_to_live(city: Company) -> None:
    alice = await city.register("rust", "alice")
    bob = await city.register("js", "bob")
    assert await alice.do("rooms") == []
    assert await alice.do("state", of="sync") == "RUNNING"
    rooms = []
    for name in ("Kitchen", "Attic", "Garden"):
        room = await bob.create_room(preset="private_chat", name=name, invite=[alice.user_id])
        invited = await alice.until(
            lambda view: view["membership"] == "invite" and view["name"], room=room
        )
        assert (invited["name"], invited["invited_by"]) == (name, bob.user_id)
        await alice.do("join", room=room)
        await alice.until(lambda view: view["membership"] == "join", room=room)
        await bob.until(lambda view: view["joined"] == 2, room=room)
        rooms.append(room)
    for number, room in enumerate(rooms):
        await alice.sees(room, await bob.say(room, f"in room {number}"))
    await alice.until_true("rooms", lambda found: found == rooms[::-1])
    last = await bob.say(rooms[0], "first again")
    await alice.until_true("rooms", lambda found: found == [rooms[0], rooms[2], rooms[1]])
    await alice.until(lambda view: view["unread"] == 2, room=rooms[0])
    await alice.do("receipt", room=rooms[0], event=last)
    await alice.until(lambda view: view["unread"] == 0, room=rooms[0])
    await bob.until(
        lambda view: view["receipts"]["m.read"].get(alice.user_id) == last, room=rooms[0]
    )
    mine = await alice.say(rooms[0], "mine")
    await bob.sees(rooms[0], mine)


@pytest.mark.parametrize("away", ["pause", "restart"])
async def test_what_came_while_the_app_was_away_is_there_once(city: Company, away: str) -> None:
    """In the background, or ended: it comes back with its position."""
    alice = await city.register("rust", "alice")
    bob = await city.register("js", "bob")
    room = await bob.create_room(preset="private_chat", invite=[alice.user_id])
    await alice.until(lambda view: view["membership"] == "invite", room=room)
    await alice.do("join", room=room)
    await alice.sees(room, await bob.say(room, "before"))
    await alice.do("pause")
    for number in range(30):
        last = await bob.say(room, f"missed {number}")
    await alice.do("resume" if away == "pause" else "restart")
    await alice.sees(room, last)
    await alice.sees(room, await bob.say(room, "live"))
    while await alice.do("back", room=room, limit=10):
        pass
    said = ["before", *(f"missed {number}" for number in range(30)), "live"]
    await alice.until(lambda view: texts(view) == said, room=room)


async def test_who_is_removed_sees_nothing_after_it(city: Company) -> None:
    """T105."""
    alice = await city.register("rust", "alice")
    bob = await city.register("js", "bob")
    room = await bob.create_room(preset="private_chat", invite=[alice.user_id])
    await alice.until(lambda view: view["membership"] == "invite", room=room)
    await alice.do("join", room=room)
    await alice.sees(room, await bob.say(room, "before"))
    await bob.do("kick", room=room, user=alice.user_id, reason="Enough")
    await alice.until(lambda view: view["membership"] == "leave", room=room)


@both(PAIRS)
async def test_messages_are_read_in_both_directions(city: Company, pair: tuple[Kind, Kind]) -> None:
    alice = await city.register(pair[0], "alice", encryption=True)
    bob = await city.register(pair[1], "bob", encryption=True)
    room = await in_private(alice, bob)
    said = []
    for number in range(4):
        sender, reader = (alice, bob) if number % 2 == 0 else (bob, alice)
        said.append(f"message {number}")
        await reads(reader, room, await sender.say(room, said[-1]), said[-1])
    for client in (alice, bob):
        await client.until(lambda view: texts(view) == said, room=room)
        if client.kind == "rust":
            assert (await client.do("view", room=room))["encrypted"]
            assert await client.do("undecryptable") == []


@both(WITH_IDENTITY)
async def test_people_verify_each_other_by_emoji(city: Company, pair: tuple[Kind, Kind]) -> None:
    """[C17.09], [C17.10]."""
    alice = await with_identity(city, pair[0], "alice")
    bob = await with_identity(city, pair[1], "bob")
    room = await in_private(alice, bob)
    await know_each_other(alice, bob)
    await verify(alice, bob, room=room)
    for one, other in ((alice, bob), (bob, alice)):
        await one.until_true("trust", lambda found: found["user"], user=other.user_id)


@both(WITH_IDENTITY)
async def test_an_own_new_device_is_verified_and_gets_the_secrets(
    city: Company, pair: tuple[Kind, Kind]
) -> None:
    """[C17.09], [C17.12]: the old device hands over the keys, to the backup as well."""
    alice = await with_identity(city, pair[0], "alice")
    if alice.kind == "rust":
        await alice.do("set_up_recovery", password=secret("alice"))
    bob = await city.register("js", "bob", encryption=True)
    room = await in_private(alice, bob)
    old = await bob.say(room, "before the tablet")
    await reads(alice, room, old, "before the tablet")
    if alice.kind == "rust":
        await alice.do("backed_up")
    else:
        await alice.until_true("backup", lambda found: found["count"] == 1)
    tablet = await city.login(pair[1], "alice", "tablet", encryption=True)
    if tablet.kind == "rust":
        await tablet.until_true("state", lambda found: found == "UNVERIFIED", of="verification")
        await tablet.until_true("can_be_verified", bool)
        if alice.kind == "js":
            await alice.until_true(
                "devices", lambda found: tablet.device_id in found, user=alice.user_id
            )
    else:
        await tablet.until_true(
            "devices", lambda found: alice.device_id in found, user=alice.user_id
        )
    await verify(tablet, alice, device=alice.device_id)
    if tablet.kind == "rust":
        await tablet.until_true("state", lambda found: found == "VERIFIED", of="verification")
        await tablet.until_true("state", lambda found: found == "ENABLED", of="backup")
        await reads(tablet, room, old, "before the tablet")
    await bob.until_true(
        "trust", lambda found: found["signed"], user=alice.user_id, device=tablet.device_id
    )


@both(WITH_IDENTITY)
async def test_a_lost_phone_costs_no_history(city: Company, pair: tuple[Kind, Kind]) -> None:
    """[C17.06], [C17.11] to [C17.14], [C17.17]: what one library put into secret storage and the
    backup, the other brings back on a new device."""
    alice = await city.register(pair[0], "alice", encryption=True)
    bob = await city.register("js", "bob", encryption=True)
    key = await alice.do("set_up_recovery", password=secret("alice"))
    room = await in_private(alice, bob)
    said = []
    for number in range(3):
        said.append(await bob.say(room, f"message {number}"))
        await reads(alice, room, said[-1], f"message {number}")
    if alice.kind == "rust":
        await alice.do("backed_up")
        await alice.until_true("state", lambda found: found == "ENABLED", of="backup")
    else:
        await alice.until_true("backup", lambda found: found["count"] == 1)
    await alice.do("logout")

    phone = await city.login(pair[1], "alice", "phone", encryption=True)
    await phone.until(lambda view: event_of(view, said[-1]), room=room)
    if phone.kind == "rust":
        await phone.until_true("state", lambda found: found == "INCOMPLETE", of="recovery")
        await phone.until(
            lambda view: (
                [event["type"] for event in view["timeline"] if event["id"] in said]
                == ["m.room.encrypted"] * 3
            ),
            room=room,
        )
    else:
        await phone.until_true("cross_signing", lambda found: found["publicKeysOnDevice"])
    await phone.do("recover", key=key)
    for number, event in enumerate(said):
        await reads(phone, room, event, f"message {number}")
    if phone.kind == "rust":
        # Not its "recovery": that is looked up and set in two steps, and two of them can cross.
        await phone.until_true("state", lambda found: found == "VERIFIED", of="verification")
        await phone.until_true("state", lambda found: found == "ENABLED", of="backup")
    await bob.until_true(
        "trust", lambda found: found["signed"], user=alice.user_id, device=phone.device_id
    )
    await reads(phone, room, await bob.say(room, "welcome back"), "welcome back")


async def test_an_unverified_device_is_warned_of(city: Company) -> None:
    """What a stolen password sends is marked red; and who verified the owner sends it nothing."""
    alice = await city.register("rust", "alice", encryption=True)
    bob = await city.register("rust", "bob", encryption=True)
    room = await in_private(alice, bob)
    good = await bob.say(room, "signed")
    await reads(alice, room, good, "signed")
    assert (await alice.do("shield", room=room, event=good))["colour"] == 0
    await know_each_other(alice, bob)
    await verify(alice, bob, room=room)
    thief = await city.login("js", "bob", "thief", encryption=True)
    await thief.until(lambda view: view["membership"] == "join", room=room)
    bad = await thief.say(room, "unsigned")
    await reads(alice, room, bad, "unsigned")
    mark = await alice.do("shield", room=room, event=bad)
    assert mark == {"colour": 2, "reason": "UNSIGNED_DEVICE"}
    with pytest.raises(Refused, match=rf"INSECURE_DEVICES.*{thief.device_id}"):
        await alice.say(room, "not for thieves")


async def test_a_new_identity_of_somebody_verified_is_warned_of(city: Company) -> None:
    """[C17.06]."""
    alice = await city.register("rust", "alice", encryption=True)
    bob = await city.register("rust", "bob", encryption=True)
    room = await in_private(alice, bob)
    await reads(alice, room, await bob.say(room, "hello"), "hello")
    await know_each_other(alice, bob)
    await verify(alice, bob, room=room)
    await alice.until_true("trust", lambda found: found["user"], user=bob.user_id)
    await bob.do("reset_identity", password=secret("bob"))
    await alice.until_true("trust", lambda found: found["changed"], user=bob.user_id)
    with pytest.raises(Refused, match="IDENTITY_VIOLATIONS"):
        await alice.say(room, "who are you?")


async def test_a_removed_device_is_signed_out_and_reads_nothing_more(city: Company) -> None:
    """[C8.23], T103."""
    bob = await city.register("js", "bob", encryption=True)
    alice = await city.register("rust", "alice", encryption=True)
    room = await in_private(alice, bob)
    tablet = await city.login("rust", "bob", "tablet", encryption=True)
    watcher = await city.register("js", "watcher", encryption=True)
    await alice.do("invite", room=room, user=watcher.user_id)
    await watcher.until(lambda view: view["membership"] == "invite", room=room)
    await watcher.do("join", room=room)
    await watcher.until_true("devices", lambda found: tablet.device_id in found, user=bob.user_id)
    two = await watcher.say(room, "two")
    for client in (alice, bob, tablet):
        await reads(client, room, two, "two")
    await bob.do("remove_devices", devices=[tablet.device_id], password=secret("bob"))
    await tablet.until_true("state", lambda found: found is True, of="signed_out")
    await watcher.until_true("devices", lambda found: found == [bob.device_id], user=bob.user_id)
    three = await alice.say(room, "three")
    await reads(bob, room, three, "three")
    view = await tablet.do("view", room=room)
    assert event_of(view, three) is None
