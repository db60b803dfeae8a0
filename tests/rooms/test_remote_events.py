"""The path that an event of another server takes, once its hash and signatures are known good.

Matrix v1.19, Server-Server API, "Checks performed on receipt of a PDU" (4 to 6), "Rejection",
"Soft failure"; T011, T012, T014, T018, T022, T026, T034, T035.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from matrixbox.core.events import parse_event
from matrixbox.errors import Forbidden, NotFound
from matrixbox.rooms import timeline
from matrixbox.rooms.extremities import DUMMY
from matrixbox.store import events, members, names, rooms, snapshots
from matrixbox.store.events import Status
from tests.rooms.far import CREATOR, Graph, key_of
from tests.rooms.house import House, household

ALL = tuple(map(str, range(1, 13)))
MALLORY = "@mallory:evil.test"
BOB = "@bob:far.test"


def ids(state: dict[Any, Any]) -> dict[Any, str]:
    return {key: stored.event.event_id for key, stored in state.items()}


def extremities(house: House, room: Any) -> list[str]:
    def read(tx: Any) -> list[str]:
        head = rooms.head(tx, room)
        assert head is not None
        return [events.by_nid(tx, nid).event.event_id for nid in head.extremities]

    return house.store.read(read)


async def with_local(house: House, graph: Graph) -> tuple[Any, Any]:
    """The household gets the room; its user ann joins it by an event of her own server."""
    ann = await house.user("ann")
    room = await graph.deliver_all(house)
    await house.join(ann, room)
    for stored in house.timeline(room):
        if stored.event.event_id not in graph.events:
            graph.add(stored.event)
    return ann, room


# --- soft failure


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("ban_first", [True, False], ids=["ban first", "topic first"])
async def test_t012_the_specifications_example_of_ban_evasion(version, ban_first):
    """A - B (ban), A - C (topic by the banned), then D that cites both, in both orders."""
    async with household() as house:
        graph = Graph(version)
        graph.begin(MALLORY, BOB, users={MALLORY: 50})
        ann, room = await with_local(house, graph)
        a = graph.last()
        b = graph.make("m.room.member", CREATOR, {"membership": "ban"}, MALLORY, prev=[a])
        c = graph.make("m.room.topic", MALLORY, {"topic": "mine"}, "", prev=[a])
        first, second = (b, c) if ban_first else (c, b)
        await graph.deliver(house, first, second)
        stored = house.stored(c.event_id)
        if ban_first:
            assert stored.status == Status.SOFT_FAILED
            assert stored.pos is None
            with pytest.raises(NotFound):
                house.shown_event(ann, room, c.event_id)
            assert extremities(house, room) == [b.event_id]
            assert ("m.room.topic", "") not in house.state(room)
            said = await house.say(ann, room, "quiet now")
            assert said.event.prev_event_ids == (b.event_id,)
            graph.add(said.event)
            tips = [said.event, c]
        else:
            assert stored.status == Status.ACCEPTED
            assert house.shown_event(ann, room, c.event_id)["content"] == {"topic": "mine"}
            assert extremities(house, room) == [c.event_id, b.event_id]
            tips = [b, c]
        # By the first algorithm the topic wins, later ones prefer the ban.
        wins = version == "1"
        d = graph.make("m.room.message", BOB, {"body": "hello"}, prev=tips)
        (got,) = await graph.deliver(house, d)
        assert got.status == Status.ACCEPTED
        assert got.event.event_id == house.shown(ann, room)[-1]["event_id"]
        assert extremities(house, room) == [d.event_id]
        assert (("m.room.topic", "") in house.state(room)) is wins
        assert house.membership(room, MALLORY) == "ban"
        assert ids(house.state(room)) == graph.after[d.event_id]


@pytest.mark.parametrize("version", ["2", "10", "12"])
async def test_t012_a_banned_users_messages_have_no_effect(version):
    """Neither shown, nor counted, nor related, nor redacting; its children are judged anew."""
    async with household() as house:
        graph = Graph(version)
        graph.begin(MALLORY, BOB)
        ann, room = await with_local(house, graph)
        before = graph.last()
        root = graph.make("m.room.message", BOB, {"body": "root"}, prev=[before])
        ban = graph.make("m.room.member", CREATOR, {"membership": "ban"}, MALLORY, prev=[root])
        await graph.deliver(house, root, ban)
        shown = house.shown(ann, room)
        thread = {"rel_type": "m.thread", "event_id": root.event_id}
        evading = graph.make(
            "m.room.message", MALLORY, {"body": "x", "m.relates_to": thread}, prev=[root]
        )
        leaving = graph.make(
            "m.room.member", MALLORY, {"membership": "leave"}, MALLORY, prev=[evading]
        )
        await graph.deliver(house, evading, leaving)
        for event in (evading, leaving):
            assert house.stored(event.event_id).status == Status.SOFT_FAILED
        assert strip_age(house.shown(ann, room)) == strip_age(shown)
        assert house.store.read(events.relations, root.event_id) == []
        assert extremities(house, room) == [ban.event_id]
        # Who builds on them is let in when the state there, and the current one, allow it.
        child = graph.make("m.room.message", BOB, {"body": "child"}, prev=[leaving])
        (got,) = await graph.deliver(house, child)
        assert got.status == Status.ACCEPTED
        assert set(extremities(house, room)) == {ban.event_id, child.event_id}
        assert house.membership(room, MALLORY) == "ban"


def strip_age(shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**one, "unsigned": {**one["unsigned"], "age": 0}} for one in shown]


# --- rejection


@pytest.mark.parametrize("version", ALL)
async def test_t011_rejected_events_change_nothing_and_their_children_are_judged_alone(version):
    """One event fails its own auth events, one only the state before it; both have children."""
    async with household() as house:
        graph = Graph(version)
        graph.begin(BOB, MALLORY)
        ann, room = await with_local(house, graph)
        tip = graph.last()
        state = ids(house.state(room))
        # By its own auth events: a topic by somebody without the power.
        topic = graph.make("m.room.topic", MALLORY, {"topic": "mine"}, "", prev=[tip])
        # By the state before it only: the auth events still have Mallory in the room.
        ban = graph.make("m.room.member", CREATOR, {"membership": "ban"}, MALLORY, prev=[tip])
        old = graph.cited("m.room.message", MALLORY, None, {}, graph.before[ban.event_id])
        late = graph.make("m.room.message", MALLORY, {"body": "x"}, prev=[ban], auth=old)
        await graph.deliver(house, topic)
        by_auth = Status.REJECTED | Status.REJECTED_BY_AUTH
        assert house.stored(topic.event_id).status == by_auth
        assert ids(house.state(room)) == state
        assert extremities(house, room) == [tip.event_id]
        await graph.deliver(house, ban, late)
        assert house.stored(late.event_id).status == Status.REJECTED
        for child_of, sender in ((topic, BOB), (late, BOB)):
            name = graph.make("m.room.message", sender, {"body": "child"}, prev=[child_of])
            (got,) = await graph.deliver(house, name)
            assert got.status == Status.ACCEPTED
        # An event that names a rejected one as its authority is rejected.
        auth = [*graph.cited("m.room.message", MALLORY, None, {}, graph.after[tip.event_id])]
        loud = graph.make("m.room.message", MALLORY, {"body": "y"}, prev=[tip], auth=[*auth, topic])
        assert loud.event_id in graph.rejected
        await graph.deliver(house, loud)
        assert house.stored(loud.event_id).status & Status.REJECTED
        said = await house.say(ann, room, "we cite what stands")
        cited = {graph.events[i] for i in said.event.prev_event_ids}
        assert not cited & {topic, late, loud}
        assert ("m.room.topic", "") not in house.state(room)
        shown = [event["event_id"] for event in house.shown(ann, room)]
        assert not {topic.event_id, late.event_id, loud.event_id} & set(shown)


@pytest.mark.parametrize("version", ["1", "2", "11", "12"])
async def test_t011_what_lies_behind_a_rejected_event_is_no_extremity(version):
    """Otherwise the state before would fight with the state after, by timestamps (T024)."""
    async with household() as house:
        graph = Graph(version)
        graph.begin(BOB, MALLORY, users={BOB: 50})
        graph.make("m.room.topic", BOB, {"topic": "old"}, "")
        ann, room = await with_local(house, graph)
        tip = graph.last()
        bad = graph.make("m.room.topic", MALLORY, {"topic": "mine"}, "", prev=[tip])
        new = graph.make("m.room.topic", BOB, {"topic": "new"}, "", prev=[bad], origin_server_ts=0)
        await graph.deliver(house, bad, new)
        assert extremities(house, room) == [new.event_id]
        assert house.content(room, "m.room.topic") == {"topic": "new"}
        said = await house.say(ann, room, "hello")
        assert said.event.prev_event_ids == (new.event_id,)


async def test_a_long_chain_of_failed_events_costs_no_long_walk():
    """The walk behind failed parents is bounded (T007, T015)."""
    async with household() as house:
        graph = Graph("11")
        graph.begin(BOB, MALLORY)
        _, room = await with_local(house, graph)
        tip = graph.last()
        for _ in range(30):
            await graph.deliver(house, graph.make("m.room.topic", MALLORY, {}, ""))
        looked_at = []
        original = events.by_id
        try:
            events.by_id = lambda tx, i: looked_at.append(i) or original(tx, i)
            import matrixbox.rooms.extremities as module

            module.MAX_WALK, bound = 10, module.MAX_WALK
            child = graph.make("m.room.message", BOB, {"body": "x"})
            await graph.deliver(house, child)
        finally:
            events.by_id = original
            module.MAX_WALK = bound
        assert len(looked_at) < 30
        assert set(extremities(house, room)) == {tip.event_id, child.event_id}


@pytest.mark.parametrize("version", ALL)
async def test_t026_wrong_auth_events(version):
    """Rule 3: doubled keys, irrelevant events, rejected ones, a missing membership."""
    async with household() as house:
        graph = Graph(version)
        graph.begin(BOB, MALLORY)
        await with_local(house, graph)
        tip = graph.last()
        right = graph.cited("m.room.message", BOB, None, {}, graph.after[tip.event_id])
        create, levels, member = (
            next(iter(graph.events.values())),
            next(e for e in right if e.type == "m.room.power_levels"),
            next(e for e in right if e.type == "m.room.member"),
        )
        other = graph.events[graph.after[tip.event_id]["m.room.member", MALLORY]]
        rules = graph.events[graph.after[tip.event_id]["m.room.join_rules", ""]]
        again = graph.make("m.room.member", BOB, {"membership": "join"}, BOB, prev=[tip])
        bad = graph.make("m.room.power_levels", BOB, {"users": {BOB: 100}}, "", prev=[tip])
        await graph.deliver(house, again, bad)
        wrong = {
            "cited twice": [*right, member],
            "two memberships": [*right, again],
            "somebody else's membership": [*right, other],
            "join rules": [*right, rules],
            "rejected levels": [e for e in right if e is not levels] + [bad],
            "no membership": [e for e in right if e is not member],
            "nothing": [],
        }
        if version == "12":
            wrong["create"] = [create, *right]
        else:
            wrong["no create"] = [e for e in right if e is not create]
        for name, auth in wrong.items():
            event = graph.make("m.room.message", BOB, {"body": name}, prev=[tip], auth=auth)
            (got,) = await graph.deliver(house, event)
            assert got.status & Status.REJECTED_BY_AUTH, name
        # Without the levels every sender counts as if there were none: that is enough to talk.
        fine = graph.make(
            "m.room.message", BOB, {}, prev=[tip], auth=[e for e in right if e is not levels]
        )
        (got,) = await graph.deliver(house, fine)
        assert got.status == Status.ACCEPTED


async def test_parents_and_auth_events_of_another_room():
    """T005, [A5.02]: an event that cites another room's events is rejected, and moves nothing."""
    async with household() as house:
        graph, other = Graph("11"), Graph("11", "other")
        graph.begin(BOB)
        other.begin(BOB, MALLORY)
        _, room = await with_local(house, graph)
        await other.deliver_all(house)
        state, tips = ids(house.state(room)), extremities(house, room)
        tip = graph.last()
        auth = graph.cited("m.room.message", BOB, None, {}, graph.after[tip.event_id])
        foreign = other.cited("m.room.message", BOB, None, {}, other.after[other.last().event_id])
        for prev, cited in (
            ([other.last()], auth),
            ([tip, other.last()], auth),
            ([tip], foreign),
            ([tip], [*auth[:-1], foreign[-1]]),
        ):
            pdu = graph.pdu("m.room.message", BOB, {}, None, prev, cited)
            event = parse_event(graph.rules, graph.signed(pdu, "far.test"))
            (got,) = await graph.deliver(house, event)
            assert got.status & Status.REJECTED_BY_AUTH
            assert got.room == room
            assert ids(house.state(room)) == state
            assert extremities(house, room) == tips


