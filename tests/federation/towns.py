"""Whole servers of ours in one process, and servers made by hand between them.

    async with towns(tmp_path, "one.test", "two.test") as (one, two):
        ann, bo = await one.register("ann"), await two.register("bo")

A hand-made server (`FakeServer`) has its own key, answers what the test says, and sees every
request; `send` calls one of ours in its name.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import trio
from attrs import define, field

from matrixbox.clock import SimulatedClock
from matrixbox.core.identifiers import ServerName
from matrixbox.core.signing import SigningKey, encode_base64, sign_json
from matrixbox.federation.client import request_bytes
from matrixbox.federation.transport import Answer, Request
from tests.sim.determinism import Trace
from tests.sim.network import Network, Weather
from tests.sim.node import Account, Failed, Node

YEAR_MS = 365 * 86_400_000


class Town(Node):
    """A server with what tests of joins do over and over."""

    async def client(
        self, who: Account, method: str, path: str, body: Any = None, **query: str
    ) -> Any:
        """A client's request under ``/_matrix/client/v3``."""
        text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        target = f"/_matrix/client/v3{path}" + (f"?{text}" if text else "")
        return await self.request(method, target, body, token=who.token)

    async def room(self, who: Account, **wanted: Any) -> str:
        """A new room; its id."""
        made = await self.client(who, "POST", "/createRoom", {"preset": "public_chat", **wanted})
        return str(made["room_id"])

    async def join(self, who: Account, room: str, *via: str, **body: Any) -> None:
        """Join a room through some servers."""
        text = "&".join(f"via={quote(name, safe='')}" for name in via)
        target = f"/_matrix/client/v3/join/{quote(room, safe='')}" + (f"?{text}" if text else "")
        await self.request("POST", target, body, token=who.token)

    async def upon(self, who: Account, room: str, what: str, **body: Any) -> None:
        """Invite, kick, leave and the like."""
        await self.client(who, "POST", f"/rooms/{quote(room, safe='')}/{what}", body)

    async def state(self, who: Account, room: str) -> dict[tuple[str, str], Any]:
        """The state of a room as a user sees it."""
        found = await self.client(who, "GET", f"/rooms/{quote(room, safe='')}/state")
        return {(event["type"], event["state_key"]): event for event in found}

    async def set_state(
        self, who: Account, room: str, kind: str, content: Any, key: str = ""
    ) -> str:
        """Set state; the event's id."""
        path = f"/rooms/{quote(room, safe='')}/state/{kind}/{quote(key, safe='')}"
        found = await self.client(who, "PUT", path, content)
        return str(found["event_id"])

    async def say(self, who: Account, room: str, text: str) -> str:
        """A message; its id."""
        self._said = getattr(self, "_said", 0) + 1
        path = f"/rooms/{quote(room, safe='')}/send/m.room.message/t{self._said}"
        body = {"msgtype": "m.text", "body": text}
        return str((await self.client(who, "PUT", path, body))["event_id"])

    async def sync(self, who: Account, **query: str) -> Any:
        """One answer of `/sync`."""
        return await self.client(who, "GET", "/sync", **query)


Handler = Callable[[Request], Awaitable[Any]]


@define(eq=False)
class FakeServer:
    """A server that does what a test tells it to."""

    name: ServerName
    network: Network
    clock: SimulatedClock
    key: SigningKey = field(init=False)
    answers: dict[str, Any] = field(factory=dict)  # by words of the path: an answer, or a function
    seen: list[Request] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.key = SigningKey("fake", self.name.encode().ljust(32, b".")[:32])
        self.network.hosts[self.name] = self

    async def handle(self, origin: ServerName, request: Request) -> Answer | None:
        """See ``tests.sim.network.Host``."""
        self.seen.append(request)
        path = unquote(request.target.partition("?")[0])
        if path == "/_matrix/key/v2/server":
            return _answer(200, self.keys())
        for word, answer in self.answers.items():
            if f"/{word}/" in path:
                body = json.loads(request.body) if request.body else None
                found = answer(request, body) if callable(answer) else answer
                if isinstance(found, Awaitable):
                    found = await found
                if found is None or isinstance(found, Answer):
                    return found
                status, value = found if isinstance(found, tuple) else (200, found)
                return _answer(status, value)
        return _answer(404, {"errcode": "M_UNRECOGNIZED", "error": "no"})

    def keys(self) -> dict[str, Any]:
        """What it publishes."""
        found = {
            "server_name": self.name,
            "verify_keys": {self.key.key_id: {"key": self.key.verify_key_base64}},
            "old_verify_keys": {},
            "valid_until_ts": self.clock.now_ms() + YEAR_MS,
        }
        return sign_json(found, self.name, self.key)

    def asked(self, word: str) -> list[Request]:
        """The requests with a word in their path."""
        return [one for one in self.seen if f"/{word}/" in one.target]

    async def call(self, to: Node, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        """A request of this server to one of ours; status and body."""
        content = None
        if body is not None:
            content = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        message = request_bytes(method, target, self.name, to.name, content)
        signature = encode_base64(self.key.sign(message))
        header = (
            f'X-Matrix origin="{self.name}",destination="{to.name}",'
            f'key="{self.key.key_id}",sig="{signature}"'
        )
        asked = Request(method, target, (("authorization", header),), content or b"")
        answer = await to.handle(self.name, asked)
        assert answer is not None
        return answer.status, json.loads(answer.body)


def _answer(status: int, value: Any) -> Answer:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Answer(status, {"content-type": "application/json"}, body)


@define(eq=False)
class Country:
    """All servers of a test."""

    folder: Path
    network: Network
    clock: SimulatedClock
    nursery: trio.Nursery

    async def town(self, name: str) -> Town:
        """One more server of ours, which answers."""
        server = ServerName(name)
        made = Town(server, self.folder / name, self.network, random.Random(name), self.clock)
        self.network.hosts[server] = made
        await made.start(self.nursery)
        return made

    def fake(self, name: str) -> FakeServer:
        """One more server made by hand."""
        return FakeServer(ServerName(name), self.network, self.clock)


@asynccontextmanager
async def country(folder: Path) -> AsyncIterator[Country]:
    """Servers that hear each other at once."""
    weather = Weather(delay_s=1e-6)
    async with trio.open_nursery() as nursery:
        network = Network(random.Random(0), Trace(), weather)
        found = Country(folder, network, SimulatedClock(), nursery)
        try:
            yield found
        finally:
            nursery.cancel_scope.cancel()


async def eventually(look: Callable[[], Awaitable[Any]], within_s: float = 10.0) -> Any:
    """What `look` finds once it is true."""
    with trio.fail_after(within_s):
        while not (found := await look()):
            await trio.sleep(0.02)
    return found


__all__ = ["Account", "Country", "Failed", "FakeServer", "Town", "country", "eventually"]
