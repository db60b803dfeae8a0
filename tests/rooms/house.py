"""A household in memory or in a file: the store, its rooms and accounts, without network or API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import define, evolve

from matrixbox.accounts import registration, sessions
from matrixbox.clock import SimulatedClock
from matrixbox.core.identifiers import EventId, RoomId, ServerName, UserId
from matrixbox.core.json import encode
from matrixbox.core.signing import SigningKey
from matrixbox.rooms import create, ingest, membership, resolution, sending, timeline
from matrixbox.rooms.env import Env
from matrixbox.rooms.formatting import Formatter
from matrixbox.rooms.reading import Reader, ignored_users
from matrixbox.rooms.tokens import Place
from matrixbox.rooms.typing import Typing
from matrixbox.store import accounts, events, names, rooms
from matrixbox.store.caches import Session, StoredEvent
from matrixbox.store.database import Store
from matrixbox.store.nids import RoomNid
from matrixbox.store.runner import Runner

SERVER = ServerName("home.test")
END = Place(2**52, 0)
BEGINNING = Place(0, 0)

Key = tuple[str, str]


class Undo(Exception):
    """Raised by a test to roll back what it tried."""


@define
class House:
    """One server's store with everything that rooms need."""

    store: Store
    env: Env
    _transactions: int = 0

    async def write(self, function: Callable[..., Any], *args: Any) -> Any:
        """A transaction function that takes the environment second."""
        return await resolution.write(self.store, function, self.env, *args)

    async def attempt(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a transaction function would return; nothing of it is kept.  Raises its errors."""
        found: list[Any] = []

        def trial(tx: Any) -> None:
            found.append(function(tx, self.env, *args))
            raise Undo

        try:
            await self.store.write(trial)
        except Undo:
            return found[0]

    # --- people

    async def user(self, localpart: str) -> Session:
        """A new account with one device."""

        def make(tx: Any) -> Session:
            _, signed_in = registration.register(
                tx, self.env.server_name, localpart, None, self.env.clock.now_ms(), (None, None)
            )
            assert signed_in is not None
            return sessions.authenticate(tx, signed_in.access_token)

        found: Session = await self.store.write(make)
        return found

    def account_count(self) -> int:
        """How many accounts there are."""
        return len(self.store.read(accounts.everybody))

    # --- rooms

    async def room(self, who: Session, **wanted: Any) -> RoomNid:
        """A new room; its number."""
        request = create.RoomRequest(**({"version": "12", "preset": "private_chat"} | wanted))
        room_id: RoomId = await self.write(create.create_room, who, request)
        nid = self.store.read(names.room_nid, room_id)
        assert nid is not None
        return nid

    def room_id(self, room: RoomNid) -> RoomId:
        """A room's name."""
        return self.store.read(names.room_id, room)

    async def say(self, who: Session, room: RoomNid, body: str, **content: Any) -> StoredEvent:
        """A message."""
        return await self.message(who, room, "m.room.message", {"body": body, **content})

    async def message(
        self, who: Session, room: RoomNid, kind: str, content: dict[str, Any]
    ) -> StoredEvent:
        """Any event that is not state."""
        stored: StoredEvent = await self.write(
            sending.send_message, who, room, kind, content, self.transaction(who)
        )
        return stored

    def transaction(self, who: Session, txn: str | None = None) -> ingest.Transaction:
        """A transaction identifier, a new one unless given."""
        if txn is None:
            self._transactions += 1
            txn = f"t{self._transactions}"
        return ingest.Transaction(who.device, txn.encode(), txn)

    async def set_state(
        self, who: Session, room: RoomNid, kind: str, key: str, content: dict[str, Any]
    ) -> StoredEvent:
        """State."""
        stored: StoredEvent = await self.write(sending.send_state, who, room, kind, key, content)
        return stored

    async def redact(
        self, who: Session, room: RoomNid, target: EventId, **content: Any
    ) -> StoredEvent:
        """A redaction."""
        stored: StoredEvent = await self.write(
            sending.redact, who, room, target, content, self.transaction(who)
        )
        return stored

    async def join(self, who: Session, room: RoomNid) -> None:
        """A join."""
        await self.write(membership.join, who, room)

    async def invite(self, who: Session, room: RoomNid, target: UserId) -> None:
        """An invitation."""
        await self.write(membership.invite, who, room, target, {})

    async def leave(self, who: Session, room: RoomNid) -> None:
        """A leave."""
        await self.write(membership.leave, who, room)

    async def kick(self, who: Session, room: RoomNid, target: UserId) -> None:
        """A kick."""
        await self.write(membership.kick, who, room, target, {})

    async def ban(self, who: Session, room: RoomNid, target: UserId) -> None:
        """A ban."""
        await self.write(membership.ban, who, room, target, {})

    async def unban(self, who: Session, room: RoomNid, target: UserId) -> None:
        """The end of a ban."""
        await self.write(membership.unban, who, room, target, {})

    async def knock(self, who: Session, room: RoomNid) -> None:
        """A knock."""
        await self.write(membership.knock, who, room)

    async def forget(self, who: Session, room: RoomNid) -> None:
        """Hide a room that was left."""
        await self.write(membership.forget, who, self.room_id(room))

    # --- looking

    def state(self, room: RoomNid) -> dict[Key, StoredEvent]:
        """The current state."""

        def read(tx: Any) -> dict[Key, StoredEvent]:
            found = rooms.current_state(tx, room)
            return {names.slot_key(tx, slot): events.by_nid(tx, nid) for slot, nid in found.items()}

        return self.store.read(read)

    def content(self, room: RoomNid, kind: str, key: str = "") -> dict[str, Any]:
        """The content of one current state event."""
        return dict(self.state(room)[kind, key].event.content)

    def membership(self, room: RoomNid, user_id: str) -> str | None:
        """A user's current membership."""
        found = self.state(room).get(("m.room.member", user_id))
        return None if found is None else str(found.event.content["membership"])

    def timeline(self, room: RoomNid) -> list[StoredEvent]:
        """All of a room's timeline, oldest first, whoever may see it."""

        def read(tx: Any) -> list[StoredEvent]:
            found = events.after(tx, room, (0, -(2**53)), (2**62, 0), 10**6)
            return [events.by_nid(tx, nid) for nid in found]

        return self.store.read(read)

    def stored(self, event_id: EventId) -> StoredEvent | None:
        """A stored event."""
        return self.store.read(events.by_id, event_id)

    def _reader(self, tx: Any, who: Session, room: RoomNid) -> Reader:
        ignored = ignored_users(tx, who.user)
        return Reader(tx, room, who.user, self.env.clock.now_ms(), who.device, ignored)

    def look(self, who: Session, room: RoomNid, function: Callable[..., Any], *args: Any) -> Any:
        """What a reading function shows a user."""
        return self.store.read(lambda tx: function(self._reader(tx, who, room), *args))

    def shown(self, who: Session, room: RoomNid) -> list[dict[str, Any]]:
        """The room's history as a user's client gets it, oldest first."""

        def read(reader: Reader) -> bytes:
            page = timeline.page(reader, BEGINNING, END, 10**6, lambda _: True, back=False)
            return encode(Formatter(reader, bundled=True).all(page.events))

        found: list[dict[str, Any]] = json.loads(self.look(who, room, read))
        return found

    def shown_event(self, who: Session, room: RoomNid, event_id: EventId) -> dict[str, Any]:
        """One event as a user's client gets it."""

        def read(reader: Reader) -> bytes:
            return encode(Formatter(reader, bundled=True).event(timeline.event(reader, event_id)))

        found: dict[str, Any] = json.loads(self.look(who, room, read))
        return found

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of the database, to tell whether anything changed."""

        def read(tx: Any) -> dict[str, list[tuple[Any, ...]]]:
            tables = tx.run("SELECT name FROM sqlite_schema WHERE type = 'table'")
            return {name: sorted(tx.run(f'SELECT * FROM "{name}"'), key=repr) for (name,) in tables}

        return self.store.read(read)


def open_house(path: Path | None = None, **env: Any) -> House:
    """A household; in a file, one that may have been there before.  The caller closes its store."""
    store = Store.open(":memory:" if path is None else path, runner=Runner.INLINE)
    typing = Typing(store.doorbell, serial=1)
    made = Env(SERVER, SigningKey("test", bytes(32)), SimulatedClock(), typing, "12")
    return House(store, evolve(made, **env))


@asynccontextmanager
async def household(path: Path | None = None, **env: Any) -> AsyncIterator[House]:
    """A household for one test."""
    house = open_house(path, **env)
    try:
        yield house
    finally:
        house.store.close()
