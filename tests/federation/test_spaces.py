"""Spaces and summaries of rooms between servers.

Matrix v1.19, Server-Server API, "Spaces" ([B13.03]); Client-Server API, "Spaces", "Room summaries"
([C12.05] to [C12.09], T107).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.federation.test_serving import scene
from tests.federation.towns import Account, Country, Failed, Town, country

SPACE = {"type": "m.space"}


def q(text: str) -> str:
    return quote(text, safe="")


async def add(town: Town, who: Account, space: str, room: str, *via: str, **more: Any) -> None:
    """Put a room into a space."""
    await town.set_state(who, space, "m.space.child", {"via": [*via], **more}, room)


async def walk(town: Town, who: Account, room: str, **query: str) -> Any:
    """One page of a hierarchy."""
    text = "&".join(f"{key}={q(value)}" for key, value in query.items())
    target = f"/_matrix/client/v1/rooms/{q(room)}/hierarchy?{text}"
    return await town.request("GET", target, token=who.token)


async def summary(town: Town, who: Account, room: str, *via: str) -> Any:
    """A summary."""
    text = "&".join(f"via={q(name)}" for name in via)
    target = f"/_matrix/client/v1/room_summary/{q(room)}?{text}"
    return await town.request("GET", target, token=who.token)


def ids(page: Any) -> list[str]:
    return [room["room_id"] for room in page["rooms"]]


# --- what servers are told


async def test_a_server_is_told_of_what_its_users_may_come_into(tmp_path: Path) -> None:
    """[B13.03], T107: public and knockable rooms, and those its users are in or invited to."""
    async with scene(tmp_path, creation_content=SPACE) as here:
        town, ann = here.town, here.ann
        public = await town.room(ann, name="Public")
        private = await town.room(ann, preset="private_chat", name="Private")
        knockable = await town.room(ann, preset="private_chat", name="Knock")
        await town.set_state(ann, knockable, "m.room.join_rules", {"join_rule": "knock"})
        readable = await town.room(ann, preset="private_chat", name="Readable")
        seen = {"history_visibility": "world_readable"}
        await town.set_state(ann, readable, "m.room.history_visibility", seen)
        members = await town.room(ann, preset="private_chat", name="Members")
        allow = [{"type": "m.room_membership", "room_id": here.room}]
        rule = {"join_rule": "restricted", "allow": allow}
        await town.set_state(ann, members, "m.room.join_rules", rule)
        for room in (public, private, knockable, readable, members, "!gone:far.test"):
            await add(town, ann, here.room, room, "home.test")
        await town.set_state(ann, here.room, "m.space.child", {}, "!no-child:home.test")
        found = await here.good(f"/hierarchy/{q(here.room)}")
        assert found["room"]["room_id"] == here.room
        assert found["room"]["room_type"] == "m.space"
        assert found["room"]["room_version"] == "12"
        named = {child["state_key"] for child in found["room"]["children_state"]}
        assert named == {public, private, knockable, readable, members, "!gone:far.test"}
        assert all(
            set(child) == {"type", "state_key", "sender", "content", "origin_server_ts"}
            for child in found["room"]["children_state"]
        )
        assert {r["room_id"] for r in found["children"]} == {public, knockable, readable}
        assert set(found["inaccessible_children"]) == {private, members}
        await here.join()
        found = await here.good(f"/hierarchy/{q(here.room)}")
        (member,) = (r for r in found["children"] if r["room_id"] == members)
        assert member["allowed_room_ids"] == [here.room]
        assert found["inaccessible_children"] == [private]


async def test_only_suggested_children(tmp_path: Path) -> None:
    """[B13.03]."""
    async with scene(tmp_path, creation_content=SPACE) as here:
        town, ann = here.town, here.ann
        one, two = await town.room(ann), await town.room(ann)
        await add(town, ann, here.room, one, "home.test", suggested=True)
        await add(town, ann, here.room, two, "home.test")
        found = await here.good(f"/hierarchy/{q(here.room)}?suggested_only=true")
        assert [r["room_id"] for r in found["children"]] == [one]
        status, answer = await here.ask(f"/hierarchy/{q(here.room)}?suggested_only=1")
        assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("how", ["private", "acl", "unknown"])
async def test_rooms_that_a_server_is_not_told_of(tmp_path: Path, how: str) -> None:
    """[B13.03], T107, T037: 404, without a difference."""
    async with scene(tmp_path, preset="private_chat") as here:
        if how == "acl":
            await here.set("m.room.join_rules", {"join_rule": "public"})
            await here.set("m.room.server_acl", {"allow": ["*"], "deny": ["far.test"]})
        if how == "unknown":
            here.room = "!nothing:home.test"
        status, answer = await here.ask(f"/hierarchy/{q(here.room)}")
        assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


# --- walks into rooms of others


async def test_a_walk_goes_on_at_other_servers(tmp_path: Path) -> None:
    """[C12.06] to [C12.09]: a space of theirs in a space of ours, with its rooms, in order."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        home = await one.room(ann, creation_content=SPACE)
        theirs = await two.room(bo, creation_content=SPACE, name="Theirs")
        first, second = await two.room(bo, name="First"), await two.room(bo, name="Second")
        hidden = await two.room(bo, preset="private_chat")
        ours = await one.room(ann, name="Ours")
        await add(one, ann, home, theirs, "two.test", order="a")
        await add(one, ann, home, ours, "one.test", order="b")
        await add(two, bo, theirs, second, "two.test", order="y")
        await add(two, bo, theirs, first, "two.test", order="x")
        await add(two, bo, theirs, hidden, "two.test", order="z")
        await add(two, bo, theirs, home, "one.test")  # a circle over both servers
        everything = await walk(one, ann, home)
        assert ids(everything) == [home, theirs, first, second, ours]
        assert everything["rooms"][2]["name"] == "First"
        await two.stop()
        assert ids(await walk(one, ann, home)) == ids(everything), "answers are kept for a while"
        assert ids(await walk(one, ann, home, max_depth="1")) == [home, theirs, ours]
        page = await walk(one, ann, home, limit="2")
        assert ids(page) == [home, theirs]
        page = await walk(one, ann, home, **{"limit": "2", "from": page["next_batch"]})
        assert ids(page) == [first, second]
        page = await walk(one, ann, home, **{"limit": "2", "from": page["next_batch"]})
        assert ids(page) == [ours]
        assert "next_batch" not in page


