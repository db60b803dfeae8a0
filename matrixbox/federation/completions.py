"""The members of rooms that were joined without them, fetched in the background.

Matrix v1.19, Server-Server API, `send_join` with `omit_members`, `state_ids`, `state` ([B8.05],
[B11.03]).  A room stays partial, over restarts too, until some server in it has told the whole
state before our join; who lies about it only costs time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
from attrs import define, evolve, field, frozen

from matrixbox.core.identifiers import EventId, RoomId, ServerName
from matrixbox.core.room_versions import RoomRules
from matrixbox.errors import RemoteError
from matrixbox.federation import join_spool
from matrixbox.federation.arrivals import Arrivals
from matrixbox.federation.client import FederationClient, target
from matrixbox.observe import log
from matrixbox.rooms import arrival, partial, receipt, residence
from matrixbox.rooms.env import Env
from matrixbox.rooms.receipt import Checked, Undecided
from matrixbox.rooms.remote import RoomRemote, StateIds, Verifier
from matrixbox.store import events, joins, names, rooms
from matrixbox.store.database import Store
from matrixbox.store.joins import PartialRoom
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx
from matrixbox.store.undecided import Kept
from matrixbox.tasks import jittered, one_error

MAX_SERVERS = 10
PAUSES_S = (2, 10, 30, 60, 300, 900, 3600)  # after every server has failed; the last one goes on
AT_ONCE = 2


@define(eq=False)
class Completions:
    """Completes rooms."""

    store: Store
    env: Env
    client: FederationClient
    remote: RoomRemote
    verifier: Verifier
    arrivals: Arrivals
    on_undecided: Callable[[RoomNid], None] = field(repr=False)
    _under_way: dict[RoomNid, trio.Event] = field(factory=dict, repr=False)
    _nursery: trio.Nursery | None = field(default=None, repr=False)
    _limiter: trio.CapacityLimiter = field(
        factory=lambda: trio.CapacityLimiter(AT_ONCE), repr=False
    )

    async def run(self) -> None:
        """Complete what an earlier run has left, and what begins in this one."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for flag in self.store.read(joins.partial_rooms):
                    self.begin(flag.room)
                await trio.sleep_forever()
            finally:
                self._nursery = None
                for done in self._under_way.values():
                    done.set()
                self._under_way.clear()

    def begin(self, room: RoomNid) -> None:
        """Complete a room from now on, unless that is under way."""
        if self._nursery is not None and room not in self._under_way:
            self._under_way[room] = trio.Event()
            self._nursery.start_soon(self._complete, room)

    async def wait(self, room: RoomNid, at_most_s: float) -> bool:
        """Wait until a room's members are known, at most so long; whether they are."""
        if not self.store.read(partial.is_partial, room):
            return True
        self.begin(room)
        done = self._under_way.get(room)
        if done is not None:
            with trio.move_on_after(at_most_s):
                await done.wait()
        return not self.store.read(partial.is_partial, room)

    async def _complete(self, room: RoomNid) -> None:
        failures = 0
        try:
            while (flag := self.store.read(_flag, self.env, room)) is not None:
                async with self._limiter:
                    done = await self._try_all(flag)
                if not done:
                    await trio.sleep(jittered(PAUSES_S[min(failures, len(PAUSES_S) - 1)]))
                    failures += 1
        finally:
            done_event = self._under_way.pop(room, None)
            if done_event is not None:
                done_event.set()

    async def _try_all(self, flag: PartialRoom) -> bool:
        """Ask one server after the other; whether one of them helped."""
        others = [name for name in flag.servers if name != flag.resident]
        about = self.store.read(_about, flag)
        for server in [flag.resident, *others[: MAX_SERVERS - 1]]:
            if server == self.env.server_name:
                continue
            try:
                await self._try(server, flag, about)
            except (RemoteError, arrival.Unusable) as error:
                why = str(error)
                log.info("a server did not tell a room's members", room=about.room_id, why=why)
            except OSError as error:
                log.warning("no room for the members of a room", reason=error.strerror)
            else:
                log.info("a room's members are known", room=about.room_id, server=server)
                return True
        return False

    async def _try(self, server: ServerName, flag: PartialRoom, about: _About) -> None:
        told, last = await self._ask(server, about)
        if about.last is not None and last is None:
            # It cannot be checked, like others: so it is asked for with the state that it is in.
            about = evolve(about, at=about.join, last=None)
            told, _ = await self._ask(server, about)
        missing = await self.store.read_long(joins.missing, [*told.state, *told.auth_chain])
        kept: Sequence[Kept] = ()
        if missing:
            kept = await self._fetch(server, flag.room, about)
        found: Sequence[EventId] = told.state
        if about.last is not None and last is not None:
            await self._admit(flag.room, about, last)
            if self.store.read(joins.missing, [about.last]):
                raise arrival.Unusable("the event before our join is of no use")
            found = await self.store.read_long(_with_last, flag.room, found, about.last)
        state = await self.arrivals.state(flag.room, found)
        await self.store.write(partial.complete, self.env, flag, state, kept, heavy=True)
        self.on_undecided(flag.room)

    async def _ask(
        self, server: ServerName, about: _About
    ) -> tuple[StateIds, Sequence[Checked] | None]:
        """The state's ids, and the event before our join; None where that cannot be checked.

        The state is told as it was before that one.  Nothing, where it is here already.
        """
        last: Sequence[Checked] | None = ()
        told = StateIds((), ())

        async def ask_last(event_id: EventId) -> None:
            nonlocal last
            pdu = await self.remote.event(server, about.rules, event_id)
            found = await receipt.check(self.verifier, about.rules, about.room_id, [pdu])
            is_undecided = any(isinstance(one, Undecided) for one in found)
            last = None if is_undecided else receipt.checked(found)

        with one_error():
            async with trio.open_nursery() as nursery:
                if about.last is not None and self.store.read(joins.missing, [about.last]):
                    nursery.start_soon(ask_last, about.last)
                told = await self.remote.state_ids(server, about.rules, about.room_id, about.at)
        return told, last

    async def _admit(self, room: RoomNid, about: _About, found: Sequence[Checked]) -> None:
        given = [one.event for one in found]
        pruned = frozenset(one.event.event_id for one in found if one.pruned)
        if given:
            await self.store.write(arrival.admit, self.env, room, about.rules, given, pruned)

    async def _fetch(self, server: ServerName, room: RoomNid, about: _About) -> Sequence[Kept]:
        """Store all events of the state and of its auth chain; those that could not be checked."""
        uri = target("v1", "state", about.room_id, query=[("event_id", about.at)])
        with self.arrivals.spool() as spool:
            async with self.client.stream(
                "GET", server, uri, limits=join_spool.LIMITS, ignore_backoff=True
            ) as answer:
                await spool.fill(answer)
            index = await join_spool.read(
                server, spool, about.rules, about.room_id, self.verifier, "pdus"
            )
            await self.arrivals.admit(room, about.rules, spool, index)
            return await self.arrivals.undecided(spool, index)


