"""Joining rooms of other servers, through the whole of both servers.

Matrix v1.19, Server-Server API, "Joining Rooms", "Restricted rooms" ([B8.01] to [B8.13],
[C11.01]).
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from matrixbox.core.identifiers import EventId, RoomId
from matrixbox.store import events, inbound, names
from tests.federation.towns import Failed, country, eventually

VERSIONS = ("1", "2", "3", "6", "9", "10", "11", "12")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_user_joins_a_room_of_another_server(tmp_path: Path, version: str) -> None:
    """[B8.01] to [B8.07]: both sides have the same state; each hears what the other says."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann, room_version=version, name="Home")
        await one.say(ann, room, "before")
        await two.join(bo, room, "one.test")
        theirs, ours = await one.state(ann, room), await two.state(bo, room)
        assert {k: e["event_id"] for k, e in theirs.items()} == {
            k: e["event_id"] for k, e in ours.items()
        }
        assert ours["m.room.member", bo.user_id]["content"]["membership"] == "join"
        shown = (await two.sync(bo))["rooms"]["join"][room]
        assert [event["type"] for event in shown["timeline"]["events"]] == ["m.room.member"]
        assert shown["summary"]["m.joined_member_count"] == 2


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_invited_user_joins_or_refuses(tmp_path: Path, version: str) -> None:
    """[B9.03], [B9.10], [B9.11], [C11.03]: invited over federation, one joins, one refuses."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        cy = await two.register("cy")
        room = await one.room(ann, room_version=version, preset="private_chat", name="Home")
        for who in (bo, cy):
            await one.upon(ann, room, "invite", user_id=who.user_id)
            member = (await one.state(ann, room))["m.room.member", who.user_id]
            assert member["content"]["membership"] == "invite"
            shown = (await two.sync(who))["rooms"]["invite"][room]["invite_state"]["events"]
            by_type = {event["type"]: event["content"] for event in shown}
            assert by_type["m.room.name"] == {"name": "Home"}
            assert "m.room.create" in by_type
            assert all(
                event.keys() == {"type", "sender", "state_key", "content"} for event in shown
            )
        since = (await two.sync(cy))["next_batch"]
        await two.upon(cy, room, "leave")
        member = (await one.state(ann, room))["m.room.member", cy.user_id]
        assert member["content"]["membership"] == "leave"
        assert room in (await two.sync(cy, since=since))["rooms"]["leave"]
        await two.join(bo, room)
        assert (await one.state(ann, room)).keys() == (await two.state(bo, room)).keys()
        with pytest.raises(Failed) as failed:
            await two.join(cy, room)
        assert (failed.value.status, failed.value.body["errcode"]) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("version", ["7", "11", "12"])
async def test_a_user_knocks_takes_it_back_and_is_let_in(tmp_path: Path, version: str) -> None:
    """[B9.01], [B9.02], [B9.09], [K.09]."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann, room_version=version, preset="private_chat", name="Home")
        with pytest.raises(Failed) as failed:
            await two.client(bo, "POST", f"/knock/{room}", {}, via="one.test")
        assert failed.value.status == 403
        await one.set_state(ann, room, "m.room.join_rules", {"join_rule": "knock"})
        for _ in range(2):
            await two.client(bo, "POST", f"/knock/{room}", {"reason": "tea"}, via="one.test")
            member = (await one.state(ann, room))["m.room.member", bo.user_id]
            assert member["content"]["membership"] == "knock"
            assert member["content"]["reason"] == "tea"
            shown = (await two.sync(bo))["rooms"]["knock"][room]["knock_state"]["events"]
            assert {"m.room.create", "m.room.name"} < {event["type"] for event in shown}
            assert shown[-1]["state_key"] == bo.user_id
            await two.upon(bo, room, "leave")
            member = (await one.state(ann, room))["m.room.member", bo.user_id]
            assert member["content"]["membership"] == "leave"
        await two.client(bo, "POST", f"/knock/{room}", {}, via="one.test")
        await one.upon(ann, room, "invite", user_id=bo.user_id)
        assert room in (await two.sync(bo))["rooms"]["invite"]
        await two.join(bo, room)
        assert (await two.state(bo, room)).keys() == (await one.state(ann, room)).keys()


