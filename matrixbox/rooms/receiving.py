"""Receiving events of rooms that this server is in.

Matrix v1.19, Server-Server API, "PDUs", "Checks performed on receipt of a PDU" ([B6.01] to
[B6.14], T009, T011, T015, T017, T027, T029, T037).  Events whose signatures are good and whose
parents are here go in at once.  All others are kept in the database first, so that nothing that was
acknowledged is lost, and worked off by a task for each room: keys are fetched, gaps filled, the
policy server asked.  What fails for reasons that may pass is tried again later, after longer and
longer pauses, or soon when the server that sent it shows signs of life.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import trio
from attrs import evolve, frozen

from matrixbox.core.events import Event
from matrixbox.core.identifiers import EventId, RoomId, ServerName, server_of
from matrixbox.core.json import Json
from matrixbox.errors import RemoteError
from matrixbox.observe import log
from matrixbox.rooms import outside, policy, receipt, residence, servers
from matrixbox.rooms.env import Env
from matrixbox.rooms.gaps import HELPERS, Filling, Tools
from matrixbox.rooms.letting_in import (
    Arrival,
    Door,
    Lack,
    Outcome,
    Place,
    Verdict,
    is_placed,
    outcome_of,
)
from matrixbox.rooms.policy import PolicyRemote, policy_of
from matrixbox.rooms.receipt import Checked, Dropped, Undecided
from matrixbox.rooms.remote import Pdu, RoomRemote, Verifier
from matrixbox.store import events, inbound, names, rooms
from matrixbox.store.database import Store
from matrixbox.store.events import Status
from matrixbox.store.inbound import Waiting
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx

VERIFY_S = 15.0  # for the signatures of one transaction, while its sender waits
ROOMS_AT_ONCE = 8
WORKED_OFF = 100  # waiting events of one room at a time
PAUSES_S = (
    5,
    15,
    30,
    60,
    120,
    300,
)  # before an event is tried again; from then on the last one ...
LONG_PAUSE_S = 3_600  # ... and this one when it has waited for a day
LONG_AFTER = 300  # attempts: about a day
SOON_S = 20  # after a sign of life of the server that sent it
MAX_ATTEMPTS = 450  # about a week; then it is given up, and may be sent again
HASTENED = 20  # attempts after which a sign of life of its sender changes nothing any more
IDLE_S = 60.0  # the longest sleep

_WAITING = Outcome(Verdict.WAITING)
NOT_HERE = Outcome(Verdict.DROPPED, reason="this server is not in that room")
DENIED = Outcome(Verdict.DROPPED, reason="the room's access control list denies that server")
TOO_MANY = Outcome(Verdict.DROPPED, reason="too many events wait for that room already")


@frozen
class _Staged:
    """A copy of an event that waits, read again."""

    waiting: Waiting
    event: Event


class Receiver:
    """Lets events of other servers into the rooms that this server is in."""

    def __init__(
        self,
        store: Store,
        env: Env,
        remote: RoomRemote,
        verifier: Verifier,
        policies: PolicyRemote | None = None,
    ) -> None:
        self.store = store
        self.env = env
        self.verifier = verifier
        self.policies = policies
        self.door = Door(store, env)
        self.tools = Tools(store, env, remote, verifier, self.door)
        self.on_unaware: list[Callable[[ServerName, RoomNid, Sequence[UserNid]], None]] = []
        self._busy: set[RoomNid] = set()
        self._news = trio.Event()
        self._settled = trio.Event()

    # --- from outside

    async def receive(
        self, origin: ServerName, room_id: RoomId, pdus: Sequence[Pdu]
    ) -> dict[EventId, Outcome]:
        """Take events that a server sent, in its order; what became of each, by its name.

        An event that still waits when this returns is kept in the database.
        """
        place = self.store.read(_known_room, room_id)
        if place is None:
            return {}  # without a version an event has no name ([B5.04])
        outcomes: dict[EventId, Outcome] = {}
        given = self._read(place, pdus, outcomes)
        refusal = self.store.read(_refusal, self.env, place, origin)
        if refusal is not None:
            await self._take_withdrawals(place, given.values())
            if refusal is NOT_HERE:
                self._say_farewell(place.room, origin, [*given.values()])
            return outcomes | dict.fromkeys(given, refusal)
        fresh = self._fresh(place, given, outcomes)
        verdicts = await self._verified(place, fresh)
        checked = {one.event.event_id: one for one in receipt.checked(verdicts)}
        for one in verdicts:
            if isinstance(one, Dropped):
                assert one.event_id is not None
                outcomes[one.event_id] = _dropped(one)
        arrivals = [Arrival(one, is_pushed=True) for one in checked.values()]
        outcomes |= await self.door.let_in(place, arrivals)
        undecided = [one.event for one in verdicts if isinstance(one, Undecided)]
        for event in undecided:
            outcomes[event.event_id] = Outcome(Verdict.WAITING, lack=Lack.KEYS)
        await self._keep(place, origin, given, outcomes, unsigned={*_ids(undecided)})
        return outcomes

    async def settled(self) -> None:
        """Wait until no event is being worked off; for tests."""
        while self._busy or self._rooms_due():
            await self._settled.wait()

    def _rooms_due(self) -> list[RoomNid]:
        return self.store.read(inbound.rooms_due, self.env.clock.now_ms())

    async def alive(self, origin: ServerName) -> None:
        """A server shows signs of life: what it sent and still waits is tried soon."""
        soon_ms = self.env.clock.now_ms() + SOON_S * 1000
        if self.store.read(inbound.has_later, origin, soon_ms, HASTENED):
            await self.store.write(inbound.hasten, origin, soon_ms, HASTENED)
            self._ring()

    # --- the way in

    def _read(
        self, place: Place, pdus: Sequence[Pdu], outcomes: dict[EventId, Outcome]
    ) -> dict[EventId, Event]:
        given: dict[EventId, Event] = {}
        for pdu in pdus:
            found = receipt.read(place.rules, place.room_id, pdu, backfilled=False)
            if isinstance(found, Event):
                given.setdefault(found.event_id, found)
            elif found.event_id is not None:
                outcomes[found.event_id] = _dropped(found)
        return given

    def _fresh(
        self,
        place: Place,
        given: Mapping[EventId, Event],
        outcomes: dict[EventId, Outcome],
    ) -> list[Event]:
        """Those events that have yet to be judged, and whose senders may take part (T037)."""
        fresh: list[Event] = []
        known, denied = self.store.read(_known, place.room, [*given.values()])
        for name, event in given.items():
            if name in known:
                outcomes[name] = known[name]
            elif server_of(event.sender) in denied:
                outcomes[name] = DENIED
            else:
                fresh.append(event)
        return fresh

    async def _verified(self, place: Place, fresh: Sequence[Event]) -> list[receipt.Receipt]:
        with trio.move_on_after(VERIFY_S):
            return await receipt.verify(self.verifier, place.rules, fresh)
        return [Undecided(event) for event in fresh]

    async def _keep(
        self,
        place: Place,
        origin: ServerName,
        given: Mapping[EventId, Event],
        outcomes: dict[EventId, Outcome],
        unsigned: set[EventId],
    ) -> None:
        """Make durable what waits, before anybody is told that it was taken."""
        waiting = [given[name] for name, one in outcomes.items() if not one.is_final]
        if not waiting:
            return
        kept = await self.store.write(
            _keep, place.room, origin, waiting, unsigned, self.env.clock.now_ms()
        )
        for event in waiting:
            if event.event_id not in kept:
                outcomes[event.event_id] = TOO_MANY
        self._ring()

    async def _take_withdrawals(self, place: Place, given: Iterable[Event]) -> None:
        """Invitations withdrawn, knocks refused: sent to servers that are not in the room."""
        wanted = [event for event in given if self.store.read(_may_withdraw, self.env, event)]
        for one in receipt.checked(await self._verified(place, wanted)):
            await self.store.write(outside.withdraw, self.env, one.event)

    def _say_farewell(self, room: RoomNid, origin: ServerName, given: Sequence[Event]) -> None:
        """Have a server told who of ours has left, if it does not seem to know."""
        left = self.store.read(outside.unaware_of, self.env, room, origin, given)
        if left:
            for call in self.on_unaware:
                call(origin, room, left)

    # --- what waits

    async def run(self) -> None:
        """Work off what waits, for as long as the server runs."""
        limiter = trio.CapacityLimiter(ROOMS_AT_ONCE)
        async with trio.open_nursery() as nursery:
            while True:
                self._news = trio.Event()
                now_ms = self.env.clock.now_ms()
                latest_ms = now_ms + LONG_PAUSE_S * 1000
                if self.store.read(inbound.next_due, latest_ms) is not None:
                    await self.store.write(inbound.hasten_all, latest_ms)
                for room in self._rooms_due():
                    if room not in self._busy:
                        self._busy.add(room)
                        nursery.start_soon(self._work_off, room, limiter)
                await self._sleep(now_ms)

    async def _sleep(self, now_ms: int) -> None:
        due = self.store.read(inbound.next_due, now_ms)
        pause = IDLE_S if due is None else max(0.05, min(IDLE_S, (due - now_ms) / 1000))
        with trio.move_on_after(pause):
            await self._news.wait()

    def _ring(self) -> None:
        self._news.set()

    async def _work_off(self, room: RoomNid, limiter: trio.CapacityLimiter) -> None:
        try:
            async with limiter:
                await self._attempt(room)
        finally:
            self._busy.discard(room)
            self._settled.set()
            self._settled = trio.Event()
            self._ring()

    async def _attempt(self, room: RoomNid) -> None:
        """Try once with what is due, of one server that sent some of it."""
        now_ms = self.env.clock.now_ms()
        due = self.store.read(inbound.due, room, now_ms, WORKED_OFF)
        if not due:
            return
        origin = due[0].origin
        mine = [one for one in due if one.origin == origin]
        place = self.store.read(_place, room)
        refusal = self.store.read(_refusal, self.env, place, origin)
        if refusal is not None:
            await self.store.write(_discard, mine)
            return
        try:
            await self._retry(place, origin, mine)
        except Exception as error:  # noqa: BLE001 one room fails alone; what failed is tried again
            log.bug("waiting events failed", error, room=room)
        await self.store.write(_postpone, mine, self.env.clock.now_ms())

    async def _retry(self, place: Place, origin: ServerName, mine: Sequence[Waiting]) -> None:
        arrivals = await self._arrivals(place, mine)
        attempts = min(one.attempts for one in mine)
        others = self.store.read(servers.others, place.room, self.env.server_name)
        # Who sent the events is asked first, and after a failure others in the room in turn.
        candidates = [*dict.fromkeys([origin, *others[:10]])]
        start = attempts % len(candidates)
        server, *helpers = [*candidates[start:], *candidates[:start]][: HELPERS + 1]
        filling = partial(Filling, self.tools, place, server, attempts, helpers)
        outcomes = await filling().run(arrivals)
        unsigned = [
            arrival
            for arrival in arrivals
            if outcomes.get(arrival.event_id, _WAITING).lack is Lack.POLICY
        ]
        if unsigned:
            asked = await self._asked(place, unsigned)
            outcomes |= await filling().run(asked)
        done = [one for one in mine if outcomes.get(one.event_id, _WAITING).is_final]
        await self.store.write(_discard, done)

    async def _arrivals(self, place: Place, mine: Sequence[Waiting]) -> list[Arrival]:
        """The waiting events whose signatures are good; a whole copy goes before a spoiled one."""
        found: dict[EventId, Checked] = {}
        unsigned: list[_Staged] = []
        useless: list[Waiting] = []
        for waiting in mine:
            event = receipt.read(place.rules, place.room_id, waiting.pdu, backfilled=False)
            if not isinstance(event, Event):
                useless.append(waiting)
            elif waiting.signed:
                _prefer(found, receipt.hashed(event))
            else:
                unsigned.append(_Staged(waiting, event))
        verdicts = await receipt.verify(self.verifier, place.rules, [one.event for one in unsigned])
        for staged, verdict in zip(unsigned, verdicts, strict=True):
            if isinstance(verdict, Checked):
                _prefer(found, verdict)
            elif isinstance(verdict, Dropped):
                useless.append(staged.waiting)
                log.info("event dropped", event=verdict.event_id, why=verdict.reason)
        if useless:
            await self.store.write(_discard, useless)
        return [Arrival(one, is_pushed=True) for one in found.values()]

    async def _asked(self, place: Place, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Ask the policy server for the signatures that events lack, once for each (T135)."""
        found: list[Arrival] = []
        using = self.store.read(policy_of, place.room)
        with trio.move_on_after(policy.ASK_S * 3):
            for arrival in arrivals:
                found.append(await self._signed_by_policy(place, using, arrival))
        rest = arrivals[len(found) :]
        return [*found, *(evolve(arrival, policy_asked=True) for arrival in rest)]

    async def _signed_by_policy(
        self, place: Place, using: policy.Policy | None, arrival: Arrival
    ) -> Arrival:
        if using is None or self.policies is None:
            return evolve(arrival, policy_asked=True)
        event = arrival.checked.event
        answer: Mapping[str, Json] = {}
        try:
            with trio.move_on_after(policy.ASK_S):
                answer = await self.policies.policy_signature(using.server, place.rules, event.json)
        except RemoteError as error:
            log.info("policy server did not sign", event=event.event_id, why=str(error))
        signed = using.signed(event, answer)
        if signed is None:
            return evolve(arrival, policy_asked=True)
        return evolve(arrival, checked=evolve(arrival.checked, event=signed))


