"""History that others have: fetched when a client pages back, and when it jumps to a date.

Matrix v1.19, Client-Server API, "Getting events for a room", "Event context" ([C9.03] to [C9.05],
[C9.08]); Server-Server API, "Backfilling and retrieving missing events" ([B11.01], [B11.05]).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.federation.towns import Account, Failed, Town, country, eventually
from tests.sim.network import Network

VERSIONS = ("1", "2", "6", "9", "10", "11", "12")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What servers ask each other about history, by their targets."""
    found: list[str] = []
    carry = Network.carry

    async def noted(self: Network, origin: Any, to: Any, request: Any) -> Any:
        if "/backfill/" in request.target or "/timestamp_to_event/" in request.target:
            found.append(request.target)
        return await carry(self, origin, to, request)

    monkeypatch.setattr(Network, "carry", noted)
    return found


async def pages(
    town: Town, who: Account, room: str, limit: int = 20, start: str | None = None
) -> list[dict[str, Any]]:
    """Everything before a place, newest first."""
    found: list[dict[str, Any]] = []
    while True:
        more = {} if start is None else {"from": start}
        page = await town.client(
            who, "GET", f"/rooms/{quote(room)}/messages", dir="b", limit=str(limit), **more
        )
        found += page["chunk"]
        start = page.get("end")
        if start is None:
            return found


