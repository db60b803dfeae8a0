"""What happens in the rooms: eight stretches of time, in each of which people move and talk.

The readers move at the beginning of a stretch, the visibility changes in the middle of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, frozen

STRETCHES = 8
KNOCKING = 3  # the stretch in which the join rule is `knock` for a moment
HOME = "home.test"
CREATOR, PEST = f"@ann:{HOME}", f"@pest:{HOME}"

Moves = Mapping[int, tuple[str, ...]]  # by stretch: join, leave, invite, kick, ban, unban, ...

# Users of the household that plays the rooms.
READERS: dict[str, Moves] = {
    "never": {},
    "invited": {2: ("invite",)},
    "rejected": {2: ("invite",), 5: ("leave",)},
    "founder": {0: ("join",)},
    "later": {3: ("join",)},
    "late": {6: ("join",)},
    "asked": {2: ("invite",), 4: ("join",)},
    "left": {1: ("join",), 4: ("leave",)},
    "kicked": {1: ("join",), 5: ("kick",)},
    "banned": {1: ("join",), 3: ("ban",)},
    "barred": {2: ("ban",)},
    "unbanned": {1: ("join",), 3: ("ban",), 5: ("unban",)},
    "back": {1: ("join",), 3: ("leave",), 5: ("join",)},
    "twice": {1: ("join",), 2: ("leave",), 4: ("join",), 6: ("leave",)},
    "again": {1: ("join",), 3: ("leave",), 5: ("invite",)},
    "knocker": {3: ("knock",)},
    "refused": {3: ("knock",), 5: ("kick",)},
    "forgot": {1: ("invite",), 2: ("join",), 4: ("leave",), 5: ("forget",)},
    "returned": {1: ("join",), 3: ("leave",), 4: ("forget",), 6: ("join",)},
    "ignorer": {0: ("join",)},
    "revoked": {2: ("invite",), 4: ("kick",)},
    "visitor": {3: ("join", "leave")},
    "exile": {},
    "passer": {},
    "lodger": {1: ("join",)},
    "mover": {1: ("join",), 3: ("leave",)},
    "bidden": {2: ("invite",), 5: ("join",)},
    "turned": {0: ("join",), 2: ("join",), 6: ("join",)},  # comes again when put out
}

EXILE = "exile"  # banned from rooms of another server before ours came in

# Readers who have no account of their own, but are guests.
GUESTS = frozenset(("passer", "lodger", "mover", "bidden", "turned"))

# Other servers, and their users.
SERVERS: dict[str, Mapping[str, Moves]] = {
    "resident.test": {"bo": {0: ("join",)}},
    "stranger.test": {},
    "later.test": {"bo": {3: ("join",)}},
    "left.test": {"bo": {1: ("join",), 4: ("leave",)}},
    "kicked.test": {"bo": {1: ("join",), 5: ("kick",)}},
    "banned.test": {"bo": {1: ("join",), 3: ("ban",)}},
    "invited.test": {"bo": {2: ("invite",)}},
    "asked.test": {"bo": {2: ("invite",), 4: ("join",)}},
    "back.test": {"bo": {1: ("join",), 3: ("leave",), 5: ("join",)}},
    "two.test": {"bo": {1: ("join",), 4: ("leave",)}, "cy": {3: ("join",), 6: ("leave",)}},
    "here.test": {"bo": {}},  # in rooms of another server before ours
    "gone.test": {"bo": {}},  # there, and gone before ours came
    "closed.test": {"bo": {1: ("join",)}},  # its server is on the list of those kept out
}
HERE, GONE = "@bo:here.test", "@bo:gone.test"
CLOSED_OUT = 5  # the stretch in which the list is made

ABSENT = "absent"  # no event at all, before a change makes one
OPEN, SHUT = "can_join", "forbidden"  # to guests


@frozen
class Story:
    """One room."""

    name: str
    version: str
    visibility: str
    changes: Mapping[int, object] = {}  # in the middle of a stretch: a value of any type
    door: str = "public"  # the join rule in the end
    guests: Mapping[int, object] = {}  # who of them may come in, at the beginning of a stretch
    is_far: bool = False  # a room of another server

    def moves(self, moves: Moves, stretch: int) -> tuple[str, ...]:
        """What somebody does in this room; where there is no knocking, nobody knocks."""
        found = moves.get(stretch, ())
        knocks = any("knock" in words for words in moves.values())
        return () if knocks and not self.has_knocking else found

    @property
    def has_knocking(self) -> bool:
        """Whether the room's version knows it; elsewhere, nobody takes a knock."""
        return int(self.version) >= 7 and not self.is_far


STORIES = (
    Story("open", "12", "world_readable", guests={0: OPEN}),
    Story("shared", "12", "shared", door="invite", guests={0: OPEN, 5: SHUT}),
    Story("invited", "12", "invited", door="invite", guests={0: OPEN, 4: SHUT}),
    Story("joined", "12", "joined", door="invite", guests={0: OPEN}),
    Story("unset", "12", ABSENT, door="knock"),
    Story("odd", "11", "anybody", door="invite", guests={0: OPEN, 2: 5, 6: OPEN}),
    Story("number", "10", "shared", {3: 5, 5: {"a": "joined"}}, door="invite"),
    Story("closing", "12", "shared", {4: "joined"}, door="invite", guests={0: OPEN}),
    Story("opening", "11", "joined", {4: "shared"}, guests={1: OPEN, 4: SHUT}),
    Story(
        "shutting", "12", "world_readable", {3: "joined"}, door="invite", guests={0: OPEN, 5: SHUT}
    ),
    Story("published", "10", "joined", {5: "world_readable"}, door="invite", guests={0: SHUT}),
    Story(
        "moody",
        "12",
        "invited",
        {3: "shared", 5: "joined"},
        door="invite",
        guests={0: OPEN, 2: SHUT, 4: OPEN},
    ),
    Story(
        "fickle",
        "9",
        "world_readable",
        {2: "invited", 5: "shared"},
        door="invite",
        guests={0: OPEN},
    ),
    Story(
        "glimpse",
        "12",
        "shared",
        {4: "world_readable", 6: "joined"},
        door="invite",
        guests={0: OPEN, 5: SHUT},
    ),
    Story("set_late", "8", ABSENT, {3: "invited", 6: "shared"}, door="knock"),
    Story("old", "6", "joined", {3: "invited", 6: "world_readable"}, guests={2: OPEN}),
)

# In rooms of another server, without their members at first.
FAR_STORIES = tuple(
    evolve(story, name=f"far {story.name}", is_far=True)
    for story in STORIES
    if story.name in ("open", "shared", "joined", "moody", "glimpse", "old")
)
