"""State resolution: worked cases for each algorithm [A6], T007, T019-T022."""

from __future__ import annotations

import sys
import time
from hashlib import sha1
from itertools import permutations

import pytest

from matrixbox.core.events import CREATE, JOIN_RULES, POWER_LEVELS, Event
from matrixbox.core.resolve import EventMissing, resolve
from matrixbox.core.resolve_v2 import _is_power_event
from tests.core.making import CREATOR, VERSIONS, Room, standard_room, versions
from tests.core.timing import within

ALICE = "@alice:one.test"
BOB = "@bob:two.test"
CAROL = "@carol:one.test"
MOD = "@mod:one.test"

TOPIC = ("m.room.topic", "")
NAME = ("m.room.name", "")

FROM_V2 = pytest.mark.parametrize("version", versions(2))


def member(user: str) -> tuple[str, str]:
    return ("m.room.member", user)


def merge(room: Room, *states: dict[tuple[str, str], Event]) -> dict[tuple[str, str], Event]:
    """The resolution, which must not depend on the order of the states."""
    sets = [{key: event.event_id for key, event in state.items()} for state in states]
    results = [
        resolve(room.rules, list(order), room, room.create.event_id) for order in permutations(sets)
    ]
    assert all(result == results[0] for result in results)
    shuffled = [dict(reversed(state.items())) for state in sets]
    assert resolve(room.rules, shuffled * 2, room, room.create.event_id) == results[0]
    return {key: room.events[event_id] for key, event_id in results[0].items()}


def branch(room: Room, *events: Event) -> dict[tuple[str, str], Event]:
    """The room's state with these events on top."""
    return {**room.state, **{(event.type, event.state_key or ""): event for event in events}}


def state_event(room: Room, key: tuple[str, str], sender: str, **how) -> Event:
    """A state event that cites what the room's present state says."""
    content = how.pop("content", {})
    return room.make(key[0], content, sender=sender, key=key[1], **how)


# --- without conflict


@pytest.mark.parametrize("version", VERSIONS)
def test_no_state_resolves_to_nothing_and_one_to_itself(version):
    """[A6.01]"""
    room = standard_room(version)
    assert resolve(room.rules, [], room, room.create.event_id) == {}
    one = room.snapshot()
    assert resolve(room.rules, [one], room, room.create.event_id) == one
    assert resolve(room.rules, [one, dict(one), one], room, room.create.event_id) == one
    assert resolve(room.rules, [one], room, room.create.event_id) is not one


@pytest.mark.parametrize("version", VERSIONS)
def test_what_only_one_branch_has_is_kept_if_it_is_allowed(version):
    room = standard_room(version)
    topic = state_event(room, TOPIC, MOD)
    name = state_event(room, NAME, MOD)
    assert merge(room, branch(room, topic), branch(room, name)) == branch(room, topic, name)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_not_allowed_is_left_out_when_it_is_in_conflict(version):
    """[A6.05]: in version 1 what only one state has is no conflict."""
    room = standard_room(version)
    bad = state_event(room, TOPIC, BOB)  # level 0
    merged = merge(room, branch(room, bad), room.state)
    assert merged == (branch(room, bad) if version == "1" else room.state)


def test_an_event_that_has_to_be_known_is_asked_for():
    """T027"""
    for version in VERSIONS:
        room = standard_room(version)
        one, two = state_event(room, TOPIC, MOD), state_event(room, TOPIC, MOD)
        sets = [{**room.snapshot(), TOPIC: event.event_id} for event in (one, two)]
        del room.events[two.event_id]
        with pytest.raises((EventMissing, KeyError)) as caught:
            resolve(room.rules, sets, room, room.create.event_id)
        if version == "1":
            assert caught.value.event_id == two.event_id
            assert two.event_id in str(caught.value)


# --- version 1


def in_v1(**fields) -> tuple[Room, list[Event]]:
    """Topics by the creator of a version 1 room, with the given depths."""
    room = standard_room("1")
    topics = [
        state_event(room, TOPIC, CREATOR, depth=depth, event_id=f"$topic{number}:one.test")
        for number, depth in enumerate(fields["depths"])
    ]
    return room, topics


def digest(event: Event) -> str:
    return sha1(event.event_id.encode()).hexdigest()


def test_v1_the_highest_depth_wins():
    """[A6.03]"""
    room, topics = in_v1(depths=[30, 50, 40])
    assert merge(room, *(branch(room, topic) for topic in topics))[TOPIC] is topics[1]


