"""A server that lies: it withholds, stales, spoils, forks, forges and invents.

It is a whole server of ours whose traffic is tampered with in both directions, and which forges
events of its own beside that.  About one and the same event it tells everybody the same lie: with
different answers for different askers it could part any servers of any making for good, as long as
nothing but its word tells what happened.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, unquote

import trio
from attrs import define, evolve, field, frozen

from matrixbox.core.auth import select_auth_keys
from matrixbox.core.events import MAX_DEPTH, Event
from matrixbox.core.identifiers import EventId, RoomId, ServerName, server_of
from matrixbox.core.room_versions import RoomRules
from matrixbox.core.signing import citation, event_id_of, hash_and_sign_event, sign_json
from matrixbox.errors import RemoteError
from matrixbox.federation.client import target
from matrixbox.federation.transport import Answer, Limits, Request, Transport
from matrixbox.store import events, members, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from tests.sim.network import Pieces, SimTransport
from tests.sim.node import Node

AUTH_TYPES = (
    "m.room.create",
    "m.room.member",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.third_party_invite",
)
STALE = 0.8
"""The share of events before which it tells another state than there was."""

WITHHELD = 0.7
"""The share of events, anybody's, which it does not give to who asks for history."""

Pdu = dict[str, Any]


@frozen
class Forged:
    """An event that the liar made beside its own graph."""

    pdu: Pdu
    base: EventId  # a true event whose state it claims


