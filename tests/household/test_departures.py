"""Accounts that end: what goes, what stays, and who still sees what was said.

Matrix v1.19, Client-Server API, "Account deactivation" (C4.09); T042, T103, T110.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import trio

from matrixbox.core.json import encode
from matrixbox.household.departures import Departures, close_account
from matrixbox.push import pushers as pushing
from matrixbox.rooms import receipts
from matrixbox.rooms.receipts import Marks
from matrixbox.rooms.serving import ServerReader
from matrixbox.store import account_data, accounts, members, names, servers
from matrixbox.store.account_data import GLOBAL, Entry
from matrixbox.store.accounts import AccountState
from matrixbox.store.memberships import Membership
from matrixbox.store.pushers import Pusher, PusherNid
from tests.rooms.house import household

MARKER = "Marker-4711"


async def end(house, who, *, erase=False):
    account = house.store.read(accounts.get, who.user)
    await house.store.write(partial(close_account, erase=erase), account)


@asynccontextmanager
async def departing(house):
    """The service that lets people leave their rooms, for the length of a block."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Departures(house.store, house.env).run)
        await trio.testing.wait_all_tasks_blocked()
        yield
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_who_is_gone_has_left_every_room():
    async with household() as house:
        alice, bob = [await house.user(name) for name in ("alice", "bob")]
        joined = [await house.room(bob, preset="public_chat") for _ in range(30)]
        for room in joined:
            await house.join(alice, room)
        invited = await house.room(bob)
        await house.invite(bob, invited, alice.user_id)
        own = await house.room(alice)
        async with departing(house):
            await end(house, alice)
        for room in (*joined, invited, own):
            assert house.membership(room, alice.user_id) == "leave"
        assert house.store.read(accounts.devices, alice.user) == []
        assert house.store.read(accounts.get, alice.user).state is AccountState.DEACTIVATED


async def test_leaving_goes_on_after_a_restart_and_happens_once():
    async with household() as house:
        alice, bob = [await house.user(name) for name in ("alice", "bob")]
        room = await house.room(bob, preset="public_chat")
        await house.join(alice, room)
        await end(house, alice)
        assert house.membership(room, alice.user_id) == "join"
        async with departing(house):
            pass
        assert house.membership(room, alice.user_id) == "leave"
        count = len(house.timeline(room))
        async with departing(house):
            pass
        assert len(house.timeline(room)) == count


async def fill(house, who, room):
    """Leave something personal in every place there is."""
    user = who.user

    def everywhere(tx):
        account_data.set_profile_field(tx, user, "displayname", encode(MARKER))
        for where in (GLOBAL, room):
            account_data.put(tx, user, Entry(where, MARKER, encode({"a": MARKER}), tx.position()))
        device = accounts.device(tx, user, who.device_id)
        accounts.rename_device(tx, device.nid, MARKER)
        accounts.device_seen(tx, device.nid, 5, MARKER)
        data = {"url": f"https://{MARKER}.test/_matrix/push/v1/notify"}
        one = Pusher(PusherNid(0), user, MARKER, MARKER, MARKER, MARKER, MARKER, "en", data, 0)
        pushing.put(tx, who, one, append=False)

    await house.store.write(everywhere)
    said = await house.say(who, room, MARKER)
    marks = Marks({"m.read": said.event.event_id, "m.fully_read": said.event.event_id})
    await house.write(receipts.mark, who, room, marks)
    return said


def found(house):
    """The tables in which something of the user's is left."""
    return {
        table
        for table, rows in house.everything().items()
        if any(MARKER in repr(row) or MARKER.encode().hex() in repr(row) for row in rows)
    }


async def test_t110_erasing_leaves_nothing_personal_beside_the_events_of_rooms():
    async with household() as house:
        alice, bob = [await house.user(name) for name in ("alice", "bob")]
        room = await house.room(bob, preset="public_chat")
        await house.join(alice, room)
        await fill(house, alice, room)
        assert found(house) >= {"account_data", "profile", "device", "pusher"}
        async with departing(house):
            await end(house, alice, erase=True)
        assert found(house) == set()  # events are packed

        def receipts_left(tx):
            return tx.run("SELECT * FROM receipt WHERE user_nid = ?", alice.user)

        assert house.store.read(receipts_left) == []


async def test_t110_who_joins_after_an_erasure_gets_what_was_said_without_its_content():
    async with household() as house:
        alice, bob, carol = [await house.user(name) for name in ("alice", "bob", "carol")]
        room = await house.room(bob, preset="public_chat")
        await house.join(alice, room)
        said = await fill(house, alice, room)
        await house.set_state(bob, room, "m.room.power_levels", "", levels(bob, alice))
        await house.set_state(alice, room, "m.room.topic", "", {"topic": "ours"})
        async with departing(house):
            await end(house, alice, erase=True)
        await house.join(carol, room)
        assert MARKER in repr(house.shown(bob, room))
        seen = house.shown(carol, room)
        assert MARKER not in repr(seen)
        (one,) = [event for event in seen if event["event_id"] == said.event.event_id]
        assert (one["content"], one["sender"]) == ({}, alice.user_id)
        # What the room is made of stays.
        assert house.content(room, "m.room.topic") == {"topic": "ours"}
        (topic,) = [event for event in seen if event["type"] == "m.room.topic"]
        assert topic["content"] == {"topic": "ours"}


def levels(*people):
    return {"users": {one.user_id: 90 for one in people[1:]}}


async def test_t110_servers_that_come_after_an_erasure_get_no_content_either():
    async with household() as house:
        alice, bob = [await house.user(name) for name in ("alice", "bob")]
        room = await house.room(bob, preset="public_chat")
        await house.join(alice, room)
        said = await fill(house, alice, room)
        await come(house, room, "early.test")
        async with departing(house):
            await end(house, alice, erase=True)
        await come(house, room, "late.test")

        def content(tx, server):
            shown = ServerReader(tx, room, server).shown(said)
            return shown.content

        assert house.store.read(content, "early.test")["body"] == MARKER
        assert house.store.read(content, "late.test") == {}


async def come(house, room, server):
    """A server takes part in a room."""

    def arrive(tx):
        names.add_server(tx, server)
        servers.assume(tx, room, [server], tx.position())

    await house.store.write(arrive)


async def test_without_erasing_nothing_that_was_said_changes():
    async with household() as house:
        alice, bob, carol = [await house.user(name) for name in ("alice", "bob", "carol")]
        room = await house.room(bob, preset="public_chat")
        await house.join(alice, room)
        await fill(house, alice, room)
        async with departing(house):
            await end(house, alice)
        await house.join(carol, room)
        assert MARKER in repr(house.shown(carol, room))
        present = house.store.read(members.get, room, alice.user)
        assert present.membership is Membership.LEAVE
