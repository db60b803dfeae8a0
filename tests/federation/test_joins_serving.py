"""What servers may and may not get by asking to join, leave, knock or invite.

[B8.01], [B8.03], [B8.09] to [B8.11], [B9.01] to [B9.08], [B10.03]; T031 to T035, T037.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from attrs import define

from matrixbox.core.events import MalformedEvent, parse_event
from matrixbox.core.room_versions import ROOM_VERSIONS
from matrixbox.core.signing import (
    SigningKey,
    hash_and_sign_event,
    required_signers,
    sign_json,
)
from matrixbox.federation.keyring import Keyring
from tests.federation.hand_made import HandMadeRoom
from tests.federation.towns import Country, Failed, FakeServer, Town, country
from tests.sim.node import Account

BOB = "@bob:far.test"


@define
class Scene:
    """A room of ours, and a server that wants something of it."""

    land: Country
    home: Town
    ann: Account
    far: FakeServer
    room: str
    version: str

    async def make(self, what: str, user: str = BOB, query: str | None = None) -> tuple[int, Any]:
        """Ask for a template."""
        text = f"?ver={self.version}" if query is None else query
        path = f"/_matrix/federation/v1/make_{what}/{quote(self.room)}/{quote(user, safe='')}"
        return await self.far.call(self.home, "GET", path + ("" if what == "leave" else text))

    async def template(self, what: str, user: str = BOB) -> dict[str, Any]:
        """A template that is given."""
        status, answer = await self.make(what, user)
        assert status == 200, answer
        return dict(answer["event"])

    def signed(self, pdu: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """An event as the far server completes it."""
        made = {**pdu, "origin_server_ts": self.far.clock.now_ms(), **changes}
        if ROOM_VERSIONS[self.version].event_id_in_pdu:
            made.setdefault("event_id", f"${len(self.far.seen)}x:far.test")
        return hash_and_sign_event(ROOM_VERSIONS[self.version], made, self.far.name, self.far.key)

    def name(self, event: dict[str, Any]) -> str:
        """An event's id."""
        return parse_event(ROOM_VERSIONS[self.version], event).event_id

    async def send(
        self, what: str, event: dict[str, Any], *, v: int = 2, query: str = "", **path: str
    ) -> tuple[int, Any]:
        """Hand an event in."""
        room, event_id = path.get("room", self.room), path.get("event_id")
        name = quote(event_id or self.name(event), safe="")
        target = f"/_matrix/federation/v{v}/send_{what}/{quote(room)}/{name}{query}"
        return await self.far.call(self.home, "PUT", target, event)

    async def membership(self, user: str = BOB) -> str | None:
        """What a user is in the room."""
        found = (await self.home.state(self.ann, self.room)).get(("m.room.member", user))
        return None if found is None else str(found["content"]["membership"])


@asynccontextmanager
async def scene(folder: Path, version: str = "12", **wanted: Any) -> AsyncIterator[Scene]:
    async with country(folder) as land:
        home = await land.town("home.test")
        ann = await home.register("ann")
        room = await home.room(ann, room_version=version, **wanted)
        yield Scene(land, home, ann, land.fake("far.test"), room, version)


# --- joins


@pytest.mark.parametrize("version", ["1", "3", "6", "11", "12"])
async def test_a_user_of_another_server_is_let_in(tmp_path: Path, version: str) -> None:
    """[B8.03], [B8.04], [B8.07]: all of the state before, and every event it stands on."""
    async with scene(tmp_path, version, name="Home") as it:
        template = await it.template("join")
        assert "signatures" not in template
        assert "hashes" not in template
        event = it.signed(template)
        before = await it.home.state(it.ann, it.room)
        status, answer = await it.send("join", event)
        assert status == 200, answer
        rules = ROOM_VERSIONS[version]
        names = {parse_event(rules, pdu).event_id for pdu in answer["state"]}
        assert names == {found["event_id"] for found in before.values()}
        chain = {parse_event(rules, pdu).event_id: pdu for pdu in answer["auth_chain"]}
        for pdu in [*answer["state"], *answer["auth_chain"], event]:
            assert set(parse_event(rules, pdu).auth_event_ids) <= chain.keys()
        assert answer["event"]["signatures"].keys() == {"far.test"}
        assert answer["members_omitted"] is False
        assert await it.membership() == "join"
        # The same again, since the answer may have been lost: the same answer.
        assert (await it.send("join", event))[1] == answer
        v1 = await it.send("join", event, v=1)
        assert v1 == (200, [200, answer])