# --- create events


@pytest.mark.parametrize("version", ALL)
async def test_t022_a_second_create_event_is_refused(version):
    """The first accepted create event stays; in version 12 another one is another room."""
    async with household() as house:
        graph = Graph(version)
        graph.begin(BOB)
        _, room = await with_local(house, graph)
        state, tips = ids(house.state(room)), extremities(house, room)
        create = house.store.read(rooms.create_nid, room)
        content = {"room_version": version, "creator": CREATOR, "x": 1}
        for key in ("", "x", None):
            pdu = graph.pdu("m.room.create", CREATOR, content, key, [], [])
            event = parse_event(graph.rules, graph.signed(pdu, "far.test"))
            if version == "12":
                assert event.room_id != graph.room_id
                # What the caller has to ensure, the event's own room being another one, fails.
            (got,) = await graph.deliver(house, event)
            if version == "12" and key == "":
                assert got.room != room
            else:
                assert got.status & Status.REJECTED
            assert house.store.read(rooms.create_nid, room) == create
            assert ids(house.state(room)) == state
            assert extremities(house, room) == tips


@pytest.mark.parametrize("version", ALL)
async def test_t018_a_redacted_create_event_leaves_the_version_alone(version):
    """[A4.12]: redacted by its own sender on another server, in versions 1 to 10 it is bare."""
    async with household() as house:
        graph = Graph(version)
        graph.begin(BOB)
        ann, room = await with_local(house, graph)
        create = next(iter(graph.events.values()))
        place: dict[str, Any] = {"redacts": create.event_id}
        if int(version) >= 11:
            redaction = graph.make("m.room.redaction", CREATOR, place)
        else:
            redaction = graph.make("m.room.redaction", CREATOR, {}, **place)
        await graph.deliver(house, redaction)
        house.store.caches.clear()
        bare = house.content(room, "m.room.create")
        assert ("room_version" in bare) is (int(version) >= 11)
        assert house.store.read(rooms.rules, room).version == version
        said = await house.say(ann, room, "still the same rules")
        assert said.event.rules.version == version
        graph.add(said.event)
        assert said.event.event_id not in graph.rejected
        levels = graph.make("m.room.name", CREATOR, {"name": "still the creator"}, "")
        (got,) = await graph.deliver(house, levels)
        assert got.status == Status.ACCEPTED


