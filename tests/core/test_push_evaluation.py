"""Whether events notify [C14.01], [C14.05]-[C14.10]."""

from __future__ import annotations

import time

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core.events import POWER_LEVELS, power_levels
from matrixbox.core.json import RawNumber
from matrixbox.core.push_evaluation import Situation, compile_rules
from matrixbox.core.push_rules import Change, Kind, PushRule, ruleset
from tests.core.making import CREATOR, standard_room
from tests.core.timing import within

USER = "@alice:one.test"
BOB = "@bob:two.test"
ROOM = standard_room("12")


def situation(type_="m.room.message", content=None, *, count=5, **how) -> Situation:
    event = ROOM.make(type_, {} if content is None else content, **{"sender": BOB, **how})
    return Situation(event, count, power_levels(ROOM.rules, ROOM.create, ROOM.state[POWER_LEVELS]))


def by_default(seen: Situation, name: str | None = "Alice", **changes):
    found = ruleset(USER, {}, {(Kind.OVERRIDE, key): value for key, value in changes.items()})
    return compile_rules(USER, found).evaluate(seen, name)


def holds(condition, seen: Situation, name: str | None = "Alice") -> bool:
    """Whether a rule with this one condition matches."""
    rules = {Kind.OVERRIDE: [PushRule("x", ("notify",), (condition,))]}
    return compile_rules(USER, rules).evaluate(seen, name) is not None


# --- the default rules


@pytest.mark.parametrize(
    ("seen", "rule", "notify", "sound", "highlight"),
    [
        (situation(), "message", True, None, False),
        (situation(count=2), "room_one_to_one", True, "default", False),
        (situation("m.room.encrypted"), "encrypted", True, None, False),
        (
            situation("m.room.encrypted", count=2),
            "encrypted_room_one_to_one",
            True,
            "default",
            False,
        ),
        (situation("m.call.invite"), "call", True, "ring", False),
        (situation(content={"msgtype": "m.notice"}), "suppress_notices", False, None, False),
        (
            situation("m.room.member", {"membership": "invite"}, key=USER),
            "invite_for_me",
            True,
            "default",
            False,
        ),
        (
            situation("m.room.member", {"membership": "invite"}, key="@other:a"),
            "member_event",
            False,
            None,
            False,
        ),
        (
            situation(content={"m.mentions": {"user_ids": ["@x:y", USER]}}),
            "is_user_mention",
            True,
            "default",
            True,
        ),
        (
            situation(content={"m.mentions": {"room": True}}, sender="@mod:one.test"),
            "is_room_mention",
            True,
            None,
            True,
        ),
        (situation(content={"m.mentions": {"room": True}}), "message", True, None, False),
        (
            situation(content={"m.mentions": {"room": 1}}, sender=CREATOR),
            "message",
            True,
            None,
            False,
        ),
        (situation("m.room.tombstone", key=""), "tombstone", True, None, True),
        (situation("m.reaction"), "reaction", False, None, False),
        (situation("m.room.server_acl", key=""), "room.server_acl", False, None, False),
        (
            situation(content={"m.relates_to": {"rel_type": "m.replace"}}),
            "suppress_edits",
            False,
            None,
            False,
        ),
    ],
)
def test_default_rules_decide(seen, rule, notify, sound, highlight):
    """[C14.02], [C14.03]"""
    outcome = by_default(seen)
    assert outcome.rule_id == f".m.rule.{rule}"
    assert outcome.notify is notify
    assert outcome.sound == sound
    assert outcome.highlight is highlight


@pytest.mark.parametrize(
    "seen",
    [
        situation("m.room.topic", key=""),
        situation("m.room.tombstone"),
        situation("m.room.tombstone", key="x"),
        situation("org.custom"),
    ],
)
def test_what_no_rule_matches_notifies_nobody(seen):
    """[C14.01]"""
    assert by_default(seen) is None


