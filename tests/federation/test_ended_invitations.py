"""Invitations that are over before anybody of the invited user's server was in the room.

Matrix v1.19, Server-Server API, "Leaving Rooms" ([B9.11], [B9.12]).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.federation.towns import country, eventually


@pytest.mark.parametrize("how", ["kick", "leave"])
async def test_an_invitation_that_is_over_is_shown_as_the_event_that_ended_it(
    tmp_path: Path, how: str
) -> None:
    """[B9.11], [B9.12], [C8.20]: by a server that was not in the room; forgotten, it is gone."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann, preset="private_chat", invite=[bo.user_id])
        first = await two.sync(bo)
        assert room in first["rooms"]["invite"]
        if how == "kick":
            await one.upon(ann, room, "kick", user_id=bo.user_id, reason="a mistake")
        else:
            await two.upon(bo, room, "leave")

        async def over() -> Any:
            answer = await two.sync(bo, since=first["next_batch"])
            return answer.get("rooms", {}).get("leave", {}).get(room)

        (event,) = (await eventually(over))["timeline"]["events"]
        assert event["type"] == "m.room.member"
        assert event["state_key"] == bo.user_id
        assert event["sender"] == (ann if how == "kick" else bo).user_id
        assert event["content"]["membership"] == "leave"
        assert "room_id" not in event

        async def known() -> Any:
            found = (await one.state(ann, room))["m.room.member", bo.user_id]
            return found["event_id"] == event["event_id"]

        await eventually(known)
        wanted = '{"room": {"include_leave": true, "timeline": {"not_senders": ["%s"]}}}'
        left = (await two.sync(bo, filter=wanted % "@x:y"))["rooms"]["leave"][room]
        assert left["timeline"]["events"] == [event]
        left = (await two.sync(bo, filter=wanted % event["sender"]))["rooms"]["leave"][room]
        assert left["timeline"]["events"] == []
        await two.upon(bo, room, "forget")
        assert "rooms" not in await two.sync(bo, filter=wanted % "@x:y")


async def test_only_who_invited_can_withdraw_that_from_a_server_outside(tmp_path: Path) -> None:
    """[B9.12]: whether somebody else may do so follows from the room's state, which is not here."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, al, bo = [
            await one.register("ann"),
            await one.register("al"),
            await two.register("bo"),
        ]
        room = await one.room(ann, power_level_content_override={"invite": 0})
        await one.join(al, room)
        await one.upon(al, room, "invite", user_id=bo.user_id)
        marker = await one.room(ann, preset="public_chat", invite=[bo.user_id])
        await one.upon(ann, room, "kick", user_id=bo.user_id)
        await one.upon(ann, marker, "kick", user_id=bo.user_id)  # goes the same way, later

        async def arrived() -> Any:
            found = await two.sync(bo)
            return found if marker not in found["rooms"]["invite"] else None

        assert room in (await eventually(arrived))["rooms"]["invite"]
