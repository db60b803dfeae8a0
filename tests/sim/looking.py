"""What a server knows, read from its database, and what its clients know from syncing."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen

from matrixbox.core.identifiers import RoomId, server_of
from matrixbox.rooms.tokens import Place
from matrixbox.store import events, joins, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from tests.sim.life import Person
from tests.sim.node import Node
from tests.sync.client import Client

Key = tuple[str, str]


@frozen
class Look:
    """One room as one server has it."""

    extremities: frozenset[str]
    state: dict[Key, str]
    events: dict[str, dict[str, Any]]  # by id, as on the wire; those without a state too
    rooted: frozenset[str]  # those with a state, and those that led there before our time
    memberships: dict[str, str]
    soft_failed: frozenset[str]
    befores: dict[str, dict[Key, str]]  # the states before merges of branches
    is_partial: bool  # joined, and the members are on their way

    def is_joined(self, user_id: str) -> bool:
        """Whether the user is in the room."""
        return self.memberships.get(user_id) == "join"

    def servers(self) -> set[str]:
        """The servers of all who are in the room."""
        return {str(server_of(user)) for user in self.users()}

    def users(self) -> set[str]:
        """Those who are in the room."""
        return {user for user, word in self.memberships.items() if word == "join"}

    def has_joined(self, server: str) -> bool:
        """Whether anybody of a server is in the room."""
        return server in self.servers()


NOTHING = Look(frozenset(), {}, {}, frozenset(), {}, frozenset(), {}, False)


def look(node: Node, room_id: str) -> Look:
    """A room as a server has it now."""

    def read(tx: Any) -> Look:
        room = names.room_nid(tx, RoomId(room_id))
        head = None if room is None else rooms.head(tx, room)
        if room is None or head is None:
            return NOTHING
        state: dict[Key, str] = {}
        memberships: dict[str, str] = {}
        for slot, nid in rooms.current_state(tx, room).items():
            key = names.slot_key(tx, slot)
            event = events.by_nid(tx, nid).event
            state[key] = event.event_id
            if key[0] == "m.room.member":
                memberships[key[1]] = str(event.content.get("membership"))
        found: dict[str, dict[str, Any]] = {}
        soft_failed: set[str] = set()
        rooted: set[str] = set()
        placed: dict[str, StoredEvent] = {}
        for (nid,) in tx.run("SELECT nid FROM event WHERE room_nid = ? ORDER BY nid", room):
            stored = events.by_nid(tx, nid)
            found[stored.event.event_id] = dict(stored.event.json)
            if stored.snapshot is not None:
                placed[stored.event.event_id] = stored
            if stored.snapshot is not None or not stored.status & Status.FRESH:
                rooted.add(stored.event.event_id)
            if stored.status & Status.SOFT_FAILED:
                soft_failed.add(stored.event.event_id)
        befores = {
            event_id: _state(tx, placed[event_id].snapshot)
            for event_id in _complete(placed)
            if len(set(placed[event_id].event.prev_event_ids)) > 1
        }
        ends = frozenset(events.by_nid(tx, nid).event.event_id for nid in head.extremities)
        partial = joins.partial(tx, room) is not None
        return Look(
            ends,
            state,
            found,
            frozenset(rooted),
            memberships,
            frozenset(soft_failed),
            befores,
            partial,
        )

    return node.store.read(read)


def _state(tx: Any, snapshot: Any) -> dict[Key, str]:
    return {
        names.slot_key(tx, slot): events.by_nid(tx, nid).event.event_id
        for slot, nid in snapshots.state(tx, snapshot).items()
    }


def _complete(placed: Mapping[str, StoredEvent]) -> set[str]:
    """The events behind which a server misses nothing, so that no state was told to it."""
    found: set[str] = set()
    for event_id, stored in sorted(placed.items(), key=lambda item: item[1].nid):
        parents = stored.event.prev_event_ids
        if stored.event.type == "m.room.create" or (parents and found.issuperset(parents)):
            found.add(event_id)
    return found


class FarClient(Client):
    """A client that begins a room anew when it is told its whole state.

    That is how a server shows a room to somebody who has left it and come back to it by way of
    other servers; events from before may be shown again.
    """

    def _take_keys(self, answer: dict[str, Any]) -> None:
        """Device lists are another suite's matter."""

    def sharing(self) -> set[str]:
        """Nobody is followed."""
        return set()

    def _history_from(self, room_id: str, first: str) -> list[str]:
        """History that was found later stands in gaps which a client may have looked into before:
        it sees that when it looks there again."""
        seen = set(self.rooms[room_id].timeline)

        def later(tx: Any) -> set[str]:
            room = names.room_nid(tx, RoomId(room_id))
            rows = tx.run("SELECT event_id FROM event WHERE room_nid = ? AND sub < 0", room)
            return {event_id for (event_id,) in rows} - seen

        found = self.store.read(later)
        return [each for each in super()._history_from(room_id, first) if each not in found]

    def _take_left(self, section: dict[str, Any]) -> None:
        """State resolution can end a membership without any event."""

    def _take_room(self, room_id: str, section: dict[str, Any], since: str | None) -> None:
        if any(event["type"] == "m.room.create" for event in section["state_after"]["events"]):
            self.rooms.pop(room_id, None)
        self._drop_withdrawn(room_id, None if since is None else Place.parse(since).pos)
        super()._take_room(room_id, section, since)

    def _drop_withdrawn(self, room_id: str, since: int | None) -> None:
        """Forget events that were shown and hidden since, as states that were told turned out to
        be others; they may have come out once more, at a later place."""
        if room_id not in self.rooms:
            return

        def read(tx: Any) -> set[str]:
            room = names.room_nid(tx, RoomId(room_id))
            rows = tx.run(
                "SELECT event_id FROM event WHERE room_nid = ?"
                " AND (pos IS NULL OR (pos != nid AND sub = 0 AND pos > ?))",
                room,
                2**62 if since is None else since,
            )
            return {event_id for (event_id,) in rows}

        memory, withdrawn = self.rooms[room_id], self.store.read(read)
        memory.timeline = [each for each in memory.timeline if each not in withdrawn]

    def differs_from(self, other: Client) -> str | None:
        """What a client that began anew knows otherwise.

        That state resolution took something away without a successor cannot be told in /sync.
        """
        if set(self.rooms) != set(other.rooms):
            return f"in rooms {sorted(self.rooms)}, really {sorted(other.rooms)}"
        for room_id, mine in self.rooms.items():
            theirs = other.rooms[room_id]
            self._drop_withdrawn(room_id, None)
            mine.state = {key: told for key, told in mine.state.items() if key in theirs.state}
            for key in sorted(theirs.state):
                if mine.state.get(key) != theirs.state.get(key):
                    told, true = mine.state.get(key), theirs.state.get(key)
                    return f"{key} of {room_id} is {told}, really {true}"
        try:
            self.knows_the_same_as(other)
        except AssertionError as error:
            return f"{error} {traceback.extract_tb(error.__traceback__)[-1].line}"
        return None


@define(eq=False)
class Watcher:
    """A person's client, which keeps what it was told over restarts of the server."""

    person: Person
    client: FarClient | None = None
    syncs: int = field(default=0)

    async def sync(self) -> None:
        """One call, if the server is up."""
        node = self.person.node
        if not node.is_up:
            return
        if self.client is None:
            self.client = self._new()
        self.client.store, self.client.service = node.store, node.services.sync
        await self.client.sync()
        self.syncs += 1

    def _new(self) -> FarClient:
        node = self.person.node
        return FarClient(
            node.store,
            node.services.sync,
            self.person.account.session,
            state_after=("state_after",),
        )

    async def compare(self) -> str | None:
        """How the increments differ from what a client that begins anew is shown."""
        await self.sync()
        assert self.client is not None
        fresh = self._new()
        await fresh.sync()
        return self.client.differs_from(fresh)
