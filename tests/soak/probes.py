"""Plain clients without a library, which write down what the server tells them.

What a library shows may be its own mistake. Where a probe of the same user's was told every event
once and in order, the server did its part. A request whose answer was lost is asked again at the
same position, which has to be good after any restart.
"""

from __future__ import annotations

import http.client
import random
from collections.abc import Awaitable, Container
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import trio
from attrs import define, field

from tests.federation.pair import Refused, Side
from tests.soak.record import LetterRecord, Piece, RoomRecord

ANSWERED_WITHIN_S = 60.0
POLL_MS = 4_000
AGAIN_AFTER_S = 0.2
PAGE = 30
LETTER = "test.letter"
SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
MERGED = "/_matrix/client/v4/sync"
EXPANDED = "expanded_timeline"

Answer = dict[str, Any]


class Lost(Exception):
    """No answer came, or not all of it."""


class Ask(Protocol):
    """Makes a request; the answer.  Raises Lost, Refused."""

    def __call__(self, method: str, path: str, body: Any = None) -> Awaitable[Any]: ...


def over(side: Side, token: str) -> Ask:
    """Requests to a server, each on a connection of its own."""

    def wait(method: str, path: str, body: Any) -> Any:
        try:
            return side.request(method, path, body, token=token, timeout_s=ANSWERED_WITHIN_S)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Lost(f"{method} {path}: {error}") from error

    async def ask(method: str, path: str, body: Any = None) -> Any:
        try:
            return await trio.to_thread.run_sync(wait, method, path, body, abandon_on_cancel=True)
        except Refused as refused:
            if refused.status >= 500:
                raise Lost(str(refused)) from refused
            raise

    return ask


async def insist(ask: Ask, method: str, path: str, body: Any = None) -> Any:
    """Ask until there is an answer."""
    while True:
        try:
            return await ask(method, path, body)
        except Lost:
            await trio.sleep(AGAIN_AFTER_S)


async def history(
    ask: Ask, room: str, start: str | None = None, until: Container[str] = ()
) -> list[str]:
    """The ids of a room's events, oldest first, before a token or the end, back to a known one."""
    token, found = start, list[str]()
    while True:
        query = {"dir": "b", "limit": PAGE} | ({} if token is None else {"from": token})
        path = f"/_matrix/client/v3/rooms/{quote(room)}/messages?{urlencode(query)}"
        page = await insist(ask, "GET", path)
        for event in page["chunk"]:
            if event["event_id"] in until:
                return found[::-1]
            found.append(event["event_id"])
        token = page.get("end")
        if token is None:
            return found[::-1]
        if not page["chunk"]:  # other servers are asked, and do not answer now
            await trio.sleep(AGAIN_AFTER_S)


@define(eq=False)
class Probe:
    """What the probes have in common."""

    name: str
    ask: Ask
    device: tuple[str, str]  # user, device
    rooms: dict[str, RoomRecord] = field(factory=dict)
    letters: LetterRecord = field(factory=LetterRecord)
    findings: list[str] = field(factory=list)
    answers: int = 0
    lost: int = 0
    gaps: int = 0

    async def run(self) -> None:
        """Ask on and on."""
        while True:
            try:
                await self.turn()
                self.answers += 1
            except Lost:
                self.lost += 1
                await trio.sleep(AGAIN_AFTER_S)
            except Refused as refused:
                self.refused(refused)
                await trio.sleep(AGAIN_AFTER_S)

    async def turn(self) -> None:
        """Ask once, and write down what is told."""
        raise NotImplementedError

    def refused(self, refused: Refused) -> None:
        """The server does not answer this: nothing that a probe asks is to be refused."""
        self.findings.append(f"refused: {refused}")

    async def take_room(self, room: str, piece: Piece, token: str | None) -> None:
        """Write down what is told of a room, and fill the gap before it."""
        record = self.rooms.setdefault(room, RoomRecord())
        between: list[str] = []
        if record.needs_filling(piece) and token is not None:
            self.gaps += 1
            between = await history(self.ask, room, token, record.known)
        record.take(piece, between)

    def take_letters(self, events: list[Answer]) -> None:
        """Write down messages between devices."""
        for event in events:
            if event["type"] == LETTER:
                self.letters.take(event["sender"], event["content"]["number"])

    @property
    def all_findings(self) -> list[str]:
        """What is wrong for certain, whatever comes later."""
        rooms = [f"{room}: {what}" for room, one in self.rooms.items() for what in one.findings]
        return [f"{self.name}: {what}" for what in (*self.findings, *rooms)]