def test_v1_the_lowest_digest_wins_at_the_same_depth():
    """[A6.03]"""
    room, topics = in_v1(depths=[30, 30, 30, 30])
    winner = min(topics, key=digest)
    assert merge(room, *(branch(room, topic) for topic in topics))[TOPIC] is winner


def test_v1_the_highest_event_that_is_allowed_wins():
    """[A6.03]"""
    room, topics = in_v1(depths=[30, 40])
    bad = state_event(room, TOPIC, BOB, depth=50)
    branches = [branch(room, topic) for topic in (*topics, bad)]
    assert merge(room, *branches)[TOPIC] is topics[1]


def test_v1_the_oldest_remains_of_a_conflict_of_events_that_are_not_allowed():
    """The text says nothing about it; all servers take it."""
    room = standard_room("1")
    bad = [state_event(room, TOPIC, BOB, depth=depth) for depth in (50, 51)]
    merged = merge(room, *(branch(room, event) for event in bad))
    assert merged == {**room.state, TOPIC: bad[0]}


def test_v1_power_levels_are_taken_in_order_while_they_are_allowed():
    """[A6.02]"""
    room = standard_room("1")
    own = {"users": {CREATOR: 100, MOD: 50}}
    levels = [
        room.make("m.room.power_levels", content, sender=sender, key="", depth=depth)
        for depth, sender, content in (
            (30, CREATOR, {**own, "kick": 30}),
            (31, MOD, {**own, "kick": 31}),
            (32, BOB, {**own, "kick": 32}),  # not allowed: stop here
            (33, CREATOR, {**own, "kick": 33}),
        )
    ]
    branches = [branch(room, event) for event in levels]
    assert merge(room, *branches)[POWER_LEVELS] is levels[1]


def test_v1_the_first_power_levels_are_taken_unseen():
    """[A6.02]"""
    room = standard_room("1")
    own = {"users": {CREATOR: 100, MOD: 50}}
    bad = room.make("m.room.power_levels", own, sender=BOB, key="", depth=30)
    low = room.make("m.room.power_levels", {"users": {}}, sender=MOD, key="", depth=31)
    # MOD may not take the creator's level away.
    assert merge(room, branch(room, bad), branch(room, low))[POWER_LEVELS] is bad


def test_v1_power_levels_of_the_same_depth_go_by_descending_digest():
    """[A6.02]"""
    room = standard_room("1")
    levels = [room.levels(users={MOD: 50}, kick=kick) for kick in range(6)]
    same = [
        room.make("m.room.power_levels", event.content, sender=CREATOR, key="", depth=40)
        for event in levels
    ]
    winner = min(same, key=digest)
    assert merge(room, *(branch(room, event) for event in same[:3])) is not None
    assert merge(room, *(branch(room, event) for event in same[:4]))[POWER_LEVELS] is min(
        same[:4], key=digest
    )
    assert winner in same


def test_v1_join_rules_are_resolved_under_the_new_power_levels():
    """[A6.02]: power levels first, then join rules, then members, then the rest."""
    room = standard_room("1")
    demoted = room.make(
        "m.room.power_levels", {"users": {CREATOR: 100}}, sender=CREATOR, key="", depth=41
    )
    kept = room.make(
        "m.room.power_levels", {"users": {CREATOR: 100, MOD: 50}}, sender=CREATOR, key="", depth=40
    )
    rules = [
        room.make("m.room.join_rules", {"join_rule": "invite"}, sender=sender, key="", depth=depth)
        for sender, depth in ((CREATOR, 42), (MOD, 43))
    ]
    topics = [state_event(room, TOPIC, sender, depth=44) for sender in (CREATOR, MOD)]
    merged = merge(
        room,
        branch(room, demoted, rules[0], topics[0]),
        branch(room, kept, rules[1], topics[1]),
    )
    assert merged[POWER_LEVELS] is demoted
    assert merged[JOIN_RULES] is rules[0]
    assert merged[TOPIC] is topics[0]