@pytest.mark.parametrize(("old", "new"), [("10", "11"), ("11", "12")])
async def test_users_follow_an_upgrade_with_what_is_theirs(
    tmp_path: Path, old: str, new: str
) -> None:
    """[A7.12]: the tombstone is heard; tags, rules and direct chats come along."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann, room_version=old)
        await two.join(bo, room, "one.test")
        mine = f"/user/{quote(bo.user_id)}"
        tags = f"{mine}/rooms/{quote(room)}/tags/m.favourite"
        await two.client(bo, "PUT", tags, {"order": 0.5})
        await two.client(bo, "PUT", f"{mine}/account_data/m.direct", {ann.user_id: [room]})
        rule = f"/pushrules/global/room/{quote(room)}"
        await two.client(bo, "PUT", rule, {"actions": ["notify"]})
        path = f"/rooms/{quote(room)}/upgrade"
        heir = (await one.client(ann, "POST", path, {"new_version": new}))["replacement_room"]

        async def closed() -> bool:
            state = await two.state(bo, room)
            return ("m.room.tombstone", "") in state

        await eventually(closed)
        await two.join(bo, heir, "one.test")
        tags = f"{mine}/rooms/{quote(heir)}/tags"
        assert await two.client(bo, "GET", tags) == {"tags": {"m.favourite": {"order": 0.5}}}
        direct = await two.client(bo, "GET", f"{mine}/account_data/m.direct")
        assert direct == {ann.user_id: [room, heir]}
        found = await two.client(bo, "GET", f"/pushrules/global/room/{quote(heir)}")
        assert found["actions"] == ["notify"]
        create = (await two.state(bo, heir))["m.room.create", ""]
        assert create["content"]["predecessor"]["room_id"] == room


async def test_who_replaces_a_room_by_hand_takes_along_what_he_had_in_it(tmp_path: Path) -> None:
    """[A7.12]: before the old room is closed."""
    async with country(tmp_path) as land:
        one = await land.town("one.test")
        ann = await one.register("ann")
        room = await one.room(ann)
        mine = f"/user/{quote(ann.user_id)}"
        await one.client(ann, "PUT", f"{mine}/rooms/{quote(room)}/tags/m.favourite", {"order": 0.5})
        rule = {"actions": ["notify"]}
        await one.client(ann, "PUT", f"/pushrules/global/room/{quote(room)}", rule)
        heir = await one.room(ann, creation_content={"predecessor": {"room_id": room}})
        tags = await one.client(ann, "GET", f"{mine}/rooms/{quote(heir)}/tags")
        assert tags == {"tags": {"m.favourite": {"order": 0.5}}}
        found = await one.client(ann, "GET", f"/pushrules/global/room/{quote(heir)}")
        assert found["actions"] == ["notify"]


async def test_a_room_that_calls_itself_an_heir_gets_nothing(tmp_path: Path) -> None:
    """The old room has to name the new one."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await two.room(bo)
        mine = f"/user/{quote(bo.user_id)}"
        await two.client(bo, "PUT", f"{mine}/rooms/{quote(room)}/tags/m.favourite", {})
        false = await one.room(ann, creation_content={"predecessor": {"room_id": room}})
        await two.join(bo, false, "one.test")
        tags = await two.client(bo, "GET", f"{mine}/rooms/{quote(false)}/tags")
        assert tags == {"tags": {}}


async def test_t029_a_parked_room_that_is_left_and_joined_anew_takes_events(tmp_path: Path) -> None:
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann)
        await two.join(bo, room, "one.test")
        nid = two.store.read(names.room_nid, RoomId(room))
        assert nid is not None
        await two.store.write(inbound.park, nid, 0, "it costs too much")
        await two.upon(bo, room, "leave")
        await one.say(ann, room, "while bo is away")
        await two.join(bo, room, "one.test")
        assert two.store.read(inbound.parked, nid) is None
        said = EventId(await one.say(ann, room, "hello"))

        async def came() -> bool:
            return two.store.read(events.by_id, said) is not None

        await eventually(came)
