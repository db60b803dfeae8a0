"""Rooms whose events other servers made: built and signed by hand, handed to `ingest.receive`.

`Graph` is the model as well: for each event it knows the state before and after it and whether it
is rejected, which does not depend on who gets it when.  `Expected` adds what does: one server's
extremities, soft failures and current state, for one order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field

from matrixbox.core.auth import NotAllowed, check_auth, check_auth_events, select_auth_keys
from matrixbox.core.events import CREATE, Event, parse_event
from matrixbox.core.identifiers import EventId, RoomId, server_of
from matrixbox.core.resolve import resolve
from matrixbox.core.room_versions import ROOM_VERSIONS, RoomRules
from matrixbox.core.signing import SigningKey, citation, hash_and_sign_event
from matrixbox.rooms import arrival, ingest
from matrixbox.rooms.commit import Candidate
from matrixbox.store import events, names, rooms
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from matrixbox.store.nids import RoomNid
from tests.rooms.house import House

Key = tuple[str, str]
State = dict[Key, EventId]

CREATOR = "@creator:far.test"


def key_of(server: str) -> SigningKey:
    """Each server's own signing key."""
    return SigningKey("far", server.encode().ljust(32, b".")[:32])


@define(eq=False)
class Graph:
    """One room's events, as all its servers together made them."""

    version: str
    name: str = "room"
    creator: str = CREATOR
    rules: RoomRules = field(init=False)
    room_id: RoomId = field(init=False)
    events: dict[EventId, Event] = field(factory=dict)
    before: dict[EventId, State] = field(factory=dict)
    after: dict[EventId, State] = field(factory=dict)
    rejected: set[EventId] = field(factory=set)
    rejected_by_auth: set[EventId] = field(factory=set)
    now_ms: int = 1_700_000_000_000
    beginning: int = 0  # events that all servers have before anything happens

    def __attrs_post_init__(self) -> None:
        self.rules = ROOM_VERSIONS[self.version]
        self.room_id = RoomId(f"!{self.name}:{server_of(self.creator)}")

    # --- making events

    def pdu(
        self,
        kind: str,
        sender: str,
        content: Mapping[str, Any],
        key: str | None,
        prev: Sequence[Event],
        auth: Sequence[Event],
        **fields: Any,
    ) -> dict[str, Any]:
        """An event before it is signed; `fields` overrides, None takes a field away."""
        self.now_ms += 1000
        pdu: dict[str, Any] = {
            "type": kind,
            "room_id": self.room_id,
            "sender": sender,
            "content": dict(content),
            "origin_server_ts": self.now_ms,
            "depth": 1 + max((parent.depth for parent in prev), default=0),
            "prev_events": [citation(parent) for parent in prev],
            "auth_events": [citation(event) for event in auth],
        }
        if key is not None:
            pdu["state_key"] = key
        if self.rules.event_id_in_pdu:
            pdu["event_id"] = f"${self.name}{self.now_ms}:{server_of(sender)}"
        if kind == "m.room.create" and self.rules.room_id_is_create_hash:
            del pdu["room_id"]
        pdu.update(fields)
        return {name: value for name, value in pdu.items() if value is not None}

    def make(
        self,
        kind: str,
        sender: str,
        content: Mapping[str, Any],
        key: str | None = None,
        *,
        prev: Sequence[Event] | None = None,
        auth: Sequence[Event] | None = None,
        **fields: Any,
    ) -> Event:
        """Build and sign an event, after the newest one unless parents are given, and judge it."""
        parents = [self.last()] if prev is None else list(prev)
        if auth is None:
            auth = self.cited(kind, sender, key, content, self.state_before(parents))
        pdu = self.pdu(kind, sender, content, key, parents, auth, **fields)
        server = server_of(pdu["sender"])
        return self.add(parse_event(self.rules, self.signed(pdu, server)))

    def signed(self, pdu: Mapping[str, Any], *servers: str) -> dict[str, Any]:
        """Hashed, and signed by these servers."""
        made = dict(pdu)
        signatures: dict[str, Any] = {}
        for server in servers:
            made = hash_and_sign_event(self.rules, pdu, server, key_of(server))
            signatures |= made["signatures"]
        return made | {"signatures": signatures}

    def add(self, event: Event) -> Event:
        """Take an event into the model."""
        self.events[event.event_id] = event
        before = self.state_before([self.events[i] for i in event.prev_event_ids])
        self.before[event.event_id] = before
        self._judge(event, before)
        after = dict(before)
        if event.state_key is not None and event.event_id not in self.rejected:
            after[event.type, event.state_key] = event.event_id
        self.after[event.event_id] = after
        return event

    def cited(
        self, kind: str, sender: str, key: str | None, content: Mapping[str, Any], state: State
    ) -> list[Event]:
        """What auth events selection names in a state."""
        keys = select_auth_keys(self.rules, kind, sender, key, content)
        return [self.events[state[found]] for found in keys if found in state]

    def last(self) -> Event:
        """The newest event."""
        return next(reversed(self.events.values()))

    def begin(self, *members: str, join_rule: str = "public", **levels: Any) -> None:
        """A room with a creator and members, who have the levels given as `users`."""
        content: dict[str, Any] = {"room_version": self.version, "name": self.name}
        if not self.rules.creator_is_sender:
            content["creator"] = self.creator
        create = self.make("m.room.create", self.creator, content, "", prev=())
        self.room_id = create.room_id
        self.make("m.room.member", self.creator, {"membership": "join"}, self.creator)
        own = {} if self.rules.privileged_creators else {self.creator: 100}
        users = {**own, **levels.pop("users", {})}
        self.make("m.room.power_levels", self.creator, {"users": users, **levels}, "")
        self.make("m.room.join_rules", self.creator, {"join_rule": join_rule}, "")
        for member in members:
            self.make("m.room.member", member, {"membership": "join"}, member)

    # --- the model

    def state_before(self, parents: Iterable[Event]) -> State:
        """The resolution of the states after some events."""
        return self.resolved([self.after[parent.event_id] for parent in parents])

    def resolved(self, states: Sequence[State]) -> State:
        """The resolution of some states."""
        if not states:
            return {}
        create = next(iter(self.events))
        return resolve(self.rules, states, self, create)

    def allows(self, event: Event, state: State) -> bool:
        """Whether a state allows an event."""
        try:
            check_auth(self.rules, event, {key: self.events[i] for key, i in state.items()})
        except NotAllowed:
            return False
        return True

    def _judge(self, event: Event, before: State) -> None:
        auth = [self.events[i] for i in event.auth_event_ids]
        create = next(iter(self.events.values()))
        state = {(e.type, e.state_key or ""): e.event_id for e in auth}
        if self.rules.room_id_is_create_hash and event is not create:
            state.setdefault(CREATE, create.event_id)
        try:
            check_auth_events(self.rules, event, auth, self.rejected.__contains__, create)
            allowed = self.allows(event, state)
        except NotAllowed:
            allowed = False
        if not allowed:
            self.rejected_by_auth.add(event.event_id)
        if not allowed or not self.allows(event, before):
            self.rejected.add(event.event_id)

    # --- what core.resolve asks

    def event(self, event_id: EventId) -> Event | None:
        """An event by its name."""
        return self.events.get(event_id)

    def auth_event_ids(self, event_id: EventId) -> Sequence[EventId]:
        """The auth events of an event."""
        return self.events[event_id].auth_event_ids

    def is_rejected(self, event_id: EventId) -> bool:
        """Whether an event failed against its own auth events."""
        return event_id in self.rejected_by_auth

    # --- handing over

    async def deliver(self, house: House, *events: Event) -> list[StoredEvent]:
        """Let a household receive events, in this order."""
        return [await house.write(receive, self.version, event) for event in events]

    async def deliver_all(self, house: House) -> RoomNid:
        """Let a household receive everything, in the order of making; the room's number."""
        await self.deliver(house, *self.events.values())
        return self.room_in(house)

    def room_in(self, house: House) -> RoomNid:
        """The room's number in a household."""
        found = house.store.read(names.room_nid, self.room_id)
        assert found is not None
        return found