@define(eq=False)
class SyncProbe(Probe):
    """On `/sync`, with timelines so short that they are often limited."""

    since: str | None = None

    async def turn(self) -> None:
        """Ask once."""
        query = {"timeout": POLL_MS, "filter": '{"room":{"timeline":{"limit":3}}}'}
        if self.since is not None:
            query["since"] = self.since
        answer = await self.ask("GET", f"/_matrix/client/v3/sync?{urlencode(query)}")
        self.take_letters(answer.get("to_device", {}).get("events", []))
        for room, told in answer.get("rooms", {}).get("join", {}).items():
            shown = told.get("timeline", {})
            limited = shown.get("limited", False)
            ids = [event["event_id"] for event in shown.get("events", ())]
            piece = Piece(ids, limited=limited, anew=limited and self.since is None)
            await self.take_room(room, piece, shown.get("prev_batch"))
        self.since = answer["next_batch"]


@define(eq=False)
class Connected(Probe):
    """On a connection of sliding sync."""

    merged: bool = False  # in the form of the merged proposal, not in that of today's clients
    pos: str | None = None
    anew: int = 0

    async def ask_sliding(self, body: Answer) -> Answer:
        """Ask once; the probe is to take the answer's `pos` when it has written all down."""
        more: dict[str, Any] = {"timeout": POLL_MS}
        if self.pos is not None:
            more["pos"] = self.pos
        path = MERGED if self.merged else f"{SLIDING}?{urlencode(more)}"
        asked = body | more if self.merged else body
        answer: Answer = await self.ask("POST", path, asked)
        return answer

    def refused(self, refused: Refused) -> None:
        """A connection lasts, whatever happens to the server."""
        super().refused(refused)
        if refused.errcode == "M_UNKNOWN_POS":
            self.anew += 1
            self.pos = None


@define(eq=False)
class SlidingProbe(Connected):
    """On sliding sync, as an app whose person scrolls, and opens and closes rooms.

    `calm` is an app that shows all rooms: what was out of sight comes in.
    """

    chance: random.Random = field(factory=random.Random)
    calm: bool = False

    async def turn(self) -> None:
        """Ask once."""
        answer = await self.ask_sliding(self._body())
        for room, told in answer["rooms"].items():
            if "timeline" not in told:
                continue
            ids = [event["event_id"] for event in told["timeline"]]
            anew = any(
                map(told.get, ("initial", EXPANDED if self.merged else f"unstable_{EXPANDED}"))
            )
            piece = Piece(ids, limited=told.get("limited", False), anew=anew)
            await self.take_room(room, piece, told.get("prev_batch"))
        self.pos = answer["pos"]

    def _body(self) -> Answer:
        rooms, chance = list(self.rooms), self.chance
        end = 999 if self.calm else chance.choice((0, 2, 19, 999))
        opened = rooms[-2:] if self.calm else [one for one in rooms[-4:] if chance.random() < 0.4]
        state: Any = [["m.room.name", ""], ["m.room.member", "$LAZY"]]
        part: Answer = {"ranges": [[0, end]]}
        if self.merged:
            state = {"include": [{"type": "m.room.name"}], "lazy_members": True}
            part = {"range": [0, end]}
        return {
            "conn_id": "merged" if self.merged else "room-list",
            "lists": {"all_rooms": {**part, "timeline_limit": 1, "required_state": state}},
            "room_subscriptions": {
                room: {"timeline_limit": 20, "required_state": state} for room in opened
            },
        }


@define(eq=False)
class LetterProbe(Connected):
    """On a second connection of sliding sync, for messages between devices."""

    since: str | None = None

    async def turn(self) -> None:
        """Ask once."""
        asked: Answer = {"enabled": True, "limit": 10}
        if self.since is not None:
            asked["since"] = self.since
        body = {"conn_id": "encryption", "extensions": {"to_device": asked}}
        answer = await self.ask_sliding(body)
        told = answer.get("extensions", {}).get("to_device")
        if told is not None:
            self.take_letters(told["events"])
            self.since = told["next_batch"]
        self.pos = answer["pos"]


@define(eq=False)
class LetterWriter:
    """Sends messages between devices, all the time.

    One `insists`: what is not acknowledged it sends again under the same name, which must not make
    two. Another does not, where the server is not ours and may forget such names.
    """

    user: str
    ask: Ask
    to: list[tuple[str, str]]
    insists: bool
    every_s: tuple[float, float] = (0.3, 1.5)
    chance: random.Random = field(factory=random.Random)
    acknowledged: list[int] = field(factory=list)
    _number: int = 0

    async def run(self) -> None:
        """Send on and on."""
        while True:
            await trio.sleep(self.chance.uniform(*self.every_s))
            with suppress(Lost):
                await self.send()

    async def send(self) -> None:
        """Send one; raises Lost."""
        self._number += 1
        messages: dict[str, Answer] = {}
        for user, device in self.to:
            messages.setdefault(user, {})[device] = {"number": self._number}
        path = f"/_matrix/client/v3/sendToDevice/{LETTER}/letter{self._number}"
        if self.insists:
            await insist(self.ask, "PUT", path, {"messages": messages})
        else:
            await self.ask("PUT", path, {"messages": messages})
        self.acknowledged.append(self._number)