# --- memberships that others make up


@pytest.mark.parametrize("version", ["1", "8", "11", "12"])
async def test_t034_nobody_else_can_make_our_users_join_or_leave(version):
    """A join, leave, knock or profile change must be the user's own; invitations and kicks not."""
    async with household() as house:
        graph = Graph(version)
        graph.begin(BOB)
        ann, room = await with_local(house, graph)
        bo = "@bo:home.test"
        for membership, target in itertools.product(("join", "knock", "leave"), (ann.user_id, bo)):
            event = graph.make("m.room.member", BOB, {"membership": membership}, target)
            await graph.deliver(house, event)
            assert house.stored(event.event_id).status & Status.REJECTED
            graph.rejected.add(event.event_id)
        assert house.membership(room, ann.user_id) == "join"
        assert house.membership(room, bo) is None


@pytest.mark.parametrize("version", ["8", "9", "10", "11", "12"])
async def test_t035_authorising_a_join_takes_a_signature(version):
    """`join_authorised_via_users_server` without its server's signature: on any membership."""
    async with household() as house:
        graph = Graph(version)
        graph.begin(BOB, join_rule="restricted" if int(version) < 10 else "knock_restricted")
        for user in ("@ann:home.test",):
            graph.make("m.room.member", CREATOR, {"membership": "invite"}, user)
        ann = await house.user("ann")
        room = await graph.deliver_all(house)
        await house.join(ann, room)
        graph.add(house.timeline(room)[-1].event)
        tip, guest = graph.last(), "@guest:far.test"

        def forged(membership: str, via: Any, *servers: str) -> Any:
            content = {"membership": membership, "join_authorised_via_users_server": via}
            auth = graph.cited("m.room.member", guest, guest, content, graph.after[tip.event_id])
            pdu = graph.pdu("m.room.member", guest, content, guest, [tip], auth)
            return graph.add(parse_event(graph.rules, graph.signed(pdu, *servers)))

        for via, servers in (
            (ann.user_id, ("far.test",)),
            (5, ("far.test",)),
            ("nobody", ("far.test",)),
            ("@stranger:home.test", ("far.test", "home.test")),  # not in the room
        ):
            for membership in ("join", "knock", "leave"):
                if membership == "knock" and int(version) < 10:
                    continue
                if (membership, via) == ("knock", "@stranger:home.test"):
                    continue  # with the signature, a knock is a knock
                (got,) = await graph.deliver(house, forged(membership, via, *servers))
                assert got.status & Status.REJECTED, (membership, via)
        (got,) = await graph.deliver(house, forged("join", ann.user_id, "far.test", "home.test"))
        assert got.status == Status.ACCEPTED
        assert house.membership(room, guest) == "join"
        assert key_of("home.test").key_id in got.event.json["signatures"]["home.test"]


