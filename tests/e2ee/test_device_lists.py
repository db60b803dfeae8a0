"""Whose devices a client has to look at, by /sync ([C8.23], [C17.02], [C17.05])."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from matrixbox.accounts import sessions
from matrixbox.errors import MatrixError
from matrixbox.rooms import membership
from matrixbox.rooms.tokens import SyncToken
from matrixbox.store import accounts, device_lists, members
from matrixbox.sync import encryption, sharing
from tests.e2ee.people import Device, Town, town


async def in_one_room(house: Town, *devices: Device) -> Any:
    """A room with all of them, known to their clients."""
    room = await house.house.room(devices[0].who, preset="public_chat")
    for device in devices[1:]:
        await house.house.join(device.who, room)
    for device in devices:
        await device.sync()
    return room


async def test_a_first_sync_tells_of_no_device_lists() -> None:
    """[C8.23]."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        await in_one_room(house, ann, bo)
        assert "device_lists" not in await ann.sync(None)


async def test_new_keys_concern_those_who_share_a_room_and_oneself() -> None:
    """[C8.23], [C17.02]."""
    async with town() as house:
        ann, bo, cy = [await house.user(name) for name in ("ann", "bo", "cy")]
        await in_one_room(house, ann, bo)
        await cy.sync()
        await house.device(ann, "TABLET")
        assert await ann.list_changes() == ([ann.user_id], [])
        assert await bo.list_changes() == ([ann.user_id], [])
        assert await cy.list_changes() == ([], [])
        assert await bo.list_changes() == ([], []), "once"


async def test_a_new_name_and_the_end_of_a_device_are_changes() -> None:
    """[C17.02], [B7.06]."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        await in_one_room(house, ann, bo)
        tablet = await house.device(ann, "TABLET")
        bare = await house.device(ann, "BARE", uploaded=False)
        await bo.sync()
        write = house.house.store.write
        await write(sessions.rename_device, ann.who.user, tablet.who.device_id, "Tablet")
        assert await bo.list_changes() == ([ann.user_id], [])
        await house.remove(tablet)
        assert await bo.list_changes() == ([ann.user_id], [])
        await house.remove(bare)
        await ann.upload()
        assert await bo.list_changes() == ([], []), "nothing that others could see"


async def test_joining_and_leaving_show_on_both_sides() -> None:
    """[C8.23]: who joins needs the keys of those who are there, and they the joiner's."""
    async with town() as house:
        ann, bo, cy = [await house.user(name) for name in ("ann", "bo", "cy")]
        room = await in_one_room(house, ann, bo)
        await cy.sync()
        await house.house.join(cy.who, room)
        assert await cy.list_changes() == (sorted([ann.user_id, bo.user_id, cy.user_id]), [])
        assert await ann.list_changes() == ([cy.user_id], [])
        await house.house.leave(cy.who, room)
        assert await cy.list_changes() == ([], sorted([ann.user_id, bo.user_id]))
        assert await ann.list_changes() == ([], [cy.user_id])
        await house.device(cy, "TABLET")
        assert await ann.list_changes() == ([], []), "no room is shared"
        await house.house.join(cy.who, room)
        assert await ann.list_changes() == ([cy.user_id], [])


async def test_another_shared_room_keeps_somebody_on_the_list() -> None:
    """[C8.23]."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        first = await in_one_room(house, ann, bo)
        second = await in_one_room(house, ann, bo)
        await ann.sync()
        await bo.sync()
        await house.house.leave(bo.who, first)
        assert await ann.list_changes() == ([], [])
        assert await bo.list_changes() == ([], [])
        await house.house.kick(ann.who, second, bo.who.user_id)
        assert await ann.list_changes() == ([], [bo.user_id])
        assert await bo.list_changes() == ([], [ann.user_id])


async def test_leaving_and_coming_back_between_two_syncs_shows_nothing() -> None:
    """[C8.23]: but for what changed meanwhile."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await in_one_room(house, ann, bo)
        await house.house.leave(bo.who, room)
        await house.house.join(bo.who, room)
        assert await ann.list_changes() == ([], [])
        await house.house.leave(bo.who, room)
        await house.device(bo, "TABLET")
        await house.house.join(bo.who, room)
        assert await ann.list_changes() == ([bo.user_id], [])


async def test_forgetting_a_room_still_ends_its_list() -> None:
    """[C8.23]."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await in_one_room(house, ann, bo)
        await house.house.leave(bo.who, room)
        await house.house.forget(bo.who, room)
        assert await bo.list_changes() == ([], [ann.user_id])


async def test_a_new_display_name_is_no_change_of_keys() -> None:
    """[C8.23]: a member event that is no join."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await in_one_room(house, ann, bo)
        content = {"membership": "join", "displayname": "Bo"}
        await house.house.set_state(bo.who, room, "m.room.member", bo.user_id, content)
        assert await ann.list_changes() == ([], [])


