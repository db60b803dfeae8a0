"""What one user may read of a room, and how an event looks to that user.

Matrix v1.19, Client-Server API, "Room History Visibility" ([C9.01], [C9.02], T104) and "Events".
A Reader is made for one request; what it finds out about states is kept for that request.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, evolve, field

from matrixbox.core.events import Event, StateKey, membership_of
from matrixbox.core.json import decode_stored
from matrixbox.core.redaction import redacted
from matrixbox.core.visibility import HistoryVisibility, Standing, may_see
from matrixbox.rooms.state import CurrentState, after
from matrixbox.store import account_data, erasure, events, members, names, rooms, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import HIDDEN
from matrixbox.store.memberships import Member, Membership
from matrixbox.store.nids import EventNid, RoomNid, SnapshotNid, UserNid
from matrixbox.store.transaction import Tx

HISTORY: StateKey = ("m.room.history_visibility", "")
OPEN_TO_MEMBERS = (HistoryVisibility.SHARED, HistoryVisibility.WORLD_READABLE)


@define(eq=False)
class Reader:
    """One user looking into one room."""

    tx: Tx
    room: RoomNid
    user: UserNid
    now_ms: int
    device: int | None = None
    ignored: frozenset[str] = frozenset()
    member: Member | None = field(init=False)
    _member_key: StateKey = field(init=False)
    _last_joined: int | None = None
    _visibilities: dict[SnapshotNid, HistoryVisibility] = field(factory=dict)
    _states: dict[tuple[SnapshotNid, StateKey], EventNid | None] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.member = members.get(self.tx, self.room, self.user)
        self._member_key = ("m.room.member", names.user_id(self.tx, self.user))

    @property
    def user_id(self) -> str:
        """The user's name."""
        return self._member_key[1]

    @property
    def joined(self) -> bool:
        """Whether the user is in the room now."""
        return self.member is not None and self.member.membership is Membership.JOIN

    @property
    def is_world_readable(self) -> bool:
        """Whether anybody may read what is sent to the room now."""
        history = CurrentState(self.tx, self.room).get(HISTORY)
        return HistoryVisibility.of(history) is HistoryVisibility.WORLD_READABLE

    def _event(self, snapshot: SnapshotNid, key: StateKey) -> Event | None:
        found = (snapshot, key)
        if found not in self._states:
            slot = names.slot_nid(self.tx, key)
            entries = {} if slot is None else snapshots.lookup(self.tx, snapshot, [slot])
            self._states[found] = None if slot is None else entries.get(slot)
        nid = self._states[found]
        return None if nid is None else events.by_nid(self.tx, nid).event

    def _visibility(self, snapshot: SnapshotNid) -> HistoryVisibility:
        if snapshot not in self._visibilities:
            self._visibilities[snapshot] = HistoryVisibility.of(self._event(snapshot, HISTORY))
        return self._visibilities[snapshot]

    def membership_in(self, snapshot: SnapshotNid) -> str | None:
        """The user's membership in a state."""
        return membership_of(self._event(snapshot, self._member_key))

    def membership_at(self, stored: StoredEvent) -> str:
        """The user's membership at an event: after it, for the user's own membership event."""
        event = stored.event
        if (event.type, event.state_key) == self._member_key:
            return self.membership_in(after(stored)) or "leave"
        assert stored.snapshot is not None
        return self.membership_in(SnapshotNid(stored.snapshot)) or "leave"

    def may_see(self, stored: StoredEvent) -> bool:
        """Whether the user may see an event of the room's timeline, and wants to."""
        return self.is_visible(stored) and not self.is_ignored(stored)

    def shown(self, stored: StoredEvent) -> StoredEvent:
        """An event as this user gets it: what erased people said is for those who were there."""
        since = erasure.erased(self.tx).get(stored.event.sender)
        if since is None or not erasure.hides(stored.event) or self._was_here(since):
            return stored
        return evolve(stored, event=redacted(stored.event), client_json=None)

    def _was_here(self, pos: int) -> bool:
        """Whether the user had joined the room before a position."""
        return any(at <= pos and nid and self._is_join(nid) for at, nid in self._memberships())

    def is_about_me(self, stored: StoredEvent) -> bool:
        """Whether an event tells of a membership of the user."""
        return (stored.event.type, stored.event.state_key) == self._member_key

    def is_ignored(self, stored: StoredEvent) -> bool:
        """Whether the user does not want to see an event; state is never ignored ([C15.09])."""
        return stored.event.state_key is None and stored.event.sender in self.ignored

    def is_visible(self, stored: StoredEvent) -> bool:
        """Whether the user may see an event of the room's timeline, whoever sent it."""
        if stored.room != self.room or stored.status & HIDDEN or stored.snapshot is None:
            return False
        if self.member is not None and self.member.forgotten:
            return False
        event = stored.event
        if self.joined and self._visibility(SnapshotNid(stored.snapshot)) in OPEN_TO_MEMBERS:
            return True
        if (event.type, event.state_key) == self._member_key and membership_of(event) in (
            "leave",
            "ban",
        ):
            return True  # else nobody would see an invitation go
        return self.may_see_room_at(stored)

    def may_see_room_at(self, stored: StoredEvent) -> bool:
        """Whether the room's history is open to the user at an event of its timeline.

        Of one's own leaving one learns in any case; the room around it is another matter.
        """
        event = stored.event
        before = SnapshotNid(stored.snapshot or 0)
        visibility = self._visibility(before)
        key = (event.type, event.state_key)
        following = after(stored) if key in (self._member_key, HISTORY) else before
        standing = Standing(
            self.membership_in(before),
            self.membership_in(following),
            joined_later=self.joined or self._joined_after(stored),
        )
        return may_see(visibility, self._visibility(following), (standing,))

    def _joined_after(self, stored: StoredEvent) -> bool:
        """Whether the user, who is not in the room now, was in it at some time after an event."""
        if self._last_joined is None:
            self._last_joined = self._find_last_joined()
        return stored.pos is not None and stored.pos <= self._last_joined

    def parting(self) -> EventNid | None:
        """The event that ended the user's last time in the room; None where there was none.

        Who was in the room may later knock, be invited or banned: that shows nothing newer.
        """
        was_in, last = False, None
        for _, nid in self._memberships():
            is_in = bool(nid) and self._is_join(nid)
            if was_in and not is_in and nid:
                last = nid
            was_in = is_in
        return None if was_in else last

    def _find_last_joined(self) -> int:
        """The last position at which the user joined; -1: never."""
        joins = (pos for pos, nid in self._memberships() if nid and self._is_join(nid))
        return max(joins, default=-1)

    def _memberships(self) -> list[tuple[int, EventNid]]:
        """The user's membership events in the current state, by the positions they came at."""
        slot = names.slot_nid(self.tx, self._member_key)
        return [] if slot is None else rooms.slot_history(self.tx, self.room, slot)

    def _is_join(self, nid: EventNid) -> bool:
        return events.by_nid(self.tx, nid).event.content.get("membership") == "join"


def ignored_users(tx: Tx, user: UserNid) -> frozenset[str]:
    """The users whose messages this one does not want to see ([C15.09])."""
    stored = account_data.get(tx, user, account_data.GLOBAL, "m.ignored_user_list")
    content = None if stored is None else decode_stored(stored)
    ignored = content.get("ignored_users") if isinstance(content, Mapping) else None
    return frozenset(ignored) if isinstance(ignored, Mapping) else frozenset()


def blocks_invites(tx: Tx, user: UserNid) -> bool:
    """The user's own switch against invitations ([C15.07])."""
    stored = account_data.get(tx, user, account_data.GLOBAL, "m.invite_permission_config")
    config = None if stored is None else decode_stored(stored)
    return isinstance(config, Mapping) and config.get("default_action") == "block"
