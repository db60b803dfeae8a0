"""The naive reference, by examples that the specification itself gives or states."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest

from tests.oracle.story import ALICE, AMY, BOB, Story
from tests.reference import ROOM_VERSIONS
from tests.reference.event_ids import event_id_of, redact
from tests.reference.resolution import ResolutionV2
from tests.reference.words import NotALevel, domain_of, is_user_id

FOLDER = Path(__file__).parent


def decided(story: Story, at: int = -1) -> str:
    return story.graph.verdicts[at].by_state


def test_the_reference_shares_nothing_with_the_project() -> None:
    """Independence is its point."""
    for module in FOLDER.glob("*.py"):
        if module.name.startswith("test_"):
            continue
        for node in ast.walk(ast.parse(module.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name and name.startswith("matrixbox")]


@pytest.mark.parametrize("version", ["1", "5", "9"])
@pytest.mark.parametrize("text", ["100", "000100", "+100", " 100 ", " 00100 ", " +100 "])
def test_levels_are_read_from_strings_up_to_version_9(version: str, text: str) -> None:
    """rooms/fragments/v1-stringy-power-levels [A5.24]."""
    assert ROOM_VERSIONS[version].rules.read_level(text) == 100


@pytest.mark.parametrize("text", ["", "1.5", "0x10", "1_0", "5 0", "+-5", "\u0663", "abc"])
def test_other_strings_are_no_levels(text: str) -> None:
    with pytest.raises(NotALevel):
        ROOM_VERSIONS["1"].rules.read_level(text)


def test_levels_are_cut_at_the_decimal_point_up_to_version_5() -> None:
    """rooms/fragments/v1-floaty-power-levels: 5.114698E4 is 51146 [A5.24]."""
    for version in ("1", "2", "3", "4", "5"):
        rules = ROOM_VERSIONS[version].rules
        assert rules.read_level(5.114698e4) == 51146
        assert rules.read_level(50.57) == 50
        assert rules.read_level(-0.7) == 0
        for impossible in (math.inf, -math.inf, math.nan):
            assert not rules.is_level(impossible)
    assert not ROOM_VERSIONS["6"].rules.is_level(50.57)


@pytest.mark.parametrize("version", ["10", "11", "12"])
@pytest.mark.parametrize("value", ["100", 1.0, True, None, [], {}])
def test_only_integers_are_levels_from_version_10_on(version: str, value: object) -> None:
    """[A5.18]"""
    assert not ROOM_VERSIONS[version].rules.is_level(value)


@pytest.mark.parametrize("version", ROOM_VERSIONS)
def test_unbanning_needs_both_levels_and_more_power_than_the_target(version: str) -> None:
    """The note after the rules of every room version [A5.11]."""
    story = Story(version)
    story.join_rule()
    story.member(AMY, "join")
    levels = {AMY: 50} if version == "12" else {ALICE: 100, AMY: 50}
    story.levels(users=levels, ban=75, kick=25)
    story.member(BOB, "ban", by=ALICE)
    story.member(BOB, "leave", by=AMY)
    assert decided(story) == "-leave: ban level"
    story.levels(users=levels, ban=50, kick=75)
    story.member(BOB, "leave", by=AMY)
    assert decided(story) == "-leave: otherwise"
    story.levels(users={**levels, BOB: 50}, ban=50, kick=25)
    story.member(BOB, "leave", by=AMY)
    assert decided(story) == "-leave: otherwise"
    story.levels(users=levels, ban=50, kick=25)
    story.member(BOB, "leave", by=AMY)
    assert decided(story) == "+leave: kick level"


@pytest.mark.parametrize("version", ROOM_VERSIONS)
def test_strangers_may_only_join_and_decline(version: str) -> None:
    """The note after the rules of every room version."""
    story = Story(version)
    story.join_rule()
    for kind, key in (("m.room.message", None), ("m.room.topic", ""), ("org.example", BOB)):
        story.tell(kind, BOB, {}, key)
        assert decided(story) == "-sender not joined"
    story.member(BOB, "invite", by=ALICE)
    story.member(BOB, "leave")
    assert decided(story) == "+leave: own"
    story.member(BOB, "join")
    assert decided(story) == "+join: public"


def test_creators_of_version_12_stand_above_all_levels() -> None:
    """rooms/v12, rules 10.4 and 5.5; [A5.19], [A5.22]."""
    story = Story("12", additional_creators=[AMY])
    story.join_rule()
    story.member(AMY, "join")
    story.member(BOB, "join")
    story.levels(users={BOB: 2**53 - 1})
    story.member(AMY, "ban", by=BOB)
    assert decided(story) == "-ban: otherwise"
    story.levels(users={AMY: 100})
    assert decided(story) == "-power levels: users has a creator"
    story.member(BOB, "ban", by=AMY)
    assert decided(story) == "+ban: ban level"


def test_a_ban_beats_what_the_banned_did_at_the_same_time() -> None:
    """Server-Server API, "Soft failure": the topic set beside the ban is lost [A6.05]."""
    story = Story("11")
    story.join_rule()
    story.member(BOB, "join")
    fork = story.levels(users={ALICE: 100, BOB: 50})
    ban = story.member(BOB, "ban", by=ALICE, after=(fork,))
    topic = story.tell("m.room.topic", BOB, {"topic": "mine"}, "", after=(fork,))
    after = story.tell("m.room.message", ALICE, {}, after=(ban, topic))
    state = story.graph.before[after]
    assert state["m.room.member", BOB] == story.graph.ids[ban]
    assert ("m.room.topic", "") not in state


def test_version_1_gives_in_to_the_banned() -> None:
    """The same graph in version 1: "in the original version C would be in the resolved state"."""
    story = Story("1")
    story.join_rule()
    story.member(BOB, "join")
    fork = story.levels(users={ALICE: 100, BOB: 50})
    ban = story.member(BOB, "ban", by=ALICE, after=(fork,))
    topic = story.tell("m.room.topic", BOB, {"topic": "mine"}, "", after=(fork,))
    after = story.tell("m.room.message", ALICE, {}, after=(ban, topic))
    assert story.graph.before[after]["m.room.topic", ""] == story.graph.ids[topic]


def test_the_mainline_is_the_chain_of_power_levels() -> None:
    """rooms/fragments/v2-state-res, "Mainline ordering" [A6.09]."""
    story = Story("11")
    early = story.tell("m.room.name", ALICE, {}, "")
    first, second = (story.levels(users={ALICE: level}) for level in (100, 99))
    late = story.tell("m.room.topic", ALICE, {}, "")
    graph, resolution = story.graph, ROOM_VERSIONS["11"].resolution
    assert isinstance(resolution, ResolutionV2)
    line = resolution.mainline(graph.ids[second], graph.events)
    assert line == [graph.ids[second], graph.ids[first]]
    position = {
        at: resolution.mainline_position(graph.ids[at], line, graph.events)
        for at in (early, first, second, late)
    }
    assert position == {early: math.inf, first: math.inf, second: 1, late: 0}


def test_redaction_keeps_what_the_versions_keep() -> None:
    """rooms/fragments/v1-, v6-, v9- and v11-redactions; [A4.08]-[A4.11]."""
    levels = {
        "type": "m.room.power_levels",
        "content": {"invite": 1, "ban": 2, "x": 3},
        "origin": "a",
    }
    assert redact("10", levels) == {**levels, "content": {"ban": 2}}
    assert redact("11", levels) == {"type": levels["type"], "content": {"invite": 1, "ban": 2}}
    aliases = {"type": "m.room.aliases", "content": {"aliases": []}}
    assert redact("5", aliases) == aliases
    assert redact("6", aliases)["content"] == {}
    member = {
        "type": "m.room.member",
        "content": {"membership": "join", "join_authorised_via_users_server": "@a:b"},
    }
    assert redact("8", member)["content"] == {"membership": "join"}
    assert redact("9", member) == member


def test_event_ids_differ_only_in_their_alphabet() -> None:
    """rooms/v3 and v4: standard, then URL-safe base64."""
    for number in range(64):
        pdu = {"type": "m.room.message", "content": {}, "depth": number}
        third, fourth = event_id_of("3", pdu), event_id_of("4", pdu)
        assert third.replace("+", "-").replace("/", "_") == fourth
        assert len(fourth) == 44


@pytest.mark.parametrize(
    "text", ["@a:b", "@:b", "@A B\u00e9:b.test:80", "@a:[::1]:8448", "@a:1.2.3.4", "@\u0001:b"]
)
def test_historical_user_ids_are_valid(text: str) -> None:
    """Appendices, "Historical user IDs"."""
    assert is_user_id(text)


@pytest.mark.parametrize(
    "text",
    ["", "@", "a:b", "@a", "@a:", "@a:b c", "@a:b:x", "@a\0:b", "@a:[::g]", f"@{'a' * 254}:b", 5],
)
def test_other_texts_are_no_user_ids(text: object) -> None:
    assert not is_user_id(text)


def test_a_domain_begins_after_the_first_colon() -> None:
    assert domain_of("@a:b.test:8448") == "b.test:8448"
    assert domain_of("$opaque") is None
    assert domain_of(None) is None
