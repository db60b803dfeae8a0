"""Gaps at which another server told us the state: the events between are fetched after all.

Matrix v1.19, Server-Server API, "Backfilling and retrieving missing events" ([B6.11], [B6.12],
[B11.01]; T015, T020, T027).  A state that was told lets a room go on at once, and it may be stale
or a lie.  So the history before it is asked for in the background, of one server after the other,
until it meets what is known here; then the states come from the events (``rooms.revising``).  How
much is fetched for one gap is bounded, and so is how often it is tried.  Of a gap that goes back to
before our time in the room, or before we came back to it, little is fetched: there may be years of
history behind it.
"""

from __future__ import annotations

import trio
from attrs import define

from matrixbox.core.identifiers import server_of
from matrixbox.federation.backfill import Backfill
from matrixbox.observe import log
from matrixbox.rooms import history, residence
from matrixbox.rooms.env import Env
from matrixbox.rooms.history import Gap
from matrixbox.store import events, hearsay, inbound
from matrixbox.store.changes import StreamPos
from matrixbox.store.database import Store
from matrixbox.store.errors import StoreError
from matrixbox.store.events import Status
from matrixbox.store.hearsay import Told
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

PAUSES_S = (15, 30, 60, 120)  # before a gap is tried again; from then on the last one ...
LONG_PAUSE_S = 3_600  # ... and this one when it was tried often
LONG_AFTER = 20  # attempts
MAX_ATTEMPTS = 150  # some days
BEFORE_US_ATTEMPTS = 8  # for a gap that goes back to before our time ...
BEFORE_US_PAGES = 5  # ... and pages of history that are fetched for it
AT_ONCE = 20  # gaps that are due are taken up together, one after the other
LONGEST_S = 600.0  # of sleep


@define(eq=False)
class Bridges:
    """Fills the gaps that were bridged by what others told."""

    store: Store
    env: Env
    backfill: Backfill

    async def run(self) -> None:
        """For as long as the server runs."""
        while True:
            position = self.store.doorbell.position
            now_ms = self.env.clock.now_ms()
            latest_ms = now_ms + LONG_PAUSE_S * 1000
            if self.store.read(hearsay.is_later, latest_ms):
                await self.store.write(hearsay.hasten, latest_ms)
            found = self.store.read(hearsay.due, now_ms, AT_ONCE)
            for told in found:
                await self._try_alone(told)
            if not found:
                with trio.move_on_after(self._pause_s(now_ms)):
                    await self.store.doorbell.beyond(StreamPos(position), hearsay.TOLD)

    def _pause_s(self, now_ms: int) -> float:
        due_ms = self.store.read(hearsay.next_due)
        return LONGEST_S if due_ms is None else min(LONGEST_S, max(0.05, (due_ms - now_ms) / 1000))

    async def _try_alone(self, told: Told) -> None:
        """One gap fails alone (T009), and is put off whatever becomes of it."""
        due_ms = _next_ms(told, self.env.clock.now_ms())
        try:
            if self.store.read(inbound.parked, told.room) is not None:
                await self.store.write(hearsay.postpone, told.nid, due_ms)
                return
            gap = self.store.read(_gap, self.env, told)
            if gap is None:
                due_ms = None
            else:
                await self.backfill.bridge(gap)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 one gap fails alone
            log.bug("a gap was not bridged", error, room=told.room, event=told.nid)
        if due_ms is None:
            log.info("a gap is left as it is", room=told.room, event=told.nid)
        await self.store.write(hearsay.postpone, told.nid, due_ms)


def _next_ms(told: Told, now_ms: int) -> int | None:
    if told.attempts >= MAX_ATTEMPTS:
        return None
    pause_s = PAUSES_S[min(told.attempts, len(PAUSES_S) - 1)]
    return now_ms + 1000 * (LONG_PAUSE_S if told.attempts >= LONG_AFTER else pause_s)


def _gap(tx: Tx, env: Env, told: Told) -> Gap | None:
    """What is missing before an event; None where it is not to be looked for any more."""
    stored = events.by_nid(tx, told.nid)
    missing = [*history.not_in_graph(tx, stored.event.prev_event_ids)]
    if not missing or not residence.is_followed(tx, env, told.room):
        return None
    pages = told.pages
    came_back = not stored.status & Status.HEARSAY
    if came_back or _is_before_us(tx, told.room, stored.event.depth):
        if told.attempts >= BEFORE_US_ATTEMPTS:
            return None
        pages = min(pages, BEFORE_US_PAGES)
    server = server_of(stored.event.sender)
    found = tuple(sorted(missing)[: history.MAX_ASKED])
    return Gap(told.room, told.nid, history.place_of(stored), found, server, pages)


def _is_before_us(tx: Tx, room: RoomNid, depth: int) -> bool:
    """Whether an event is older than the first one that this server got while it was in the room.

    Somebody who makes such an event with a low depth only keeps us from looking far behind it.
    """
    first = events.first_live(tx, room)
    return first is not None and depth < events.by_nid(tx, first).event.depth
