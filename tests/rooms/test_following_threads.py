"""Following threads: who is notified of what, and since when.

MSC4306.
"""

from __future__ import annotations

import json

import pytest

from matrixbox.core.push_rules import Change, Kind, PushRule
from matrixbox.rooms import counts, push_rules, thread_subscriptions
from matrixbox.rooms.push_rules import TYPE
from matrixbox.store import account_data, accounts
from matrixbox.store.account_data import GLOBAL, Entry
from tests.rooms.house import household

RULE = ".io.element.msc4306.rule."


def in_thread(root, body="reply", **more):
    relation = {"rel_type": "m.thread", "event_id": root.event.event_id}
    return {"msgtype": "m.text", "body": body, "m.relates_to": relation, **more}


async def talk(house):
    """Two people, a room, and two threads."""
    alice, bob = await house.user("alice"), await house.user("bob")
    room = await house.room(alice, preset="public_chat")
    await house.join(bob, room)
    roots = [await house.say(alice, room, f"root {number}") for number in (1, 2)]
    return alice, bob, room, roots


async def follow(house, who, room, root, cause=None, *, leave=False):
    def write(tx):
        reader = house._reader(tx, who, room)
        if leave:
            thread_subscriptions.unsubscribe(reader, root.event.event_id)
        else:
            event_id = None if cause is None else cause.event.event_id
            thread_subscriptions.subscribe(reader, root.event.event_id, event_id)

    await house.store.write(write)


def notified(stored):
    return set() if stored.notify is None else set(counts.notified(stored.notify))


async def test_a_followed_thread_notifies_and_another_does_not():
    async with household() as house:
        alice, bob, room, (one, two) = await talk(house)
        await follow(house, bob, room, one)
        for root, expected in ((one, {bob.user}), (two, set())):
            sent = await house.message(alice, room, "m.room.message", in_thread(root))
            assert notified(sent) == expected
        sent = await house.say(alice, room, "to everybody")
        assert notified(sent) == {bob.user}
        mention = in_thread(two, **{"m.mentions": {"user_ids": [bob.user_id]}})
        sent = await house.message(alice, room, "m.room.message", mention)
        assert notified(sent) == {bob.user}
        await follow(house, bob, room, one, leave=True)
        sent = await house.message(alice, room, "m.room.message", in_thread(one))
        assert notified(sent) == set()


async def test_who_follows_nothing_hears_of_all_threads_as_before():
    """Clients that know nothing of following would lose their notifications."""
    async with household() as house:
        alice, bob, room, (one, _) = await talk(house)
        await follow(house, alice, room, one)
        sent = await house.message(alice, room, "m.room.message", in_thread(one))
        assert notified(sent) == {bob.user}
        sent = await house.message(bob, room, "m.room.message", in_thread(one))
        assert notified(sent) == {alice.user}
        assert (
            "postcontent"
            not in push_rules.content_of(house.store.read(push_rules.rules_of, bob.user))["global"]
        )


async def test_a_muted_room_does_not_mute_a_followed_thread():
    async with household() as house:
        alice, bob, room, (one, _) = await talk(house)

        rule = PushRule(house.room_id(room), ())

        def mute(tx):
            own, changes = push_rules.own_rules(tx, bob.user)
            push_rules.store(tx, bob.user, {**own, Kind.ROOM: (rule,)}, changes)

        await house.store.write(mute)
        await follow(house, bob, room, one)
        assert notified(await house.say(alice, room, "quiet")) == set()
        sent = await house.message(alice, room, "m.room.message", in_thread(one))
        assert notified(sent) == {bob.user}


async def test_clients_learn_of_the_rules_with_the_first_thread_and_can_change_them():
    async with household() as house:
        alice, bob, room, (one, two) = await talk(house)

        def told():
            stored = house.store.read(account_data.get, bob.user, GLOBAL, TYPE)
            return None if stored is None else json.loads(stored)["global"]

        assert told() is None
        await follow(house, bob, room, one)
        assert [rule["rule_id"] for rule in told()["postcontent"]] == [
            f"{RULE}unsubscribed_thread",
            f"{RULE}subscribed_thread",
        ]

        def disable(tx):
            own, changes = push_rules.own_rules(tx, bob.user)
            key = (Kind.POSTCONTENT, f"{RULE}unsubscribed_thread")
            changes[key] = Change(enabled=False)
            push_rules.store(tx, bob.user, own, changes)

        await house.store.write(disable)
        assert [rule["enabled"] for rule in told()["postcontent"]] == [False, True]
        await follow(house, bob, room, one, leave=True)
        sent = await house.message(alice, room, "m.room.message", in_thread(two))
        assert notified(sent) == {bob.user}
        assert [rule["enabled"] for rule in told()["postcontent"]] == [False, True]


@pytest.mark.parametrize("prefix", account_data.LOCAL_NOTIFICATIONS)
async def test_a_removed_device_takes_its_notification_settings_along(prefix):
    """MSC3890; T103."""
    async with household() as house:
        alice = await house.user("alice")
        other = prefix + "ANOTHER"

        def put(tx):
            for kind in (prefix + alice.device_id, other):
                account_data.put(tx, alice.user, Entry(GLOBAL, kind, b"{}", tx.position()))

        await house.store.write(put)
        await house.store.write(accounts.remove_device, alice.device)
        look = house.store.read
        assert look(account_data.get, alice.user, GLOBAL, prefix + alice.device_id) is None
        assert look(account_data.get, alice.user, GLOBAL, other) == b"{}"
        await house.store.write(accounts.remove_device, alice.device)
