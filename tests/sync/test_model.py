"""The model check of /sync: a first answer plus its increments shows what a fresh one shows.

[C8.02], [C8.03], [C8.06], [C8.20], [C8.21], T105.  Writers and readers run at the same time on
virtual time; no event is missed and none is shown twice.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from matrixbox.core.json import encode
from matrixbox.errors import MatrixError
from matrixbox.rooms import membership, receipts
from matrixbox.rooms.receipts import Marks
from matrixbox.rooms.typing import Typing
from matrixbox.store import account_data, accounts, events
from matrixbox.store.account_data import Entry
from matrixbox.store.nids import RoomNid
from matrixbox.sync.v3 import SyncService
from tests.e2ee.people import Device
from tests.rooms.house import House, household
from tests.sync.client import Client

SEEDS = range(int(os.environ.get("MATRIXBOX_SYNC_SEEDS", "60")))


def put_account_data(tx: Any, user: int, room: int, kind: str, content: dict[str, Any]) -> None:
    account_data.put(tx, user, Entry(RoomNid(room), kind, encode(content), tx.position()))
    tx.changed(users=(user,))


class Life:
    """What a household does, at random."""

    def __init__(self, house: House, rng: random.Random, typing: Typing) -> None:
        self.house, self.rng, self.typing = house, rng, typing
        self.users: list[Any] = []
        self.rooms: list[RoomNid] = []
        self.devices: dict[str, Device] = {}
        self.sent: dict[str, list[Any]] = defaultdict(list)

    async def begin(self) -> None:
        self.users = [await self.house.user(name) for name in ("ann", "bo", "cy")]
        self.devices = {who.user_id: Device(self.house, who) for who in self.users}
        for device in self.devices.values():
            await device.upload()
        for _ in range(2):
            preset = self.rng.choice(["public_chat", "private_chat"])
            version = self.rng.choice(["6", "10", "12"])
            room = await self.house.room(self.users[0], version=version, preset=preset)
            self.rooms.append(room)

    async def step(self) -> None:
        who, room = self.rng.choice(self.users), self.rng.choice(self.rooms)
        other = self.rng.choice(self.users)
        action = self.rng.choice(
            ["say"] * 6
            + ["join"] * 3
            + ["invite", "invite", "leave", "kick", "ban", "unban"]
            + ["topic", "name", "history", "receipt", "receipt", "private", "typing", "data"]
            + ["room_data", "redact", "new_room", "power", "burst"]
            + ["keys", "keys", "prekeys", "message", "message", "many_messages"]
        )
        try:
            await getattr(self, f"do_{action}")(who, room, other)
        except MatrixError:
            return

    async def do_say(self, who: Any, room: RoomNid, other: Any) -> None:
        mention = {"m.mentions": {"user_ids": [other.user_id]}} if self.rng.random() < 0.3 else {}
        await self.house.say(who, room, str(self.rng.random()), **mention)

    async def do_burst(self, who: Any, room: RoomNid, other: Any) -> None:
        for _ in range(self.rng.randint(3, 9)):
            await self.do_say(who, room, other)

    async def do_join(self, who: Any, room: RoomNid, _: Any) -> None:
        await self.house.join(who, room)

    async def do_invite(self, who: Any, room: RoomNid, other: Any) -> None:
        await self.house.invite(who, room, other.user_id)

    async def do_leave(self, who: Any, room: RoomNid, _: Any) -> None:
        await self.house.leave(who, room)

    async def do_kick(self, who: Any, room: RoomNid, other: Any) -> None:
        await self.house.write(membership.kick, who, room, other.user_id, {})

    async def do_ban(self, who: Any, room: RoomNid, other: Any) -> None:
        await self.house.write(membership.ban, who, room, other.user_id, {})

    async def do_unban(self, who: Any, room: RoomNid, other: Any) -> None:
        await self.house.write(membership.unban, who, room, other.user_id, {})

    async def do_topic(self, who: Any, room: RoomNid, _: Any) -> None:
        await self.house.set_state(who, room, "m.room.topic", "", {"topic": str(self.rng.random())})

    async def do_name(self, who: Any, room: RoomNid, _: Any) -> None:
        name = self.rng.choice(["", "Kitchen", "Garden"])
        await self.house.set_state(who, room, "m.room.name", "", {"name": name})

    async def do_history(self, who: Any, room: RoomNid, _: Any) -> None:
        value = self.rng.choice(["joined", "invited", "shared", "world_readable"])
        content = {"history_visibility": value}
        await self.house.set_state(who, room, "m.room.history_visibility", "", content)

    async def do_power(self, who: Any, room: RoomNid, other: Any) -> None:
        content = {"users": {other.user_id: self.rng.choice([0, 50])}, "users_default": 50}
        await self.house.set_state(who, room, "m.room.power_levels", "", content)

    async def _mark(self, who: Any, room: RoomNid, kind: str) -> None:
        newest = self.house.store.read(events.newest, room, 2**60)
        event_id = self.house.store.read(events.by_nid, newest).event.event_id
        await self.house.write(receipts.mark, who, room, Marks({kind: event_id}))

    async def do_receipt(self, who: Any, room: RoomNid, _: Any) -> None:
        await self._mark(who, room, "m.read")

    async def do_private(self, who: Any, room: RoomNid, _: Any) -> None:
        await self._mark(who, room, self.rng.choice(["m.read.private", "m.fully_read"]))

    async def do_typing(self, who: Any, room: RoomNid, _: Any) -> None:
        await trio.lowlevel.checkpoint()
        if self.rng.random() < 0.7:
            self.typing.start(room, who.user_id, self.rng.choice([1, 20]))
        else:
            self.typing.stop(room, who.user_id)

    async def do_data(self, who: Any, room: RoomNid, _: Any) -> None:
        content = {"n": self.rng.random()}
        await self.house.store.write(put_account_data, who.user, 0, "x.test", content)

    async def do_room_data(self, who: Any, room: RoomNid, _: Any) -> None:
        content = {"n": self.rng.random()}
        await self.house.store.write(put_account_data, who.user, room, "x.room", content)

    async def do_redact(self, who: Any, room: RoomNid, _: Any) -> None:
        newest = self.house.store.read(events.newest, room, 2**60)
        target = self.house.store.read(events.by_nid, newest).event.event_id
        await self.house.redact(who, room, target)

    async def do_keys(self, who: Any, room: RoomNid, _: Any) -> None:
        name = f"name {self.rng.random()}"
        await self.house.store.write(accounts.rename_device, who.device, name)

    async def do_prekeys(self, who: Any, room: RoomNid, _: Any) -> None:
        device = self.devices[who.user_id]
        await device.upload(device.prekeys(2), identity=False)

    async def do_message(self, who: Any, room: RoomNid, other: Any) -> None:
        content = {"n": self.rng.random()}
        sent = {"type": "m.test", "sender": who.user_id, "content": content}
        self.sent[other.user_id].append(sent)
        await self.devices[who.user_id].send("m.test", {other.user_id: {"*": content}})

    async def do_many_messages(self, who: Any, room: RoomNid, other: Any) -> None:
        for _ in range(self.rng.choice([5, 60])):
            await self.do_message(who, room, other)

    async def do_new_room(self, who: Any, room: RoomNid, other: Any) -> None:
        if len(self.rooms) < 5:
            made = await self.house.room(who, preset="public_chat", invites=(other.user_id,))
            self.rooms.append(made)


async def follow(client: Client, rng: random.Random, stop: trio.Event) -> None:
    """Sync until told to stop, now with, now without waiting."""
    while not stop.is_set():
        await client.sync(rng.choice([0, 0, 2, 30]), full_state=rng.random() < 0.05)
        await trio.sleep(rng.expovariate(2))


@pytest.mark.parametrize("seed", SEEDS)
async def test_increments_show_what_a_fresh_sync_shows(
    seed: int, autojump_clock: MockClock
) -> None:
    rng = random.Random(seed)
    async with household() as house, trio.open_nursery() as nursery:
        typing = house.env.typing
        service = SyncService(house.store, house.env)
        nursery.start_soon(typing.run)
        life = Life(house, rng, typing)
        await life.begin()
        names = ((), ("state_after",), ("org.matrix.msc4222.state_after",))
        clients = [
            Client(house.store, service, who, state_after=rng.choice(names)) for who in life.users
        ]
        stop = trio.Event()
        async with trio.open_nursery() as living:
            for client in clients:
                living.start_soon(follow, client, random.Random(rng.random()), stop)

            async def write() -> None:
                for _ in range(40):
                    await life.step()
                    await trio.sleep(rng.expovariate(4))

            async with trio.open_nursery() as writers:
                writers.start_soon(write)
                writers.start_soon(write)
            stop.set()
        for client in clients:
            await client.sync()
            fresh = Client(house.store, service, client.who)
            await fresh.sync()
            client.knows_the_same_as(fresh)
            while client.since is not None and client.since.count("_") == 2:
                await client.sync()  # more messages than one answer takes
            assert client.messages == life.sent[client.who.user_id], "each once, in order"
            answer = await client.sync()
            assert set(answer) == {
                "next_batch",
                "device_one_time_keys_count",
                "device_unused_fallback_key_types",
            }
        nursery.cancel_scope.cancel()
