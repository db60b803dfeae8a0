"""Every change of a membership, by everybody, from everywhere, against a literal table.

Matrix v1.19, Client-Server API, "Room membership" ([C11.01] to [C11.06], [C10.04], [A5.06] to
[A5.14]); T034, T035.
"""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define

from matrixbox.core.json import encode
from matrixbox.errors import (
    BadJson,
    BadState,
    Forbidden,
    InvalidParam,
    InviteBlocked,
    MatrixError,
    NotFound,
    UnableToAuthoriseJoin,
    UnableToGrantJoin,
    Unknown,
)
from matrixbox.rooms import membership, profiles, state_reading
from matrixbox.rooms.create import StateDraft
from matrixbox.store import account_data, accounts, members, names
from matrixbox.store.account_data import GLOBAL, Entry
from matrixbox.store.accounts import AccountState
from tests.rooms import membership_table as table
from tests.rooms.house import House, household
from tests.rooms.membership_table import ACTORS, Actor, Case

# Each version whose rules about members differ from those of the one before.
VERSIONS = ("1", "6", "7", "8", "10", "11", "12")
LEVELS = {"invite": table.INVITE, "kick": table.KICK, "ban": table.BAN}
MEMBER = "m.room.member"


@define
class Scene:
    """A room with one actor of each kind and a target."""

    house: House
    room: Any
    allowed: Any  # the room whose members restricted joins are for
    owner: Any
    target: Any
    people: dict[str, Any]

    async def prepare(self, case: Case) -> None:
        """Bring the target to where the case begins, then set the join rule."""
        house, room, target = self.house, self.room, self.target
        if case.before == "knock":
            await house.set_state(self.owner, room, *join_rule("knock"))
            await house.knock(target, room)
        elif case.before == "ban":
            await house.ban(self.owner, room, target.user_id)
        elif case.before is not None:
            await house.invite(self.owner, room, target.user_id)
            if case.before != "invite":
                await house.join(target, room)
            if case.before == "leave":
                await house.leave(target, room)
        if case.in_allowed_room:
            await house.join(target, self.allowed)
        if case.join_rule is None:
            await house.store.write(drop_join_rules, room)
        else:
            await house.set_state(self.owner, room, *join_rule(case.join_rule, house, self.allowed))
        assert house.membership(room, target.user_id) == case.before

    async def outcome(self, function: Any, *args: Any) -> str | None:
        """The target's membership after an attempt, or "refused"; the attempt is rolled back."""

        def act(tx: Any, env: Any) -> str | None:
            function(tx, env, *args)
            found = members.get(tx, self.room, self.target.user)
            return None if found is None else found.membership.word

        try:
            outcome: str | None = await self.house.attempt(act)
        except (Forbidden, BadState):
            return "refused"
        return outcome


def join_rule(rule: str, house: House | None = None, allowed: Any = None) -> tuple[Any, ...]:
    content: dict[str, Any] = {"join_rule": rule}
    if house is not None:
        content["allow"] = [{"type": "m.room_membership", "room_id": house.room_id(allowed)}]
    return "m.room.join_rules", "", content


async def scene(house: House, version: str, target_level: int) -> Scene:
    owner, target = await house.user("owner"), await house.user("target")
    people = {actor.name: await house.user(actor.name) for actor in ACTORS}
    levels = {people[actor.name].user_id: actor.level for actor in ACTORS}
    levels[target.user_id] = target_level
    if version != "12":
        levels[owner.user_id] = 101
    room = await house.room(owner, version=version, power_levels=LEVELS | {"users": levels})
    for actor in ACTORS:
        who = people[actor.name]
        if actor.membership in ("join", "leave", "invite"):
            await house.invite(owner, room, who.user_id)
        if actor.membership in ("join", "leave"):
            await house.join(who, room)
        if actor.membership == "leave":
            await house.leave(who, room)
        if actor.membership == "ban":
            await house.ban(owner, room, who.user_id)
    allowed = await house.room(owner, preset="public_chat")
    return Scene(house, room, allowed, owner, target, people)


def drop_join_rules(tx: Any, room: Any) -> None:
    """A room without join rules cannot be had by createRoom, only from other servers."""
    from matrixbox.store import rooms, snapshots
    from matrixbox.store.rooms import Head

    slot = names.slot_nid(tx, ("m.room.join_rules", ""))
    head = rooms.head(tx, room)
    assert slot is not None
    assert head is not None
    old = rooms.current_event(tx, room, ("m.room.join_rules", ""))
    rooms.change_state(tx, room, tx.position(), [(slot, old or 0, 0)])
    rooms.set_head(tx, room, Head(head.extremities, snapshots.derive(tx, head.snapshot, {slot: 0})))