def test_v1_members_are_resolved_under_the_new_join_rules_and_before_the_rest():
    """[A6.02]"""
    room = standard_room("1")
    rules = [
        room.make("m.room.join_rules", {"join_rule": rule}, sender=CREATOR, key="", depth=depth)
        for rule, depth in (("public", 40), ("invite", 41))
    ]
    new = "@new:three.test"
    left = room.make("m.room.member", {"membership": "leave"}, sender=CREATOR, key=new, depth=42)
    join = room.make("m.room.member", {"membership": "join"}, sender=new, key=new, depth=43)
    merged = merge(room, branch(room, rules[0], join), branch(room, rules[1], left))
    assert merged[JOIN_RULES] is rules[1]
    assert merged[member(new)] is left
    # A kicked moderator's topic is not allowed any more.
    kick = room.make("m.room.member", {"membership": "leave"}, sender=CREATOR, key=MOD, depth=44)
    back = room.make("m.room.member", {"membership": "join"}, sender=MOD, key=MOD, depth=43)
    topics = [state_event(room, TOPIC, sender, depth=45) for sender in (CREATOR, MOD)]
    merged = merge(room, branch(room, kick, topics[0]), branch(room, back, topics[1]))
    assert merged[member(MOD)] is kick
    assert merged[TOPIC] is topics[0]


@pytest.mark.parametrize("type_", ["m.room.power_levels", "m.room.join_rules", "m.room.member"])
def test_v1_conflicts_about_authorisation_stop_at_the_first_refusal(type_):
    """[A6.02]: while of other conflicts the highest allowed event wins."""
    room = standard_room("1")
    content = {"join_rule": "public", "membership": "ban", "users": {CREATOR: 100, MOD: 50}}
    key = BOB if type_ == "m.room.member" else ""
    events = [
        room.make(type_, content, sender=sender, key=key, depth=depth)
        for sender, depth in ((CREATOR, 50), ("@outsider:a", 51), (CREATOR, 52))
    ]
    merged = merge(room, *(branch(room, event) for event in events))
    assert merged[type_, key] is events[0]


def test_v1_events_don_t_bring_their_own_auth_events():
    """[A6.02], [A6.03]: only R counts."""
    room = standard_room("1")
    new = "@new:three.test"
    room.member(new, "join")
    room.levels(users={MOD: 50, new: 50})
    levels = room.state[POWER_LEVELS]
    topics = [state_event(room, TOPIC, new, depth=depth) for depth in (50, 51)]
    rules = [
        room.make("m.room.join_rules", {"join_rule": "invite"}, sender=sender, key="", depth=depth)
        for sender, depth in ((MOD, 52), (new, 53))
    ]
    del room.state[member(new)]  # though the events by the new user cite the join
    merged = merge(
        room, branch(room, levels, topics[0], rules[0]), branch(room, levels, topics[1], rules[1])
    )
    assert merged[TOPIC] is topics[0]  # neither is allowed: the older
    assert merged[JOIN_RULES] is rules[0]


# --- version 2 and later


@FROM_V2
def test_v2_a_ban_in_one_branch_beats_what_the_banned_user_did_in_the_other(version):
    """[A6.04], T012"""
    room = standard_room(version)
    ban = room.make("m.room.member", {"membership": "ban"}, sender=CREATOR, key=MOD)
    topic = state_event(room, TOPIC, MOD)
    merged = merge(room, branch(room, ban), branch(room, topic))
    assert merged[member(MOD)] is ban
    assert TOPIC not in merged


@FROM_V2
def test_v2_a_kick_is_a_power_event_and_a_leave_is_not(version):
    """[A6.04]"""
    room = standard_room(version)
    topic = state_event(room, TOPIC, MOD, origin_server_ts=1)
    for sender, wins in ((CREATOR, False), (MOD, True)):
        # After the topic by the clock: only a power event is applied before it all the same.
        leave = room.make(
            "m.room.member", {"membership": "leave"}, sender=sender, key=MOD, origin_server_ts=10**9
        )
        merged = merge(room, branch(room, leave), branch(room, topic))
        assert merged[member(MOD)] is leave
        assert (TOPIC in merged) is wins


@FROM_V2
def test_v2_a_demotion_beats_the_demoted_user_s_power_levels_whatever_the_clock_says(version):
    """T021, T024: the sender's power comes before the timestamp."""
    for ts in (0, -(2**53) + 1, 2**53 - 1):
        room = standard_room(version)
        demotion = room.make(
            "m.room.power_levels", room.level_content({"ban": 77}), sender=CREATOR, key=""
        )
        hostile = room.make(
            "m.room.power_levels",
            room.level_content({"users": {MOD: 50, BOB: 50}}),
            sender=MOD,
            key="",
            origin_server_ts=ts,
        )
        merged = merge(room, branch(room, demotion), branch(room, hostile))
        assert merged[POWER_LEVELS] is demotion


