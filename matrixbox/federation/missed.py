"""After our own downtime: ask the other servers what we missed, without waiting for them to speak.

No endpoint of the Server-Server API says where a room ends now, but the template for leaving it
does: `make_leave` for a user of ours cites the newest events that the other server has.  It is
never signed (T030).  What is unknown here is fetched and received like anything else, which fills
the gaps behind it.  Being asked also tells the other server that we are back: it ends its back-off
and sends what it has for us, EDUs too.

Every server that shares a room is asked once about some room, and every room is asked about at a
few servers; those that are not known to be down come first (T083, T154).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import trio
from attrs import define, field, frozen

from matrixbox.core.events import MAX_PREV_EVENTS
from matrixbox.core.identifiers import EventId, RoomId, ServerName, UserId
from matrixbox.core.json import Json
from matrixbox.core.room_versions import RoomRules
from matrixbox.errors import RemoteError, RemoteRefused
from matrixbox.federation.client import FederationClient, target
from matrixbox.federation.destinations import Destinations
from matrixbox.federation.transport import Limits
from matrixbox.observe import log
from matrixbox.rooms.receiving import Receiver
from matrixbox.rooms.remote import Pdu, RoomRemote
from matrixbox.store import events, members, names, rooms, servers
from matrixbox.store.database import Store
from matrixbox.store.events import Status
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx
from matrixbox.tasks import one_error

AFTER_S = 1.0
"""Our own listeners are to be ready: who is asked may want our keys."""
AT_ONCE = 24
PER_SECOND = 40
SERVERS_PER_ROOM = 3
ALL_UP_TO = 600
"""With so few pairs of room and server, every server is asked about every room."""
MAX_SERVERS = 4_000
AGAIN_AFTER_S = 300.0
LIMITS = Limits(total_s=15, idle_s=15, max_bytes=256 * 1024)


@frozen
class _Place:
    """A room to ask about."""

    room: RoomNid
    room_id: RoomId
    rules: RoomRules
    user_id: UserId  # one of ours who is in it


@define(eq=False)
class Missed:
    """Asks at the start, and when the network was away for us and is back."""

    store: Store
    own: ServerName
    client: FederationClient
    destinations: Destinations
    remote: RoomRemote
    receiver: Receiver
    _again: trio.Event = field(factory=trio.Event)
    _free_at: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.destinations.on_recovery.append(self._recovered)

    def _recovered(self) -> None:
        self._again.set()

    async def run(self) -> None:
        """Ask now, and whenever we were cut off and are not any more."""
        pairs = await self._shared()
        await trio.sleep(AFTER_S)  # of rooms that are joined meanwhile nothing was missed
        while True:
            self._again = trio.Event()
            began = trio.current_time()
            await self._ask_about(pairs)
            await trio.sleep(AGAIN_AFTER_S)
            await self._again.wait()
            log.info("back on the network", asked_before_s=round(trio.current_time() - began))
            pairs = await self._shared()

    async def ask(self) -> None:
        """Ask every server that shares a room, once."""
        await self._ask_about(await self._shared())

    async def _shared(self) -> Sequence[tuple[RoomNid, ServerName]]:
        return await self.store.read_long(servers.shared_rooms, self.own)

    async def _ask_about(self, pairs: Sequence[tuple[RoomNid, ServerName]]) -> None:
        if not pairs:
            return
        began = trio.current_time()
        first = self._one_room_each(pairs)
        answered = await self._ask_all(first)
        asked = set(first)
        more = [
            (room, server)
            for room, server in pairs
            if server in answered and (room, server) not in asked
        ]
        if len(pairs) > ALL_UP_TO:
            more = _a_few_each(more, [pair for pair in first if pair[1] in answered])
        await self._ask_all(more)
        log.info(
            "asked for what was missed",
            rooms=len({room for room, _ in pairs}),
            servers=len(first),
            answered=len(answered),
            took_s=round(trio.current_time() - began, 1),
        )

    def _one_room_each(
        self, pairs: Sequence[tuple[RoomNid, ServerName]]
    ) -> list[tuple[RoomNid, ServerName]]:
        """For each server the room that fewest were chosen for; servers that are well first."""
        shared: dict[ServerName, list[RoomNid]] = {}
        for room, server in pairs:
            shared.setdefault(server, []).append(room)
        chosen: list[tuple[RoomNid, ServerName]] = []
        times: dict[RoomNid, int] = {}
        for server in sorted(shared, key=self.destinations.failures)[:MAX_SERVERS]:
            room = min(shared[server], key=lambda one: times.get(one, 0))
            times[room] = times.get(room, 0) + 1
            chosen.append((room, server))
        return chosen

    async def _ask_all(self, pairs: Iterable[tuple[RoomNid, ServerName]]) -> set[ServerName]:
        """Ask about rooms; the servers that answered at all."""
        answered: set[ServerName] = set()
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def ask(room: RoomNid, server: ServerName) -> None:
            async with limiter:
                if await self._ask(room, server):
                    answered.add(server)

        with one_error():
            async with trio.open_nursery() as nursery:
                for room, server in pairs:
                    await self._pace()
                    nursery.start_soon(ask, room, server)
        return answered

    async def _pace(self) -> None:
        self._free_at = max(self._free_at, trio.current_time()) + 1.0 / PER_SECOND
        await trio.sleep_until(self._free_at)

    async def _ask(self, room: RoomNid, server: ServerName) -> bool:
        """Ask one server about one room; whether it answered at all."""
        place = self.store.read(_place, room)
        if place is None:
            return False
        try:
            ends = await self._ends(server, place)
            unknown = self.store.read(_unknown, room, ends)
            if unknown:
                await self._fetch(server, place, unknown)
        except RemoteError as error:
            return isinstance(error, RemoteRefused)
        except Exception as error:  # noqa: BLE001 one server fails alone
            log.bug("asking for what was missed failed", error, destination=server)
            return False
        return True

    async def _ends(self, server: ServerName, place: _Place) -> list[EventId]:
        """The newest events of a room that a server has."""
        try:
            uri = target("v1", "make_leave", place.room_id, place.user_id)
            answer = await self._get(server, uri)
        except RemoteRefused as error:
            if error.status not in (400, 403, 405):
                raise
            query = [("ver", place.rules.version)]
            uri = target("v1", "make_join", place.room_id, place.user_id, query=query)
            answer = await self._get(server, uri)
        template = answer.get("event")
        cited = template.get("prev_events") if isinstance(template, dict) else None
        return _event_ids(cited)

    async def _get(self, server: ServerName, uri: str) -> Mapping[str, Json]:
        return await self.client.get_json(server, uri, limits=LIMITS, ignore_backoff=True)

    async def _fetch(self, server: ServerName, place: _Place, unknown: Sequence[EventId]) -> None:
        """Fetch events and let them in; the gaps behind them are filled by the receiver."""
        found: list[Pdu] = []
        for event_id in unknown:
            found.append(await self.remote.event(server, place.rules, event_id))
        outcomes = await self.receiver.receive(server, place.room_id, found)
        log.info("missed something", room_id=place.room_id, server=server, events=len(outcomes))


def _a_few_each(
    more: Iterable[tuple[RoomNid, ServerName]], done: Iterable[tuple[RoomNid, ServerName]]
) -> list[tuple[RoomNid, ServerName]]:
    """Of each room as many servers as are still wanted."""
    times: dict[RoomNid, int] = {}
    for room, _ in done:
        times[room] = times.get(room, 0) + 1
    chosen = []
    for room, server in more:
        if times.get(room, 0) < SERVERS_PER_ROOM:
            times[room] = times.get(room, 0) + 1
            chosen.append((room, server))
    return chosen


def _place(tx: Tx, room: RoomNid) -> _Place | None:
    ours = members.local_joined(tx, room)
    if not ours or rooms.head(tx, room) is None:
        return None
    user_id = names.user_id(tx, ours[0])
    return _Place(room, names.room_id(tx, room), rooms.rules(tx, room), user_id)


def _event_ids(cited: Json) -> list[EventId]:
    """What a template cites: names, or pairs of name and hash in the oldest room versions."""
    found: list[EventId] = []
    for one in cited[:MAX_PREV_EVENTS] if isinstance(cited, list) else ():
        name = one[0] if isinstance(one, list) and one else one
        if isinstance(name, str):
            found.append(EventId(name))
    return found


def _unknown(tx: Tx, room: RoomNid, wanted: Sequence[EventId]) -> list[EventId]:
    """Those events that have no place in the room here."""
    found = []
    for event_id in wanted:
        stored = events.by_id(tx, event_id)
        if stored is None or (stored.room == room and stored.status & Status.OUTLIER):
            found.append(event_id)
    return found
