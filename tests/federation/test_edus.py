"""What servers tell each other beside events: typing, receipts, who is there, devices."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
import trio

from tests.federation.towns import country, eventually


def ephemeral(answer, room, kind):
    """The contents of a kind in a room's part of a sync."""
    shown = answer.get("rooms", {}).get("join", {}).get(room, {}).get("ephemeral", {})
    return [event["content"] for event in shown.get("events", []) if event["type"] == kind]


def seen(answer):
    """How users are, by name."""
    return {
        event["sender"]: event["content"] for event in answer.get("presence", {}).get("events", [])
    }


async def until(town, who, since, found, within_s=30):
    """Sync until an answer has what is looked for; that and the next token."""
    with trio.fail_after(within_s):
        while True:
            answer = await town.sync(who, since=since, timeout="5000", set_presence="offline")
            since = answer["next_batch"]
            hit = found(answer)
            if hit:
                return hit, since


async def pair(land, **wanted):
    """Ann and Bo in one room on two servers."""
    one, two = await land.town("one.test"), await land.town("two.test")
    ann, bo = await one.register("ann"), await two.register("bo")
    room = await one.room(ann, **wanted)
    await two.join(bo, room, "one.test")
    return one, two, ann, bo, room


async def test_typing_is_seen_on_the_other_server(tmp_path: Path, autojump_clock) -> None:
    """[B7.01]."""
    async with country(tmp_path) as land:
        one, two, ann, bo, room = await pair(land)
        since = (await two.sync(bo))["next_batch"]
        path = f"/rooms/{quote(room)}/typing/{quote(ann.user_id)}"
        await one.client(ann, "PUT", path, {"typing": True, "timeout": 20_000})
        (content,), since = await until(two, bo, since, lambda a: ephemeral(a, room, "m.typing"))
        assert content == {"user_ids": [ann.user_id]}
        await one.client(ann, "PUT", path, {"typing": False})
        (content,), since = await until(two, bo, since, lambda a: ephemeral(a, room, "m.typing"))
        assert content == {"user_ids": []}


async def test_receipts_are_seen_on_the_other_server(tmp_path: Path, autojump_clock) -> None:
    """[B7.03]: with their thread; private ones never (T108)."""
    async with country(tmp_path) as land:
        one, two, ann, bo, room = await pair(land)
        first = await one.say(ann, room, "first")
        second = await one.say(ann, room, "second")
        since = (await one.sync(ann))["next_batch"]
        await eventually(lambda: heard(two, bo, room, second))
        for kind, event, body in (
            ("m.read.private", second, {}),
            ("m.read", first, {}),
            ("m.read", second, {"thread_id": "main"}),
        ):
            path = f"/rooms/{quote(room)}/receipt/{kind}/{quote(event)}"
            await two.client(bo, "POST", path, body)
        found = {}

        def both(answer):
            for content in ephemeral(answer, room, "m.receipt"):
                for event_id, kinds in content.items():
                    assert kinds.keys() == {"m.read"}
                    for data in kinds["m.read"].values():
                        found[event_id, data.get("thread_id")] = data["ts"]
            return len(found) == 2

        await until(one, ann, since, both)
        assert found.keys() == {(first, None), (second, "main")}


async def heard(town, who, room, event_id):
    """Whether a server has an event."""
    shown = (await town.sync(who))["rooms"]["join"][room]["timeline"]["events"]
    return event_id in [event["event_id"] for event in shown]


async def test_presence_is_seen_on_both_servers(tmp_path: Path, autojump_clock) -> None:
    """[B7.02], [C8.27], [C13.08]: by who shares a room; idle and gone as time goes by."""
    async with country(tmp_path) as land:
        one, two, ann, bo, _ = await pair(land)
        cy, dan = await one.register("cy"), await two.register("dan")
        since = (await two.sync(bo, set_presence="offline"))["next_batch"]
        path = f"/presence/{quote(ann.user_id)}/status"
        body = {"presence": "unavailable", "status_msg": "at sea"}
        await one.client(ann, "PUT", path, body)
        found, since = await until(two, bo, since, lambda a: seen(a).get(ann.user_id))
        assert (found["presence"], found["status_msg"]) == ("unavailable", "at sea")
        assert found["last_active_ago"] >= 0
        assert (await two.client(bo, "GET", path))["status_msg"] == "at sea"
        for town, who in ((one, cy), (two, dan)):
            assert ann.user_id not in seen(await town.sync(who))
            with pytest.raises(Exception, match="403"):
                await town.client(who, "GET", path)
        await trio.sleep(60)
        assert (await two.client(bo, "GET", path))["presence"] == "offline"
        before = (await one.sync(ann))["next_batch"]  # online, by syncing
        await trio.sleep(5)
        found = await two.client(bo, "GET", path)
        assert (found["presence"], found["currently_active"]) == ("online", True)
        with trio.move_on_after(400):
            while True:
                before = (await one.sync(ann, since=before, timeout="30000"))["next_batch"]
        found = await two.client(bo, "GET", path)
        assert found["presence"] == "unavailable"
        assert found["last_active_ago"] >= 300_000
        await one.sync(ann, since=before, timeout="0")
        room = await one.room(ann)
        await one.say(ann, room, "back")
        await trio.sleep(5)
        assert (await two.client(bo, "GET", path))["presence"] == "online"


