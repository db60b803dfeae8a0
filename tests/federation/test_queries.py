"""Aliases, directories, profiles and proofs of identity between servers.

Matrix v1.19, Server-Server API, "Querying for information", "Published room directory", "OpenID"
([B13.01], [B13.02], [B13.06]); Client-Server API ([C12.01], [C12.02], [C15.01]); T094, T107.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from attrs import evolve

from matrixbox.config import settings as config
from tests.federation.test_serving import scene
from tests.federation.towns import Account, Failed, Town, country


def q(text: str) -> str:
    return quote(text, safe="")


async def refused(
    town: Town, who: Account | None, method: str, target: str, body: Any = None
) -> Any:
    """The status and code with which a client is refused."""
    with pytest.raises(Failed) as failed:
        await town.request(method, target, body, token=None if who is None else who.token)
    return failed.value.status, failed.value.body["errcode"]


# --- aliases


async def test_an_alias_of_another_server(tmp_path: Path) -> None:
    """[C12.01], [B13.01]: the alias' server is asked, also for strangers."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann = await one.register("ann")
        room = await one.room(ann, room_alias_name="square")
        target = f"/_matrix/client/v3/directory/room/{q('#square:one.test')}"
        assert await two.request("GET", target) == {"room_id": room, "servers": ["one.test"]}
        target = f"/_matrix/client/v3/directory/room/{q('#round:one.test')}"
        assert await refused(two, None, "GET", target) == (404, "M_NOT_FOUND")
        await one.stop()
        assert await refused(two, None, "GET", target) == (502, "M_UNKNOWN")


@pytest.mark.parametrize(
    "answer",
    [{}, {"room_id": 5, "servers": []}, {"room_id": "room", "servers": []}, b"<html>", b"[]"],
)
async def test_an_answer_that_names_no_room(tmp_path: Path, answer: Any) -> None:
    """[B13.01]: 502, whatever was said."""
    async with country(tmp_path) as land:
        one, far = await land.town("one.test"), land.fake("far.test")
        far.answers["query"] = answer
        target = f"/_matrix/client/v3/directory/room/{q('#square:far.test')}"
        assert await refused(one, None, "GET", target) == (502, "M_UNKNOWN")
        odd = {"room_id": "!r:far.test", "servers": ["far.test", 5, "a b", "x" * 300, "y.test"]}
        far.answers["query"] = odd
        found = await one.request("GET", target)
        assert found == {"room_id": "!r:far.test", "servers": ["far.test", "y.test"]}


async def test_only_our_own_aliases_are_told(tmp_path: Path) -> None:
    """[B13.01]."""
    async with scene(tmp_path, room_alias_name="square") as here:
        found = await here.good(f"/query/directory?room_alias={q('#square:home.test')}")
        assert found == {"room_id": here.room, "servers": ["home.test"]}
        for alias, expected in (
            ("#round:home.test", (404, "M_NOT_FOUND")),
            ("#square:far.test", (404, "M_NOT_FOUND")),
            ("square", (400, "M_INVALID_PARAM")),
        ):
            status, answer = await here.ask(f"/query/directory?room_alias={q(alias)}")
            assert (status, answer["errcode"]) == expected
        status, answer = await here.ask("/query/directory")
        assert (status, answer["errcode"]) == (400, "M_MISSING_PARAM")


# --- directories


class Open(Town):
    """A server whose list of rooms is open to others."""

    @property
    def settings(self) -> config.Settings:
        """Its configuration."""
        whole = super().settings
        return evolve(whole, rooms=evolve(whole.rooms, directory_over_federation=True))


async def test_t107_the_list_of_rooms_is_closed_unless_opened(tmp_path: Path) -> None:
    """[B13.02]: 403 for GET and POST."""
    async with scene(tmp_path, visibility="public") as here:
        for body in (None, {}):
            status, answer = await here.ask("/publicRooms", body)
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")


async def test_the_list_of_rooms_of_another_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[C12.02], [B13.02]: searched, and in pages; order and tokens are the other server's."""
    monkeypatch.setattr("tests.federation.towns.Town", Open)
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        rooms = [await one.room(ann, visibility="public", name=f"Room {n}") for n in range(5)]
        space = await one.room(
            ann, visibility="public", name="Space", creation_content={"type": "m.space"}
        )
        await one.room(ann, name="unlisted")
        target = "/_matrix/client/v3/publicRooms?server=one.test"

        async def get(more: str = "") -> Any:
            return await two.request("GET", target + more, token=bo.token)

        async def post(body: Any) -> Any:
            found = await two.request("POST", target, body, token=bo.token)
            return [room["room_id"] for room in found["chunk"]]

        everything = await get()
        assert {room["room_id"] for room in everything["chunk"]} == {*rooms, space}
        assert everything["total_room_count_estimate"] == 6
        first = await get("&limit=4")
        assert len(first["chunk"]) == 4
        second = await get(f"&limit=4&since={q(first['next_batch'])}")
        assert [*first["chunk"], *second["chunk"]] == everything["chunk"]
        assert await post({"filter": {"generic_search_term": "room 3"}}) == [rooms[3]]
        assert await post({"filter": {"room_types": ["m.space"]}}) == [space]
        assert set(await post({"filter": {"room_types": [None]}})) == set(rooms)
        assert await refused(two, None, "GET", target) == (401, "M_MISSING_TOKEN")


