"""The event stream of old clients, and a first look at everything or at one room.

Matrix v1.19, Client-Server API, "Syncing" (`GET /events`, `GET /initialSync`) and "Room previews"
(`GET /events` with a room, `GET /rooms/{roomId}/initialSync`) ([C8.32], [C9.01], T104, T105).  The
tokens are those of `/sync`.  The stream holds the events of rooms, which is what its description
knows; who types or has read what is for `/sync`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from operator import itemgetter
from typing import Any

import trio
from attrs import define, field, frozen

from matrixbox.accounts import sessions
from matrixbox.core.filters import EventFilter
from matrixbox.core.identifiers import EventId
from matrixbox.core.json import encode
from matrixbox.errors import Forbidden, NotFound
from matrixbox.rooms import push_rules, state_reading, timeline
from matrixbox.rooms.env import Env
from matrixbox.rooms.formatting import Formatter, Fragment
from matrixbox.rooms.reading import Reader, blocks_invites, ignored_users
from matrixbox.rooms.timeline import NO_EVENT
from matrixbox.rooms.tokens import Place, SyncToken
from matrixbox.store import account_data, events, members, names, rooms
from matrixbox.store.account_data import GLOBAL
from matrixbox.store.caches import Session, StoredEvent
from matrixbox.store.changes import Key, StreamPos, room_key
from matrixbox.store.database import Store
from matrixbox.store.memberships import Member, Membership
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx
from matrixbox.sync import sections
from matrixbox.sync.listening import Listening

MAX_EVENTS = 100
"""Events in one answer of the stream."""
WORDS = {
    Membership.JOIN: "join",
    Membership.INVITE: "invite",
    Membership.LEAVE: "leave",
    Membership.BAN: "ban",
}
"""Memberships that the description knows: no word for those who knock."""

Answer = dict[str, Any]
Waiting = Callable[[float], AbstractAsyncContextManager[trio.CancelScope]]


@frozen
class Stream:
    """What a client wants to hear: of its own rooms, or of one."""

    who: Session
    since: int | None  # None: from now on
    timeout_s: float
    room: RoomNid | None = None


@frozen
class _News:
    """What is new in one room up to a position."""

    reader: Reader
    events: tuple[StoredEvent, ...]
    reach: int

    @classmethod
    def of(cls, reader: Reader, since: int, now: int) -> _News:
        """What came into a room's timeline; not history found later."""
        most = MAX_EVENTS + 1
        nids = events.after(reader.tx, reader.room, (since, 0), (now, 0), most)
        found = [events.by_nid(reader.tx, nid) for nid in nids]
        reach = now if len(found) < most else found[-1].pos or 0
        shown = (one for one in found if one.sub == 0 and reader.may_see(one))
        return cls(reader, tuple(shown), reach)