async def test_members_can_be_left_out(tmp_path: Path) -> None:
    """[B8.05]: without names the heroes stay; the servers of the room are told."""
    async with scene(tmp_path) as it:
        for index in range(8):
            await it.home.join(await it.home.register(f"u{index}"), it.room)
        event = it.signed(await it.template("join"))
        status, answer = await it.send("join", event, query="?omit_members=true")
        assert status == 200
        assert answer["members_omitted"] is True
        assert answer["servers_in_room"] == ["home.test"]
        kept = [pdu["state_key"] for pdu in answer["state"] if pdu["type"] == "m.room.member"]
        assert len(kept) == 5
        names = {parse_event(ROOM_VERSIONS["12"], pdu).event_id for pdu in answer["state"]}
        chain = {parse_event(ROOM_VERSIONS["12"], pdu).event_id for pdu in answer["auth_chain"]}
        assert names.isdisjoint(chain)
        for pdu in [*answer["state"], *answer["auth_chain"], event]:
            assert set(parse_event(ROOM_VERSIONS["12"], pdu).auth_event_ids) <= names | chain
        await it.home.set_state(it.ann, it.room, "m.room.name", {"name": "Home"})
        event = it.signed(await it.template("join", "@cy:far.test"))
        _, answer = await it.send("join", event, query="?omit_members=true")
        kept = [pdu["state_key"] for pdu in answer["state"] if pdu["type"] == "m.room.member"]
        assert kept == []
        assert answer["servers_in_room"] == ["home.test", "far.test"]


@pytest.mark.parametrize("what", ["join", "leave", "knock"])
async def test_t034_templates_are_for_users_of_the_asking_server(tmp_path: Path, what: str) -> None:
    async with scene(tmp_path) as it:
        for user in (it.ann.user_id, "@x:third.test"):
            status, answer = await it.make(what, user)
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")


async def test_templates_are_given_for_known_rooms_and_versions(tmp_path: Path) -> None:
    """[B8.01], [B9.01]: 404, M_INCOMPATIBLE_ROOM_VERSION with the version, `ver` of a knock."""
    async with scene(tmp_path) as it:
        for query in ("", "?ver=1&ver=11"):
            status, answer = await it.make("join", query=query)
            assert (status, answer["errcode"]) == (400, "M_INCOMPATIBLE_ROOM_VERSION")
            assert answer["room_version"] == "12"
        assert (await it.make("knock", query=""))[1]["errcode"] == "M_MISSING_PARAM"
        it.room = "!unknown:home.test"
        for what in ("join", "knock", "leave"):
            assert (await it.make(what))[0] == 404


async def test_nobody_is_let_in_who_may_not(tmp_path: Path) -> None:
    """403 at the template already: invite-only, banned, denied by the access control list."""
    async with scene(tmp_path, preset="private_chat") as it:
        assert (await it.make("join"))[0] == 403
        assert (await it.make("leave"))[0] == 403
        assert (await it.make("knock"))[0] == 403
        await it.home.set_state(it.ann, it.room, "m.room.join_rules", {"join_rule": "public"})
        event = it.signed(await it.template("join"))
        await it.home.upon(it.ann, it.room, "ban", user_id=BOB)
        assert (await it.make("join"))[0] == 403
        assert (await it.send("join", event))[0] == 403  # T013: what was allowed is not any more
        assert await it.membership() == "ban"


async def test_t037_servers_that_a_room_denies_get_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        event = it.signed(await it.template("join"))
        acl = {"allow": ["*"], "deny": ["far.test"]}
        await it.home.set_state(it.ann, it.room, "m.room.server_acl", acl)
        for what in ("join", "leave", "knock"):
            assert (await it.make(what))[1]["errcode"] == "M_FORBIDDEN"
        assert (await it.send("join", event))[1]["errcode"] == "M_FORBIDDEN"
        assert await it.membership() is None


