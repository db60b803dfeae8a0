"""A household in memory: the store, its rooms and accounts, without network or API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from attrs import define

from matrixbox.accounts import registration, sessions
from matrixbox.clock import SimulatedClock
from matrixbox.core.identifiers import EventId, RoomId, ServerName, UserId
from matrixbox.core.signing import SigningKey
from matrixbox.rooms import create, ingest, membership, sending
from matrixbox.rooms.env import Env
from matrixbox.rooms.typing import Typing
from matrixbox.store import accounts, names
from matrixbox.store.caches import Session, StoredEvent
from matrixbox.store.database import Store
from matrixbox.store.nids import RoomNid
from matrixbox.store.runner import Runner

SERVER = ServerName("home.test")


@define
class House:
    """One server's store with everything that rooms need."""

    store: Store
    env: Env
    _transactions: int = 0

    async def write(self, function: Callable[..., Any], *args: Any) -> Any:
        """A transaction function that takes the environment second."""
        return await self.store.write(function, self.env, *args)

    async def user(self, localpart: str) -> Session:
        """A new account with one device."""

        def make(tx: Any) -> Session:
            _, signed_in = registration.register(
                tx, SERVER, localpart, None, self.env.clock.now_ms(), (None, None)
            )
            assert signed_in is not None
            return sessions.authenticate(tx, signed_in.access_token)

        found: Session = await self.store.write(make)
        return found

    async def room(self, who: Session, **wanted: Any) -> RoomNid:
        """A new room; its number."""
        request = create.RoomRequest(**({"version": "12", "preset": "private_chat"} | wanted))
        room_id: RoomId = await self.write(create.create_room, who, request)
        nid = self.store.read(names.room_nid, room_id)
        assert nid is not None
        return nid

    async def say(self, who: Session, room: RoomNid, body: str, **content: Any) -> StoredEvent:
        """A message."""
        return await self.message(who, room, "m.room.message", {"body": body, **content})

    async def message(
        self, who: Session, room: RoomNid, kind: str, content: dict[str, Any]
    ) -> StoredEvent:
        """Any event that is not state."""
        self._transactions += 1
        txn = str(self._transactions)
        transaction = ingest.Transaction(who.device, txn.encode(), txn)
        stored: StoredEvent = await self.write(
            sending.send_message, who, room, kind, content, transaction
        )
        return stored

    async def set_state(
        self, who: Session, room: RoomNid, kind: str, key: str, content: dict[str, Any]
    ) -> StoredEvent:
        """State."""
        stored: StoredEvent = await self.write(
            sending.send_state, who, room, kind, key, content
        )
        return stored

    async def redact(self, who: Session, room: RoomNid, target: EventId) -> StoredEvent:
        """A redaction."""
        self._transactions += 1
        txn = str(self._transactions)
        stored: StoredEvent = await self.write(
            sending.redact,
            who,
            room,
            target,
            {},
            ingest.Transaction(who.device, txn.encode(), txn),
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

    def account_count(self) -> int:
        """How many accounts there are."""
        return len(self.store.read(accounts.everybody))


@asynccontextmanager
async def household() -> AsyncIterator[House]:
    """An empty household."""
    clock = SimulatedClock()
    store = Store.open(":memory:", runner=Runner.INLINE)
    typing = Typing(store.doorbell, serial=1)
    env = Env(SERVER, SigningKey("test", bytes(32)), clock, typing, "12")
    try:
        yield House(store, env)
    finally:
        store.close()
