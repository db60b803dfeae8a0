"""Walks through spaces on behalf of a user, also into rooms that we are not in.

Matrix v1.19, Client-Server API, "Spaces", "Room summaries" ([C12.05] to [C12.09], T107).  What we
know ourselves goes before what others say.  The walk is depth first, visits each room once, and
stops after a page; where it stopped is remembered for a while under the page's token.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import trio
from attrs import define, evolve, field, frozen

from matrixbox.core.identifiers import InvalidIdentifier, RoomId, ServerName, parse_server_name
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden, InvalidParam, NotFound, RemoteError
from matrixbox.federation.queries import Queries
from matrixbox.observe import log
from matrixbox.rooms import servers, spaces
from matrixbox.rooms.spaces import Summary
from matrixbox.store import names
from matrixbox.store.caches import Lru
from matrixbox.store.database import Store
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

MAX_LIMIT = 50  # rooms on one page
MAX_DEPTH = 20
MAX_ROOMS = 5_000  # of one walk
MAX_WALKS = 30  # that can be gone on with
MAX_TOLD = 100  # rooms of such a walk for which what was told of them is kept
MAX_ASKED = 30  # rooms asked of other servers for one page
TOTAL_S = 25.0  # for one page
SERVER_S = 8.0  # for one server
MAX_SERVERS = 3  # asked about one room


@frozen
class Entry:
    """A room that is still to be visited."""

    room_id: RoomId
    via: tuple[ServerName, ...]
    depth: int
    told: Summary | None = None  # what the server of its parent said of it


@frozen
class Walk:
    """A walk that stopped after a page, or has not begun."""

    user: UserNid
    root: RoomId
    suggested_only: bool
    max_depth: int
    waiting: tuple[Entry, ...]  # the next one last
    seen: frozenset[RoomId] = frozenset()


@frozen
class Page:
    """Some rooms, and the token by which the walk goes on."""

    rooms: list[Json]
    next_batch: str | None


@frozen
class _Seen:
    """A room as it is shown, and what its server said of its children."""

    summary: Summary
    children: dict[RoomId, Summary]
    closed: frozenset[str]


@define(eq=False)
class Spaces:
    """Walks, and what was asked for on them."""

    store: Store
    own: ServerName
    queries: Queries
    _walks: Lru[str, Walk] = field(factory=lambda: Lru(MAX_WALKS))

    def begin(self, user: UserNid, root: RoomId, via: Sequence[str], **wanted: object) -> Walk:
        """A walk from its start; `wanted` are `suggested_only` and `max_depth`."""
        entry = Entry(root, _server_names(via), 0)
        return Walk(user, root, waiting=(entry,), **wanted)  # type: ignore[arg-type]

    def resume(self, token: str, begun: Walk) -> Walk:
        """The walk behind a token, which has to be the same one.  Raises InvalidParam."""
        found = self._walks.get(token)
        if found is None or (found.user, found.root) != (begun.user, begun.root):
            raise InvalidParam("That token is not known: begin anew.")
        if (found.suggested_only, found.max_depth) != (begun.suggested_only, begun.max_depth):
            raise InvalidParam("`suggested_only` and `max_depth` cannot change between pages.")
        return found

    async def page(self, walk: Walk, limit: int) -> Page:
        """The next rooms.  Raises Forbidden where the user may not know of the first of all."""
        waiting, seen = [*walk.waiting], {*walk.seen}
        rooms: list[Json] = []
        asked = 0
        with trio.move_on_after(TOTAL_S):
            while waiting and len(rooms) < limit and len(seen) < MAX_ROOMS and asked < MAX_ASKED:
                entry = waiting[-1]
                if entry.room_id in seen:
                    waiting.pop()
                    continue
                found = self._local(walk, entry.room_id)
                if found is None and not self._is_ours(entry.room_id):
                    asked += entry.told is None or spaces.is_space(entry.told)
                    found = await self._remote(walk, entry)
                waiting.pop()
                seen.add(entry.room_id)
                if found is None:
                    if entry.depth == 0:
                        raise Forbidden("You may not look into that room.")
                    continue
                rooms.append(dict(found.summary))
                if entry.depth < walk.max_depth:
                    waiting.extend(_children(found, entry.depth + 1))
        if not rooms and entry_is_root(walk):
            raise Forbidden("You may not look into that room.")
        waiting = [entry for entry in waiting if entry.room_id not in seen]
        if not waiting or len(seen) >= MAX_ROOMS:
            return Page(rooms, None)
        token = secrets.token_urlsafe(16)
        rest = Walk(
            walk.user,
            walk.root,
            walk.suggested_only,
            walk.max_depth,
            _forgetful(waiting),
            frozenset(seen),
        )
        self._walks.put(token, rest)
        return Page(rooms, token)

    async def summary(
        self, user: UserNid | None, room_id: RoomId, via: Sequence[str]
    ) -> dict[str, Json]:
        """The summary of one room.  Raises NotFound where there is none for this user ([C12.05]).

        Others are asked only for users of ours.
        """
        local = self.store.read(_summary, user, room_id)
        if local is not None:
            return local
        if user is not None and not self._is_ours(room_id):
            entry = Entry(room_id, _server_names(via), 0)
            with trio.move_on_after(TOTAL_S):
                found = await self._asked(entry, suggested_only=False)
                if found is not None and self.store.read(spaces.may_have_told, user, found.summary):
                    shown = {k: v for k, v in found.summary.items() if k != "children_state"}
                    return {**shown, "membership": self.store.read(spaces.standing, user, room_id)}
        raise NotFound("There is no such room, or you may not know of it.")

    # --- one room

    def _is_ours(self, room_id: RoomId) -> bool:
        return self.store.read(spaces.resident_room, room_id) is not None

    def _local(self, walk: Walk, room_id: RoomId) -> _Seen | None:
        return self.store.read(_look, walk, room_id)

    async def _remote(self, walk: Walk, entry: Entry) -> _Seen | None:
        """A room we are not in, as others tell of it; None where the user may not know of it."""
        found: _Seen | None = None
        if entry.told is not None and not spaces.is_space(entry.told):
            found = _Seen(entry.told, {}, frozenset())
        else:
            found = await self._asked(entry, suggested_only=walk.suggested_only)
        if found is None and entry.told is not None:
            found = _Seen(entry.told, {}, frozenset())
        if found is None or not self.store.read(spaces.may_have_told, walk.user, found.summary):
            return None
        named = found.summary.get("children_state")
        children = spaces.sorted_children(
            named if isinstance(named, list) else [], suggested_only=walk.suggested_only
        )
        shown = children if spaces.is_space(found.summary) else []
        return _Seen({**found.summary, "children_state": shown}, found.children, found.closed)

    async def _asked(self, entry: Entry, *, suggested_only: bool) -> _Seen | None:
        """What the servers of a room say, those first that are known to be in it."""
        known = self.store.read(_servers_of, entry.room_id, self.own)
        candidates = [one for one in dict.fromkeys([*entry.via, *known]) if one != self.own]
        try:
            with trio.fail_after(SERVER_S * MAX_SERVERS):
                found = await self.queries.space(
                    candidates[:MAX_SERVERS], entry.room_id, suggested_only=suggested_only
                )
        except (RemoteError, trio.TooSlowError) as error:
            log.info("no summary of a room", room_id=entry.room_id, reason=str(error))
            return None
        return _Seen(found.room, dict(found.children), found.inaccessible)


def entry_is_root(walk: Walk) -> bool:
    """Whether a walk has not got beyond its first room."""
    return bool(walk.waiting) and walk.waiting[-1].depth == 0


def _forgetful(waiting: Sequence[Entry]) -> tuple[Entry, ...]:
    """What is still to be visited, in little memory: what comes late is asked for again."""
    kept = waiting[-MAX_ROOMS:]
    return (*(evolve(entry, told=None) for entry in kept[:-MAX_TOLD]), *kept[-MAX_TOLD:])


def _children(found: _Seen, depth: int) -> list[Entry]:
    """The children of a room, the first one last."""
    named = found.summary.get("children_state")
    entries: list[Entry] = []
    for child in named if isinstance(named, list) else []:
        assert isinstance(child, dict)
        room_id = RoomId(str(child["state_key"]))
        if room_id not in found.closed:
            via = _server_names(spaces.via_of(child))
            entries.append(Entry(room_id, via, depth, found.children.get(room_id)))
    entries.reverse()
    return entries


def _server_names(named: Sequence[str]) -> tuple[ServerName, ...]:
    found: list[ServerName] = []
    for one in named[: spaces.MAX_VIA]:
        try:
            found.append(parse_server_name(one))
        except InvalidIdentifier:
            continue  # one bad name is no reason to do without the others
    return tuple(found)


def _look(tx: Tx, walk: Walk, room_id: RoomId) -> _Seen | None:
    room = spaces.resident_room(tx, room_id)
    if room is None or not spaces.is_open_to_user(tx, room, walk.user):
        return None
    children = spaces.children_state(tx, room, suggested_only=walk.suggested_only)
    return _Seen({**spaces.summary(tx, room), "children_state": children}, {}, frozenset())


def _summary(tx: Tx, user: UserNid | None, room_id: RoomId) -> dict[str, Json] | None:
    room = spaces.resident_room(tx, room_id)
    if room is None or not spaces.is_open_to_user(tx, room, user):
        return None
    shown = spaces.summary(tx, room)
    return shown if user is None else {**shown, "membership": spaces.standing(tx, user, room_id)}


def _servers_of(tx: Tx, room_id: RoomId, own: ServerName) -> list[ServerName]:
    room = names.room_nid(tx, room_id)
    return [] if room is None else [*servers.others(tx, room, own)]