@define(eq=False, kw_only=True)
class Liar(Node):
    """A server that lies."""

    is_honest: bool = False
    lies: random.Random
    forged: dict[str, Forged] = field(factory=dict)
    invented: dict[str, EventId] = field(factory=dict)  # parents that never were
    told: int = 0

    def transport(self) -> Transport:
        """Its way to the others."""
        return LyingTransport(self, SimTransport(self.network, self.name))

    def draw(self, what: str, about: str) -> float:
        """The same number between 0 and 1 for the same question, whoever asks and when."""
        found = hashlib.sha256(f"{self.name} {what} {about}".encode()).digest()
        return int.from_bytes(found[:4], "big") / 2**32

    def is_secret(self, event_id: str, pdu: Pdu) -> bool:
        """Whether nobody is ever to see an event of its own."""
        own = server_of(pdu["sender"]) == self.name
        return own and pdu["type"] not in AUTH_TYPES and self.draw("secret", event_id) < 0.15

    # --- what it says when asked

    async def handle(self, origin: ServerName, request: Request) -> Answer | None:
        """See ``network.Host``."""
        answer = await super().handle(origin, request)
        if answer is None or answer.status not in (200, 404) or not self.is_up:
            return answer
        path, _, query = request.target.partition("?")
        parts = [unquote(part) for part in path.split("/")]
        if len(parts) < 6 or parts[2] != "federation":
            return answer
        body = self._lie(parts[4], parts[5], parse_qs(query), json.loads(answer.body or b"{}"))
        if body is None:
            return answer
        self.told += 1
        self.network.trace.note("lie", self.name, parts[4])
        return Answer(200, answer.headers, json.dumps(body).encode())

    def _lie(self, kind: str, name: str, query: dict[str, list[str]], truth: Any) -> Any:
        if kind in ("state", "state_ids"):
            return self._stale_state(kind, RoomId(name), query["event_id"][0])
        if kind == "event" and name in self.forged:
            return {"origin": self.name, "origin_server_ts": 1, "pdus": [self.forged[name].pdu]}
        if kind == "get_missing_events" and "events" in truth:
            return {"events": self._withheld(truth["events"])}
        if kind == "backfill" and "pdus" in truth:
            return {**truth, "pdus": self._withheld(truth["pdus"])}
        return None

    def _withheld(self, pdus: list[Pdu]) -> list[Pdu]:
        """Without its secrets, and without many events that others made."""
        return [
            pdu
            for pdu in pdus
            if not self.is_secret(event_id := self._id_of(pdu), pdu)
            and self.draw("withheld", event_id) > WITHHELD
        ]

    def _id_of(self, pdu: Pdu) -> str:
        rules = self._rules(pdu)
        return "" if rules is None else event_id_of(rules, pdu)

    def _rules(self, pdu: Pdu) -> RoomRules | None:
        def read(tx: Any) -> RoomRules | None:
            room = names.room_nid(tx, RoomId(pdu.get("room_id", "")))
            return None if room is None else rooms.rules(tx, room)

        return self.store.read(read)

    def _stale_state(self, kind: str, room_id: RoomId, at: str) -> Any:
        """The state before some older event: for its forgeries and their invented parents, and for
        many events that others made.

        What somebody's join stands on is told as it is: who joins has nothing but this answer.
        """
        base = self.forged[at].base if at in self.forged else self.invented.get(at)
        if base is None and self.draw("stale", at) > STALE:
            return None

        def read(tx: Any) -> Any:
            found = events.by_id(tx, base or EventId(at))
            if base is None and found is not None and not _is_joined_upon(tx, found):
                for _ in range(1 + round(self.draw("steps", at) * 6)):
                    parents = found.event.prev_event_ids
                    found = (events.by_id(tx, parents[0]) if parents else None) or found
            elif base is None:
                return None
            if found is None or found.snapshot is None:
                return None
            ids = list(snapshots.state(tx, found.snapshot).values())
            state = [events.by_nid(tx, nid).event for nid in ids]
            chain = _auth_chain(tx, state)
            if kind == "state_ids":
                return {
                    "pdu_ids": [event.event_id for event in state],
                    "auth_chain_ids": [event.event_id for event in chain],
                }
            return {
                "pdus": [dict(event.json) for event in state],
                "auth_chain": [dict(event.json) for event in chain],
            }

        return self.store.read(read)

    # --- what it makes up

    async def forge(self, room_id: str) -> None:
        """Make an event beside the graph, and send it to some of the servers."""
        made = self.store.read(self._forge, RoomId(room_id))
        if made is None:
            return
        pdu, others = made
        self.network.trace.note("forge", self.name, pdu["type"], self._id_of(pdu))
        for server in self.lies.sample(others, self.lies.randint(1, len(others))):
            await self.send(server, [pdu])

    async def send(self, server: str, pdus: list[Pdu]) -> None:
        """A transaction of its own making."""
        body = {
            "origin": self.name,
            "origin_server_ts": self.clock.now_ms(),
            "pdus": pdus,
            "edus": [],
        }
        uri = target("v1", "send", secrets.token_hex(6))
        if not self.is_up:
            return
        client = self.services.federation.client
        try:
            await client.put_json(ServerName(server), uri, body, ignore_backoff=True)
        except RemoteError as error:
            self.network.trace.note("not taken", server, type(error).__name__)

    async def replay(self, room_id: str) -> None:
        """Send old events of anybody again, some of them spoiled."""

        def read(tx: Any) -> tuple[list[Event], list[str]] | None:
            room = names.room_nid(tx, RoomId(room_id))
            if room is None or rooms.head(tx, room) is None:
                return None
            known = _known(tx, room)
            others = _others(tx, room, self.name)
            chosen = self.lies.sample(known, min(len(known), self.lies.randint(1, 5)))
            return [stored.event for stored in chosen], others

        found = self.store.read(read)
        if found is None or not found[1]:
            return
        pdus = [self._spoiled(dict(event.json)) for event in found[0]]
        await self.send(self.lies.choice(found[1]), pdus)

    def _spoiled(self, pdu: Pdu) -> Pdu:
        pdu = copy.deepcopy(pdu)
        draw = self.lies.random()
        if draw < 0.3:
            pdu["content"]["body"] = "spoiled"  # the hash does not match any more
        elif draw < 0.45:
            for by_server in pdu["signatures"].values():
                for key_id in by_server:
                    by_server[key_id] = "A" * 86
        elif draw < 0.6:
            pdu["origin_server_ts"] += 1  # another event, which nobody has signed
        return pdu

    def _forge(self, tx: Any, room_id: RoomId) -> tuple[Pdu, list[str]] | None:
        room = names.room_nid(tx, room_id)
        if room is None or rooms.head(tx, room) is None:
            return None
        others = _others(tx, room, self.name)
        known = [stored for stored in _known(tx, room) if stored.snapshot is not None]
        own = [
            str(members.user_ids(tx, [user])[0])
            for user, _ in members.of_server(tx, room, self.name)
        ]
        if not others or not known or not own:
            return None
        rng, rules = self.lies, rooms.rules(tx, room)
        parents = rng.sample(known, min(len(known), rng.choice([1, 1, 2])))
        base = rng.choice([parents[0], rng.choice(known)])
        assert base.snapshot is not None
        state = {
            names.slot_key(tx, slot): events.by_nid(tx, nid).event
            for slot, nid in snapshots.state(tx, base.snapshot).items()
        }
        sender = rng.choice(own)
        kind, key, content = self._claim(state, sender)
        keys = select_auth_keys(rules, kind, sender, key, content)
        auth = [state[found] for found in keys if found in state]
        if rules.room_id_is_create_hash:
            auth = [event for event in auth if event.type != "m.room.create"]
        prev = [citation(stored.event) for stored in parents]
        if rng.random() < 0.25 and not rules.event_id_in_pdu:
            prev.append(self._invented(base))
        depth = 1 + max(stored.event.depth for stored in parents)
        pdu: Pdu = {
            "type": kind,
            "room_id": room_id,
            "sender": sender,
            "content": content,
            "origin_server_ts": rng.choice([self.clock.now_ms()] * 4 + [0, 2**53 - 1]),
            "depth": rng.choice([depth] * 5 + [1, MAX_DEPTH]),
            "prev_events": prev,
            "auth_events": [citation(event) for event in auth],
        }
        if key is not None:
            pdu["state_key"] = key
        if rules.event_id_in_pdu:
            pdu["event_id"] = f"${secrets.token_urlsafe(12)}:{self.name}"
        assert self.base is not None
        pdu = hash_and_sign_event(rules, pdu, self.name, self.base.env.key)
        self.forged[event_id_of(rules, pdu)] = Forged(pdu, base.event.event_id)
        return pdu, others

    def _claim(self, state: dict[Any, Event], sender: str) -> tuple[str, str | None, Pdu]:
        """What a forged event says: sometimes what it may, sometimes what it may not."""
        rng = self.lies
        users = [key for kind, key in state if kind == "m.room.member"]
        draw = rng.random()
        if draw < 0.2:
            return "m.room.message", None, {"body": f"{rng.random()}"}
        if draw < 0.45:
            return "m.room.topic", "", {"topic": f"{rng.random()}"}
        if draw < 0.65:
            power = state.get(("m.room.power_levels", ""))
            levels = {} if power is None else copy.deepcopy(dict(power.content))
            levels["users"] = {**levels.get("users", {}), sender: rng.choice([0, 50, 100])}
            return "m.room.power_levels", "", levels
        if draw < 0.75:
            rule = rng.choice(["public", "invite"])
            return "m.room.join_rules", "", {"join_rule": rule}
        word = rng.choice(["ban", "leave", "join", "leave", "invite"])
        about = sender if word == "join" else rng.choice(users or [sender])
        return "m.room.member", about, {"membership": word}

    def _invented(self, base: StoredEvent) -> str:
        event_id = "$" + secrets.token_urlsafe(32)
        self.invented[event_id] = base.event.event_id
        return event_id


