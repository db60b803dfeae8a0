"""Parts of a sync answer: a room's timeline and state, ephemeral events, counts, summary.

Matrix v1.19, Client-Server API, "Syncing", "Lazy-loading room members" ([C8.02] to [C8.19]).
Everything is read on one snapshot of the database, up to a stream position that was announced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from matrixbox.core.events import membership_of
from matrixbox.core.filters import EventFilter
from matrixbox.core.json import Json, encode
from matrixbox.rooms import counts, push_rules
from matrixbox.rooms.formatting import Fragment
from matrixbox.rooms.reading import Reader
from matrixbox.rooms.timeline import MAX_SCANNED
from matrixbox.rooms.tokens import Place
from matrixbox.store import events, members, names, rooms
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import HIDDEN
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import EventNid, RoomNid, SlotNid, UserNid
from matrixbox.store.receipts import Kind, Receipt
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"
MAX_TIMELINE = 100
DEFAULT_TIMELINE = 10
HEROES = 5
SUMMARISED = (MEMBER, "m.room.name", "m.room.canonical_alias")


@frozen
class Window:
    """The positions an answer is about: after ``since`` (0: everything), up to ``now``."""

    since: int
    now: int

    @property
    def whole(self) -> bool:
        """Whether the client knows nothing yet."""
        return self.since == 0


# --- timeline


@frozen
class Timeline:
    """The newest events of a window, oldest first."""

    events: tuple[StoredEvent, ...]
    limited: bool
    start: Place  # just before the first of them

    @property
    def state_pos(self) -> int:
        """The state at the start of the timeline is that after this stream position."""
        if not self.events:
            return self.start.pos
        first = self.events[0]
        assert first.pos is not None
        return first.pos - 1


def timeline(reader: Reader, window: Window, wanted: EventFilter) -> Timeline:
    """The newest visible events of a window; ``limited`` when there are more ([C8.06]).

    It ends at an event that cites what is missing here: others may know what lies before it, and
    a client asks for that only where it is told of the gap.
    """
    limit = min(DEFAULT_TIMELINE if wanted.limit is None else wanted.limit, MAX_TIMELINE)
    gap = rooms.newest_gap(reader.tx, reader.room, window.since, window.now, HIDDEN)
    until = (window.since, 0) if gap is None else (gap[0], gap[1] - 1)
    batch = max(limit + 1, 20)
    chosen: list[StoredEvent] = []
    hidden_state = False
    place = Place(window.now, 0)
    scanned = 0
    while True:
        point = (place.pos, place.sub)
        nids = events.before(reader.tx, reader.room, point, until, batch)
        for nid in nids:
            stored = events.by_nid(reader.tx, nid)
            event = stored.event
            if not reader.may_see(stored):
                # What was seen before state that was not would be laid over it: it stays behind
                # the beginning of the timeline, where one can page back to it.
                hidden_state = hidden_state or event.state_key is not None
            elif wanted.allows(event.type, event.sender, event.content):
                if len(chosen) == limit or hidden_state:
                    return _timeline(chosen, window, limited=True)
                chosen.append(stored)
            assert stored.pos is not None
            place = Place.before(stored.pos, stored.sub)
        scanned += len(nids)
        if len(nids) < batch or scanned >= MAX_SCANNED:
            limited = len(nids) == batch or gap is not None
            return _timeline(chosen, window, limited=limited)


def _timeline(chosen: list[StoredEvent], window: Window, *, limited: bool) -> Timeline:
    chosen.reverse()
    if not chosen:
        return Timeline((), limited, Place(window.now, 0))
    first = chosen[0]
    assert first.pos is not None
    return Timeline(tuple(chosen), limited, Place.before(first.pos, first.sub))


# --- state

Slots = dict[SlotNid, EventNid]


@frozen
class StateChange:
    """The current state at three moments, by slot; event 0 stands for none.

    ``since`` and the others hold the slots that changed in the window, or all of them.
    """

    since: Slots
    start: Slots  # of the timeline
    end: Slots
    summary_changed: bool


def state_change(
    reader: Reader, window: Window, shown: Timeline, *, whole: bool, lazy: bool
) -> StateChange:
    """What a client has to learn about a room's state.

    With ``lazy``, a whole state has only the memberships that the timeline needs.
    """
    if whole:
        return _whole_state(reader, window, shown, lazy=lazy)
    tx, room = reader.tx, reader.room
    since: Slots = {}
    start: Slots = {}
    end: Slots = {}
    for change in rooms.state_changes(tx, room, window.since, window.now):
        since.setdefault(change.slot, change.old)
        if change.pos <= shown.state_pos:
            start[change.slot] = change.new
        end[change.slot] = change.new
    start = since | start
    summary_changed = any(names.slot_key(tx, slot)[0] in SUMMARISED for slot in end)
    if lazy:
        for slot in _needed_members(reader, shown):
            if slot not in end:
                nid = _at(tx, room, slot, window.now)
                start[slot] = end[slot] = nid
                since[slot] = EventNid(0)
    return StateChange(since, start, end, summary_changed)


def _whole_state(reader: Reader, window: Window, shown: Timeline, *, lazy: bool) -> StateChange:
    tx, room = reader.tx, reader.room
    end: Slots
    if lazy:
        end = rooms.current_but_members(tx, room)
        needed = _needed_members(reader, shown, everybody=True)
        end.update({slot: _at(tx, room, slot, 2**62) for slot in needed})
    else:
        end = rooms.current_state(tx, room)
    start = end
    changes = rooms.state_changes(tx, room, min(shown.state_pos, window.now), 2**62)
    if changes:
        end, start = dict(end), dict(end)
    for change in reversed(changes):
        if lazy and change.slot not in end and names.slot_key(tx, change.slot)[0] == MEMBER:
            continue
        start[change.slot] = change.old
        if change.pos > window.now:
            end[change.slot] = change.old
    return StateChange({}, start, end, summary_changed=True)


def _at(tx: Tx, room: RoomNid, slot: SlotNid, now: int) -> EventNid:
    """The event in one slot of the current state at a position; 0 for none."""
    nid = rooms.current_event(tx, room, names.slot_key(tx, slot)) or EventNid(0)
    if nid > now:
        for pos, new in rooms.slot_history(tx, room, slot):
            nid = new if pos <= now else nid
            if pos > now:
                break
    return nid


def _needed_members(reader: Reader, shown: Timeline, *, everybody: bool = False) -> list[SlotNid]:
    """The memberships that lazy loading includes ([C8.12])."""
    tx = reader.tx
    users: dict[str, None] = {stored.event.sender: None for stored in shown.events}
    if everybody:
        users[names.user_id(tx, reader.user)] = None
        heroes = members.some(tx, reader.room, reader.user, HEROES)
        users.update(dict.fromkeys(names.user_id(tx, user) for user in heroes))
    slots = (names.slot_nid(tx, (MEMBER, user)) for user in users)
    return [slot for slot in slots if slot is not None]


def state_events(
    tx: Tx, change: StateChange, shown: Timeline, wanted: EventFilter, *, after: bool
) -> list[StoredEvent]:
    """The events of the state section, before the timeline or (``after``) at its end.

    The timeline is laid over what comes before it, so a slot with an event in the timeline is
    given as it was at its start, any other as it is at the end ([C8.02], [C8.03]).
    """
    in_timeline = {
        names.slot_nid(tx, (stored.event.type, stored.event.state_key))
        for stored in shown.events
        if stored.event.state_key is not None
    }
    chosen: list[StoredEvent] = []
    for slot, at_end in change.end.items():
        nid = change.start.get(slot, EventNid(0)) if slot in in_timeline and not after else at_end
        if not nid or nid == change.since.get(slot, EventNid(0)):
            continue
        stored = events.by_nid(tx, nid)
        if wanted.allows(stored.event.type, stored.event.sender, stored.event.content):
            chosen.append(stored)
    return chosen


def memberships_since(reader: Reader, window: Window) -> list[str | None]:
    """The user's memberships that ended in a window, oldest first."""
    tx = reader.tx
    slot = names.slot_nid(tx, (MEMBER, names.user_id(tx, reader.user)))
    return [
        membership_of(events.by_nid(tx, change.old).event) if change.old else None
        for change in rooms.state_changes(tx, reader.room, window.since, window.now)
        if change.slot == slot
    ]