@FROM_V2
def test_v2_events_of_equal_senders_go_by_timestamp_and_then_by_id(version):
    """[A6.08]"""
    room = standard_room(version)
    for stamps in ((5, 6), (6, 5), (5, 5)):
        rules = [
            room.make(
                "m.room.join_rules",
                {"join_rule": rule},
                sender=CREATOR,
                key="",
                origin_server_ts=ts,
            )
            for rule, ts in zip(("invite", "public"), stamps, strict=True)
        ]
        last = max(rules, key=lambda event: (event.origin_server_ts, event.event_id))
        merged = merge(room, *(branch(room, event) for event in rules))
        assert merged[JOIN_RULES] is last


@FROM_V2
def test_v2_power_counts_as_the_event_s_own_auth_events_say(version):
    """[A6.08]: not as the state of the branch says."""
    room = standard_room(version)
    lowly = room.make(
        "m.room.join_rules", {"join_rule": "invite"}, sender=MOD, key="", origin_server_ts=1
    )
    room.levels(users={MOD: 99})
    high = room.make(
        "m.room.join_rules", {"join_rule": "public"}, sender=MOD, key="", origin_server_ts=2
    )
    # The later one comes first, having been sent with more power; so the other one is the last.
    merged = merge(room, branch(room, lowly), branch(room, high))
    assert merged[JOIN_RULES] is lowly


@FROM_V2
def test_v2_without_power_levels_the_creator_comes_first(version):
    """[A6.08]: 100 for the creator, infinity in version 12, 0 for others."""
    room = Room(version)
    room.member(CREATOR, "join")
    room.join_rule("public")
    room.member(BOB, "join")
    mine = room.make(
        "m.room.member", {"membership": "ban"}, sender=CREATOR, key=BOB, origin_server_ts=10**9
    )
    theirs = room.make(
        "m.room.join_rules", {"join_rule": "invite"}, sender=BOB, key="", origin_server_ts=1
    )
    merged = merge(room, branch(room, mine), branch(room, theirs))
    assert merged[member(BOB)] is mine
    assert merged[JOIN_RULES] is room.state[JOIN_RULES]


@pytest.mark.parametrize("version", [str(number) for number in range(2, 12)])
def test_v2_a_second_create_event_gives_its_sender_no_power(version):
    """[A6.08]: it cites nothing, so whoever cites it waits for events of more power."""
    room = Room(version)
    join = room.member(CREATOR, "join")
    content = {"room_version": version, "creator": CREATOR, "second": True}
    second = room.make(
        "m.room.create", content, sender=CREATOR, key="", auth=[], prev=[], origin_server_ts=1
    )
    levels = {"users": {CREATOR: 100}}
    citing, other = (
        room.make(
            "m.room.power_levels",
            levels,
            sender=CREATOR,
            key="",
            auth=[create, join],
            origin_server_ts=ts,
        )
        for create, ts in ((second, 2), (room.create, 3))
    )
    merged = merge(room, branch(room, citing), branch(room, other))
    assert merged[POWER_LEVELS] is citing  # the last one applied


@FROM_V2
def test_v2_auth_events_of_power_events_are_applied_before_them(version):
    """[A6.05]: "enlarge X by adding the events in the auth chain of P"."""
    room = standard_room(version)
    new = "@new:three.test"
    trunk = dict(room.state)
    join = room.member(new, "join")
    levels = room.levels(users={new: 60, MOD: 50})
    ban = room.make("m.room.member", {"membership": "ban"}, sender=new, key=BOB)
    side = {**trunk, member(new): join, POWER_LEVELS: levels, member(BOB): ban}
    merged = merge(room, trunk, side)
    assert merged == side


@FROM_V2
def test_v2_the_mainline_orders_what_is_no_power_event(version):
    """[A6.09]: what was sent under older power levels comes first, whatever the clock says."""
    room = standard_room(version)
    under_old = state_event(room, TOPIC, CREATOR, origin_server_ts=10**9)
    older = dict(room.state)
    levels = room.levels(users={MOD: 50}, ban=60)
    under_new = state_event(room, TOPIC, CREATOR, origin_server_ts=1)
    merged = merge(room, {**older, TOPIC: under_old}, {**room.state, TOPIC: under_new})
    assert merged[POWER_LEVELS] is levels
    assert merged[TOPIC] is under_new