async def test_what_users_say_of_themselves_survives_a_restart(tmp_path, autojump_clock) -> None:
    async with country(tmp_path) as land:
        one, _, ann, _, _ = await pair(land)
        path = f"/presence/{quote(ann.user_id)}/status"
        body = {"presence": "online", "status_msg": "here"}
        await one.client(ann, "PUT", path, body)
        await one.stop()
        await one.start(land.nursery)
        await trio.sleep(1)
        found = await one.client(ann, "GET", path)
        assert (found["presence"], found["status_msg"]) == ("offline", "here")


# --- lies


def edus_of(kind, content):
    """The body of a transaction with one EDU."""
    return {
        "origin": "fake.test",
        "origin_server_ts": 1,
        "pdus": [],
        "edus": [{"edu_type": kind, "content": content}],
    }


def lies(room, other_room, event, ann, bo):
    """EDUs that name a user of another server than their sender, or a wrong place, or no form."""
    read = {"event_ids": [event], "data": {"ts": 1}}
    for user in (ann, bo, "@nobody:fake.test", "@mal:fake.test:1", "mal", ""):
        yield "m.typing", {"room_id": room, "user_id": user, "typing": True}
        yield "m.receipt", {room: {"m.read": {user: read}}}
        yield "m.presence", {"push": [{"user_id": user, "presence": "online"}]}
    mal = "@mal:fake.test"
    yield "m.typing", {"room_id": other_room, "user_id": mal, "typing": True}
    yield "m.receipt", {other_room: {"m.read": {mal: read}}}
    yield "m.receipt", {room: {"m.read.private": {mal: read}}}
    yield "m.receipt", {room: {"m.read": {mal: {"event_ids": [event, event], "data": {}}}}}
    yield "m.receipt", {room: {"m.read": {mal: {"event_ids": [7], "data": {}}}}}
    yield "m.receipt", {room: {"m.read": {mal: {"event_ids": event, "data": {}}}}}
    yield "m.receipt", {room: {"m.read": {mal: {**read, "data": {"thread_id": 3}}}}}
    yield "m.receipt", {room: {"m.read": {mal: {**read, "data": {"thread_id": "$x"}}}}}
    yield "m.receipt", {room: [mal]}
    yield "m.presence", {"push": [{"user_id": mal, "presence": "asleep"}]}
    yield "m.presence", {"push": {"user_id": mal, "presence": "online"}}
    yield "m.presence", {"push": [[], 3, {"user_id": 3, "presence": "online"}]}
    yield "m.nonsense", {"user_id": ann}
    for kind in ("m.typing", "m.receipt", "m.presence", "m.direct_to_device"):
        yield kind, {}
        yield kind, [1]
        yield kind, None


async def test_edus_about_others_users_and_of_no_form_change_nothing(
    tmp_path: Path, autojump_clock
) -> None:
    """T038, [B7.09], [B7.11]: each is dropped, and what comes with it is not."""
    async with country(tmp_path) as land:
        one, _, ann, bo, room = await pair(land)
        fake = land.fake("fake.test")
        other = await one.room(ann)
        event = await one.say(ann, room, "hello")
        since = (await one.sync(ann, set_presence="offline"))["next_batch"]
        number = 0
        for kind, content in lies(room, other, event, ann.user_id, bo.user_id):
            number += 1
            status, answer = await fake.call(
                one, "PUT", f"/_matrix/federation/v1/send/t{number}", edus_of(kind, content)
            )
            assert (status, answer) == (200, {"pdus": {}}), (kind, content)
        await trio.sleep(3)
        answer = await one.sync(ann, since=since, set_presence="offline")
        assert answer.get("rooms", {}) == {}
        assert answer.get("presence", {}) == {}
        assert number > 35


