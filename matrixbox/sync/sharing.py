"""With whom somebody shares a room, at both ends of a window of time.

Membership at the beginning is read from the changes since, so nothing depends on what a restart
forgets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet

from attrs import define, field

from matrixbox.core.events import membership_of
from matrixbox.core.identifiers import UserId
from matrixbox.store import events, members, names, rooms
from matrixbox.store.changes import Key, room_key
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"
MANY = 50
"""Beyond so many users, whole rooms are read rather than one user after the other."""


@define(eq=False)
class Sharing:
    """With whom somebody shares a room at the two ends of a window."""

    tx: Tx
    me: UserNid
    since: int
    now: int
    _mine: list[tuple[RoomNid, Membership, int]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._mine = members.all_of(self.tx, self.me)

    def changes(self, rung: AbstractSet[Key] | None) -> tuple[list[UserNid], list[UserNid]]:
        """Those with whom a room is newly shared, and those with whom none is any more."""
        candidates: dict[UserNid, None] = {}
        has_joined = False
        for room, joined in self._rooms(rung):
            candidates.update(dict.fromkeys(self._members_changed(room)))
            if not (joined and self._was_in(room, self.me)):  # everybody who is or was there
                has_joined |= joined
                candidates.update(dict.fromkeys(members.in_room(self.tx, room, Membership.JOIN)))
        candidates.pop(self.me, None)
        if not candidates:
            return [], []
        before, after = self._shared_then(candidates), self._shared_now(candidates)
        come = [user for user in candidates if user in after and user not in before]
        if has_joined and come:
            come.append(self.me)  # new people talk to one's other devices too
        return (
            come,
            [user for user in candidates if user in before and user not in after],
        )

    def met(self, rung: AbstractSet[Key] | None) -> dict[UserNid, None]:
        """Who came into one's rooms, and everybody in rooms that one came into oneself."""
        found: dict[UserNid, None] = {}
        for room, joined in self._rooms(rung):
            if joined and self._was_in(room, self.me):
                came = [user for user in self._members_changed(room) if self._came(room, user)]
                found.update(dict.fromkeys(came))
            elif joined:
                found.update(dict.fromkeys(members.in_room(self.tx, room, Membership.JOIN)))
        found.pop(self.me, None)
        return found

    def _came(self, room: RoomNid, user: UserNid) -> bool:
        member = members.get(self.tx, room, user)
        is_in = member is not None and member.membership is Membership.JOIN
        return is_in and not self._was_in(room, user)

    def _rooms(self, rung: AbstractSet[Key] | None) -> Iterator[tuple[RoomNid, bool]]:
        """Rooms in which something may have changed, with whether one is in them now."""
        for room, membership, pos in self._mine:
            joined = membership is Membership.JOIN
            if joined and (rung is None or room_key(room) in rung):
                yield room, True
            elif not joined and pos > self.since and self._was_in(room, self.me):
                yield room, False

    def _members_changed(self, room: RoomNid) -> Iterator[UserNid]:
        for change in rooms.state_changes(self.tx, room, self.since, self.now):
            kind, state_key = names.slot_key(self.tx, change.slot)
            user = names.user_nid(self.tx, UserId(state_key)) if kind == MEMBER else None
            if user is not None:
                yield user

    def _shared_now(self, candidates: Collection[UserNid]) -> AbstractSet[UserNid]:
        if len(candidates) > MANY:
            return members.sharing(self.tx, self.me)
        return {user for user in candidates if members.share_room(self.tx, self.me, user)}

    def _shared_then(self, candidates: Collection[UserNid]) -> AbstractSet[UserNid]:
        mine = {room for room, _, _ in self._mine if self._was_in(room, self.me)}
        if len(candidates) <= MANY:
            return {user for user in candidates if self._was_in_one_of(mine, user)}
        sure: set[UserNid] = set()
        doubtful: set[UserNid] = set()
        for room in mine:
            old, new = members.by_age(self.tx, room, self.since)
            sure |= old
            doubtful |= new
        doubtful -= sure
        return sure | {user for user in doubtful if self._was_in_one_of(mine, user)}

    def _was_in_one_of(self, mine: AbstractSet[RoomNid], user: UserNid) -> bool:
        theirs = members.all_of(self.tx, user)
        return any(room in mine and self._was_in(room, user) for room, _, _ in theirs)

    def _was_in(self, room: RoomNid, user: UserNid) -> bool:
        """Whether a user was in a room at the beginning."""
        member = members.get(self.tx, room, user)
        if member is None:
            return False
        if member.pos <= self.since:
            return member.membership is Membership.JOIN
        slot = names.slot_nid(self.tx, (MEMBER, names.user_id(self.tx, user)))
        first = None if slot is None else rooms.first_change(self.tx, room, slot, self.since)
        if first is None or not first.old:
            return False
        return membership_of(events.by_nid(self.tx, first.old).event) == "join"
