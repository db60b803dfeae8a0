"""A client's memory of what sliding sync told it, and how to check that memory."""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field

from matrixbox.api.client import sliding_body
from matrixbox.core.identifiers import EventId, RoomId
from matrixbox.rooms.reading import Reader, ignored_users
from matrixbox.rooms.timeline import page
from matrixbox.rooms.tokens import Place, SlidingToken
from matrixbox.store import events, members, names
from matrixbox.store.caches import Session
from matrixbox.store.database import Store
from matrixbox.store.memberships import Membership
from matrixbox.sync.sliding import SlidingService
from matrixbox.sync.sliding_request import Form, SlidingRequest
from matrixbox.sync.v3 import SyncService
from tests.sync.client import Client, RoomMemory, waiting

EVERYTHING = {
    Form.UNSTABLE: {"timeline_limit": 10, "required_state": [["*", "*"]]},
    Form.V4: {"timeline_limit": 10, "required_state": {"include": [{}]}},
}
ALL_EXTENSIONS = {
    name: {"enabled": True} for name in ("to_device", "e2ee", "account_data", "receipts", "typing")
}


@define(eq=False)
class SlidingClient:
    """A client that believes what it is told."""

    store: Store
    service: SlidingService
    who: Session
    form: Form = Form.UNSTABLE
    conn_id: str = "main"
    pos: str | None = None
    to_device: str | None = None
    rooms: dict[str, RoomMemory] = field(factory=dict)
    invites: dict[str, Any] = field(factory=dict)
    left: set[str] = field(factory=set)
    account_data: dict[str, Any] = field(factory=dict)
    room_data: dict[str, dict[str, Any]] = field(factory=dict)
    typing: dict[str, list[str]] = field(factory=dict)
    receipts: dict[str, dict[tuple[str, str, str], str]] = field(factory=dict)
    names: dict[str, Any] = field(factory=dict)
    messages: list[Any] = field(factory=list)
    keys: dict[str, Any] = field(factory=dict)  # of the devices of those who are followed

    def everything(self) -> dict[str, Any]:
        """The body that asks for all rooms and everything about them."""
        body = {"all": EVERYTHING[self.form]}
        return {"lists": body, "extensions": dict(ALL_EXTENSIONS)}

    async def ask(self, body: dict[str, Any] | None = None, timeout_s: float = 0) -> dict[str, Any]:
        """One call; the answer may be lost afterwards."""
        body = self.everything() if body is None else body
        extensions = dict(body.get("extensions", {}))
        if "to_device" in extensions and self.to_device is not None:
            extensions["to_device"] = {**extensions["to_device"], "since": self.to_device}
        me = self.who.user_id
        request = SlidingRequest(
            self.who,
            self.form,
            self.conn_id,
            self.pos,
            timeout_s,
            sliding_body.lists(body, self.form, me),
            sliding_body.subscriptions(body, self.form, me),
            sliding_body.extensions({"extensions": extensions}, self.form),
        )
        answer: dict[str, Any] = json.loads(await self.service.sync(request, waiting))
        return answer

    async def sync(
        self, body: dict[str, Any] | None = None, timeout_s: float = 0
    ) -> dict[str, Any]:
        """One call, taken into memory."""
        answer = await self.ask(body, timeout_s)
        self.take(answer)
        return answer

    async def until_quiet(self, body: dict[str, Any] | None = None) -> None:
        """Calls, until there is nothing more to tell."""
        for _ in range(50):
            answer = await self.sync(body)
            told = answer["extensions"].get("to_device", {}).get("events")
            if not answer["rooms"] and not told:
                return
        raise AssertionError("it never ends")

    # --- memory

    def take(self, answer: dict[str, Any]) -> None:
        """Believe an answer."""
        base = None if self.pos is None else SlidingToken.parse(self.pos)
        found = answer["extensions"]
        for room_id, section in answer["rooms"].items():
            self._take_room(room_id, section, 0 if base is None else base.pos)
        for event in found.get("account_data", {}).get("global", []):
            self.account_data[event["type"]] = event["content"]
        for room_id, data in found.get("account_data", {}).get("rooms", {}).items():
            into = self.room_data.setdefault(room_id, {})
            into.update({event["type"]: event["content"] for event in data})
        for room_id, event in found.get("typing", {}).get("rooms", {}).items():
            self.typing[room_id] = sorted(event["content"]["user_ids"])
        for room_id, event in found.get("receipts", {}).get("rooms", {}).items():
            self._take_receipts(room_id, event["content"])
        if "e2ee" in found:
            self._take_keys(found["e2ee"])
        if "to_device" in found:
            self.messages += found["to_device"]["events"]
            self.to_device = found["to_device"]["next_batch"]
        self.pos = answer["pos"]

    def _take_keys(self, found: dict[str, Any]) -> None:
        """Follow the devices of those with whom a room is shared, as a client that encrypts."""
        classic = self.classic
        if self.pos is None:
            changed, left = classic.sharing(), set()
        else:
            lists = found.get("device_lists", {"changed": [], "left": []})
            changed, left = set(lists["changed"]) - {self.who.user_id}, set(lists["left"])
            assert not changed & left
            assert left <= set(self.keys), "nobody is let go who was not followed"
        for user_id in left:
            del self.keys[user_id]
        for user_id in changed:
            self.keys[user_id] = classic.keys_of(user_id)

    @property
    def classic(self) -> Client:
        """A client of the same device on /sync, which knows nothing."""
        return Client(self.store, SyncService(self.store, self.service.env), self.who)

    def _take_room(self, room_id: str, section: dict[str, Any], base: int) -> None:
        stripped = section.get("invite_state", section.get("stripped_state"))
        self._shows_nothing_later(room_id, section)
        if stripped:
            self.rooms.pop(room_id, None)
            self.left.discard(room_id)
            self.invites[room_id] = stripped
            return
        self.invites.pop(room_id, None)
        if section.get("initial"):
            self.rooms.pop(room_id, None)
            self.names.pop(room_id, None)
            self.receipts.pop(room_id, None)
            self.typing.pop(room_id, None)
        new = room_id not in self.rooms
        assert not new or section.get("initial"), "a room begins with all of it"
        memory = self.rooms.setdefault(room_id, RoomMemory())
        for event in section.get("required_state", []):
            key = event["type"], event["state_key"]
            if "event_id" in event:
                memory.state[key] = event["event_id"]
                if key == ("m.room.member", self.who.user_id):
                    self._take_own(room_id, event["content"]["membership"])
            else:
                memory.state.pop(key, None)
        if "timeline" in section:
            self._take_timeline(room_id, memory, section, base)
        for name in ("name", "avatar", "heroes", "joined_count", "invited_count", "is_dm"):
            if name in section:
                self.names.setdefault(room_id, {})[name] = section[name]
        if "notification_count" in section:
            memory.counts = {
                name: section[name] for name in ("notification_count", "highlight_count")
            }

    def _take_own(self, room_id: str, membership: str) -> None:
        if membership == "join":
            self.left.discard(room_id)
        else:
            self.left.add(room_id)

    def _take_timeline(
        self, room_id: str, memory: RoomMemory, section: dict[str, Any], base: int
    ) -> None:
        arrived = [event["event_id"] for event in section["timeline"]]
        positions = [self._pos(event_id) for event_id in arrived]
        assert section["num_live"] == sum(bool(base) and pos > base for pos in positions)
        if section.get("unstable_expanded_timeline") or section.get("expanded_timeline"):
            memory.timeline = [one for one in memory.timeline if one not in arrived]
        twice = set(arrived) & set(memory.timeline)
        assert not twice, f"shown twice: {twice}"
        if section["limited"] and memory.timeline:
            history = self.history(room_id, section["prev_batch"])
            arrived = history[history.index(memory.timeline[-1]) + 1 :] + arrived
        memory.timeline += arrived

    def _take_receipts(self, room_id: str, content: dict[str, Any]) -> None:
        into = self.receipts.setdefault(room_id, {})
        for event_id, kinds in content.items():
            for kind, users in kinds.items():
                for user, data in users.items():
                    assert kind == "m.read" or user == self.who.user_id, "T108"
                    into[kind, user, data.get("thread_id", "")] = event_id

    # --- what is there

    def _pos(self, event_id: str) -> int:
        stored = self.store.read(events.by_id, EventId(event_id))
        assert stored is not None
        return stored.pos or 0

    def _shows_nothing_later(self, room_id: str, section: dict[str, Any]) -> None:
        """T105: nothing newer than the leave of somebody who is out."""
        room = self.store.read(names.room_nid, RoomId(room_id))
        assert room is not None
        member = self.store.read(members.get, room, self.who.user)
        assert member is not None, "a room that one has nothing to do with"
        if member.membership is not Membership.JOIN:
            shown = section.get("timeline", []) + section.get("required_state", [])
            for event in shown:
                if "event_id" in event:
                    assert self._pos(event["event_id"]) <= member.pos, event

    def history(self, room_id: str, until: str) -> list[str]:
        """All that the user may see of a room up to a token."""

        def read(tx: Any) -> list[str]:
            room = names.room_nid(tx, RoomId(room_id))
            assert room is not None
            reader = Reader(tx, room, self.who.user, 0, None, ignored_users(tx, self.who.user))
            start: Place | None = Place.parse(until)
            found: list[str] = []
            while start is not None:
                part = page(reader, start, None, 100, lambda _: True, back=True)
                found += [stored.event.event_id for stored in part.events]
                start = part.end
            return found[::-1]

        return self.store.read(read)

    @property
    def joined(self) -> set[str]:
        """The rooms that the user is in, as far as the client knows."""
        return set(self.rooms) - self.left
