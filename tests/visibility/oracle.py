"""The oracle: the words of the specification, put down once more and as they stand.

Matrix v1.19, Client-Server API, "Room History Visibility".  It works on a list of what happened and
calls nothing of the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from attrs import define, field, frozen

State = Mapping[tuple[str, str], int]  # the number of the event by type and state key

MEMBER, HISTORY, CREATE = "m.room.member", "m.room.history_visibility", "m.room.create"
GUEST_ACCESS = "m.room.guest_access"
_ROOM = r"/v3/rooms/[^/]+"
# "Guest Access", "Client behaviour", and the sliding form of sync, which came after that list.
FOR_GUESTS = re.compile(
    rf"GET {_ROOM}/(state|state/[^/]+/[^/]*|context/[^/]+|event/[^/]+|messages|members|initialSync)"
    r"|GET /v3/(sync|events)"
    rf"|POST {_ROOM}/(join|leave)"
    rf"|PUT {_ROOM}/(send|state)/[^/]+/[^/]*"
    r"|PUT /v3/sendToDevice/[^/]+/[^/]+"
    r"|POST (/unstable/org\.matrix\.simplified_msc3575|/v4)/sync"
)
# "Stripped state": what SHOULD and may be told to who is invited or knocks.
FACE = (
    CREATE,
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.name",
    "m.room.topic",
    "m.room.encryption",
)


class Fate(Enum):
    """What became of an event on receipt."""

    ACCEPTED = "accepted"
    SOFT_FAILED = "soft-failed"
    REJECTED = "rejected"


class May(Enum):
    """Whether somebody is shown an event: must be, may be where the text is silent, must not."""

    YES = "must see"
    PERHAPS = "may see"
    NO = "must not see"


@frozen(eq=False)
class Happening:
    """One event, in the order of arrival."""

    number: int
    event_id: str
    type: str
    state_key: str | None
    sender: str
    content: Mapping[str, Any]
    ts: int
    previous: tuple[int, ...]  # the events it cites
    mark: str | None  # a word that stands nowhere else
    fate: Fate = Fate.ACCEPTED

    @property
    def key(self) -> tuple[str, str] | None:
        """Its place in the state."""
        return None if self.state_key is None else (self.type, self.state_key)

    @property
    def relation(self) -> tuple[str, str] | None:
        """The kind of its relation, and to which event."""
        relates = self.content.get("m.relates_to", {})
        found = relates.get("rel_type"), relates.get("event_id")
        return found if all(found) else None  # type: ignore[return-value]

    @property
    def redacts(self) -> str | None:
        """The event that it redacts."""
        found = self.content.get("redacts")
        return found if self.type == "m.room.redaction" and isinstance(found, str) else None


@define(eq=False)
class Tale:
    """What has happened in a room up to some moment."""

    happenings: Sequence[Happening]
    forgotten: Mapping[str, int] = {}  # by user: up to which event the room was forgotten
    by_id: dict[str, Happening] = field(init=False)
    redacted: frozenset[str] = field(init=False)
    _moves: dict[str, list[Happening]] = field(factory=dict)
    _after: list[State] = field(init=False)
    _before: list[State] = field(init=False)
    _answers: dict[Any, Any] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.by_id = {one.event_id: one for one in self.happenings}
        self._after, self._before = [], []
        self.redacted = frozenset(
            one.redacts
            for one in self.happenings
            if one.redacts is not None and one.fate is Fate.ACCEPTED
        )
        for one in self.happenings:
            if one.type == MEMBER and one.state_key is not None and one.fate is Fate.ACCEPTED:
                self._moves.setdefault(one.state_key, []).append(one)
        for one in self.happenings:
            before = self._merged(one.previous)
            after = before
            if one.key is not None and one.fate is Fate.ACCEPTED:
                after = {**before, one.key: one.number}
            self._before.append(before)
            self._after.append(after)

    def _merged(self, previous: Sequence[int]) -> State:
        """The state after several events.  No branch of these stories but one changes the state,
        so that what is newer stands."""
        if len(previous) == 1:
            return self._after[previous[0]]
        found: dict[tuple[str, str], int] = {}
        for number in previous:
            for key, event in self._after[number].items():
                found[key] = max(event, found.get(key, event))
        return found

    def until(self, end: int) -> Tale:
        """The tale when only so many of its events had happened."""
        known = self._answers.get(end)
        if known is None:
            gone = {user: at for user, at in self.forgotten.items() if at < end}
            known = self._answers[end] = Tale(self.happenings[:end], gone)
        return known  # type: ignore[no-any-return]

    @property
    def now(self) -> State:
        """The current state."""
        last = len(self.happenings) - 1
        while self.happenings[last].fate is not Fate.ACCEPTED:
            last -= 1
        return self._after[last]

    def before(self, one: Happening) -> State:
        """The state before an event."""
        return self._before[one.number]

    def after(self, one: Happening) -> State:
        """The state after an event."""
        return self._after[one.number]

    # --- facts

    def setting(self, state: State) -> str:
        """ "By default if no `history_visibility` is set, or if the value is not understood, the
        visibility is assumed to be `shared`." """
        number = state.get((HISTORY, ""))
        content = {} if number is None else self.happenings[number].content
        value = content.get("history_visibility")
        known = ("world_readable", "shared", "invited", "joined")
        return value if isinstance(value, str) and value in known else "shared"

    def membership(self, state: State, user: str) -> str | None:
        """A user's membership in a state."""
        number = state.get((MEMBER, user))
        return None if number is None else str(self.happenings[number].content.get("membership"))

    def joins(self, user: str) -> list[int]:
        """When a user came in."""
        return [one.number for one in self.moves(user) if one.content.get("membership") == "join"]

    def is_joined(self, user: str) -> bool:
        """Whether a user is in the room."""
        return self.membership(self.now, user) == "join"

    def moves(self, user: str) -> list[Happening]:
        """A user's membership events."""
        return self._moves.get(user, [])

    def parting(self, user: str) -> Happening | None:
        """The event that ended a user's last time in the room."""
        found, was_in = None, False
        for one in self.moves(user):
            is_in = one.content.get("membership") == "join"
            if was_in and not is_in:
                found = one
            was_in = is_in
        return None if was_in else found

    def has_forgotten(self, user: str) -> bool:
        """Whether a user has forgotten the room, and was not invited or let in again since."""
        at = self.forgotten.get(user)
        moves = self.moves(user)
        return at is not None and not any(one.number > at for one in moves)

    def is_redacted(self, one: Happening) -> bool:
        """Whether an event has lost its content."""
        return one.event_id in self.redacted

    def lets_guests_in(self, state: State) -> bool:
        """ "If the `m.room.guest_access` state event is present on the room, and has the
        `guest_access` value `can_join`" ("Guest Access")."""
        number = state.get((GUEST_ACCESS, ""))
        return (
            number is not None and self.happenings[number].content.get("guest_access") == "can_join"
        )

    # --- the rules

    def rules_allow(self, user: str, one: Happening) -> bool:
        """ "Server behaviour", rules 1 to 5, and the two paragraphs after them."""
        before, after = self.before(one), self.after(one)
        settings, memberships = {self.setting(before)}, {self.membership(before, user)}
        # "For m.room.history_visibility events themselves [...] before or after"
        if one.key == (HISTORY, ""):
            settings.add(self.setting(after))
        # "Likewise, for the user's own m.room.member events [...] before or after"
        if one.key == (MEMBER, user):
            memberships.add(self.membership(after, user))
        # 1. If the history_visibility was set to world_readable, allow.
        if "world_readable" in settings:
            return True
        # 2. If the user's membership was join, allow.
        if "join" in memberships:
            return True
        # 3. If history_visibility was set to shared, and the user joined the room at any point
        #    after the event was sent, allow.
        if "shared" in settings and any(joined > one.number for joined in self.joins(user)):
            return True
        # 4. If the user's membership was invite, and the history_visibility was set to invited,
        #    allow.
        # 5. Otherwise, deny.
        return "invite" in memberships and "invited" in settings

    def may(self, user: str, one: Happening) -> May:
        """Whether a user is shown an event of the timeline."""
        found = self._answers.get((user, one.number))
        if found is None:
            found = self._answers[user, one.number] = self._decide(user, one)
        return found  # type: ignore[no-any-return]

    def _decide(self, user: str, one: Happening) -> May:
        # Server-Server API, "Rejection", "Soft failure": neither is relayed to clients.
        if _failed(one):
            return May.NO
        # "forget": the user can no longer retrieve history for this room.
        if self.has_forgotten(user):
            return May.NO
        if self.rules_allow(user, one):
            # What cites old events and comes late: "no events received after they left" says no,
            # rule 2 says yes.
            return May.PERHAPS if self._is_late(user, one) else May.YES
        # Somebody who is in the room when an event arrives from a branch on which he is not yet:
        # he joined "after the event was sent" as far as the graph tells.
        settings = {self.setting(self.before(one))}
        if "shared" in settings and self.is_joined(user):
            return May.YES
        # The end of an invitation, of a knock, of a ban: "Syncing" has it in the room's timeline.
        if one.key == (MEMBER, user) and one.content.get("membership") in ("leave", "ban"):
            return May.PERHAPS
        return May.NO

    def _is_late(self, user: str, one: Happening) -> bool:
        if one.previous and max(one.previous) == one.number - 1:
            return False
        at_arrival = self._after[one.number - 1] if one.number else {}
        return self.membership(at_arrival, user) != "join" and not self.is_joined(user)

    def seen(self, user: str, *, must: bool = False) -> list[Happening]:
        """What a user may see, or (`must`) has a right to see."""
        allowed = (May.YES,) if must else (May.YES, May.PERHAPS)
        return [one for one in self.happenings if self.may(user, one) in allowed]

    def readable_states(self, user: str) -> set[int]:
        """The state events a user may be shown: those in force at an event that is for him, and
        those of now where he is in the room or all may read."""
        known = self._answers.get(("states", user))
        if known is not None:
            return known  # type: ignore[no-any-return]
        found: set[int] = set()
        if not self.has_forgotten(user):
            for one in self.happenings:
                if not _failed(one) and self.rules_allow(user, one):
                    found.update(self.before(one).values())
                    found.update(self.after(one).values())
            if self.is_joined(user) or self.setting(self.now) == "world_readable":
                found.update(self.now.values())
        self._answers["states", user] = found
        return found

    def doorstep(self, user: str) -> set[int]:
        """What an invitation or a knock shows of the room: its face while that stood."""
        found: set[int] = set()
        for one in self.moves(user):
            if one.content.get("membership") not in ("invite", "knock"):
                continue
            ends = [other.number for other in self.moves(user) if other.number > one.number]
            for number in range(one.number, min([*ends, len(self.happenings)])):
                state = self._after[number]
                face = [*((kind, "") for kind in FACE), (MEMBER, one.sender)]
                found.update(state[key] for key in face if key in state)
        found.update(one.number for one in self.moves(user))
        return found

    def marks(self, numbers: Iterable[int]) -> set[str]:
        """The words that some events show now."""
        chosen = (self.happenings[number] for number in numbers)
        return {one.mark for one in chosen if one.mark and not self.is_redacted(one)}

    def words_for(self, user: str) -> set[str]:
        """All words that a user may come across anywhere."""
        known = self._answers.get(("words", user))
        if known is None:
            numbers = {one.number for one in self.seen(user)} | self.readable_states(user)
            if not self.has_forgotten(user):
                numbers |= self.doorstep(user)
            known = self._answers["words", user] = self.marks(numbers)
        return known  # type: ignore[no-any-return]


def _failed(one: Happening) -> bool:
    return one.fate is not Fate.ACCEPTED
