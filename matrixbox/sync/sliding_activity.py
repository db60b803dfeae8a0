"""When something last happened in a room, and a few other facts that lists go by.

MSC4186, "Activity ordering", `bump_stamp`.  Kept in memory, and read anew where the doorbell knows
of news or does not remember; nothing here has to survive a restart.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field

from matrixbox.core.events import CREATE
from matrixbox.core.identifiers import UserId
from matrixbox.rooms.reading import Reader
from matrixbox.store import events, rooms
from matrixbox.store.caches import Lru, StoredEvent
from matrixbox.store.changes import Doorbell, StreamPos, room_key
from matrixbox.store.memberships import Member
from matrixbox.store.nids import EventNid, RoomNid
from matrixbox.store.transaction import Tx

BUMPING = frozenset(
    {
        "m.room.create",
        "m.room.message",
        "m.room.encrypted",
        "m.sticker",
        "m.call.invite",
        "m.poll.start",
        "m.beacon_info",
    }
)
"""The types of events that make a room come up in a client's list."""

MAX_SCANNED = 500
"""Events looked at for the last that makes a room come up; then an older one is good enough."""


@define(eq=False)
class _Room:
    """What is remembered of one room, as it was at a position."""

    until: int
    newest: int | None = None
    bump: int | None = None
    bump_until: int = 0
    encrypted: bool | None = None


@define(eq=False)
class Activities:
    """What is remembered of rooms."""

    doorbell: Doorbell
    _rooms: Lru[RoomNid, _Room] = field(factory=lambda: Lru(5_000))
    _kinds: Lru[RoomNid, tuple[str | None]] = field(factory=lambda: Lru(5_000))
    _thrown_out: Lru[EventNid, tuple[bool]] = field(factory=lambda: Lru(5_000))

    def _of(self, room: RoomNid, now: int) -> _Room:
        known = self._rooms.get(room)
        if known is None:
            known = _Room(now)
            self._rooms.put(room, known)
        elif known.until < now:
            if self.doorbell.has_news(StreamPos(known.until), room_key(room)):
                known.newest = known.encrypted = None
            known.until = now
        return known

    def newest(self, tx: Tx, room: RoomNid, now: int) -> int:
        """The position of the last event up to a position; 0 for none."""
        known = self._of(room, now)
        if known.newest is None:
            known.newest = events.newest_pos(tx, room, now)
        return known.newest

    def bump(self, tx: Tx, room: RoomNid, now: int) -> int:
        """The position of the last event that makes the room come up."""
        known = self._of(room, now)
        if known.bump is None or known.bump_until < self.newest(tx, room, now):
            found = _last_bumping(tx, room, known.bump_until, now)
            if found is not None or known.bump is None:
                known.bump = found or 0
        known.bump_until = now
        return known.bump

    def is_encrypted(self, tx: Tx, room: RoomNid) -> bool:
        """Whether messages in a room are to be encrypted."""
        known = self._of(room, self.doorbell.position)
        if known.encrypted is None:
            known.encrypted = rooms.current_event(tx, room, ("m.room.encryption", "")) is not None
        return known.encrypted

    def kind(self, tx: Tx, room: RoomNid) -> str | None:
        """The type of a room; None for an ordinary one."""
        known = self._kinds.get(room)
        if known is None:
            nid = rooms.current_event(tx, room, CREATE)
            kind = None if nid is None else events.by_nid(tx, nid).event.content.get("type")
            known = (kind if isinstance(kind, str) else None,)
            if nid is not None:
                self._kinds.put(room, known)
        return known[0]

    def was_thrown_out(self, tx: Tx, member: Member, user_id: UserId) -> bool:
        """Whether somebody else ended a user's time in a room."""
        if not member.event:
            return False
        known = self._thrown_out.get(member.event)
        if known is None:
            known = (
                events.by_nid(tx, member.event).event.sender != user_id
                and Reader(tx, member.room, member.user, 0).parting() == member.event,
            )
            self._thrown_out.put(member.event, known)
        return known[0]


def _last_bumping(tx: Tx, room: RoomNid, since: int, now: int) -> int | None:
    oldest = None
    for scanned, stored in enumerate(_backwards(tx, room, since, now)):
        oldest = stored.pos
        if stored.event.type in BUMPING or scanned >= MAX_SCANNED:
            return oldest
    return None if since else oldest


def _backwards(tx: Tx, room: RoomNid, since: int, now: int) -> Iterator[StoredEvent]:
    point, batch = (now, 0), 3
    while True:
        found = events.before(tx, room, point, (since, 0), batch)
        for nid in found:
            stored = events.by_nid(tx, nid)
            assert stored.pos is not None
            yield stored
            point = (stored.pos, stored.sub - 1)
        if len(found) < batch:
            return
        batch = 100