@FROM_V2
def test_v2_events_outside_of_the_mainline_come_first(version):
    """[A6.09]: position infinity."""
    room = Room(version)
    room.member(CREATOR, "join")
    early = state_event(room, TOPIC, CREATOR, origin_server_ts=10**9)
    older = dict(room.state)
    room.levels()
    late = state_event(room, TOPIC, CREATOR, origin_server_ts=1)
    merged = merge(room, {**older, TOPIC: early}, {**room.state, TOPIC: late})
    assert merged[TOPIC] is late


@FROM_V2
def test_v2_within_a_mainline_position_timestamp_and_id_decide(version):
    """[A6.09]"""
    room = standard_room(version)
    for stamps in ((5, 6), (6, 5), (5, 5)):
        topics = [state_event(room, TOPIC, CREATOR, origin_server_ts=ts) for ts in stamps]
        last = max(topics, key=lambda event: (event.origin_server_ts, event.event_id))
        merged = merge(room, *(branch(room, topic) for topic in topics))
        assert merged[TOPIC] is last


@FROM_V2
def test_v2_the_mainline_is_that_of_the_resolved_power_levels(version):
    """[A6.09]: events under the levels that lost meet the mainline further back."""
    room = standard_room(version)
    trunk = dict(room.state)
    main = room.levels(users={MOD: 50}, ban=45)
    on_main = state_event(room, TOPIC, CREATOR, origin_server_ts=10**9)
    room.state = dict(trunk)
    side = room.make(
        "m.room.power_levels",
        room.level_content({"users": {MOD: 50}, "kick": 40}),
        sender=MOD,
        key="",
    )
    room.state = {**trunk, POWER_LEVELS: side}
    deeper = room.make(
        "m.room.power_levels",
        room.level_content({"users": {MOD: 50}, "kick": 41}),
        sender=MOD,
        key="",
        origin_server_ts=2,
    )
    room.state[POWER_LEVELS] = deeper
    on_side = state_event(room, TOPIC, CREATOR, origin_server_ts=1)
    first = {**trunk, POWER_LEVELS: main, TOPIC: on_main}
    second = {**trunk, POWER_LEVELS: deeper, TOPIC: on_side}
    merged = merge(room, first, second)
    # The moderator's levels are applied last, so they are the mainline, and the creator's topic
    # under the other levels meets it further back.
    assert merged[POWER_LEVELS] is deeper
    assert merged[TOPIC] is on_side


@FROM_V2
def test_v2_power_levels_off_the_mainline_are_passed_once_and_remembered(version):
    """[A6.09], T007: all events under the same side levels have the same position."""
    room = standard_room(version)
    older = dict(room.state)
    under_old = state_event(room, TOPIC, CREATOR, origin_server_ts=500)
    room.levels(users={MOD: 50}, ban=51)
    trunk = dict(room.state)
    # Levels that lost long ago: nobody's state holds them, but what is shared cites them too, so
    # they are in every auth chain and are not replayed.
    room.levels(users={MOD: 50}, ban=52)
    room.levels(users={MOD: 50}, ban=53)
    shared = state_event(room, NAME, CREATOR)
    topics = [state_event(room, TOPIC, CREATOR, origin_server_ts=100 + n) for n in range(12)]
    room.state = dict(trunk)
    room.levels(users={MOD: 50}, ban=54)
    states = [
        {**room.state, NAME: shared, TOPIC: under_old},
        *({**room.state, NAME: shared, TOPIC: topic} for topic in topics),
        {**trunk, NAME: shared},
    ]
    sets = [{key: event.event_id for key, event in state.items()} for state in states]
    merged = resolve(room.rules, sets, room, room.create.event_id)
    assert merged[POWER_LEVELS] == room.state[POWER_LEVELS].event_id
    assert merged[TOPIC] == topics[-1].event_id
    assert older[POWER_LEVELS].event_id in under_old.auth_event_ids


@FROM_V2
def test_v2_which_events_are_power_events(version):
    """rooms/v2, "Power events" """
    room = standard_room(version)

    def is_power(type_: str, sender: str, key: str | None, **content) -> bool:
        return _is_power_event(room.make(type_, content, sender=sender, key=key))

    for type_ in ("m.room.power_levels", "m.room.join_rules"):
        assert is_power(type_, MOD, "")
        assert is_power(type_, MOD, "odd")
        assert not is_power(type_, MOD, None)
    for membership in ("leave", "ban"):
        assert is_power("m.room.member", MOD, BOB, membership=membership)
        assert not is_power("m.room.member", MOD, MOD, membership=membership)
        assert not is_power("m.room.member", MOD, None, membership=membership)
    for membership in ("join", "invite", "knock", None, ["ban"]):
        assert not is_power("m.room.member", MOD, BOB, membership=membership)
    assert not is_power("m.room.member", MOD, BOB)
    for type_ in ("m.room.create", "m.room.topic", "m.room.third_party_invite"):
        assert not is_power(type_, MOD, "", membership="ban")


