"""How long it takes to join a room of many members, and how much memory.

    python -m tests.federation.large_room --members 20000 [--full]

A server made by hand has a room of that many members, all of them true.  Ours joins it, once
without its members (unless `--full`), and the first message is sent as soon as the join is
answered.  Memory is that of our server's process, looked at every 20 ms, beyond what it had before.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from matrixbox.core.events import parse_event
from matrixbox.core.room_versions import ROOM_VERSIONS
from matrixbox.core.signing import hash_and_sign_event
from tests.federation.hostile import Asked, Foe, hostile
from tests.federation.pair import OUR_ADDRESS, Person, our_server
from tests.peers.synapse_peer import TestCA

MIB = 1024 * 1024
GIVE_UP_S = 300.0
VERSION = "11"
_PAGE = os.sysconf("SC_PAGESIZE")


@define(eq=False)
class Crowd:
    """A public room of many members on a hand-made server, and its answers."""

    foe: Foe
    members: int
    omit: bool
    room_id: str = ""
    events: dict[str, bytes] = field(factory=dict)  # by id, in order
    basic: list[str] = field(factory=list)  # those that are no memberships, but for the creator's
    last: str = ""
    answered_at: float = 0.0

    def build(self) -> None:
        """Make all events."""
        foe, rules = self.foe, ROOM_VERSIONS[VERSION]
        creator = foe.user("creator")
        self.room_id = f"!crowd{time.monotonic_ns()}:{foe.name}"
        create = self.add("m.room.create", creator, "", {"room_version": VERSION}, [])
        me = self.add("m.room.member", creator, creator, {"membership": "join"}, [create])
        levels = self.add(
            "m.room.power_levels", creator, "", {"users": {creator: 100}}, [create, me]
        )
        auth = [create, levels, me]
        rule = self.add("m.room.join_rules", creator, "", {"join_rule": "public"}, auth)
        name = self.add("m.room.name", creator, "", {"name": "A crowd"}, auth)
        self.basic = [create, me, levels, rule, name]
        for index in range(self.members):
            user = foe.user(f"member_of_the_crowd_{index}")
            content = {
                "membership": "join",
                "displayname": f"Member number {index} of the crowd",
                "avatar_url": f"mxc://{foe.name}/abcdefghijklmnopqrstuvwx{index}",
            }
            self.add("m.room.member", user, user, content, [create, levels, rule])
        assert rules.version == VERSION
        self._answers()

    def add(
        self, kind: str, sender: str, key: str, content: dict[str, Any], auth: list[str]
    ) -> str:
        """One event at the end."""
        rules = ROOM_VERSIONS[VERSION]
        pdu = {
            "type": kind,
            "room_id": self.room_id,
            "sender": sender,
            "state_key": key,
            "content": content,
            "depth": len(self.events) + 1,
            "origin_server_ts": int(time.time() * 1000),
            "prev_events": [self.last] if self.last else [],
            "auth_events": auth,
        }
        event = parse_event(rules, hash_and_sign_event(rules, pdu, self.foe.name, self.foe.key))
        self.events[event.event_id] = json.dumps(event.json).encode()
        self.last = event.event_id
        return event.event_id

    def _answers(self) -> None:
        answers = self.foe.answers
        answers["GET", "/make_join/"] = self.make_join
        answers["PUT", "/send_join/"] = self.send_join
        answers["GET", "/state_ids/"] = self.state_ids
        answers["GET", "/state/"] = self.state
        answers["GET", "/event/"] = self.event

    def make_join(self, asked: Asked) -> tuple[int, Any]:
        """A template."""
        user = asked.segments[6]
        create, _, levels, rule, _ = self.basic
        event = {
            "type": "m.room.member",
            "room_id": self.room_id,
            "sender": user,
            "state_key": user,
            "content": {"membership": "join"},
            "depth": len(self.events) + 1,
            "prev_events": [self.last],
            "auth_events": [create, levels, rule],
        }
        return 200, {"room_version": VERSION, "event": event}

    def send_join(self, asked: Asked) -> tuple[int, Any]:
        """The state, with or without members."""
        omit = self.omit and asked.query.get("omit_members") == ["true"]
        chosen = [self.basic[index] for index in (0, 2, 3, 4)] if omit else [*self.events]
        chain = [self.basic[1]] if omit else self.basic
        head = {
            "event": asked.body,
            "members_omitted": omit,
            "servers_in_room": [self.foe.name] if omit else None,
        }
        body = json.dumps(head).encode()[:-1]
        body += b',"state":[%b],"auth_chain":[%b]}' % (self._list(chosen), self._list(chain))
        self.answered_at = time.monotonic()
        return 200, body

    def state_ids(self, _: Asked) -> tuple[int, Any]:
        """The names of all."""
        return 200, {"pdu_ids": [*self.events], "auth_chain_ids": self.basic}

    def state(self, _: Asked) -> tuple[int, Any]:
        """All of it."""
        lists = self._list([*self.events]), self._list(self.basic)
        return 200, b'{"pdus":[%b],"auth_chain":[%b]}' % lists

    def event(self, asked: Asked) -> tuple[int, Any]:
        """One of them."""
        found = self.events[asked.segments[-1]]
        head = {"origin": self.foe.name, "origin_server_ts": int(time.time() * 1000)}
        return 200, json.dumps(head).encode()[:-1] + b',"pdus":[%b]}' % found

    def _list(self, ids: list[str]) -> bytes:
        return b",".join([self.events[event_id] for event_id in ids])


@frozen
class Measured:
    """What a join took."""

    joined_s: float  # from the answer's beginning to that of our server to its client
    sent_s: float  # until the first message was sent
    whole_s: float  # until all members were known
    joined_mib: float  # memory until the first message was sent
    whole_mib: float  # until all members were known
    slowest_s: float  # the slowest answer to another client meanwhile


@define(eq=False)
class Watch:
    """The most memory of a process since it was last asked."""

    pid: int
    most: int = 0
    _done: bool = False

    def look(self) -> int:
        """Resident bytes now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE

    def run(self) -> None:
        """Look often."""
        while not self._done:
            self.most = max(self.most, self.look())
            time.sleep(0.02)

    def stop(self) -> None:
        """Look no more."""
        self._done = True


