"""Push rules: defaults, clients' rules, order [C14.01]-[C14.03], [C14.09]-[C14.13]."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core.push_rules import (
    Change,
    InvalidRule,
    Kind,
    PushRule,
    UnknownAnchor,
    default_rules,
    in_effect,
    parse_actions,
    parse_rule,
    place,
    ruleset,
    ruleset_json,
)

USER = "@alice:one.test"
SOUND = {"set_tweak": "sound", "value": "default"}
HIGHLIGHT = {"set_tweak": "highlight"}


def match(key, pattern):
    return {"kind": "event_match", "key": key, "pattern": pattern}


def poll(word):
    return match("type", f"org.matrix.msc3381.poll.{word}")


# Client-Server API, "Predefined Rules", and MSC3930: (rule, conditions, actions)
OVERRIDES = [
    ("master", [], []),
    ("suppress_notices", [match("content.msgtype", "m.notice")], []),
    (
        "invite_for_me",
        [
            match("type", "m.room.member"),
            match("content.membership", "invite"),
            match("state_key", USER),
        ],
        ["notify", SOUND],
    ),
    ("member_event", [match("type", "m.room.member")], []),
    (
        "is_user_mention",
        [
            {
                "kind": "event_property_contains",
                "key": "content.m\\.mentions.user_ids",
                "value": USER,
            }
        ],
        ["notify", SOUND, HIGHLIGHT],
    ),
    (
        "is_room_mention",
        [
            {"kind": "event_property_is", "key": "content.m\\.mentions.room", "value": True},
            {"kind": "sender_notification_permission", "key": "room"},
        ],
        ["notify", HIGHLIGHT],
    ),
    (
        "tombstone",
        [match("type", "m.room.tombstone"), match("state_key", "")],
        ["notify", HIGHLIGHT],
    ),
    ("reaction", [match("type", "m.reaction")], []),
    ("room.server_acl", [match("type", "m.room.server_acl"), match("state_key", "")], []),
    (".org.matrix.msc3930.rule.poll_response", [poll("response")], []),
    (
        "suppress_edits",
        [
            {
                "kind": "event_property_is",
                "key": "content.m\\.relates_to.rel_type",
                "value": "m.replace",
            }
        ],
        [],
    ),
]
TWO = {"kind": "room_member_count", "is": "2"}
UNDERRIDES = [
    (
        "call",
        [match("type", "m.call.invite")],
        ["notify", {"set_tweak": "sound", "value": "ring"}],
    ),
    ("encrypted_room_one_to_one", [TWO, match("type", "m.room.encrypted")], ["notify", SOUND]),
    ("room_one_to_one", [TWO, match("type", "m.room.message")], ["notify", SOUND]),
    ("message", [match("type", "m.room.message")], ["notify"]),
    ("encrypted", [match("type", "m.room.encrypted")], ["notify"]),
    (".org.matrix.msc3930.rule.poll_start_one_to_one", [TWO, poll("start")], ["notify", SOUND]),
    (".org.matrix.msc3930.rule.poll_start", [poll("start")], ["notify"]),
    (".org.matrix.msc3930.rule.poll_end_one_to_one", [TWO, poll("end")], ["notify", SOUND]),
    (".org.matrix.msc3930.rule.poll_end", [poll("end")], ["notify"]),
]


def test_the_default_rules_are_those_of_the_specification():
    """[C14.02], [C14.03], [C14.06]"""

    def expected(rules):
        return [
            {
                "rule_id": name if name.startswith(".") else f".m.rule.{name}",
                "default": True,
                "enabled": name != "master",
                "conditions": conditions,
                "actions": actions,
            }
            for name, conditions, actions in rules
        ]

    assert ruleset_json(default_rules(USER)) == {
        "override": expected(OVERRIDES),
        "content": [],
        "room": [],
        "sender": [],
        "underride": expected(UNDERRIDES),
    }


def test_rules_about_threads_are_for_those_who_follow_some():
    """MSC4306: between the rules about content and those about rooms."""
    shown = ruleset_json(default_rules(USER, threads=True))
    assert list(shown) == ["override", "content", "postcontent", "room", "sender", "underride"]
    prefix = ".io.element.msc4306.rule."
    assert shown["postcontent"] == [
        {
            "rule_id": prefix + name,
            "default": True,
            "enabled": True,
            "conditions": [
                {"kind": "io.element.msc4306.thread_subscription", "subscribed": subscribed}
            ],
            "actions": actions,
        }
        for name, subscribed, actions in (
            ("unsubscribed_thread", False, []),
            ("subscribed_thread", True, ["notify", SOUND]),
        )
    ]
    with pytest.raises(InvalidRule):
        parse_rule(Kind.POSTCONTENT, "mine", {"actions": [], "conditions": []})


def test_own_rules_come_before_the_defaults_but_after_the_master_rule():
    """[C14.01]"""
    own = {kind: (PushRule(f"{kind.value}1", ()), PushRule(f"{kind.value}2", ())) for kind in Kind}
    found = ruleset(USER, own)
    ids = {kind: [rule.rule_id for rule in rules] for kind, rules in found.items()}
    assert ids[Kind.OVERRIDE][:4] == [
        ".m.rule.master",
        "override1",
        "override2",
        ".m.rule.suppress_notices",
    ]
    assert len(ids[Kind.OVERRIDE]) == len(OVERRIDES) + 2
    assert ids[Kind.UNDERRIDE][:3] == ["underride1", "underride2", ".m.rule.call"]
    for kind in (Kind.CONTENT, Kind.ROOM, Kind.SENDER):
        assert ids[kind] == [f"{kind.value}1", f"{kind.value}2"]
    assert list(found) == list(Kind)
    assert ruleset(USER, {}) == default_rules(USER)


def test_default_rules_can_be_changed():
    """[C14.13]"""
    changes = {
        (Kind.OVERRIDE, ".m.rule.master"): Change(enabled=True),
        (Kind.OVERRIDE, ".m.rule.reaction"): Change(actions=("notify",)),
        (Kind.UNDERRIDE, ".m.rule.call"): Change(enabled=False, actions=()),
        (Kind.UNDERRIDE, ".m.rule.master"): Change(enabled=True),
    }
    found = {
        (kind, rule.rule_id): rule
        for kind, rules in ruleset(USER, {}, changes).items()
        for rule in rules
    }
    assert found[Kind.OVERRIDE, ".m.rule.master"].enabled
    reaction = found[Kind.OVERRIDE, ".m.rule.reaction"]
    assert reaction.enabled
    assert reaction.actions == ("notify",)
    call = found[Kind.UNDERRIDE, ".m.rule.call"]
    assert not call.enabled
    assert call.actions == ()
    assert len(found) == len(OVERRIDES) + len(UNDERRIDES)


def test_rules_are_shown_with_what_belongs_to_their_kind():
    rule = PushRule("x", ("notify",), ({"kind": "k"},), "cake", enabled=False)
    shown = rule.to_json(Kind.OVERRIDE)
    assert shown["conditions"] == [{"kind": "k"}]
    assert shown["enabled"] is False
    assert shown["default"] is False
    assert rule.to_json(Kind.CONTENT) == {
        "rule_id": "x",
        "default": False,
        "enabled": False,
        "actions": ["notify"],
        "pattern": "cake",
    }
    assert "pattern" not in PushRule("x", ()).to_json(Kind.ROOM)


# --- rules from clients


def test_rules_of_every_kind_are_read():
    """[C14.11]"""
    condition = {"kind": "org.unknown", "x": []}
    for kind in (Kind.OVERRIDE, Kind.UNDERRIDE):
        body = {"actions": ["notify"], "conditions": [condition], "pattern": 5}
        assert parse_rule(kind, "x", body) == PushRule("x", ("notify",), (condition,))
        assert parse_rule(kind, "x", {"actions": []}) == PushRule("x", ())
    assert parse_rule(Kind.CONTENT, "x", {"actions": [], "pattern": "a*"}) == PushRule(
        "x", (), (), "a*"
    )
    assert parse_rule(Kind.ROOM, "!a:b", {"actions": []}) == PushRule("!a:b", ())
    assert parse_rule(Kind.SENDER, "@a:b", {"actions": [], "conditions": 5}).conditions == ()


@pytest.mark.parametrize(
    ("kind", "rule_id", "body"),
    [
        (Kind.OVERRIDE, ".m.rule.x", {"actions": []}),
        (Kind.OVERRIDE, ".", {"actions": []}),
        (Kind.OVERRIDE, "", {"actions": []}),
        (Kind.OVERRIDE, "a/b", {"actions": []}),
        (Kind.OVERRIDE, "a\\b", {"actions": []}),
        (Kind.ROOM, "x", {"actions": []}),
        (Kind.SENDER, "x", {"actions": []}),
        (Kind.OVERRIDE, "x", []),
        (Kind.OVERRIDE, "x", {}),
        (Kind.OVERRIDE, "x", {"actions": {}}),
        (Kind.OVERRIDE, "x", {"actions": ["dance"]}),
        (Kind.OVERRIDE, "x", {"actions": [{}]}),
        (Kind.OVERRIDE, "x", {"actions": [{"set_tweak": 5}]}),
        (Kind.OVERRIDE, "x", {"actions": [5]}),
        (Kind.OVERRIDE, "x", {"actions": [], "conditions": {}}),
        (Kind.OVERRIDE, "x", {"actions": [], "conditions": ["x"]}),
        (Kind.OVERRIDE, "x", {"actions": [], "conditions": [{}]}),
        (Kind.UNDERRIDE, "x", {"actions": [], "conditions": [{"kind": 5}]}),
        (
            Kind.OVERRIDE,
            "x",
            {"actions": [], "conditions": [{"kind": "event_match", "pattern": "x" * 257}]},
        ),
        (Kind.CONTENT, "x", {"actions": []}),
        (Kind.CONTENT, "x", {"actions": [], "pattern": 5}),
        (Kind.CONTENT, "x", {"actions": [], "pattern": "x" * 257}),
    ],
)
def test_what_is_no_rule_is_refused(kind, rule_id, body):
    """[C14.11], T080"""
    with pytest.raises(InvalidRule):
        parse_rule(kind, rule_id, body)


def test_patterns_take_256_characters():
    """T080"""
    assert parse_rule(Kind.CONTENT, "x", {"actions": [], "pattern": "x" * 256}).pattern
    conditions = [{"kind": "event_match", "pattern": "x" * 256}]
    assert parse_rule(Kind.OVERRIDE, "x", {"actions": [], "conditions": conditions}).conditions


def test_historical_actions_are_kept_and_mean_nothing():
    """[C14.09]"""
    assert parse_actions(["dont_notify"]) == ("dont_notify",)
    assert in_effect(["dont_notify"]) == ()
    written = ["notify", "coalesce", HIGHLIGHT]
    assert parse_actions(written) == tuple(written)
    assert in_effect(written) == ("notify", HIGHLIGHT)


# --- order


def rules(*names: str) -> tuple[PushRule, ...]:
    return tuple(PushRule(name, ()) for name in names)


@pytest.mark.parametrize(
    ("name", "anchors", "order"),
    [
        ("new", {}, "new a b c"),
        ("new", {"before": "b"}, "a new b c"),
        ("new", {"before": "a"}, "new a b c"),
        ("new", {"after": "b"}, "a b new c"),
        ("new", {"after": "c"}, "a b c new"),
        ("new", {"before": "b", "after": "c"}, "a new b c"),
        ("new", {"before": "c", "after": "a"}, "a b new c"),
        ("b", {}, "a b c"),
        ("b", {"before": "a"}, "b a c"),
        ("b", {"after": "c"}, "a c b"),
        ("a", {"before": "c"}, "b a c"),
    ],
)
def test_rules_are_placed_relative_to_others(name, anchors, order):
    """[C14.12]"""
    placed = place(rules("a", "b", "c"), PushRule(name, ("notify",)), **anchors)
    assert [rule.rule_id for rule in placed] == order.split()
    assert next(rule for rule in placed if rule.rule_id == name).actions == ("notify",)


@pytest.mark.parametrize("anchors", [{"before": "x"}, {"after": ".m.rule.master"}, {"before": "b"}])
def test_unknown_anchors_are_refused(anchors):
    """[C14.12]"""
    with pytest.raises(UnknownAnchor, match="before/after rule not found"):
        place(rules("a", "b"), PushRule("b", ()), **anchors)


def test_an_updated_rule_stays_disabled_and_a_new_one_is_enabled():
    old = (PushRule("a", (), enabled=False),)
    assert not place(old, PushRule("a", ("notify",)))[0].enabled
    assert place(old, PushRule("b", ()))[0].enabled


@given(
    st.lists(st.sampled_from("abcde"), unique=True),
    st.sampled_from("abcdef"),
    st.none() | st.sampled_from("abcdef"),
    st.none() | st.sampled_from("abcdef"),
)
def test_placing_keeps_the_other_rules_in_order(names, name, before, after):
    try:
        placed = place(rules(*names), PushRule(name, ()), before=before, after=after)
    except UnknownAnchor:
        return
    ids = [rule.rule_id for rule in placed]
    assert [other for other in ids if other != name] == [other for other in names if other != name]
    assert ids.count(name) == 1
    if before is not None:
        assert ids[ids.index(name) + 1] == before
    elif after is not None:
        assert ids[ids.index(name) - 1] == after
