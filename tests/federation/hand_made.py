"""A room on a hand-made server: its events, its template for a join, its answer to one."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from attrs import define, field

from matrixbox.core.auth import select_auth_keys
from matrixbox.core.events import Event, parse_event
from matrixbox.core.identifiers import RoomId
from matrixbox.core.room_versions import ROOM_VERSIONS, RoomRules
from matrixbox.core.signing import citation, hash_and_sign_event, sign_redacted
from matrixbox.federation.transport import Request
from tests.federation.towns import FakeServer

_serial = count()


@define(eq=False)
class HandMadeRoom:
    """A public room of some version with its creator, and whoever else is let in by hand."""

    server: FakeServer
    version: str = "12"
    join_rule: str = "public"
    rules: RoomRules = field(init=False)
    room_id: RoomId = field(init=False)
    events: list[Event] = field(factory=list)
    state: dict[tuple[str, str], Event] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.rules = ROOM_VERSIONS[self.version]
        self.room_id = RoomId(f"!hand{next(_serial)}:{self.server.name}")
        content: dict[str, Any] = {"room_version": self.version, "serial": next(_serial)}
        if not self.rules.creator_is_sender:
            content["creator"] = self.creator
        self.add("m.room.create", content)
        self.room_id = self.events[0].room_id
        self.add("m.room.member", {"membership": "join"}, self.creator)
        users = {} if self.rules.privileged_creators else {self.creator: 100}
        self.add("m.room.power_levels", {"users": users})
        self.add("m.room.join_rules", {"join_rule": self.join_rule})

    @property
    def creator(self) -> str:
        """Who made the room."""
        return f"@creator:{self.server.name}"

    def pdu(
        self, kind: str, content: Any, key: str | None = "", sender: str | None = None
    ) -> dict[str, Any]:
        """An event at the room's end, not signed."""
        who = sender or (key if kind == "m.room.member" and key else self.creator)
        cited = select_auth_keys(self.rules, kind, who, key, content)
        auth = [self.state[one] for one in cited if one in self.state]
        made: dict[str, Any] = {
            "type": kind,
            "room_id": self.room_id,
            "sender": who,
            "content": content,
            "depth": len(self.events) + 1,
            "origin_server_ts": self.server.clock.now_ms(),
            "prev_events": [citation(self.events[-1])] if self.events else [],
            "auth_events": [citation(one) for one in auth],
        }
        if key is not None:
            made["state_key"] = key
        if kind == "m.room.create" and self.rules.room_id_is_create_hash:
            del made["room_id"]
        if self.rules.event_id_in_pdu:
            made["event_id"] = f"${len(self.events)}{kind}:{who.partition(':')[2]}"
        return made

    def signed(self, pdu: dict[str, Any]) -> dict[str, Any]:
        """Hashed and signed by the server."""
        return hash_and_sign_event(self.rules, pdu, self.server.name, self.server.key)

    def make(
        self, kind: str, content: Any, key: str | None = "", sender: str | None = None
    ) -> Event:
        """A signed event, which is not in the room yet."""
        return parse_event(self.rules, self.signed(self.pdu(kind, content, key, sender)))

    def add(
        self, kind: str, content: Any, key: str | None = "", sender: str | None = None
    ) -> Event:
        """An event of the room."""
        event = self.make(kind, content, key, sender)
        self.events.append(event)
        if key is not None:
            self.state[kind, key] = event
        return event

    # --- answers

    def open(self) -> None:
        """Let users of others in."""
        self.server.answers["make_join"] = self.template
        self.server.answers["send_join"] = self.take

    def template(self, request: Request, _: Any) -> dict[str, Any]:
        """The answer to make_join."""
        user = request.target.partition("?")[0].rpartition("/")[2]
        user = user.replace("%40", "@").replace("%3A", ":")
        event = self.pdu("m.room.member", {"membership": "join"}, user)
        return {"room_version": self.version, "event": event}

    def take(self, _: Request, body: Any) -> dict[str, Any]:
        """The answer to send_join."""
        return self.answer(body)

    def answer(self, join: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """State before a join, auth chain, and the join with this server's signature."""
        plain = [json.loads(json.dumps(event.json)) for event in self.state.values()]
        found: dict[str, Any] = {
            "state": plain,
            "auth_chain": plain,
            "event": sign_redacted(self.rules, join, self.server.name, self.server.key),
            "members_omitted": False,
        }
        return {**found, **changes}