@pytest.mark.parametrize("denied", [False, True])
async def test_edus_of_a_server_that_a_room_keeps_out_are_dropped(
    tmp_path: Path, autojump_clock, denied: bool
) -> None:
    """T037, [B13.14]; without the list they are taken."""
    async with country(tmp_path) as land:
        one, _, ann, bo, room = await pair(land)
        if denied:
            await one.set_state(
                ann, room, "m.room.server_acl", {"allow": ["*"], "deny": ["two.test"]}
            )
        event = await one.say(ann, room, "hello")
        since = (await one.sync(ann, set_presence="offline"))["next_batch"]
        receive = one.services.federation.edus.receive
        read = {"event_ids": [event], "data": {"ts": 1}}
        await receive(
            "two.test",
            [
                {
                    "edu_type": "m.typing",
                    "content": {"room_id": room, "user_id": bo.user_id, "typing": True},
                },
                {"edu_type": "m.receipt", "content": {room: {"m.read": {bo.user_id: read}}}},
            ],
        )
        await trio.sleep(1)
        answer = await one.sync(ann, since=since, set_presence="offline")
        found = [len(ephemeral(answer, room, kind)) for kind in ("m.typing", "m.receipt")]
        assert found == ([0, 0] if denied else [1, 1])


async def test_a_receipt_that_comes_before_its_event_is_shown_after_it(
    tmp_path: Path, autojump_clock
) -> None:
    """[B7.10]: EDUs and events have no order."""
    async with country(tmp_path) as land:
        one, two, ann, bo, room = await pair(land)
        land.network.cut.add(frozenset(("one.test", "two.test")))
        event = await one.say(ann, room, "hello")
        read = {"event_ids": [event], "data": {"ts": 1}}
        content = {room: {"m.read": {ann.user_id: read}}}
        edu = {"edu_type": "m.receipt", "content": content}
        await two.services.federation.edus.receive("one.test", [edu])
        since = (await two.sync(bo, set_presence="offline"))["next_batch"]
        land.network.cut.clear()
        (shown,), _ = await until(two, bo, since, lambda a: ephemeral(a, room, "m.receipt"), 100)
        assert [*shown] == [event]


async def test_floods_of_edus_leave_little_behind(tmp_path: Path, autojump_clock) -> None:
    """T084: typing and presence said thousands of times, receipts for names that do not exist."""
    async with country(tmp_path) as land:
        one, _, ann, bo, room = await pair(land)
        since = (await one.sync(ann, set_presence="offline"))["next_batch"]
        edus = one.services.federation.edus
        for number in range(50):
            many = [
                {
                    "edu_type": "m.typing",
                    "content": {"room_id": room, "user_id": bo.user_id, "typing": True},
                }
            ] * 40
            push = [
                {"user_id": bo.user_id, "presence": "online", "status_msg": str((number, index))}
                for index in range(100)
            ]
            many.append({"edu_type": "m.presence", "content": {"push": push}})
            for index in range(20):
                read = {"event_ids": [f"${number}-{index}"], "data": {"ts": 2**60}}
                content = {room: {"m.read": {bo.user_id: {**read}}}}
                content[room]["m.read"][bo.user_id]["data"]["thread_id"] = f"${number}-{index}"
                many.append({"edu_type": "m.receipt", "content": content})
            await edus.receive("two.test", many)
        assert len(edus._early) <= 1000
        assert len(one.services.env.typing._ends) <= 5
        assert len(one.services.env.presence._people) <= 3
        await trio.sleep(3)
        answer = await one.sync(ann, since=since, set_presence="offline")
        assert len(answer["presence"]["events"]) == 1
        await trio.sleep(400)
        assert len(edus._early) == 0


async def test_messages_between_devices_go_over(tmp_path: Path, autojump_clock) -> None:
    """[B7.08], [B7.10]: also while the other server is down; once."""
    async with country(tmp_path) as land:
        one, two, ann, bo, _ = await pair(land)
        await two.stop()
        body = {"messages": {bo.user_id: {"*": {"text": "hello"}}}}
        await one.client(ann, "PUT", "/sendToDevice/m.test/1", body)
        await trio.sleep(5)
        await two.start(land.nursery)
        await trio.sleep(200)
        answer = await two.sync(bo)
        assert [event["content"] for event in answer["to_device"]["events"]] == [{"text": "hello"}]
        assert json.dumps(answer)
        again = await two.sync(bo, since=answer["next_batch"])
        assert not again.get("to_device", {}).get("events")