def cases() -> list[Case]:
    found = []
    for version in VERSIONS:
        for rule in table.JOIN_RULES:
            for before in table.MEMBERSHIPS:
                if before == "knock" and int(version) < 7:
                    continue  # nobody can have knocked
                # The rules of others than the target do not look at the join rule.
                levels = (0, 50, 60) if rule == "invite" else (0,)
                found += [Case(version, rule, before, level) for level in levels]
                if rule in ("restricted", "knock_restricted"):
                    found.append(Case(version, rule, before, 0, in_allowed_room=True))
    return found


def test_the_table_has_every_cell():
    """Six memberships, five to come to; no case is left out by accident."""
    assert len(table.CELLS) == 30
    assert set(table.CELLS.values()) == {"self", "other", "both", "-", "="}
    assert len(cases()) == len(VERSIONS) * 7 * 6 + (len(VERSIONS) * 4 * 6) - 2 * (7 + 4)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("rule", table.JOIN_RULES)
async def test_every_transition_by_everybody(version, rule):
    """[C11.05]: what the target and nine others may do, from each membership."""
    tried = 0
    for case in cases():
        if (case.version, case.join_rule) != (version, rule):
            continue
        async with household() as house:
            at = await scene(house, version, case.target_level)
            await at.prepare(case)
            tried += await check_target(at, case)
            for actor in ACTORS:
                tried += await check_actor(at, case, actor)
    assert tried >= 40 * (5 if int(version) < 7 else 6)


async def check_target(at: Scene, case: Case) -> int:
    """What the target can do alone."""
    me, before = at.target, case.before
    functions: list[tuple[Any, bool, str]] = [
        (membership.join, table.may_join(case), "join"),
        (membership.leave, table.may_leave(case), "leave"),
        (membership.knock, table.may_knock(case), "knock"),
    ]
    for function, allowed, after in functions:
        if after == "join" and table.is_silent(case):
            continue
        wanted = after if allowed else "refused"
        assert await at.outcome(function, me, at.room) == wanted, (case, function.__name__)
        content = {"membership": after}
        found = await at.outcome(membership.set_membership, me, at.room, me.user_id, content)
        assert found == wanted, (case, "PUT", after)
    for after in ("invite", "ban"):
        content = {"membership": after}
        found = await at.outcome(membership.set_membership, me, at.room, me.user_id, content)
        # To invite oneself is the business of members only; nobody can ban himself.
        invited = after == "invite" and before == "invite"
        assert found in ("refused", *(("invite",) if invited else ())), (case, after)
    return 8


async def check_actor(at: Scene, case: Case, actor: Actor) -> int:
    """What somebody can do to the target."""
    who, target = at.people[actor.name], at.target.user_id
    functions: list[tuple[Any, bool, str]] = [
        (membership.invite, table.may_invite(case, actor), "invite"),
        (membership.kick, table.may_kick(case, actor), "leave"),
        (membership.ban, table.may_ban(case, actor), "ban"),
        (membership.unban, table.may_unban(case, actor), "leave"),
    ]
    for function, allowed, after in functions:
        wanted = after if allowed else "refused"
        found = await at.outcome(function, who, at.room, target, {})
        assert found == wanted, (case, actor, function.__name__)
    put = {
        "invite": table.may_invite(case, actor),
        "leave": table.may_kick(case, actor) or table.may_unban(case, actor),
        "ban": table.may_ban(case, actor),
        "join": False,
        "knock": False,
        "lurk": False,
    }
    for after, allowed in put.items():
        content = {"membership": after}
        found = await at.outcome(membership.set_membership, who, at.room, target, content)
        assert found == (after if allowed else "refused"), (case, actor, "PUT", after)
    return 10


# --- what the table does not say


