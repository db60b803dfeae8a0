"""Other servers that answer about hand-built rooms: honestly, with lies, or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from matrixbox.core.events import Event, parse_event
from matrixbox.core.identifiers import EventId, ServerName
from matrixbox.core.signing import event_signature_valid, required_signers, signatures_by
from matrixbox.errors import RemoteRefused, RemoteUnreachable
from matrixbox.rooms.receiving import Receiver
from matrixbox.rooms.remote import Pdu, Signed, State, StateIds
from tests.rooms.far import Graph, key_of
from tests.rooms.house import House, household

FAR = ServerName("far.test")


@define(eq=False)
class FarVerifier:
    """Checks signatures with the keys of `far.key_of`, except of servers whose keys are lost."""

    lost: set[str] = field(factory=set)
    asked: int = 0
    never: bool = False  # says nothing until cancelled

    async def verify(self, rules: Any, pdus: Sequence[Pdu]) -> Sequence[Signed]:
        """As `rooms.remote.Verifier` says."""
        await trio.lowlevel.checkpoint()
        if self.never:
            await trio.sleep_forever()
        self.asked += len(pdus)
        return [self._verdict(rules, pdu) for pdu in pdus]

    def _verdict(self, rules: Any, pdu: Pdu) -> Signed:
        event = parse_event(rules, pdu, exempt_from_counts=True)
        verdict = Signed.VALID
        for server in required_signers(rules, event):
            if server in self.lost:
                verdict = Signed.UNKNOWN
                continue
            key = key_of(server)
            if key.key_id not in signatures_by(pdu, server) or not event_signature_valid(
                rules, pdu, server, key.key_id, key.verify_key
            ):
                return Signed.INVALID
        return verdict


Answer = Callable[..., Any]


@define(eq=False, slots=False)
class FarRemote:
    """Every other server knows all of the graphs, and answers by the specification.

    `down` does not answer; `withheld` are events that nobody gives; `lies` replace the answers of
    one call, by its name: they get the honest answer and the arguments.  With `liars`, only these
    servers lie.
    """

    graphs: list[Graph]
    down: set[str] = field(factory=set)
    withheld: set[str] = field(factory=set)
    lies: dict[str, Answer] = field(factory=dict)
    liars: set[str] = field(factory=set)
    delay_s: float = 0.01
    calls: Counter[str] = field(factory=Counter)
    log: list[tuple[str, str, str]] = field(factory=list)

    def _graph(self, room_id: str) -> Graph:
        for graph in self.graphs:
            if graph.room_id == room_id:
                return graph
        raise RemoteRefused("far", "no such room", status=404, errcode="M_NOT_FOUND")

    async def _begin(self, call: str, server: str, about: str) -> None:
        self.calls[call] += 1
        self.log.append((call, server, about))
        await trio.sleep(self.delay_s)
        if server in self.down:
            raise RemoteUnreachable(server, "no answer")

    def _told(self, call: str, server: str, honest: Any, *arguments: Any) -> Any:
        lie = self.lies.get(call)
        if lie is None or (self.liars and server not in self.liars):
            return honest
        return lie(honest, *arguments)

    def _given(self, graph: Graph, name: str) -> Event:
        found = graph.events.get(EventId(name))
        if found is None or name in self.withheld:
            raise RemoteRefused("far", "no such event", status=404, errcode="M_NOT_FOUND")
        return found

    async def event(self, server: ServerName, rules: Any, event_id: EventId) -> Pdu:
        """GET /event."""
        await self._begin("event", server, event_id)
        for graph in self.graphs:
            if event_id in graph.events:
                return self._told("event", server, self._given(graph, event_id).json, event_id)
        raise RemoteRefused(server, "no such event", status=404, errcode="M_NOT_FOUND")

    async def missing_events(
        self,
        server: ServerName,
        rules: Any,
        room_id: str,
        *,
        earliest: Sequence[EventId],
        latest: Sequence[EventId],
        limit: int,
        min_depth: int = 0,
    ) -> Sequence[Pdu]:
        """POST /get_missing_events: by breadth, latest first."""
        await self._begin("missing_events", server, " ".join(latest))
        graph = self._graph(room_id)
        found: dict[str, Event] = {}
        ahead = [p for name in latest if name in graph.events for p in _parents(graph, name)]
        while ahead and len(found) < limit:
            name = ahead.pop(0)
            if name in found or name in earliest or name in self.withheld:
                continue
            if name in graph.events and graph.events[name].depth >= min_depth:
                found[name] = graph.events[name]
                ahead.extend(_parents(graph, name))
        honest = [event.json for event in reversed(found.values())]
        return self._told("missing_events", server, honest, latest)

    async def state_ids(
        self, server: ServerName, rules: Any, room_id: str, at: EventId
    ) -> StateIds:
        """GET /state_ids."""
        await self._begin("state_ids", server, at)
        graph = self._graph(room_id)
        self._given(graph, at)
        state = tuple(graph.before[at].values())
        return self._told("state_ids", server, StateIds(state, tuple(chain(graph, state))), at)

    async def state(self, server: ServerName, rules: Any, room_id: str, at: EventId) -> State:
        """GET /state."""
        await self._begin("state", server, at)
        graph = self._graph(room_id)
        self._given(graph, at)
        state = tuple(graph.before[at].values())
        pdus = [
            tuple(graph.events[name].json for name in names if name not in self.withheld)
            for names in (state, chain(graph, state))
        ]
        return self._told("state", server, State(*pdus), at)

    async def event_auth(
        self, server: ServerName, rules: Any, room_id: str, event_id: EventId
    ) -> Sequence[Pdu]:
        """GET /event_auth."""
        await self._begin("event_auth", server, event_id)
        graph = self._graph(room_id)
        self._given(graph, event_id)
        names = chain(graph, [event_id])
        honest = [graph.events[name].json for name in names if name not in self.withheld]
        return self._told("event_auth", server, honest, event_id)

    async def backfill(self, *args: Any, **kwargs: Any) -> Sequence[Pdu]:
        """Not asked for when receiving."""
        raise AssertionError("receiving does not backfill")


def _parents(graph: Graph, name: str) -> Sequence[str]:
    return graph.events[EventId(name)].prev_event_ids


def chain(graph: Graph, names: Iterable[str]) -> list[EventId]:
    """The auth chain of some events."""
    found: dict[EventId, None] = {}
    ahead = list(names)
    while ahead:
        name = ahead.pop()
        for auth in graph.events[EventId(name)].auth_event_ids:
            if auth not in found and auth in graph.events:
                found[auth] = None
                ahead.append(auth)
    return list(found)


@define(eq=False)
class Far:
    """A household with a receiver that works, and the servers around it."""

    house: House
    remote: FarRemote
    verifier: FarVerifier
    receiver: Receiver

    async def receive(self, graph: Graph, *found: Event | Mapping[str, Any], by: str = FAR) -> Any:
        """Let a server send some events."""
        pdus = [one.json if isinstance(one, Event) else one for one in found]
        return await self.receiver.receive(ServerName(by), graph.room_id, pdus)

    async def later(self) -> None:
        """So much time goes by that states are believed where events cannot be had."""
        await trio.sleep(60)
        await self.receiver.settled()


@asynccontextmanager
async def far_household(
    *graphs: Graph, path: Path | None = None, policies: Any = None, working: bool = True
) -> AsyncIterator[Far]:
    """A household whose receiver runs, unless told otherwise."""
    async with household(path) as house:
        remote, verifier = FarRemote(list(graphs)), FarVerifier()
        receiver = Receiver(house.store, house.env, remote, verifier, policies)
        async with trio.open_nursery() as nursery:
            if working:
                nursery.start_soon(receiver.run)
            yield Far(house, remote, verifier, receiver)
            nursery.cancel_scope.cancel()