async def test_a_room_that_nobody_tells_of_is_left_out(tmp_path: Path) -> None:
    """[C12.09]: its server is down; the rest of the space is there."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        home = await one.room(ann, creation_content=SPACE)
        theirs, ours = await two.room(bo), await one.room(ann)
        await add(one, ann, home, theirs, "two.test", "nowhere.test", order="a")
        await add(one, ann, home, ours, "one.test", order="b")
        await two.stop()
        assert ids(await walk(one, ann, home)) == [home, ours]


async def hostile(land: Country, answer: Any) -> tuple[Town, Account, str, Any]:
    """A space of ours with a room at a server that answers this."""
    one = await land.town("one.test")
    ann = await one.register("ann")
    far = land.fake("far.test")
    far.answers["hierarchy"] = answer
    home = await one.room(ann, creation_content=SPACE)
    await add(one, ann, home, "!room:far.test", "far.test")
    return one, ann, home, far


def room_of_theirs(**fields: Any) -> dict[str, Any]:
    return {
        "room_id": "!room:far.test",
        "num_joined_members": 3,
        "world_readable": False,
        "guest_can_join": False,
        "join_rule": "public",
        "children_state": [],
        **fields,
    }


@pytest.mark.parametrize(
    "answer",
    [
        {"room": room_of_theirs(room_id="!other:far.test"), "children": []},
        {"room": room_of_theirs(num_joined_members="3"), "children": []},
        {"room": room_of_theirs(join_rule="invite"), "children": []},
        {"room": room_of_theirs(join_rule="restricted", allowed_room_ids=["!x:y"])},
        {"room": []},
        {},
        (404, {"errcode": "M_NOT_FOUND", "error": "no"}),
        (500, {}),
    ],
    ids=["another room", "odd count", "closed", "not allowed", "list", "empty", "404", "500"],
)
async def test_answers_that_tell_of_no_room(tmp_path: Path, answer: Any) -> None:
    """[B13.03], [C12.08]: our own judgement of who may know of a room counts, and its form."""
    async with country(tmp_path) as land:
        one, ann, home, _ = await hostile(land, answer)
        assert ids(await walk(one, ann, home)) == [home]


async def test_an_answer_without_end(tmp_path: Path) -> None:
    """T107, section 3: each room has more children; a page has 50, and at most 30 are asked for."""
    async with country(tmp_path) as land:

        def answer(request: Any, body: Any) -> Any:
            room_id = request.target.split("/")[-1].partition("?")[0].replace("%21", "!")
            room_id = room_id.replace("%3A", ":")
            children = [
                {
                    "type": "m.space.child",
                    "state_key": f"{room_id.partition(':')[0]}{letter}:far.test",
                    "sender": "@a:far.test",
                    "content": {"via": ["far.test"]},
                    "origin_server_ts": 1,
                }
                for letter in "abcd"
            ]
            room = room_of_theirs(
                room_id=room_id, room_type="m.space", children_state=children, name="n" * 100_000
            )
            return {"room": room, "children": [], "inaccessible_children": []}

        one, ann, home, far = await hostile(land, answer)
        page = await walk(one, ann, home, limit="1000")
        assert len(page["rooms"]) <= 50
        assert len(far.asked("hierarchy")) == 30
        assert all(len(room.get("name", "")) <= 2_000 for room in page["rooms"])
        assert "next_batch" in page


# --- summaries


async def test_a_summary_of_a_room_elsewhere(tmp_path: Path) -> None:
    """[C12.05]: by id with `via`, and by alias; not of rooms that are closed to the user."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann, name="Square", room_alias_name="square", topic="T")
        closed = await one.room(ann, preset="private_chat")
        for named, via in ((room, ("one.test",)), ("#square:one.test", ())):
            found = await summary(two, bo, named, *via)
            assert (found["room_id"], found["name"], found["topic"]) == (room, "Square", "T")
            assert found["membership"] == "leave"
            assert "children_state" not in found
        for named in (closed, "!nothing:one.test"):
            with pytest.raises(Failed) as failed:
                await summary(two, bo, named, "one.test")
            assert failed.value.status == 404
        # Strangers are told of our own rooms only.
        target = f"/_matrix/client/v1/room_summary/{q(room)}?via=one.test"
        assert (await one.request("GET", target))["name"] == "Square"
        with pytest.raises(Failed) as failed:
            await two.request("GET", target)
        assert failed.value.status == 404
