"""Many events of a room at once: their names, their bodies, what they are authorised by.

For what a server asks about whole states; one statement for some hundreds of events.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

from matrixbox.core.identifiers import EventId
from matrixbox.core.json import encode
from matrixbox.store import bodies
from matrixbox.store.nids import EventNid
from matrixbox.store.transaction import Tx

BATCH = 500


def auth_chain(tx: Tx, events: Iterable[EventNid]) -> list[EventNid]:
    """The auth events of some events, theirs, and so on; each once, in no particular order."""
    seen: set[EventNid] = set()
    layer = [*dict.fromkeys(events)]
    while layer:
        following: dict[EventNid, None] = {}
        for chosen in _batches(layer):
            for row in tx.run(
                "SELECT auth FROM event WHERE nid IN (SELECT value FROM json_each(?))",
                _list(chosen),
            ):
                following.update(dict.fromkeys(map(EventNid, array("Q", row[0]))))
        layer = [nid for nid in following if nid not in seen]
        seen.update(layer)
    return [*seen]


def event_ids(tx: Tx, events: Sequence[EventNid]) -> list[EventId]:
    """The names of events."""
    found: list[EventId] = []
    for chosen in _batches(events):
        rows = tx.run(
            "SELECT event_id FROM event WHERE nid IN (SELECT value FROM json_each(?))",
            _list(chosen),
        )
        found.extend(EventId(row[0]) for row in rows)
    return found


def pdus(tx: Tx, events: Sequence[EventNid]) -> Iterator[bytes]:
    """The events as JSON, as other servers know them but without `unsigned`."""
    for chosen in _batches(events):
        rows = tx.run(
            "SELECT json FROM event WHERE nid IN (SELECT value FROM json_each(?))", _list(chosen)
        )
        for row in rows:
            yield bodies.unpack(row[0])


def _batches(events: Sequence[EventNid]) -> Iterator[Sequence[EventNid]]:
    return (events[start : start + BATCH] for start in range(0, len(events), BATCH))


def _list(nids: Sequence[EventNid]) -> str:
    return encode([*nids]).decode()