@FROM_V2
def test_v2_rejected_auth_events_do_not_stand_in_for_missing_state(version):
    """[A6.10]"""
    room = standard_room(version)
    new = "@new:three.test"
    trunk = dict(room.state)
    join = room.member(new, "join")
    levels = room.levels(users={new: 60})
    # In both states, so that the join is in every auth chain and is not itself replayed.
    shared = {**trunk, POWER_LEVELS: levels, NAME: state_event(room, NAME, new)}
    topic = state_event(room, TOPIC, new)
    # Nobody's state holds the join; the topic's own auth events do.
    assert merge(room, {**shared, TOPIC: topic}, shared)[TOPIC] is topic
    room.rejected.add(join.event_id)
    assert merge(room, {**shared, TOPIC: topic}, shared) == shared


@FROM_V2
def test_v2_own_auth_events_count_only_where_the_state_has_nothing(version):
    """[A6.10]"""
    room = standard_room(version)
    topic = state_event(room, TOPIC, MOD)
    demotion = room.make("m.room.power_levels", room.level_content({}), sender=CREATOR, key="")
    merged = merge(room, branch(room, demotion), branch(room, topic))
    assert TOPIC not in merged


@FROM_V2
def test_v2_what_all_branches_share_stays(version):
    """[A6.05] step 5"""
    room = standard_room(version)
    ban = room.make("m.room.member", {"membership": "ban"}, sender=CREATOR, key=MOD)
    shared = state_event(room, NAME, MOD)
    one = branch(room, ban, shared)
    two = branch(room, shared)
    assert merge(room, one, two)[NAME] is shared


@FROM_V2
def test_v2_more_than_two_branches(version):
    room = standard_room(version)
    topics = [state_event(room, TOPIC, sender, origin_server_ts=9) for sender in (MOD, CREATOR)]
    ban = room.make("m.room.member", {"membership": "ban"}, sender=CREATOR, key=BOB)
    merged = merge(room, *(branch(room, event) for event in (*topics, ban)))
    assert merged[member(BOB)] is ban
    assert merged[TOPIC] is max(topics, key=lambda event: event.event_id)


@FROM_V2
def test_v2_the_auth_difference_counts_chains_of_shared_state_too(version):
    """[A6.12]: an event that only one branch's conflicted events lead to is in every auth chain
    if shared state leads to it as well; then it is not replayed."""
    room = standard_room(version)
    new = "@new:three.test"
    room.member(new, "invite", by=CREATOR)
    trunk = dict(room.state)
    # A ban and its lifting: the ban is in the chain of the new invite.
    room.member(new, "ban", by=CREATOR)
    room.member(new, "leave", by=CREATOR)
    final = room.member(new, "invite", by=MOD)
    shared_state = {**trunk, member(new): final}
    one = {**shared_state, TOPIC: state_event(room, TOPIC, CREATOR, origin_server_ts=5)}
    kick = room.make("m.room.member", {"membership": "leave"}, sender=CREATOR, key=new)
    two = {**shared_state, TOPIC: state_event(room, TOPIC, MOD, origin_server_ts=6)}
    merged = merge(room, one, two)
    assert merged[member(new)] is final
    assert merged[TOPIC] is two[TOPIC]
    assert merge(room, {**one, member(new): kick}, one)[member(new)] is kick


# --- MSC4297: what changed in version 2.1


def problem_a(version: str) -> tuple[Room, dict, dict, Event]:
    """Alice sets join rules twice and leaves; one state is out of date about the join rules."""
    room = Room(version)
    room.member(CREATOR, "join")
    room.levels(users={ALICE: 100} if version == "12" else {ALICE: 100, CREATOR: 100})
    room.join_rule("public")
    room.member(ALICE, "join")
    room.member(BOB, "join")
    old = room.join_rule("invite", by=ALICE)
    new = room.join_rule("public", by=ALICE)
    room.member(ALICE, "leave")
    current = dict(room.state)
    return room, current, {**current, JOIN_RULES: old}, new


