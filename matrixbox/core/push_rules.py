"""Push rules: the default set, users' own rules, and their order.

Matrix v1.19, Client-Server API, "Push Rules" and "Predefined Rules" [C14.01]-[C14.03],
[C14.09]-[C14.13].  Whether an event notifies is decided in push_evaluation.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from attrs import evolve, frozen

from matrixbox.core.identifiers import InvalidIdentifier, UserId, is_user_id, parse_room_id
from matrixbox.core.json import Json

MAX_PATTERN = 256  # characters
HISTORICAL = ("dont_notify", "coalesce")
THREAD_SUBSCRIPTION = "io.element.msc4306.thread_subscription"
"""The kind of condition that asks whether the user follows the thread of an event."""


class Kind(Enum):
    """The kinds of rules, in the order in which they are tried."""

    OVERRIDE = "override"
    CONTENT = "content"
    POSTCONTENT = "postcontent"  # MSC4306; default rules alone
    ROOM = "room"
    SENDER = "sender"
    UNDERRIDE = "underride"


@frozen
class PushRule:
    """One rule: with a `pattern` for content, or `conditions` unless it names a room or a user."""

    rule_id: str
    actions: tuple[Json, ...]
    conditions: tuple[Json, ...] = ()
    pattern: str | None = None
    default: bool = False
    enabled: bool = True

    def to_json(self, kind: Kind) -> dict[str, Json]:
        """The rule as clients see it."""
        shown: dict[str, Json] = {
            "rule_id": self.rule_id,
            "default": self.default,
            "enabled": self.enabled,
            "actions": list(self.actions),
        }
        if kind in (Kind.OVERRIDE, Kind.POSTCONTENT, Kind.UNDERRIDE):
            shown["conditions"] = list(self.conditions)
        if self.pattern is not None:
            shown["pattern"] = self.pattern
        return shown


Ruleset = Mapping[Kind, Sequence[PushRule]]  # most important first


@frozen
class Change:
    """What a user changed about a default rule; None: nothing."""

    enabled: bool | None = None
    actions: tuple[Json, ...] | None = None


class InvalidRule(ValueError):
    """A client's rule is not one; the text tells it why (400)."""


class InvalidRuleId(InvalidRule):
    """The rule cannot have this `rule_id`."""


class UnknownAnchor(InvalidRule):
    """The rule named by `before` or `after` is not there."""


# --- default rules

_NOTIFY: Json = "notify"
_HIGHLIGHT: Json = {"set_tweak": "highlight"}


def _sound(value: str) -> Json:
    return {"set_tweak": "sound", "value": value}


def _match(key: str, pattern: str) -> Json:
    return {"kind": "event_match", "key": key, "pattern": pattern}


_TWO_MEMBERS: Json = {"kind": "room_member_count", "is": "2"}
_MASTER = PushRule(".m.rule.master", (), default=True, enabled=False)


def _default(
    name: str, conditions: Sequence[Json], *actions: Json, prefix: str = ".m.rule"
) -> PushRule:
    return PushRule(f"{prefix}.{name}", actions, tuple(conditions), default=True)


def _thread(name: str, *actions: Json, subscribed: bool) -> PushRule:
    """A rule about threads that the user follows, or does not (MSC4306)."""
    condition: Json = {"kind": THREAD_SUBSCRIPTION, "subscribed": subscribed}
    return _default(name, [condition], *actions, prefix=".io.element.msc4306.rule")


def _poll(name: str, conditions: Sequence[Json], *actions: Json) -> PushRule:
    """A rule about polls, under the name and the type of event in use (MSC3930, MSC3381)."""
    kind = "org.matrix.msc3381.poll." + name.removesuffix("_one_to_one").removeprefix("poll_")
    type_of_poll = _match("type", kind)
    all_conditions = [*conditions, type_of_poll]
    return _default(name, all_conditions, *actions, prefix=".org.matrix.msc3930.rule")


