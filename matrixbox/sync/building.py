"""One answer to `/sync`, put together on one snapshot of the database.

Matrix v1.19, Client-Server API, "Syncing" ([C8.02] to [C8.29]).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from attrs import define, evolve, field, frozen

from matrixbox.core.filters import Filter
from matrixbox.core.identifiers import UserId
from matrixbox.core.json import Json, encode
from matrixbox.rooms import push_rules, stripped
from matrixbox.rooms.formatting import Formatter, Fragment
from matrixbox.rooms.presence import Presence
from matrixbox.rooms.reading import Reader, blocks_invites, ignored_users
from matrixbox.rooms.tokens import SyncToken
from matrixbox.rooms.typing import Typing
from matrixbox.store import account_data, joins, members, names, receipts, rooms
from matrixbox.store.account_data import GLOBAL
from matrixbox.store.caches import Session
from matrixbox.store.changes import Doorbell, Key, StreamPos, loud_rooms, user_key
from matrixbox.store.memberships import Member, Membership
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx
from matrixbox.sync import encryption, sections
from matrixbox.sync.sections import Timeline, Window
from matrixbox.sync.sharing import Sharing

Answer = dict[str, Any]


@frozen
class SyncRequest:
    """What a client asks for."""

    who: Session
    since: SyncToken | None
    filter: Filter
    timeout_s: float = 0.0
    full_state: bool = False
    state_after: tuple[str, ...] = ()  # the names under which state_after is wanted


def empty_answer(tx: Tx, who: Session, token: SyncToken) -> Answer:
    """What is in every answer."""
    return {"next_batch": str(token), **encryption.key_counts(tx, who.device)}


def empty_room(token: SyncToken) -> Answer:
    """A room of which nothing is told but that it is there."""
    return {"timeline": {"events": [], "limited": False, "prev_batch": str(token)}}


@define(eq=False)
class _Room:
    """One room of one answer, while it is put together."""

    tx: Tx
    request: SyncRequest
    reader: Reader
    window: Window
    whole: bool
    anew: bool = False  # what the client may have of the room does not lead up to this answer

    def timeline_only(self) -> Answer:
        """The timeline of somebody to whom the room's state was never shown."""
        wanted = self.request.filter.room.timeline.in_room(names.room_id(self.tx, self.reader.room))
        shown = sections.timeline(self.reader, self.window, wanted)
        nothing: Answer = {"events": []}
        names_of_state = self.request.state_after or ("state",)
        return {"timeline": self._timeline(shown), **dict.fromkeys(names_of_state, nothing)}

    def timeline_and_state(self) -> tuple[Answer, bool]:
        """The parts about events, and whether there is anything in them."""
        wanted = self.request.filter.room
        room_id = names.room_id(self.tx, self.reader.room)
        shown = sections.timeline(self.reader, self.window, wanted.timeline.in_room(room_id))
        if self.anew:
            shown = evolve(shown, limited=True)
        change = sections.state_change(
            self.reader,
            self.window,
            shown,
            whole=self.whole,
            lazy=wanted.state.lazy_load_members,
        )
        after = bool(self.request.state_after)
        filtered = wanted.state.in_room(room_id)
        state = sections.state_events(self.tx, change, shown, filtered, after=after)
        plain = Formatter(self.reader, self.request.filter, with_room_id=False)
        answer: Answer = {"timeline": self._timeline(shown)}
        for name in self.request.state_after or ("state",):
            answer[name] = {"events": plain.all(state)}
        summary = sections.summary(self.reader, change, whole=self.whole)
        if summary:
            answer["summary"] = summary
        return answer, bool(shown.events or state or summary)

    def _timeline(self, shown: Timeline) -> Answer:
        bundled = Formatter(
            self.reader, self.request.filter, with_room_id=False, bundled=shown.limited
        )
        return {
            "events": bundled.all(shown.events),
            "limited": shown.limited,
            "prev_batch": str(shown.start),
        }


