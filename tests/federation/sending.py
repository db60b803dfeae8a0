"""A household, and other servers that only take transactions: nothing waits in real time.

async with sending() as world:
    room = await world.room("far.test", "other.test")
    await world.say(room)
    await trio.sleep(1)
    assert world.peers["far.test"].events == [...]
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import trio.testing
from attrs import define, evolve, field

from matrixbox.core.identifiers import EventId, ServerName, UserId, server_of
from matrixbox.errors import RemoteUnreachable
from matrixbox.federation.client import FederationClient
from matrixbox.federation.destinations import Destinations
from matrixbox.federation.sender import Sender
from matrixbox.federation.transport import Answer, Limits, Request
from matrixbox.rooms import build, ingest, receipts
from matrixbox.rooms.build import Citations, Draft
from matrixbox.rooms.commit import Candidate
from matrixbox.rooms.env import Env
from matrixbox.rooms.state import CurrentState
from matrixbox.store import events, names, outbound, rooms
from matrixbox.store.caches import Session, StoredEvent
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx
from tests.rooms.far import key_of
from tests.rooms.house import House, open_house

Body = dict[str, Any]


@define(eq=False)
class Peer:
    """Another server: what it was sent, and how it behaves."""

    name: str
    up: bool = True
    takes_s: float = 0.0
    answer: Callable[[Body], tuple[int, Body]] = lambda _: (200, {"pdus": {}})
    asked: list[tuple[float, str]] = field(factory=list)  # every request: when, and its last part
    taken: dict[str, Body] = field(factory=dict)  # by the transaction's identifier
    at_once: int = 0

    @property
    def pdus(self) -> list[Body]:
        """All PDUs that it took, in order, repeated ones too."""
        return [pdu for body in self.taken.values() for pdu in body["pdus"]]

    @property
    def texts(self) -> list[str]:
        """The texts of the messages that it took."""
        return [pdu["content"]["body"] for pdu in self.pdus if pdu["type"] == "m.room.message"]

    def edus(self, kind: str) -> list[Body]:
        """The contents of the EDUs of a type that it took."""
        return [
            edu["content"]
            for body in self.taken.values()
            for edu in body.get("edus", ())
            if edu["edu_type"] == kind
        ]

    async def take(self, request: Request) -> Answer:
        """What it does with a transaction."""
        assert request.method == "PUT"
        name = request.target.rsplit("/", 1)[1]
        self.asked.append((trio.current_time(), name))
        assert self.at_once == 0, "a second transaction at the same time"
        self.at_once += 1
        try:
            await trio.sleep(self.takes_s)
            if not self.up:
                raise RemoteUnreachable(self.name, "it is down")
            body = json.loads(request.body)
            status, said = self.answer(body)
            if status == 200:
                if name in self.taken:  # it answers as before, whatever is in it
                    same = ("pdus", "edus")
                    assert all(self.taken[name].get(k) == body.get(k) for k in same)
                self.taken.setdefault(name, body)
            return Answer(status, {}, json.dumps(said).encode())
        finally:
            self.at_once -= 1


@define(eq=False)
class Peers(dict[str, Peer]):
    """All other servers; one that is not known is made."""

    most_at_once: int = 0
    _now: int = 0

    def __missing__(self, name: str) -> Peer:
        self[name] = Peer(name)
        return self[name]

    async def exchange(self, server: ServerName, request: Request, limits: Limits) -> Answer:
        """The transport."""
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await trio.lowlevel.checkpoint()
            with trio.fail_after(limits.total_s):
                return await self[server].take(request)
        except trio.TooSlowError as error:
            raise RemoteUnreachable(server, "too slow") from error
        finally:
            self._now -= 1

    def stream(self, *_: Any) -> Any:
        """Nothing here asks for streams."""
        raise AssertionError


@define(eq=False)
class World:
    """A household with its sender, and the servers that it sends to."""

    house: House
    peers: Peers
    nursery: trio.Nursery
    path: Path | None = None
    longest_s: float = 86_400.0
    ann: Session = field(init=False)
    destinations: Destinations = field(init=False)
    sender: Sender = field(init=False)
    _running: trio.CancelScope | None = None
    _stopped: trio.Event = field(factory=trio.Event)

    async def begin(self) -> None:
        """A household with one user."""
        self.ann = await self.house.user("ann")
        self.start()

    def start(self) -> None:
        """Begin to send."""
        env, store = self.house.env, self.house.store
        self.destinations = Destinations(store, env.clock, self.longest_s)
        self.destinations.load()
        client = FederationClient(env.server_name, env.key, self.peers, self.destinations)
        self.sender = Sender(store, env, client, self.destinations)
        env.typing.on_change = self.sender.typing
        self._stopped = trio.Event()
        self.nursery.start_soon(self._run)

    async def _run(self) -> None:
        with trio.CancelScope() as self._running:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.destinations.run)
                nursery.start_soon(self.sender.run)
        self._stopped.set()

    async def stop(self) -> None:
        """End the sender in an orderly way."""
        await trio.testing.wait_all_tasks_blocked()
        assert self._running is not None
        self._running.cancel()
        await self._stopped.wait()

    async def restart(self) -> None:
        """The server is stopped in an orderly way and starts again."""
        await self.stop()
        self._open(self.path)

    async def kill(self) -> None:
        """The server is killed, and starts again with what was on the disk then."""
        assert self.path is not None
        copy = self.path.with_name(self.path.name + "_")
        for end in ("", "-wal"):
            shutil.copy(f"{self.path}{end}", f"{copy}{end}")
        await self.stop()
        self._open(copy)

    def _open(self, path: Path | None) -> None:
        before, self.path = self.house, path
        before.store.close()
        self.house = open_house(path, clock=before.env.clock)
        self.house._transactions = before._transactions
        self.start()

    # --- rooms with users of others

    async def room(self, *servers: str, **wanted: Any) -> RoomNid:
        """A room of ours, with a user `@x` of each of these servers."""
        room = await self.house.room(self.ann, **({"preset": "public_chat"} | wanted))
        for server in servers:
            await self.comes(room, f"@x:{server}")
        return room

    async def comes(self, room: RoomNid, user: str) -> StoredEvent:
        """A user of another server joins."""
        return await self.from_afar(room, user, "m.room.member", {"membership": "join"}, user)

    async def from_afar(
        self, room: RoomNid, user: str, kind: str, content: Body, key: str | None = None
    ) -> StoredEvent:
        """An event of another server's user comes in."""
        server = server_of(UserId(user))
        env = evolve(self.house.env, server_name=server, key=key_of(server))
        draft = Draft(kind, UserId(user), content, key)
        stored: StoredEvent = await self.house.store.write(
            _receive, self.house.env, env, room, draft
        )
        assert not stored.status
        return stored

    async def say(self, room: RoomNid, text: str = "hello") -> EventId:
        """A message of our user; its name."""
        return (await self.house.say(self.ann, room, text)).event.event_id

    async def edu(self, server: str, kind: str, content: Body) -> None:
        """An EDU that must arrive."""
        await self.house.store.write(outbound.put_edu, ServerName(server), kind, content)

    async def read(
        self, kind: str, room: RoomNid, event_id: EventId, thread: str | None = None
    ) -> None:
        """Our user has read a room so far."""
        marks = receipts.Marks({kind: event_id}, thread)
        await self.house.write(receipts.mark, self.ann, room, marks)

    async def settle(self, seconds: float = 5.0) -> None:
        """Let time pass."""
        await trio.sleep(seconds)


def _receive(tx: Tx, env: Env, theirs: Env, room: RoomNid, draft: Draft) -> StoredEvent:
    rules, head, state = rooms.rules(tx, room), rooms.head(tx, room), CurrentState(tx, room)
    assert head is not None
    prev = [events.by_nid(tx, nid) for nid in head.extremities]
    auth = [s for key in build.auth_keys(rules, draft) if (s := state.stored(key)) is not None]
    event = build.build(theirs, rules, names.room_id(tx, room), draft, Citations(prev, auth))
    return ingest.receive(tx, env, Candidate(event, room, rules, prev, auth))


@asynccontextmanager
async def sending(path: Path | None = None, *, longest_s: float = 86_400.0) -> AsyncIterator[World]:
    """A world for one test."""
    async with trio.open_nursery() as nursery:
        world = World(open_house(path), Peers(), nursery, path, longest_s)
        await world.begin()
        try:
            yield world
        finally:
            with trio.CancelScope(shield=True):
                await world.stop()
            nursery.cancel_scope.cancel()
            world.house.store.close()
