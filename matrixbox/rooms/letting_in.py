"""Events that passed the first three checks, on their way into one room.

Matrix v1.19, Server-Server API, "Checks performed on receipt of a PDU".  An event goes in when all
that it cites is here; steps 4 to 7 are taken then, in one transaction with all that follows.  One
event that cannot be worked with harms no other (T009), and one room that costs too much is parked,
no other waits for it (T029).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from heapq import heappop, heappush

from attrs import frozen

from matrixbox.core.events import Event
from matrixbox.core.identifiers import EventId, RoomId
from matrixbox.core.room_versions import RoomRules
from matrixbox.errors import MatrixError
from matrixbox.observe import log
from matrixbox.rooms import ingest, resolution
from matrixbox.rooms.build import MAX_PREV_EVENTS
from matrixbox.rooms.commit import Candidate
from matrixbox.rooms.env import Env
from matrixbox.rooms.policy import policy_of
from matrixbox.rooms.receipt import Checked
from matrixbox.rooms.resolution import RoomTooCostly
from matrixbox.store import events, inbound, names, rooms
from matrixbox.store.caches import StoredEvent
from matrixbox.store.database import Store
from matrixbox.store.errors import StoreError
from matrixbox.store.events import Status
from matrixbox.store.nids import RoomNid, SnapshotNid
from matrixbox.store.transaction import Tx

BEGINNING = (0, -(2**53))  # before all places of a timeline
BATCH = 20  # events in one transaction: some 10 ms


@frozen
class Place:
    """A room that events are received for."""

    room: RoomNid
    room_id: RoomId
    rules: RoomRules


class Verdict(Enum):
    """What became of a PDU."""

    ACCEPTED = "accepted"
    SOFT_FAILED = "soft-failed"
    REJECTED = "rejected"
    DROPPED = "dropped"
    WAITING = "waiting"  # nothing is concluded yet


class Lack(Enum):
    """What an event waits for."""

    PARENTS = "parents"
    AUTH_EVENTS = "auth events"
    KEYS = "keys of other servers"
    POLICY = "a signature of the policy server"


@frozen
class Outcome:
    """What became of a PDU; ``step`` is the check that it failed, if it failed one."""

    verdict: Verdict
    step: int | None = None
    reason: str = ""
    lack: Lack | None = None

    @property
    def is_final(self) -> bool:
        """Whether the event need not be tried again."""
        return self.verdict is not Verdict.WAITING


@frozen
class Arrival:
    """An event that passed steps 1 to 3, with what was found out about its surroundings."""

    checked: Checked
    told: SnapshotNid | None = None  # the state before it, as another server says
    policy_asked: bool = False  # the policy server was asked and did not sign
    is_past: bool = False  # it was fetched because an event cites it as its parent
    is_pushed: bool = False  # its sender thinks that it is news

    @property
    def event_id(self) -> EventId:
        """The event's name."""
        return self.checked.event.event_id


OLD = Outcome(Verdict.DROPPED, reason="it is older than what this server has of the room")


class _Failed(Exception):
    """One event of several could not be worked with; nothing of the transaction is kept."""

    def __init__(self, index: int) -> None:
        super().__init__(f"event {index} of several")
        self.index = index


def outcome_of(stored: StoredEvent) -> Outcome:
    """What became of an event that is here."""
    status = Status(stored.status)
    if status & Status.REJECTED_BY_AUTH:
        return Outcome(Verdict.REJECTED, 4, "its auth events do not allow it")
    if status & Status.REJECTED:
        return Outcome(Verdict.REJECTED, 5, "the state before it does not allow it")
    if status & Status.DISPUTED:
        return Outcome(Verdict.SOFT_FAILED, 5, "the state that others tell does not allow it")
    if status & Status.SOFT_FAILED:
        return Outcome(Verdict.SOFT_FAILED, 6)
    return Outcome(Verdict.ACCEPTED)


def is_placed(stored: StoredEvent | None) -> bool:
    """Whether an event is here with the state around it."""
    return stored is not None and stored.snapshot is not None


