"""Which rooms an answer of sliding sync is about.

MSC4186, "Lists and subscriptions" (T082, T105): the user's rooms by activity, what a list takes of
them, and single rooms that the client subscribes to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from attrs import define, field, frozen

from matrixbox.core.identifiers import RoomId, UserId
from matrixbox.core.json import Json, decode_stored
from matrixbox.rooms import stripped
from matrixbox.rooms.reading import blocks_invites, ignored_users
from matrixbox.store import account_data, events, members, names, rooms
from matrixbox.store.account_data import GLOBAL
from matrixbox.store.memberships import Member, Membership
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx
from matrixbox.sync.sliding_activity import Activities
from matrixbox.sync.sliding_request import (
    ListConfig,
    RoomConfig,
    RoomFilters,
    SlidingRequest,
    Wanted,
    combined,
)

DIRECT = "m.direct"
TAGS = "m.tag"
OUTSIDE = (Membership.INVITE, Membership.KNOCK)


@frozen
class Scope:
    """One room that the client looks at."""

    member: Member
    limit: int  # of events in the timeline
    wanted: Wanted
    lists: tuple[str, ...]
    is_subscribed: bool


@frozen
class Looked:
    """All that the client looks at, and how many rooms each list has in all."""

    rooms: Mapping[RoomNid, Scope]
    counts: Mapping[str, int]


@define(eq=False)
class RoomLists:
    """A user's rooms, at one moment."""

    tx: Tx
    activities: Activities
    user: UserNid
    user_id: UserId
    now: int
    known: AbstractSet[RoomNid]  # that the client was told of, though the user may have left
    _direct: AbstractSet[str] | None = None
    _tags: Mapping[RoomNid, AbstractSet[str]] | None = None
    _ignored: AbstractSet[str] | None = None
    _children: dict[str, AbstractSet[str]] = field(factory=dict)

    def look(self, request: SlidingRequest) -> Looked:
        """What a request looks at."""
        present = {
            member.room: member
            for member in members.rooms_of(self.tx, self.user)
            if member.pos <= self.now and self._is_shown(member)
        }
        matching: dict[RoomNid, tuple[str, ...]] = {}
        counts: dict[str, int] = {}
        ordered: list[Member] = []
        if request.lists:
            ordered = sorted(present.values(), key=self._activity, reverse=True)
        for name, wanted in request.lists.items():
            filtered = self._filtered(ordered, wanted.filters)
            counts[name] = len(filtered)
            for member in _in_range(filtered, wanted):
                matching[member.room] = (*matching.get(member.room, ()), name)
        together = {
            found: combined([request.lists[name].room for name in found])
            for found in set(matching.values())
        }
        scopes = {
            room: Scope(present[room], *together[found], found, is_subscribed=False)
            for room, found in matching.items()
        }
        for room, config in self._subscribed(request.subscriptions, present):
            found = matching.get(room, ())
            configs = [*(request.lists[name].room for name in found), config]
            scopes[room] = Scope(present[room], *combined(configs), found, is_subscribed=True)
        return Looked(scopes, counts)

    def _subscribed(
        self, wanted: Mapping[RoomId, RoomConfig], present: Mapping[RoomNid, Member]
    ) -> Iterable[tuple[RoomNid, RoomConfig]]:
        for room_id, config in wanted.items():
            room = names.room_nid(self.tx, room_id)
            if room is not None and room in present:
                yield room, config

    def _activity(self, member: Member) -> int:
        if member.membership is not Membership.JOIN:
            return member.pos
        return max(self.activities.newest(self.tx, member.room, self.now), member.pos)

    # --- which rooms there are at all

    def _is_shown(self, member: Member) -> bool:
        if member.membership is Membership.JOIN:
            return True
        if member.membership is Membership.INVITE:
            return self._is_welcome(member)
        if member.membership is Membership.KNOCK or member.room in self.known:
            return True
        return self.activities.was_thrown_out(self.tx, member, self.user_id)

    def _is_welcome(self, member: Member) -> bool:
        """Whether the user wants to hear of an invitation ([C15.07], [C15.09])."""
        if blocks_invites(self.tx, self.user):
            return False
        if self._ignored is None:
            self._ignored = ignored_users(self.tx, self.user)
        if not self._ignored:
            return True
        state = stripped.read(self.tx, member.room, self.user)
        return not state or state[-1].get("sender") not in self._ignored

    # --- filters

    def _filtered(self, ordered: list[Member], wanted: RoomFilters) -> list[Member]:
        if wanted == RoomFilters():
            return ordered
        return [member for member in ordered if self._passes(member, wanted)]

    def _passes(self, member: Member, wanted: RoomFilters) -> bool:
        room = member.room
        is_invited = member.membership is Membership.INVITE
        if wanted.is_invited is not None and wanted.is_invited is not is_invited:
            return False
        if wanted.is_dm is not None and wanted.is_dm is not self.is_direct(room):
            return False
        if wanted.tags is not None or wanted.not_tags:
            tags = self._tags_of(room)
            if wanted.not_tags & tags or (wanted.tags is not None and not wanted.tags & tags):
                return False
        if wanted.room_types is not None or wanted.not_room_types:
            kind = self._kind(member)
            if kind in wanted.not_room_types:
                return False
            if wanted.room_types is not None and kind not in wanted.room_types:
                return False
        if wanted.is_encrypted is not None and wanted.is_encrypted is not self._encrypted(member):
            return False
        if wanted.spaces is None:
            return True
        room_id = names.room_id(self.tx, room)
        return any(room_id in self._children_of(space) for space in wanted.spaces)

    def is_direct(self, room: RoomNid) -> bool:
        """Whether the user calls a room a direct conversation."""
        if self._direct is None:
            content = _content(account_data.get(self.tx, self.user, GLOBAL, DIRECT))
            lists = [found for found in content.values() if isinstance(found, list)]
            self._direct = {one for found in lists for one in found if isinstance(one, str)}
        return bool(self._direct) and names.room_id(self.tx, room) in self._direct

    def _tags_of(self, room: RoomNid) -> AbstractSet[str]:
        if self._tags is None:
            found = account_data.of_type(self.tx, self.user, TAGS)
            self._tags = {entry.room: _keys(_content(entry.json).get("tags")) for entry in found}
        return self._tags.get(room, frozenset())

    def _kind(self, member: Member) -> str | None:
        if member.membership in OUTSIDE:
            kind = self._stripped(member, "m.room.create").get("type")
            return kind if isinstance(kind, str) else None
        return self.activities.kind(self.tx, member.room)

    def _encrypted(self, member: Member) -> bool:
        if member.membership in OUTSIDE:
            return bool(self._stripped(member, "m.room.encryption"))
        return self.activities.is_encrypted(self.tx, member.room)

    def _stripped(self, member: Member, kind: str) -> Mapping[str, Json]:
        for event in stripped.read(self.tx, member.room, self.user):
            content = event.get("content")
            if event.get("type") == kind and isinstance(content, Mapping):
                return content
        return {}

    def _children_of(self, space_id: str) -> AbstractSet[str]:
        found = self._children.get(space_id)
        if found is None:
            found = self._children[space_id] = self._find_children(space_id)
        return found

    def _find_children(self, space_id: str) -> AbstractSet[str]:
        space = names.room_nid(self.tx, RoomId(space_id))
        member = None if space is None else members.get(self.tx, space, self.user)
        if space is None or member is None or member.membership is not Membership.JOIN:
            return frozenset()
        children = (
            events.by_nid(self.tx, nid).event
            for nid in rooms.current_of_type(self.tx, space, "m.space.child")
        )
        return {str(child.state_key) for child in children if child.content.get("via")}


def _in_range(filtered: list[Member], wanted: ListConfig) -> Iterable[Member]:
    if wanted.ranges is None:
        return filtered
    places = {
        place: None
        for first, last in wanted.ranges
        for place in range(first, min(last + 1, len(filtered)))
    }
    return [filtered[place] for place in sorted(places)]


def _content(stored: bytes | None) -> Mapping[str, Json]:
    content = None if stored is None else decode_stored(stored)
    return content if isinstance(content, Mapping) else {}


def _keys(value: Json) -> AbstractSet[str]:
    return frozenset(value) if isinstance(value, Mapping) else frozenset()
