"""Other servers inside the test: a transport that hands requests to them, and what they say.

net = Inside()
far = net.server("far.test")            # has a key, publishes it
ring = a_ring(store, clock, net)        # a Keyring of "home.test" that asks over `net`
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from typing import Any

import trio
from attrs import define, field

from matrixbox.clock import Clock
from matrixbox.core.identifiers import ServerName
from matrixbox.core.json import encode
from matrixbox.core.room_versions import RoomRules
from matrixbox.core.signing import SigningKey, encode_base64, hash_and_sign_event, sign_json
from matrixbox.errors import RemoteUnreachable
from matrixbox.federation.client import FederationClient, NoBackOff
from matrixbox.federation.keyring import Keyring
from matrixbox.federation.own_keys import OwnKeys
from matrixbox.federation.transport import Answer, Limits, Request
from matrixbox.store.database import Store
from matrixbox.store.runner import Runner
from matrixbox.tasks import at_once

HOME = ServerName("home.test")
DAY_MS = 24 * 3600 * 1000
HOUR_MS = 3600 * 1000

Respond = Callable[[Request], "tuple[int, Any] | None"]


def key_named(name: str) -> SigningKey:
    """A key that is always the same."""
    return SigningKey(name, sha256(name.encode()).digest())


HOME_KEY = key_named("home")


@define(eq=False)
class Far:
    """Another server."""

    name: ServerName
    key: SigningKey
    clock: Clock
    valid_for_ms: int = DAY_MS
    old: dict[str, dict[str, Any]] = field(factory=dict)
    is_up: bool = True
    takes_s: float = 0.0
    asked: list[Request] = field(factory=list)
    respond: Respond | None = None  # answers instead, if it returns something

    def keys(self, **changes: Any) -> dict[str, Any]:
        """What it says about its keys; `changes` are made before it signs."""
        said = {
            "server_name": self.name,
            "verify_keys": {self.key.key_id: {"key": self.key.verify_key_base64}},
            "old_verify_keys": self.old,
            "valid_until_ts": self.clock.now_ms() + self.valid_for_ms,
            **changes,
        }
        return sign_json(said, self.name, self.key)

    def change_key(self, key: SigningKey) -> None:
        """From now on it signs with another key, and lists this one as old."""
        self.old[self.key.key_id] = {
            "key": self.key.verify_key_base64,
            "expired_ts": self.clock.now_ms(),
        }
        self.key = key

    def times_asked_for_keys(self) -> int:
        """How often its keys were fetched."""
        return sum(request.target == "/_matrix/key/v2/server" for request in self.asked)

    def answer(self, request: Request) -> tuple[int, Any]:
        """What it answers."""
        self.asked.append(request)
        if self.respond is not None and (found := self.respond(request)) is not None:
            return found
        if request.target == "/_matrix/key/v2/server":
            return 200, self.keys()
        return 404, {"errcode": "M_UNRECOGNIZED", "error": "No such thing"}

    def event(self, rules: RoomRules, **fields: Any) -> dict[str, Any]:
        """A signed event that needs no room."""
        return hash_and_sign_event(rules, pdu_of(rules, self.name, **fields), self.name, self.key)


def pdu_of(rules: RoomRules, server: str, **fields: Any) -> dict[str, Any]:
    """An unsigned event."""
    pdu: dict[str, Any] = {
        "type": "m.room.message",
        "room_id": "!room:far.test",
        "sender": f"@ann:{server}",
        "content": {"body": "hello"},
        "origin_server_ts": 1_700_000_000_000,
        "depth": 5,
        "prev_events": [],
        "auth_events": [],
    }
    if rules.event_id_in_pdu:
        pdu["event_id"] = f"$event:{server}"
    return pdu | fields


@define(eq=False)
class Inside:
    """A transport without a network; implements federation.transport.Transport."""

    clock: Clock
    servers: dict[ServerName, Far] = field(factory=dict)
    at_once: int = 0
    most_at_once: int = 0

    def server(self, name: str, key: SigningKey | None = None) -> Far:
        """One more server."""
        far = Far(ServerName(name), key or key_named(f"key_of_{len(self.servers)}"), self.clock)
        self.servers[far.name] = far
        return far

    async def exchange(self, server: ServerName, request: Request, limits: Limits) -> Answer:
        """The whole answer."""
        far = self.servers.get(server)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if far is None:
                raise RemoteUnreachable(server, "no such name")
            await trio.sleep(far.takes_s)
            if not far.is_up:
                far.asked.append(request)
                raise RemoteUnreachable(server, "connection refused")
            status, value = far.answer(request)
        finally:
            self.at_once -= 1
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return Answer(status, {"content-type": "application/json"}, body)

    @asynccontextmanager
    async def stream(
        self, server: ServerName, request: Request, limits: Limits
    ) -> AsyncIterator[Any]:
        """The answer in two pieces."""
        yield Pieces(await self.exchange(server, request, limits))


class Pieces:
    """An answer that comes in two pieces."""

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self._body = answer.body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        half = len(self._body) // 2
        yield self._body[:half]
        yield self._body[half:]


def a_client(net: Inside, destinations: Any = None) -> FederationClient:
    """The client of home.test."""
    return FederationClient(HOME, HOME_KEY, net, destinations or NoBackOff(), at_once)


@contextmanager
def a_store():
    """An empty database in memory."""
    store = Store.open(":memory:", runner=Runner.INLINE)
    try:
        yield store
    finally:
        store.close()


def a_ring(store: Store, clock: Clock, net: Inside, notaries: tuple[str, ...] = ()) -> Keyring:
    """The keyring of home.test."""
    own = OwnKeys(HOME, HOME_KEY, [], clock)
    names = [ServerName(name) for name in notaries]
    return Keyring(store, clock, a_client(net), own, names, at_once)


def as_bytes(value: Any) -> bytes:
    """JSON on the wire."""
    return encode(value)


def unpadded(data: bytes) -> str:
    """Base64 as Matrix writes it."""
    return encode_base64(data)
