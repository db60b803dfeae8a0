"""Joining rooms of other servers, through the whole of both servers.

Matrix v1.19, Server-Server API, "Joining Rooms", "Restricted rooms" ([B8.01] to [B8.13],
[C11.01]).
"""

from __future__ import annotations

from pathlib import Path

import pytest

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