def test_msc4297_problem_a_does_not_lose_the_join_rules_in_version_12():
    """T020, [A6.06]"""
    room, current, outdated, new = problem_a("12")
    assert merge(room, current, outdated) == current
    assert current[JOIN_RULES] is new


def test_msc4297_problem_a_loses_them_before():
    """The flaw that version 2.1 mends: both are refused, Alice having left."""
    room, current, outdated, _ = problem_a("11")
    assert JOIN_RULES not in merge(room, current, outdated)


def problem_b(version: str) -> tuple[Room, dict, dict, list[Event]]:
    """Alice promotes Bob, Bob promotes Carol; one state is out of date about the power levels."""
    room = Room(version)
    room.member(CREATOR, "join")
    room.join_rule("public")
    for user in (ALICE, BOB, CAROL):
        room.member(user, "join")
    top = {ALICE: 100} if version == "12" else {ALICE: 100, CREATOR: 100}
    first = room.levels(users=top)
    second = room.levels(by=ALICE, users={**top, BOB: 90})
    third = room.levels(by=BOB, users={**top, BOB: 90, CAROL: 80})
    # Both branches know the newest levels by their auth chains.
    room.member(ALICE, "join", displayname="one")
    one = dict(room.state)
    room.member(ALICE, "join", displayname="two")
    two = {**room.state, POWER_LEVELS: first}
    return room, one, two, [first, second, third]


def test_msc4297_problem_b_keeps_the_newest_power_levels_in_version_12():
    """T020, [A6.06]: the conflicted state subgraph replays Bob's promotion."""
    room, one, two, levels = problem_b("12")
    assert merge(room, one, two)[POWER_LEVELS] is levels[2]


def test_msc4297_problem_b_goes_back_before():
    """The flaw that version 2.1 mends: Bob's promotion is not replayed."""
    room, one, two, levels = problem_b("11")
    assert merge(room, one, two)[POWER_LEVELS] is levels[0]


def test_version_12_knows_its_create_event_by_the_room_id():
    """[A6.07]: it is in no auth events and not in the empty state."""
    room = standard_room("12")
    topic = state_event(room, TOPIC, CREATOR)
    assert merge(room, {TOPIC: topic}, {})[TOPIC] is topic


@pytest.mark.parametrize("version", ["2", "6", "9"])
def test_v2_a_sender_whose_level_cannot_be_read_counts_as_zero_in_the_power_order(version):
    """The text is silent; nobody can be let in by such a level, but the order needs a number."""
    room = standard_room(version)
    odd = room.make(
        "m.room.power_levels",
        room.level_content({"users": {MOD: 50}, "users_default": "odd"}),
        sender=CREATOR,
        key="",
    )
    branches = []
    for levels in (room.state[POWER_LEVELS], odd):
        room.state[POWER_LEVELS] = levels
        rules = state_event(room, JOIN_RULES, BOB, content={"join_rule": "public"})
        branches.append(branch(room, rules))
    assert JOIN_RULES not in merge(room, *branches)  # none of them is allowed


@FROM_V2
def test_v2_links_through_events_that_are_not_in_conflict_order_nothing(version):
    """The graph that is sorted is that of the events to be sorted, as in all servers; in version
    2.1 the events between conflicted ones are among them."""
    room = standard_room(version)
    first = room.join_rule("invite")
    between = room.member(CREATOR, "join", displayname="x")
    # Cites the member event above, which cites the join rules; its timestamp is earlier.
    second = room.make(
        "m.room.join_rules", {"join_rule": "public"}, sender=CREATOR, key="", origin_server_ts=1
    )
    assert first.event_id in between.auth_event_ids
    assert between.event_id in second.auth_event_ids
    cites_between = state_event(room, TOPIC, CREATOR)  # so that it is in all auth chains
    assert between.event_id in cites_between.auth_event_ids
    merged = merge(room, branch(room, cites_between, first), branch(room, cites_between, second))
    assert merged[JOIN_RULES] is (second if version == "12" else first)


# --- hostile graphs