@frozen
class _About:
    """What other servers are asked with: for the state before an event.

    Our join is new to them, and may be unknown to some.  If it stands on one event alone, that one
    is asked about, and the state before the join is what this last one leaves behind.
    """

    room_id: RoomId
    rules: RoomRules
    at: EventId
    last: EventId | None
    join: EventId


def _about(tx: Tx, flag: PartialRoom) -> _About:
    join = events.by_nid(tx, flag.join).event
    parents = join.prev_event_ids
    last = parents[0] if len(parents) == 1 else None
    rules = rooms.rules(tx, flag.room)
    return _About(names.room_id(tx, flag.room), rules, last or join.event_id, last, join.event_id)


def _with_last(tx: Tx, room: RoomNid, told: Sequence[EventId], last: EventId) -> Sequence[EventId]:
    """The state after an event, out of that before it."""
    rows = joins.state_rows(tx, room, [*told, last])
    own = next((slot for name, _, slot, status in rows if name == last and not status & 1), None)
    if own is None:
        return told
    return [*(name for name, _, slot, _ in rows if slot != own), last]


def _flag(tx: Tx, env: Env, room: RoomNid) -> PartialRoom | None:
    """The room's flag, while anybody of ours is in the room."""
    flag = joins.partial(tx, room)
    return flag if flag is not None and residence.is_resident(tx, env, room) else None
