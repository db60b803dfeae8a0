"""Parts of a sync answer about encryption: to-device messages, device lists, key counts.

Matrix v1.19, Client-Server API, "Extensions to /sync" of "Send-to-Device messaging" and "End-to-End
Encryption" ([C8.22] to [C8.25], [C17.05]).

Device lists go by who shares a room, encrypted or not, at both ends of the window: a room may
become encrypted, and then its members are known already.  Membership at the beginning is read from
the changes since, so the answer depends on nothing that a restart forgets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet

from attrs import define, field, frozen

from matrixbox.core.events import membership_of
from matrixbox.core.identifiers import UserId
from matrixbox.core.json import Json
from matrixbox.rooms.formatting import Fragment
from matrixbox.store import device_lists, events, keys, members, names, rooms, to_device
from matrixbox.store.changes import Key, room_key
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import DeviceNid, RoomNid, UserNid
from matrixbox.store.transaction import Tx

MAX_MESSAGES = 100
"""To-device messages in one answer."""
MEMBER = "m.room.member"
MANY = 50
"""Beyond so many users, whole rooms are read rather than one user after the other."""


# --- messages and counts


@frozen
class Delivery:
    """To-device messages for one answer; ``behind``: the last of them, if more are waiting."""

    events: tuple[Fragment, ...]
    behind: int | None


def delivery(tx: Tx, device: DeviceNid, after: int, until: int, limit: int) -> Delivery:
    """The oldest messages at positions in (after, until]."""
    found = to_device.waiting(tx, device, after, until, limit + 1)
    shown = tuple(Fragment(message.json) for message in found[:limit])
    return Delivery(shown, found[limit - 1].pos if len(found) > limit else None)


def key_counts(tx: Tx, device: DeviceNid) -> dict[str, Json]:
    """What a client has to know to upload keys in time; always in an answer ([C8.24], [C8.25])."""
    counts = keys.counts(tx, device)
    return {
        "device_one_time_keys_count": {"signed_curve25519": 0, **counts.one_time},
        "device_unused_fallback_key_types": list(counts.unused_fallback),
    }


# --- device lists


def device_list_changes(
    tx: Tx, me: UserNid, since: int, now: int, rung: AbstractSet[Key] | None
) -> dict[str, list[str]] | None:
    """Whose keys have changed or are needed now, and whose are not any more; None: nobody's.

    ``rung`` is what the doorbell knows of the window, to look at no more than that.
    """
    changed: dict[UserNid, None] = {}
    if rung is None or device_lists.CHANGES in rung:
        found = device_lists.changed_since(tx, me, since, now)
        changed.update(dict.fromkeys(found))
        changed.update(dict.fromkeys(keys.signed_since(tx, me, since, now)))
    gone: list[UserNid] = []
    if rung is None or members.CHANGES in rung:
        come, gone = _Sharing(tx, me, since, now).changes(rung)
        changed.update(dict.fromkeys(come))
    if not changed and not gone:
        return None
    left = [user for user in gone if user not in changed]
    return {
        "changed": [names.user_id(tx, user) for user in changed],
        "left": [names.user_id(tx, user) for user in left],
    }


@define(eq=False)
class _Sharing:
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