async def test_what_changes_nothing_makes_no_event():
    """[C11.01], [C11.02]: joining, inviting and leaving again answer 200 and store nothing."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann)
        await house.invite(ann, room, bo.user_id)
        count = len(house.timeline(room))
        await house.invite(ann, room, bo.user_id)
        assert len(house.timeline(room)) == count
        await house.join(bo, room)
        await house.join(bo, room)
        assert len(house.timeline(room)) == count + 1
        await house.leave(bo, room)
        await house.leave(bo, room)
        assert len(house.timeline(room)) == count + 2
        await house.ban(ann, room, bo.user_id)
        await house.ban(ann, room, bo.user_id)
        assert len(house.timeline(room)) == count + 3


async def test_who_is_not_in_a_room_learns_nothing_by_inviting():
    """A stranger gets the same answer for an invited user and for anybody else."""
    async with household() as house:
        ann, bo, cy, eve = [await house.user(name) for name in ("ann", "bo", "cy", "eve")]
        room = await house.room(ann, invites=(bo.user_id,))
        await block_invites(house, cy)
        errors = []
        for target in (bo.user_id, cy.user_id, eve.user_id, "@nobody:home.test"):
            with pytest.raises(Forbidden) as caught:
                await house.invite(eve, room, target)
            errors.append((type(caught.value), str(caught.value)))
        assert len(set(errors)) == 1


async def block_invites(house: House, who: Any) -> None:
    def write(tx: Any) -> None:
        content = encode({"default_action": "block"})
        entry = Entry(GLOBAL, "m.invite_permission_config", content, tx.position())
        account_data.put(tx, who.user, entry)

    await house.store.write(write)


async def test_blocked_invites():
    """[C15.07]: 403 M_INVITE_BLOCKED on each way to invite; a standing invitation stays."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        first, second = await house.room(ann), await house.room(ann)
        await house.invite(ann, first, bo.user_id)
        await block_invites(house, bo)
        await house.invite(ann, first, bo.user_id)
        with pytest.raises(InviteBlocked):
            await house.invite(ann, second, bo.user_id)
        with pytest.raises(InviteBlocked):
            await house.set_state(ann, second, MEMBER, bo.user_id, {"membership": "invite"})
        assert house.membership(second, bo.user_id) is None
        await house.join(bo, first)


async def test_only_accounts_that_can_answer_are_invited():
    """Unknown and deactivated users of this server, and users of other servers."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann)
        with pytest.raises(NotFound):
            await house.invite(ann, room, "@nobody:home.test")
        with pytest.raises(NotFound):
            await house.invite(ann, room, "@bo:far.test")
        await house.store.write(accounts.set_state, bo.user, AccountState.DEACTIVATED)
        with pytest.raises(NotFound):
            await house.invite(ann, room, bo.user_id)


async def test_membership_events_through_put_state():
    """[C10.04]: the same logic, and the content is the client's but for what the server owns."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        await house.store.write(profiles.set_field, bo.user, "displayname", "Bo")
        room = await house.room(ann, preset="public_chat")
        forged = {"membership": "join", "join_authorised_via_users_server": ann.user_id, "x": 1}
        await house.set_state(bo, room, MEMBER, bo.user_id, forged)
        wanted = {"membership": "join", "displayname": "Bo", "x": 1}
        assert house.content(room, MEMBER, bo.user_id) == wanted
        named = {"membership": "join", "displayname": "Bobby"}
        await house.set_state(bo, room, MEMBER, bo.user_id, named)
        assert house.content(room, MEMBER, bo.user_id) == named, "a name for this room alone"
        with pytest.raises(InvalidParam):
            await house.set_state(ann, room, MEMBER, "nobody", {"membership": "invite"})
        for odd in ({}, {"membership": 5}, {"membership": None}, {"membership": ["join"]}):
            with pytest.raises(BadJson):
                await house.set_state(bo, room, MEMBER, bo.user_id, odd)
        with pytest.raises(Forbidden):
            await house.set_state(bo, room, MEMBER, bo.user_id, {"membership": "JOIN"})
        with pytest.raises(InvalidParam):
            await house.set_state(ann, room, "m.room.create", "", {})