@define(eq=False)
class Builder:
    """One answer while it is put together, on one snapshot."""

    tx: Tx
    request: SyncRequest
    since: SyncToken
    token: SyncToken
    now_ms: int
    doorbell: Doorbell
    typing: Typing
    presence: Presence | None
    ignored: frozenset[str] = field(init=False)
    rung: AbstractSet[Key] | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ignored = ignored_users(self.tx, self.request.who.user)
        self.rung = self.doorbell.rung_since(StreamPos(self.since.pos))

    @property
    def initial(self) -> bool:
        """Whether the client knows nothing yet."""
        return self.since.pos == 0

    def build(self) -> tuple[Answer, bool]:
        """The answer, and whether it tells anything new."""
        who = self.request.who
        entries: dict[RoomNid, list[account_data.Entry]] = defaultdict(list)
        for entry in account_data.since(self.tx, who.user, self.since.pos, self.token.pos):
            entries[entry.room].append(entry)
        answer, encrypted = self._begin()
        wanted = self.request.filter
        if self.initial and all(entry.type != push_rules.TYPE for entry in entries[GLOBAL]):
            entries[GLOBAL].append(self._default_push_rules())
        shown = [e for e in entries[GLOBAL] if wanted.account_data.allows(e.type, None)]
        if shown:
            answer["account_data"] = {
                "events": [sections.account_event(e.type, e.json) for e in shown]
            }
        seen = self._presence()
        if seen:
            answer["presence"] = {"events": seen}
        groups: dict[str, dict[str, Answer]] = {}
        loud = self._loud(entries)
        for member in members.rooms_of(self.tx, who.user):
            if self._is_quiet(member, loud):
                continue
            room_id = names.room_id(self.tx, member.room)
            if wanted.room.allows_room(room_id):
                group, section = self._room(member, entries.get(member.room, []))
                if section is not None:
                    groups.setdefault(group, {})[room_id] = section
        for room in self._forgotten():
            room_id = names.room_id(self.tx, room)
            if wanted.room.allows_room(room_id):
                groups.setdefault("leave", {})[room_id] = empty_room(self.token)
        if groups:
            answer["rooms"] = groups
        return answer, bool(shown or seen or groups or encrypted)

    def _begin(self) -> tuple[Answer, bool]:
        """What concerns the device and its keys, and whether there is news in it."""
        who, since = self.request.who, self.since
        messages = encryption.delivery(
            self.tx, who.device, since.inbox, self.token.pos, encryption.MAX_MESSAGES
        )
        answer = empty_answer(self.tx, who, evolve(self.token, behind=messages.behind))
        lists = None
        if messages.events:
            answer["to_device"] = {"events": messages.events}
        if not self.initial:
            lists = encryption.device_list_changes(
                self.tx, who.user, since.pos, self.token.pos, self.rung
            )
        if lists is not None:
            answer["device_lists"] = lists
        return answer, bool(messages.events or lists)

    def _presence(self) -> list[Mapping[str, Json]]:
        """Who among those who share a room came, went or changed otherwise ([C8.27])."""
        if self.presence is None:
            return []
        who, since = self.request.who, 0 if self.initial else self.since.serial
        found = self.presence.changed_since(
            self.tx, who.user, who.user_id, since, self.token.serial, self._met()
        )
        wanted = self.request.filter.presence
        return [
            event
            for event in found
            if event["sender"] not in self.ignored
            and wanted.allows("m.presence", str(event["sender"]))
        ]

    def _met(self) -> list[UserId]:
        """With whom the user has come together in a room."""
        rung = self.rung
        if self.initial or (rung is not None and members.CHANGES not in rung):
            return []
        who = self.request.who.user
        return members.user_ids(
            self.tx, Sharing(self.tx, who, self.since.pos, self.token.pos).met(rung)
        )

    def _forgotten(self) -> list[RoomNid]:
        """Rooms left and forgotten on one device, of which the others only learn that they are."""
        if self.initial or (self.rung is not None and not self._rang_for_me()):
            return []
        return members.forgotten_since(self.tx, self.request.who.user, self.since.pos)

    def _rang_for_me(self) -> bool:
        return self.rung is not None and user_key(self.request.who.user) in self.rung

    def _default_push_rules(self) -> account_data.Entry:
        """What stands for the push rules of somebody who changed none of them ([C8.17])."""
        content = push_rules.content_of(push_rules.rules_of(self.tx, self.request.who.user))
        return account_data.Entry(GLOBAL, push_rules.TYPE, encode(content), 0)

    def _loud(self, entries: Collection[RoomNid]) -> AbstractSet[RoomNid] | None:
        """The rooms that may have news for somebody who knows them; None: it may be any."""
        if self.rung is None or self.initial or self.request.full_state:
            return None
        typed = self.typing.rooms_changed_since(self.since.serial)
        return loud_rooms(self.rung).union(typed, entries)

    def _is_quiet(self, member: Member, loud: AbstractSet[RoomNid] | None) -> bool:
        """Whether nothing can be new about a room."""
        if member.pos > self.since.pos:
            return False
        if loud is not None:
            return member.room not in loud
        known = not self.initial and not self.request.full_state
        return known and member.membership is not Membership.JOIN

    def _room(self, member: Member, entries: list[account_data.Entry]) -> tuple[str, Answer | None]:
        """The part of the answer that a room belongs to, and what it says of the room."""
        changed = self.since.pos < member.pos <= self.token.pos
        if member.pos > self.token.pos:
            return "", None  # a later answer tells
        if member.membership is Membership.JOIN:
            return "join", self._joined(member, entries, changed=changed)
        if member.membership is Membership.INVITE:
            return "invite", self._invited(member) if changed else None
        if member.membership is Membership.KNOCK:
            state = stripped.read(self.tx, member.room, member.user)
            return "knock", {"knock_state": {"events": state}} if changed else None
        if (changed and not self.initial) or (self.initial and self._include_leave):
            return "leave", self._left(member, entries)
        return "", None

    @property
    def _include_leave(self) -> bool:
        return self.request.filter.room.include_leave

    def _reader(self, room: RoomNid) -> Reader:
        who = self.request.who
        return Reader(self.tx, room, who.user, self.now_ms, who.device, self.ignored)

    def _joined(
        self, member: Member, entries: list[account_data.Entry], *, changed: bool
    ) -> Answer | None:
        room = member.room
        eager = not self.request.filter.room.state.lazy_load_members
        if eager and joins.partial(self.tx, room) is not None:
            return None  # it comes when all its members are known ([B8.05])
        earlier = self._memberships_since(member) if changed and not self.initial else []
        # Who left and came back knows the room up to `since`, but needs its whole state anew.
        known = not self.initial and (not earlier or earlier[0] == "join")
        if eager and known:
            known = joins.completed(self.tx, room) <= self.since.pos
        whole = not known or self.request.full_state or any(word != "join" for word in earlier)
        window = Window(self.since.pos if known else 0, self.token.pos)
        anew = not (known or self.initial)
        parts = _Room(self.tx, self.request, self._reader(room), window, whole, anew)
        answer, is_news = parts.timeline_and_state()
        ephemeral, own_receipt = self._ephemeral(member, window, known=known)
        if not known:
            entries = account_data.of_room(self.tx, member.user, room, window.now)
        shown = self._account_events(member.room, entries)
        if not (whole or is_news or ephemeral or shown or own_receipt):
            return None
        by_thread = self.request.filter.room.timeline.unread_thread_notifications
        counts = sections.notification_counts(
            self.tx, member.user, room, window.now, by_thread=by_thread
        )
        answer["ephemeral"] = {"events": ephemeral}
        answer["account_data"] = {"events": shown}
        return {**answer, **counts}

    def _ephemeral(
        self, member: Member, window: Window, *, known: bool
    ) -> tuple[list[Mapping[str, Json]], bool]:
        """Typing and receipts, and whether receipts of the user's own are among these."""
        found: list[Mapping[str, Json]] = []
        typing: Json = list(self.typing.users(member.room))
        if self.typing.changed_since(member.room, self.since.serial) if known else typing:
            found.append({"type": "m.typing", "content": {"user_ids": typing}})
        new = receipts.since(self.tx, member.room, window.since, window.now)
        receipt = sections.receipt_event(self.tx, member.user, new)
        if receipt is not None:
            found.append(receipt)
        room_id = names.room_id(self.tx, member.room)
        wanted = self.request.filter.room.ephemeral.in_room(room_id)
        own_receipt = any(one.user == member.user for one in new)
        return sections.only(found, wanted), own_receipt

    def _account_events(self, room: RoomNid, entries: list[account_data.Entry]) -> list[Fragment]:
        room_id = names.room_id(self.tx, room)
        wanted = self.request.filter.room.account_data.in_room(room_id)
        return [
            sections.account_event(entry.type, entry.json)
            for entry in entries
            if wanted.allows(entry.type, None)
        ]

    def _memberships_since(self, member: Member) -> list[str | None]:
        """The user's memberships that ended after ``since``, oldest first."""
        window = Window(self.since.pos, self.token.pos)
        return sections.memberships_since(self._reader(member.room), window)

    def _invited(self, member: Member) -> Answer | None:
        state = stripped.read(self.tx, member.room, member.user)
        inviter = state[-1].get("sender") if state else None
        if inviter in self.ignored or blocks_invites(self.tx, member.user):
            return None
        return {"invite_state": {"events": state}}

    def _with_leave(self, member: Member, answer: Answer) -> Answer:
        """A timeline with a leave at its end that is in no graph here."""
        if not member.event:
            wanted = self.request.filter
            allowed = wanted.room.timeline.in_room(names.room_id(self.tx, member.room))
            for event in stripped.read(self.tx, member.room, member.user):
                if allowed.allows(str(event["type"]), str(event["sender"])):
                    answer["timeline"]["events"].append(wanted.project(event))
        return answer

    def _left(self, member: Member, entries: list[account_data.Entry]) -> Answer | None:
        """A room that the user is no longer in, up to the leave ([C8.20])."""
        was_joined = not self.initial and self._memberships_since(member)[:1] == ["join"]
        window = Window(self.since.pos if was_joined else 0, member.pos)
        reader = self._reader(member.room)
        if rooms.head(self.tx, member.room) is None:
            return self._with_leave(member, empty_room(self.token))
        parts = _Room(self.tx, self.request, reader, window, whole=not was_joined)
        if reader.parting() == member.event:
            answer, _ = parts.timeline_and_state()
            answer.pop("summary", None)  # it counts who is in the room now
        else:  # an invitation refused, a knock taken back, a ban of who was not there (T104)
            answer = self._with_leave(member, parts.timeline_only())
        answer["account_data"] = {"events": self._account_events(member.room, entries)}
        return answer
