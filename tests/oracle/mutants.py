"""Mistakes that the comparison must notice: copies of the reference with one sentence wrong.

If the generated rooms did not reach a sentence, a mistake in it would go unseen; every mutant here
must be caught within a bounded number of rooms (`test_negative_controls`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.reference import ROOM_VERSIONS, RoomVersion
from tests.reference.resolution import ResolutionV2
from tests.reference.words import CREATE, JOIN_RULES, POWER_LEVELS

ALL = tuple(ROOM_VERSIONS)
V2 = ALL[1:]
BEFORE_12 = ALL[1:11]


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    of: str
    """"rules" or "resolution"."""
    versions: tuple[str, ...]
    methods: Mapping[str, Callable[..., Any]]
    """By name, the method instead; it gets the original method before `self`."""

    def apply(self, version: str) -> RoomVersion:
        origin = ROOM_VERSIONS[version]
        base = type(origin.rules if self.of == "rules" else origin.resolution)
        changed = type("Mutant", (base,), {k: bound(base, k, f) for k, f in self.methods.items()})
        if self.of == "rules":
            rules = changed()
            return RoomVersion(version, rules, type(origin.resolution)(rules))
        return RoomVersion(version, origin.rules, changed(origin.rules))


def bound(base: type, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    original = getattr(base, name)

    def method(self: Any, *arguments: Any) -> Any:
        return function(lambda *given: original(self, *given), self, *arguments)

    return method


def resolution(name: str, versions: tuple[str, ...], **methods: Callable[..., Any]) -> Mutant:
    return Mutant(name, "resolution", versions, methods)


def rules(name: str, versions: tuple[str, ...], **methods: Callable[..., Any]) -> Mutant:
    return Mutant(name, "rules", versions, methods)


def nothing(*_: Any) -> None:
    """A rule that is left out."""


# -- state resolution


def key_with(**signs: int) -> Callable[..., Any]:
    """A power order with the sign of a component turned (or zero: the component ignored)."""

    def power_order(original: Any, _: Any, event_id: str, events: Any) -> Any:
        power, ts, name = original(event_id, events)
        kept = 0 if signs.get("power", 1) == 0 else signs.get("power", 1) * power
        return kept, signs.get("ts", 1) * ts, text(name, signs.get("id", 1))

    return power_order


def text(name: str, sign: int) -> list[int]:
    return [sign * ord(character) for character in name]


def mainline_with(**signs: int) -> Callable[..., Any]:
    def mainline_order(_: Any, self: Any, ids: Any, line: Any, events: Any) -> list[str]:
        return sorted(
            ids,
            key=lambda i: (
                signs.get("position", -1) * (self.mainline_position(i, line, events) + 1)
                if signs.get("position", -1)
                else 0,
                signs.get("ts", 1) * events[i]["origin_server_ts"],
                text(i, signs.get("id", 1)),
            ),
        )

    return mainline_order


def first_of_line(original: Any, _: Any, *arguments: Any) -> Any:
    position = original(*arguments)
    return 0 if position == math.inf else position


def own_over_state(_: Any, self: Any, event: Any, state: Any, events: Any, rejected: Any) -> Any:
    needed = self.rules.selection(event)
    room = {key: events[i] for key, i in state.items() if key in needed}
    return room | self.rules.state_of_auth_events(event, events, rejected)


def with_rejected(original: Any, _: Any, event: Any, state: Any, events: Any, rejected: Any) -> Any:
    return original(event, state, events, ())


def without_the_unconflicted(
    original: Any, self: Any, states: Any, events: Any, rejected: Any
) -> Any:
    kept, self.unconflicted_state_map = self.unconflicted_state_map, lambda _: {}
    try:
        return original(states, events, rejected)
    finally:
        self.unconflicted_state_map = kept


def only_contradictions(_: Any, self: Any, states: Any) -> set[str]:
    """Conflicts as room version 1 has them: a key that one state lacks is no conflict."""
    ids: dict[Any, set[str]] = {}
    for state in states:
        for key, event_id in state.items():
            ids.setdefault(key, set()).add(event_id)
    return {event_id for of_key in ids.values() if len(of_key) > 1 for event_id in of_key}


def missing_is_conflict(_: Any, self: Any, states: Any) -> dict[Any, set[str]]:
    """Conflicts as room version 2 has them, in room version 1."""
    keys = set().union(*states)
    found = {key: {state.get(key) for state in states} for key in keys}
    return {key: ids - {None} for key, ids in found.items() if len(ids) > 1}


def all_tried(_: Any, self: Any, ids: Any, room: Any, events: Any) -> str:
    """Room version 1: going on after an event that is not allowed."""
    first, *rest = sorted(ids, key=lambda i: (events[i]["depth"], -self.sha1(i)))
    for event_id in rest:
        key = (events[event_id]["type"], events[event_id]["state_key"])
        if self.allowed(events[event_id], {**room, key: events[first]}, events):
            first = event_id
    return first


RESOLUTION = (
    resolution(
        "v2 in the place of v2.1: the start", ("12",), starting_state=lambda _, __, given: given
    ),
    resolution("v2.1 without the subgraph", ("12",), conflicted_state_subgraph=lambda *_: set()),
    resolution("v2.1 in the place of v2: the start", BEFORE_12, starting_state=lambda *_: {}),
    resolution(
        "the subgraph of v2.1 in v2",
        BEFORE_12,
        full_conflicted_set=lambda original, self, states, events: (
            original(states, events)
            | {
                between
                for start in self.conflicted_state_set(states)
                for between in self.auth_chain(start, events)
                if self.auth_chain(between, events) & self.conflicted_state_set(states)
            }
        ),
    ),
    resolution("rejected auth events used", V2, state_for=with_rejected),
    resolution(
        "rejected events kept out",
        V2,
        iterative_auth_checks=lambda original, _, initial, ordered, events, rejected: original(
            initial, [i for i in ordered if i not in rejected], events, rejected
        ),
    ),
    resolution("auth events before the state", V2, state_for=own_over_state),
    resolution("no auth difference", BEFORE_12, auth_difference=lambda *_: set()),
    resolution("no auth difference in room 12", ("12",), auth_difference=lambda *_: set()),
    resolution("unconflicted state not laid over", V2, resolve=without_the_unconflicted),
    resolution("a missing key is no conflict", V2, conflicted_state_set=only_contradictions),
    resolution("power order: least power first", V2, power_order=key_with(power=-1)),
    resolution("power order: power ignored", V2, power_order=key_with(power=0)),
    resolution("power order: latest first", V2, power_order=key_with(ts=-1)),
    resolution("power order: greatest id first", V2, power_order=key_with(id=-1)),
    resolution(
        "power order: no topology",
        V2,
        reverse_topological_power_order=lambda _, self, ids, events: sorted(
            ids, key=lambda i: self.power_order(i, events)
        ),
    ),
    resolution(
        "power events without their auth chains",
        V2,
        power_events_enlarged=lambda _, self, full, events: {
            i for i in full if self.is_power_event(events[i])
        },
    ),
    resolution(
        "power events: no join rules",
        V2,
        is_power_event=lambda original, _, event: (
            event["type"] != "m.room.join_rules" and original(event)
        ),
    ),
    resolution(
        "power events: no kicks and bans",
        V2,
        is_power_event=lambda original, _, event: (
            event["type"] != "m.room.member" and original(event)
        ),
    ),
    resolution(
        "power events: own leaves too",
        V2,
        is_power_event=lambda original, _, event: (
            event["content"].get("membership") == "leave" or original(event)
        ),
    ),
    resolution("mainline: newest first", V2, mainline_order=mainline_with(position=1)),
    resolution("mainline: ignored", V2, mainline_order=mainline_with(position=0)),
    resolution("mainline: latest first", V2, mainline_order=mainline_with(ts=-1)),
    resolution("mainline: greatest id first", V2, mainline_order=mainline_with(id=-1)),
    resolution("mainline: off it counts as its head", V2, mainline_position=first_of_line),
    resolution("v1: a missing key is a conflict", ("1",), conflicts=missing_is_conflict),
    resolution("v1: on after a refusal", ("1",), last_allowed=all_tried),
    resolution("v1: sha1 upwards", ("1",), sha1=lambda original, _, event_id: -original(event_id)),
    resolution(
        "v1: the last key left out",
        ("1",),
        resolve=lambda original, _, *given: {
            key: i for key, i in original(*given).items() if key[0] != "m.room.topic"
        },
    ),
)

# -- authorisation rules


def level_default(name: str, default: int) -> Callable[..., Any]:
    def named_level(original: Any, _: Any, asked: str, usual: int, state: Any) -> Any:
        return original(asked, default if asked == name else usual, state)

    return named_level


def first_join_rule(**changes: str) -> Callable[..., Any]:
    """One join rule taken for another."""

    def join_by_rule(original: Any, _: Any, event: Any, state: Any) -> Any:
        rule = state.get(JOIN_RULES)
        taken = changes.get(rule["content"].get("join_rule", "")) if rule else None
        if taken:
            state = {**state, JOIN_RULES: {**rule, "content": {"join_rule": taken}}}
        return original(event, state)

    return join_by_rule


def unbanned(original: Any, _: Any, event: Any, state: Any, *more: Any) -> Any:
    """The target's or sender's ban forgotten."""
    key = ("m.room.member", event["state_key"])
    member = state.get(key)
    if member is not None and member["content"].get("membership") == "ban":
        state = {other: value for other, value in state.items() if other != key}
    return original(event, state, *more)


def without_levels(original: Any, _: Any, event: Any, state: Any) -> Any:
    return original(event, {key: found for key, found in state.items() if key != POWER_LEVELS})


def creator_powerless(original: Any, _: Any, user: str, state: Any) -> Any:
    return original(user, state) if POWER_LEVELS in state else 0


def equals_may(original: Any, _: Any, old: Any, new: Any, power: Any, event: Any) -> Any:
    return original(old, new, power + 1, event)


RULES = (
    rules("any signature is enough", ALL, check_signatures=lambda *_: "signatures: whatever"),
    rules("auth events unchecked", ALL, check_auth_events=lambda *_: "auth events: whatever"),
    rules(
        "rejected auth events allowed",
        ALL,
        check_auth_events=lambda original, _, event, events, __: original(event, events, ()),
    ),
    rules("create not required", ALL[:11], check_create_among_entries=nothing),
    rules("auth events of other rooms", ALL, room_id_of=lambda *_: "!same"),
    rules("m.federate ignored", ALL, may_federate=lambda *_: True),
    rules("create: room id unchecked", ALL[:11], create_room_id=nothing),
    rules("create: creator unchecked", ALL[:10], create_creator=nothing),
    rules("create: additional creators unchecked", ("12",), create_creator=nothing),
    rules(
        "creator may always join",
        ALL,
        is_creators_first_join=lambda _, self, event, state, __: (
            event["state_key"] == self.creator(state)
        ),
    ),
    rules("creator may not join", ALL, is_creators_first_join=lambda *_: False),
    rules("the banned may join", ALL, join=unbanned),
    rules("private rooms are public", ALL, join_by_rule=first_join_rule(private="public")),
    rules("knock rooms are public", ALL[6:], join_by_rule=first_join_rule(knock="public")),
    rules(
        "restricted rooms are public", ALL[7:], join_by_rule=first_join_rule(restricted="public")
    ),
    rules(
        "knock_restricted too early",
        ALL[7:9],
        restricting_rules=lambda *_: ("restricted", "knock_restricted"),
    ),
    rules("restricted too late", ALL[7:9], restricting_rules=lambda *_: ()),
    rules("knocking too late", ALL[6:9], rules_to_knock_by=lambda *_: ()),
    rules("knocks cannot be taken back", ALL[6:], may_leave_from=lambda *_: ("invite", "join")),
    rules("invites cannot be declined", ALL, may_leave_from=lambda *_: ("join",)),
    rules("the banned may be invited", ALL, invite=unbanned),
    rules("3pid invites unsigned", ALL, is_signed_for=lambda *_: True),
    rules("3pid invites never", ALL, is_signed_for=lambda *_: False),
    rules("unbanning without the ban level", ALL, leave=unbanned),
    rules("invite level 50", ALL, named_level=level_default("invite", 50)),
    rules("kick level 0", ALL, named_level=level_default("kick", 0)),
    rules("ban level 0", ALL, named_level=level_default("ban", 0)),
    rules("redact level 0", ALL[:2], named_level=level_default("redact", 0)),
    rules(
        "authorising signature not asked",
        ALL[7:],
        required_signers=lambda original, _, event: original({**event, "content": {}}),
    ),
    rules("no level required", ALL, required_level=lambda *_: -math.inf),
    rules(
        "state is like messages",
        ALL,
        required_level=lambda original, _, event, state: original(
            {k: v for k, v in event.items() if k != "state_key"}, state
        ),
    ),
    rules("creator without levels has 0", ALL[:11], level_of=creator_powerless),
    rules("creators are like others", ("12",), creators=lambda *_: []),
    rules("creators in users", ("12",), power_levels_creators=nothing),
    rules("levels: shape unchecked", ALL[9:], power_levels_shape=nothing),
    rules("levels: users unchecked", ALL, power_levels_users=nothing),
    rules("levels: any user id", ALL, is_user_id=lambda *_: True),
    rules("levels: every change allowed", ALL, power_levels=without_levels),
    rules(
        "levels: named ones unchecked",
        ALL,
        alterations=lambda original, _, name, *more: name == "levels" or original(name, *more),
    ),
    rules(
        "levels: events unchecked",
        ALL,
        alterations=lambda original, _, name, *more: name == "events" or original(name, *more),
    ),
    rules("levels: notifications unchecked", ALL[5:], level_maps=lambda *_: ("events",)),
    rules(
        "levels: notifications too early",
        ALL[:5],
        level_maps=lambda *_: ("events", "notifications"),
    ),
    rules("levels: users unchecked against power", ALL, user_alterations=nothing),
    rules("levels: equals may be demoted", ALL, user_alterations=equals_may),
    rules("levels: strings in room 10", ALL[9:], read_level=lambda _, __, value: int(value)),
    rules(
        "aliases too late",
        ALL[:5],
        after_federation=lambda _, self, *given: self.after_aliases(*given),
    ),
    rules(
        "aliases still in room 6",
        ALL[5:],
        after_federation=lambda _, self, event, state, events: (
            self.aliases(event)
            if event["type"] == "m.room.aliases"
            else self.after_aliases(event, state, events)
        ),
    ),
    rules("redactions unchecked", ALL[:2], last_rules=lambda *_: "otherwise, allow"),
    rules(
        "redactions checked in room 3",
        ALL[2:],
        last_rules=lambda original, self, event, state: (
            self.redaction(event, state)
            if event["type"] == "m.room.redaction"
            else original(event, state)
        ),
    ),
    rules("third_party_invite: any level", ALL, third_party_invite=lambda *_: "allowed"),
    rules(
        "creator by content in room 11",
        ("11",),
        creator=lambda _, __, state: state[CREATE]["content"].get("creator"),
    ),
)
MUTANTS = RESOLUTION + RULES
assert all(issubclass(type(ROOM_VERSIONS[v].resolution), ResolutionV2) for v in V2)