async def test_profiles_and_reasons_are_in_membership_events():
    """[C10.07]: joins, invitations and knocks show the profile of the user they are about."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        for who, name in ((ann, "Ann"), (bo, "Bo")):
            await house.store.write(profiles.set_field, who.user, "displayname", name)
        await house.store.write(profiles.set_field, bo.user, "avatar_url", "mxc://home.test/a")
        await house.store.write(profiles.set_field, bo.user, "m.tz", "Europe/London")
        shown = {"displayname": "Bo", "avatar_url": "mxc://home.test/a"}
        initial = (StateDraft("m.room.join_rules", "", {"join_rule": "knock"}),)
        room = await house.room(ann, initial_state=initial)
        assert house.content(room, MEMBER, ann.user_id)["displayname"] == "Ann"
        await house.write(membership.knock, bo, room, {"reason": "please"})
        knocked = {"membership": "knock", "reason": "please", **shown}
        assert house.content(room, MEMBER, bo.user_id) == knocked
        await house.write(membership.invite, ann, room, bo.user_id, {"reason": "come"})
        invited = {"membership": "invite", "reason": "come", **shown}
        assert house.content(room, MEMBER, bo.user_id) == invited
        await house.write(membership.join, bo, room, {"reason": "hi"})
        assert house.content(room, MEMBER, bo.user_id) == {
            "membership": "join",
            "reason": "hi",
            **shown,
        }
        await house.write(membership.kick, ann, room, bo.user_id, {"reason": "bye"})
        kicked = {"membership": "leave", "reason": "bye"}
        assert house.content(room, MEMBER, bo.user_id) == kicked


# --- restricted rooms


@pytest.mark.parametrize("version", ["8", "9", "10", "11", "12"])
async def test_restricted_joins_name_a_member_who_may_invite(version):
    """[C11.06], T035: conditions are looked at once; profile changes do not repeat the name."""
    async with household() as house:
        ann, bo, cy = [await house.user(name) for name in ("ann", "bo", "cy")]
        allowed = await house.room(ann, preset="public_chat")
        initial = (StateDraft(*join_rule("restricted", house, allowed)),)
        room = await house.room(ann, version=version, initial_state=initial)
        with pytest.raises(Forbidden):
            await house.join(bo, room)
        await house.join(bo, allowed)
        await house.join(bo, room)
        key = "join_authorised_via_users_server"
        assert house.content(room, MEMBER, bo.user_id)[key] == ann.user_id
        await house.leave(bo, allowed)
        await profiles.change(house.store, house.env, bo, "displayname", "Bo", keep=True)
        assert house.content(room, MEMBER, bo.user_id) == {
            "membership": "join",
            "displayname": "Bo",
        }
        # Who left needs to meet a condition again; who is invited does not.
        await house.leave(bo, room)
        with pytest.raises(Forbidden):
            await house.join(bo, room)
        await house.invite(ann, room, bo.user_id)
        await house.join(bo, room)
        assert key not in house.content(room, MEMBER, bo.user_id)
        # A banned member of the allowed room does not get in.
        await house.join(cy, allowed)
        await house.ban(ann, room, cy.user_id)
        with pytest.raises(Forbidden):
            await house.join(cy, room)


@pytest.mark.parametrize(
    "allow",
    [
        None,
        [],
        "!x:home.test",
        [5],
        [{"type": "m.room_membership"}],
        [{"type": "m.room_membership", "room_id": 5}],
        [{"type": "m.room_membership", "room_id": "!unknown:home.test"}],
        [{"type": "x.other", "room_id": "ALLOWED"}],
        [{"room_id": "ALLOWED"}],
    ],
)
async def test_odd_conditions_let_nobody_in(allow):
    """T035: only membership in a room that we know counts."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        other = await house.room(ann, preset="public_chat")
        await house.join(bo, other)
        if isinstance(allow, list):
            text = house.room_id(other)
            allow = [
                {k: text if v == "ALLOWED" else v for k, v in entry.items()}
                if isinstance(entry, dict)
                else entry
                for entry in allow
            ]
        rules = {"join_rule": "restricted", "allow": allow}
        room = await house.room(ann, initial_state=(StateDraft("m.room.join_rules", "", rules),))
        with pytest.raises((Forbidden, UnableToAuthoriseJoin)):
            await house.join(bo, room)


async def test_nobody_here_may_let_others_into_a_restricted_room():
    """The member who vouches needs the level to invite."""
    async with household() as house:
        ann, bo, cy = [await house.user(name) for name in ("ann", "bo", "cy")]
        allowed = await house.room(ann, preset="public_chat")
        initial = (StateDraft(*join_rule("restricted", house, allowed)),)
        room = await house.room(
            ann, version="11", initial_state=initial, power_levels={"invite": 60}
        )
        for who in (bo, cy):
            await house.join(who, allowed)
        await house.join(bo, room)  # ann vouches
        await house.leave(ann, room)
        with pytest.raises(UnableToGrantJoin):
            await house.join(cy, room)