async def test_many_new_neighbours_are_all_named() -> None:
    """[C8.23]: rooms are read as a whole when there are many candidates."""
    async with town() as house:
        ann = await house.user("ann")
        count = sharing.MANY + 10
        others = [await house.user(f"u{n}", uploaded=False) for n in range(count)]
        old = await house.house.room(ann.who, preset="public_chat")
        await house.house.join(others[0].who, old)
        room = await house.house.room(others[1].who, preset="public_chat")
        for other in [others[0], *others[2:]]:
            await house.house.join(other.who, room)
        await ann.sync()
        await house.house.join(ann.who, room)
        names = sorted(other.user_id for other in others)
        names.remove("@u0:home.test")
        assert await ann.list_changes() == ([ann.user_id, *names], [])
        await house.house.leave(ann.who, room)
        assert await ann.list_changes() == ([], names)


class Life:
    """Joins, leaves and new keys at random, and what each client should have been told."""

    def __init__(self, house: Town, rng: random.Random) -> None:
        self.house, self.rng = house, rng
        self.devices: list[Device] = []
        self.rooms: list[Any] = []
        self.number = 0

    async def begin(self) -> None:
        names = ["ann", "bo", "cy", "di", "ed"]
        self.devices = [await self.house.user(name) for name in names]
        for _ in range(3):
            who = self.rng.choice(self.devices).who
            self.rooms.append(await self.house.house.room(who, preset="public_chat"))

    async def step(self) -> None:
        who, room = self.rng.choice(self.devices), self.rng.choice(self.rooms)
        other = self.rng.choice(self.devices)
        house = self.house.house
        try:
            match self.rng.choice(["join"] * 4 + ["leave", "kick", "ban", "keys", "name", "say"]):
                case "join":
                    await house.join(who.who, room)
                case "leave":
                    await house.leave(who.who, room)
                case "kick":
                    await house.kick(who.who, room, other.who.user_id)
                case "ban":
                    await house.ban(who.who, room, other.who.user_id)
                    await house.write(membership.unban, who.who, room, other.who.user_id, {})
                case "keys":
                    self.number += 1
                    await self.house.device(who, f"D{self.number}")
                case "name":
                    write = house.store.write
                    name = f"name {self.rng.random()}"
                    await write(accounts.rename_device, who.who.device, name)
                case "say":
                    await house.say(who.who, room, "hello")
        except MatrixError:
            return

    def sharing(self, who: Device) -> set[str]:
        """With whom a room is shared now."""
        found = self.house.house.store.read(members.sharing, who.who.user)
        return {d.user_id for d in self.devices if d.who.user in found and d is not who}

    def stream(self, of: str) -> int:
        """The last change of somebody's keys."""
        user = next(d.who.user for d in self.devices if d.user_id == of)
        return self.house.house.store.read(device_lists.stream_id, user)


@pytest.mark.parametrize("seed", range(25))
async def test_a_client_that_follows_the_lists_knows_every_current_key(
    seed: int, tmp_path: Path
) -> None:
    """[C8.23], [C17.05]: exactly those with whom a room is shared are followed, over gaps and
    restarts, and nobody's change is missed or told without reason."""
    rng = random.Random(seed)
    path = tmp_path / "a.db"
    async with town(path) as house:
        life = Life(house, rng)
        await life.begin()
        watcher = life.devices[0]
        await watcher.sync()
        followed = life.sharing(watcher)
        known = {name: life.stream(name) for name in followed}
    for _ in range(3):
        async with town(path) as house:
            life.house = house
            for device in life.devices:
                device.house = house.house
            for _ in range(15):
                for _ in range(rng.choice([0, 1, 1, 2, 5])):
                    await life.step()
                begin = watcher.since
                assert begin is not None
                changed, left = await watcher.list_changes()
                now = life.sharing(watcher)
                assert followed - now == set(left)
                told = set(changed) - {watcher.user_id}
                fresh = {name for name in now if known.get(name) != life.stream(name)}
                assert told == (now - followed) | (fresh & now), "no more and no less"
                followed = now
                known = {name: life.stream(name) for name in followed}
                asked = house.house.store.read(
                    encryption.device_list_changes,
                    watcher.who.user,
                    SyncToken.parse(begin).pos,
                    house.house.store.doorbell.position,
                    None,
                ) or {"changed": [], "left": []}
                assert sorted(asked["changed"]) == changed, "/keys/changes says the same"
                assert sorted(asked["left"]) == left