@pytest.mark.parametrize(
    ("followers", "content", "rule"),
    [
        (None, {}, "message"),
        ((), {}, "unsubscribed_thread"),
        ((BOB,), {}, "unsubscribed_thread"),
        ((USER,), {}, "subscribed_thread"),
        ((USER,), {"msgtype": "m.notice"}, "suppress_notices"),
        ((), {"m.mentions": {"user_ids": [USER]}}, "is_user_mention"),
        ((USER,), {"m.mentions": {"user_ids": [USER]}}, "is_user_mention"),
    ],
)
def test_threads_count_for_those_who_follow_them(followers, content, rule):
    """MSC4306: mentions come first, and the settings of the room are of no account."""
    quiet = {Kind.ROOM: [PushRule(ROOM.room_id, ())]}
    known = None if followers is None else frozenset(followers)
    seen = evolve(situation(content=content), followers=known)
    for own in ({}, quiet):
        outcome = compile_rules(USER, ruleset(USER, own, threads=True)).evaluate(seen, None)
        if rule == "message" and own:
            assert outcome.rule_id == ROOM.room_id
        else:
            assert outcome.rule_id.rpartition(".")[2] == rule
            assert outcome.notify is (rule not in ("unsubscribed_thread", "suppress_notices"))
    without = compile_rules(USER, ruleset(USER, {})).evaluate(seen, None)
    assert "thread" not in without.rule_id


@pytest.mark.parametrize("subscribed", [None, 1, "true", []])
def test_a_condition_about_threads_that_makes_no_sense_never_matches(subscribed):
    condition = {"kind": "io.element.msc4306.thread_subscription", "subscribed": subscribed}
    for followers in (frozenset(), frozenset({USER})):
        assert not holds(condition, evolve(situation(), followers=followers))


@pytest.mark.parametrize(
    ("word", "count", "rule"),
    [
        ("start", 5, "poll_start"),
        ("start", 2, "poll_start_one_to_one"),
        ("end", 3, "poll_end"),
        ("end", 2, "poll_end_one_to_one"),
    ],
)
def test_polls_notify_as_messages_do(word, count, rule):
    """MSC3930."""
    seen = situation(f"org.matrix.msc3381.poll.{word}", count=count)
    outcome = by_default(seen)
    assert outcome.rule_id == f".org.matrix.msc3930.rule.{rule}"
    assert outcome.notify
    assert (outcome.sound == "default") is (count == 2)


def test_answers_to_polls_are_silent():
    """MSC3930."""
    assert not by_default(situation("org.matrix.msc3381.poll.response", count=2)).notify


def test_own_events_notify_nobody():
    """[C14.01]"""
    assert by_default(situation(sender=USER)) is None


def test_the_master_rule_silences_everything():
    """[C14.01]"""
    outcome = by_default(situation(), **{".m.rule.master": Change(enabled=True)})
    assert outcome.rule_id == ".m.rule.master"
    assert not outcome.notify
    assert outcome.actions == ()


# --- order and kinds


def test_kinds_are_tried_in_their_order():
    """[C14.01]"""
    seen = situation(content={"body": "cake"})
    everything = {
        Kind.OVERRIDE: [PushRule("override", ())],
        Kind.CONTENT: [PushRule("content", (), pattern="cake")],
        Kind.POSTCONTENT: [PushRule("postcontent", ())],
        Kind.ROOM: [PushRule(ROOM.room_id, ())],
        Kind.SENDER: [PushRule(BOB, ())],
        Kind.UNDERRIDE: [PushRule("underride", ())],
    }
    for kind in Kind:
        outcome = compile_rules(USER, everything).evaluate(seen, None)
        assert outcome.rule_id == everything[kind][0].rule_id
        del everything[kind]
    assert compile_rules(USER, everything).evaluate(seen, None) is None


def test_the_first_enabled_rule_wins():
    rules = {
        Kind.OVERRIDE: [
            PushRule("off", ("notify",), enabled=False),
            PushRule("other", (), ({"kind": "event_match", "key": "type", "pattern": "x"},)),
            PushRule("first", ()),
            PushRule("second", ("notify",)),
        ]
    }
    assert compile_rules(USER, rules).evaluate(situation(), None).rule_id == "first"


def test_room_sender_and_content_rules_match_what_they_name():
    seen = situation(content={"body": "a piece of Cake"})
    for kind, rule, matches in (
        (Kind.ROOM, PushRule(ROOM.room_id, ()), True),
        (Kind.ROOM, PushRule("!other:a", ()), False),
        (Kind.SENDER, PushRule(BOB, ()), True),
        (Kind.SENDER, PushRule("@other:a", ()), False),
        (Kind.CONTENT, PushRule("x", (), pattern="CAKE"), True),
        (Kind.CONTENT, PushRule("x", (), pattern="pie*"), True),
        (Kind.CONTENT, PushRule("x", (), pattern="ake"), False),
        (Kind.CONTENT, PushRule("x", ()), False),
    ):
        found = compile_rules(USER, {kind: [rule]}).evaluate(seen, None)
        assert (found is not None) is matches


