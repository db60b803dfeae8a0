"""One look at one room through one endpoint, and what is wrong about what was shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, TypeVar

from attrs import define, field, frozen

from tests.visibility.oracle import FOR_GUESTS, MEMBER, Fate, Happening, May, Tale
from tests.visibility.story import GUESTS, HOME
from tests.visibility.world import Account, Got, Site, World, q, words

PEST = f"@pest:{HOME}"
LEAK, HOLE = "leak", "hole"


@frozen
class Problem:
    """Something shown to somebody who must not see it, or kept from somebody who must."""

    kind: str
    story: str
    reader: str
    endpoint: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.story} x {self.reader} x {self.endpoint}: {self.what}"


@define
class Report:
    """What was looked at, and what was found."""

    cells: Counter[str] = field(factory=Counter)
    problems: list[Problem] = field(factory=list)

    def of(self, kind: str) -> list[Problem]:
        """The leaks or the holes."""
        return [one for one in self.problems if one.kind == kind]


@define(eq=False)
class Look:
    """A reader looking into a room through an endpoint: one cell of the matrix."""

    world: World
    site: Site
    reader: str
    endpoint: str
    report: Report
    tale: Tale
    is_there: bool = True  # whether the endpoint exists

    @property
    def who(self) -> Account:
        """The reader's account."""
        return self.world.readers[self.reader]

    @property
    def user(self) -> str:
        """The reader's name."""
        return self.who.user_id

    @property
    def room(self) -> str:
        """The room, for a path."""
        return q(self.site.room_id)

    # --- what the reader is to the room

    @property
    def is_in(self) -> bool:
        """Whether he is in it."""
        return self.tale.is_joined(self.user)

    @property
    def is_closed(self) -> bool:
        """Whether he has forgotten it."""
        return self.tale.has_forgotten(self.user)

    @property
    def is_public(self) -> bool:
        """Whether everybody reads what is sent now."""
        return self.tale.setting(self.tale.now) == "world_readable"

    @property
    def parting(self) -> Happening | None:
        """How he last left it."""
        return self.tale.parting(self.user)

    @property
    def reads(self) -> bool:
        """Whether the endpoints about the room must answer him: who is or was in it, and everybody
        where all may read, unless he has forgotten it."""
        return not self.is_closed and (self.is_in or self.parting is not None or self.is_public)

    def may(self, one: Happening) -> May:
        """Whether he is shown an event; what an ignored user says is for nobody's eyes."""
        if self.reader == "ignorer" and one.sender == PEST and one.state_key is None:
            return May.NO
        return self.as_known(one, self.tale.may(self.user, one))

    def as_known(self, one: Happening, allowed: May) -> May:
        """What was before our server came into the room may be shown, and may be unknown to it."""
        is_old = allowed is May.YES and one.number < self.site.before
        return May.PERHAPS if is_old else allowed

    @property
    def unknown(self) -> set[str]:
        """The events of the state that our server may lack, or keep back, for now; and those of
        old about our own users, which are no part of what it has taken for the state since."""
        return {
            one.event_id
            for one in self.tale.happenings
            if one.type == MEMBER
            and (
                self.site.is_partial
                or (one.number < self.site.before and str(one.state_key).endswith(f":{HOME}"))
            )
        }

    def visible(self, chosen: Iterable[Happening] | None = None) -> list[Happening]:
        """The events that he must be shown, of some or all."""
        found = self.tale.happenings if chosen is None else chosen
        return [one for one in found if self.may(one) is May.YES]

    # --- asking and judging

    async def ask(
        self, method: str, target: str, body: Any = None, *, more: Iterable[str] = (), **query: str
    ) -> Got:
        """Ask as the reader; no word may come that is not for him (or among `more`)."""
        got = await self.world.ask(self.who, method, target, body, **query)
        if got.is_unknown:
            self.is_there = False
        self.judge(got.text, more)
        if self.reader in GUESTS and FOR_GUESTS.fullmatch(f"{method} {target}") is None:
            if got.is_unknown:
                raise NotForGuests
            if got.status != 403 or got.json["errcode"] != "M_GUEST_ACCESS_FORBIDDEN":
                self.leak(f"open to guests: {method} {target}: {got.status}")
            raise NotForGuests
        if got.status >= 500:
            self.hole(f"{method} {target} failed: {got.text[:200]}")
        return got

    def judge(self, text: str, more: Iterable[str] = ()) -> None:
        """Complain about words that the reader must not come across."""
        allowed = self.tale.words_for(self.user) | {*more}
        mine = {one.mark for one in self.tale.happenings if one.mark}
        for word in sorted((words(text) & mine) - allowed):
            one = next(one for one in self.tale.happenings if one.mark == word)
            self.leak(f"{name_of(one)} {word} in {_near(text, word)}")

    def problem(self, kind: str, what: str) -> None:
        """Note a problem."""
        found = Problem(kind, self.site.story.name, self.reader, self.endpoint, what)
        self.report.problems.append(found)

    def leak(self, what: str) -> None:
        """Something was shown that must not be."""
        self.problem(LEAK, what)

    def hole(self, what: str) -> None:
        """Something was not shown that must be."""
        self.problem(HOLE, what)

    def must(self, truth: object, what: str) -> None:
        """Note a hole unless something is true."""
        if not truth:
            self.hole(what)

    def events(
        self, shown: Iterable[str], wanted: Iterable[Happening], *, also: Collection[str] = ()
    ) -> None:
        """Compare the events of a timeline with those that must be in it.

        All must be such as the reader may see, whether they were to be expected or not.
        """
        seen = list(shown)
        for event_id in seen:
            one = self.tale.by_id.get(event_id)
            if event_id in also:
                continue
            if one is None:
                self.leak(f"{event_id} had not happened")
            elif self.may(one) is May.NO:
                self.leak(name_of(one))
        for one in wanted:
            if one.event_id not in seen:
                self.hole(name_of(one))

    def states(self, shown: Iterable[str], wanted: Iterable[int], *, exactly: bool = True) -> None:
        """Compare the events of a state with those that must be in it."""
        seen = set(shown)
        expected = {self.tale.happenings[number].event_id for number in wanted}
        if exactly:
            for event_id in sorted(seen - expected):
                self.leak(f"state {self.named(event_id)}")
        else:
            readable = {
                self.tale.happenings[number].event_id
                for number in self.tale.readable_states(self.user)
            }
            own = {one.event_id for one in self.tale.moves(self.user)}
            for event_id in sorted(seen - expected - readable - own):
                self.leak(f"state {self.named(event_id)}")
        for event_id in sorted(expected - seen - self.unknown):
            self.hole(f"state {self.named(event_id)}")

    def named(self, event_id: str) -> str:
        """An event in words."""
        one = self.tale.by_id.get(event_id)
        return event_id if one is None else name_of(one)

    def refused(self, got: Got) -> None:
        """Complain unless it was refused."""
        if got.status == 200:
            self.leak(f"answered {got.text[:160]}")


class NotForGuests(Exception):
    """A guest was told, as he must be, that the endpoint is not for guests."""


Cell = Callable[[Look], Awaitable[None]]
C = TypeVar("C", bound=Callable[..., Awaitable[None]])


def adding_to(table: dict[str, C]) -> Callable[[str], Callable[[C], C]]:
    """A decorator that puts the function of a cell into a table, under the endpoint's name."""

    def cell(name: str) -> Callable[[C], C]:
        def add(function: C) -> C:
            table[name] = function
            return function

        return add

    return cell


def name_of(one: Happening) -> str:
    """An event in words."""
    key = "" if one.state_key is None else f"[{one.state_key}]"
    fate = "" if one.fate is Fate.ACCEPTED else f" {one.fate.value}"
    what = one.content.get("membership") or one.content.get("history_visibility") or ""
    return f"#{one.number} {one.type}{key} {what}{fate}".strip()


def _near(text: str, word: str) -> str:
    at = text.index(word)
    return "..." + text[max(0, at - 90) : at + 20].replace("\n", " ")


def ids(found: Iterable[Any]) -> list[str]:
    """The ids of client events."""
    return [one["event_id"] for one in found]