def said(found: list[dict[str, Any]]) -> list[str]:
    """What was said, oldest first."""
    return [e["content"]["body"] for e in reversed(found) if e["type"] == "m.room.message"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_messages_goes_on_into_what_others_have(
    tmp_path: Path, version: str, asked: list[str]
) -> None:
    """[C9.04], [B11.01]: 250 messages with state between them, no hole, nothing twice."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann, room_version=version, name="Home")
        for number in range(250):
            await one.say(ann, room, f"m{number}")
            if number % 60 == 0:
                await one.set_state(ann, room, "m.room.topic", {"topic": f"t{number}"})
        await two.join(bo, room, "one.test")
        theirs, ours = await pages(one, ann, room), await pages(two, bo, room)
        assert [e["event_id"] for e in ours] == [e["event_id"] for e in theirs]
        assert said(ours) == [f"m{number}" for number in range(250)]
        # What came in is here now: nobody is asked again.
        before = len(asked)
        assert await pages(two, bo, room) == [{**e, "unsigned": ANYTHING} for e in ours]
        assert len(asked) == before


class _Anything:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


ANYTHING = _Anything()


async def test_history_that_is_not_shared_is_not_fetched(tmp_path: Path, asked: list[str]) -> None:
    """[C9.01], T104: what was sent before the join is nobody's here, so nobody is asked for it."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann)
        await one.set_state(
            ann, room, "m.room.history_visibility", {"history_visibility": "joined"}
        )
        await one.say(ann, room, "before")
        await two.join(bo, room, "one.test")
        before = len(asked)
        found = await pages(two, bo, room)
        assert [e["type"] for e in found] == ["m.room.member"]
        assert len(asked) == before


async def test_nobody_answers(tmp_path: Path) -> None:
    """[C9.03]: the page has what there is; its token asks again, and ends when all is in vain."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann)
        await one.say(ann, room, "before")
        await two.join(bo, room, "one.test")
        await one.stop()
        path = f"/rooms/{quote(room)}/messages"
        page = await two.client(bo, "GET", path, dir="b")
        assert [e["type"] for e in page["chunk"]] == ["m.room.member"]
        last = await two.client(bo, "GET", path, **{"dir": "b", "from": page["end"]})
        assert last["chunk"] == []
        assert "end" not in last


async def test_a_redaction_comes_before_what_it_redacts(tmp_path: Path) -> None:
    """[A4.15], T039: paging back, the redaction is found first, and held back until its target
    is here; then it stands in its place, and not among the news."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann)
        target = await one.say(ann, room, "secret")
        for number in range(120):
            await one.say(ann, room, f"m{number}")
        path = f"/rooms/{quote(room)}/redact/{quote(target)}/t"
        redaction = (await one.client(ann, "PUT", path, {}))["event_id"]
        await two.join(bo, room, "one.test")
        since = (await two.sync(bo))["next_batch"]
        first = await pages(two, bo, room)
        assert redaction not in [e["event_id"] for e in first]
        theirs, ours = await pages(one, ann, room), await pages(two, bo, room)
        assert [e["event_id"] for e in ours] == [e["event_id"] for e in theirs]
        shown = next(e for e in ours if e["event_id"] == target)
        assert shown in [{**e, "unsigned": ANYTHING} for e in first]
        assert shown["content"] == {}
        assert shown["unsigned"]["redacted_because"]["event_id"] == redaction
        # History is no news.
        assert "rooms" not in await two.sync(bo, since=since, timeout="0")


async def test_context_reaches_beyond_what_is_here(tmp_path: Path) -> None:
    """[C9.05]: the neighbours of an event are fetched."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann)
        for number in range(30):
            await one.say(ann, room, f"m{number}")
        await two.join(bo, room, "one.test")
        (join,) = (await two.sync(bo))["rooms"]["join"][room]["timeline"]["events"]
        path = f"/rooms/{quote(room)}/context/{quote(join['event_id'])}"
        found = await two.client(bo, "GET", path, limit="20")
        assert said(found["events_before"]) == [f"m{number}" for number in range(20, 30)]


async def test_rooms_that_went_on_while_we_were_away(tmp_path: Path) -> None:
    """[B8.01]: who comes back sees what was said meanwhile between what was before and after."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann)
        await one.say(ann, room, "m0")
        await two.join(bo, room, "one.test")
        await two.say(bo, room, "m1")
        await two.upon(bo, room, "leave")
        for number in range(2, 150):
            await one.say(ann, room, f"m{number}")
        await two.join(bo, room, "one.test")
        found = await pages(two, bo, room)
        assert said(found) == [f"m{number}" for number in range(150)]


async def test_a_hole_left_by_a_long_outage_is_filled(tmp_path: Path) -> None:
    """T154, [B6.11]: more was said than is fetched at once; the new is there first, and paging
    back finds the rest in its place, between what was here and what came."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann)
        await one.say(ann, room, "m0")
        await two.join(bo, room, "one.test")
        await two.stop()
        for number in range(1, 400):
            await one.say(ann, room, f"m{number}")
        await two.start(land.nursery)
        await one.say(ann, room, "m400")

        async def is_here() -> bool:
            path = f"/rooms/{quote(room)}/messages"
            page = await two.client(bo, "GET", path, dir="b", limit="3")
            return "m400" in said(page["chunk"])

        await eventually(is_here, 60)
        found = await pages(two, bo, room, limit=100)
        assert said(found) == [f"m{number}" for number in range(401)]


async def nearest(town: Town, who: Account, room: str, ts: int, direction: str) -> Any:
    """The answer of a client's jump to a date."""
    target = f"/_matrix/client/v1/rooms/{quote(room)}/timestamp_to_event?ts={ts}&dir={direction}"
    return await town.request("GET", target, token=who.token)


@pytest.mark.parametrize("direction", ["b", "f"])
async def test_jump_to_a_date_before_the_join(
    tmp_path: Path, direction: str, asked: list[str]
) -> None:
    """[C9.08], [B11.05]: the event is found elsewhere, comes in, and one can page from there;
    what lies between it and what was here is found afterwards, in its place."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann)
        times: list[int] = []
        ids: list[str] = []
        for number in range(300):
            land.clock.step(60_000)
            times.append(land.clock.now_ms())
            ids.append(await one.say(ann, room, f"m{number}"))
        land.clock.step(60_000)
        await two.join(bo, room, "one.test")
        wanted = times[100] + (30_000 if direction == "b" else -30_000)
        found = await nearest(two, bo, room, wanted, direction)
        assert found["event_id"] == ids[100]
        assert abs(found["origin_server_ts"] - times[100]) < 30_000
        path = f"/rooms/{quote(room)}/context/{quote(ids[100])}"
        around = await two.client(bo, "GET", path, limit="10")
        assert around["event"]["content"]["body"] == "m100"
        assert said(around["events_before"]) == [f"m{number}" for number in range(95, 100)]
        earlier = await pages(two, bo, room, start=around["start"])
        assert said(earlier) == [f"m{number}" for number in range(95)]
        assert said(await pages(two, bo, room, limit=50)) == [f"m{n}" for n in range(300)]
        # Now all is here, and the same question is answered at home.
        before = len(asked)
        assert await nearest(two, bo, room, wanted, direction) == found
        assert len(asked) == before


async def test_jump_where_nothing_is(tmp_path: Path) -> None:
    """[C9.08]: 404, here and elsewhere."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann)
        await two.join(bo, room, "one.test")
        with pytest.raises(Failed) as failed:
            await nearest(two, bo, room, 1, "b")
        assert failed.value.status == 404
        with pytest.raises(Failed) as failed:
            await nearest(two, bo, room, land.clock.now_ms() + 10**9, "f")
        assert failed.value.status == 404


async def test_a_filter_that_finds_little(tmp_path: Path) -> None:
    """[C9.03], T013: pages may be empty while history comes in; the tokens lead to its end."""
    async with country(tmp_path) as land:
        one, two = await land.town("one.test"), await land.town("two.test")
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann)
        first = await one.set_state(ann, room, "m.room.topic", {"topic": "rare"})
        for number in range(730):
            await one.say(ann, room, f"m{number}")
        await two.join(bo, room, "one.test")
        found: list[str] = []
        query = {"dir": "b", "filter": '{"types":["m.room.topic"]}'}
        for _ in range(10):
            page = await two.client(bo, "GET", f"/rooms/{quote(room)}/messages", **query)
            found += [event["event_id"] for event in page["chunk"]]
            if "end" not in page:
                break
            query["from"] = page["end"]
        assert found == [first]