def test_tweaks_are_passed_on_and_a_highlight_is_true_by_itself():
    """[C14.10]"""
    actions = (
        "notify",
        "dance",
        5,
        {"set_tweak": 5},
        {"set_tweak": "highlight"},
        {"set_tweak": "sound", "value": 5},
        {"set_tweak": "org.flash", "value": "red"},
        {"set_tweak": "org.empty"},
    )
    rules = {Kind.OVERRIDE: [PushRule("x", actions)]}
    outcome = compile_rules(USER, rules).evaluate(situation(), None)
    assert outcome.notify
    assert outcome.highlight
    assert outcome.sound is None
    assert outcome.tweaks == {
        "highlight": True,
        "sound": 5,
        "org.flash": "red",
        "org.empty": None,
    }
    assert outcome.actions == actions
    for value in (False, None, "true", 1):
        rules = {Kind.OVERRIDE: [PushRule("x", ({"set_tweak": "highlight", "value": value},))]}
        outcome = compile_rules(USER, rules).evaluate(situation(), None)
        assert not outcome.highlight
        assert not outcome.notify


# --- conditions


def match(key, pattern):
    return {"kind": "event_match", "key": key, "pattern": pattern}


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [
        ("lunc?*", "Lunch plans", True),
        ("lunc?*", "LUNCH", True),
        ("lunc?*", " lunch", False),
        ("lunc?*", "lunc", False),
        ("lunc?*", None, False),
        ("*", 5, False),
        ("*", [], False),
        ("*", "", True),
        ("", "", True),
        ("LUNCH", "lunch", True),
        ("lunch", "lunch plans", False),
        (None, "lunch", False),
        (5, "lunch", False),
    ],
)
def test_event_match_takes_the_whole_value(pattern, topic, matches):
    """[C14.05], the specification's example"""
    assert holds(match("content.topic", pattern), situation(content={"topic": topic})) is matches


@pytest.mark.parametrize("body", ["exple", "An example event.", "An exciting triple-whammy"])
def test_event_match_finds_words_in_the_body(body):
    """[C14.05], the specification's example"""
    assert holds(match("content.body", "ex*ple"), situation(content={"body": body}))
    assert not holds(match("content.other", "ex*ple"), situation(content={"other": body + "s"}))


def test_event_match_sees_the_fields_of_the_event():
    seen = situation("m.room.redaction", {"redacts": "$x"}, key="k")
    for key, value in (
        ("type", "m.room.redaction"),
        ("sender", BOB),
        ("room_id", ROOM.room_id),
        ("event_id", seen.event.event_id),
        ("state_key", "k"),
        ("redacts", "$x"),
        ("content.redacts", "$x"),
    ):
        assert holds(match(key, value), seen)
    for key in ("state_key", "redacts", "content.redacts", "depth", "hashes.sha256", "", "content"):
        assert not holds(match(key, "*"), situation())


def test_an_absent_property_never_matches():
    """[C14.05]"""
    assert not holds(match("content.body", "*"), situation())
    assert not holds(match("content.body.x", "*"), situation(content={"body": "y"}))


def is_(key, value, kind="event_property_is"):
    return {"kind": kind, "key": key, "value": value}


VALUES = [True, False, None, 0, 1, "", "1", "true", 2**53 - 1]


@pytest.mark.parametrize("wanted", VALUES)
def test_properties_are_compared_with_their_type(wanted):
    """[C14.06]"""
    for value in VALUES:
        same = type(value) is type(wanted) and value == wanted
        seen = situation(content={"m.x": value})
        assert holds(is_("content.m\\.x", wanted), seen) is same
        listed = situation(content={"m.x": [[], {}, value]})
        assert holds(is_("content.m\\.x", wanted, "event_property_contains"), listed) is same
        assert not holds(is_("content.m\\.x", wanted), listed)
        assert not holds(is_("content.m\\.x", wanted, "event_property_contains"), seen)
    absent = situation()
    assert not holds(is_("content.m\\.x", wanted), absent)
    assert not holds(is_("content.m\\.x", wanted, "event_property_contains"), absent)


@pytest.mark.parametrize("value", [[], {}, 1.5, RawNumber("1.0"), 2**53, -(2**53)])
def test_compound_values_are_never_matched(value):
    """[C14.06]"""
    for kind in ("event_property_is", "event_property_contains"):
        assert not holds(is_("content.x", value, kind), situation(content={"x": []}))
        assert not holds(is_("type", value, kind), situation())
        assert not holds({"kind": kind, "key": "content.x"}, situation(content={"x": [None]}))
        assert not holds({"kind": kind, "key": 5, "value": None}, situation())