def _prefer(found: dict[EventId, Checked], one: Checked) -> None:
    name = one.event.event_id
    if name not in found or found[name].pruned:
        found[name] = one


def _ids(found: Iterable[Event]) -> Iterable[EventId]:
    return (event.event_id for event in found)


def _dropped(found: Dropped) -> Outcome:
    return Outcome(Verdict.DROPPED, found.step, found.reason)


# --- transactions


def _known_room(tx: Tx, room_id: RoomId) -> Place | None:
    room = names.room_nid(tx, room_id)
    return None if room is None else _place(tx, room)


def _place(tx: Tx, room: RoomNid) -> Place:
    return Place(room, names.room_id(tx, room), rooms.rules(tx, room))


def _refusal(tx: Tx, env: Env, place: Place, origin: ServerName) -> Outcome | None:
    """Why no event of a room is taken from a server; None where they are."""
    room = place.room
    if not residence.is_followed(tx, env, room):
        return NOT_HERE  # T017
    if not servers.is_allowed(tx, room, origin):
        return DENIED
    parked = inbound.parked(tx, room)
    return None if parked is None else Outcome(Verdict.DROPPED, reason=parked)


def _known(
    tx: Tx, room: RoomNid, given: Sequence[Event]
) -> tuple[dict[EventId, Outcome], set[ServerName]]:
    """What is known of events already, and which of their senders' servers are kept out."""
    known: dict[EventId, Outcome] = {}
    for event in given:
        stored = events.by_id(tx, event.event_id)
        if stored is None or stored.room != room or stored.status & Status.PRUNED:
            continue
        if is_placed(stored):
            known[event.event_id] = outcome_of(stored)
    senders = {server_of(event.sender) for event in given}
    return known, {server for server in senders if not servers.is_allowed(tx, room, server)}


