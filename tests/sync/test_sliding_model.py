"""The model check of sliding sync: increments show what a fresh connection shows, and /sync.

MSC4186, T105, T108, T128.  Writers and readers run at the same time on virtual time; answers get
lost, the server is started anew, and clients look at ever other parts.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from matrixbox.sync.sends import Sends
from matrixbox.sync.sliding import SlidingService
from matrixbox.sync.sliding_connection import UnknownPos
from matrixbox.sync.sliding_request import Form
from matrixbox.sync.v3 import SyncService
from tests.rooms.house import House, household
from tests.sync.client import Client
from tests.sync.sliding_client import ALL_EXTENSIONS, EVERYTHING, SlidingClient
from tests.sync.test_model import Life

SEEDS = range(int(os.environ.get("MATRIXBOX_SYNC_SEEDS", "60")))
LIVELY = 40


def service_of(house: House) -> SlidingService:
    """The service as it is after a start: it remembers nothing but what is stored."""
    return SlidingService(house.store, house.env, Sends())


def wandering(client: SlidingClient, life: Life, rng: random.Random) -> dict[str, Any]:
    """What a client asks for that looks now here, now there."""
    limit = rng.choice([0, 1, 3, 20])
    first = rng.randint(0, 2)
    last = first + rng.randint(0, 2)
    config = {**EVERYTHING[client.form], "timeline_limit": limit}
    where = (
        {"ranges": [[first, last]]} if client.form is Form.UNSTABLE else {"range": [first, last]}
    )
    body: dict[str, Any] = {"lists": {"window": {**config, **where}}}
    if rng.random() < 0.4:
        room = life.house.room_id(rng.choice(life.rooms))
        more = {**EVERYTHING[client.form], "timeline_limit": rng.choice([1, 20])}
        body["room_subscriptions"] = {room: more}
    if rng.random() < 0.2:
        body["lists"] = {}
    of_rooms = ("account_data", "receipts", "typing")  # one connection hears of the device
    chosen = [name for name in of_rooms if rng.random() < 0.8]
    body["extensions"] = {name: ALL_EXTENSIONS[name] for name in chosen}
    return body


async def follow(
    client: SlidingClient, life: Life, rng: random.Random, stop: trio.Event, *, wanders: bool
) -> None:
    """Sync until told to stop; lose answers, and meet a server that was started anew."""
    while not stop.is_set():
        body = wandering(client, life, rng) if wanders else None
        if rng.random() < 0.1:
            client.service = service_of(life.house)
        with trio.move_on_after(rng.choice([0.01, 100])):  # the client hangs up
            answer = await client.ask(body, rng.choice([0, 0, 2, 30]))
            if rng.random() < 0.8:  # else it is lost
                client.take(answer)
        await trio.sleep(rng.expovariate(2))


def knows_the_same(client: SlidingClient, other: SlidingClient) -> None:
    """Assert that a client that began anew knows just the same."""
    if client.conn_id == "steady":
        assert client.keys == {user: client.classic.keys_of(user) for user in other.keys}
    assert client.joined == other.joined
    assert client.invites == other.invites
    assert client.account_data == other.account_data
    for room_id in client.joined:
        mine, theirs = client.rooms[room_id], other.rooms[room_id]
        assert mine.state == theirs.state, room_id
        assert mine.counts == theirs.counts
        assert client.typing.get(room_id, []) == other.typing.get(room_id, [])
        assert client.receipts.get(room_id, {}) == other.receipts.get(room_id, {})
        assert client.room_data.get(room_id, {}) == other.room_data.get(room_id, {})
        mine_named, named = client.names[room_id], other.names[room_id]
        assert mine_named.get("name") == named.get("name")
        assert mine_named.get("avatar") == named.get("avatar")
        if named.get("name") is None:
            assert mine_named["heroes"] == named["heroes"]
        for name in ("joined_count", "invited_count"):
            assert mine_named[name] == named[name], room_id
        whole = client.history(room_id, f"t{client.store.doorbell.position}_0")
        if mine.timeline:
            assert mine.timeline == whole[whole.index(mine.timeline[0]) :]
        newest = theirs.timeline
        assert mine.timeline[-len(newest) :] == newest or not newest


def agrees_with(client: SlidingClient, other: Client) -> None:
    """Assert that sliding sync and /sync show the same of every room."""
    assert client.joined == set(other.rooms)
    assert client.invites == other.invites
    assert client.account_data == other.account_data
    for room_id, theirs in other.rooms.items():
        mine = client.rooms[room_id]
        assert mine.state == theirs.state, room_id
        assert mine.counts in ({}, theirs.counts)
        assert client.typing.get(room_id, []) == theirs.typing
        assert client.receipts.get(room_id, {}) == theirs.receipts
        assert client.room_data.get(room_id, {}) == theirs.account_data
        named = client.names[room_id]
        assert named["joined_count"] == theirs.summary["m.joined_member_count"]
        assert named["invited_count"] == theirs.summary["m.invited_member_count"]
        if "m.heroes" in theirs.summary:
            heroes = [hero["user_id"] for hero in named["heroes"]]
            assert heroes == theirs.summary["m.heroes"]


@pytest.mark.parametrize("seed", SEEDS)
async def test_increments_show_what_a_fresh_connection_and_sync_show(
    seed: int, autojump_clock: MockClock
) -> None:
    rng = random.Random(seed)
    async with household() as house, trio.open_nursery() as nursery:
        nursery.start_soon(house.env.typing.run)
        life = Life(house, rng, house.env.typing)
        await life.begin()
        forms = (Form.UNSTABLE, Form.V4)
        clients = [
            SlidingClient(house.store, service_of(house), who, rng.choice(forms), name)
            for who in life.users
            for name in ("steady", "wandering")
        ]
        stop = trio.Event()
        async with trio.open_nursery() as living:
            for client in clients:
                wanders = client.conn_id == "wandering"
                own = random.Random(rng.random())
                living.start_soon(
                    lambda c, r, w: follow(c, life, r, stop, wanders=w), client, own, wanders
                )

            async def write() -> None:
                for _ in range(LIVELY):
                    await life.step()
                    await trio.sleep(rng.expovariate(4))

            async with trio.open_nursery() as writers:
                writers.start_soon(write)
                writers.start_soon(write)
            stop.set()
        for client in clients:
            quiet = client.everything()
            if client.conn_id == "wandering":
                del quiet["extensions"]["to_device"]
            await client.until_quiet(quiet)
            fresh = SlidingClient(house.store, service_of(house), client.who, client.form, "fresh")
            await fresh.sync()
            knows_the_same(client, fresh)
            classic = Client(house.store, SyncService(house.store, house.env), client.who)
            await classic.sync()
            agrees_with(client, classic)
            if client.conn_id == "steady":
                assert client.messages == life.sent[client.who.user_id], "each once, in order"
            again = await client.ask()
            assert again["rooms"] == {}
            assert set(again["extensions"]) == {"to_device", "e2ee"}
        nursery.cancel_scope.cancel()


async def test_a_position_is_bound_to_its_device(autojump_clock: MockClock) -> None:
    """MSC4186, "Connections": that of another device, or of another connection, is unknown."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        await house.room(ann)
        mine = SlidingClient(house.store, service_of(house), ann)
        theirs = SlidingClient(house.store, mine.service, bo)
        await mine.sync()
        await theirs.sync()
        theirs.pos = mine.pos
        with pytest.raises(UnknownPos):
            await theirs.ask()
        other = SlidingClient(house.store, mine.service, ann, conn_id="other", pos=mine.pos)
        with pytest.raises(UnknownPos):
            await other.ask()