# --- what surrounds them


def summary(reader: Reader, change: StateChange, *, whole: bool) -> dict[str, Json]:
    """Heroes and member counts; empty when nothing about them changed ([C8.15])."""
    if not (whole or change.summary_changed):
        return {}
    tx, room = reader.tx, reader.room
    found: dict[str, Json] = {
        "m.joined_member_count": members.joined_count(tx, room),
        "m.invited_member_count": members.count(tx, room, Membership.INVITE),
    }
    if not _has_name(tx, room):
        heroes = members.some(tx, room, reader.user, HEROES)
        found["m.heroes"] = [names.user_id(tx, user) for user in heroes]
    return found


def _has_name(tx: Tx, room: RoomNid) -> bool:
    for kind, key in (("m.room.name", "name"), ("m.room.canonical_alias", "alias")):
        nid = rooms.current_event(tx, room, (kind, ""))
        if nid is not None and events.by_nid(tx, nid).event.content.get(key):
            return True
    return False


def receipt_event(tx: Tx, user: UserNid, new: Iterable[Receipt]) -> dict[str, Json] | None:
    """Receipts as one ephemeral event; private ones only of the reader (T108).

    It has room for one of a user, kind and event: one for all threads says more than one for one.
    """
    content: dict[str, dict[str, dict[str, Json]]] = {}
    for receipt in new:
        if receipt.kind is Kind.READ_PRIVATE and receipt.user != user:
            continue
        kind = "m.read" if receipt.kind is Kind.READ else "m.read.private"
        data: dict[str, Json] = {"ts": receipt.ts}
        if receipt.thread:
            data["thread_id"] = receipt.thread
        users = content.setdefault(receipt.event_id, {}).setdefault(kind, {})
        user_id = names.user_id(tx, receipt.user)
        if not receipt.thread or user_id not in users:
            users[user_id] = data
    shown: Json = content
    return {"type": "m.receipt", "content": shown} if content else None


