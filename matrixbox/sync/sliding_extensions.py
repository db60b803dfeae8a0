"""What an answer of sliding sync holds beside rooms.

MSC4508 (what extensions have in common; typing), MSC3885 (to-device messages), MSC3884
(encryption), MSC3959 (account data), MSC3960 (receipts), MSC4308 (thread subscriptions) (T105,
T108, T128).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from attrs import define, evolve, field

from matrixbox.rooms import push_rules, thread_subscriptions
from matrixbox.rooms.typing import Typing
from matrixbox.store import account_data, members, names, receipts
from matrixbox.store import thread_subscriptions as stored_subscriptions
from matrixbox.store.account_data import GLOBAL
from matrixbox.store.changes import StreamPos, receipts_key, room_key, user_key
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import RoomNid
from matrixbox.store.thread_subscriptions import Kind
from matrixbox.store.transaction import Tx
from matrixbox.sync import encryption, sections
from matrixbox.sync.sliding_entries import (
    LIVE,
    NEVER,
    Entry,
    Track,
    Wide,
    left,
    since,
)
from matrixbox.sync.sliding_lists import Looked, Scope
from matrixbox.sync.sliding_request import Extensions, RoomExtension, ToDevice
from matrixbox.sync.sliding_rooms import Moment

MAX_RECEIPTS = 100
"""Receipts of a room that the client did not know; those of the user come first."""

Answer = dict[str, Any]


@define(eq=False)
class ExtensionTeller:
    """Tells what is new besides rooms.

    ``entries`` and ``wide`` become what the client knows when it has the answer.
    """

    tx: Tx
    moment: Moment
    asked: Extensions
    looked: Looked
    typing: Typing
    entries: dict[RoomNid, Entry]
    wide: Wide
    answer: Answer
    is_news: bool = False
    _before: tuple[dict[RoomNid, Track], ...] = field(factory=lambda: ({}, {}, {}))

    @property
    def _base(self) -> int:
        return self.moment.base.pos

    def tell(self) -> None:
        """All that was asked for."""
        if self.asked.to_device is not None:
            self._to_device(self.asked.to_device)
        self._e2ee()
        self._track()
        self._account_data()
        self._receipts()
        self._typing()
        self._threads()

    def _put(self, name: str, found: Answer, *, is_news: bool) -> None:
        self.answer[self.asked.names.get(name, name)] = found
        self.is_news = self.is_news or is_news

    # --- about the device

    def _to_device(self, asked: ToDevice) -> None:
        """Messages stay until the client asks for what comes after them (T128)."""
        now, after = self.moment.now, asked.since or 0
        if after > now:
            after = 0  # of a lost future: better twice than never (T082)
        limit = min(asked.limit, encryption.MAX_MESSAGES)
        found = encryption.delivery(self.tx, self.moment.who.device, after, now, limit)
        last = now if found.behind is None else found.behind
        answer = {"next_batch": str(last), "events": found.events}
        self._put("to_device", answer, is_news=bool(found.events))

    def _e2ee(self) -> None:
        if not self.asked.e2ee:
            self.wide = evolve(self.wide, devices=left(self.wide.devices, self._base))
            return
        who, start = self.moment.who, since(self.wide.devices, self._base)
        answer: Answer = encryption.key_counts(self.tx, who.device)
        lists = None
        if self.wide.devices != NEVER:
            rung = self.moment.doorbell.rung_since(StreamPos(start))
            lists = encryption.device_list_changes(self.tx, who.user, start, self.moment.now, rung)
        if lists is not None:
            answer["device_lists"] = lists
        self.wide = evolve(self.wide, devices=LIVE)
        self._put("e2ee", answer, is_news=lists is not None)

    # --- about rooms

    def _in_scope(self, asked: RoomExtension | None) -> dict[RoomNid, Scope]:
        """The rooms that an extension is about."""
        if asked is None:
            return {}
        return {
            room: scope
            for room, scope in self.looked.rooms.items()
            if _has_any(asked.lists, scope.lists)
            or (
                scope.is_subscribed
                and (asked.rooms is None or names.room_id(self.tx, room) in asked.rooms)
            )
        }

    def _track(self) -> None:
        """Note the tracks of the rooms in scope, as they were; from now on these are live."""
        scopes = [
            self._in_scope(asked)
            for asked in (self.asked.account_data, self.asked.receipts, self.asked.typing)
        ]
        for room, entry in self.entries.items():
            before = (entry.data, entry.receipts, entry.typing)
            after = [left(track, self._base) for track in before]
            for place, scope in enumerate(scopes):
                if room in scope:
                    self._before[place][room] = before[place]
                    after[place] = LIVE
            if (*after,) != before:
                data, new_receipts, typing = after
                self.entries[room] = evolve(entry, data=data, receipts=new_receipts, typing=typing)

    def _is_in(self, room: RoomNid) -> bool:
        me = self.moment.who.user
        if self.moment.doorbell.has_news(StreamPos(self.moment.now), user_key(me)):
            member = members.get(self.tx, room, me)
        else:
            member = self.looked.rooms[room].member
        return member is not None and member.membership is Membership.JOIN

    def _account_data(self) -> None:
        asked, user, now = self.asked.account_data, self.moment.who.user, self.moment.now
        tracks = self._before[0]
        if asked is None:
            self.wide = evolve(self.wide, data=left(self.wide.data, self._base))
            return
        start = since(self.wide.data, self._base)
        found: dict[RoomNid, list[Any]] = defaultdict(list)
        kinds: set[str] = set()
        live = {room for room, track in tracks.items() if track == LIVE}
        for entry in account_data.since(self.tx, user, min(start, self._base), now):
            if entry.room == GLOBAL and entry.pos > start:
                kinds.add(entry.type)
                found[GLOBAL].append(sections.account_event(entry.type, entry.json))
            elif entry.room in live and entry.pos > self._base:
                found[entry.room].append(sections.account_event(entry.type, entry.json))
        if self.wide.data == NEVER and push_rules.TYPE not in kinds:
            found[GLOBAL].append(sections.default_push_rules(self.tx, user))
        for room in tracks.keys() - live:
            for entry in account_data.of_room(self.tx, user, room, now):
                if entry.pos > since(tracks[room], self._base):
                    found[room].append(sections.account_event(entry.type, entry.json))
        self.wide = evolve(self.wide, data=LIVE)
        if not found:
            return
        answer: Answer = {}
        everywhere = found.pop(GLOBAL, None)
        if everywhere:
            answer["global"] = everywhere
        if found:
            answer["rooms"] = {names.room_id(self.tx, room): one for room, one in found.items()}
        self._put("account_data", answer, is_news=True)

    def _receipts(self) -> None:
        user, now = self.moment.who.user, self.moment.now
        news = self.moment.doorbell.has_news
        shown: Answer = {}
        for room, track in self._before[1].items():
            start = since(track, self._base)
            if track != NEVER and not news(StreamPos(start), {receipts_key(room), room_key(room)}):
                continue
            if not self._is_in(room):
                continue
            if track == NEVER:
                new = receipts.newest(self.tx, room, user, now, MAX_RECEIPTS)
            else:
                new = receipts.since(self.tx, room, start, now)
            event = sections.receipt_event(self.tx, user, new)
            if event is not None:
                shown[names.room_id(self.tx, room)] = event
        if shown:
            self._put("receipts", {"rooms": shown}, is_news=True)

    def _typing(self) -> None:
        serial = self.moment.base.serial
        shown: Answer = {}
        for room, track in self._before[2].items():
            users = list(self.typing.users(room))
            if track == LIVE:
                is_new = self.typing.changed_since(room, serial)
            else:
                is_new = bool(users) or track != NEVER
            if is_new and self._is_in(room):
                content = {"user_ids": users}
                shown[names.room_id(self.tx, room)] = {"type": "m.typing", "content": content}
        if shown:
            self._put("typing", {"rooms": shown}, is_news=True)

    # --- threads

    def _threads(self) -> None:
        limit, tx, user = self.asked.threads, self.tx, self.moment.who.user
        if limit is None:
            self.wide = evolve(self.wide, threads=left(self.wide.threads, self._base))
            return
        start = since(self.wide.threads, self._base)
        most = min(limit, thread_subscriptions.MAX_LISTED)
        found = stored_subscriptions.changed(tx, user, start, self.moment.now, most + 1)
        shown = found[:most]
        if self.wide.threads == NEVER:
            shown = [one for one in shown if one.kind is not Kind.NONE]
        self.wide = evolve(self.wide, threads=LIVE)
        answer = dict(thread_subscriptions.listed(tx, shown))
        if len(found) > most:
            answer["prev_batch"] = str(found[most].pos)
        if answer:
            self._put("thread_subscriptions", answer, is_news=True)


def _has_any(wanted: frozenset[str] | None, there: tuple[str, ...]) -> bool:
    return bool(there) if wanted is None else not wanted.isdisjoint(there)