@pytest.mark.parametrize("version", ["1", "2"])
def test_cycles_of_auth_events_end(version):
    """T007: in versions 1 and 2 anybody can make them."""
    room = standard_room(version)
    levels = room.state[POWER_LEVELS]

    def cyclic(number: int, other: int, type_: str, content: dict) -> Event:
        auth = [[room.create.event_id, {}], [f"$cycle{other}:one.test", {}]]
        auth += [[levels.event_id, {}], [room.state[member(CREATOR)].event_id, {}]]
        return room.make(
            type_,
            content,
            sender=CREATOR,
            key="",
            event_id=f"$cycle{number}:one.test",
            auth_events=auth,
        )

    ring = [
        cyclic(0, 1, "m.room.power_levels", room.level_content({"ban": 60})),
        cyclic(1, 2, "m.room.power_levels", room.level_content({"ban": 70})),
        cyclic(2, 0, "m.room.join_rules", {"join_rule": "invite"}),
        cyclic(3, 3, "m.room.topic", {}),
        cyclic(4, 5, "m.room.name", {}),
        cyclic(5, 4, "m.room.name", {}),
    ]
    merged = merge(
        room,
        branch(room, ring[0], ring[2], ring[3], ring[4]),
        branch(room, ring[1], ring[5]),
        room.state,
    )
    assert merged[member(CREATOR)] is room.state[member(CREATOR)]
    if version == "2":
        # Events in their own auth chain are never applied as power events.
        assert merged[POWER_LEVELS] is levels
        assert merged[JOIN_RULES] is room.state[JOIN_RULES]


def test_mainlines_that_run_in_a_circle_end():
    """T007"""
    room = standard_room("2")
    pair = []
    for number, other in ((1, 2), (2, 1)):
        pair.append(
            room.make(
                "m.room.power_levels",
                room.level_content({}),
                sender=CREATOR,
                key="",
                event_id=f"$levels{number}:one.test",
                auth_events=[[f"$levels{other}:one.test", {}]],
            )
        )
    room.state[POWER_LEVELS] = pair[0]
    topics = [
        state_event(room, TOPIC, CREATOR, origin_server_ts=ts, auth_events=[[pair[1].event_id, {}]])
        for ts in (1, 2)
    ]
    merged = merge(room, *(branch(room, topic) for topic in topics))
    assert merged[TOPIC] is topics[1]


def long_room(version: str, count: int) -> tuple[Room, dict, dict]:
    """Power levels changed `count` times in each of two branches, each citing the last."""
    room = standard_room(version)
    trunk = dict(room.state)
    ends = []
    for branch_number in (1, 2):
        room.state = dict(trunk)
        for number in range(count):
            room.levels(users={MOD: 50}, ban=50 + number % 40, kick=branch_number)
        ends.append({**room.state, TOPIC: state_event(room, TOPIC, CREATOR)})
    return room, ends[0], ends[1]


@pytest.mark.parametrize("version", VERSIONS)
def test_chains_of_thousands_resolve_under_a_recursion_limit_of_200(version):
    """T007"""
    room, one, two = long_room(version, 400)
    frames, frame = 0, sys._getframe()
    while frame is not None:
        frames, frame = frames + 1, frame.f_back
    before = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(frames + 200)
        merged = merge(room, one, two)
    finally:
        sys.setrecursionlimit(before)
    assert merged[POWER_LEVELS] in (one[POWER_LEVELS], two[POWER_LEVELS])


@pytest.mark.parametrize("version", ["1", "2", "12"])
def test_nearly_equal_states_of_thousands_of_members_resolve_quickly(version):
    """T016: 3 differences in 5,000 entries."""
    room = standard_room(version)
    for number in range(5000):
        room.member(f"@user{number}:two.test", "join")
    one = {**room.state, TOPIC: state_event(room, TOPIC, CREATOR)}
    room.levels(users={MOD: 50}, ban=51)
    two = {**room.state, TOPIC: state_event(room, TOPIC, MOD), NAME: state_event(room, NAME, MOD)}
    sets = [{key: event.event_id for key, event in state.items()} for state in (one, two)]
    start = time.process_time()
    merged = resolve(room.rules, sets, room, room.create.event_id)
    assert time.process_time() - start < within(2)
    assert merged[POWER_LEVELS] == two[POWER_LEVELS].event_id
    assert merged[TOPIC] == two[TOPIC].event_id
    assert len(merged) == len(two)


def test_events_that_are_no_state_take_no_part():
    room = standard_room("11")
    message = room.make("m.room.message", {}, sender=CREATOR)
    odd = room.make("m.room.topic", {}, sender=CREATOR, key="", auth=[room.create, message])
    topic = state_event(room, TOPIC, CREATOR)
    merged = merge(room, branch(room, odd), branch(room, topic))
    assert set(merged) == {*room.state, TOPIC}
    assert merged[CREATE] is room.create