def take(tx: Tx, env: Env, place: Place, arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Let some events in, parents first.  Raises what the first one raises that fails."""
    outcomes: list[Outcome] = []
    for arrival in arrivals:
        try:
            outcomes.append(_take_one(tx, env, place, arrival))
        except StoreError:
            raise
        except Exception as error:
            if len(arrivals) == 1:
                raise
            raise _Failed(len(outcomes)) from error
    return outcomes


def _take_one(tx: Tx, env: Env, place: Place, arrival: Arrival) -> Outcome:
    event = arrival.checked.event
    known = events.by_id(tx, event.event_id)
    candidate = _candidate(tx, place, arrival)
    if arrival.is_pushed and not is_placed(known) and _is_history(tx, place.room, event, candidate):
        return OLD if known is None else outcome_of(known)
    if known is not None and arrival.is_pushed and isinstance(candidate, Lack) and _is_past(known):
        return outcome_of(known)
    if isinstance(candidate, Lack) and not is_placed(known):
        return Outcome(Verdict.WAITING, lack=candidate)
    if not arrival.checked.pruned:  # else a whole copy may be waiting
        inbound.settle(tx, place.room, event.event_id)
    if isinstance(candidate, Lack):
        assert known is not None
        return outcome_of(known)
    return _entered(tx, env, candidate, arrival, known)


def _is_history(tx: Tx, room: RoomNid, event: Event, candidate: Candidate | Lack) -> bool:
    """Whether an event that is sent as news is older than all that is here of the room.

    Its place is found when history is read, not by asking others for what is around it: it would
    be one more end of the room, with the state of long ago.  Equal depths tell nothing: somebody
    may have driven all of the room to the greatest one (T004).  Nor does any depth where a parent
    is here: who puts somebody out with a low one would do so unheard by their server.
    """
    if isinstance(candidate, Candidate) and event.prev_event_ids:
        return False
    if any(is_placed(events.by_id(tx, parent)) for parent in event.prev_event_ids):
        return False
    first = events.first_at(tx, room, BEGINNING)
    return first is not None and event.depth < events.by_nid(tx, first).event.depth


def _is_past(known: StoredEvent) -> bool:
    """Whether an event is here because it led to what is here."""
    return bool(known.status & Status.OUTLIER) and not known.status & Status.FRESH


def _entered(
    tx: Tx, env: Env, candidate: Candidate, arrival: Arrival, known: StoredEvent | None
) -> Outcome:
    if is_placed(known):
        return outcome_of(ingest.receive(tx, env, candidate))
    policy = policy_of(tx, candidate.room)
    refused = policy is not None and not policy.approves(candidate.event)
    may_ask = policy is not None and policy.server != env.server_name and not arrival.policy_asked
    if refused and may_ask:
        return Outcome(Verdict.WAITING, lack=Lack.POLICY)
    stored = ingest.receive(tx, env, candidate, refused_by_policy=refused)
    outcome = outcome_of(stored)
    if refused and outcome.verdict is Verdict.SOFT_FAILED and outcome.step != 5:
        return Outcome(Verdict.SOFT_FAILED, 7)
    return outcome


def _candidate(tx: Tx, place: Place, arrival: Arrival) -> Candidate | Lack:
    event = arrival.checked.event
    auth = [events.by_id(tx, event_id) for event_id in event.auth_event_ids]
    cited = [one for one in auth if one is not None]
    if len(cited) < len(auth):
        return Lack.AUTH_EVENTS
    prev, missing = [], []
    for event_id in event.prev_event_ids:
        parent = events.by_id(tx, event_id)
        if parent is not None and is_placed(parent):
            prev.append(parent)
        else:
            missing.append(event_id)
    if missing and arrival.told is None:
        return Lack.PARENTS
    return Candidate(
        event,
        place.room,
        place.rules,
        prev,
        cited,
        pruned=arrival.checked.pruned,
        missing=missing,
        told=arrival.told if missing else None,
        is_hearsay=bool(missing),
        is_past=arrival.is_past,
    )


def in_order(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """Parents before children, otherwise as they come; what is in a cycle is left out (T007)."""
    given = {arrival.event_id: arrival for arrival in arrivals}
    waiting = {
        name: {parent for parent in one.checked.event.prev_event_ids if parent in given}
        for name, one in given.items()
    }
    children: dict[EventId, list[EventId]] = {}
    for name, parents in waiting.items():
        for parent in parents:
            children.setdefault(parent, []).append(name)
    place = {name: index for index, name in enumerate(given)}
    ready = [(place[name], name) for name, parents in waiting.items() if not parents]
    order: list[Arrival] = []
    while ready:  # a heap: it is made in order
        _, name = heappop(ready)
        order.append(given[name])
        for child in children.get(name, ()):
            waiting[child].discard(name)
            if not waiting[child]:
                heappush(ready, (place[child], child))
    return order


class Door:
    """Lets events in, some at a time."""

    def __init__(self, store: Store, env: Env) -> None:
        self.store = store
        self.env = env

    async def let_in(self, place: Place, arrivals: Iterable[Arrival]) -> dict[EventId, Outcome]:
        """What becomes of events that passed steps 1 to 3."""
        todo = in_order(arrivals)
        outcomes: dict[EventId, Outcome] = {}
        size = BATCH
        while todo:
            part = todo[:size]
            try:
                found = await self._take(place, part)
            except _Failed as failure:
                size = max(failure.index, 1)  # those before it first, then it alone
                continue
            outcomes.update(zip((one.event_id for one in part), found, strict=True))
            todo, size = todo[len(part) :], BATCH
        await self._join_extremities(place)
        return outcomes

    async def _take(self, place: Place, part: Sequence[Arrival]) -> list[Outcome]:
        try:
            return await resolution.write(self.store, take, self.env, place, part)
        except (StoreError, _Failed):
            raise
        except RoomTooCostly as error:
            await self.park(place.room, error.text)
            return [Outcome(Verdict.DROPPED, reason=error.text) for _ in part]
        except Exception as error:  # noqa: BLE001 one PDU fails alone (T009)
            log.bug("an event cannot be let in", error, event=part[0].event_id)
            await self.store.write(inbound.settle, place.room, part[0].event_id)
            return [Outcome(Verdict.DROPPED, reason="this server failed on it")]

    async def park(self, room: RoomNid, reason: str) -> None:
        """Take no more events of a room (T029)."""
        room_id = self.store.read(names.room_id, room)
        advice = f"leave it, or try again: matrixbox room retry '{room_id}'"
        log.warning("room takes no events", room_id=room_id, reason=reason, advice=advice)
        await self.store.write(inbound.park, room, self.env.clock.now_ms(), reason)

    async def _join_extremities(self, place: Place) -> None:
        head = self.store.read(rooms.head, place.room)
        if head is None or len(head.extremities) <= MAX_PREV_EVENTS:
            return
        try:
            await resolution.write(self.store, ingest.join_extremities, self.env, place.room)
        except RoomTooCostly as error:
            await self.park(place.room, error.text)
        except MatrixError as error:  # the policy server will not have it
            log.info("ends of a room not joined", room=place.room, why=error.text)
