"""Older history of our rooms, asked of the other servers in them.

Matrix v1.19, Client-Server API, "Getting events for a room" ([C9.04], [C9.08]); Server-Server API,
"Backfilling and retrieving missing events" ([B11.01], [B11.03], [B11.05], T043).  What comes is
checked like any event; the state before the oldest of it is asked for where it does not follow from
the events themselves.  One gap of a room is worked on at a time, and one that nobody could fill is
left alone for a while.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio
from attrs import define, field, frozen

from matrixbox.core.events import Event
from matrixbox.core.identifiers import EventId, RoomId, ServerName
from matrixbox.core.room_versions import RoomRules
from matrixbox.errors import RemoteError
from matrixbox.federation.queries import Queries
from matrixbox.observe import log
from matrixbox.rooms import history, outliers, receipt, resolution, servers
from matrixbox.rooms.env import Env
from matrixbox.rooms.history import Found, Gap
from matrixbox.rooms.receipt import Checked, Undecided
from matrixbox.rooms.remote import Pdu, RoomRemote, Verifier
from matrixbox.rooms.resolution import RoomTooCostly
from matrixbox.rooms.serving import ServerReader
from matrixbox.rooms.tokens import Place
from matrixbox.store import events, names, rooms
from matrixbox.store.database import Store
from matrixbox.store.nids import EventNid, RoomNid
from matrixbox.store.transaction import Tx

PAGE = 100  # events asked for at once
FEW = 10  # events at least that a gap is bridged by at once
MAX_SERVERS = 4  # asked for one gap
MAX_ROUNDS = 5  # gaps filled for one request of a client
TOTAL_S = 25.0  # that one request of a client waits
SERVER_S = 12.0  # for one server, with all that has to be asked of it
MAX_STATES = 10  # asked for with one page
MAX_ADMITTED = 20_000  # events of states and auth chains, stored for one page
MAX_SINGLE = 50  # events asked for one by one; beyond, the whole state is
MAX_AUTH = 500  # auth events fetched for one page
AT_ONCE = 4
ADMITTED_AT_ONCE = 100
PLACED_AT_ONCE = 25
WAIT_AFTER_FAILURE_S = 60.0
_MAX_FAILURES = 1_000


class _Useless(Exception):
    """What one server gave does not suffice; the text says why."""


@frozen
class _Asked:
    """Whom to ask about which room."""

    server: ServerName
    room: RoomNid
    room_id: RoomId
    rules: RoomRules
    admitted: list[int] = field(factory=list)  # counts of events stored for it so far


@define(eq=False)
class Backfill:
    """Fills gaps in the history of rooms."""

    store: Store
    env: Env
    remote: RoomRemote
    verifier: Verifier
    queries: Queries
    _locks: dict[RoomNid, trio.Lock] = field(factory=dict)
    _failed_until: dict[EventNid, float] = field(factory=dict)
    _good: dict[RoomNid, ServerName] = field(factory=dict)

    async def extend(self, room: RoomNid, older: Place, newer: Place, *, back: bool) -> bool:
        """Fill the first gap, in the direction of travel, between two places.

        Whether something came in, so that it is worth while to look again.
        """
        async with self._one_at_a_time(room):
            gap = self._next(room, older, newer, back=back)
            return gap is not None and await self._fill(gap)

    async def bridge(self, gap: Gap) -> bool:
        """Fetch what comes directly before an anchor; whether anything of it came in."""
        async with self._one_at_a_time(gap.room):
            return await self._fill(gap)

    async def bring_nearer(self, gap: Gap, ts: int, known: int | None, *, back: bool) -> bool:
        """Place the event nearest to a time that others know of behind a gap ([B11.05]).

        ``known`` is the time of the nearest one here.  Whether a nearer one was placed.
        """
        room_id = self.store.read(names.room_id, gap.room)
        for server in self._candidates(gap):
            try:
                with trio.fail_after(SERVER_S):
                    found = await self.queries.nearest(server, room_id, ts, back=back)
            except (RemoteError, trio.TooSlowError) as error:
                log.info("no event near a time", server=server, room_id=room_id, reason=str(error))
                continue
            if found is None:
                continue
            if known is not None and abs(found.origin_server_ts - ts) >= abs(known - ts):
                return False
            if await self._bring(gap, server, found.event_id):
                return True
        return False

    async def _bring(self, gap: Gap, server: ServerName, event_id: EventId) -> bool:
        """Place one event that a server named, far before the anchor of a gap."""
        async with self._one_at_a_time(gap.room):
            asked = self._asked(gap.room, server)
            if self.store.read(history.in_graph, event_id) is not None:
                return True
            try:
                with trio.fail_after(SERVER_S):
                    found = await self._single(asked, event_id)
                    whole = await self._with_states(asked, [found])
                stored = await resolution.write(
                    self.store, history.place_far, self.env, gap, whole[0]
                )
            except (RemoteError, _Useless, RoomTooCostly, trio.TooSlowError) as error:
                log.info("event not brought", server=server, event_id=event_id, reason=str(error))
                return False
            return stored is not None

    # --- one gap

    @asynccontextmanager
    async def _one_at_a_time(self, room: RoomNid) -> AsyncIterator[None]:
        lock = self._locks.setdefault(room, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            statistics = lock.statistics()
            if not statistics.locked and not statistics.tasks_waiting:
                self._locks.pop(room, None)

    def _next(self, room: RoomNid, older: Place, newer: Place, *, back: bool) -> Gap | None:
        now = trio.current_time()
        found = self.store.read(_useful, self.env.server_name, room, older, newer)
        for gap in found if back else reversed(found):
            if self._failed_until.get(gap.anchor, 0.0) <= now:
                return gap
        return None

    async def _fill(self, gap: Gap) -> bool:
        for server in self._candidates(gap):
            asked = self._asked(gap.room, server)
            try:
                with trio.fail_after(SERVER_S):
                    found = await self._page(asked, gap)
                count = await self._place(gap, found)
            except (RemoteError, _Useless, RoomTooCostly, trio.TooSlowError) as error:
                log.info("no history", server=server, room_id=asked.room_id, reason=str(error))
                continue
            if count:
                self._good[gap.room] = server
                return True
        self._remember_failure(gap.anchor)
        return False

    async def _place(self, gap: Gap, found: Sequence[Found]) -> int:
        """Place events, some in each transaction, parents first; how many came in."""
        count = 0
        for start in range(0, len(found), PLACED_AT_ONCE):
            batch = found[start : start + PLACED_AT_ONCE]
            following = len(found) - start - len(batch)
            count += await resolution.write(
                self.store, history.place, self.env, gap, batch, following
            )
        return count

    def _remember_failure(self, anchor: EventNid) -> None:
        if len(self._failed_until) >= _MAX_FAILURES:
            del self._failed_until[next(iter(self._failed_until))]
        self._failed_until[anchor] = trio.current_time() + WAIT_AFTER_FAILURE_S

    def _candidates(self, gap: Gap) -> Sequence[ServerName]:
        """Who may have it: who had before, who cited it, then who is in the room for longest."""
        others = self.store.read(servers.others, gap.room, self.env.server_name)
        good = self._good.get(gap.room)
        first = [one for one in (good, gap.server) if one is not None and one in others]
        return [*dict.fromkeys([*first, *others])][:MAX_SERVERS]

    def _asked(self, room: RoomNid, server: ServerName) -> _Asked:
        room_id = self.store.read(names.room_id, room)
        return _Asked(server, room, room_id, self.store.read(rooms.rules, room))

    async def _page(self, asked: _Asked, gap: Gap) -> list[Found]:
        """What a server gives for a gap, checked, parents first, with the states that it takes.

        What it keeps back from its history is asked for by name where a gap is being bridged.
        """
        pdus = await self.remote.backfill(
            asked.server, asked.rules, asked.room_id, before=gap.missing, limit=PAGE
        )
        checked = await self._checked(asked, pdus[: 2 * PAGE])
        if gap.pages:
            await self._add_withheld(asked, gap, checked)
        ordered = history.in_order(self._behind(gap, checked), history.by_parents)
        if not ordered:
            raise _Useless("it gave nothing of what is missing")
        return await self._with_states(asked, [checked[event.event_id] for event in ordered])

    def _behind(self, gap: Gap, checked: Mapping[EventId, Checked]) -> dict[EventId, Event]:
        """What is new of some events, and leads back from a gap."""
        new = self.store.read(history.not_in_graph, checked)
        found = {event_id: one.event for event_id, one in checked.items() if event_id in new}
        return history.behind(gap.missing, found)

    async def _add_withheld(self, asked: _Asked, gap: Gap, checked: dict[EventId, Checked]) -> None:
        """Ask by name for what is missing, and for what that cites until there are a few events.

        With less, a server that keeps its history back would have a gap left open by telling one
        state after the other (T015, T020).
        """
        lacking = [one for one in gap.missing if one not in checked]
        tried: set[EventId] = set()
        while True:
            tried.update(lacking)
            if lacking:
                checked |= await self._checked(asked, await self._singles(asked, lacking))
            reached = self._behind(gap, checked)
            cited = {one for event in reached.values() for one in event.prev_event_ids}
            unknown = self.store.read(history.not_in_graph, cited - checked.keys() - tried)
            lacking = sorted(unknown)[: max(FEW - len(reached), 0)]
            if not lacking:
                return

    async def _checked(self, asked: _Asked, pdus: Sequence[Pdu]) -> dict[EventId, Checked]:
        receipts = await receipt.check(
            self.verifier, asked.rules, asked.room_id, pdus, backfilled=True
        )
        return {one.event.event_id: one for one in receipt.checked(receipts)}

    async def _single(self, asked: _Asked, event_id: EventId) -> Checked:
        pdu = await self.remote.event(asked.server, asked.rules, event_id)
        found = await self._checked(asked, [pdu])
        if event_id not in found:
            raise _Useless(f"it has no usable event {event_id}")
        return found[event_id]

    # --- what events stand on

    async def _with_states(self, asked: _Asked, ordered: Sequence[Checked]) -> list[Found]:
        """Events, parents first, with the state before those whose parents are not all here."""
        inside = {one.event.event_id for one in ordered}
        cited = {parent for one in ordered for parent in one.event.prev_event_ids}
        outside = self.store.read(history.not_in_graph, cited - inside)
        found: list[Found] = []
        states = 0
        for one in ordered:
            state = None
            if not outside.isdisjoint(one.event.prev_event_ids):
                states += 1
                if states > MAX_STATES:
                    raise _Useless("its events have too many loose ends")
                state = await self._state_before(asked, one.event)
            found.append(Found(one.event, one.pruned, state))
        await self._authorise(asked, ordered)
        return found

    async def _state_before(self, asked: _Asked, event: Event) -> tuple[EventId, ...]:
        """The state before an event, as a server tells it; all of it is stored then."""
        told = await self.remote.state_ids(asked.server, asked.rules, asked.room_id, event.event_id)
        missing = self.store.read(history.not_stored, [*told.state, *told.auth_chain])
        bad: set[EventId] = set()
        if len(missing) > MAX_SINGLE:
            whole = await self.remote.state(
                asked.server, asked.rules, asked.room_id, event.event_id
            )
            bad = await self._admit(asked, [*whole.auth_chain, *whole.state])
        elif missing:
            bad = await self._admit(asked, await self._singles(asked, missing))
        lacking = self.store.read(history.not_stored, told.state)
        if not bad.issuperset(lacking):
            raise _Useless(f"{len(lacking)} events of a state are missing")
        return tuple(one for one in told.state if one not in bad)

    async def _authorise(self, asked: _Asked, ordered: Iterable[Checked]) -> None:
        """Have the auth events of events stored, or the events themselves where they are some."""
        wanted = {one for checked in ordered for one in checked.event.auth_event_ids}
        inside = {checked.event.event_id: checked for checked in ordered}
        missing = self.store.read(history.not_stored, wanted - inside.keys())
        fetched: list[Pdu] = []
        tried: set[EventId] = set(inside)
        while missing and len(tried) - len(inside) < MAX_AUTH:
            tried.update(missing)
            pdus = await self._singles(asked, missing[:MAX_AUTH])
            fetched += pdus
            seen = await self._checked(asked, pdus)
            deeper = {one for checked in seen.values() for one in checked.event.auth_event_ids}
            missing = self.store.read(history.not_stored, deeper - tried)
        if fetched:
            await self._admit(asked, fetched)

    async def _singles(self, asked: _Asked, event_ids: Sequence[EventId]) -> list[Pdu]:
        """Events one by one, a few at a time; what a server does not have is left out."""
        found: list[Pdu] = []
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def fetch(event_id: EventId) -> None:
            async with limiter:
                try:
                    found.append(await self.remote.event(asked.server, asked.rules, event_id))
                except RemoteError as error:
                    log.debug("no event", server=asked.server, event_id=event_id, reason=str(error))

        async with trio.open_nursery() as nursery:
            for event_id in event_ids:
                nursery.start_soon(fetch, event_id)
        return found

    async def _admit(self, asked: _Asked, pdus: Sequence[Pdu]) -> set[EventId]:
        """Store what is good of some events; the ids of those that are certainly not."""
        asked.admitted.append(len(pdus))
        if sum(asked.admitted) > MAX_ADMITTED:
            raise _Useless("its events stand on too many others")  # T016
        receipts = await receipt.check(
            self.verifier, asked.rules, asked.room_id, pdus, backfilled=True
        )
        good = {one.event.event_id: one for one in receipt.checked(receipts)}
        bad: set[EventId] = set()
        for one in receipts:
            if isinstance(one, Undecided):
                raise _Useless("signatures of a state cannot be checked now")
            if not isinstance(one, Checked) and one.event_id is not None:
                bad.add(one.event_id)
        found = {event_id: one.event for event_id, one in good.items()}
        pruned = frozenset(event_id for event_id, one in good.items() if one.pruned)
        ordered = history.in_order(found, history.by_auth)
        for start in range(0, len(ordered), ADMITTED_AT_ONCE):
            batch = ordered[start : start + ADMITTED_AT_ONCE]
            await self.store.write(_admit, self.env, asked, batch, pruned)
        return bad - good.keys()


def _useful(tx: Tx, own: ServerName, room: RoomNid, older: Place, newer: Place) -> list[Gap]:
    """The gaps behind which there may be something that users of ours may see."""
    found = history.gaps(tx, room, older, newer)
    if not found:
        return []
    reader = ServerReader(tx, room, own)
    return [gap for gap in found if reader.may_see_before(events.by_nid(tx, gap.anchor))]


def _admit(
    tx: Tx, env: Env, asked: _Asked, batch: Sequence[Event], pruned: frozenset[EventId]
) -> None:
    outliers.admit(tx, env, asked.room, asked.rules, batch, pruned)