@define(eq=False)
class LyingTransport:
    """Spoils the liar's own transactions on their way out."""

    liar: Liar
    inner: SimTransport

    async def exchange(self, server: ServerName, request: Request, limits: Limits) -> Answer:
        """See ``Transport``."""
        return await self.inner.exchange(server, self._spoil(server, request), limits)

    @asynccontextmanager
    async def stream(
        self, server: ServerName, request: Request, limits: Limits
    ) -> AsyncIterator[Pieces]:
        """See ``Transport``."""
        async with self.inner.stream(server, request, limits) as answer:
            yield answer

    def _spoil(self, server: ServerName, request: Request) -> Request:
        if request.method != "PUT" or "/federation/v1/send/" not in request.target:
            return request
        body = json.loads(request.body)
        kept = []
        for pdu in body.get("pdus", []):
            event_id = self.liar._id_of(pdu)
            if event_id in self.liar.forged:
                kept.append(pdu)
            elif self.liar.is_secret(event_id, pdu):
                continue
            elif pdu["type"] not in AUTH_TYPES and self.liar.lies.random() < 0.25:
                if self.liar.lies.random() < 0.5:
                    kept.append(self.liar._spoiled(pdu))
            else:
                kept.append(pdu)
        if kept == body.get("pdus"):
            return request
        self.liar.told += 1
        return self._signed(server, request, {**body, "pdus": kept})

    def _signed(self, server: ServerName, request: Request, body: Any) -> Request:
        assert self.liar.base is not None
        env = self.liar.base.env
        message = {
            "method": request.method,
            "uri": request.target,
            "origin": env.server_name,
            "destination": server,
            "content": body,
        }
        signed = sign_json(message, env.server_name, env.key)
        signature = signed["signatures"][env.server_name][env.key.key_id]
        header = (
            f'X-Matrix origin="{env.server_name}",destination="{server}",'
            f'key="{env.key.key_id}",sig="{signature}"'
        )
        others = tuple(pair for pair in request.headers if pair[0].lower() != "authorization")
        headers = (*others, ("authorization", header))
        return evolve(request, headers=headers, body=json.dumps(body).encode())


async def lie(liar: Liar, room_ids: list[str], count: int, pause_s: float) -> None:
    """So many forgeries and replays, at random moments."""
    for _ in range(count):
        await trio.sleep(liar.lies.expovariate(1 / pause_s))
        if not liar.is_up or not room_ids:
            continue
        room_id = liar.lies.choice(room_ids)
        await (liar.forge(room_id) if liar.lies.random() < 0.7 else liar.replay(room_id))


def _known(tx: Any, room: int) -> list[StoredEvent]:
    rows = tx.run("SELECT nid FROM event WHERE room_nid = ? ORDER BY nid", room)
    return [events.by_nid(tx, nid) for (nid,) in rows]


def _is_joined_upon(tx: Any, stored: StoredEvent) -> bool:
    """Whether an event is a join, or stands directly before one."""
    about = [stored.event]
    rows = tx.run("SELECT nid FROM event WHERE room_nid = ? AND nid > ?", stored.room, stored.nid)
    about += [
        event
        for event in (events.by_nid(tx, nid).event for (nid,) in rows)
        if stored.event.event_id in event.prev_event_ids
    ]
    return any(
        event.type == "m.room.member" and event.content.get("membership") == "join"
        for event in about
    )


def _others(tx: Any, room: Any, name: str) -> list[str]:
    return sorted(str(server) for server in members.servers(tx, room) if server != name)


def _auth_chain(tx: Any, state: list[Event]) -> list[Event]:
    found: dict[str, Event] = {}
    waiting = [each for event in state for each in event.auth_event_ids]
    while waiting:
        event_id = waiting.pop()
        stored = None if event_id in found else events.by_id(tx, event_id)
        if stored is not None:
            found[event_id] = stored.event
            waiting += stored.event.auth_event_ids
    return list(found.values())
