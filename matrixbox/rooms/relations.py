"""Pages of events that relate to another one, and of threads.

Matrix v1.19, Client-Server API, "Relationships API", "Querying threads in a room" ([C9.10],
[C9.11]).
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, frozen

from matrixbox.core.identifiers import EventId
from matrixbox.core.redaction import redacted
from matrixbox.core.relations import may_start_thread
from matrixbox.rooms import timeline
from matrixbox.rooms.reading import Reader
from matrixbox.rooms.timeline import Page
from matrixbox.rooms.tokens import Place
from matrixbox.store import events, names
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Relation

MAX_DEPTH = 3
MAX_CHILDREN = 5_000  # looked at for one page


@frozen
class Wanted:
    """Which children are asked for, and which page of them."""

    rel_type: str | None
    event_type: str | None
    recurse: bool
    back: bool
    start: Place | None
    until: Place | None
    limit: int


def _place(stored: StoredEvent) -> Place:
    assert stored.pos is not None
    return Place(stored.pos, stored.sub)


def children(reader: Reader, parent: EventId, wanted: Wanted) -> Page:
    """A page of an event's visible children.  Raises NotFound when the event cannot be seen."""
    timeline.event(reader, parent)
    found = [
        stored
        for stored in _descendants(reader, parent, wanted, MAX_DEPTH if wanted.recurse else 1)
        if _is_on_page(_place(stored), wanted)
    ]
    found.sort(key=_place, reverse=wanted.back)
    chosen = found[: wanted.limit]
    more = len(found) > len(chosen)
    return Page(tuple(chosen), _beyond(chosen[-1], back=wanted.back) if more else None)


def _beyond(stored: StoredEvent, *, back: bool) -> Place:
    place = _place(stored)
    return Place.before(place.pos, place.sub) if back else place


def _is_on_page(place: Place, wanted: Wanted) -> bool:
    if wanted.back:
        return (wanted.start is None or place <= wanted.start) and (
            wanted.until is None or place > wanted.until
        )
    return (wanted.start is None or place > wanted.start) and (
        wanted.until is None or place <= wanted.until
    )


def _descendants(reader: Reader, parent: EventId, wanted: Wanted, depth: int) -> list[StoredEvent]:
    """Visible children, and theirs down to some depth; no event twice (T007).

    What does not match is not followed either ("Relationships API").
    """
    seen = {parent}
    found: list[StoredEvent] = []
    generation = [parent]
    for _ in range(depth):
        following: list[EventId] = []
        for event_id in generation:
            for relation in events.relations(reader.tx, event_id):
                stored = events.by_nid(reader.tx, relation.nid)
                if stored.event.event_id in seen or len(seen) > MAX_CHILDREN:
                    continue
                seen.add(stored.event.event_id)
                if (
                    wanted.rel_type in (None, relation.rel_type)
                    and wanted.event_type in (None, relation.type)
                    and stored.room == reader.room
                ):
                    following.append(stored.event.event_id)
                    if reader.may_see(stored):
                        found.append(stored)
        generation = following
    return found


def threads(reader: Reader, start: Place | None, limit: int, *, participated: bool) -> Page:
    """A page of thread roots, ordered by their newest visible replies."""
    timeline.require_reader(reader)
    newest: list[tuple[Place, StoredEvent]] = []
    for root_id, replies in events.threads(reader.tx, reader.room).items():
        root = events.by_id(reader.tx, root_id)
        if root is None or not reader.is_visible(root) or not may_start_thread(root.event):
            continue
        if participated and not _participates(reader, root, replies):
            continue
        shown = [events.by_nid(reader.tx, reply.nid) for reply in replies]
        places = [_place(stored) for stored in shown if reader.may_see(stored)]
        if places and (start is None or max(places) <= start):
            newest.append((max(places), root))
    newest.sort(key=lambda pair: pair[0], reverse=True)
    chosen = newest[:limit]
    end = None
    if len(newest) > len(chosen):
        last, _ = chosen[-1]
        end = Place.before(last.pos, last.sub)
    return Page(tuple(_pruned(reader, root) for _, root in chosen), end)


def _participates(reader: Reader, root: StoredEvent, replies: Iterable[Relation]) -> bool:
    me = names.user_id(reader.tx, reader.user)
    return root.event.sender == me or any(reply.sender == reader.user for reply in replies)


def _pruned(reader: Reader, root: StoredEvent) -> StoredEvent:
    """The root; without its content where an ignored user sent it."""
    if not reader.is_ignored(root):
        return root
    return evolve(root, event=redacted(root.event), client_json=None)
