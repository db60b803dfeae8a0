"""Servers that are in a room on one branch of it alone, when the branches meet.

Matrix v1.19, Server-Server API, "Transactions"; rooms/v11, "State resolution".
"""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.federation.looks import agree, eventually, is_in
from tests.federation.towns import country


@pytest.mark.parametrize("version", ["6", "10", "12"])
async def test_who_was_banned_on_the_other_side_of_a_netsplit_is_told_so(
    tmp_path: Path, autojump_clock: MockClock, version: str
) -> None:
    """Its server was not in the room when that was said, and would believe for ever that it is."""
    async with country(tmp_path) as land:
        a, b, c = [await land.town(f"{name}.test") for name in "abc"]
        ann, bo, cleo = [await town.register("u") for town in (a, b, c)]
        room = await a.room(ann, room_version=version)
        await c.join(cleo, room, "a.test")
        await agree(room, a, c)
        await b.services.federation.keyring.refresh(a.name)
        land.network.partition({a.name})
        await b.join(bo, room, "c.test")
        await a.upon(ann, room, "ban", user_id=bo.user_id)
        assert is_in(b, room, bo.user_id)
        land.network.heal()

        async def out_everywhere() -> bool:
            return not any(is_in(town, room, bo.user_id) for town in (a, b, c))

        await eventually(out_everywhere)