async def test_a_list_is_read_field_by_field(tmp_path: Path) -> None:
    """[B13.02], section 2 rule 7: what is odd is left out; nothing odd reaches a client."""
    async with country(tmp_path) as land:
        one, far = await land.town("one.test"), land.fake("far.test")
        ann = await one.register("ann")
        good = {
            "room_id": "!good:far.test",
            "num_joined_members": 3,
            "world_readable": True,
            "guest_can_join": "yes",
            "name": 7,
            "topic": "t",
            "evil": "x",
        }
        chunk = [5, {}, {**good, "room_id": "no"}, {**good, "num_joined_members": -1}, good]
        answer = {"chunk": chunk, "next_batch": 7, "total_room_count_estimate": "many"}
        far.answers["v1"] = answer
        target = "/_matrix/client/v3/publicRooms?server=far.test"
        assert await one.request("GET", target, token=ann.token) == {
            "chunk": [
                {
                    "room_id": "!good:far.test",
                    "num_joined_members": 3,
                    "world_readable": True,
                    "guest_can_join": False,
                    "topic": "t",
                }
            ]
        }
        far.answers["v1"] = (403, {"errcode": "M_FORBIDDEN", "error": "closed"})
        assert await refused(one, ann, "GET", target) == (403, "M_FORBIDDEN")


# --- profiles


async def test_the_profile_of_a_user_of_another_server(tmp_path: Path) -> None:
    """[C15.01], [B13.01]: whole, and one field; asked for once in a while."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        own = f"/_matrix/client/v3/profile/{q(ann.user_id)}"
        await one.request("PUT", f"{own}/displayname", {"displayname": "Ann"}, token=ann.token)
        await one.request("PUT", f"{own}/m.tz", {"m.tz": "Europe/Rome"}, token=ann.token)
        expected = {"displayname": "Ann", "m.tz": "Europe/Rome"}
        assert await two.request("GET", own, token=bo.token) == expected
        nobody = f"/_matrix/client/v3/profile/{q('@nobody:one.test')}"
        assert await refused(two, bo, "GET", nobody) == (404, "M_NOT_FOUND")
        await one.stop()
        found = await two.request("GET", f"{own}/displayname", token=bo.token)
        assert found == {"displayname": "Ann"}
        missing = await refused(two, bo, "GET", f"{own}/avatar_url")
        assert missing == (404, "M_NOT_FOUND")
        assert await refused(two, None, "GET", own) == (403, "M_FORBIDDEN")  # T094


async def test_profiles_that_are_told_to_servers(tmp_path: Path) -> None:
    """[B13.01], T094: of users of ours only; one field alone where one is asked for."""
    async with scene(tmp_path) as here:
        own = f"/_matrix/client/v3/profile/{q(here.ann.user_id)}/displayname"
        await here.town.request("PUT", own, {"displayname": "Ann"}, token=here.ann.token)
        asked = f"/query/profile?user_id={q(here.ann.user_id)}"
        assert await here.good(asked) == {"displayname": "Ann"}
        assert await here.good(f"{asked}&field=displayname") == {"displayname": "Ann"}
        assert await here.good(f"{asked}&field=avatar_url") == {}
        for user, expected in (
            ("@nobody:home.test", (404, "M_NOT_FOUND")),
            ("@bo:far.test", (404, "M_NOT_FOUND")),
            ("ann", (400, "M_INVALID_PARAM")),
        ):
            status, answer = await here.ask(f"/query/profile?user_id={q(user)}")
            assert (status, answer["errcode"]) == expected
        status, answer = await here.ask("/query/profile")
        assert (status, answer["errcode"]) == (400, "M_MISSING_PARAM")


async def test_an_odd_profile(tmp_path: Path) -> None:
    """Section 2 rule 7: what is null is not set, and a name is text."""
    async with country(tmp_path) as land:
        one, far = await land.town("one.test"), land.fake("far.test")
        ann = await one.register("ann")
        far.answers["query"] = {"displayname": 5, "avatar_url": None, "x.y": {"z": 1}}
        target = f"/_matrix/client/v3/profile/{q('@bo:far.test')}"
        assert await one.request("GET", target, token=ann.token) == {"x.y": {"z": 1}}


# --- proofs of identity


async def test_a_proof_of_identity(tmp_path: Path) -> None:
    """[B13.06], [C18.02], T050: for an hour, whoever shows it; the user's other tokens prove
    nothing."""
    async with scene(tmp_path) as here:
        path = f"/user/{q(here.ann.user_id)}/openid/request_token"
        given = await here.town.client(here.ann, "POST", path, {})
        target = "/_matrix/federation/v1/openid/userinfo?access_token="
        found = await here.town.request("GET", target + given["access_token"])
        assert found == {"sub": here.ann.user_id}
        for token in (here.ann.token, "", "x"):
            refusal = await refused(here.town, None, "GET", target + token)
            assert refusal in ((401, "M_UNKNOWN_TOKEN"), (400, "M_MISSING_PARAM"))
        here.land.clock.step(3_601_000)
        late = await refused(here.town, None, "GET", target + given["access_token"])
        assert late == (401, "M_UNKNOWN_TOKEN")


async def test_proofs_do_not_pile_up(tmp_path: Path) -> None:
    """T081: of each user a hundred are kept, the newest."""
    async with scene(tmp_path) as here:
        path = f"/user/{q(here.ann.user_id)}/openid/request_token"
        tokens = []
        for _ in range(103):
            here.land.clock.step(1)
            given = await here.town.client(here.ann, "POST", path, {})
            tokens.append(given["access_token"])
        count = here.town.store.read(lambda tx: tx.one("SELECT COUNT(*) FROM openid_token"))
        assert count == (100,)
        target = "/_matrix/federation/v1/openid/userinfo?access_token="
        await here.town.request("GET", target + tokens[-1])
        gone = await refused(here.town, None, "GET", target + tokens[0])
        assert gone == (401, "M_UNKNOWN_TOKEN")
