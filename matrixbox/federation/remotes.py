"""What rooms ask of other servers, asked over the Server-Server API.

Matrix v1.19, Server-Server API, "Backfilling and retrieving missing events", "Retrieving events"
([B11]).  Only the outer shape of answers is checked here; a member of a list that is no strict JSON
is left out, for one bad PDU harms only itself (T085).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import cast

from attrs import define

from matrixbox.core.identifiers import (
    EventId,
    InvalidIdentifier,
    RoomId,
    ServerName,
    parse_event_id,
)
from matrixbox.core.json import FEDERATION, Json, JsonError, decode
from matrixbox.core.json_split import split_object
from matrixbox.core.room_versions import RoomRules
from matrixbox.errors import RemoteInvalid
from matrixbox.federation.client import (
    DECODE_IN_THREAD_OVER_BYTES,
    EVENTS_LIMITS,
    KIB,
    SMALL_LIMITS,
    STATE_IDS_LIMITS,
    STATE_LIMITS,
    FederationClient,
    Query,
    target,
)
from matrixbox.federation.transport import Limits
from matrixbox.rooms.remote import Pdu, State, StateIds

MAX_STATE_IDS = 100_000
"""Events of a state with their auth chains, as ids or as events."""
MAX_EVENTS = 500
"""Events of any other answer; with more it is refused."""
MAX_PDU_ON_WIRE_BYTES = 1024 * KIB
"""An event with its `unsigned`, written as wastefully as anybody does."""
_WINDOW_BYTES = 64 * KIB


@define(eq=False)
class RoomRemotes:
    """Implements rooms.remote.RoomRemote.  The numbers of all PDUs stay as they were written;
    parsing an event refuses those that its room version does not allow."""

    client: FederationClient

    async def event(self, server: ServerName, rules: RoomRules, event_id: EventId) -> Pdu:
        """One event, which may be another one than was asked for."""
        uri = target("v1", "event", event_id)
        found = await self._lists(server, uri, ("pdus",), SMALL_LIMITS, 10)
        pdus = _pdus(found["pdus"])
        if len(pdus) != 1:
            raise RemoteInvalid(server, "it did not answer with one event")
        return pdus[0]

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
    ) -> Sequence[Pdu]:
        """Events between some that we have and some whose parents we lack."""
        body: dict[str, Json] = {
            "earliest_events": list(earliest),
            "latest_events": list(latest),
            "limit": limit,
            "min_depth": min_depth,
        }
        uri = target("v1", "get_missing_events", room_id)
        found = await self._lists(server, uri, ("events",), EVENTS_LIMITS, MAX_EVENTS, body)
        return _pdus(found["events"])[:limit]

    async def state_ids(
        self, server: ServerName, rules: RoomRules, room_id: RoomId, at: EventId
    ) -> StateIds:
        """The state before an event, by ids."""
        uri = target("v1", "state_ids", room_id, query=[("event_id", at)])
        answer = await self.client.get_json(server, uri, limits=STATE_IDS_LIMITS)
        state, chain = answer.get("pdu_ids"), answer.get("auth_chain_ids")
        if not isinstance(state, list) or not isinstance(chain, list):
            raise RemoteInvalid(server, "its answer has no lists of events")
        if len(state) + len(chain) > MAX_STATE_IDS:
            raise RemoteInvalid(server, "its answer has too many events")
        return StateIds(_ids(state), _ids(chain))

    async def state(
        self, server: ServerName, rules: RoomRules, room_id: RoomId, at: EventId
    ) -> State:
        """The state before an event, with all events."""
        uri = target("v1", "state", room_id, query=[("event_id", at)])
        keys = ("pdus", "auth_chain")
        found = await self._lists(server, uri, keys, STATE_LIMITS, MAX_STATE_IDS)
        return State(tuple(_pdus(found["pdus"])), tuple(_pdus(found["auth_chain"])))

    async def event_auth(
        self, server: ServerName, rules: RoomRules, room_id: RoomId, event_id: EventId
    ) -> Sequence[Pdu]:
        """The auth chain of an event."""
        uri = target("v1", "event_auth", room_id, event_id)
        found = await self._lists(server, uri, ("auth_chain",), STATE_LIMITS, MAX_STATE_IDS)
        return _pdus(found["auth_chain"])

    async def backfill(
        self,
        server: ServerName,
        rules: RoomRules,
        room_id: RoomId,
        *,
        before: Sequence[EventId],
        limit: int,
    ) -> Sequence[Pdu]:
        """Events that come before some, those included; newest first if the server is kind."""
        query: Query = [*(("v", event_id) for event_id in before), ("limit", str(limit))]
        uri = target("v1", "backfill", room_id, query=query)
        found = await self._lists(server, uri, ("pdus",), EVENTS_LIMITS, MAX_EVENTS)
        return _pdus(found["pdus"])[: limit + len(before)]

    async def _lists(
        self,
        server: ServerName,
        uri: str,
        keys: Sequence[str],
        limits: Limits,
        most: int,
        body: Mapping[str, Json] | None = None,
    ) -> Mapping[str, list[Json]]:
        """The members of lists in an answer; a list that is not there is empty."""
        method = "GET" if body is None else "POST"
        data = await self.client.fetch_bytes(method, server, uri, body, limits=limits)
        try:
            if len(data) > DECODE_IN_THREAD_OVER_BYTES:
                return await self.client.offload(_split, data, tuple(keys), most)
            return _split(data, tuple(keys), most)
        except JsonError as error:
            raise RemoteInvalid(server, f"its answer is not acceptable JSON: {error}") from error


def _split(data: bytes, keys: tuple[str, ...], most: int) -> dict[str, list[Json]]:
    """The members of lists, each read for itself; those that cannot be read are left out."""
    windows = (data[at : at + _WINDOW_BYTES] for at in range(0, len(data), _WINDOW_BYTES))
    found: dict[str, list[Json]] = {key: [] for key in keys}
    other_keys = 50  # are passed over
    pieces = split_object(
        windows, keys, max_piece=MAX_PDU_ON_WIRE_BYTES, max_pieces=most + other_keys
    )
    for piece in pieces:
        members = found.get(piece.key)
        if members is not None:
            with suppress(JsonError):  # the others are none the worse for it
                members.append(decode(piece.data, FEDERATION))
    return found


def _pdus(values: Sequence[Json]) -> list[Pdu]:
    return [cast(Pdu, value) for value in values if isinstance(value, dict)]


def _ids(values: Sequence[Json]) -> tuple[EventId, ...]:
    found: dict[EventId, None] = {}
    for value in values:
        try:
            found[parse_event_id(value if isinstance(value, str) else "")] = None
        except InvalidIdentifier:
            continue  # nothing that could be fetched
    return tuple(found)