WRONG: dict[str, tuple[dict[str, Any], int]] = {
    "another type": ({"type": "m.room.topic"}, 400),
    "another membership": ({"content": {"membership": "leave"}}, 400),
    "no membership": ({"content": {}}, 400),
    "our user": ({"sender": "@ann:home.test", "state_key": "@ann:home.test"}, 403),
    "a third server's user": ({"sender": "@x:third.test", "state_key": "@x:third.test"}, 403),
    "for somebody else": ({"state_key": "@ann:home.test"}, 400),
    "another room": ({"room_id": "!other:home.test"}, 400),
    "unknown parents": ({"prev_events": ["$" + "a" * 43]}, 400),
    "unknown auth events": ({"auth_events": ["$" + "a" * 43]}, 400),
    "no state": ({"state_key": None}, 400),
}


@pytest.mark.parametrize(("changes", "expected"), WRONG.values(), ids=WRONG.keys())
async def test_t034_only_the_join_that_was_asked_for_is_taken(
    tmp_path: Path, changes: dict[str, Any], expected: int
) -> None:
    """[B8.03]: each field of what is handed in."""
    async with scene(tmp_path) as it:
        before = await it.home.state(it.ann, it.room)
        template = {**await it.template("join"), **changes}
        template = {key: value for key, value in template.items() if value is not None}
        status, answer = await it.send("join", it.signed(template))
        assert status == expected, answer
        assert (await it.home.state(it.ann, it.room)).keys() == before.keys()