@define(eq=False)
class OldSync:
    """Answers old clients."""

    store: Store
    env: Env
    _listening: Listening = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._listening = Listening(self.store)

    # --- the stream

    async def events(self, wanted: Stream, waiting: Waiting) -> bytes:
        """The events after a token, as soon as there are some or the time is over."""
        doorbell = self.store.doorbell
        since = doorbell.position if wanted.since is None else wanted.since
        deadline = trio.current_time() + wanted.timeout_s
        if since > doorbell.position:
            since, deadline = doorbell.position, 0.0  # of a lost future (T082)
        start, reached = since, since
        while True:
            now = doorbell.position
            found, reached = self.store.read(self._news, wanted, reached, now)
            left_s = deadline - trio.current_time()
            if found or (left_s <= 0 and reached == now):
                return encode(
                    {"start": self._token(start), "chunk": found, "end": self._token(reached)}
                )
            if reached < now:
                continue  # nothing in the first part of a long stretch is for this user
            async with waiting(left_s) as scope:
                await doorbell.beyond(StreamPos(now), self._keys(wanted, now))
            self.store.read(sessions.require_open, wanted.who, self.env.clock.now_ms())
            if scope.cancelled_caught:
                deadline = 0.0

    def _token(self, pos: int) -> str:
        return str(SyncToken(pos, self.env.typing.serial))

    def _keys(self, wanted: Stream, now: int) -> frozenset[Key]:
        if wanted.room is not None:
            return frozenset((room_key(wanted.room),))
        return self._listening.keys(wanted.who, now).urgent

    def _reader(self, tx: Tx, who: Session, room: RoomNid) -> Reader:
        ignored = ignored_users(tx, who.user)
        return Reader(tx, room, who.user, self.env.clock.now_ms(), who.device, ignored)

    def _news(self, tx: Tx, wanted: Stream, since: int, now: int) -> tuple[list[Fragment], int]:
        """The events of a stretch of the stream, and how far they reach."""
        who = wanted.who
        if wanted.room is None:
            found = self._of_own_rooms(tx, who, since, now)
        else:
            reader = self._reader(tx, who, wanted.room)
            timeline.require_reader(reader)
            found = [_News.of(reader, since, now)]
        reach = min((news.reach for news in found), default=now)
        chosen = [(one.pos or 0, news.reader, one) for news in found for one in news.events]
        chosen = sorted((one for one in chosen if one[0] <= reach), key=itemgetter(0))
        if len(chosen) > MAX_EVENTS:
            chosen = chosen[:MAX_EVENTS]
            reach = chosen[-1][0]
        return [Formatter(reader, bundled=True).event(one) for _, reader, one in chosen], reach

    def _of_own_rooms(self, tx: Tx, who: Session, since: int, now: int) -> list[_News]:
        rung = self.store.doorbell.rung_since(StreamPos(since))
        found = []
        for member in members.rooms_of(tx, who.user):
            changed = since < member.pos <= now
            quiet = rung is not None and room_key(member.room) not in rung
            if not changed and (quiet or member.membership is not Membership.JOIN):
                continue
            reader = self._reader(tx, who, member.room)
            if member.membership is Membership.INVITE:
                # The room around it is none of the invited's business.
                invitation = _invitation(tx, reader, member)
                found.append(_News(reader, () if invitation is None else (invitation,), now))
            else:
                found.append(_News.of(reader, since, now))
        return found

    # --- first looks

    def everything(self, tx: Tx, who: Session, limit: int, *, archived: bool) -> bytes:
        """All rooms of a user, with their newest events."""
        now = self.store.doorbell.position
        found: list[Answer] = []
        for member in members.rooms_of(tx, who.user):
            left = member.membership in (Membership.LEAVE, Membership.BAN)
            if member.pos <= now and member.membership in WORDS and (archived or not left):
                room = self._room(tx, who, member, limit, now)
                if room is not None:
                    found.append(room)
        answer: Answer = {
            "end": self._token(now),
            "presence": self._presence(tx, who),
            "rooms": found,
            "account_data": self._account_data(tx, who, now),
        }
        return encode(answer)

    def _presence(self, tx: Tx, who: Session) -> list[Any]:
        presence = self.env.presence
        if presence is None:
            return []
        ignored = ignored_users(tx, who.user)
        serial = self.env.typing.serial
        found = presence.changed_since(tx, who.user, who.user_id, 0, serial, [])
        return [event for event in found if event["sender"] not in ignored]

    def _account_data(self, tx: Tx, who: Session, now: int) -> list[Fragment]:
        entries = account_data.of_room(tx, who.user, GLOBAL, now)
        shown = [sections.account_event(entry.type, entry.json) for entry in entries]
        if all(entry.type != push_rules.TYPE for entry in entries):
            shown.append(sections.default_push_rules(tx, who.user))
        return shown

    def _room(self, tx: Tx, who: Session, member: Member, limit: int, now: int) -> Answer | None:
        """One room of the user's; None for an invitation that is not to be seen."""
        reader = self._reader(tx, who, member.room)
        if member.membership is not Membership.INVITE:
            return self._contents(tx, reader, limit, now)
        answer = _begin(tx, reader)
        if blocks_invites(tx, who.user):
            return None
        if member.event:
            invitation = _invitation(tx, reader, member)
            if invitation is None:
                return None
            answer["invite"] = Formatter(reader).event(invitation)
        return answer

    def one_room(self, tx: Tx, who: Session, room: RoomNid, limit: int) -> bytes:
        """One room, for those who are or were in it; a preview of a room open to all.

        Raises Forbidden.
        """
        reader = self._reader(tx, who, room)
        timeline.require_reader(reader)
        state_reading.whole(reader)
        return encode(self._contents(tx, reader, limit, self.store.doorbell.position))

    def _contents(self, tx: Tx, reader: Reader, limit: int, now: int) -> Answer:
        answer = _begin(tx, reader)
        try:
            answer["state"] = state_reading.whole(reader)
        except Forbidden:  # invited once, and never in it
            return answer
        shown = sections.timeline(reader, sections.Window(0, now), EventFilter(limit=max(1, limit)))
        chosen = shown.events if limit else ()
        answer["messages"] = {
            "start": str(shown.start if limit else Place(now, 0)),
            "end": self._token(now),
            "chunk": Formatter(reader, bundled=True).all(chosen),
        }
        entries = account_data.of_room(tx, reader.user, reader.room, now)
        answer["account_data"] = [sections.account_event(one.type, one.json) for one in entries]
        return answer

    def event(self, tx: Tx, who: Session, event_id: EventId) -> bytes:
        """One event, wherever it is.  Raises NotFound."""
        stored = events.by_id(tx, event_id)
        if stored is None:
            raise NotFound(NO_EVENT)
        reader = self._reader(tx, who, stored.room)
        return encode(Formatter(reader, bundled=True).event(timeline.event(reader, event_id)))


def _begin(tx: Tx, reader: Reader) -> Answer:
    """What is told of every room."""
    answer: Answer = {"room_id": names.room_id(tx, reader.room)}
    if reader.member is not None and reader.member.membership in WORDS:
        answer["membership"] = WORDS[reader.member.membership]
    answer["visibility"] = "public" if rooms.is_published(tx, reader.room) else "private"
    return answer


def _invitation(tx: Tx, reader: Reader, member: Member) -> StoredEvent | None:
    """The event that invited the user, unless it is not to be seen ([C8.19], T108)."""
    if not member.event or blocks_invites(tx, member.user):
        return None
    stored = events.by_nid(tx, member.event)
    return None if stored.event.sender in reader.ignored else stored
