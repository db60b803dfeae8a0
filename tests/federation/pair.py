"""A server of ours and a real Synapse, federating over TLS on loopback, and people on both.

    with federating(folder) as pair:
        alice, bob = pair.ours.person("alice"), pair.theirs.person("bob")
        room = alice.create_room(version="12")
        bob.join(room, via=pair.ours)
        pair.agree(room)

Everything here waits in place.  Names are addresses with ports, which need no DNS.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from attrs import define, field, frozen

from tests.federation.gate import Gate
from tests.peers.addresses import free_port
from tests.peers.synapse_peer import SynapsePeer, TestCA
from tests.server import TOP, Server, running_server

T = TypeVar("T")

OUR_ADDRESS, THEIR_ADDRESS = "127.0.0.3", "127.0.0.2"
PATIENCE_S = 20.0
LOOK_EVERY_S = 0.05
VENV = Path(os.environ.get("MATRIXBOX_SYNAPSE_VENV") or TOP / ".peers" / "synapse-venv")
_serial = itertools.count(1)

Key = tuple[str, str]
Event = dict[str, Any]


class Refused(Exception):
    """A request was answered with an error."""

    def __init__(self, status: int, body: Any, what: str) -> None:
        super().__init__(f"{what}: {status} {body}")
        self.status = status
        self.errcode = body.get("errcode") if isinstance(body, dict) else None


def eventually(look: Callable[[], T | None], what: str, within_s: float = PATIENCE_S) -> T:
    """What `look` finds, once it finds something that is true; AssertionError if it never does."""
    give_up = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < give_up, f"not within {within_s:g} s: {what}"
        time.sleep(LOOK_EVERY_S)


@define(eq=False)
class Side:
    """One of the two servers, as its clients see it."""

    name: str
    address: str
    port: int
    make_account: Callable[[str], tuple[str, str]]  # user id, access token

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        timeout_s: float = 60.0,
    ) -> Any:
        """A request; the decoded answer.  Raises Refused."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=timeout_s)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        payload = None
        if body is not None:
            payload, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            connection.request(method, path, payload, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        found = json.loads(text) if text else None
        if answer.status != 200:
            raise Refused(answer.status, found, f"{method} {path}")
        return found

    def person(self, localpart: str) -> Person:
        """A new account, whose name is made unique."""
        user_id, token = self.make_account(f"{localpart}{next(_serial)}")
        return Person(self, user_id, token)


@frozen(eq=False)
class Person:
    """A user of one side."""

    side: Side
    user_id: str
    token: str

    def request(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """A request under ``/_matrix/client/v3``."""
        return self.side.request(
            method, f"/_matrix/client/v3{path}", body, token=self.token, **more
        )

    # --- rooms

    def create_room(self, version: str = "12", **wanted: Any) -> str:
        """A new room, which anybody may join unless told otherwise."""
        body = {"preset": "public_chat", "room_version": version, **wanted}
        return str(self.request("POST", "/createRoom", body)["room_id"])

    def join(self, room: str, via: Side | None = None) -> None:
        """Join."""
        query = "" if via is None else "?" + urlencode({"server_name": via.name, "via": via.name})
        self.request("POST", f"/join/{quote(room)}{query}", {})

    def knock(self, room: str, via: Side) -> None:
        """Ask to be let in."""
        query = urlencode({"server_name": via.name, "via": via.name})
        self.request("POST", f"/knock/{quote(room)}?{query}", {})

    def leave(self, room: str) -> None:
        """Leave, or refuse an invitation."""
        self.request("POST", f"/rooms/{quote(room)}/leave", {})

    def upon(self, what: str, room: str, target: Person, **more: Any) -> None:
        """Invite, kick, ban, unban."""
        body = {"user_id": target.user_id, **more}
        self.request("POST", f"/rooms/{quote(room)}/{what}", body)

    def say(self, room: str, body: str) -> str:
        """A message; its event id."""
        return self.send(room, "m.room.message", {"msgtype": "m.text", "body": body})

    def send(self, room: str, kind: str, content: Event) -> str:
        """An event; its id."""
        path = f"/rooms/{quote(room)}/send/{kind}/t{next(_serial)}"
        return str(self.request("PUT", path, content)["event_id"])

    def set_state(self, room: str, kind: str, content: Event, key: str = "") -> str:
        """A state event; its id."""
        path = f"/rooms/{quote(room)}/state/{kind}/{quote(key, safe='')}"
        return str(self.request("PUT", path, content)["event_id"])

    def redact(self, room: str, event_id: str) -> str:
        """A redaction; its id."""
        path = f"/rooms/{quote(room)}/redact/{quote(event_id)}/t{next(_serial)}"
        return str(self.request("PUT", path, {})["event_id"])

    # --- looking

    def state(self, room: str) -> dict[Key, str]:
        """The ids of the room's state."""
        found = self.request("GET", f"/rooms/{quote(room)}/state")
        return {(event["type"], event["state_key"]): event["event_id"] for event in found}

    def content(self, room: str, kind: str, key: str = "") -> Event:
        """The content of a state event."""
        path = f"/rooms/{quote(room)}/state/{kind}/{quote(key, safe='')}"
        found: Event = self.request("GET", path)
        return found

    def membership(self, room: str, whose: Person) -> str | None:
        """Somebody's membership as this user sees it; None for one who has none."""
        try:
            return str(self.content(room, "m.room.member", whose.user_id)["membership"])
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def event(self, room: str, event_id: str) -> Event | None:
        """An event; None while the server does not have it, or does not show it."""
        try:
            found: Event = self.request("GET", f"/rooms/{quote(room)}/event/{quote(event_id)}")
        except Refused as refused:
            if refused.status in (403, 404):
                return None
            raise
        return found

    def history(self, room: str, limit: int = 50) -> Iterator[Event]:
        """All messages back to the beginning, newest first."""
        start = ""
        while True:
            path = f"/rooms/{quote(room)}/messages?dir=b&limit={limit}{start}"
            page = self.request("GET", path)
            yield from page["chunk"]
            if "end" not in page:
                return
            start = f"&from={quote(page['end'])}"

    def sync(self, since: str | None = None, **more: Any) -> Any:
        """One call of sync without waiting.

        A first one has a timeout of its own, which does nothing: Synapse gives the same answer to
        the same question for two minutes.
        """
        query = {"timeout": next(_serial)} if since is None else {"timeout": 0, "since": since}
        query |= more
        return self.request("GET", f"/sync?{urlencode(query)}")

    def section(self, kind: str, room: str) -> Any:
        """What an initial sync tells of a room under "join", "invite", "leave" or "knock"."""
        return self.sync().get("rooms", {}).get(kind, {}).get(room)

    def sees(self, room: str, event_id: str) -> None:
        """Wait until the event is here."""
        eventually(lambda: self.event(room, event_id), f"{self.user_id} sees {event_id}")


@define(eq=False)
class Pair:
    """Both servers, with the processes behind them."""

    ours: Side
    theirs: Side
    server: Server
    synapse: SynapsePeer
    gates: tuple[Gate, ...]
    ca: TestCA = field(repr=False)

    def sides(self, first: str) -> tuple[Side, Side]:
        """Both, ours first or theirs first."""
        return (self.ours, self.theirs) if first == "ours" else (self.theirs, self.ours)

    @contextmanager
    def split(self) -> Iterator[None]:
        """While this lasts, neither server reaches the other."""
        for gate in self.gates:
            gate.shut()
        try:
            yield
        finally:
            for gate in self.gates:
                gate.reopen()

    @contextmanager
    def down(self, which: str) -> Iterator[None]:
        """While this lasts, one of the servers does not run."""
        process = self.server if which == "ours" else self.synapse
        process.stop()
        try:
            yield
        finally:
            process.start()

    def agree(self, room: str, *people: Person, within_s: float = PATIENCE_S) -> dict[Key, str]:
        """Wait until members on both sides see the same state, and return it."""
        states: list[dict[Key, str]] = []

        def same() -> bool:
            states[:] = [each.state(room) for each in people]
            return all(state == states[0] for state in states)

        give_up = time.monotonic() + within_s
        while not same():
            if time.monotonic() > give_up:
                keys = {*states[0], *states[1]}
                wrong = {
                    key: [state.get(key) for state in states]
                    for key in keys
                    if states[0].get(key) != states[1].get(key)
                }
                raise AssertionError(f"the states differ: {wrong}")
            time.sleep(LOOK_EVERY_S)
        return states[0]


@contextmanager
def our_server(folder: Path, ca: TestCA, **sections: Any) -> Iterator[tuple[Server, Side, Gate]]:
    """A server of ours that trusts the authority and dials loopback; others reach it by a gate.

    `sections` of the configuration are put over these.
    """
    folder.mkdir(parents=True, exist_ok=True)
    front, back = _two_ports(OUR_ADDRESS)
    name = f"{front[0]}:{front[1]}"
    chain, key = ca.issue(OUR_ADDRESS, "localhost", folder=folder)
    settings = {
        "listen": {"https": [f"{back[0]}:{back[1]}"]},
        "tls": {"mode": "files", "cert": str(chain), "key": str(key)},
        "outbound": {
            "extra_ca_files": [str(ca.cert_path)],
            "allow_private_addresses": True,
            "srv_lookups": False,
            "backoff_max_seconds": 1,
            **sections.pop("outbound", {}),
        },
        **sections,
    }
    with Gate(front, back) as gate, running_server(folder, settings, name=name) as server:

        def register(localpart: str) -> tuple[str, str]:
            body = {
                "username": localpart,
                "password": "a long password",
                "auth": {"type": "m.login.dummy"},
            }
            made = side.request("POST", "/_matrix/client/v3/register", body)
            return made["user_id"], made["access_token"]

        side = Side(name, "127.0.0.1", server.port, register)
        yield server, side, gate


def _two_ports(address: str) -> tuple[tuple[str, int], tuple[str, int]]:
    return (address, free_port(address)), (address, free_port(address))


@contextmanager
def a_synapse(
    folder: Path, ca: TestCA, **settings: Any
) -> Iterator[tuple[SynapsePeer, Side, Gate]]:
    """A Synapse, which others reach by a gate; `settings` replace those it has otherwise."""
    front, back = (
        (THEIR_ADDRESS, free_port(THEIR_ADDRESS)),
        (THEIR_ADDRESS, free_port(THEIR_ADDRESS)),
    )
    client_port = free_port(THEIR_ADDRESS)
    plain = {
        "port": client_port,
        "bind_addresses": [THEIR_ADDRESS],
        "type": "http",
        "resources": [{"names": ["client"], "compress": False}],
    }
    secure = {
        "port": back[1],
        "bind_addresses": [THEIR_ADDRESS],
        "type": "http",
        "tls": True,
        "resources": [{"names": ["federation"], "compress": False}],
    }
    peer = SynapsePeer(
        folder,
        VENV,
        ca=ca,
        server_name=f"{front[0]}:{front[1]}",
        address=THEIR_ADDRESS,
        client_port=client_port,
        federation_port=front[1],
        extra_config={"listeners": [plain, secure], **settings},
    )

    def register(localpart: str) -> tuple[str, str]:
        made = peer.register(localpart)
        return made.user_id, made.access_token

    with Gate(front, back) as gate, peer:
        yield peer, Side(str(peer.server_name), THEIR_ADDRESS, client_port, register), gate


@contextmanager
def federating(folder: Path, **settings: Any) -> Iterator[Pair]:
    """Both servers, running; `settings` are Synapse's."""
    ca = TestCA(folder / "ca")
    with (
        our_server(folder / "ours", ca) as (server, ours, our_gate),
        a_synapse(folder / "synapse", ca, **settings) as (peer, theirs, their_gate),
    ):
        yield Pair(ours, theirs, server, peer, (our_gate, their_gate), ca)


def together(pair: Pair, first: str, version: str, **wanted: object) -> tuple[Person, Person, str]:
    """A creator, somebody of the other side who has joined, and the room."""
    here, there = pair.sides(first)
    alice, bob = here.person("alice"), there.person("bob")
    room = alice.create_room(version, **wanted)
    bob.join(room, via=here)
    return alice, bob, room
