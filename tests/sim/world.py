"""A world from a seed: servers, people, trouble, healing, and what must hold in the end.

[A6.01], [B5.01], [B6.12], T004, T010, T011, T012, T020, T021, T024, T027, T028, T046.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trio
from attrs import define, field, frozen

from matrixbox.clock import SimulatedClock
from matrixbox.core.events import parse_event, power_levels
from matrixbox.core.identifiers import ServerName, UserId, server_of
from matrixbox.core.room_versions import ROOM_VERSIONS
from tests.sim.court import Court, named
from tests.sim.determinism import Trace
from tests.sim.liar import Liar, lie
from tests.sim.life import VERSIONS, Life, Person, Room, Said
from tests.sim.looking import Look, Watcher, look
from tests.sim.network import Network, Weather
from tests.sim.node import Failed, Node

AGREED_WITHIN_S = 600.0
LOOK_EVERY_S = 20.0
HOUR_MS = 3_600_000


@frozen
class Plan:
    """How large a world is, and what happens in it; drawn from the seed."""

    servers: int
    people: int  # on each server
    actions: int  # of each person
    pause_s: float  # between two actions of a person
    versions: tuple[str, ...]
    weather: Weather
    partitions: int
    restarts: int
    liar: bool
    strangers: bool  # nobody has anybody's keys yet when trouble begins
    quarrel: bool  # see World._quarrel

    @classmethod
    def draw(cls, rng: random.Random) -> Plan:
        """A small world with some kinds of trouble."""
        servers = rng.choice([3, 3, 3, 4, 5])
        return cls(
            servers=servers,
            people=rng.choice([1, 2]) if servers < 5 else 1,
            actions=rng.choice([6, 10]),
            pause_s=rng.choice([2.0, 10.0, 30.0]),
            versions=tuple(rng.sample(VERSIONS, rng.choice([1, 1, 2]))),
            weather=Weather.random(rng),
            partitions=rng.choice([0, 1, 1, 2]),
            restarts=rng.choice([0, 0, 1, 2]),
            liar=rng.random() < 0.5,
            strangers=rng.random() < 0.2,
            quarrel=rng.random() < 0.2,
        )


def cannot_speak(server: str, seen: Look, version: str) -> bool:
    """Whether nobody of a server may say anything in a room.

    Then it cannot join the ends of its graph, and keeps those which no other server joins for it:
    an event that was refused elsewhere because it came too late there, or one that the liar has
    sent to nobody else.  Its state is still compared with what its own graph gives.
    """
    rules = ROOM_VERSIONS[version]
    create = parse_event(rules, seen.events[seen.state["m.room.create", ""]])
    found = seen.state.get(("m.room.power_levels", ""))
    given = None if found is None else parse_event(rules, seen.events[found])
    levels = power_levels(rules, create, given)
    needed = levels.required_for("m.room.message", is_state=False)
    return all(
        levels.user(UserId(user)) < needed for user in seen.users() if server_of(user) == server
    )


def parted_unheard(server: str, own: Look, other: Look) -> bool:
    """Whether a server is in a room by its own knowledge only: another has its users' joins in its
    graph, and something that was done at the same time, on another branch, has prevailed.

    When a netsplit heals it can turn out so, by a leave of the same user whose clock was ahead, or
    by join rules or power levels.  Who counts a server out sends it nothing, lest those get the
    room's events who are not in it any more, and no answer tells it that its own events have no
    effect; so it goes on alone until it is restarted, or its user joins anew.  A kick or a ban
    that has prevailed is told to it.  But where that came too late for it, since it had heard first
    that who sent it was out, it has to be without effect there (check 6) until an event comes which
    cites it; and events go to nobody who is out.  Nor is there anything to tell of a leave of its
    own, which it has: in rooms of version 1 a merge of branches can bring its user back, by an
    invitation that fails, and others do not see that merge.
    """
    if other.has_joined(server):
        return False
    for user in own.users():
        if server_of(user) != server:
            continue
        join, found = (look.state.get(("m.room.member", user)) for look in (own, other))
        if join not in other.rooted:
            return False
        if found is None:
            continue
        event = other.events[found]
        is_told = event["content"].get("membership") == "ban" or join in named(event["auth_events"])
        is_its_own = server_of(event["sender"]) == server and found in own.rooted
        if is_told and not is_its_own and found not in own.soft_failed:
            return False  # which it has to be told
    return True


def pusher(key: str) -> dict[str, Any]:
    """What a phone asks for."""
    return {
        "kind": "http",
        "app_id": "test.app",
        "pushkey": key,
        "app_display_name": "App",
        "device_display_name": "Phone",
        "lang": "en",
        "data": {"url": "https://push.test/_matrix/push/v1/notify"},
    }


class Wrong(AssertionError):
    """Something that must hold does not."""


@define(eq=False)
class World:
    """All servers of one simulation."""

    seed: int
    folder: Path
    plan: Plan
    trace: Trace
    rng: random.Random
    network: Network
    nodes: list[Node] = field(factory=list)
    life: Life = field(init=False)
    watchers: list[Watcher] = field(factory=list)
    agreed_after_s: float = -1.0

    # --- course

    async def run(self) -> None:
        """From the first start to the last check.  Raises Wrong."""
        self.trace.note(self.plan)
        async with trio.open_nursery() as nursery:
            self.network.tasks = nursery
            await self._begin(nursery)
            if self.plan.quarrel:
                await self._quarrel()
            async with trio.open_nursery() as trouble:
                self._cause_trouble(trouble, nursery)
            await self._heal(nursery)
            await self._settle()
            await self._check()
            for node in self.nodes:
                await node.stop()
            nursery.cancel_scope.cancel()

    async def _begin(self, nursery: trio.Nursery) -> None:
        people = []
        for number in range(self.plan.servers):
            node = self._node(number)
            self.network.hosts[node.name] = node
            self.nodes.append(node)
            await node.start(nursery)
            for each in range(self.plan.people):
                people.append(Person(node, await node.register(f"u{each}")))
                await people[-1].request("POST", "/pushers/set", pusher(f"u{each}"))
        if not self.plan.strangers:
            await self._exchange_keys()
        self.life = Life(self.rng, people)
        self.watchers = [Watcher(person) for person in people]
        for version in self.plan.versions:
            room = await self.life.make_room(self.rng.choice(people), version)
            for person in people:
                if person.user_id != room.creator and self.rng.random() < 0.7:
                    path = f"/join/{quote(room.room_id)}?server_name={room.home}&via={room.home}"
                    await person.request("POST", path, {})
        await trio.sleep(5)

    async def _quarrel(self) -> None:
        """Two people of different servers set the topic; one has left the room since, with a clock
        that is ahead.  The branches meet again: nobody has revoked the topic of the one who left,
        which counts by version 2.1 of state resolution, and does not by version 2 ([A6.07], T020).
        """
        room = self.life.rooms[0]
        others = [person for person in self.life.people if str(person.node.name) != room.home]
        gone = others[0]
        stays = next(person for person in others if person.node is not gone.node)
        for person in (gone, stays):
            await self.life.join(person, room, room.home)
        await trio.sleep(5)
        creator = next(p for p in self.life.people if p.user_id == room.creator)
        levels = {"users": {p.user_id: 50 for p in self.life.people if p is not creator}}
        if room.version != "12":
            levels["users"][creator.user_id] = 100
        await self.life.set_levels(creator, room, levels)
        await trio.sleep(5)
        gone.node.clock.step(2 * HOUR_MS)
        await self.life.act(gone, self.rng, "topic", room)
        await self.life.act(gone, self.rng, "leave", room)
        gone.node.clock.step(-2 * HOUR_MS)
        await trio.sleep(5)
        self.network.partition({stays.node.name})
        await self.life.act(stays, self.rng, "topic", room)
        await self.life.act(creator, self.rng, "say", room)
        await trio.sleep(5)
        self.network.heal()
        await self.life.act(stays, self.rng, "say", room)
        await trio.sleep(5)

    async def _exchange_keys(self) -> None:
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    await node.services.federation.keyring.refresh(other.name)

    def _node(self, number: int) -> Node:
        """A server; the last one is the liar, if there is one."""
        name = ServerName(f"{'abcde'[number]}.test")
        about = (
            name,
            self.folder / f"{number}",
            self.network,
            random.Random(self.rng.random()),
            SimulatedClock(1_700_000_000_000 + self.rng.choice([0, 0, -90_000, HOUR_MS])),
        )
        if self.plan.liar and number == self.plan.servers - 1:
            return Liar(*about, lies=random.Random(self.rng.random()))
        return Node(*about)

    @property
    def honest(self) -> list[Node]:
        """All servers but the liar."""
        return [node for node in self.nodes if node.is_honest]

    def _cause_trouble(self, trouble: trio.Nursery, nursery: trio.Nursery) -> None:
        plan, rng = self.plan, self.rng
        self.network.weather = plan.weather
        for watcher in self.watchers:
            seed = rng.random()
            trouble.start_soon(self._live, watcher, random.Random(seed))
        length = plan.actions * plan.pause_s
        for node in self.nodes:
            if isinstance(node, Liar):
                ids = [room.room_id for room in self.life.rooms]
                trouble.start_soon(lie, node, ids, plan.actions, plan.pause_s)
        for _ in range(plan.partitions):
            trouble.start_soon(self._cut, rng.uniform(0, length), rng.uniform(5, length))
        # Each server is restarted by one task only.
        for node in rng.sample(self.nodes, min(plan.restarts, len(self.nodes))):
            at, pause = rng.uniform(0, length), rng.choice([0.0, 5.0, 60.0])
            trouble.start_soon(self._restart, node, at, pause, rng.random() < 0.5, nursery)

    async def _live(self, watcher: Watcher, rng: random.Random) -> None:
        for _ in range(self.plan.actions):
            await trio.sleep(rng.expovariate(1 / self.plan.pause_s))
            if watcher.person.node.is_up:
                await self.life.act(watcher.person, rng)
            if rng.random() < 0.5:
                await watcher.sync()

    async def _cut(self, at_s: float, for_s: float) -> None:
        await trio.sleep(at_s)
        names = [node.name for node in self.nodes]
        group = set(self.rng.sample(names, self.rng.randint(1, len(names) - 1)))
        before = set(self.network.cut)
        # Often the liar is the only one who still reaches both sides.
        liars = {node.name for node in self.nodes if not node.is_honest}
        self.network.partition(group, liars if self.rng.random() < 0.5 else set())
        await trio.sleep(for_s)
        self.network.cut = before & self.network.cut
        self.trace.note("joined again", *sorted(group))

    async def _restart(
        self, node: Node, at_s: float, pause_s: float, kill: bool, nursery: trio.Nursery
    ) -> None:
        await trio.sleep(at_s)
        await (node.kill() if kill else node.stop())
        await trio.sleep(pause_s)
        await node.start(nursery)

    async def _heal(self, nursery: trio.Nursery) -> None:
        self.network.heal()

    # --- agreement

    async def _settle(self) -> None:
        """Wait until all agree; now and then somebody says something, which joins branches."""
        healed = trio.current_time()
        turn = 0
        while True:
            await trio.sleep(LOOK_EVERY_S)
            differences = list(self.differences()) or list(self.wrong_states())
            if not differences:
                self.agreed_after_s = trio.current_time() - healed
                self.trace.note("agreed")
                return
            if trio.current_time() - healed > AGREED_WITHIN_S:
                raise Wrong("no agreement:\n" + "\n".join(differences))
            for room in self.life.rooms:
                round_, number = divmod(turn, len(self.honest))
                await self._say_something(room, self.honest[number], first=round_)
            turn += 1

    async def _say_something(self, room: Room, node: Node, *, first: int) -> None:
        """The people of a server by turns: others may have put out one of them, and not all."""
        people = [
            person
            for person in self.life.people
            if person.node is node and look(node, room.room_id).is_joined(person.user_id)
        ]
        for index in range(len(people)):
            person = people[(first + index) % len(people)]
            try:
                await self.life.do_say(person, room, person, self.rng)
            except Failed:
                continue
            return

    def residents(self, room: Room) -> list[tuple[Node, Look]]:
        """The honest servers that are in a room by what they know."""
        looks = [(node, look(node, room.room_id)) for node in self.nodes]
        all_inside = [(node, seen) for node, seen in looks if seen.has_joined(str(node.name))]
        inside = [(node, seen) for node, seen in all_inside if node.is_honest]
        # Who has nobody else to ask is at the mercy of what the liar's server itself has resolved.
        others = inside if len(inside) > 1 else all_inside
        return [
            (node, seen)
            for node, seen in inside
            if not any(parted_unheard(str(node.name), seen, other) for _, other in others)
        ]

    def differences(self) -> Iterator[str]:
        """What the servers of a room do not agree on."""
        for room in self.life.rooms:
            residents = self.residents(room)
            yield from self._lost(room)
            for node, seen in residents:
                if seen.is_partial:
                    yield f"{node.name} does not know all of {room.room_id} yet"
            if not residents:
                continue
            (first, seen), *others = residents
            there = {str(node.name) for node, _ in residents}
            honest = {str(node.name) for node in self.honest}
            # A liar with power over the room can part a server from it, which then hears no more.
            for server in sorted((seen.servers() & honest) ^ there) if not self.plan.liar else ():
                known = sorted(seen.servers())
                yield f"{room.room_id}: is {server} in it? {first.name} knows of {known}"
            for node, other in others:
                if seen.extremities != other.extremities:
                    if not self._are_apart(room, (first, seen), (node, other)):
                        continue
                    yield (
                        f"{room.room_id} ({room.version}): {first.name} ends at "
                        f"{sorted(seen.extremities)}, {node.name} at {sorted(other.extremities)}"
                    )
                for key in sorted({**seen.state, **other.state}):
                    if seen.state.get(key) != other.state.get(key):
                        yield (
                            f"{room.room_id} ({room.version}): {key} is {seen.state.get(key)} on "
                            f"{first.name}, {other.state.get(key)} on {node.name}"
                        )

    def _are_apart(self, room: Room, one: tuple[Node, Look], other: tuple[Node, Look]) -> bool:
        """Whether two servers end elsewhere by more than what one of them cannot join."""
        return any(
            mine.extremities - theirs.extremities
            and not cannot_speak(str(node.name), mine, room.version)
            for (node, mine), (_, theirs) in ((one, other), (other, one))
        )

    # --- the last checks

    async def _check(self) -> None:
        """Raises Wrong."""
        for watcher in self.watchers:
            node = watcher.person.node
            rooms = [look(node, room.room_id) for room in self.life.rooms]
            # A client that begins anew is not shown a room whose members are on their way.
            if node.is_honest and not any(seen.is_partial for seen in rooms):
                difference = await watcher.compare()
                if difference is not None:
                    raise Wrong(f"the client of {watcher.person.user_id}: {difference}")

    def wrong_states(self) -> Iterator[str]:
        """Where the state of a server is not the reference's for its graph: what a liar has told
        of a state is compared with what happened as soon as that is here.

        Raises Wrong where an unauthorised event is in a current state.
        """
        for room in self.life.rooms:
            court = Court(room.version)
            residents = self.residents(room)
            for _, seen in residents:
                for event_id, pdu in seen.events.items():
                    court.take(event_id, pdu)
            for node, seen in residents:
                for key, event_id in seen.state.items():
                    objection = court.objection(event_id)
                    if objection is not None:
                        raise Wrong(f"{node.name} has {key} {event_id} in its state: {objection}")
            court.replay()
            for node, seen in residents:
                state = court.state_at(seen.extremities)
                if state is not None and state != seen.state:
                    both = {**state, **seen.state}
                    keys = sorted(key for key in both if state.get(key) != seen.state.get(key))
                    yield (
                        f"{node.name} by its own graph should have another state in {room.room_id} "
                        f"({room.version}): {keys}"
                    )
                self.trace.note(
                    "state", room.room_id, node.name, "checked" if state else "not complete"
                )

    def _lost(self, room: Room) -> Iterator[str]:
        """What was acknowledged, and is not where it was said, or did not get to all others."""
        everywhere = {str(node.name): look(node, room.room_id) for node in self.honest}
        for said in self.life.said:
            if said.room_id != room.room_id:
                continue
            if said.event_id not in everywhere[said.server].events:
                yield f"{said.server} has lost {said.event_id}"
            for server in said.residents:
                if server not in everywhere or said.event_id in everywhere[server].events:
                    continue
                if self._stayed(server, room, said):
                    yield f"{server} never got {said.event_id} of {said.server}"

    def _stayed(self, server: str, room: Room, said: Said) -> bool:
        """Whether a server is in the room, and has not come in since something was said."""
        came = any(
            each.server == server and each.room_id == room.room_id and each.at_s >= said.at_s
            for each in self.network.joins
        )
        return not came and any(str(node.name) == server for node, _ in self.residents(room))