async def test_t044_a_join_must_be_signed_and_hashed_by_its_server(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        template = await it.template("join")
        event = it.signed(template)
        other = hash_and_sign_event(
            ROOM_VERSIONS["12"], template, "far.test", SigningKey("fake", b"o" * 32)
        )
        for wrong in (
            {**event, "signatures": {}},
            {**event, "signatures": {"far.test": {"ed25519:none": "AAAA"}}},
            other,
            {**event, "hashes": {"sha256": "AAAA"}},
            {**event, "content": {"membership": "join", "displayname": "x"}},
        ):
            status, answer = await it.send("join", wrong)
            # A key that may yet be found makes nothing invalid, only useless.
            assert status == 400
            assert answer["errcode"] in ("M_INVALID_PARAM", "M_UNKNOWN")
        assert (await it.send("join", event, event_id="$" + "a" * 43))[0] == 400
        assert (await it.send("join", event, room="!other:home.test"))[0] == 404
        assert await it.membership() is None
        assert (await it.send("join", event))[0] == 200


# --- restricted rooms


@asynccontextmanager
async def restricted(folder: Path, version: str = "12") -> AsyncIterator[tuple[Scene, str]]:
    """A room for the members of another one."""
    async with scene(folder, version) as it:
        allowed = it.room
        rules = {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": allowed}],
        }
        state = [{"type": "m.room.join_rules", "content": rules}]
        it.room = await it.home.room(it.ann, room_version=version, initial_state=state)
        yield it, allowed


@pytest.mark.parametrize("version", ["8", "10", "12"])
async def test_t035_a_member_of_the_allowed_room_is_vouched_for(
    tmp_path: Path, version: str
) -> None:
    """[B8.09]: our signature is on the join, and everybody can check it."""
    async with restricted(tmp_path, version) as (it, allowed):
        assert (await it.make("join"))[1]["errcode"] == "M_FORBIDDEN"
        inside, it.room = it.room, allowed
        assert (await it.send("join", it.signed(await it.template("join"))))[0] == 200
        it.room = inside
        template = await it.template("join")
        assert template["content"]["join_authorised_via_users_server"] == it.ann.user_id
        status, answer = await it.send("join", it.signed(template))
        assert status == 200, answer
        joined = parse_event(ROOM_VERSIONS[version], answer["event"])
        assert required_signers(joined.rules, joined) == {"far.test", "home.test"}
        keyring: Keyring = it.home.services.federation.keyring
        (verdict,) = await keyring.verify(joined.rules, [joined.json])
        assert verdict.value == "valid"


async def test_t035_nothing_is_vouched_for_that_was_not_checked(tmp_path: Path) -> None:
    """A join that names our user for a voucher, without or against the conditions."""
    async with restricted(tmp_path) as (it, allowed):
        inside, it.room = it.room, allowed
        assert (await it.send("join", it.signed(await it.template("join"))))[0] == 200
        it.room = inside
        template = await it.template("join")
        for user in ("@cy:far.test", BOB):
            if user == BOB:
                await it.home.upon(it.ann, allowed, "kick", user_id=BOB)
            forged = it.signed({**template, "sender": user, "state_key": user})
            status, answer = await it.send("join", forged)
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
            assert await it.membership(user) is None


async def test_t035_rooms_that_we_are_not_in_tell_us_nothing(tmp_path: Path) -> None:
    """[B8.10]: M_UNABLE_TO_AUTHORISE_JOIN, M_UNABLE_TO_GRANT_JOIN; invalid entries do not count."""
    async with restricted(tmp_path) as (it, _):
        entry = {"type": "m.room_membership", "room_id": "!elsewhere:far.test"}
        rules: dict[str, Any] = {"join_rule": "restricted", "allow": [entry]}
        await it.home.set_state(it.ann, it.room, "m.room.join_rules", rules)
        assert (await it.make("join"))[1]["errcode"] == "M_UNABLE_TO_AUTHORISE_JOIN"
        rules = {"join_rule": "restricted", "allow": [{"type": "x"}, 5, {"room_id": "!a:b"}]}
        await it.home.set_state(it.ann, it.room, "m.room.join_rules", rules)
        assert (await it.make("join"))[1]["errcode"] == "M_FORBIDDEN"


async def test_who_is_invited_needs_nobody_to_vouch(tmp_path: Path) -> None:
    """[B8.11]."""
    async with restricted(tmp_path) as (it, _):
        it.far.answers["invite"] = lambda _, body: {
            "event": hash_and_sign_event(
                ROOM_VERSIONS["12"],
                {k: v for k, v in body["event"].items() if k not in ("hashes", "signatures")},
                "far.test",
                it.far.key,
            )
        }
        await it.home.upon(it.ann, it.room, "invite", user_id=BOB)
        assert (await it.template("join"))["content"] == {"membership": "join"}


async def test_a_local_user_is_let_in_by_another_server(tmp_path: Path) -> None:
    """[B8.12]: nobody here may invite, so a server with somebody who may is asked."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo, cy = [
            await town.register(name) for town, name in ((one, "ann"), (two, "bo"), (two, "cy"))
        ]
        allowed = await one.room(ann)
        rules = {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": allowed}],
        }
        state = [{"type": "m.room.join_rules", "content": rules}]
        levels = {"invite": 50}
        room = await one.room(
            ann, initial_state=state, power_level_content_override=levels, room_version="11"
        )
        for who in (bo, cy):
            await two.join(who, allowed, "one.test")
        await two.join(bo, room, "one.test")
        await two.join(cy, room, "one.test")
        member = (await two.state(bo, room))["m.room.member", cy.user_id]
        assert member["content"]["membership"] == "join"
        assert member["content"]["join_authorised_via_users_server"] == ann.user_id
        assert (await one.state(ann, room))["m.room.member", cy.user_id] is not None


async def test_t035_who_let_a_user_in_need_not_be_among_the_members_told(tmp_path: Path) -> None:
    """[B8.05], [B8.09]: the join cites its voucher, whom the state without members leaves out."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        allowed = await one.room(ann)
        rules = {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": allowed}],
        }
        state = [{"type": "m.room.join_rules", "content": rules}]
        room = await one.room(ann, name="The inner room", initial_state=state)
        await two.join(bo, allowed, "one.test")
        await two.join(bo, room, "one.test")
        found = await two.state(bo, room)
        assert found["m.room.member", bo.user_id]["content"]["membership"] == "join"
        assert found["m.room.member", ann.user_id]["content"]["membership"] == "join"
        await two.upon(bo, room, "leave")
        await two.join(bo, room, "one.test")


# --- invitations


def invitation(room: HandMadeRoom, target: str, **changes: Any) -> dict[str, Any]:
    """An invitation as the hand-made server signs it."""
    pdu = room.pdu("m.room.member", {"membership": "invite"}, target, room.creator)
    pdu = {key: value for key, value in {**pdu, **changes}.items() if value is not None}
    return room.signed(pdu)


async def hand_in(
    room: HandMadeRoom, to: Town, event: Any, v: int = 2, **changes: Any
) -> tuple[int, Any]:
    """Invite; the answer."""
    shown = [dict(found.json) for found in room.state.values()]
    body: Any = {"room_version": room.version, "event": event, "invite_room_state": shown}
    body = {k: x for k, x in {**body, **changes}.items() if x is not None}
    if v == 1:
        body = {**event, "unsigned": {"invite_room_state": shown}}
    try:
        name = parse_event(room.rules, event).event_id
    except MalformedEvent:
        name = "$" + "a" * 43
    target = f"/_matrix/federation/v{v}/invite/{quote(room.room_id)}/{quote(name, safe='')}"
    return await room.server.call(to, "PUT", target, body)


@asynccontextmanager
async def inviting(folder: Path, version: str = "12") -> AsyncIterator[tuple[Town, Account, Any]]:
    async with country(folder) as land:
        home = await land.town("home.test")
        yield home, await home.register("bo"), HandMadeRoom(land.fake("evil.test"), version)


@pytest.mark.parametrize(
    ("version", "v"), [("1", 1), ("1", 2), ("2", 1), ("6", 2), ("11", 2), ("12", 2)]
)
async def test_an_invitation_is_signed_and_shown(tmp_path: Path, version: str, v: int) -> None:
    """[B9.03], [B9.06], [B9.08]: twice is once; only a signature is added."""
    async with inviting(tmp_path, version) as (home, bo, room):
        event = invitation(room, bo.user_id)
        status, answer = await hand_in(room, home, event, v)
        assert status == 200, answer
        signed = (answer[1] if v == 1 else answer)["event"]
        assert signed["signatures"].keys() == {"evil.test", "home.test"}
        assert {k: x for k, x in signed.items() if k not in ("signatures", "unsigned")} == {
            k: x for k, x in event.items() if k != "signatures"
        }
        first = await home.sync(bo)
        assert room.room_id in first["rooms"]["invite"]
        assert (await hand_in(room, home, event, v))[0] == 200
        again = await home.sync(bo, since=first["next_batch"])
        assert "invite" not in again.get("rooms", {})


FALSE: dict[str, dict[str, Any]] = {
    "another type": {"type": "m.room.topic"},
    "another membership": {"content": {"membership": "join"}},
    "no membership": {"content": {}},
    "a sender of ours": {"sender": "@bo:home.test"},
    "a sender of a third server": {"sender": "@x:third.test"},
    "a user of another server": {"state_key": "@bo:third.test"},
    "no user": {"state_key": "bo"},
    "no state": {"state_key": None},
    "another room": {"room_id": "!other:evil.test"},
}


@pytest.mark.parametrize("changes", FALSE.values(), ids=FALSE.keys())
@pytest.mark.parametrize(("version", "v"), [("1", 1), ("1", 2), ("12", 2)])
async def test_t031_a_false_invitation_is_not_signed(
    tmp_path: Path, changes: dict[str, Any], version: str, v: int
) -> None:
    async with inviting(tmp_path, version) as (home, bo, room):
        event = invitation(room, bo.user_id, **changes)
        status, answer = await hand_in(room, home, event, v)
        assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM")
        assert not (await home.sync(bo)).get("rooms")


async def test_t031_an_invitation_with_a_bad_signature_is_not_signed(tmp_path: Path) -> None:
    async with inviting(tmp_path) as (home, bo, room):
        event = invitation(room, bo.user_id)
        key = SigningKey("fake", b"z" * 32)
        plain = {k: v for k, v in event.items() if k not in ("hashes", "signatures")}
        for wrong in (
            {**event, "signatures": {}},
            {**event, "signatures": {"evil.test": {"ed25519:fake": "A" * 86}}},
            {**event, "hashes": {"sha256": "A" * 43}},
            {**event, "content": {"membership": "invite", "x": 1}},
            hash_and_sign_event(room.rules, plain, "evil.test", key),
        ):
            status, answer = await hand_in(room, home, wrong)
            assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM")
        status, answer = await hand_in(room, home, event, room_version="99")
        assert (status, answer["errcode"]) == (400, "M_INCOMPATIBLE_ROOM_VERSION")
        assert not (await home.sync(bo)).get("rooms")


async def test_t032_what_is_told_of_a_new_room_must_be_true(tmp_path: Path) -> None:
    """[B9.06]: from version 12 on every entry is a signed event of the room, and one created it."""
    async with inviting(tmp_path) as (home, bo, room):
        event = invitation(room, bo.user_id)
        whole = [dict(found.json) for found in room.state.values()]
        other = HandMadeRoom(room.server)
        for wrong in (
            [],
            None,
            whole[1:],
            [*whole, {"type": "m.room.name", "state_key": "", "sender": "@a:b", "content": {}}],
            [*whole, 5],
            [{**whole[0], "signatures": {}}, *whole[1:]],
            [dict(other.events[0].json), *whole[1:]],
            [*whole, dict(other.state["m.room.member", other.creator].json)],
            whole * 10,
        ):
            status, answer = await hand_in(room, home, event, invite_room_state=wrong)
            assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM")
        assert not (await home.sync(bo)).get("rooms")
        assert (await hand_in(room, home, event))[0] == 200


async def test_t032_odd_entries_of_old_rooms_are_left_out(tmp_path: Path) -> None:
    """The invitee's sync answers, whatever was in it."""
    async with inviting(tmp_path, "9") as (home, bo, room):
        event = invitation(room, bo.user_id)
        entry = {"type": "m.room.name", "state_key": "", "sender": "@a:b", "content": {"name": {}}}
        odd: list[Any] = [None, 5, "x", [], {}, {"type": 5}, {**entry, "content": []}, entry]
        big = [{**entry, "content": {"x": "y" * 30_000}}] * 10
        assert (await hand_in(room, home, event, invite_room_state=[*odd, *big]))[0] == 200
        shown = (await home.sync(bo))["rooms"]["invite"][room.room_id]["invite_state"]["events"]
        assert shown[0] == entry
        assert 2 <= len(shown) <= 6
        assert shown[-1]["content"] == {"membership": "invite"}


async def test_t033_invitations_can_be_refused(tmp_path: Path) -> None:
    """[B9.07], [C15.07]: M_INVITE_BLOCKED; users that do not exist."""
    async with inviting(tmp_path) as (home, bo, room):
        assert (await hand_in(room, home, invitation(room, "@nobody:home.test")))[0] == 404
        path = f"/user/{quote(bo.user_id)}/account_data/m.invite_permission_config"
        await home.client(bo, "PUT", path, {"default_action": "block"})
        status, answer = await hand_in(room, home, invitation(room, bo.user_id))
        assert (status, answer["errcode"]) == (403, "M_INVITE_BLOCKED")
        assert not (await home.sync(bo)).get("rooms")


async def test_an_invitation_says_which_version_a_room_has_but_cannot_insist(
    tmp_path: Path,
) -> None:
    """A lie about the room version does not keep anybody out of the room ([A4.12], T018)."""
    async with country(tmp_path) as land:
        home = await land.town("home.test")
        bo = await home.register("bo")
        room = HandMadeRoom(land.fake("good.test"), "10")
        liar = HandMadeRoom(land.fake("evil.test"), "6")
        liar.room_id = room.room_id
        assert (await hand_in(liar, home, invitation(liar, bo.user_id)))[0] == 200
        room.open()
        await home.join(bo, room.room_id, "good.test")
        assert len(await home.state(bo, room.room_id)) == 5


async def test_t036_who_does_not_sign_is_not_invited(tmp_path: Path) -> None:
    """[B9.10]: the room learns of an invitation when the other server has signed it."""
    async with scene(tmp_path, preset="private_chat") as it:

        def signed(_: Any, body: Any, key: SigningKey | None = None, **changes: Any) -> Any:
            plain = {k: v for k, v in body["event"].items() if k not in ("hashes", "signatures")}
            made = hash_and_sign_event(
                ROOM_VERSIONS["12"], {**plain, **changes}, "far.test", key or it.far.key
            )
            return {"event": made}

        for answer in (
            lambda _, body: {"event": body["event"]},
            lambda _, body: {},
            lambda *given: signed(*given, key=SigningKey("fake", b"q" * 32)),
            lambda *given: signed(*given, content={"membership": "join"}),
            (500, {}),
        ):
            it.far.answers["invite"] = answer
            with pytest.raises(Failed) as failed:
                await it.home.upon(it.ann, it.room, "invite", user_id=BOB)
            assert failed.value.status == 502
            assert await it.membership() is None
        for status, errcode, expected in (
            (403, "M_FORBIDDEN", "M_FORBIDDEN"),
            (403, "M_INVITE_BLOCKED", "M_INVITE_BLOCKED"),
            (400, "M_INCOMPATIBLE_ROOM_VERSION", "M_UNSUPPORTED_ROOM_VERSION"),
        ):
            it.far.answers["invite"] = (status, {"errcode": errcode, "error": "no"})
            with pytest.raises(Failed) as failed:
                await it.home.upon(it.ann, it.room, "invite", user_id=BOB)
            assert failed.value.body["errcode"] == expected
        it.far.answers["invite"] = signed
        await it.home.upon(it.ann, it.room, "invite", user_id=BOB)
        assert await it.membership() == "invite"


# --- third-party invites


async def test_a_third_party_invite_becomes_an_invitation(tmp_path: Path) -> None:
    """[B10.03]: what an identity server has signed is exchanged; nothing else is taken of it."""
    async with scene(tmp_path, preset="private_chat") as it:
        identity = SigningKey("0", b"i" * 32)
        made = {
            "display_name": "b...@far",
            "key_validity_url": "https://id.test/ok",
            "public_key": identity.verify_key_base64,
            "public_keys": [{"public_key": identity.verify_key_base64}],
        }
        await it.home.set_state(it.ann, it.room, "m.room.third_party_invite", made, "token")
        it.far.answers["invite"] = lambda _, body: {
            "event": hash_and_sign_event(
                ROOM_VERSIONS["12"],
                {k: v for k, v in body["event"].items() if k not in ("hashes", "signatures")},
                "far.test",
                it.far.key,
            )
        }
        plain = {"mxid": BOB, "token": "token"}
        signed = sign_json(plain, "id.test", identity)
        event: dict[str, Any] = {
            "type": "m.room.member",
            "room_id": it.room,
            "sender": it.ann.user_id,
            "state_key": BOB,
            "content": {
                "membership": "invite",
                "displayname": "Mallory",
                "third_party_invite": {"display_name": "other", "signed": signed},
            },
        }
        path = f"/_matrix/federation/v1/exchange_third_party_invite/{quote(it.room)}"
        content = event["content"]
        for wrong in (
            {**event, "sender": "@x:home.test"},
            {**event, "state_key": "@cy:far.test"},
            {**event, "type": "m.room.topic"},
            {**event, "content": {"membership": "invite"}},
            {**event, "content": {**content, "third_party_invite": {"signed": plain}}},
            {
                **event,
                "content": {
                    **content,
                    "third_party_invite": {"signed": {**signed, "token": "another"}},
                },
            },
        ):
            status, answer = await it.far.call(it.home, "PUT", path, wrong)
            assert status in (400, 403), answer
            assert await it.membership() is None
        status, answer = await it.far.call(it.home, "PUT", path, event)
        assert (status, answer) == (200, {})
        member = (await it.home.state(it.ann, it.room))["m.room.member", BOB]
        assert member["sender"] == it.ann.user_id
        assert member["content"] == {
            "membership": "invite",
            "third_party_invite": {"display_name": "b...@far", "signed": signed},
        }
