"""Rooms and events for tests: events are built and parsed for real, but not signed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matrixbox.core.auth import NotAllowed, check_auth, check_auth_events, select_auth_keys
from matrixbox.core.events import CREATE, Event, StateMap, parse_event
from matrixbox.core.identifiers import EventId, RoomId
from matrixbox.core.room_versions import ROOM_VERSIONS

CREATOR = "@creator:one.test"
VERSIONS = tuple(ROOM_VERSIONS)


def versions(first: int, last: int = 12) -> tuple[str, ...]:
    """The room versions from `first` to `last`."""
    return tuple(map(str, range(first, last + 1)))


class Room:
    """A room whose events are put together by hand; also the event graph of those events.

    Nothing is authorised on the way: what a test puts into the state is in it.
    """

    def __init__(self, version: str, **create_content: Any) -> None:
        self.rules = ROOM_VERSIONS[version]
        self.version = version
        self.events: dict[EventId, Event] = {}
        self.rejected: set[EventId] = set()
        self.state: dict[tuple[str, str], Event] = {}
        self.room_id = RoomId("!room:one.test")
        self._made = 0
        content = {"room_version": version, "creator": CREATOR, **create_content}
        self.create = self.put("m.room.create", content, sender=CREATOR, key="")
        self.room_id = self.create.room_id

    # --- making events

    def pdu(
        self,
        type_: str,
        content: Any,
        *,
        sender: str,
        key: str | None = None,
        auth: Iterable[Event] | None = None,
        prev: Sequence[Event] | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """The wire form of an event; `fields` overrides, None takes a field away."""
        self._made += 1
        is_create = type_ == "m.room.create"
        if auth is None:
            auth = self.selected(type_, sender, key, content)
        if prev is None:
            prev = [] if is_create else [self.last_made()]
        pdu: dict[str, Any] = {
            "type": type_,
            "sender": sender,
            "content": content,
            "room_id": self.room_id,
            "depth": self._made,
            "origin_server_ts": 1000 * self._made,
            "auth_events": [self._cite(event) for event in auth],
            "prev_events": [self._cite(event) for event in prev],
            # What makes events with the same content different.
            "hashes": {"sha256": f"hash{self._made}"},
            "signatures": {"one.test": {"ed25519:1": "c2lnbmF0dXJl"}},
        }
        if key is not None:
            pdu["state_key"] = key
        if self.rules.event_id_in_pdu:
            pdu["event_id"] = f"$event{self._made}:one.test"
        if is_create and self.rules.room_id_is_create_hash:
            del pdu["room_id"]
        pdu.update(fields)
        return {name: value for name, value in pdu.items() if value is not None}

    def make(self, type_: str, content: Any, **how: Any) -> Event:
        """An event that is known but not in the state."""
        event = parse_event(self.rules, self.pdu(type_, content, **how))
        self.events[event.event_id] = event
        return event

    def put(self, type_: str, content: Any, *, key: str, **how: Any) -> Event:
        """A state event that is in the state from now on."""
        event = self.make(type_, content, key=key, **how)
        self.state[type_, key] = event
        return event

    def member(self, user: str, membership: str, *, by: str | None = None, **content: Any) -> Event:
        """Put a membership into the state."""
        body = {"membership": membership, **content}
        return self.put("m.room.member", body, sender=by or user, key=user)

    def levels(self, *, by: str = CREATOR, **content: Any) -> Event:
        """Put power levels into the state; up to version 11 the creator stays at 100."""
        return self.put("m.room.power_levels", self.level_content(content), sender=by, key="")

    def level_content(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Power levels that leave the creator in power."""
        powers = {} if self.rules.privileged_creators else {CREATOR: 100}
        return {**content, "users": {**powers, **content.get("users", {})}}

    def join_rule(self, rule: Any, *, by: str = CREATOR) -> Event:
        """Put a join rule into the state."""
        return self.put("m.room.join_rules", {"join_rule": rule}, sender=by, key="")

    def selected(self, type_: str, sender: str, key: str | None, content: Any) -> list[Event]:
        """The events that auth events selection names in the present state."""
        body = content if isinstance(content, dict) else {}
        keys = select_auth_keys(self.rules, type_, sender, key, body)
        return [self.state[found] for found in keys if found in self.state]

    def last_made(self) -> Event:
        return next(reversed(self.events.values()))

    def _cite(self, event: Event) -> Any:
        return [event.event_id, {"sha256": "x"}] if self.rules.event_id_in_pdu else event.event_id

    # --- questions

    def verdict(self, event: Event, state: StateMap | None = None) -> str | None:
        """Why the state (the present one) does not allow an event; None if it does."""
        try:
            check_auth(self.rules, event, self.state if state is None else state)
        except NotAllowed as error:
            return error.reason
        return None

    def citations_verdict(
        self, event: Event, auth_events: Sequence[Event], create: Event | None = None
    ) -> str | None:
        """Why the auth events of an event do not do; None if they do."""
        try:
            check_auth_events(self.rules, event, auth_events, self.is_rejected, create)
        except NotAllowed as error:
            return error.reason
        return None

    def snapshot(self) -> dict[tuple[str, str], EventId]:
        """The present state as state resolution takes it."""
        return {key: event.event_id for key, event in self.state.items()}

    # --- the event graph

    def event(self, event_id: EventId) -> Event | None:
        return self.events.get(event_id)

    def auth_event_ids(self, event_id: EventId) -> Sequence[EventId]:
        return self.events[event_id].auth_event_ids

    def is_rejected(self, event_id: EventId) -> bool:
        return event_id in self.rejected


def standard_room(version: str) -> Room:
    """A public room with a creator, a moderator (50), two members and somebody outside."""
    room = Room(version)
    room.member(CREATOR, "join")
    room.levels(users={"@mod:one.test": 50, "@half:two.test": 25})
    room.join_rule("public")
    for user in ("@mod:one.test", "@half:two.test", "@bob:two.test", "@carol:one.test"):
        room.member(user, "join")
    return room


__all__ = ["CREATE", "CREATOR", "VERSIONS", "Room", "standard_room", "versions"]