def default_rules(user_id: UserId, *, threads: bool = False) -> Ruleset:
    """The server-default rules of one user, in their order [C14.02], [C14.03].

    Those of polls stand where MSC3930 puts them. `threads`: with those for users
    who follow threads, which silence all other threads (MSC4306).
    """
    mentions_me: Json = {
        "kind": "event_property_contains",
        "key": "content.m\\.mentions.user_ids",
        "value": user_id,
    }
    mentions_room: list[Json] = [
        {"kind": "event_property_is", "key": "content.m\\.mentions.room", "value": True},
        {"kind": "sender_notification_permission", "key": "room"},
    ]
    is_edit: Json = {
        "kind": "event_property_is",
        "key": "content.m\\.relates_to.rel_type",
        "value": "m.replace",
    }
    member = _match("type", "m.room.member")
    invite = [member, _match("content.membership", "invite"), _match("state_key", user_id)]
    tombstone = [_match("type", "m.room.tombstone"), _match("state_key", "")]
    server_acl = [_match("type", "m.room.server_acl"), _match("state_key", "")]
    message, encrypted = _match("type", "m.room.message"), _match("type", "m.room.encrypted")
    return {
        Kind.OVERRIDE: (
            _MASTER,
            _default("suppress_notices", [_match("content.msgtype", "m.notice")]),
            _default("invite_for_me", invite, _NOTIFY, _sound("default")),
            _default("member_event", [member]),
            _default("is_user_mention", [mentions_me], _NOTIFY, _sound("default"), _HIGHLIGHT),
            _default("is_room_mention", mentions_room, _NOTIFY, _HIGHLIGHT),
            _default("tombstone", tombstone, _NOTIFY, _HIGHLIGHT),
            _default("reaction", [_match("type", "m.reaction")]),
            _default("room.server_acl", server_acl),
            _poll("poll_response", []),
            _default("suppress_edits", [is_edit]),
        ),
        Kind.CONTENT: (),
        Kind.POSTCONTENT: (
            _thread("unsubscribed_thread", subscribed=False),
            _thread("subscribed_thread", _NOTIFY, _sound("default"), subscribed=True),
        )
        if threads
        else (),
        Kind.ROOM: (),
        Kind.SENDER: (),
        Kind.UNDERRIDE: (
            _default("call", [_match("type", "m.call.invite")], _NOTIFY, _sound("ring")),
            _default(
                "encrypted_room_one_to_one", [_TWO_MEMBERS, encrypted], _NOTIFY, _sound("default")
            ),
            _default("room_one_to_one", [_TWO_MEMBERS, message], _NOTIFY, _sound("default")),
            _default("message", [message], _NOTIFY),
            _default("encrypted", [encrypted], _NOTIFY),
            _poll("poll_start_one_to_one", [_TWO_MEMBERS], _NOTIFY, _sound("default")),
            _poll("poll_start", [], _NOTIFY),
            _poll("poll_end_one_to_one", [_TWO_MEMBERS], _NOTIFY, _sound("default")),
            _poll("poll_end", [], _NOTIFY),
        ),
    }


def ruleset(
    user_id: UserId,
    own: Ruleset,
    changes: Mapping[tuple[Kind, str], Change] | None = None,
    *,
    threads: bool = False,
) -> Ruleset:
    """All rules of a user in the order of their importance.

    Own rules come before the defaults of their kind, only the master rule before all [C14.01].
    `changes` are those the user made to default rules.
    """
    everything: dict[Kind, Sequence[PushRule]] = {}
    for kind, defaults in default_rules(user_id, threads=threads).items():
        rules = [_changed(rule, (changes or {}).get((kind, rule.rule_id))) for rule in defaults]
        master = 1 if kind is Kind.OVERRIDE else 0
        everything[kind] = (*rules[:master], *own.get(kind, ()), *rules[master:])
    return everything


def _changed(rule: PushRule, change: Change | None) -> PushRule:
    if change is None:
        return rule
    return evolve(
        rule,
        enabled=rule.enabled if change.enabled is None else change.enabled,
        actions=rule.actions if change.actions is None else change.actions,
    )


def ruleset_json(rules: Ruleset) -> dict[str, Json]:
    """The ruleset as `/pushrules/global/` and `m.push_rules` show it."""
    return {
        kind.value: [rule.to_json(kind) for rule in rules.get(kind, ())]
        for kind in Kind
        if rules.get(kind) or kind is not Kind.POSTCONTENT
    }