# --- extremities


async def forked(house: House, forks: int, *, with_state: bool) -> tuple[Any, Any, Graph]:
    """A room with many events that have the same old parent."""
    graph = Graph("11")
    graph.begin(BOB, users={BOB: 100})
    ann, room = await with_local(house, graph)
    tip = graph.last()
    for number in range(forks):
        key = str(number) if with_state else None
        event = graph.make("x.fork", BOB, {"n": number}, key, prev=[tip])
        await graph.deliver(house, event)
    return ann, room, graph


@pytest.mark.parametrize("with_state", [False, True], ids=["messages", "state"])
async def test_t014_many_forks_are_joined_by_events_that_nobody_sees(with_state):
    """At most ten extremities, each state kept, and our own events cite at most ten."""
    async with household() as house:
        ann, room, _ = await forked(house, 60, with_state=with_state)
        assert len(extremities(house, room)) <= 10
        said = await house.say(ann, room, "hello")
        assert len(said.event.prev_event_ids) <= 10
        assert extremities(house, room) == [said.event.event_id]
        shown = house.shown(ann, room)
        assert [one["content"]["n"] for one in shown if one["type"] == "x.fork"] == list(range(60))
        assert all(one["type"] != DUMMY for one in shown)
        if with_state:
            keys = {key for kind, key in house.state(room) if kind == "x.fork"}
            assert keys == {str(number) for number in range(60)}

        def dummies(tx: Any) -> list[Any]:
            rows = tx.run("SELECT nid FROM event")
            stored = [events.by_nid(tx, row[0]) for row in rows]
            return [one for one in stored if one.event.type == DUMMY]

        found = house.store.read(dummies)
        assert found
        for one in found:
            assert one.status == Status.ACCEPTED
            assert one.pos is None
            assert one.event.sender == ann.user_id
            assert len(one.event.prev_event_ids) <= 10
            with pytest.raises(NotFound):
                house.look(ann, room, timeline.event, one.event.event_id)


