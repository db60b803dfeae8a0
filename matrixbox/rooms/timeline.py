"""Pages of a room's history, single events, and what stands around them.

Matrix v1.19, Client-Server API, "Getting events for a room", "Event context" ([C9.03] to [C9.07]).
The order is that of arrival; history that was fetched later stands before the event that led to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol

from attrs import frozen

from matrixbox.core.identifiers import EventId
from matrixbox.errors import Forbidden, NotFound
from matrixbox.rooms.reading import Reader
from matrixbox.rooms.tokens import Place
from matrixbox.store import events
from matrixbox.store.caches import StoredEvent
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

Wanted = Callable[[StoredEvent], bool]

BEGINNING = Place(0, -(2**53))
END = Place(2**62, 0)
NO_EVENT = "There is no such event, or you may not see it."
MAX_SCANNED = 2_000  # events looked at for one page (T013)
_BATCH = 100


class Looker(Protocol):
    """A user or a server looking into one room."""

    @property
    def tx(self) -> Tx: ...

    @property
    def room(self) -> RoomNid: ...

    def may_see(self, stored: StoredEvent) -> bool: ...


@frozen
class Page:
    """Events in the order of travel; ``end`` is None where there is no more.

    Of a page of the timeline, all between the start and ``reached`` has been looked at.
    """

    events: tuple[StoredEvent, ...]
    end: Place | None
    reached: Place = BEGINNING

    def after_last(self, *, back: bool) -> Place:
        """Where to go on from the last event, which there must be."""
        return _beyond(self.events[-1], back=back)


def page(
    reader: Reader, start: Place, until: Place | None, limit: int, wanted: Wanted, *, back: bool
) -> Page:
    """At most ``limit`` visible events from a place on, towards another.

    Ends early after looking at ``MAX_SCANNED`` events, with an ``end`` that goes on from there.
    """
    chosen: list[StoredEvent] = []
    found = (_backwards if back else _forwards)(reader, start, until)
    for scanned, stored in enumerate(found, start=1):
        if reader.may_see(stored) and wanted(stored):
            chosen.append(stored)
        if len(chosen) >= limit or scanned >= MAX_SCANNED:
            end = _beyond(stored, back=back)
            return Page(tuple(chosen), end, end)
    return Page(tuple(chosen), None, until or (BEGINNING if back else END))


def _beyond(stored: StoredEvent, *, back: bool) -> Place:
    assert stored.pos is not None
    return Place.before(stored.pos, stored.sub) if back else Place(stored.pos, stored.sub)


def _backwards(reader: Looker, start: Place, until: Place | None) -> Iterator[StoredEvent]:
    limit = until or BEGINNING
    while True:
        found = events.before(
            reader.tx, reader.room, (start.pos, start.sub), (limit.pos, limit.sub), _BATCH
        )
        for nid in found:
            stored = events.by_nid(reader.tx, nid)
            yield stored
            start = _beyond(stored, back=True)
        if len(found) < _BATCH:
            return


def _forwards(reader: Looker, start: Place, until: Place | None) -> Iterator[StoredEvent]:
    limit = until or END
    while True:
        found = events.after(
            reader.tx, reader.room, (start.pos, start.sub), (limit.pos, limit.sub), _BATCH
        )
        for nid in found:
            stored = events.by_nid(reader.tx, nid)
            yield stored
            start = _beyond(stored, back=False)
        if len(found) < _BATCH:
            return


def forwards(reader: Looker, start: Place) -> Iterator[StoredEvent]:
    """The events after a place, visible or not, as far as one request looks."""
    return islice(_forwards(reader, start, None), MAX_SCANNED)


def event(reader: Reader, event_id: EventId) -> StoredEvent:
    """One event; NotFound both for a missing and for an invisible one ([C9.06])."""
    stored = events.by_id(reader.tx, event_id)
    if stored is None or stored.pos is None or not reader.may_see(stored):
        raise NotFound(NO_EVENT)
    return stored


@frozen
class Context:
    """An event with its neighbours; ``before`` runs backwards."""

    event: StoredEvent
    before: tuple[StoredEvent, ...]
    after: tuple[StoredEvent, ...]
    start: Place
    end: Place
    reached: tuple[Place, Place]  # the oldest and the newest place looked at

    @property
    def here(self) -> Place:
        """Where the event stands."""
        assert self.event.pos is not None
        return Place(self.event.pos, self.event.sub)


def context(reader: Reader, event_id: EventId, limit: int, wanted: Wanted) -> Context:
    """The events around one ([C9.05])."""
    centre = event(reader, event_id)
    assert centre.pos is not None
    here = Place(centre.pos, centre.sub)
    ahead = Place.before(centre.pos, centre.sub)
    older = (
        page(reader, ahead, None, limit // 2, wanted, back=True)
        if limit > 1
        else Page((), ahead, here)
    )
    newer_limit = limit - limit // 2
    newer = (
        page(reader, here, None, newer_limit, wanted, back=False) if limit else Page((), here, here)
    )
    return Context(
        centre,
        older.events,
        newer.events,
        start=older.end or (_beyond(older.events[-1], back=True) if older.events else ahead),
        end=newer.end or (_beyond(newer.events[-1], back=False) if newer.events else here),
        reached=(older.reached, newer.reached),
    )


def nearest(reader: Looker, ts: int, *, back: bool) -> StoredEvent | None:
    """The visible event nearest to a time in one direction ([C9.08]); None for none.

    The order of the timeline mostly is that of time, so the place is found by bisection and
    searched from there.
    """
    start = place_of_time(reader, ts + 1 if back else ts)
    if not back:
        start = Place.before(start.pos, start.sub)
    found = (_backwards if back else _forwards)(reader, start, None)
    for scanned, stored in enumerate(found):
        there = stored.event.origin_server_ts
        if (there <= ts if back else there >= ts) and reader.may_see(stored):
            return stored
        if scanned >= MAX_SCANNED:
            break
    return None


def place_of_time(reader: Looker, ts: int) -> Place:
    """Where the first event sent at a time or later stands, or a place before it."""

    def is_later(place: Place) -> bool:
        nid = events.first_at(reader.tx, reader.room, (place.pos, place.sub))
        return nid is None or events.by_nid(reader.tx, nid).event.origin_server_ts >= ts

    newest = events.newest(reader.tx, reader.room, 2**62)
    low, high = 0, 0 if newest is None else (events.by_nid(reader.tx, newest).pos or 0) + 1
    while low < high:
        middle = (low + high) // 2
        if is_later(Place(middle, BEGINNING.sub)):
            high = middle
        else:
            low = middle + 1
    # History that was found later may stand before the event at the place just passed.
    pos, low, high = low - 1, BEGINNING.sub, 1
    while low < high:
        middle = (low + high) // 2
        if is_later(Place(pos, middle)):
            high = middle
        else:
            low = middle + 1
    return Place(pos, low)


def before_oldest(reader: Looker) -> Place:
    """Just before the first event of the room that is here."""
    nid = events.first_at(reader.tx, reader.room, (BEGINNING.pos, BEGINNING.sub))
    if nid is None:
        return BEGINNING
    stored = events.by_nid(reader.tx, nid)
    assert stored.pos is not None
    return Place.before(stored.pos, stored.sub)


def was_inside(reader: Reader) -> bool:
    """Whether the user is or was in the room, so that more of its history may be for them."""
    return reader.joined or reader.parting() is not None


def require_reader(reader: Reader) -> None:
    """Raise Forbidden for a user who has nothing to read in the room ([C9.04])."""
    if reader.member is None and not reader.is_world_readable:
        raise Forbidden("You are not in that room.")
    if reader.member is not None and reader.member.forgotten:
        raise Forbidden("You have forgotten that room.")
