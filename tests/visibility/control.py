"""The rules that keep events from those who must not see them, each to be disabled once.

What the matrix does not notice when a rule is gone, it does not test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import trio
from attrs import evolve, frozen

from matrixbox.api.routes import Route
from matrixbox.api.server import common
from matrixbox.api.server import state as server_state
from matrixbox.core import visibility
from matrixbox.core.visibility import HistoryVisibility
from matrixbox.federation import joins as federation_joins
from matrixbox.household.guests import GuestKeeper
from matrixbox.rooms import (
    distribution,
    guests,
    partial,
    reading,
    serving,
    spaces,
    state_reading,
)
from matrixbox.rooms.formatting import Formatter
from matrixbox.rooms.reading import Reader
from matrixbox.rooms.serving import ServerReader
from matrixbox.store import events, outbound
from matrixbox.sync import sections
from tests.visibility.cells import Report
from tests.visibility.matrix import run
from tests.visibility.playing import world
from tests.visibility.story import FAR_STORIES, STORIES

Patch = tuple[Any, str, Any]


@frozen
class Rule:
    """A rule, what takes it away, and where that must be noticed."""

    name: str
    patches: tuple[Patch, ...]
    endpoints: frozenset[str]
    while_playing: bool = False
    story: str = "shared"  # that is played without it

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """A server without the rule."""
        with ExitStack() as stack:
            for where, name, instead in self.patches:
                stack.enter_context(patch.object(where, name, instead))
            yield


def rule(name: str, *patches: Patch, at: str, while_playing: bool = False) -> Rule:
    """A rule; the endpoints are separated by commas."""
    return Rule(name, patches, frozenset(at.split(", ")), while_playing)


def far_rule(name: str, *patches: Patch, at: str) -> Rule:
    """A rule for rooms that our server is in without knowing their members."""
    return Rule(name, patches, frozenset(at.split(", ")), True, "far shared")


# --- what stands in the place of the rules


def _without(part: str) -> Any:
    """The decision about an event, without one of its rules."""

    def may_read(settings: set[HistoryVisibility], reader: visibility.Standing) -> bool:
        memberships = {reader.before, reader.after}
        return (
            (part != "join" and "join" in memberships)
            or (HistoryVisibility.SHARED in settings and (reader.joined_later or part == "later"))
            or (
                part != "invite"
                and HistoryVisibility.INVITED in settings
                and "invite" in memberships
            )
        )

    return may_read


def _open_unless_known(event: Any) -> HistoryVisibility:
    value = None if event is None else event.content.get("history_visibility")
    known = [one for one in HistoryVisibility if one.value == value]
    return known[0] if known else HistoryVisibility.WORLD_READABLE


_may_see = visibility.may_see


def _see_before(before: Any, _: Any, readers: Any) -> bool:
    """Only the setting before an event counts."""
    return _may_see(before, before, readers)


def _see_now(before: Any, following: Any, readers: Any) -> bool:
    """Only the membership before an event counts."""
    return _may_see(before, following, [evolve(one, after=one.before) for one in readers])


def _yes(*_: Any, **__: Any) -> bool:
    return True


def _never(*_: Any) -> bool:
    return False


def _nothing(*_: Any, **__: Any) -> None:
    return None


_is_visible = Reader.is_visible


def _forgets_to_forget(self: Reader, stored: Any) -> bool:
    member = self.member
    if member is not None and member.forgotten:
        self.member = evolve(member, forgotten=False)
    found = _is_visible(self, stored)
    self.member = member
    return found


def _of_any_room(self: Reader, stored: Any) -> bool:
    room, self.room = self.room, stored.room
    found = _is_visible(self, stored)
    self.room = room
    return found


def _current(reader: Reader) -> None:
    """The state of now, for everybody who ever was in the room."""
    if not reader.joined and reader.parting() is None and not reader.is_world_readable:
        raise state_reading.Forbidden("no")


def _all_children(self: Formatter, children: Any, rel_type: str) -> list[Any]:
    tx = self.reader.tx
    return [events.by_nid(tx, one.nid) for one in children if one.rel_type == rel_type]


def _place(_: Reader, place: Any) -> int:
    return int(place.pos)


def _whole_reason(self: Formatter, nid: Any) -> Any:
    stored = events.by_nid(self.reader.tx, nid)
    return {"content": dict(stored.event.content), "type": stored.event.type}


def _all_receipts(tx: Any, _: Any, new: Any) -> Any:
    """Every receipt, as its owner would be shown it."""
    content: dict[str, dict[str, dict[str, Any]]] = {}
    for one in new:
        for event_id, kinds in _receipt_event(tx, one.user, [one])["content"].items():
            for kind, users in kinds.items():
                content.setdefault(event_id, {}).setdefault(kind, {}).update(users)
    return {"type": "m.receipt", "content": content} if content else None


_receipt_event: Any = sections.receipt_event


def _whole_event(self: ServerReader, stored: Any) -> Any:
    """Nothing is given in redacted form."""
    return stored.event if self.is_in_room and self.is_served(stored) else None


def _served(self: ServerReader, stored: Any) -> bool:
    return bool(stored.room == self.room)


_timeline: Any = sections.timeline


def _until_now(reader: Any, window: Any, wanted: Any) -> Any:
    """The timeline of who has left goes on, and shows what is said."""
    with patch.object(Reader, "may_see", _yes):
        return _timeline(reader, evolve(window, now=2**52), wanted)


async def _wait(*_: Any) -> None:
    await trio.lowlevel.checkpoint()


def _to_all(tx: Any, env: Any, stored: Any) -> None:
    """Every event goes to a server that was invited only."""
    outbound.put_event(
        tx, stored.room, stored.pos or tx.changed(), stored.nid, also=("invited.test",)
    )


HISTORY = "messages back, event, context"
RULES = (
    rule(
        "a setting that is not understood is shared",
        (HistoryVisibility, "of", staticmethod(_open_unless_known)),
        at="event, messages back",
    ),
    rule("who was joined sees", (visibility, "_may_read", _without("join")), at=HISTORY),
    rule("shared is for who joins", (visibility, "_may_read", _without("later")), at=HISTORY),
    rule(
        "invited begins with the invitation",
        (visibility, "_may_read", _without("invite")),
        at=HISTORY,
    ),
    rule(
        "a setting is seen by who sees before or after it",
        (reading, "may_see", _see_before),
        at=HISTORY,
    ),
    rule("one sees one's own moves", (reading, "may_see", _see_now), at=HISTORY),
    rule("a forgotten room is closed", (Reader, "is_visible", _forgets_to_forget), at="event"),
    rule(
        "an event is of its room", (Reader, "is_visible", _of_any_room), at="event of another room"
    ),
    rule("ignored senders are not heard", (Reader, "is_ignored", lambda *_: False), at=HISTORY),
    rule(
        "who left sees the state of then",
        (state_reading, "_readable", _current),
        at="state, members",
    ),
    rule(
        "members of a time before one's own",
        (state_reading, "_readable_pos", _place),
        at="members at",
    ),
    rule(
        "children are seen like others",
        (Formatter, "_visible", _all_children),
        at="bundles, threads",
    ),
    rule("a reason is for who was there", (Formatter, "_reason", _whole_reason), at="redaction"),
    rule(
        "private receipts are private",
        (sections, "receipt_event", _all_receipts),
        at="ephemeral",
    ),
    rule(
        "a summary is for who may join", (spaces, "is_open_to_user", _yes), at="summary, hierarchy"
    ),
    rule(
        "servers see what their users see", (ServerReader, "may_see", _yes), at="federation event"
    ),
    rule(
        "servers get the rest redacted",
        (ServerReader, "shown", _whole_event),
        at="federation backfill, federation get_missing_events",
    ),
    rule(
        "servers are not served what failed",
        (ServerReader, "is_served", _served),
        at="federation hidden events",
    ),
    rule(
        "servers are in the room", (common, "require_in_room", _nothing), at="federation state_ids"
    ),
    rule(
        "servers are let in by the list",
        (common, "require_allowed", _nothing),
        at="federation backfill",
    ),
    rule(
        "servers that were there ask for their time",
        (serving, "was_in_room", _yes),
        at="federation state_ids",
    ),
    rule(
        "the nearest event is one that may be seen",
        (ServerReader, "may_see", _yes),
        at="federation timestamp",
    ),
    rule(
        "the timeline of who left ends",
        (sections, "timeline", _until_now),
        at="sync initial",
    ),
    rule("guests have some endpoints", (Route, "guest_ok", True), at="joined members, threads"),
    rule(
        "guests come in where they may",
        (guests, "require_open", _nothing),
        (guests, "require_open_here", _nothing),
        at="door of guests",
        while_playing=True,
    ),
    rule(
        "guests are put out when a room closes",
        (GuestKeeper, "_put_out", _wait),
        at="door of guests",
        while_playing=True,
    ),
    rule(
        "events go to who is in the room",
        (distribution, "distribute", _to_all),
        at="federation send",
        while_playing=True,
    ),
    far_rule(
        "who has the members decides about the banned",
        (federation_joins, "partial", SimpleNamespace(is_partial=_never)),
        at="door of the banned",
    ),
    far_rule(
        "other servers get no half states",
        (serving, "joins", SimpleNamespace(partial=_nothing)),
        (server_state, "joins", SimpleNamespace(partial=_nothing)),
        at="federation state_ids",
    ),
    far_rule(
        "who is out by now is not heard when the members are known",
        (
            partial,
            "allows_now",
            lambda *_: True,
        ),
        at="hidden events",
    ),
)


async def found_by(broken: Rule, folder: Path) -> Report:
    """What is found in a world that was played without the rule."""
    stories = tuple(story for story in (*STORIES, *FAR_STORIES) if story.name == broken.story)
    async with world(folder, stories) as here:
        report = await run(here, broken.endpoints, first=True)
        if here.rooms and not report.problems:
            await here.make_whole()
            report = await run(here, broken.endpoints, first=True)
        return report