def _keep(
    tx: Tx,
    room: RoomNid,
    origin: ServerName,
    waiting: Sequence[Event],
    unsigned: set[EventId],
    now_ms: int,
) -> set[EventId]:
    return {
        event.event_id
        for event in waiting
        if inbound.wait(
            tx,
            room,
            event.event_id,
            origin,
            event.json,
            now_ms,
            signed=event.event_id not in unsigned,
        )
    }


def _discard(tx: Tx, found: Sequence[Waiting]) -> None:
    for waiting in found:
        inbound.discard(tx, waiting)


def _postpone(tx: Tx, found: Sequence[Waiting], now_ms: int) -> None:
    """Try again later what still waits."""
    for waiting in found:
        if waiting.attempts >= MAX_ATTEMPTS:
            log.info("waiting event given up", event=waiting.event_id, origin=waiting.origin)
            inbound.discard(tx, waiting)
            continue
        pause = PAUSES_S[min(waiting.attempts, len(PAUSES_S) - 1)]
        if waiting.attempts > LONG_AFTER:
            pause = LONG_PAUSE_S
        inbound.postpone(tx, waiting, now_ms + pause * 1000)


def _may_withdraw(tx: Tx, env: Env, event: Event) -> bool:
    """Whether an event may end an invitation or a knock of a user of ours."""
    return (
        event.type == "m.room.member"
        and event.state_key is not None
        and event.state_key.partition(":")[2] == env.server_name
        and event.content.get("membership") in ("leave", "ban")
    )
