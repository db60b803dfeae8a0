"""A client's memory of what `/sync` told it, and how to check that memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field

from matrixbox.core.filters import Filter, parse_filter
from matrixbox.core.identifiers import RoomId, UserId
from matrixbox.e2ee import device_keys
from matrixbox.rooms.reading import Reader, ignored_users
from matrixbox.rooms.timeline import page
from matrixbox.rooms.tokens import Place, SyncToken
from matrixbox.store import members, names
from matrixbox.store.caches import Session
from matrixbox.store.database import Store
from matrixbox.sync.building import SyncRequest
from matrixbox.sync.v3 import SyncService

Key = tuple[str, str]


@asynccontextmanager
async def waiting(timeout_s: float) -> AsyncIterator[trio.CancelScope]:
    """Wait at most so long."""
    with trio.move_on_after(timeout_s) as scope:
        yield scope


@define
class RoomMemory:
    """One joined room as the client knows it."""

    state: dict[Key, str] = field(factory=dict)  # event ids
    timeline: list[str] = field(factory=list)  # event ids, without a gap
    receipts: dict[tuple[str, str, str], str] = field(factory=dict)
    typing: list[str] = field(factory=list)
    account_data: dict[str, Any] = field(factory=dict)
    counts: dict[str, int] = field(factory=dict)
    summary: dict[str, Any] = field(factory=dict)


@define
class Client:
    """A device that syncs; `errors` must stay empty."""

    store: Store
    service: SyncService
    who: Session
    state_after: tuple[str, ...] = ()
    filter: Filter = field(factory=lambda: parse_filter({"room": {"timeline": {"limit": 4}}}))
    since: str | None = None
    rooms: dict[str, RoomMemory] = field(factory=dict)
    invites: dict[str, Any] = field(factory=dict)
    account_data: dict[str, Any] = field(factory=dict)
    keys: dict[str, Any] = field(factory=dict)  # of the devices of those who are followed
    messages: list[Any] = field(factory=list)

    async def sync(self, timeout_s: float = 0, *, full_state: bool = False) -> dict[str, Any]:
        """One call, taken into memory."""
        since = None if self.since is None else SyncToken.parse(self.since)
        request = SyncRequest(self.who, since, self.filter, timeout_s, full_state, self.state_after)
        answer: dict[str, Any] = json.loads(await self.service.sync(request, waiting))
        self._take(answer, self.since)
        self._take_keys(answer)
        self.since = answer["next_batch"]
        return answer

    def _take(self, answer: dict[str, Any], since: str | None) -> None:
        for event in answer.get("account_data", {}).get("events", []):
            self.account_data[event["type"]] = event["content"]
        rooms = answer.get("rooms", {})
        for room_id, section in rooms.get("invite", {}).items():
            self.rooms.pop(room_id, None)
            self.invites[room_id] = section["invite_state"]["events"]
        for room_id, section in rooms.get("leave", {}).items():
            self.rooms.pop(room_id, None)
            self.invites.pop(room_id, None)
            self._take_left(section)
        for room_id, section in rooms.get("join", {}).items():
            self.invites.pop(room_id, None)
            self._take_room(room_id, section, since)

    def _take_left(self, section: dict[str, Any]) -> None:
        assert section["timeline"]["events"], "a left room shows at least the leave"

    def _take_keys(self, answer: dict[str, Any]) -> None:
        """Follow the devices of those with whom a room is shared, as a client that encrypts."""
        self.messages += answer.get("to_device", {}).get("events", [])
        if self.since is None:
            changed, left = self.sharing(), set()
        else:
            lists = answer.get("device_lists", {"changed": [], "left": []})
            changed, left = set(lists["changed"]) - {self.who.user_id}, set(lists["left"])
            assert not changed & left
            assert left <= set(self.keys), "nobody is let go who was not followed"
        for user_id in left:
            del self.keys[user_id]
        for user_id in changed:
            self.keys[user_id] = self.keys_of(user_id)

    def keys_of(self, user_id: str) -> Any:
        """The devices of a user now."""
        found = self.store.read(device_keys.local, {UserId(user_id): []}, self.who.user)
        return found.devices

    def sharing(self) -> set[str]:
        """With whom a room is shared now."""

        def read(tx: Any) -> set[str]:
            users = members.sharing(tx, self.who.user) - {self.who.user}
            return {names.user_id(tx, user) for user in users}

        return self.store.read(read)

    def _take_room(self, room_id: str, section: dict[str, Any], since: str | None) -> None:
        new = room_id not in self.rooms
        memory = self.rooms.setdefault(room_id, RoomMemory())
        events = section["timeline"]["events"]
        if self.state_after:
            assert "state" not in section
            for name in self.state_after:
                after = section[name]["events"]
            self._take_state(memory, after)
        else:
            self._take_state(memory, section["state"]["events"])
            self._take_state(memory, [event for event in events if "state_key" in event])
        arrived = [event["event_id"] for event in events]
        if section["timeline"]["limited"]:
            until = None if new else since
            arrived = self._gap(room_id, section["timeline"]["prev_batch"], until) + arrived
        twice = set(arrived) & set(memory.timeline)
        assert not twice, f"shown twice: {twice}"
        memory.timeline += arrived
        for event in section.get("ephemeral", {}).get("events", []):
            if event["type"] == "m.typing":
                memory.typing = sorted(event["content"]["user_ids"])
            else:
                self._take_receipts(memory, event["content"])
        for event in section["account_data"]["events"]:
            memory.account_data[event["type"]] = event["content"]
        memory.counts = section["unread_notifications"]
        memory.summary |= section.get("summary", {})

    def _take_state(self, memory: RoomMemory, events: list[dict[str, Any]]) -> None:
        for event in events:
            memory.state[event["type"], event["state_key"]] = event["event_id"]

    def _take_receipts(self, memory: RoomMemory, content: dict[str, Any]) -> None:
        for event_id, kinds in content.items():
            for kind, users in kinds.items():
                for user, data in users.items():
                    memory.receipts[kind, user, data.get("thread_id", "")] = event_id

    def _gap(self, room_id: str, prev_batch: str, since: str | None) -> list[str]:
        """What lies between two tokens, by paging back as a client would."""

        def read(tx: Any) -> list[str]:
            room = names.room_nid(tx, RoomId(room_id))
            assert room is not None
            reader = Reader(tx, room, self.who.user, 0, None, ignored_users(tx, self.who.user))
            start: Place | None = Place.parse(prev_batch)
            until = None if since is None else Place.parse(since)
            found: list[str] = []
            while start is not None:
                part = page(reader, start, until, 3, lambda _: True, back=True)
                found += [stored.event.event_id for stored in part.events]
                start = part.end
            return found[::-1]

        return self.store.read(read)

    def knows_the_same_as(self, other: Client) -> None:
        """Assert that a client that began anew knows just the same."""
        assert self.account_data == other.account_data
        assert self.keys == {user_id: self.keys_of(user_id) for user_id in self.sharing()}
        assert set(self.rooms) == set(other.rooms)
        assert self.invites == other.invites
        for room_id, mine in self.rooms.items():
            theirs = other.rooms[room_id]
            assert mine.state == theirs.state, room_id
            assert mine.receipts == theirs.receipts
            assert mine.typing == theirs.typing
            assert mine.account_data == theirs.account_data
            assert mine.counts == theirs.counts
            for key, value in theirs.summary.items():
                assert mine.summary[key] == value, (room_id, key)
            assert mine.timeline == self._history_from(room_id, mine.timeline[0])

    def _history_from(self, room_id: str, first: str) -> list[str]:
        """All that the user may see of a room, from an event on."""
        newest = str(Place(self.store.doorbell.position, 0))
        history = self._gap(room_id, newest, None)
        return history[history.index(first) :]
