"""Whether an event notifies a user, and how.

Matrix v1.19, Client-Server API, "Push Rules", "Conditions" and "Actions" [C14.01],
[C14.05]-[C14.10].  Rules are compiled once per user; evaluating them costs microseconds.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping

from attrs import field, frozen

from matrixbox.core.events import Event, PowerLevels
from matrixbox.core.globs import Glob
from matrixbox.core.identifiers import UserId
from matrixbox.core.json import MAX_INTEGER, Json, encode
from matrixbox.core.paths import Path, look_up, parse_path
from matrixbox.core.push_rules import THREAD_SUBSCRIPTION, Kind, PushRule, Ruleset, in_effect

_BODY = ("content", "body")


@frozen(eq=False)
class Situation:
    """An event in its room, the same for everybody it may notify."""

    event: Event
    member_count: int  # joined members
    levels: PowerLevels
    followers: frozenset[UserId] | None = None  # of its thread; None: it is in no thread
    properties: Mapping[str, Json] = field(init=False, repr=False)

    @properties.default
    def _find_properties(self) -> Mapping[str, Json]:
        """The event as conditions see it."""
        event = self.event
        seen: dict[str, Json] = {
            "type": event.type,
            "sender": event.sender,
            "room_id": event.room_id,
            "event_id": event.event_id,
            "content": event.content,
        }
        if event.state_key is not None:
            seen["state_key"] = event.state_key
        if event.redacts is not None:
            seen["redacts"] = event.redacts
        return seen


@frozen
class Outcome:
    """What the matching rule says."""

    rule_id: str
    actions: tuple[Json, ...]
    notify: bool
    tweaks: Mapping[str, Json]
    encoded: str = ""  # the actions as JSON

    @property
    def highlight(self) -> bool:
        """Whether the message is highlighted."""
        return self.tweaks.get("highlight") is True

    @property
    def sound(self) -> str | None:
        """The sound to play, None for silence."""
        sound = self.tweaks.get("sound")
        return sound if isinstance(sound, str) else None


# A condition sees the situation and the user's display name in the room.
Condition = Callable[[Situation, str | None], bool]


@frozen(eq=False)
class CompiledRules:
    """A user's enabled rules, ready for evaluation."""

    user_id: UserId
    _rules: tuple[tuple[tuple[Condition, ...], Outcome], ...] = field(repr=False)

    def evaluate(self, situation: Situation, display_name: str | None) -> Outcome | None:
        """The outcome of the first rule that matches; None if none does.

        Users are never notified of their own events.
        """
        if situation.event.sender == self.user_id:
            return None
        for conditions, outcome in self._rules:
            for condition in conditions:
                if not condition(situation, display_name):
                    break
            else:
                return outcome
        return None


def compile_rules(user_id: UserId, rules: Ruleset) -> CompiledRules:
    """Prepare a ruleset, in the order of kinds and importance."""
    return CompiledRules(
        user_id,
        tuple(
            (_conditions(kind, rule, user_id), _outcome(rule))
            for kind in Kind
            for rule in rules.get(kind, ())
            if rule.enabled
        ),
    )


def _outcome(rule: PushRule) -> Outcome:
    """Actions that nobody knows do nothing."""
    actions = in_effect(rule.actions)
    encoded = encode(list(actions)).decode()
    return Outcome(rule.rule_id, actions, "notify" in actions, tweaks_of(actions), encoded)


def tweaks_of(actions: Iterable[Json]) -> dict[str, Json]:
    """What actions say about how to notify; a highlight without value is one [C14.10]."""
    tweaks: dict[str, Json] = {}
    for action in actions:
        tweak = action.get("set_tweak") if isinstance(action, Mapping) else None
        if isinstance(action, Mapping) and isinstance(tweak, str):
            tweaks[tweak] = action.get("value", True if tweak == "highlight" else None)
    return tweaks


def _conditions(kind: Kind, rule: PushRule, user_id: UserId) -> tuple[Condition, ...]:
    if kind is Kind.CONTENT:
        return (_matches(_BODY, rule.pattern),)
    if kind is Kind.ROOM:
        return (lambda situation, _: situation.event.room_id == rule.rule_id,)
    if kind is Kind.SENDER:
        return (lambda situation, _: situation.event.sender == rule.rule_id,)
    return tuple(_condition(value, user_id) for value in rule.conditions)