@define(eq=False)
class Other:
    """A client that does something else meanwhile."""

    person: Person
    room: str
    slowest_s: float = 0.0
    _done: bool = False

    def run(self) -> None:
        """Send messages."""
        while not self._done:
            began = time.monotonic()
            self.person.say(self.room, "still here")
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            time.sleep(0.05)

    def stop(self) -> None:
        """Be silent."""
        self._done = True


@contextmanager
def running(*tasks: Any) -> Iterator[None]:
    """Something in threads of its own."""
    threads = [threading.Thread(target=task.run, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for task in tasks:
            task.stop()
        for thread in threads:
            thread.join()


def measure(folder: Path, members: int, *, omit: bool) -> Measured:
    """Join a room of so many members."""
    ca = TestCA(folder / "ca")
    with our_server(folder / "ours", ca) as (server, side, _):
        port = int(side.name.rpartition(":")[2])
        with hostile(folder / "foe", ca, side.name, (OUR_ADDRESS, port)) as foe:
            crowd = Crowd(foe, members, omit)
            crowd.build()
            ann, bob = side.person("ann"), side.person("bob")
            room = bob.create_room(VERSION)
            bob.say(room, "first")
            time.sleep(0.5)
            watch, other = Watch(server.pid), Other(bob, room)
            before = watch.look()
            with running(watch, other):
                ann.request("POST", f"/join/{crowd.room_id}?via={foe.name}", {}, timeout_s=900)
                joined_s = time.monotonic() - crowd.answered_at
                ann.say(crowd.room_id, "hello")
                sent_s = time.monotonic() - crowd.answered_at
                joined_mib = (watch.most - before) / MIB
                while _count(ann, crowd.room_id) < members:
                    assert time.monotonic() < crowd.answered_at + GIVE_UP_S, server.log_tail()
                    time.sleep(0.1)
                whole_s = time.monotonic() - crowd.answered_at
            whole_mib = (watch.most - before) / MIB
            return Measured(joined_s, sent_s, whole_s, joined_mib, whole_mib, other.slowest_s)


def _count(who: Person, room: str) -> int:
    lazy = '{"room":{"timeline":{"limit":1},"state":{"lazy_load_members":true}}}'
    found = who.request("GET", f"/sync?filter={lazy.replace(' ', '')}")
    summary = found["rooms"]["join"][room]["summary"]
    return int(summary["m.joined_member_count"])


def main() -> None:
    """Measure once, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=20_000)
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(measure(Path(folder), given.members, omit=not given.full))


if __name__ == "__main__":
    main()
