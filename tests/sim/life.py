"""What people do: a few accounts on each server, acting at random through the client API."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import trio
from attrs import define, field

from matrixbox.core.identifiers import RoomId
from matrixbox.store import members, names
from tests.sim.node import Account, Failed, Node

VERSIONS = ("12", "12", "12", "11", "10", "9", "8", "6", "3", "2", "1")

ACTIONS = (
    ["say"] * 8
    + ["topic"] * 3
    + ["join"] * 5
    + ["invite", "leave", "kick", "ban", "unban"]
    + ["power"] * 2
    + ["rule", "redact", "name", "history"]
    + ["fickle"] * 2
)


@define(eq=False)
class Room:
    """A room that people know of."""

    room_id: str
    version: str
    home: str  # the server that it was made on
    creator: str


@define(eq=False)
class Person:
    """A user and the server it uses."""

    node: Node
    account: Account

    @property
    def user_id(self) -> str:
        """The user's name."""
        return self.account.user_id

    async def request(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """A request under ``/_matrix/client/v3``.  Raises Failed."""
        target = f"/_matrix/client/v3{path}"
        return await self.node.request(method, target, body, token=self.account.token, **more)


def residents_of(node: Node, room_id: str) -> frozenset[str]:
    """The servers that a server counts to a room."""

    def read(tx: Any) -> frozenset[str]:
        room = names.room_nid(tx, RoomId(room_id))
        return frozenset() if room is None else frozenset(map(str, members.servers(tx, room)))

    return node.store.read(read)


@define(eq=False)
class Said:
    """An event that a server has acknowledged."""

    room_id: str
    event_id: str
    server: str
    at_s: float
    residents: frozenset[str]  # the servers in the room, by what that server knows


@define(eq=False)
class Life:
    """The people, the rooms they know of, and what servers have acknowledged."""

    rng: random.Random
    people: list[Person]
    rooms: list[Room] = field(factory=list)
    said: list[Said] = field(factory=list)
    _count: int = 0

    async def make_room(self, who: Person, version: str) -> Room:
        """A public room that others can join."""
        body: dict[str, Any] = {"preset": "public_chat", "room_version": version}
        if self.rng.random() < 0.5:
            body["power_level_content_override"] = {"users_default": 50}
        made = await who.request("POST", "/createRoom", body)
        room = Room(made["room_id"], version, str(who.node.name), who.user_id)
        self.rooms.append(room)
        return room

    async def live(self, who: Person, rng: random.Random, pause_s: float, count: int) -> None:
        """So many things at random moments."""
        for _ in range(count):
            await trio.sleep(rng.expovariate(1 / pause_s))
            await self.act(who, rng)

    async def act(
        self, who: Person, rng: random.Random, name: str = "", room: Room | None = None
    ) -> None:
        """One thing, any unless it is named; that it is refused or not answered is normal."""
        room = room or rng.choice(self.rooms)
        other = rng.choice(self.people)
        name = name or rng.choice(ACTIONS)
        action: Callable[..., Awaitable[None]] = getattr(self, f"do_{name}")
        who.node.network.trace.note("act", who.user_id, name)
        try:
            await action(who, room, other, rng)
        except Failed as failure:
            who.node.network.trace.note("refused", who.user_id, failure.status, failure.body)

    def _acknowledged(self, who: Person, room: Room, answer: Any) -> None:
        event_id = answer["event_id"]
        who.node.network.trace.note("said", who.user_id, event_id)
        node = who.node
        if node.is_honest and node.is_up:
            now, there = trio.current_time(), residents_of(node, room.room_id)
            self.said.append(Said(room.room_id, event_id, str(node.name), now, there))

    async def _send(self, who: Person, room: Room, kind: str, content: Any) -> None:
        self._count += 1
        path = f"/rooms/{quote(room.room_id)}/send/{kind}/t{self._count}"
        self._acknowledged(who, room, await who.request("PUT", path, content))

    async def _state(self, who: Person, room: Room, kind: str, content: Any) -> None:
        path = f"/rooms/{quote(room.room_id)}/state/{kind}"
        self._acknowledged(who, room, await who.request("PUT", path, content))

    # --- what they do

    async def do_say(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """A message."""
        content = {"msgtype": "m.text", "body": f"{rng.random()}"}
        await self._send(who, room, "m.room.message", content)

    async def do_topic(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """A topic."""
        await self._state(who, room, "m.room.topic", {"topic": f"{rng.random()}"})

    async def do_fickle(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """A topic, and gone: what counts in a merge is then who was in the room at its time."""
        await self.do_topic(who, room, other, rng)
        await self.do_leave(who, room, other, rng)

    async def do_name(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """A name."""
        await self._state(who, room, "m.room.name", {"name": rng.choice(["Kitchen", "Garden"])})

    async def do_history(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """Who may read what was said."""
        value = rng.choice(["joined", "invited", "shared", "world_readable"])
        content = {"history_visibility": value}
        await self._state(who, room, "m.room.history_visibility", content)

    async def do_rule(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """Who may join; mostly anybody, so that life goes on."""
        rule = rng.choice(["public", "public", "invite"])
        await self._state(who, room, "m.room.join_rules", {"join_rule": rule})

    async def do_power(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """Power levels: others rise and fall, the creator keeps all."""
        users = {person.user_id: rng.choice([0, 50, 50, 100]) for person in self.people}
        users[room.creator] = 100
        if room.version == "12":
            del users[room.creator]
        content = {"users": users, "state_default": 50, "events_default": rng.choice([0, 0, 50])}
        await self._state(who, room, "m.room.power_levels", content)

    async def set_levels(self, who: Person, room: Room, content: Any) -> None:
        """These power levels."""
        await self._state(who, room, "m.room.power_levels", content)

    async def do_join(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """A join, by way of the server that made the room."""
        await self.join(who, room, rng.choice([room.home, str(other.node.name)]))

    async def join(self, who: Person, room: Room, via: str) -> None:
        """A join.  Raises Failed."""
        path = f"/join/{quote(room.room_id)}?server_name={via}&via={via}"
        await who.request("POST", path, {})

    async def do_leave(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """A leave; the creator stays."""
        if who.user_id != room.creator:
            await who.request("POST", f"/rooms/{quote(room.room_id)}/leave", {})

    async def _upon(self, who: Person, room: Room, what: str, target: str) -> None:
        await who.request("POST", f"/rooms/{quote(room.room_id)}/{what}", {"user_id": target})

    async def do_invite(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """An invitation."""
        await self._upon(who, room, "invite", other.user_id)

    async def do_kick(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """A kick."""
        await self._upon(who, room, "kick", other.user_id)

    async def do_ban(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """A ban."""
        await self._upon(who, room, "ban", other.user_id)

    async def do_unban(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """The end of a ban."""
        await self._upon(who, room, "unban", other.user_id)

    async def do_redact(self, who: Person, room: Room, other: Person, rng: random.Random) -> None:
        """A redaction of something that was said in the room."""
        known = [said for said in self.said if said.room_id == room.room_id]
        if known:
            self._count += 1
            target = quote(rng.choice(known).event_id)
            path = f"/rooms/{quote(room.room_id)}/redact/{target}/t{self._count}"
            self._acknowledged(who, room, await who.request("PUT", path, {}))
