"""The rooms of the stories, and what is noted of them while these are played."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

from attrs import define, field, frozen

from matrixbox.core.events import Event
from tests.visibility.oracle import Fate, Happening, Tale
from tests.visibility.story import Story

WORD = re.compile(r"mk\d{6}k")  # so long that no hash has it by chance


def q(text: str) -> str:
    """A segment of a path."""
    return quote(text, safe="")


def found_mark(event: Event) -> str | None:
    """The word of an event."""
    found = WORD.search(json.dumps(event.json["content"], default=str))
    return None if found is None else found[0]


def words(text: str) -> set[str]:
    """The marks in an answer."""
    return set(WORD.findall(text))


@frozen
class Got:
    """An answer."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.text)

    @property
    def is_unknown(self) -> bool:
        """Whether there is no such endpoint."""
        return self.status == 404 and "M_UNRECOGNIZED" in self.text


@frozen
class Attempt:
    """Somebody at the door who is not let in always: when, and what he was told."""

    reader: str
    number: int  # the event before it
    got: Got


@frozen
class Glimpse:
    """An answer of a sync in the middle of the stories, and between which moments it was given."""

    reader: str
    kind: str  # v3, or the form of sliding sync
    stretch: int
    got: Got
    token: str | None


@define(eq=False)
class Site:
    """One room of one story."""

    story: Story
    room_id: str
    happenings: list[Happening] = field(factory=list)
    forgotten: dict[str, int] = field(factory=dict)
    ends: list[int] = field(factory=list)  # how much had happened at the end of each stretch
    attempts: list[Attempt] = field(factory=list)
    before: int = 0  # how much had happened when our server came into a room of another
    is_partial: bool = False  # whether it knows no members of before
    named: dict[str, str] = field(factory=dict)  # events that have a part to play
    fates: dict[str, Fate] = field(factory=dict)
    _tale: Tale | None = None

    @property
    def tale(self) -> Tale:
        """What has happened by now."""
        if self._tale is None or len(self._tale.happenings) != len(self.happenings):
            self._tale = Tale(tuple(self.happenings), dict(self.forgotten))
        return self._tale

    def number(self, event_id: str) -> int:
        """The number of an event."""
        return next(one.number for one in self.happenings if one.event_id == event_id)