# --- rules from clients


def parse_rule(kind: Kind, rule_id: str, body: Json) -> PushRule:
    """Read a user's own rule; raise InvalidRule [C14.11]."""
    _check_rule_id(kind, rule_id)
    if not isinstance(body, Mapping):
        raise InvalidRule("The rule is not an object.")
    conditions: tuple[Json, ...] = ()
    pattern: str | None = None
    if kind in (Kind.OVERRIDE, Kind.UNDERRIDE):
        conditions = _conditions(body.get("conditions", []))
    elif kind is Kind.CONTENT:
        pattern = _pattern(body.get("pattern"))
    return PushRule(rule_id, parse_actions(body.get("actions")), conditions, pattern)


def _check_rule_id(kind: Kind, rule_id: str) -> None:
    if kind is Kind.POSTCONTENT:
        raise InvalidRuleId("There are no rules of one's own of this kind.")
    if not rule_id or rule_id.startswith(".") or "/" in rule_id or "\\" in rule_id:
        raise InvalidRuleId("This rule_id is not allowed.")
    if kind is Kind.SENDER and not is_user_id(rule_id):
        raise InvalidRuleId("The rule_id of a sender rule is a user ID.")
    if kind is Kind.ROOM:
        try:
            parse_room_id(rule_id)
        except InvalidIdentifier as error:
            raise InvalidRuleId("The rule_id of a room rule is a room ID.") from error


def _conditions(value: Json) -> tuple[Json, ...]:
    if not isinstance(value, list):
        raise InvalidRule("conditions is not a list.")
    for condition in value:
        if not isinstance(condition, Mapping) or not isinstance(condition.get("kind"), str):
            raise InvalidRule("A condition has no kind.")
        _check_pattern_length(condition.get("pattern"))
    return tuple(value)


def _pattern(value: Json) -> str:
    if not isinstance(value, str):
        raise InvalidRule("A content rule needs a pattern.")
    _check_pattern_length(value)
    return value


def _check_pattern_length(value: Json) -> None:
    if isinstance(value, str) and len(value) > MAX_PATTERN:
        raise InvalidRule("A pattern is longer than 256 characters.")


def parse_actions(value: Json) -> tuple[Json, ...]:
    """Read a list of actions; raise InvalidRule.

    The historical ones are kept as the client wrote them, and do nothing: see `in_effect`.
    """
    if not isinstance(value, list):
        raise InvalidRule("actions is not a list.")
    for action in value:
        tweak = action.get("set_tweak") if isinstance(action, Mapping) else None
        if action not in ("notify", *HISTORICAL) and not isinstance(tweak, str):
            raise InvalidRule("An action is neither known nor a tweak.")
    return tuple(value)


def in_effect(actions: Iterable[Json]) -> tuple[Json, ...]:
    """The actions without the historical ones, which mean nothing [C14.09]."""
    return tuple(action for action in actions if action not in HISTORICAL)


def place(
    rules: Sequence[PushRule],
    rule: PushRule,
    *,
    before: str | None = None,
    after: str | None = None,
) -> tuple[PushRule, ...]:
    """The user's own rules of one kind with `rule` added or updated [C14.12].

    `before` makes it the next more important one than that rule, and counts more than `after`,
    which makes it the next less important one.  With neither, a new rule comes first and an old
    one keeps its place; an old one also stays disabled.  Raises UnknownAnchor.
    """
    ids = [other.rule_id for other in rules]
    if rule.rule_id in ids:
        index = ids.index(rule.rule_id)
        rule = evolve(rule, enabled=rules[index].enabled)
    else:
        index = 0
    anchor = after if before is None else before
    others = [other for other in rules if other.rule_id != rule.rule_id]
    if anchor is not None:
        ids = [other.rule_id for other in others]
        if anchor not in ids:
            raise UnknownAnchor(f"before/after rule not found: {anchor}")
        index = ids.index(anchor) + (1 if before is None else 0)
    return (*others[:index], rule, *others[index:])