async def test_t014_where_nobody_here_may_join_them_our_events_still_cite_at_most_ten():
    """The state before such an event is that of what it cites, as others will compute it."""
    async with household() as house:
        graph = Graph("11")
        graph.begin(BOB, users={BOB: 100, "@ann:home.test": 10}, events_default=20, invite=0)
        ann, room = await with_local(house, graph)
        tip = graph.last()
        made = [graph.make("x.fork", BOB, {}, str(n), prev=[tip]) for n in range(15)]
        await graph.deliver(house, *made)
        assert len(extremities(house, room)) == 15
        left = (await house.write(leave, ann, room)).event
        assert set(left.prev_event_ids) == {event.event_id for event in made[5:]}
        graph.add(left)
        before = snapshot_before(house, left.event_id)
        assert before == graph.before[left.event_id]
        assert len(before) == len(graph.after[tip.event_id]) + 10
        assert set(extremities(house, room)) == {
            left.event_id,
            *(event.event_id for event in made[:5]),
        }
        assert house.membership(room, ann.user_id) == "leave"
        with pytest.raises(Forbidden):
            await house.say(ann, room, "out")


def leave(tx: Any, env: Any, who: Any, room: Any) -> Any:
    from matrixbox.rooms import membership

    return membership.leave(tx, env, who, room)


