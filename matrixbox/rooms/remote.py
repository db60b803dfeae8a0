"""What rooms ask of other servers; ``federation`` implements it.

PDUs come as decoded JSON objects of the right outer shape and nothing more: format, hashes and
signatures are checked by who asked.  All calls raise RemoteError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

from attrs import frozen

from matrixbox.core.identifiers import EventId, RoomId, ServerName
from matrixbox.core.json import Json
from matrixbox.core.room_versions import RoomRules

Pdu = Mapping[str, Json]


@frozen
class StateIds:
    """The state before an event, by the ids of its events, and their auth chains."""

    state: tuple[EventId, ...]
    auth_chain: tuple[EventId, ...]


@frozen
class State:
    """The state before an event, with the events' auth chains."""

    state: tuple[Pdu, ...]
    auth_chain: tuple[Pdu, ...]


class RoomRemote(Protocol):
    """Calls of the Server-Server API about one room; `rules` decide how numbers are read."""

    async def event(self, server: ServerName, rules: RoomRules, event_id: EventId) -> Pdu: ...

    async def missing_events(
        self,
        server: ServerName,
        rules: RoomRules,
        room_id: RoomId,
        *,
        earliest: Sequence[EventId],
        latest: Sequence[EventId],
        limit: int,
        min_depth: int = 0,
    ) -> Sequence[Pdu]: ...

    async def state_ids(
        self, server: ServerName, rules: RoomRules, room_id: RoomId, at: EventId
    ) -> StateIds: ...

    async def state(
        self, server: ServerName, rules: RoomRules, room_id: RoomId, at: EventId
    ) -> State: ...

    async def event_auth(
        self, server: ServerName, rules: RoomRules, room_id: RoomId, event_id: EventId
    ) -> Sequence[Pdu]: ...

    async def backfill(
        self,
        server: ServerName,
        rules: RoomRules,
        room_id: RoomId,
        *,
        before: Sequence[EventId],
        limit: int,
    ) -> Sequence[Pdu]: ...


class Signed(Enum):
    """What is known about the signatures of a PDU."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"  # keys could not be had: nothing may be concluded, ask again later


class Verifier(Protocol):
    """Checks signatures of PDUs with the keys of the servers that must have signed them."""

    async def verify(self, rules: RoomRules, pdus: Sequence[Pdu]) -> Sequence[Signed]:
        """For each PDU whether it bears every signature that its room version asks for, made with
        keys that were valid at its time from room version 5 on ([A4.11], T053)."""
        ...