def receive(tx: Any, env: Any, version: str, event: Event) -> StoredEvent:
    """What the federation will do with an event whose hash and signatures are good."""
    room = names.room_nid(tx, event.room_id)
    if room is None:
        room = rooms.add(tx, event.room_id, version)
    cited = []
    for ids in (event.prev_event_ids, event.auth_event_ids):
        found = [events.by_id(tx, event_id) for event_id in ids]
        assert None not in found, "what an event cites has to be here before it"
        cited.append(found)
    return ingest.receive(tx, env, Candidate(event, room, event.rules, cited[0], cited[1]))


def arrive(
    tx: Any,
    env: Any,
    *,
    graph: Graph,
    ours: Event,
    with_members: bool = True,
    unseen: Sequence[Event] = (),
) -> RoomNid:
    """Come into a room by a join of ours; what is older is state or auth chain, or unseen."""
    room = arrival.begin(tx, env, graph.room_id, graph.rules)
    older = [one for one in graph.events.values() if one.depth < ours.depth and one not in unseen]
    arrival.admit(tx, env, room, graph.rules, older, set())
    state = {
        names.slot_nid(tx, key): events.nid_of(tx, name)
        for key, name in graph.before[ours.event_id].items()
        if with_members or key[0] != "m.room.member"
    }
    far = server_of(graph.creator)
    left_out = None if with_members else arrival.Partial(far, (far,))
    arrival.finish(tx, env, room, arrival.Arrived(ours, state, far, left_out))
    return room


@define(eq=False)
class Expected:
    """What a server should know after getting some of a graph's events in some order."""

    graph: Graph
    extremities: list[EventId] = field(factory=list)
    soft_failed: set[EventId] = field(factory=set)
    current: State = field(factory=dict)

    def get(self, event: Event) -> None:
        """The server gets an event."""
        graph, event_id = self.graph, event.event_id
        if event_id in graph.rejected:
            return
        if self.extremities and not graph.allows(event, self.current):
            self.soft_failed.add(event_id)
            return
        behind = self._behind(event)
        self.extremities = [one for one in self.extremities if one not in behind] + [event_id]
        self.current = graph.resolved([graph.after[one] for one in self.extremities])

    def _behind(self, event: Event) -> set[EventId]:
        """The parents, and those of parents that failed."""
        found: set[EventId] = set()
        to_look_at = list(event.prev_event_ids)
        while to_look_at:
            event_id = to_look_at.pop()
            if event_id not in found:
                found.add(event_id)
                if event_id in self.graph.rejected | self.soft_failed:
                    to_look_at += self.graph.events[event_id].prev_event_ids
        return found

    def status(self, event: Event) -> Status:
        """The verdict on an event."""
        status = Status.ACCEPTED
        if event.event_id in self.graph.rejected:
            status |= Status.REJECTED
        if event.event_id in self.graph.rejected_by_auth:
            status |= Status.REJECTED_BY_AUTH
        if event.event_id in self.soft_failed:
            status |= Status.SOFT_FAILED
        return status
