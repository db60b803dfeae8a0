"""One room in an answer of sliding sync.

MSC4186, "Room results", "RoomResult" (T104, T105).  What is told is what has changed since the room
was told of before, or all of it, with `initial`.
"""

from __future__ import annotations

from typing import Any

from attrs import define, evolve, field, frozen

from matrixbox.core.filters import EventFilter
from matrixbox.core.json import Json
from matrixbox.rooms import counts, stripped
from matrixbox.rooms.formatting import Formatter
from matrixbox.rooms.reading import Reader
from matrixbox.rooms.tokens import Place, SlidingToken
from matrixbox.store import events, joins, members, names, receipts, rooms
from matrixbox.store.caches import Session
from matrixbox.store.changes import Doorbell, StreamPos, receipts_key, room_key
from matrixbox.store.memberships import Member, Membership
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx
from matrixbox.sync import sections, sliding_state
from matrixbox.sync.sections import MAX_TIMELINE, MEMBER, Slots, Timeline, Window
from matrixbox.sync.sliding_activity import Activities
from matrixbox.sync.sliding_connection import Connection
from matrixbox.sync.sliding_entries import LIVE, NEVER, NOTHING_SHOWN, Entry, left, since
from matrixbox.sync.sliding_lists import OUTSIDE, Scope
from matrixbox.sync.sliding_request import Form, Wanted
from matrixbox.sync.sliding_state import AVATAR, NAME, StateAt

Answer = dict[str, Any]


@frozen
class Told:
    """What an answer tells of a room, and what the client knows of it then; None: nothing."""

    answer: Answer | None
    entry: Entry | None
    members: tuple[str, ...] = ()  # whose memberships were sent because the timeline needs them


@frozen
class Moment:
    """Between which points an answer is made, for whom, and with what."""

    who: Session
    form: Form
    connection: Connection
    base: SlidingToken  # what the client has
    now: int
    now_ms: int
    ignored: frozenset[str]
    doorbell: Doorbell
    activities: Activities