# --- forgetting


async def test_forgetting_hides_a_room_until_one_comes_back():
    """[C11.03]: 400 M_UNKNOWN while in the room; join, invitation and knock undo it."""
    async with household() as house:
        ann, bo, cy = [await house.user(name) for name in ("ann", "bo", "cy")]
        initial = (StateDraft("m.room.join_rules", "", {"join_rule": "knock"}),)
        room = await house.room(ann, initial_state=initial)

        def forgotten() -> bool:
            found = house.store.read(members.get, room, bo.user)
            listed = [m.room for m in house.store.read(members.rooms_of, bo.user)]
            assert (room in listed) is not found.forgotten
            return bool(found.forgotten)

        async def refuses() -> None:
            with pytest.raises(Unknown) as caught:
                await house.forget(bo, room)
            assert type(caught.value) is Unknown

        await refuses()  # never there
        await house.knock(bo, room)
        await refuses()
        await house.invite(ann, room, bo.user_id)
        await refuses()
        await house.join(bo, room)
        await refuses()
        await house.say(ann, room, "hello")
        await house.leave(bo, room)
        assert not forgotten()
        assert house.shown(bo, room)
        await house.forget(bo, room)
        await house.forget(bo, room)  # again: nothing happens
        assert forgotten()
        for read in (
            lambda reader: state_reading.whole(reader),
            lambda reader: state_reading.members_at(reader, None, None, None),
        ):
            with pytest.raises(Forbidden):
                house.look(bo, room, read)
        # What others do to somebody who has forgotten the room does not bring it back,
        await house.ban(ann, room, bo.user_id)
        assert forgotten()
        await house.unban(ann, room, bo.user_id)
        assert forgotten()
        # an invitation does.
        await house.invite(ann, room, bo.user_id)
        assert not forgotten()
        await house.leave(bo, room)
        await house.forget(bo, room)
        await house.knock(bo, room)
        assert not forgotten()
        await house.kick(ann, room, bo.user_id)
        await house.forget(bo, room)
        await house.set_state(ann, room, "m.room.join_rules", "", {"join_rule": "public"})
        await house.join(bo, room)
        assert not forgotten()
        assert house.store.read(members.get, room, ann.user).forgotten is False
        assert cy is not None


async def test_a_banned_user_may_forget():
    """A ban is an end too."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann)
        await house.ban(ann, room, bo.user_id)
        await house.forget(bo, room)
        assert house.store.read(members.get, room, bo.user).forgotten


# --- profile changes


async def test_a_profile_change_reaches_every_room_that_lets_it():
    """[C10.07]: a room whose rules forbid it does not stop the others."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        open_, left, closed = [await house.room(ann, preset="public_chat") for _ in range(3)]
        for room in (open_, left, closed):
            await house.join(bo, room)
        await house.leave(bo, left)
        # By the auth rules, under a join rule that nobody knows even members cannot join anew.
        await house.set_state(ann, closed, "m.room.join_rules", "", {"join_rule": "x.closed"})
        await profiles.change(house.store, house.env, bo, "displayname", "Bo", keep=True)
        assert house.content(open_, MEMBER, bo.user_id)["displayname"] == "Bo"
        assert "displayname" not in house.content(closed, MEMBER, bo.user_id)
        assert "displayname" not in house.content(left, MEMBER, bo.user_id)
        await profiles.change(house.store, house.env, bo, "m.tz", "Europe/London", keep=True)
        count = len(house.timeline(open_))
        await profiles.change(house.store, house.env, bo, "displayname", "Bo", keep=True)
        assert len(house.timeline(open_)) == count, "nothing new to tell"
        await profiles.change(house.store, house.env, bo, "displayname", None, keep=False)
        assert house.content(open_, MEMBER, bo.user_id) == {"membership": "join"}


def test_errors_of_memberships_are_those_that_clients_know():
    """What is raised above carries the codes of part F."""
    codes = {error: (error.status, error.errcode) for error in MatrixError.__subclasses__()}
    assert codes[Forbidden] == (403, "M_FORBIDDEN")
    assert codes[BadState] == (403, "M_BAD_STATE")
    assert codes[Unknown] == (400, "M_UNKNOWN")
    assert codes[InviteBlocked] == (403, "M_INVITE_BLOCKED")
    assert codes[NotFound] == (404, "M_NOT_FOUND")