def snapshot_before(house: House, event_id: str) -> dict[Any, str]:
    def read(tx: Any) -> dict[Any, str]:
        stored = events.by_id(tx, event_id)
        assert stored is not None
        found = snapshots.state(tx, stored.snapshot)
        return {
            names.slot_key(tx, slot): events.by_nid(tx, nid).event.event_id
            for slot, nid in found.items()
        }

    return house.store.read(read)


async def test_t014_the_cost_of_a_message_stays_flat():
    """After 600 forks the tenth message takes at most three times as long as in a quiet room."""

    async def tenth(forks: int) -> float:
        async with household() as house:
            ann, room, _ = await forked(house, forks, with_state=True)
            for number in range(9):
                await house.say(ann, room, str(number))
            times = []
            for number in range(5):
                began = time.perf_counter()
                await house.say(ann, room, str(number))
                times.append(time.perf_counter() - began)
            return min(times)

    assert await tenth(600) <= 3 * await tenth(1)


async def test_members_follow_the_current_state_of_a_fork():
    """The table of members, its counts and what invited users may know follow resolution."""
    async with household() as house:
        graph = Graph("11")
        graph.begin(BOB)
        ann, room = await with_local(house, graph)
        tip = graph.last()
        bo = await house.user("bo")
        invite = graph.make("m.room.member", BOB, {"membership": "invite"}, bo.user_id, prev=[tip])
        await graph.deliver(house, invite)
        assert house.store.read(members.get, room, bo.user).membership.word == "invite"
        assert house.store.read(members.stripped, room, bo.user) is not None
        # On another branch BOB is banned, so that the invitation does not stand there.
        ban = graph.make("m.room.member", CREATOR, {"membership": "ban"}, BOB, prev=[tip])
        await graph.deliver(house, ban)
        wanted = graph.resolved([graph.after[invite.event_id], graph.after[ban.event_id]])
        assert ids(house.state(room)) == wanted
        present = house.store.read(members.get, room, bo.user)
        in_state = ("m.room.member", bo.user_id) in wanted
        assert present.membership.word == ("invite" if in_state else "leave")
        assert house.store.read(members.get, room, names_of(house, BOB)).membership.word == "ban"
        joined = {user for (kind, user) in wanted if kind == "m.room.member"}
        assert ann.user_id in joined


def names_of(house: House, user_id: str) -> Any:
    return house.store.read(names.user_nid, user_id)