def _condition(value: Json, user_id: UserId) -> Condition:
    """Compile one condition; what is not understood never matches [C14.08]."""
    if not isinstance(value, Mapping):
        return _never
    kind = value.get("kind")
    if kind == THREAD_SUBSCRIPTION:
        return _thread_subscription(value, user_id)
    compiler = _COMPILERS.get(kind) if isinstance(kind, str) else None
    return _never if compiler is None else compiler(value)


def _never(_: Situation, __: str | None) -> bool:
    return False


def _thread_subscription(value: Mapping[str, Json], user_id: UserId) -> Condition:
    """The event is in a thread that the user follows, or does not follow (MSC4306)."""
    wanted = value.get("subscribed")
    if not isinstance(wanted, bool):
        return _never

    def condition(situation: Situation, _: str | None) -> bool:
        followers = situation.followers
        return followers is not None and (user_id in followers) is wanted

    return condition


def _event_match(value: Mapping[str, Json]) -> Condition:
    key = value.get("key")
    return _matches(parse_path(key), value.get("pattern")) if isinstance(key, str) else _never


def _matches(path: tuple[str, ...], pattern: Json) -> Condition:
    """A property of the event matches a glob, the body of a message in whole words [C14.05]."""
    if not isinstance(pattern, str):
        return _never
    pattern = pattern.lower()
    glob = Glob.of(pattern)
    test: Callable[[str], bool] = glob.matches
    if path == _BODY:
        test = glob.matches_words
    elif "*" not in pattern and "?" not in pattern:
        test = pattern.__eq__

    def condition(situation: Situation, _: str | None) -> bool:
        found = look_up(situation.properties, path)
        return isinstance(found, str) and test(found.lower())

    return condition


def _contains_display_name(_: Mapping[str, Json]) -> Condition:
    """Deprecated, but still evaluated [C14.07]."""

    def condition(situation: Situation, display_name: str | None) -> bool:
        body = look_up(situation.properties, _BODY)
        if not display_name or not isinstance(body, str):
            return False
        name = display_name.lower()
        return Glob((name,), single=False, shortest=len(name)).matches_words(body.lower())

    return condition


_MEMBER_COUNT = re.compile(r"(==|<=|>=|<|>)?([0-9]{1,18})")
_COMPARISONS: Mapping[str | None, Callable[[int, int], bool]] = {
    None: operator.eq,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def _room_member_count(value: Mapping[str, Json]) -> Condition:
    bound = value.get("is")
    found = _MEMBER_COUNT.fullmatch(bound) if isinstance(bound, str) else None
    if found is None:
        return _never
    compare, count = _COMPARISONS[found[1]], int(found[2])
    return lambda situation, _: compare(situation.member_count, count)


def _sender_notification_permission(value: Mapping[str, Json]) -> Condition:
    key = value.get("key")
    if not isinstance(key, str):
        return _never

    def condition(situation: Situation, _: str | None) -> bool:
        levels = situation.levels
        return levels.user(situation.event.sender) >= levels.notification(key)

    return condition


def _event_property_is(value: Mapping[str, Json]) -> Condition:
    wanted = _path_and_value(value)
    if wanted is None:
        return _never
    path, expected = wanted
    # A list stands for "absent": it equals no simple value.
    return lambda situation, _: _typed(look_up(situation.properties, path, [])) == expected


def _event_property_contains(value: Mapping[str, Json]) -> Condition:
    wanted = _path_and_value(value)
    if wanted is None:
        return _never
    path, expected = wanted

    def condition(situation: Situation, _: str | None) -> bool:
        found = look_up(situation.properties, path)
        return isinstance(found, list) and any(_typed(item) == expected for item in found)

    return condition


def _path_and_value(value: Mapping[str, Json]) -> tuple[Path, tuple[type, Json]] | None:
    """The `key` and `value` of a condition that compares exactly and with types [C14.06]."""
    key, expected = value.get("key"), _typed(value.get("value", []))
    if not isinstance(key, str) or expected is None:
        return None
    return parse_path(key), expected


def _typed(value: Json) -> tuple[type, Json] | None:
    """A simple value with its type, so that true is not 1; None for any other value."""
    if type(value) is int:
        return (int, value) if -MAX_INTEGER <= value <= MAX_INTEGER else None
    return (type(value), value) if isinstance(value, str | bool | None) else None


_COMPILERS: Mapping[str, Callable[[Mapping[str, Json]], Condition]] = {
    "event_match": _event_match,
    "event_property_is": _event_property_is,
    "event_property_contains": _event_property_contains,
    "contains_display_name": _contains_display_name,
    "room_member_count": _room_member_count,
    "sender_notification_permission": _sender_notification_permission,
}
