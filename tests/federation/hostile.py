"""A hostile server: its own name, key and certificate, rooms made by hand, and any answer at all.

    with hostile(folder, ca, victim) as foe:
        room = foe.room("12")                    # residents' endpoints answer truthfully ...
        foe.answers["GET", "/state_ids/"] = lie  # ... until told otherwise
        foe.send(pdus=[...])                     # a signed transaction

What it was asked is in `asked`.  Everything here waits in place.
"""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from attrs import define, field, frozen

from matrixbox.core.events import Event, parse_event
from matrixbox.core.signing import SigningKey, sign_json
from tests.peers.addresses import free_port
from tests.peers.synapse_peer import TestCA
from tests.rooms.far import Graph, key_of

ADDRESS = "127.0.0.4"
V1, V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"
_serial = itertools.count(1)

Json = Any
Respond = Callable[["Asked"], tuple[int, Json]]


@frozen
class Asked:
    """A request that the hostile server got."""

    method: str
    path: str  # as it came
    query: Mapping[str, list[str]]
    body: Json
    authorization: str
    at: float

    @property
    def segments(self) -> list[str]:
        """The parts of the path, decoded."""
        return [unquote(part) for part in self.path.split("/")]


@frozen
class Reply:
    """What the victim answered."""

    status: int
    body: Json

    @property
    def errcode(self) -> str | None:
        """The error code, if it is an error."""
        return self.body.get("errcode") if isinstance(self.body, dict) else None


@define(eq=False)
class Foe:
    """The server."""

    name: str
    key: SigningKey
    victim: str  # the name of the server under attack
    victim_address: tuple[str, int]
    context: ssl.SSLContext  # for our own requests
    answers: dict[tuple[str, str], Respond] = field(factory=dict)  # by method and part of the path
    asked: list[Asked] = field(factory=list)
    rooms: dict[str, Graph] = field(factory=dict)

    def user(self, localpart: str) -> str:
        """A user of this server."""
        return f"@{localpart}:{self.name}"

    # --- asking

    def authorization(self, signed: Mapping[str, Json], **fields: str) -> str:
        """An X-Matrix header for what was signed; `fields` overrides its parameters."""
        parameters = {
            "origin": self.name,
            "destination": self.victim,
            "key": self.key.key_id,
            "sig": signed["signatures"][fields.get("origin", self.name)][self.key.key_id],
            **fields,
        }
        return "X-Matrix " + ",".join(f'{name}="{value}"' for name, value in parameters.items())

    def request(
        self,
        method: str,
        target: str,
        body: Json = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 90.0,
    ) -> Reply:
        """A signed request; `headers` given instead of the signature are sent as they are."""
        if headers is None:
            content = {} if body is None else {"content": body}
            message = {"method": method, "uri": target, "origin": self.name, **content}
            message["destination"] = self.victim
            signed = sign_json(message, self.name, self.key)
            headers = {"Authorization": self.authorization(signed)}
        return self.raw(method, target, body, headers, timeout_s)

    def raw(
        self,
        method: str,
        target: str,
        body: Json,
        headers: Mapping[str, str],
        timeout_s: float = 90.0,
    ) -> Reply:
        """A request with just these headers."""
        host, port = self.victim_address
        connection = http.client.HTTPSConnection(
            host, port, context=self.context, timeout=timeout_s
        )
        data = body if isinstance(body, bytes) else None if body is None else dumped(body)
        try:
            connection.request(
                method, target, data, {"Content-Type": "application/json", **headers}
            )
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        try:
            return Reply(answer.status, json.loads(text) if text else None)
        except ValueError:
            return Reply(answer.status, text)

    def send(
        self, pdus: Sequence[Json] = (), edus: Sequence[Json] = (), txn: str | None = None
    ) -> Reply:
        """A transaction."""
        body = {
            "origin": self.name,
            "origin_server_ts": int(time.time() * 1000),
            "pdus": list(pdus),
            "edus": list(edus),
        }
        return self.request("PUT", f"{V1}/send/{txn or f't{next(_serial)}'}", body)

    def deliver(self, *events: Event) -> dict[str, Json]:
        """A transaction of events; what was said of each."""
        reply = self.send([dict(event.json) for event in events])
        assert reply.status == 200, reply
        found: dict[str, Json] = reply.body["pdus"]
        return found

    # --- answering

    def room(self, version: str, *members: str, **levels: Json) -> Graph:
        """A room of ours; its endpoints are answered from the graph."""
        graph = Graph(version, name=f"r{next(_serial)}", creator=self.user("mallory"))
        graph.now_ms = int(time.time() * 1000) - 1_000_000
        graph.begin(*members, **levels)
        self.rooms[graph.room_id] = graph
        return graph

    def asked_for(self, part: str) -> list[Asked]:
        """The requests whose path holds a text."""
        return [each for each in self.asked if part in each.path]

    def answer(self, asked: Asked) -> tuple[int, Json]:
        """What to say: as told, else the truth, else 404."""
        self.asked.append(asked)
        for (method, part), respond in self.answers.items():
            if method == asked.method and part in asked.path:
                return respond(asked)
        if asked.path == "/_matrix/key/v2/server":
            return 200, self.keys()
        if asked.path.endswith("/version"):
            return 200, {"server": {"name": "hostile", "version": "1"}}
        if "/send/" in asked.path and asked.method == "PUT":
            return 200, {"pdus": {}}
        return self._of_room(asked)

    def keys(self, **changed: Json) -> Json:
        """The document with our key."""
        document = {
            "server_name": self.name,
            "verify_keys": {self.key.key_id: {"key": self.key.verify_key_base64}},
            "old_verify_keys": {},
            "valid_until_ts": int(time.time() * 1000) + 86_400_000,
            **changed,
        }
        return sign_json(document, self.name, self.key)

    def _of_room(self, asked: Asked) -> tuple[int, Json]:
        missing = (404, {"errcode": "M_NOT_FOUND", "error": "no"})
        parts = asked.segments
        if len(parts) < 6:
            return missing
        kind, name = parts[4], parts[5]
        if kind == "event":
            for graph in self.rooms.values():
                if name in graph.events:
                    pdu = graph.events[name].json
                    return 200, {"origin": self.name, "origin_server_ts": 1, "pdus": [pdu]}
            return missing
        graph = self.rooms.get(name)
        if graph is None:
            return missing
        truth = getattr(Truth(self, graph), kind, None)
        return missing if truth is None else truth(asked)


