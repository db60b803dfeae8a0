"""The state of a room as an answer of sliding sync gives it.

MSC4186, "RequiredStateRequest", "Lazy loaded memberships" ([C8.12], [K.17]).  It is always the
state at the end of the timeline.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field

from matrixbox.core.events import StateKey
from matrixbox.core.json import Json
from matrixbox.rooms.reading import Reader
from matrixbox.store import events, members, names, rooms
from matrixbox.store.caches import StoredEvent
from matrixbox.store.nids import EventNid, RoomNid, SlotNid
from matrixbox.store.transaction import Tx
from matrixbox.sync.sections import HEROES, MEMBER, Slots
from matrixbox.sync.sliding_request import Wanted

MAX_MEMBERS_OF_GAP = 100
"""Memberships that changed in a gap of the timeline are all sent up to this many; clients that load
them lazily begin anew at a gap in any case."""

NONE = EventNid(0)
NAME: StateKey = ("m.room.name", "")
AVATAR: StateKey = ("m.room.avatar", "")


@define(eq=False)
class StateAt:
    """The current state of a room as it was at a position."""

    tx: Tx
    room: RoomNid
    now: int
    _later: Slots = field(init=False)  # what stood in the slots that have changed since
    _but_members: Slots | None = None

    def __attrs_post_init__(self) -> None:
        self._later = {}
        for change in rooms.state_changes(self.tx, self.room, self.now, 2**62):
            self._later.setdefault(change.slot, change.old)

    def slot(self, slot: SlotNid) -> EventNid:
        """The event in one slot; 0 for none."""
        found = self._later.get(slot)
        if found is None:
            key = names.slot_key(self.tx, slot)
            if self._but_members is not None and key[0] != MEMBER:
                return self._but_members.get(slot, NONE)
            found = rooms.current_event(self.tx, self.room, key) or NONE
        return found

    def read(self) -> Slots:
        """All but the memberships, which are read one by one, since there may be many."""
        if self._but_members is None:
            self._but_members = rooms.current_but_members(self.tx, self.room) | self._later
        return self._but_members

    def get(self, key: StateKey) -> StoredEvent | None:
        """The event in one slot."""
        slot = names.slot_nid(self.tx, key)
        nid = NONE if slot is None else self.slot(slot)
        return events.by_nid(self.tx, nid) if nid else None

    def was_redacted(self, key: StateKey, since: int) -> bool:
        """Whether the event in a slot lost its content after a position."""
        stored = self.get(key)
        if stored is None or stored.redacted_by is None:
            return False
        return (events.by_nid(self.tx, stored.redacted_by).pos or 0) > since

    def text(self, key: StateKey, member: str) -> str | None:
        """A text in the content of an event; None also for an empty one."""
        stored = self.get(key)
        value = None if stored is None else stored.event.content.get(member)
        return value if isinstance(value, str) and value else None

    def matching(self, wanted: Wanted) -> Slots:
        """All slots that are wanted, and what stands in them."""
        if any(one.wants_all_members for one in wanted):
            found = rooms.current_state(self.tx, self.room) | self._later
        else:
            found = dict(self.read())
            for slot in self._named_members(wanted):
                found[slot] = self.slot(slot)
        return {slot: nid for slot, nid in found.items() if nid and self.wants(wanted, slot)}

    def wants(self, wanted: Wanted, slot: SlotNid) -> bool:
        """Whether a slot is wanted."""
        kind, key = names.slot_key(self.tx, slot)
        return any(one.matches(kind, key) for one in wanted)

    def _named_members(self, wanted: Wanted) -> Iterable[SlotNid]:
        for one in wanted:
            for kind, key in one.include:
                if kind in (None, MEMBER) and key:
                    slot = names.slot_nid(self.tx, (MEMBER, key))
                    if slot is not None:
                        yield slot

    def heroes(self, reader: Reader) -> list[Json]:
        """The users whose names stand for that of the room."""
        found: list[Json] = []
        for user in members.some(self.tx, self.room, reader.user, HEROES):
            user_id = names.user_id(self.tx, user)
            hero: dict[str, Json] = {"user_id": user_id}
            for key in ("displayname", "avatar_url"):
                value = self.text((MEMBER, user_id), key)
                if value is not None:
                    hero[key] = value
            found.append(hero)
        return found


def changes(state: StateAt, since: int) -> Slots:
    """What stands at the end in the slots that have changed since a position."""
    first: Slots = {}
    last: Slots = {}
    for change in rooms.state_changes(state.tx, state.room, since, state.now):
        first.setdefault(change.slot, change.old)
        last[change.slot] = change.new
    return {slot: nid for slot, nid in last.items() if nid != first[slot]}


def timeline_members(tx: Tx, shown: Iterable[StoredEvent]) -> list[tuple[str, SlotNid]]:
    """Whose memberships a client needs to show a timeline."""
    users: dict[str, None] = {}
    for stored in shown:
        users[stored.event.sender] = None
        if stored.event.type == MEMBER and stored.event.state_key is not None:
            users[stored.event.state_key] = None
    slots = ((user, names.slot_nid(tx, (MEMBER, user))) for user in users)
    return [(user, slot) for user, slot in slots if slot is not None]


def required_changes(state: StateAt, changed: Slots, wanted: Wanted, *, limited: bool) -> Slots:
    """What is wanted of all that has changed."""
    lazy = any(one.lazy for one in wanted)
    others = {slot for slot in changed if names.slot_key(state.tx, slot)[0] == MEMBER}
    if not lazy or (limited and len(others) > MAX_MEMBERS_OF_GAP):
        others = set()
    return {
        slot: nid for slot, nid in changed.items() if slot in others or state.wants(wanted, slot)
    }


def added(state: StateAt, old: Wanted, new: Wanted) -> Slots:
    """What is wanted now and was not before."""
    if old == new:
        return {}
    found = state.matching(new)
    return {slot: nid for slot, nid in found.items() if not state.wants(old, slot)}
