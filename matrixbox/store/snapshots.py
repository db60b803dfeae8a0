"""State snapshots: the state of a room at a point of its graph.

A snapshot is a row of entries (state slot, event) laid over the row it is based on.  Rows are
never changed and are shared.  Three kinds of deltas with growing bounds, then a whole state, keep
both the chain and the cost of a state change bounded: a chain has at most four rows, and each
entry is written again about once per kind.

Entries are two arrays one after the other, slot numbers (32 bits, ascending) and event numbers
(64 bits, 0: the slot is empty), little-endian, so that one slot is found by bisection without
decoding the row.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping

from matrixbox.store.nids import EventNid, SlotNid, SnapshotNid
from matrixbox.store.transaction import Tx

State = dict[SlotNid, EventNid]

EMPTY = SnapshotNid(0)  # the state before a create event; no row
BOUNDS = (16, 256, 4096)  # entries of the delta rows, by level 1, 2, 3; level 0 is a whole state
_ENTRY = 12


def pack(state: Mapping[SlotNid, EventNid]) -> bytes:
    """Entries in the form of the rows."""
    slots = sorted(state)
    return array("I", slots).tobytes() + array("Q", [state[slot] for slot in slots]).tobytes()


def unpack(entries: bytes) -> State:
    """The inverse of :func:`pack`."""
    border = len(entries) // _ENTRY * 4
    slots = memoryview(entries)[:border].cast("I").tolist()
    events = memoryview(entries)[border:].cast("Q").tolist()
    return {SlotNid(s): EventNid(e) for s, e in zip(slots, events, strict=True)}


def _find(entries: bytes, slot: int) -> int | None:
    count = len(entries) // _ENTRY
    slots = memoryview(entries)[: count * 4].cast("I")
    index = bisect_left(slots, slot)
    if index == count or slots[index] != slot:
        return None
    return int.from_bytes(entries[count * 4 + index * 8 :][:8], "little")


def _row(tx: Tx, nid: int) -> tuple[int | None, int, bytes]:
    cache = tx.caches.snapshots
    row = cache.get(nid)
    if row is None:
        row = tx.one("SELECT base_nid, level, entries FROM snapshot WHERE nid = ?", nid)
        assert row is not None, f"snapshot {nid} has no row"
        if not tx.writable:
            cache.put(nid, row)
    base, level, entries = row
    return base, level, entries


def _chain(tx: Tx, nid: SnapshotNid) -> list[tuple[int, int, bytes]]:
    """Rows (number, level, entries) from the snapshot down to a whole state."""
    rows: list[tuple[int, int, bytes]] = []
    following: int | None = nid or None
    while following is not None:
        base, level, entries = _row(tx, following)
        rows.append((following, level, entries))
        following = base
    return rows


def state(tx: Tx, nid: SnapshotNid) -> State:
    """The whole state of a snapshot."""
    result: State = {}
    for _, _, entries in reversed(_chain(tx, nid)):
        result.update(unpack(entries))
    return {slot: event for slot, event in result.items() if event}


def exists(tx: Tx, nid: SnapshotNid) -> bool:
    """Whether there is such a snapshot."""
    return nid == EMPTY or tx.one("SELECT 1 FROM snapshot WHERE nid = ?", nid) is not None


def size(tx: Tx, nid: SnapshotNid) -> int:
    """How many entries the state has at most."""
    return sum(len(entries) for _, _, entries in _chain(tx, nid)) // _ENTRY


def lookup(tx: Tx, nid: SnapshotNid, slots: Iterable[SlotNid]) -> State:
    """The entries of some slots; absent where the slot is empty."""
    chain = _chain(tx, nid)
    found: State = {}
    for slot in slots:
        for _, _, entries in chain:
            event = _find(entries, slot)
            if event is not None:
                if event:
                    found[slot] = EventNid(event)
                break
    return found


def derive(tx: Tx, base: SnapshotNid, changes: Mapping[SlotNid, EventNid]) -> SnapshotNid:
    """The snapshot that is ``base`` with ``changes`` (event 0 empties a slot) on top."""
    if not changes:
        return base
    chain = _chain(tx, base)
    merged: State = dict(changes)
    for level, bound in enumerate(BOUNDS, start=1):
        if chain and chain[0][1] == level:
            merged = unpack(chain[0][2]) | merged
            chain = chain[1:]
        if chain and len(merged) <= bound and len(merged) * _ENTRY * 2 <= len(chain[0][2]):
            return _insert(tx, chain[0][0], level, merged)
    for _, _, entries in chain:
        merged = unpack(entries) | merged
    return _insert(tx, None, 0, {slot: event for slot, event in merged.items() if event})


def _insert(tx: Tx, base: int | None, level: int, entries: State) -> SnapshotNid:
    packed = pack(entries)
    tx.run("INSERT INTO snapshot (base_nid, level, entries) VALUES (?, ?, ?)", base, level, packed)
    return SnapshotNid(tx.last_rowid)


def difference(tx: Tx, old: SnapshotNid, new: SnapshotNid) -> dict[SlotNid, tuple[int, int]]:
    """Slots whose event differs, with both events (0: none)."""
    if old == new:
        return {}
    old_chain, new_chain = _chain(tx, old), _chain(tx, new)
    shared = {number for number, _, _ in old_chain} & {number for number, _, _ in new_chain}
    slots: set[SlotNid] = set()
    for number, _, entries in [*old_chain, *new_chain]:
        if number not in shared:
            slots.update(unpack(entries))
    before, after = lookup(tx, old, slots), lookup(tx, new, slots)
    return {
        slot: (before.get(slot, 0), after.get(slot, 0))
        for slot in slots
        if before.get(slot, 0) != after.get(slot, 0)
    }