@frozen
class Truth:
    """The honest answers of a resident server about one room."""

    foe: Foe
    graph: Graph

    def make_join(self, asked: Asked) -> tuple[int, Json]:
        """A template."""
        user = asked.segments[6]
        graph = self.graph
        content = {"membership": "join"}
        parents = [graph.last()]
        state = graph.state_before(parents)
        auth = graph.cited("m.room.member", user, user, content, state)
        event = graph.pdu("m.room.member", user, content, user, parents, auth)
        event.pop("event_id", None)
        return 200, {"room_version": graph.version, "event": event}

    def send_join(self, asked: Asked) -> tuple[int, Json]:
        """The state before the join."""
        event = self.graph.add(parse_event(self.graph.rules, asked.body))
        state = self.graph.before[event.event_id]
        answer = {
            "origin": self.foe.name,
            "event": dict(event.json),
            "state": [dict(self.graph.events[each].json) for each in state.values()],
            "auth_chain": self.chain(state.values()),
            "members_omitted": False,
        }
        return 200, answer if "/v2/" in asked.path else [200, answer]

    def chain(self, ids: Sequence[str] | Any) -> list[Json]:
        """The auth chain of some events, without them unless they are in it."""
        found: dict[str, Event] = {}
        waiting = [each for start in ids for each in self.graph.events[start].auth_event_ids]
        while waiting:
            event_id = waiting.pop()
            if event_id not in found:
                found[event_id] = self.graph.events[event_id]
                waiting += found[event_id].auth_event_ids
        return [dict(event.json) for event in found.values()]

    def state_ids(self, asked: Asked) -> tuple[int, Json]:
        """The state before an event."""
        at = asked.query["event_id"][0]
        if at not in self.graph.events:
            return 404, {"errcode": "M_NOT_FOUND", "error": "no"}
        ids = list(self.graph.before[at].values())
        chain = [parse_event(self.graph.rules, pdu).event_id for pdu in self.chain(ids)]
        return 200, {"pdu_ids": ids, "auth_chain_ids": chain}

    def state(self, asked: Asked) -> tuple[int, Json]:
        """The same with the events themselves."""
        at = asked.query["event_id"][0]
        if at not in self.graph.events:
            return 404, {"errcode": "M_NOT_FOUND", "error": "no"}
        ids = list(self.graph.before[at].values())
        pdus = [dict(self.graph.events[each].json) for each in ids]
        return 200, {"pdus": pdus, "auth_chain": self.chain(ids)}

    def event_auth(self, asked: Asked) -> tuple[int, Json]:
        """The auth chain of an event."""
        return 200, {"auth_chain": self.chain([asked.segments[6]])}

    def get_missing_events(self, asked: Asked) -> tuple[int, Json]:
        """What lies between."""
        known = set(asked.body.get("earliest_events", []))
        waiting, found = list(asked.body["latest_events"]), []
        seen = set(waiting) | known
        while waiting and len(found) < asked.body.get("limit", 10):
            event = self.graph.events.get(waiting.pop(0))
            for parent in event.prev_event_ids if event else ():
                if parent not in seen and parent in self.graph.events:
                    seen.add(parent)
                    waiting.append(parent)
                    found.append(dict(self.graph.events[parent].json))
        return 200, {"events": found[::-1]}

    def backfill(self, asked: Asked) -> tuple[int, Json]:
        """Older events."""
        limit = int(asked.query["limit"][0])
        waiting, seen = list(asked.query["v"]), set(asked.query["v"])
        found: list[Json] = []
        while waiting and len(found) < limit:
            event = self.graph.events.get(waiting.pop(0))
            if event is not None:
                found.append(dict(event.json))
                waiting += [each for each in event.prev_event_ids if each not in seen]
                seen |= set(event.prev_event_ids)
        return 200, {"origin": self.foe.name, "origin_server_ts": 1, "pdus": found}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    foe: Foe

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        parts = urlsplit(self.path)
        asked = Asked(
            self.command,
            parts.path,
            parse_qs(parts.query),
            json.loads(raw) if raw else None,
            self.headers.get("Authorization", ""),
            time.monotonic(),
        )
        try:
            status, body = self.foe.answer(asked)
        except Hang:
            self.close_connection = True
            return
        data = body if isinstance(body, bytes) else dumped(body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


class Hang(Exception):
    """Raised by an answer that closes the connection without a word."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are the victim's right."""


def dumped(value: Json) -> bytes:
    """JSON as other implementations write it."""
    return json.dumps(value, default=dict, ensure_ascii=False).encode()


@contextmanager
def hostile(
    folder: Path,
    ca: TestCA,
    victim: str,
    victim_address: tuple[str, int],
    *,
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[Foe]:
    """A hostile server that listens; with a certificate of the authority, or another one."""
    folder.mkdir(parents=True, exist_ok=True)
    address = ADDRESS
    port = free_port(address)
    name = f"{address}:{port}"
    chain, key = certificate or ca.issue(address, folder=folder)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(chain, key)
    asking = ssl.create_default_context(cafile=str(ca.cert_path))
    foe = Foe(name, key_of(name), victim, victim_address, asking)
    handler = type("Handler", (_Handler,), {"foe": foe})
    server = _Server((address, port), handler)
    server.socket = serving.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield foe
    finally:
        server.shutdown()
        server.server_close()


def local_name(text: str) -> str:
    """A room or event id in a path."""
    return quote(text, safe="")


__all__ = ["ADDRESS", "V1", "V2", "Asked", "Foe", "Hang", "Reply", "hostile", "local_name"]
