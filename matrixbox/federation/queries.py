"""Questions to other servers about what is not a room's graph: aliases, profiles, directories,
summaries of rooms, the event nearest to a time.

Matrix v1.19, Server-Server API, "Querying for information", "Published room directory", "Spaces",
"Retrieving events" ([B11.05], [B13.01] to [B13.03]).  Every call raises RemoteError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio
from attrs import define, field, frozen

from matrixbox.core.identifiers import (
    EventId,
    InvalidIdentifier,
    RoomAlias,
    RoomId,
    ServerName,
    UserId,
    parse_event_id,
    parse_room_id,
    parse_server_name,
    server_of,
)
from matrixbox.core.json import Json, encode
from matrixbox.errors import RemoteError, RemoteInvalid, RemoteRefused
from matrixbox.federation import summaries
from matrixbox.federation.client import SMALL_LIMITS, FederationClient, target
from matrixbox.federation.summaries import Space
from matrixbox.store.caches import Lru

MAX_SERVERS = 50  # taken from one answer
MAX_TOKEN = 500  # characters of another server's pagination token
KEPT_S = 300.0  # how long answers about profiles and spaces are good
MAX_PROFILE_BYTES = 8 * 1024  # larger ones are asked for anew each time
MAX_SPACE_BYTES = 32 * 1024  # likewise


@frozen
class AliasTarget:
    """The room behind an alias, and servers that may be in it."""

    room_id: RoomId
    servers: tuple[ServerName, ...]


@frozen
class Nearest:
    """An event and its time in ms, both of them claims."""

    event_id: EventId
    origin_server_ts: int


@define(eq=False)
class Queries:
    """Asks other servers, and remembers profiles and spaces for a few minutes."""

    client: FederationClient
    _profiles: Lru[UserId, tuple[float, Mapping[str, Json]]] = field(factory=lambda: Lru(500))
    _spaces: Lru[tuple[RoomId, bool], tuple[float, Space]] = field(factory=lambda: Lru(50))

    async def alias(self, alias: RoomAlias) -> AliasTarget:
        """The room behind an alias, asked of the alias' server ([B13.01])."""
        server = server_of(alias)
        uri = target("v1", "query", "directory", query=[("room_alias", alias)])
        answer = await self.client.get_json(server, uri, limits=SMALL_LIMITS)
        room_id, named = answer.get("room_id"), answer.get("servers")
        try:
            found = parse_room_id(room_id if isinstance(room_id, str) else "")
        except InvalidIdentifier as error:
            raise RemoteInvalid(server, "it names no room for its alias") from error
        return AliasTarget(found, tuple(_servers(named)))

    async def profile(self, user_id: UserId) -> Mapping[str, Json]:
        """A user's profile; RemoteRefused with 404 where there is no such user ([C15.01])."""
        known = self._profiles.get(user_id)
        if known is not None and trio.current_time() < known[0]:
            return known[1]
        uri = target("v1", "query", "profile", query=[("user_id", user_id)])
        answer = await self.client.get_json(server_of(user_id), uri, limits=SMALL_LIMITS)
        # What is null is not set ([B13.01]).
        found = {key: value for key, value in answer.items() if value is not None}
        for key in ("displayname", "avatar_url"):
            if not isinstance(found.get(key, ""), str):
                del found[key]
        if len(encode(found)) <= MAX_PROFILE_BYTES:
            self._profiles.put(user_id, (trio.current_time() + KEPT_S, found))
        return found

    async def public_rooms(self, server: ServerName, wanted: Mapping[str, Json]) -> dict[str, Json]:
        """A page of another server's directory; `wanted` as in the body of POST ([B13.02])."""
        answer = await self.client.post_json(
            server, target("v1", "publicRooms"), wanted, limits=SMALL_LIMITS
        )
        page: dict[str, Json] = {"chunk": [*summaries.rooms(answer.get("chunk"))]}
        for key in ("next_batch", "prev_batch"):
            token = answer.get(key)
            if isinstance(token, str) and len(token) <= MAX_TOKEN:
                page[key] = token
        estimate = answer.get("total_room_count_estimate")
        if type(estimate) is int and estimate >= 0:
            page["total_room_count_estimate"] = estimate
        return page

    async def space(
        self, servers: Sequence[ServerName], room_id: RoomId, *, suggested_only: bool
    ) -> Space:
        """A room and its children, from the first server that knows it ([B13.03], [C12.09])."""
        known = self._spaces.get((room_id, suggested_only))
        if known is not None and trio.current_time() < known[0]:
            return known[1]
        failed: RemoteError = RemoteInvalid(room_id, "there is nobody to ask")
        for server in servers:
            try:
                found = await self._space(server, room_id, suggested_only=suggested_only)
            except RemoteError as error:
                failed = error
            else:
                if found.size <= MAX_SPACE_BYTES:
                    kept_until = trio.current_time() + KEPT_S
                    self._spaces.put((room_id, suggested_only), (kept_until, found))
                return found
        raise failed

    async def _space(self, server: ServerName, room_id: RoomId, *, suggested_only: bool) -> Space:
        query = [("suggested_only", "true" if suggested_only else "false")]
        uri = target("v1", "hierarchy", room_id, query=query)
        answer = await self.client.get_json(server, uri)
        found = summaries.space(answer, room_id)
        if found is None:
            raise RemoteInvalid(server, "its answer is not about the room")
        return found

    async def nearest(
        self, server: ServerName, room_id: RoomId, ts: int, *, back: bool
    ) -> Nearest | None:
        """The event nearest to a time that a server knows of; None for none ([B11.05])."""
        query = [("ts", str(ts)), ("dir", "b" if back else "f")]
        uri = target("v1", "timestamp_to_event", room_id, query=query)
        try:
            answer = await self.client.get_json(server, uri, limits=SMALL_LIMITS)
        except RemoteRefused as error:
            if error.status == 404:
                return None
            raise
        event_id, sent = answer.get("event_id"), answer.get("origin_server_ts")
        try:
            found = parse_event_id(event_id if isinstance(event_id, str) else "")
        except InvalidIdentifier as error:
            raise RemoteInvalid(server, "it names no event") from error
        if type(sent) is not int or (sent > ts if back else sent < ts):
            raise RemoteInvalid(server, "the event is not on the side that was asked for")
        return Nearest(found, sent)


def _servers(named: Json) -> list[ServerName]:
    found: dict[ServerName, None] = {}
    for one in (named if isinstance(named, list) else [])[:MAX_SERVERS]:
        try:
            found[parse_server_name(one if isinstance(one, str) else "")] = None
        except InvalidIdentifier:
            continue  # one bad name is no reason to do without the others
    return [*found]
