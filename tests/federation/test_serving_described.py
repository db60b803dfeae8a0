"""Our answers to other servers against the descriptions of their endpoints.

Matrix v1.19, Server-Server API, the OpenAPI documents ([B11.01] to [B11.05], [B13.01] to [B13.03],
[B13.06]).  Without the environment variable MATRIXBOX_SPEC_DATA only the statuses are looked at,
which is said at the end.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.api.conformance.conftest import WITHOUT_DATA
from tests.api.conformance.openapi.documents import Documents
from tests.api.conformance.openapi.operations import Operations
from tests.federation.test_queries import Open
from tests.federation.test_serving import Scene, scene
from tests.reporting import did_not_run

DATA = os.environ.get("MATRIXBOX_SPEC_DATA")
VERSIONS = ("1", "6", "11", "12")


@cache
def operations() -> Operations | None:
    """The descriptions, where they are at hand."""
    return None if DATA is None else Operations(Documents(Path(DATA)), "server-server")


def q(text: str) -> str:
    return quote(text, safe="")


async def good(here: Scene, target: str, body: Any = None) -> Any:
    """A right answer, which is as its description says."""
    answer = await here.good(target, body)
    known = operations()
    if known is not None:
        path = f"/_matrix/federation/v1{target.partition('?')[0]}"
        operation = known.find("GET" if body is None else "POST", path)
        assert operation is not None, path
        attempts = [[*checked.problems(answer)] for checked in operation.answers(200)]
        assert [] in attempts, attempts
    return answer


@pytest.mark.parametrize("version", VERSIONS)
async def test_answers_are_as_described(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every endpoint that tells of rooms and users."""
    monkeypatch.setattr("tests.federation.towns.Town", Open)
    space = {"type": "m.space"}
    wanted = {"visibility": "public", "room_alias_name": "square", "name": "Square"}
    async with scene(tmp_path, version, creation_content=space, **wanted) as here:
        town, ann = here.town, here.ann
        child = await town.room(ann, name="Child", topic="T")
        await town.set_state(ann, here.room, "m.space.child", {"via": ["home.test"]}, child)
        await here.join()
        first, last = await here.say("one", "two")
        for target, body in here.every_target(last):
            await good(here, target, body)
        await good(here, f"/event/{q(first)}")
        hierarchy = await good(here, f"/hierarchy/{q(here.room)}")
        assert len(hierarchy["children"]) == 1
        await good(here, f"/query/directory?room_alias={q('#square:home.test')}")
        name = f"/profile/{q(ann.user_id)}/displayname"
        await town.client(ann, "PUT", name, {"displayname": "Ann"})
        await good(here, f"/query/profile?user_id={q(ann.user_id)}")
        listed = await good(here, "/publicRooms?limit=10")
        assert [room["room_id"] for room in listed["chunk"]] == [here.room]
        assert (await good(here, "/publicRooms", {}))["chunk"] == listed["chunk"]
        given = await town.client(ann, "POST", f"/user/{q(ann.user_id)}/openid/request_token", {})
        token = q(given["access_token"])
        assert await good(here, f"/openid/userinfo?access_token={token}") == {"sub": ann.user_id}
    if operations() is None:
        did_not_run(WITHOUT_DATA)
