"""Looking for the keys that were missing when rooms were joined.

Matrix v1.19, Server-Server API, "Retrieving server keys" (T027, T049).  A server that is down while
we join a room may have users in it whose memberships nobody can check.  Such events are kept, over
restarts too, and checked as soon as the keys are there: when their server gives a sign of life,
and at times besides.  Then the room is put on the whole state.  It ends when all is checked, when
nobody of ours is in the room, or after some weeks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from attrs import define, field, frozen

from matrixbox.core.events import Event
from matrixbox.core.identifiers import EventId, RoomId, ServerName, UserId, server_of
from matrixbox.core.room_versions import RoomRules
from matrixbox.federation.agenda import Agenda
from matrixbox.observe import log
from matrixbox.rooms import arrival, partial, receipt, residence, unchecked
from matrixbox.rooms.env import Env
from matrixbox.rooms.receipt import Checked
from matrixbox.rooms.remote import Verifier
from matrixbox.store import joins, names, rooms, undecided
from matrixbox.store.database import Store
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx
from matrixbox.store.undecided import Kept, UndecidedRoom

PAUSES_S = (15, 30, 60, 300, 900, 3600, 6 * 3600, 24 * 3600)  # the last one goes on
MAX_ATTEMPTS = 40  # a month; then what could never be checked is let go
SIGN_OF_LIFE_S = 12.0  # after it; a server's keys are asked for at most once in 10 s
BATCH = 50  # events that are checked, or stored, at a time
AT_ONCE = 2


@define(eq=False)
class Undecided:
    """Checks what could not be checked when rooms were joined."""

    store: Store
    env: Env
    verifier: Verifier
    _agenda: Agenda[RoomNid] = field(factory=lambda: Agenda(AT_ONCE), repr=False)
    _signers: dict[RoomNid, frozenset[ServerName]] = field(factory=dict, repr=False)

    async def run(self) -> None:
        """Go on with what an earlier run has left, and with what comes up in this one."""
        for found in self.store.read(undecided.in_rooms):
            self._put_off(found.room, PAUSES_S[0])
        await self._agenda.run(self._go_through)

    def begin(self, room: RoomNid) -> None:
        """A room was joined; something in it may be undecided."""
        if self.store.read(undecided.of_room, room) is not None:
            self._put_off(room, PAUSES_S[0])

    def keys_came(self, server: ServerName) -> None:
        """A server has told its keys."""
        self._hasten(server, 0.0)

    def is_alive(self, server: ServerName) -> None:
        """A server that was silent gave a sign of life."""
        self._hasten(server, SIGN_OF_LIFE_S)

    def _hasten(self, server: ServerName, within_s: float) -> None:
        waiting = self._agenda.later_than(within_s, with_busy=True)
        self._agenda.hasten([key for key in waiting if server in self._signers_of(key)], within_s)

    def _signers_of(self, room: RoomNid) -> frozenset[ServerName]:
        found = self._signers.get(room)
        if found is None:
            found = self._signers[room] = self.store.read(_signers, room)
        return found

    def _put_off(self, room: RoomNid, pause_s: float) -> None:
        self._signers.pop(room, None)
        self._agenda.put_off(room, pause_s)

    # --- one room

    async def _go_through(self, room: RoomNid) -> None:
        found = self.store.read(undecided.of_room, room)
        if found is None:
            return
        if not self.store.read(residence.is_resident, self.env, room):
            await self.store.write(unchecked.forget, room)
            return
        if found.attempts >= MAX_ATTEMPTS:
            log.warning("keys of events of a room could never be had", room=room)
            await self.store.write(unchecked.forget, room)
            return
        await self._try(found)
        left = self.store.read(undecided.of_room, room)
        if left is None:
            return
        await self.store.write(undecided.put_attempts, room, left.attempts + 1)
        if room not in self._agenda:  # else somebody knows better when
            self._put_off(room, PAUSES_S[min(left.attempts, len(PAUSES_S) - 1)])

    async def _try(self, found: UndecidedRoom) -> None:
        about = self.store.read(_about, found)
        decided: dict[EventId, Checked] = {}
        false: list[EventId] = []
        for start in range(0, len(about.kept), BATCH):
            some = about.kept[start : start + BATCH]
            pdus = [one.pdu for one in some]
            verdicts = await receipt.check(self.verifier, about.rules, about.room_id, pdus)
            for kept, verdict in zip(some, verdicts, strict=True):
                if isinstance(verdict, Checked):
                    decided[kept.event_id] = verdict
                elif isinstance(verdict, receipt.Dropped):
                    false.append(kept.event_id)
        stored = await self._admit(found.room, about, decided)
        waiting = {one.event_id for one in about.kept} - decided.keys() - set(false)
        # What cites something undecided stays; what cites something that is not there goes.
        useless = [
            name
            for name, one in decided.items()
            if name not in stored and waiting.isdisjoint(_cited(one.event, decided))
        ]
        if not stored and not false and not useless:
            return
        log.info(
            "events of a room could be checked",
            room=about.room_id,
            good=len(stored),
            bad=len(false) + len(useless),
            left=len(waiting),
        )
        false += useless
        try:
            settle = partial.settle
            await self.store.write(settle, self.env, found, [*stored], false, heavy=True)
        except arrival.Unusable as error:
            log.warning("a room's whole state is of no use", room=about.room_id, reason=str(error))
            await self.store.write(undecided.drop_events, found.room, [*stored, *false])

    async def _admit(
        self, room: RoomNid, about: _About, decided: Mapping[EventId, Checked]
    ) -> set[EventId]:
        """Store events, each one after those that it cites; those that are stored now."""
        order = _in_order(decided)
        for start in range(0, len(order), BATCH):
            some = [decided[name] for name in order[start : start + BATCH]]
            pruned = frozenset(one.event.event_id for one in some if one.pruned)
            given = [one.event for one in some]
            await self.store.write(arrival.admit, self.env, room, about.rules, given, pruned)
        return set(order) - set(self.store.read(joins.missing, order))


@frozen
class _About:
    room_id: RoomId
    rules: RoomRules
    kept: Sequence[Kept]


def _about(tx: Tx, found: UndecidedRoom) -> _About:
    room = found.room
    return _About(names.room_id(tx, room), rooms.rules(tx, room), undecided.events_of(tx, room))


def _signers(tx: Tx, room: RoomNid) -> frozenset[ServerName]:
    """The servers whose keys may be missing."""
    senders = (one.pdu.get("sender") for one in undecided.events_of(tx, room))
    return frozenset(server_of(UserId(sender)) for sender in senders if isinstance(sender, str))


def _in_order(decided: Mapping[EventId, Checked]) -> list[EventId]:
    graph = {
        name: [cited for cited in one.event.auth_event_ids if cited in decided]
        for name, one in decided.items()
    }
    try:
        return [*TopologicalSorter(graph).static_order()]
    except CycleError:
        return [*graph]  # such events are not stored


def _cited(event: Event, decided: Mapping[EventId, Checked]) -> set[EventId]:
    """All that an event cites, directly or through others."""
    found: set[EventId] = set()
    ahead = [event]
    while ahead:
        for name in ahead.pop().auth_event_ids:
            if name not in found:
                found.add(name)
                if name in decided:
                    ahead.append(decided[name].event)
    return found
