"""State and members of a room as one user may read them.

Matrix v1.19, Client-Server API, "Getting events for a room" ([C9.06], [C9.07]): members see what is
now, who left sees what was then, others nothing unless the room is world-readable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from matrixbox.core.events import StateKey, membership_of
from matrixbox.core.json import Json, encode
from matrixbox.errors import Forbidden, NotFound
from matrixbox.rooms import timeline
from matrixbox.rooms.formatting import Formatter, Fragment
from matrixbox.rooms.reading import Reader
from matrixbox.rooms.state import after
from matrixbox.rooms.tokens import Place
from matrixbox.store import events, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.nids import EventNid, RoomNid, SlotNid, SnapshotNid
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"
NOW = None


def _readable(reader: Reader) -> SnapshotNid | None:
    """The state the user may read: None for the current one.  Raises Forbidden."""
    member = reader.member
    if member is not None and member.forgotten:
        raise Forbidden("You have forgotten that room.")
    if reader.joined or reader.is_world_readable:
        return NOW
    parting = reader.parting()
    if parting is None:
        raise Forbidden("You are not in that room.")
    return after(events.by_nid(reader.tx, parting))


def _entries(tx: Tx, room: RoomNid, at: SnapshotNid | None) -> dict[SlotNid, EventNid]:
    return rooms.current_state(tx, room) if at is None else snapshots.state(tx, at)


def whole(reader: Reader) -> list[Fragment]:
    """All state events."""
    at = _readable(reader)
    formatter = Formatter(reader)
    found = _entries(reader.tx, reader.room, at).values()
    return formatter.all(events.by_nid(reader.tx, nid) for nid in found)


def one(reader: Reader, key: StateKey, *, whole_event: bool) -> bytes:
    """The content of one entry, or the whole event; raises NotFound."""
    tx = reader.tx
    at = _readable(reader)
    slot = names.slot_nid(tx, key)
    nid: EventNid | None = None
    if at is None:
        nid = rooms.current_event(tx, reader.room, key)
    elif slot is not None:
        nid = snapshots.lookup(tx, at, [slot]).get(slot)
    if nid is None:
        raise NotFound("The room has no such state.")
    stored = events.by_nid(tx, nid)
    if whole_event:
        return encode(Formatter(reader).event(stored))
    return encode(stored.event.content)


def members_at(
    reader: Reader, place: Place | None, wanted: str | None, unwanted: str | None
) -> list[Fragment]:
    """The membership events at a point; the two conditions combine with "or" ([C9.07])."""
    at = _readable(reader)
    found = [
        stored
        for stored in _membership_events(reader, at, place)
        if _is_wanted(membership_of(stored.event), wanted, unwanted)
    ]
    return Formatter(reader).all(found)


def _is_wanted(membership: str | None, wanted: str | None, unwanted: str | None) -> bool:
    if wanted is None and unwanted is None:
        return True
    return membership == wanted or (unwanted is not None and membership != unwanted)


def _membership_events(
    reader: Reader, at: SnapshotNid | None, place: Place | None
) -> Iterable[StoredEvent]:
    tx, room = reader.tx, reader.room
    if at is not None:
        found: Iterable[EventNid] = (
            nid
            for slot, nid in snapshots.state(tx, at).items()
            if names.slot_key(tx, slot)[0] == MEMBER
        )
    elif place is None:
        found = rooms.current_of_type(tx, room, MEMBER)
    else:
        found = _rolled_back(tx, room, _readable_pos(reader, place))
    return [events.by_nid(tx, nid) for nid in found]


def _readable_pos(reader: Reader, place: Place) -> int:
    """The position of a place; where the room is not for the reader there, the next where it is.

    Who was there before the reader's time is history, too (T104).
    """
    tx, room, point = reader.tx, reader.room, (place.pos, place.sub)
    last = events.before(tx, room, point, (0, -(2**53)), 1)
    if not last or _shows_room(reader, events.by_nid(tx, last[0])):
        return place.pos if place.sub >= 0 else place.pos - 1
    for stored in timeline.forwards(reader, place):
        if _shows_room(reader, stored):
            assert stored.pos is not None
            return stored.pos - 1
    return 2**62


def _shows_room(reader: Reader, stored: StoredEvent) -> bool:
    return reader.is_visible(stored) and reader.may_see_room_at(stored)


def _rolled_back(tx: Tx, room: RoomNid, pos: int) -> list[EventNid]:
    """The membership events in the current state as it was at a position.

    Before the room's first event that is its maker's: of a room without members nobody has a token.
    """
    state = rooms.current_state(tx, room)
    first: EventNid | None = None
    for change in reversed(rooms.state_changes(tx, room, pos, 2**62)):
        state[change.slot] = change.old
        if names.slot_key(tx, change.slot)[0] == MEMBER:
            first = change.new
    found = [nid for slot, nid in state.items() if nid and names.slot_key(tx, slot)[0] == MEMBER]
    return [first] if first and not found else found


def joined(reader: Reader) -> dict[str, Json]:
    """Names and pictures of those in the room: for those in the room."""
    if not reader.joined:
        raise Forbidden("You are not in that room.")
    tx, room = reader.tx, reader.room
    shown: dict[str, Json] = {}
    for nid in rooms.current_of_type(tx, room, MEMBER):
        event = events.by_nid(tx, nid).event
        if membership_of(event) == "join" and event.state_key is not None:
            named = {"display_name": "displayname", "avatar_url": "avatar_url"}
            content = event.content
            shown[event.state_key] = {
                key: content[source]
                for key, source in named.items()
                if isinstance(content.get(source), str)
            }
    return shown


def senders(reader: Reader, shown: Sequence[StoredEvent]) -> list[Fragment]:
    """The membership events of who sent some events, as of the newest of these."""
    if not shown:
        return []
    tx, newest = reader.tx, max(shown, key=lambda stored: (stored.pos or 0, stored.sub))
    if not reader.may_see_room_at(newest):
        return []
    users = dict.fromkeys(stored.event.sender for stored in shown)
    slots = [names.slot_nid(tx, (MEMBER, user)) for user in users]
    found = snapshots.lookup(tx, after(newest), [slot for slot in slots if slot is not None])
    return Formatter(reader).all(events.by_nid(tx, nid) for nid in found.values() if nid)


def around(reader: Reader, last: StoredEvent, senders: Collection[str] | None) -> list[Fragment]:
    """The state after an event, with the memberships of all or only of some users ([C9.05]).

    Nothing where the event tells the user only of his own leaving (T104).
    """
    if not reader.may_see_room_at(last):
        return []
    tx = reader.tx
    shown = []
    for slot, nid in snapshots.state(tx, after(last)).items():
        kind, key = names.slot_key(tx, slot)
        if senders is None or kind != MEMBER or key in senders:
            shown.append(events.by_nid(tx, nid))
    return Formatter(reader).all(shown)
