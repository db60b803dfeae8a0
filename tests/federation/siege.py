"""A server of ours under attack by a hostile server, and the three questions after each attack."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define

from matrixbox.core.events import Event, parse_event
from tests.federation.hostile import V1, V2, Foe, hostile, local_name
from tests.federation.pair import OUR_ADDRESS, Person, Side, eventually, our_server
from tests.peers.synapse_peer import TestCA
from tests.rooms.far import Graph
from tests.server import Server

MIB = 1024 * 1024
MARGIN_BYTES = 32 * MIB
ANSWER_WITHIN_S = 1.0
MEMORY_WITHIN_S = 60.0
_PAGE = os.sysconf("SC_PAGESIZE")


@define(eq=False)
class Siege:
    """Both sides, and a household client who must not notice anything."""

    server: Server
    side: Side
    foe: Foe
    ca: TestCA
    home: Person
    home_room: str
    folder: Path

    def memory(self) -> int:
        """Resident bytes of our server."""
        statm = Path(f"/proc/{self.server.pid}/statm").read_text()
        return int(statm.split()[1]) * _PAGE

    @contextmanager
    def survived(self, margin: int = MARGIN_BYTES) -> Iterator[None]:
        """After the attack inside: the household is answered within 1 s, memory is back, the
        process is the same one (section 4 of the threat catalogue)."""
        pid, before = self.server.pid, self.memory()
        yield
        started = time.monotonic()
        self.home.say(self.home_room, "still here")
        self.home.sync()
        took = time.monotonic() - started
        assert self.server.is_running
        assert self.server.pid == pid
        assert took < ANSWER_WITHIN_S, f"the household waited {took:.2f} s"
        give_up = time.monotonic() + MEMORY_WITHIN_S
        while (grown := self.memory() - before) > margin:
            assert time.monotonic() < give_up, f"{grown / MIB:.0f} MiB were not given back"
            time.sleep(0.2)

    @contextmanager
    def another(self, certificate: tuple[Path, Path] | None = None) -> Iterator[Foe]:
        """One more hostile server, which ours has never heard of."""
        folder = self.folder / f"foe{time.monotonic_ns()}"
        address = self.foe.victim_address
        with hostile(folder, self.ca, self.side.name, address, certificate=certificate) as foe:
            yield foe

    # --- common beginnings

    def joined(self, version: str, *members: str, **levels: object) -> tuple[Person, Graph]:
        """A user of ours who has joined a room of the hostile server."""
        alice = self.side.person("alice")
        graph = self.foe.room(version, *members, **levels)
        alice.request("POST", f"/join/{graph.room_id}?server_name={self.foe.name}", {})
        return alice, graph

    def hosted(self, version: str, **wanted: object) -> tuple[Person, Graph, str]:
        """A room of ours that mallory of the hostile server has joined; her graph of it."""
        alice = self.side.person("alice")
        room = alice.create_room(version, **wanted)
        graph = self.enter(room, self.foe.user("mallory"), version)
        mallory = Person(self.side, self.foe.user("mallory"), "")
        eventually(lambda: alice.membership(room, mallory) == "join", "mallory is in")
        return alice, graph, room

    def enter(self, room: str, user: str, version: str) -> Graph:
        """Join a room of our server as a user of the hostile one; what was learnt of it."""
        where = f"{local_name(room)}/{local_name(user)}"
        made = self.foe.request("GET", f"{V1}/make_join/{where}?ver={version}")
        assert made.status == 200, made
        graph = Graph(version, creator=self.foe.user("mallory"))
        template = {**made.body["event"], "origin_server_ts": int(time.time() * 1000)}
        if graph.rules.event_id_in_pdu:
            template["event_id"] = f"$join{time.monotonic_ns()}:{self.foe.name}"
        join = parse_event(graph.rules, graph.signed(template, self.foe.name))
        where = f"{local_name(room)}/{local_name(join.event_id)}"
        sent = self.foe.request("PUT", f"{V2}/send_join/{where}", dict(join.json))
        assert sent.status == 200, sent
        graph.room_id = join.room_id
        known = [
            parse_event(graph.rules, pdu)
            for pdu in (*sent.body["auth_chain"], *sent.body["state"], dict(join.json))
        ]
        self.learn(graph, known)
        self.foe.rooms[room] = graph
        return graph

    def learn(self, graph: Graph, known: list[Event]) -> None:
        """Take events into a graph whose past is not all known: they make its state as they are."""
        state = {}
        for event in sorted(known, key=lambda each: each.depth):
            if event.event_id in graph.events:
                continue
            graph.events[event.event_id] = event
            graph.before[event.event_id] = dict(state)
            if event.state_key is not None:
                state[event.type, event.state_key] = event.event_id
            graph.after[event.event_id] = dict(state)


@contextmanager
def besieged(folder: Path, **sections: Any) -> Iterator[Siege]:
    """Our server, with these sections of its configuration changed, and a hostile one."""
    ca = TestCA(folder / "ca")
    with our_server(folder / "ours", ca, **sections) as (server, side, _gate):
        port = int(side.name.rpartition(":")[2])
        with hostile(folder / "foe", ca, side.name, (OUR_ADDRESS, port)) as foe:
            home = side.person("home")
            room = home.create_room("12", preset="private_chat")
            home.sync()
            yield Siege(server, side, foe, ca, home, room, folder)