def notification_counts(
    tx: Tx, user: UserNid, room: RoomNid, now: int, *, by_thread: bool
) -> dict[str, Json]:
    """Unread counts, in all or by thread ([C8.18])."""
    found = counts.unread(tx, user, room, now)
    main = found.main if by_thread else found.total
    answer: dict[str, Json] = {
        "unread_notifications": {
            "notification_count": main.notifications,
            "highlight_count": main.highlights,
        }
    }
    if by_thread and found.threads:
        answer["unread_thread_notifications"] = {
            root: {
                "notification_count": thread.notifications,
                "highlight_count": thread.highlights,
            }
            for root, thread in found.threads.items()
        }
    return answer


def account_event(kind: str, json: bytes) -> Fragment:
    """An entry of account data as an event."""
    return Fragment(b'{"type":%b,"content":%b}' % (encode(kind), json))


def default_push_rules(tx: Tx, user: UserNid) -> Fragment:
    """What stands for the push rules of somebody who changed none of them ([C8.17])."""
    content = push_rules.content_of(push_rules.rules_of(tx, user))
    return account_event(push_rules.TYPE, encode(content))


def only(found: Iterable[Mapping[str, Json]], wanted: EventFilter) -> list[Mapping[str, Json]]:
    """The events without a sender that a filter lets through."""
    return [event for event in found if wanted.allows(str(event["type"]), None)]