@define(eq=False)
class RoomTeller:
    """Tells of one room."""

    tx: Tx
    moment: Moment
    scope: Scope
    entry: Entry
    is_dm: bool
    config: int  # the number of what is wanted of the state
    room: RoomNid = field(init=False)
    limit: int = field(init=False)
    wanted: Wanted = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.room = self.scope.member.room
        self.wanted = self.scope.wanted
        self.limit = min(self.scope.limit, MAX_TIMELINE)

    @property
    def since(self) -> int:
        """Up to where the client knows the room."""
        return since(self.entry.room, self.moment.base.pos)

    def tell(self, member: Member) -> Told:
        """What is new, for somebody with this membership."""
        is_new = self.entry.room == NEVER or member.pos > self.since
        if member.membership in OUTSIDE:
            return self._outside(member) if is_new or self.entry.joined else self._nothing()
        if member.membership is Membership.JOIN:
            return self._joined(member)
        return self._gone(member) if is_new or self.entry.joined else self._nothing()

    def _nothing(self) -> Told:
        return Told(None, evolve(self.entry, room=LIVE))

    def _common(self, member: Member) -> Answer:
        if self.moment.form is Form.UNSTABLE:
            return {}
        found: Answer = {"membership": member.membership.word}
        if self.scope.lists:
            found["lists"] = list(self.scope.lists)
        return found

    # --- not in the room

    def _outside(self, member: Member) -> Told:
        """An invitation or a knock: nothing but what it came with ([C8.19])."""
        name = "invite_state" if self.moment.form is Form.UNSTABLE else "stripped_state"
        answer = {
            **self._common(member),
            "initial": True,
            "bump_stamp": member.pos,
            name: stripped.read(self.tx, self.room, member.user),
        }
        if self.is_dm:
            answer["is_dm"] = True
        return Told(answer, self._entry_outside(is_dm=self.is_dm))

    def _gone(self, member: Member) -> Told:
        """A room that the user is no longer in, up to the leave ([C8.20], T105)."""
        answer: Answer = {**self._common(member), "bump_stamp": member.pos}
        reader = self._reader()
        was_in = reader.parting() == member.event
        known = self.entry.joined and self._memberships_since(member)[:1] == ["join"]
        window = Window(self.since if known else 0, member.pos)
        if not known:
            answer["initial"] = True
        if rooms.head(self.tx, self.room) is not None:
            state = StateAt(self.tx, self.room, member.pos)
            shown = self._timeline(reader, window, self.limit)
            self._put_timeline(answer, reader, shown)
            if not was_in:  # an invitation refused, a knock taken back: that alone (T104)
                own = names.slot_nid(self.tx, (MEMBER, self.moment.who.user_id))
                found = {} if own is None else {own: state.slot(own)}
                found = {slot: nid for slot, nid in found.items() if state.wants(self.wanted, slot)}
            elif known:
                changed = sliding_state.changes(state, window.since)
                found = sliding_state.required_changes(
                    state, changed, self.wanted, limited=shown.limited
                )
            else:
                found = state.matching(self.wanted)
            self._put_state(answer, reader, found)
        elif self.moment.form is Form.V4:
            answer["stripped_state"] = []
        stays = self.moment.activities.was_thrown_out(self.tx, member, self.moment.who.user_id)
        return Told(answer, self._entry_outside() if stays else None)

    def _entry_outside(self, *, is_dm: bool = False) -> Entry:
        return Entry(room=LIVE, data=self.entry.data, is_dm=is_dm)

    # --- in the room

    def _joined(self, member: Member) -> Told:
        entry, since_pos = self.entry, self.since
        known = entry.room != NEVER and entry.joined
        if any(one.wants_all_members for one in self.wanted):
            if joins.partial(self.tx, self.room) is not None:
                # It comes when all its members are known ([B8.05]).
                return Told(None, evolve(entry, room=left(entry.room, self.moment.base.pos)))
            known = known and joins.completed(self.tx, self.room) <= since_pos
        if known and member.pos > since_pos:
            known = all(word == "join" for word in self._memberships_since(member))
        if known and self._is_quiet:
            return self._nothing()
        return self._tell_joined(known=known)

    @property
    def _is_quiet(self) -> bool:
        """Whether nothing can be new, as far as the doorbell remembers."""
        news = self.moment.doorbell.has_news
        return (
            self.config == self.entry.config
            and self.limit <= self.entry.limit
            and self.is_dm is self.entry.is_dm
            and not news(StreamPos(self.since), {room_key(self.room), receipts_key(self.room)})
        )

    def _tell_joined(self, *, known: bool) -> Told:
        tx, moment, entry = self.tx, self.moment, self.entry
        reader = self._reader()
        window = Window(self.since if known else 0, moment.now)
        state = StateAt(tx, self.room, moment.now)
        shown = self._timeline(reader, window, self.limit)
        expanded = known and self.limit > entry.limit and self._lacks_older(reader)
        if expanded:
            shown = self._timeline(reader, Window(0, moment.now), self.limit)
        answer: Answer = {} if known else {"initial": True}
        if shown.events or shown.limited or not known:
            self._put_timeline(answer, reader, shown)
        if expanded:
            stable = moment.form is not Form.UNSTABLE
            answer["expanded_timeline" if stable else "unstable_expanded_timeline"] = True
        if known:
            changed = sliding_state.changes(state, window.since)
            found = sliding_state.required_changes(
                state, changed, self.wanted, limited=shown.limited and not expanded
            )
            found |= sliding_state.added(state, moment.connection.config(entry.config), self.wanted)
        else:
            state.read()
            changed, found = {}, state.matching(self.wanted)
        needed = self._needed_members(shown, state, found, known=known)
        self._put_state(answer, reader, found)
        self._put_summary(answer, reader, state, changed, known=known)
        if self.is_dm is not (known and entry.is_dm):
            answer["is_dm"] = self.is_dm
        is_read = known and self._has_read(window)
        if answer or is_read:
            self._put_activity(answer, reader)
        if not known:
            entry = Entry(data=entry.data)
        fresh = not known or expanded or shown.limited
        start = (shown.start.pos, shown.start.sub) if self.limit else (NOTHING_SHOWN, 0)
        after = evolve(
            entry,
            room=LIVE,
            joined=True,
            is_dm=self.is_dm,
            config=self.config,
            limit=self.limit if fresh else max(self.limit, entry.limit),
            start=start if fresh else entry.start,
        )
        return Told(answer or None, after, needed)

    def _reader(self) -> Reader:
        who, moment = self.moment.who, self.moment
        return Reader(self.tx, self.room, who.user, moment.now_ms, who.device, moment.ignored)

    def _memberships_since(self, member: Member) -> list[str | None]:
        """The user's memberships that have ended since, oldest first."""
        return sections.memberships_since(self._reader(), Window(self.since, member.pos))

    # --- the timeline

    def _timeline(self, reader: Reader, window: Window, limit: int) -> Timeline:
        if limit:
            return sections.timeline(reader, window, EventFilter(limit=limit))
        place = Place(window.now, 0)
        newest = events.newest_pos(self.tx, self.room, window.now)
        return Timeline((), newest > window.since, place)

    def _lacks_older(self, reader: Reader) -> bool:
        """Whether the client does not have all of the newest events that it wants now."""
        pos, sub = self.entry.start
        older = sections.timeline(reader, Window(0, self.moment.now), EventFilter(limit=self.limit))
        if not older.events:
            return False
        first = older.events[0]
        assert first.pos is not None
        return (first.pos, first.sub) <= (pos, sub)

    def _put_timeline(self, answer: Answer, reader: Reader, shown: Timeline) -> None:
        formatter = Formatter(reader, with_room_id=False, bundled=shown.limited)
        base = self.moment.base.pos
        live = [stored for stored in shown.events if base and (stored.pos or 0) > base]
        answer["timeline"] = formatter.all(shown.events)
        answer["prev_batch"] = str(shown.start)
        answer["limited"] = shown.limited
        answer["num_live"] = len(live)

    # --- state

    def _needed_members(
        self, shown: Timeline, state: StateAt, found: Slots, *, known: bool
    ) -> tuple[str, ...]:
        """Add the memberships that the timeline needs; whose."""
        if not any(one.lazy for one in self.wanted):
            return ()
        connection, base = self.moment.connection, self.moment.base
        flushed = not known or shown.limited
        needed: list[str] = []
        for user_id, slot in sliding_state.timeline_members(self.tx, shown.events):
            if flushed or not connection.has_member(self.room, user_id, base):
                nid = state.slot(slot)
                if nid:
                    found[slot] = nid
                    needed.append(user_id)
        return tuple(needed)

    def _put_state(self, answer: Answer, reader: Reader, found: Slots) -> None:
        if not found:
            return
        formatter = Formatter(reader, with_room_id=False, with_membership=False)
        shown: list[Any] = []
        for slot, nid in found.items():
            if nid:
                shown.append(formatter.event(events.by_nid(self.tx, nid)))
            elif self.moment.form is not Form.UNSTABLE:
                kind, key = names.slot_key(self.tx, slot)
                shown.append({"type": kind, "state_key": key})
        if shown:
            answer["required_state"] = shown

    def _put_summary(
        self, answer: Answer, reader: Reader, state: StateAt, changed: Slots, *, known: bool
    ) -> None:
        """Name, avatar, heroes and how many there are, as far as these have changed."""
        kinds = {names.slot_key(self.tx, slot) for slot in changed}
        people = not known or any(kind == MEMBER for kind, _ in kinds)
        name = state.text(NAME, "name")
        avatar = state.text(AVATAR, "url")
        if known:
            kinds |= {key for key in (NAME, AVATAR) if state.was_redacted(key, self.since)}
        if NAME in kinds or (name and not known):
            answer["name"] = name
        if AVATAR in kinds or (avatar and not known):
            answer["avatar"] = avatar
        if name is None and (people or NAME in kinds):
            answer["heroes"] = state.heroes(reader)
        if people:
            answer["joined_count"] = members.joined_count(self.tx, self.room)
            answer["invited_count"] = members.count(self.tx, self.room, Membership.INVITE)

    # --- what else

    def _has_read(self, window: Window) -> bool:
        """Whether the user has read something meanwhile, here or on another device."""
        new = receipts.since(self.tx, self.room, window.since, window.now)
        return any(one.user == self.moment.who.user for one in new)

    def _put_activity(self, answer: Answer, reader: Reader) -> None:
        moment = self.moment
        answer.update(self._common(self.scope.member))
        answer["bump_stamp"] = moment.activities.bump(self.tx, self.room, moment.now)
        if moment.form is Form.UNSTABLE:
            unread = counts.unread(self.tx, reader.user, self.room, moment.now).total
            facts: dict[str, Json] = {
                "notification_count": unread.notifications,
                "highlight_count": unread.highlights,
            }
            answer.update(facts)
