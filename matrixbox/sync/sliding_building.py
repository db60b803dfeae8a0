"""One answer of sliding sync, put together.

MSC4186, "Response Body".  A first answer may be about a thousand rooms, so rooms are read in
groups, and others get their turn in between; all of it is about one position, which keeps it
together.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import trio
from attrs import define, field

from matrixbox.rooms.typing import Typing
from matrixbox.store import members, names
from matrixbox.store.changes import StreamPos, loud_rooms, user_key
from matrixbox.store.database import Store
from matrixbox.store.memberships import Member, Membership
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx
from matrixbox.sync.sections import MAX_TIMELINE
from matrixbox.sync.sliding_entries import LIVE, NEVER, UNKNOWN, Entry, Knowledge, Wide
from matrixbox.sync.sliding_extensions import ExtensionTeller
from matrixbox.sync.sliding_lists import Looked, RoomLists, Scope
from matrixbox.sync.sliding_request import SlidingRequest, Wanted
from matrixbox.sync.sliding_rooms import Moment, RoomTeller

ROOMS_AT_ONCE = 20

Answer = dict[str, Any]


@define(eq=False)
class SlidingBuilder:
    """One answer while it is put together."""

    store: Store
    request: SlidingRequest
    moment: Moment
    typing: Typing
    answer: Answer = field(factory=dict)
    is_news: bool = False
    sent: list[tuple[RoomNid, str]] = field(factory=list)  # memberships for the timelines
    _entries: dict[RoomNid, Entry] = field(factory=dict)
    _dropped: set[RoomNid] = field(factory=set)
    _numbers: dict[int, int] = field(factory=dict)
    _loud: AbstractSet[RoomNid] | None = None  # that may have news; None: it may be any

    async def build(self) -> Knowledge:
        """Put the answer together; what the client will know when it has it."""
        connection = self.moment.connection
        rung = self.moment.doorbell.rung_since(StreamPos(self.moment.base.pos))
        self._loud = None if rung is None else loud_rooms(rung)
        looked, direct, gone = self.store.read(self._look)
        self._dropped |= gone
        self.answer["lists"] = {name: {"count": n} for name, n in looked.counts.items()}
        self.answer["rooms"] = {}
        chosen = list(looked.rooms)
        for first in range(0, len(chosen), ROOMS_AT_ONCE):
            if first:
                await trio.lowlevel.checkpoint()
            group = chosen[first : first + ROOMS_AT_ONCE]
            self.store.read(self._tell, group, looked, direct)
        for room, entry in connection.entries.items():
            if room not in looked.rooms:
                self._entries[room] = entry.left(self.moment.base.pos)
        extensions: Answer = {}
        wide = self.store.read(self._tell_extensions, looked, extensions)
        self.answer["extensions"] = extensions
        known = connection.entries
        changed: dict[RoomNid, Entry | None] = {
            room: entry
            for room, entry in self._entries.items()
            if room not in self._dropped and entry != known.get(room, UNKNOWN)
        }
        changed.update(dict.fromkeys(self._dropped & known.keys()))
        return Knowledge(changed, wide)

    def _look(self, tx: Tx) -> tuple[Looked, AbstractSet[RoomNid], set[RoomNid]]:
        """What the client looks at, the direct conversations in it, and which rooms are gone."""
        who, known = self.moment.who, self.moment.connection.entries
        shown = {room for room, entry in known.items() if entry.room != NEVER}
        lists = RoomLists(tx, self.moment.activities, who.user, who.user_id, self.moment.now, shown)
        looked = lists.look(self.request)
        direct = {room for room in looked.rooms if lists.is_direct(room)}
        present = {member.room for member in members.rooms_of(tx, who.user)}
        return looked, direct, set(known.keys() - present)

    def _tell(
        self, tx: Tx, group: list[RoomNid], looked: Looked, direct: AbstractSet[RoomNid]
    ) -> None:
        connection = self.moment.connection
        known: Mapping[RoomNid, Entry] = connection.entries
        for room in group:
            entry, scope = known.get(room, UNKNOWN), looked.rooms[room]
            config = self._number(scope.wanted)
            if self._is_quiet(scope, entry, config, is_dm=room in direct):
                self._entries[room] = entry
                continue
            member = self._member(tx, scope)
            if member is None or member.pos > self.moment.now or member.forgotten:
                # It has just become another room for the user: the next answer tells (T105).
                self._entries[room] = entry.left(self.moment.base.pos)
                continue
            told = RoomTeller(tx, self.moment, scope, entry, room in direct, config).tell(member)
            if told.entry is None:
                self._dropped.add(room)
                self._entries[room] = entry
            else:
                self._entries[room] = told.entry
            if told.answer is not None:
                self.answer["rooms"][names.room_id(tx, room)] = told.answer
                self.is_news = True
            self.sent += [(room, user_id) for user_id in told.members]

    def _member(self, tx: Tx, scope: Scope) -> Member | None:
        """The membership as it is now: others may have had their turn since the look (T105)."""
        me = self.moment.who.user
        if self.moment.doorbell.has_news(StreamPos(self.moment.now), user_key(me)):
            return members.get(tx, scope.member.room, me)
        return scope.member

    def _number(self, wanted: Wanted) -> int:
        """The number of what is wanted; the same object stands for many rooms."""
        number = self._numbers.get(id(wanted))
        if number is None:
            number = self.moment.connection.config_number(wanted)
            self._numbers[id(wanted)] = number
        return number

    def _is_quiet(self, scope: Scope, entry: Entry, config: int, *, is_dm: bool) -> bool:
        """Whether it is plain without a look that there is nothing new of a room."""
        return (
            self._loud is not None
            and scope.member.room not in self._loud
            and entry.room == LIVE
            and entry.joined
            and scope.member.membership is Membership.JOIN
            and scope.member.pos <= self.moment.base.pos
            and entry.config == config
            and min(scope.limit, MAX_TIMELINE) <= entry.limit
            and entry.is_dm is is_dm
        )

    def _tell_extensions(self, tx: Tx, looked: Looked, answer: Answer) -> Wide:
        teller = ExtensionTeller(
            tx,
            self.moment,
            self.request.extensions,
            looked,
            self.typing,
            self._entries,
            self.moment.connection.wide,
            answer,
        )
        teller.tell()
        self.is_news = self.is_news or teller.is_news
        return teller.wide