@pytest.mark.parametrize("number", [2**53, -(2**53)])
def test_integers_out_of_range_are_never_matched(number):
    room = standard_room("5")
    event = room.make("m.x", {"x": number}, sender=BOB)
    seen = Situation(event, 5, power_levels(room.rules, room.create, None))
    assert not holds(is_("content.x", number), seen)


@pytest.mark.parametrize(
    ("is_", "counts"),
    [
        ("2", {2}),
        ("==2", {2}),
        ("<2", {0, 1}),
        (">2", {3, 4}),
        ("<=2", {0, 1, 2}),
        (">=2", {2, 3, 4}),
        ("02", {2}),
        ("=2", set()),
        ("!=2", set()),
        ("", set()),
        ("two", set()),
        (" 2", set()),
        ("2 ", set()),
        ("2.0", set()),
        ("-1", set()),
        ("<", set()),
        (2, set()),
        (None, set()),
        ("9" * 19, set()),
        ("<" + "9" * 18, {0, 1, 2, 3, 4}),
    ],
)
def test_members_are_counted(is_, counts):
    """[C14.07]"""
    condition = {"kind": "room_member_count", "is": is_}
    assert {count for count in range(5) if holds(condition, situation(count=count))} == counts


def test_the_sender_needs_the_level_for_notifications():
    """[C14.07]"""
    room = standard_room("11")
    levels = room.levels(users={BOB: 30}, notifications={"room": 30, "other": 31})

    def allowed(key) -> bool:
        event = room.make("m.room.message", {}, sender=BOB)
        seen = Situation(event, 2, power_levels(room.rules, room.create, levels))
        return holds({"kind": "sender_notification_permission", "key": key}, seen)

    assert allowed("room")
    assert not allowed("other")
    assert not allowed("unknown")  # 50
    assert not allowed(None)


@pytest.mark.parametrize(
    ("name", "body", "matches"),
    [
        ("Alice", "hello alice!", True),
        ("Alice", "malice", False),
        ("A*e", "Alice", False),
        ("A*e", "hi a*e", True),
        ("A?", "ab", False),
        ("", "hello", False),
        (None, "hello", False),
        ("Alice", 5, False),
        ("Alice", None, False),
    ],
)
def test_display_names_are_found_literally(name, body, matches):
    """[C14.07]"""
    condition = {"kind": "contains_display_name"}
    assert holds(condition, situation(content={"body": body}), name) is matches


@pytest.mark.parametrize(
    "condition",
    [
        None,
        5,
        "event_match",
        [],
        {},
        {"kind": "org.unknown"},
        {"kind": 5},
        {"kind": []},
        {"kind": {}},
        {"kind": "event_match"},
        {"kind": "event_match", "key": 5, "pattern": "*"},
        {"kind": "event_match", "key": "type"},
        {"kind": "room_member_count"},
        {"kind": "sender_notification_permission"},
        {"kind": "event_property_is"},
        {"kind": "event_property_contains"},
    ],
)
def test_conditions_that_are_not_understood_never_match(condition):
    """[C14.08]"""
    assert not holds(condition, situation(content={"body": "x"}))


json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "key", "pattern", "is", "value", "set_tweak", "body"]),
            inner | st.sampled_from(["event_match", "event_property_is", "content.body", "sound"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.lists(json, max_size=3), st.lists(json, max_size=3), st.dictionaries(st.text(), json))
def test_evaluation_never_fails(conditions, actions, content):
    """T090"""
    rules = {Kind.OVERRIDE: [PushRule("x", tuple(actions), tuple(conditions))]}
    outcome = compile_rules(USER, rules).evaluate(situation(content=content), "x")
    if outcome is not None:
        assert outcome.highlight in (True, False)
        assert isinstance(outcome.sound, str | None)


def test_evaluating_the_default_rules_is_quick():
    """T081 (5 ms; about 6 microseconds when idle)."""
    rules = compile_rules(USER, ruleset(USER, {}))
    seen = situation(content={"body": "hello", "msgtype": "m.text"})
    start = time.process_time()
    for _ in range(100):
        rules.evaluate(seen, "Alice")
    assert (time.process_time() - start) / 100 < within(0.001)
