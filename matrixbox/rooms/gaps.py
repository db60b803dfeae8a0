"""Events whose parents or auth events are missing here: what they need is fetched.

Matrix v1.19, Server-Server API, "Backfilling and retrieving missing events", "Retrieving events"
([B6.11], [B6.12], [B11.01] to [B11.04]; T005, T006, T011, T015, T016, T027).  First the events
between ours and those that came are asked for, some rounds of them, of their sender and then of
others in the room.  Where the gap is longer, each parent that is missing still gets the state
before it from another server: by the ids of its events, of which most are known.  Where even the
parent cannot be had, the same is done for the event itself.  All of it is verified and judged like
any event, and each step is bounded.

A state that somebody tells is worth less than events: a gap that is short and yet not filled is
somebody's refusal.  In a room of several other servers such a state is believed only after some
attempts, and rather of a server that did not send the event.  Who gives what is no event for one
that is missing is not believed at the first attempt either.

What was fetched stays, so an attempt that was broken off goes on where it ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import trio
from attrs import define, evolve, field, frozen

from matrixbox.core.events import Event
from matrixbox.core.identifiers import EventId, ServerName
from matrixbox.errors import RemoteError, RemoteRefused
from matrixbox.observe import log
from matrixbox.rooms import outliers, receipt
from matrixbox.rooms.env import Env
from matrixbox.rooms.letting_in import BEGINNING, Arrival, Door, Outcome, Place, is_placed
from matrixbox.rooms.receipt import Checked, Dropped, Undecided
from matrixbox.rooms.remote import Pdu, RoomRemote, Verifier
from matrixbox.store import events, rooms
from matrixbox.store.caches import Lru
from matrixbox.store.database import Store
from matrixbox.store.events import Status
from matrixbox.store.nids import RoomNid, SnapshotNid
from matrixbox.store.transaction import Tx
from matrixbox.tasks import one_error

ROUNDS = 10  # of get_missing_events, for one gap
PER_ROUND = 20
FEW = 10  # events, what many servers give at most; with fewer, a server has told all that it has
MAX_MISSING = 200  # events got in this way, for one gap
MISSING_S = 60.0
MAX_STATES = 5  # missing parents whose state is asked for, in one attempt
FEW_AUTH = 2  # auth events that are fetched by their names, if they cite nothing unknown
MAX_AUTH = 500  # auth events fetched for one event
MAX_STATE_EVENTS = 20_000  # fetched for one state
STATE_S = 120.0
MAX_SINGLY = 50  # events fetched one by one; with more missing, the whole state is asked for
AT_ONCE = 5  # requests
LONG = 500  # events; more are not looked up in the Trio thread
BATCH = 100  # events verified or admitted at a time
BRIDGE_AFTER = 2  # attempts to fill a short gap before a state is believed instead
HELPERS = 2  # other servers in the room that are asked too
STRICT_ATTEMPTS = 6  # that insist on all of a state; later ones go on without what cannot be had
MAX_EVENTS_PER_HOUR = 50_000  # of states, from one server
REFUSED_S = 300.0  # for so long a parent that was refused is not asked for again


class Unfinished(Exception):
    """The attempt failed for reasons that may pass; the text says which (T027)."""


class Unobtainable(Exception):
    """The other server does not have what it cites, or what it gives is unusable."""


@define(eq=False)
class Tools:
    """What filling gaps works with, and what it remembers between attempts."""

    store: Store
    env: Env
    remote: RoomRemote
    verifier: Verifier
    door: Door
    _refused: Lru[tuple[EventId, ServerName], float] = field(factory=lambda: Lru(2_000))
    _fetched: Lru[ServerName, tuple[float, int]] = field(factory=lambda: Lru(500))

    def note_refused(self, event_id: EventId, server: ServerName) -> None:
        """A server does not have an event."""
        self._refused.put((event_id, server), trio.current_time() + REFUSED_S)

    def was_refused(self, event_id: EventId, server: ServerName) -> bool:
        """Whether a server has just refused an event."""
        until = self._refused.get((event_id, server))
        return until is not None and trio.current_time() < until

    def spend(self, server: ServerName, count: int) -> None:
        """Count events of states that a server makes us store; raises Unfinished (T016)."""
        now = trio.current_time()
        since, spent = self._fetched.get(server) or (now, 0)
        if now - since > 3_600:
            since, spent = now, 0
        if spent + count > MAX_EVENTS_PER_HOUR:
            raise Unfinished("too many events of states from that server")
        self._fetched.put(server, (since, spent + count))


@frozen
class _Obtained:
    """Which of some events are stored now, and whether the others may still come."""

    stored: frozenset[EventId]
    may_come: bool


@define(eq=False)
class Filling:
    """One attempt to let in events of one room, with the help of one server."""

    tools: Tools
    place: Place
    server: ServerName
    attempts: int
    helpers: Sequence[ServerName] = ()  # others that may know as much
    pool: dict[EventId, Arrival] = field(factory=dict)
    outcomes: dict[EventId, Outcome] = field(factory=dict)
    unfinished: str | None = None
    is_long: bool = False  # there was more between than is fetched
    is_spoilt: bool = False  # what came for it is no event

    async def run(self, arrivals: Iterable[Arrival]) -> dict[EventId, Outcome]:
        """What became of the events; those that still wait are among them."""
        self.pool = {arrival.event_id: arrival for arrival in arrivals}
        for step in (self._nothing, self._fetch_missing, self._fetch_auth, self._fetch_states):
            try:
                await step()
            except (RemoteError, Unfinished) as error:
                self._note(error)
            if await self._let_in():
                break
        return self.outcomes

    def _note(self, error: RemoteError | Unfinished) -> None:
        self.unfinished = str(error)
        log.info("gap not filled", room=self.place.room, server=self.server, why=str(error))

    async def _nothing(self) -> None:
        """What they lacked may have come meanwhile."""

    async def _let_in(self) -> bool:
        """Let in what can be; whether nothing is left."""
        found = await self.tools.door.let_in(self.place, self.pool.values())
        self.outcomes.update(found)
        self.pool = {
            name: arrival
            for name, arrival in self.pool.items()
            if name in found and not found[name].is_final
        }
        return not self.pool

    # --- events between

    async def _fetch_missing(self) -> None:
        rounds = fetched = 0
        sender = self.server
        with trio.move_on_after(MISSING_S):
            for asked in (sender, *self.helpers):
                self.server = asked
                while latest := self._children_of_missing():
                    if rounds >= ROUNDS or fetched >= MAX_MISSING:
                        self.is_long = True
                        break
                    rounds += 1
                    new, is_all = await self._missing_round(latest[:PER_ROUND])
                    fetched += new
                    if is_all:
                        break
        self.server = sender

    def _children_of_missing(self) -> list[EventId]:
        return [one.event_id for one in self.pool.values() if self._missing_of([one])]

    async def _missing_round(self, latest: Sequence[EventId]) -> tuple[int, bool]:
        """How many events came that were missing, and whether the server has no more of them.

        It goes back from what it is asked with by itself, so it stopped short of the limit because
        there is nothing more that it has, or that it may tell.
        """
        ends, min_depth = self.tools.store.read(_ends, self.place.room)
        try:
            pdus = await self.tools.remote.missing_events(
                self.server,
                self.place.rules,
                self.place.room_id,
                earliest=ends,
                latest=latest,
                limit=PER_ROUND,
                min_depth=min_depth,
            )
        except RemoteError as error:
            self._note(error)
            return 0, True
        found = {one.event.event_id: one for one in await self._checked(pdus[:PER_ROUND])}
        new = 0
        while wanted := [name for name in self._missing_of(self.pool.values()) if name in found]:
            for name in wanted:  # only what somebody cites, so nothing can be pushed in between
                self.pool[name] = Arrival(found.pop(name))
                new += 1
        return new, not new or len(pdus) < FEW

    def _missing_of(self, arrivals: Iterable[Arrival]) -> list[EventId]:
        """The parents that are neither here nor on their way."""
        cited = dict.fromkeys(
            parent
            for arrival in arrivals
            if arrival.told is None
            for parent in arrival.checked.event.prev_event_ids
            if parent not in self.pool
        )
        here = self.tools.store.read(_placed, [*cited])
        return [name for name in cited if name not in here]

    # --- auth events

    async def _fetch_auth(self) -> None:
        with trio.move_on_after(STATE_S):
            for arrival in [*self.pool.values()]:
                if self._lacks_auth(arrival.checked):
                    await self._fetch_chain(arrival.checked)

    def _lacks_auth(self, checked: Checked) -> bool:
        wanted = checked.event.auth_event_ids
        here = self.tools.store.read(_stored, wanted)
        return any(name not in here for name in wanted)

    async def _fetch_chain(self, checked: Checked) -> None:
        """The auth events of an event: one or two alone, more at once, then what was kept back.

        The chain of an old room's member is long, and nearly all of it is known here.
        """
        event = checked.event
        if await self._fetch_few(event):
            return
        chain: Sequence[Pdu] = ()
        try:
            chain = await self.tools.remote.event_auth(
                self.server, self.place.rules, self.place.room_id, event.event_id
            )
        except RemoteError as error:
            if not is_definite(error):
                raise
            log.debug("no auth chain", server=self.server, event=event.event_id, why=str(error))
        await self._admit(await self._checked(chain[:MAX_AUTH]), Status.FRESH)
        await self._fetch_singly(event.auth_event_ids, MAX_AUTH, Status.FRESH)

    async def _fetch_few(self, event: Event) -> bool:
        """Fetch auth events by name, if they are few and cite nothing unknown; whether they did."""
        lacking = await self._not_here(event.auth_event_ids)
        if len(lacking) > FEW_AUTH:
            return False
        found, _ = await self._fetch_some(lacking)
        cited = [name for one in found.values() for name in one.event.auth_event_ids]
        if len(found) < len(lacking) or await self._not_here(cited):
            return False
        await self._admit(found.values(), Status.FRESH)
        return True

    async def _fetch_singly(
        self, wanted: Iterable[EventId], most: int, status: Status = Status.ACCEPTED
    ) -> _Obtained:
        """Events with the auth events they need, each one asked for by its name."""
        found: dict[EventId, Checked] = {}
        may_come = False
        ahead = await self._not_here(wanted)
        asked: set[EventId] = set()
        while ahead and len(asked) < most:
            asked.update(ahead)
            got, unclear = await self._fetch_some(ahead[: most - len(found)])
            may_come |= unclear
            found.update(got)
            cited = (name for one in got.values() for name in one.event.auth_event_ids)
            ahead = [name for name in await self._not_here(cited) if name not in asked]
        await self._admit(found.values(), status)
        return _Obtained(await self._here([*wanted]), may_come)

    async def _fetch_some(self, names: Sequence[EventId]) -> tuple[dict[EventId, Checked], bool]:
        """Some events at once; also whether another attempt may get more of them."""
        pdus: list[tuple[EventId, Pdu]] = []
        failures: list[RemoteError] = []
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def fetch(name: EventId) -> None:
            async with limiter:
                if failures:
                    return
                try:
                    pdu = await self.tools.remote.event(self.server, self.place.rules, name)
                except RemoteError as error:
                    if is_definite(error):
                        self.tools.note_refused(name, self.server)
                    else:
                        failures.append(error)
                else:
                    pdus.append((name, pdu))

        with one_error():
            async with trio.open_nursery() as nursery:
                for name in names:
                    if not self.tools.was_refused(name, self.server):
                        nursery.start_soon(fetch, name)
        verdicts = await receipt.check(
            self.tools.verifier,
            self.place.rules,
            self.place.room_id,
            [pdu for _, pdu in sorted(pdus, key=lambda pair: pair[0])],
        )
        wanted = set(names)
        found = {
            one.event.event_id: one
            for one in receipt.checked(verdicts)
            if one.event.event_id in wanted  # T006
        }
        unclear = any(isinstance(one, Undecided) for one in verdicts)
        return found, unclear or any(error.may_retry for error in failures)

    async def _not_here(self, names: Iterable[EventId]) -> list[EventId]:
        unique = [*dict.fromkeys(names)]
        here = await self._here(unique)
        return [name for name in unique if name not in here]

    async def _here(self, names: Sequence[EventId]) -> frozenset[EventId]:
        """Those events that are stored, with their places or without."""
        if len(names) > LONG:
            return frozenset(await self.tools.store.read_long(_stored, names))
        return frozenset(self.tools.store.read(_stored, names))

    # --- the state where the gap begins

    async def _fetch_states(self) -> None:
        others_may_know = bool(self.helpers) and self.attempts < BRIDGE_AFTER
        if others_may_know and not self.is_long and self._children_of_missing():
            raise Unfinished("the events between cannot be had")
        if self.is_spoilt and not self.attempts and self._children_of_missing():
            raise Unfinished("what came for an event between is none")
        with trio.move_on_after(STATE_S) as scope:
            for parent in self._missing_of(self.pool.values())[:MAX_STATES]:
                await self._place_parent(parent)
            if not await self._let_in():
                await self._place_themselves()
        if scope.cancelled_caught:
            raise Unfinished("the state at the gap took too long")

    async def _place_parent(self, parent: EventId) -> None:
        """Give a missing parent its place, with the state before it that some server tells."""
        sender = self.server
        for asked in (*self.helpers, sender):
            self.server = asked
            try:
                await self._place_parent_as_told(parent)
                break
            except Unobtainable as error:
                log.info("parent not obtained", event=parent, server=self.server, why=str(error))
            except RemoteError as error:
                if self.server == sender:
                    raise
                self._note(error)
        self.server = sender

    async def _place_parent_as_told(self, parent: EventId) -> None:
        stored = self.tools.store.read(events.by_id, parent)
        if stored is not None:
            checked = Checked(stored.event, bool(stored.status & Status.PRUNED))
        else:
            got, may_come = await self._fetch_some([parent])
            if parent not in got:
                if may_come and self.server not in self.helpers:
                    raise Unfinished("a parent cannot be had now")
                raise Unobtainable("the server does not have it")
            checked = got[parent]
        arrival = Arrival(checked, is_past=True)
        if self._missing_of([arrival]):
            await self._place(arrival)
            return
        if self._lacks_auth(checked):
            await self._fetch_chain(checked)
        self.pool[parent] = arrival  # nobody has to be believed

    async def _place_themselves(self) -> None:
        """Where parents cannot be had at all, the state before their children is asked for."""
        for name in self._children_of_missing()[:MAX_STATES]:
            try:
                await self._place(self.pool[name])
            except Unobtainable as error:
                raise Unfinished(str(error)) from error

    async def _place(self, arrival: Arrival) -> None:
        event = arrival.checked.event
        try:
            told = await self._state_before(event.event_id)
        except RemoteError as error:
            if is_definite(error):
                raise Unobtainable(f"no state before it: {error}") from error
            raise
        if self._lacks_auth(arrival.checked):
            await self._fetch_chain(arrival.checked)
        self.pool[event.event_id] = evolve(arrival, told=told)

    async def _state_before(self, event_id: EventId) -> SnapshotNid:
        """The state before an event by what the server says, its events verified and judged."""
        tools, place = self.tools, self.place
        ids = await tools.remote.state_ids(self.server, place.rules, place.room_id, event_id)
        missing = await self._not_here([*ids.auth_chain, *ids.state])
        if len(missing) > MAX_STATE_EVENTS:
            raise Unobtainable("a state of too many events that are unknown here")
        tools.spend(self.server, len(missing))
        obtained = await self._obtain(event_id, missing)
        lacking = [name for name in ids.state if name in set(missing) - obtained.stored]
        if lacking and obtained.may_come and self.attempts < STRICT_ATTEMPTS:
            raise Unfinished("some of the state cannot be had now")
        return await self._snapshot(ids.state)

    async def _obtain(self, event_id: EventId, missing: Sequence[EventId]) -> _Obtained:
        if len(missing) <= MAX_SINGLY:
            return await self._fetch_singly(missing, MAX_SINGLY * 4)
        tools, place = self.tools, self.place
        whole = await tools.remote.state(self.server, place.rules, place.room_id, event_id)
        wanted = set(missing)
        found: list[Checked] = []
        may_come = False
        pdus = [*whole.auth_chain, *whole.state]
        for start in range(0, len(pdus), BATCH):
            part = await receipt.check(
                tools.verifier, place.rules, place.room_id, pdus[start : start + BATCH]
            )
            may_come |= any(isinstance(one, Undecided) for one in part)
            found += [one for one in receipt.checked(part) if one.event.event_id in wanted]
            await trio.lowlevel.checkpoint()
        await self._admit(found)
        return _Obtained(await self._here(missing), may_come)

    async def _snapshot(self, state: Sequence[EventId]) -> SnapshotNid:
        make = partial(_snapshot_of, state=state)
        try:
            return await self.tools.store.write(make, self.place.room, heavy=len(state) > LONG)
        except outliers.UnusableState as error:
            raise Unobtainable(f"its state is unusable: {error}") from error

    # --- what came

    async def _checked(self, pdus: Sequence[Pdu]) -> list[Checked]:
        found = await receipt.check(self.tools.verifier, self.place.rules, self.place.room_id, pdus)
        for one in found:
            if isinstance(one, Dropped):
                self.is_spoilt |= one.step == 1
                log.info("event dropped", event=one.event_id, step=one.step, why=one.reason)
        return receipt.checked(found)

    async def _admit(self, found: Iterable[Checked], status: Status = Status.ACCEPTED) -> None:
        """Store auth events and state, each after what it cites.

        Auth events of something that waits are FRESH: they may be as new as that.
        """
        order = receipt.by_auth(found)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            await self.tools.store.write(_admit, self.tools.env, self.place, part, status)


def is_definite(error: RemoteError) -> bool:
    """Whether a server says that it does not have something, or may not give it."""
    return isinstance(error, RemoteRefused) and 400 <= error.status < 500 and error.status != 429


def _admit(tx: Tx, env: Env, place: Place, part: Sequence[Checked], status: Status) -> None:
    pruned = {one.event.event_id for one in part if one.pruned}
    found = [one.event for one in part]
    outliers.admit(tx, env, place.room, place.rules, found, pruned, status=status)


def _snapshot_of(tx: Tx, room: RoomNid, *, state: Sequence[EventId]) -> SnapshotNid:
    found = (events.by_id(tx, name) for name in state)
    return outliers.snapshot_of(tx, room, [one for one in found if one is not None])


def _ends(tx: Tx, room: RoomNid) -> tuple[list[EventId], int]:
    """The ends of the room's graph here, and the least depth that history here has."""
    head = rooms.head(tx, room)
    ends = [events.by_nid(tx, nid).event for nid in (() if head is None else head.extremities)]
    first = events.first_at(tx, room, BEGINNING)
    lowest = 0 if first is None else events.by_nid(tx, first).event.depth
    depth = min([lowest, *(end.depth for end in ends)])
    return [end.event_id for end in ends][-PER_ROUND:], depth


def _stored(tx: Tx, names: Iterable[EventId]) -> set[EventId]:
    return {name for name in names if events.nid_of(tx, name) is not None}


def _placed(tx: Tx, names: Iterable[EventId]) -> set[EventId]:
    return {name for name in names if is_placed(events.by_id(tx, name))}
