"""What single answers of `/sync` hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve

from matrixbox.core.filters import parse_filter
from matrixbox.core.json import encode
from matrixbox.rooms import receipts, state_reading
from matrixbox.rooms.presence import Presence
from matrixbox.rooms.reading import Reader
from matrixbox.rooms.receipts import Marks
from matrixbox.rooms.tokens import Place
from matrixbox.store import rooms
from matrixbox.store.presence import State
from matrixbox.sync.v3 import SyncService
from tests.rooms.house import SERVER, House, household
from tests.sync.client import Client


def with_presence(house: House) -> Presence:
    """The feature, in a household that has it off."""
    found = Presence(house.store, house.env.clock, SERVER, house.env.typing)
    house.env = evolve(house.env, presence=found)
    return found


def senders(answer: dict[str, Any]) -> list[str]:
    """Who is in the presence section of an answer."""
    return [event["sender"] for event in answer.get("presence", {}).get("events", [])]


async def test_who_comes_into_a_room_is_seen_to_be_there_and_sees_the_others():
    """[C8.27]: also by people who met in another room before; told once."""
    async with household() as house:
        presence = with_presence(house)
        ann, bo, cy, di = [await house.user(name) for name in ("ann", "bo", "cy", "di")]
        service = SyncService(house.store, house.env)
        for who in (ann, bo, cy):
            presence.set(who.user_id, State.ONLINE, None)
        clients = {who.user_id: Client(house.store, service, who) for who in (ann, bo)}
        for _ in range(2):
            room = await house.room(ann, preset="public_chat")
            for who in (cy, di):
                await house.join(who, room)
            for client in clients.values():
                await client.sync()
            await house.join(bo, room)
            assert senders(await clients[ann.user_id].sync()) == [bo.user_id]
            assert set(senders(await clients[bo.user_id].sync())) == {ann.user_id, cy.user_id}
            await house.set_state(
                bo, room, "m.room.member", bo.user_id, {"membership": "join", "displayname": "Bo"}
            )
            for client in clients.values():
                answer = await client.sync()
                assert answer["rooms"]["join"]
                assert senders(answer) == []


async def test_a_timeline_ends_where_something_is_missing():
    """[C8.06]: who is not told of the gap does not ask for what lies in it."""
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann)
        room_id = house.room_id(room)
        client = Client(house.store, SyncService(house.store, house.env), ann)
        await client.sync()
        before = [await house.say(ann, room, str(number)) for number in range(2)]
        after = [await house.say(ann, room, str(number)) for number in range(2)]
        await house.store.write(rooms.add_gap, room, "$missing", after[0].nid)
        everything = evolve(client.filter, room=parse_filter({}).room)
        since = client.since
        for wanted in (client.filter, everything):
            client.since, client.filter = since, wanted
            client.rooms.clear()
            answer = await client.sync()
            shown = answer["rooms"]["join"][room_id]["timeline"]
            assert [e["event_id"] for e in shown["events"]] == [e.event.event_id for e in after]
            assert shown["limited"] is True
        told = client.rooms[room_id].timeline  # with what paging back over the gap finds
        assert [e.event.event_id for e in before] == told[-4:-2]
        await house.store.write(rooms.fill_gap, room, "$missing")
        whole = evolve(client, since=since, filter=everything, rooms={})
        shown = (await whole.sync())["rooms"]["join"][room_id]["timeline"]
        assert [len(shown["events"]), shown["limited"]] == [4, False]


async def test_who_comes_back_is_told_to_begin_the_timeline_anew():
    """[C8.06]: what the client has of the room from before does not lead up to it."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, preset="public_chat")
        room_id = house.room_id(room)
        everything = parse_filter({"room": {"timeline": {"limit": 50}}})
        service = SyncService(house.store, house.env)
        client = Client(house.store, service, bo, filter=everything)
        await client.sync()
        for _ in range(2):
            await house.join(bo, room)
            shown = (await client.sync())["rooms"]["join"][room_id]["timeline"]
            assert shown["limited"] is True
            await house.say(ann, room, "hello")
            shown = (await client.sync())["rooms"]["join"][room_id]["timeline"]
            assert shown["limited"] is False
            await house.leave(bo, room)
            await client.sync()
        await house.join(bo, room)
        fresh = Client(house.store, service, bo, filter=everything)
        first = await fresh.sync()
        assert first["rooms"]["join"][room_id]["timeline"]["limited"] is False


@pytest.mark.parametrize("first", ["", "main"])
async def test_a_receipt_for_all_threads_goes_before_one_for_a_thread(first: str):
    """[C13.01]: an answer has room for one of them at an event."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, preset="public_chat")
        await house.join(bo, room)
        said = (await house.say(ann, room, "hello")).event.event_id
        for thread in (first, "main" if first == "" else ""):
            marks = Marks({"m.read": said}, thread or None)
            await house.write(receipts.mark, bo, room, marks)
        client = Client(house.store, SyncService(house.store, house.env), ann)
        (event,) = (await client.sync())["rooms"]["join"][house.room_id(room)]["ephemeral"][
            "events"
        ]
        assert "thread_id" not in event["content"][said]["m.read"][bo.user_id]


async def test_members_at_the_beginning_of_a_timeline_are_those_before_it():
    """[C9.07]: and the maker alone at the beginning of the room, however many came since."""
    async with household() as house:
        ann, bo, cy = [await house.user(name) for name in ("ann", "bo", "cy")]
        room = await house.room(ann, preset="public_chat")
        client = Client(
            house.store, SyncService(house.store, house.env), ann, filter=parse_filter({})
        )

        async def starts() -> tuple[Place, Place]:
            since, answer = client.since, await client.sync()
            start = Place.parse(
                answer["rooms"]["join"][house.room_id(room)]["timeline"]["prev_batch"]
            )
            return start, Place.parse(since or str(answer["next_batch"]))

        def at(place: Place) -> list[str]:
            def read(tx: Any) -> list[str]:
                reader = Reader(tx, room, ann.user, 0)
                found = state_reading.members_at(reader, place, None, None)
                return [json.loads(encode(one))["state_key"] for one in found]

            return house.store.read(read)

        first, _ = await starts()
        assert at(first) == [ann.user_id]
        await house.join(bo, room)
        second, before = await starts()
        assert at(second) == at(before) == [ann.user_id]
        await house.join(cy, room)
        third, before = await starts()
        assert set(at(third)) == set(at(before)) == {ann.user_id, bo.user_id}
        assert at(first) == [ann.user_id]
