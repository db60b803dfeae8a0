"""Sliding sync, case by case (MSC4186, T082, T103, T104, T105, T128)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, evolve, field
from trio.testing import MockClock

from matrixbox.accounts import sessions
from matrixbox.core.json import encode
from matrixbox.e2ee import to_device
from matrixbox.errors import UnknownToken
from matrixbox.rooms import receipts
from matrixbox.rooms.receipts import Marks
from matrixbox.store import account_data, joins, sliding
from matrixbox.store import receipts as stored_receipts
from matrixbox.store.account_data import Entry
from matrixbox.store.nids import RoomNid
from matrixbox.store.receipts import Kind, Receipt
from matrixbox.sync import sliding_connection
from matrixbox.sync.sends import Sends
from matrixbox.sync.sliding import SlidingService
from matrixbox.sync.sliding_connection import MAX_CONFIGS, MAX_PER_DEVICE, UnknownPos
from matrixbox.sync.sliding_request import Form
from tests.rooms.house import House, household, open_house
from tests.sync.sliding_client import SlidingClient

LAZY = [["m.room.member", "$LAZY"]]


def service_of(house: House) -> SlidingService:
    return SlidingService(house.store, house.env, Sends())


@define
class Talk:
    """One connection, whose answers are looked at one by one."""

    client: SlidingClient
    answer: dict[str, Any] = field(factory=dict)

    @classmethod
    def of(cls, house: House, who: Any, form: Form = Form.UNSTABLE, name: str = "main") -> Talk:
        return cls(SlidingClient(house.store, service_of(house), who, form, name))

    async def ask(self, timeout_s: float = 0, **body: Any) -> dict[str, Any]:
        """The next answer, which arrives."""
        self.answer = await self.client.ask(body, timeout_s)
        self.client.pos = self.answer["pos"]
        return self.answer

    async def list(
        self, *ranges: list[int], limit: int = 5, state: Any = (), timeout_s: float = 0, **more: Any
    ) -> dict[str, Any]:
        """The rooms of the next answer to one list."""
        extensions = more.pop("extensions", {})
        subscriptions = more.pop("room_subscriptions", {})
        where: dict[str, Any] = {"ranges": list(ranges)} if ranges else {}
        if self.client.form is Form.V4 and ranges:
            where = {"range": ranges[0]}
        wanted = {"timeline_limit": limit, "required_state": list(state), **where, **more}
        if self.client.form is Form.V4:
            wanted["required_state"] = state or {}
        answer = await self.ask(
            timeout_s,
            lists={"l": wanted},
            extensions=extensions,
            room_subscriptions=subscriptions,
        )
        found: dict[str, Any] = answer["rooms"]
        return found

    @property
    def count(self) -> int:
        """How many rooms the list has."""
        return int(self.answer["lists"]["l"]["count"])


def bodies(section: dict[str, Any]) -> list[str]:
    """What the messages of a timeline say."""
    return [one["content"]["body"] for one in section["timeline"] if "body" in one["content"]]


def keys(section: dict[str, Any]) -> set[tuple[str, str]]:
    """The slots of the required state."""
    return {(one["type"], one["state_key"]) for one in section.get("required_state", [])}


async def put_data(house: House, who: Any, room: int, kind: str, content: dict[str, Any]) -> None:
    def put(tx: Any) -> None:
        entry = Entry(RoomNid(room), kind, encode(content), tx.position())
        account_data.put(tx, who.user, entry)
        tx.changed(users=(who.user,))

    await house.store.write(put)


async def read_up_to(house: House, who: Any, room: RoomNid, event_id: str) -> None:
    await house.write(receipts.mark, who, room, Marks({"m.read": event_id}))


# --- lists


async def test_a_window_slides_over_the_rooms_by_activity_and_nothing_is_lost_behind_it() -> None:
    async with household() as house:
        ann = await house.user("ann")
        one, two, three = [await house.room(ann, name=name) for name in "123"]
        talk = Talk.of(house, ann)
        assert set(await talk.list([0, 1])) == {house.room_id(three), house.room_id(two)}
        assert talk.count == 3
        await house.say(ann, one, "first")
        shown = await talk.list([0, 1])
        assert set(shown) == {house.room_id(one)}, "it came up, and three and two have no news"
        assert shown[house.room_id(one)]["initial"] is True
        assert shown[house.room_id(one)]["num_live"] == 1
        await house.say(ann, two, "unseen")
        await house.say(ann, one, "second")
        await house.say(ann, three, "third")
        shown = await talk.list([0, 1])
        assert bodies(shown[house.room_id(one)]) == ["second"]
        shown = await talk.list([0, 0], [2, 2])
        assert set(shown) == {house.room_id(two)}, "what was missed, and not more than that"
        assert bodies(shown[house.room_id(two)]) == ["unseen"]
        assert "initial" not in shown[house.room_id(two)]
        assert await talk.list([5, 10**9]) == {}


async def test_each_filter() -> None:
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        plain = house.room_id(await house.room(ann, name="plain"))
        space_nid = await house.room(ann, creation_content={"type": "m.space"})
        space = house.room_id(space_nid)
        secret_nid = await house.room(ann)
        secret = house.room_id(secret_nid)
        invited = house.room_id(await house.room(bo, invites=(ann.user_id,)))
        content = {"algorithm": "m.megolm.v1.aes-sha2"}
        await house.set_state(ann, secret_nid, "m.room.encryption", "", content)
        await house.set_state(ann, space_nid, "m.space.child", plain, {"via": ["home.test"]})
        await house.set_state(ann, space_nid, "m.space.child", secret, {})
        await put_data(house, ann, 0, "m.direct", {bo.user_id: [secret]})
        await put_data(house, ann, secret_nid, "m.tag", {"tags": {"m.favourite": {}, "u.x": {}}})
        talk = Talk.of(house, ann)

        async def found(**filters: Any) -> set[str]:
            talk.client.pos = None
            return set(await talk.list(filters=filters))

        everything = {plain, space, secret, invited}
        assert await found() == everything
        assert await found(is_invite=True) == {invited}
        assert await found(is_invite=False) == everything - {invited}
        assert await found(is_dm=True) == {secret}
        assert await found(is_dm=False) == everything - {secret}
        assert await found(is_encrypted=True) == {secret}
        assert await found(is_encrypted=False) == everything - {secret}
        assert await found(room_types=["m.space"]) == {space}
        assert await found(room_types=[None]) == everything - {space}
        assert await found(not_room_types=["m.space"]) == everything - {space}
        assert await found(room_types=["m.space"], not_room_types=["m.space"]) == set()
        assert await found(spaces=[space]) == {plain}
        assert await found(spaces=[plain, "!unknown:home.test", "nonsense"]) == set()
        assert await found(tags=["m.favourite"]) == {secret}
        assert await found(not_tags=["u.x"]) == everything - {secret}
        assert await found(tags=["m.favourite"], not_tags=["u.x"]) == set()
        talk.client.form = Form.V4
        assert await found(is_invited=True) == {invited}


async def test_which_rooms_there_are_after_leaving() -> None:
    """MSC4186, "Lists": rooms that one was thrown out of, and others only where they were shown."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        made = [await house.room(ann, preset="public_chat") for _ in range(4)]
        left, kicked, banned, never = map(house.room_id, made)
        for room in made[:3]:
            await house.join(bo, room)
        refused = await house.room(ann, invites=(bo.user_id,))
        talk = Talk.of(house, bo, Form.V4)
        state = {"include": [{"type": "m.room.member", "state_key": bo.user_id}]}
        before = await talk.list(state=state)
        assert {one: room["membership"] for one, room in before.items()} == {
            left: "join", kicked: "join", banned: "join", house.room_id(refused): "invite",
        }  # fmt: skip
        await house.leave(bo, made[0])
        await house.kick(ann, made[1], bo.user_id)
        await house.ban(ann, made[2], bo.user_id)
        await house.ban(ann, made[3], bo.user_id)
        await house.leave(bo, refused)
        for room in made:
            await house.say(ann, room, "later")
        shown = await talk.list(state=state)
        assert {one: room["membership"] for one, room in shown.items()} == {
            left: "leave", kicked: "leave", banned: "ban", house.room_id(refused): "leave",
        }  # fmt: skip
        for room in shown.values():
            (event,) = room["timeline"]
            assert event["state_key"] == bo.user_id
            assert keys(room) == {("m.room.member", bo.user_id)}
            assert "joined_count" not in room
        assert await talk.list(state=state) == {}
        assert talk.count == 2, "only those that somebody else ended stay"
        fresh = Talk.of(house, bo, Form.V4, "fresh")
        assert set(await fresh.list()) == {kicked, banned}
        assert never not in fresh.answer["rooms"]
        await house.unban(ann, made[2], bo.user_id)
        await house.join(bo, made[2])
        again = await talk.list()
        assert again[banned]["initial"] is True
        assert again[banned]["membership"] == "join"


async def test_subscriptions_end_with_the_membership(autojump_clock: MockClock) -> None:
    """T105: who was banned hears nothing more, whatever the connection asks for."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, preset="public_chat")
        await house.join(bo, room)
        talk = Talk.of(house, bo)
        config = {"timeline_limit": 20, "required_state": [["*", "*"]]}
        body: dict[str, Any] = {
            "room_subscriptions": {house.room_id(room): config},
            "extensions": {name: {"enabled": True} for name in ("receipts", "typing")},
        }
        await talk.ask(**body)
        await house.ban(ann, room, bo.user_id)
        said = await house.say(ann, room, "secret")
        await house.set_state(ann, room, "m.room.topic", "", {"topic": "secret"})
        await read_up_to(house, ann, room, said.event.event_id)
        house.env.typing.start(room, ann.user_id, 20)
        answer = await talk.ask(**body)
        assert "secret" not in str(answer)
        assert answer["extensions"] == {}
        body["room_subscriptions"] = {house.room_id(room): {**config, "timeline_limit": 50}}
        assert (await talk.ask(5, **body))["rooms"] == {}
        stranger = await house.user("cy")
        assert (await Talk.of(house, stranger).ask(**body))["rooms"] == {}


async def test_who_left_a_room_that_all_may_read_hears_nothing_more_of_it() -> None:
    """T105: a connection shows what was said up to the leave."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, preset="public_chat")
        content = {"history_visibility": "world_readable"}
        await house.set_state(ann, room, "m.room.history_visibility", "", content)
        await house.join(bo, room)
        talk = Talk.of(house, bo)
        await talk.list(state=[["*", "*"]])
        await house.say(ann, room, "while he was there")
        await house.kick(ann, room, bo.user_id)
        await house.say(ann, room, "later")
        await house.set_state(ann, room, "m.room.topic", "", {"topic": "later"})
        for one in (talk, Talk.of(house, bo, name="fresh")):
            (section,) = (await one.list(state=[["*", "*"]], limit=20)).values()
            assert bodies(section) == ["while he was there"]
            assert ("m.room.topic", "") not in keys(section)


async def test_who_left_and_came_back_gets_the_room_anew() -> None:
    """[C8.21]."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, preset="public_chat")
        await house.join(bo, room)
        talk = Talk.of(house, bo)
        await talk.list(state=[["m.room.create", ""]])
        await house.leave(bo, room)
        await house.join(bo, room)
        (section,) = (await talk.list(state=[["m.room.create", ""]])).values()
        assert section["initial"] is True
        assert keys(section) == {("m.room.create", "")}


async def test_invitations_come_with_what_they_came_with_only() -> None:
    """[C8.19], T104."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, name="Party", invites=(bo.user_id,))
        await house.say(ann, room, "secret")
        talk = Talk.of(house, bo)
        (section,) = (await talk.list(state=[["*", "*"]])).values()
        assert set(section) == {"initial", "bump_stamp", "invite_state"}
        assert await talk.list() == {}
        await put_data(house, bo, 0, "m.ignored_user_list", {"ignored_users": {ann.user_id: {}}})
        assert await Talk.of(house, bo, name="ignoring").list() == {}
        await put_data(house, bo, 0, "m.ignored_user_list", {"ignored_users": {}})
        await put_data(house, bo, 0, "m.invite_permission_config", {"default_action": "block"})
        assert await Talk.of(house, bo, name="blocking").list() == {}


# --- one room


async def test_a_longer_timeline_is_sent_once() -> None:
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann)
        for number in range(6):
            await house.say(ann, room, str(number))
        talk = Talk.of(house, ann)
        (section,) = (await talk.list(limit=1)).values()
        assert (bodies(section), section["limited"]) == (["5"], True)
        await house.say(ann, room, "6")
        (section,) = (await talk.list(limit=3)).values()
        assert bodies(section) == ["4", "5", "6"]
        assert section["unstable_expanded_timeline"] is True
        assert section["num_live"] == 1
        assert "initial" not in section
        assert await talk.list(limit=1) == {}
        assert await talk.list(limit=3) == {}, "it has them"
        await house.say(ann, room, "7")
        (section,) = (await talk.list(limit=1)).values()
        assert bodies(section) == ["7"]
        (section,) = (await talk.list(limit=6)).values()
        assert bodies(section) == ["2", "3", "4", "5", "6", "7"]
        for number in range(8, 12):
            await house.say(ann, room, str(number))
        (section,) = (await talk.list(limit=2)).values()
        assert (bodies(section), section["limited"]) == (["10", "11"], True)
        (section,) = (await talk.list(limit=4)).values()
        assert bodies(section) == ["8", "9", "10", "11"], "behind a gap it has them no more"
        assert await talk.list(limit=0) == {}
        await house.say(ann, room, "12")
        (section,) = (await talk.list(limit=0)).values()
        assert (section["timeline"], section["limited"]) == ([], True)
        (section,) = (await talk.list(limit=1)).values()
        assert bodies(section) == ["12"]


async def test_state_that_is_wanted_in_addition_comes_at_once_and_alone() -> None:
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann, name="Kitchen", topic="soup")
        talk = Talk.of(house, ann)
        (section,) = (await talk.list(state=[["m.room.name", ""]])).values()
        assert keys(section) == {("m.room.name", "")}
        name, topic = ["m.room.name", ""], ["m.room.topic", ""]
        (section,) = (await talk.list(state=[name, topic])).values()
        assert keys(section) == {("m.room.topic", "")}
        assert "timeline" not in section
        await house.set_state(ann, room, "m.room.topic", "", {"topic": "salad"})
        (section,) = (await talk.list(state=[name])).values()
        assert keys(section) == set()
        (section,) = (await talk.list(state=[name, topic])).values()
        assert section["required_state"][0]["content"] == {"topic": "salad"}
        (section,) = (await talk.list(state=[name, ["*", ""]])).values()
        assert {("m.room.create", ""), ("m.room.power_levels", "")} <= keys(section)
        assert ("m.room.member", ann.user_id) not in keys(section)
        (section,) = (await talk.list(state=[["*", ""], ["m.room.member", "$ME"]])).values()
        assert keys(section) == {("m.room.member", ann.user_id)}


async def test_memberships_come_as_the_timeline_needs_them() -> None:
    """[C8.12], [K.17]: each once, all that change, and again behind a gap or a lost answer."""
    async with household() as house:
        ann, bo, cy = [await house.user(name) for name in ("ann", "bo", "cy")]
        room = await house.room(ann, preset="public_chat")
        await house.join(bo, room)
        await house.join(cy, room)
        for number in range(5):
            await house.say(ann, room, str(number))

        def people(answer: dict[str, Any]) -> set[str]:
            return {key for section in answer.values() for _, key in keys(section)}

        talk = Talk.of(house, ann)
        assert people(await talk.list(limit=2, state=LAZY)) == {ann.user_id}
        await house.say(bo, room, "hello")
        before = talk.client.pos
        assert people(await talk.list(limit=2, state=LAZY)) == {bo.user_id}
        talk.client.pos = before
        assert people(await talk.list(limit=2, state=LAZY)) == {bo.user_id}, "it was lost"
        await house.say(bo, room, "again")
        assert people(await talk.list(limit=2, state=LAZY)) == set()
        await house.leave(cy, room)
        assert people(await talk.list(limit=2, state=LAZY)) == {cy.user_id}
        for _ in range(4):
            await house.say(bo, room, "more")
        assert people(await talk.list(limit=2, state=LAZY)) == {bo.user_id}, "a gap"
        only = [["m.room.member", cy.user_id]]
        fresh = Talk.of(house, ann, name="fresh")
        assert people(await fresh.list(limit=1, state=[*LAZY, *only])) == {bo.user_id, cy.user_id}
        v4 = Talk.of(house, ann, Form.V4)
        wanted = {"include": [{}], "exclude": [{"type": "m.room.create"}], "lazy_members": True}
        (section,) = (await v4.list(limit=1, state=wanted)).values()
        found = keys(section)
        assert {key for kind, key in found if kind == "m.room.member"} == {bo.user_id}
        assert ("m.room.power_levels", "") in found
        assert ("m.room.create", "") not in found


async def test_memberships_of_an_answer_that_was_lost_come_again() -> None:
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, preset="public_chat")
        await house.join(bo, room)
        await house.say(bo, room, "bo")
        await house.say(ann, room, "ann")
        talk = Talk.of(house, ann)
        await talk.list(limit=1, state=LAZY)
        before = talk.client.pos
        for _ in range(2):
            talk.client.pos = before
            (section,) = (await talk.list(limit=50, state=LAZY)).values()
            assert not section["limited"]
            assert ("m.room.member", bo.user_id) in keys(section)
        talk.client.pos = before
        create = ["m.room.create", ""]
        (section,) = (await talk.list(limit=1, state=[*LAZY, create])).values()
        assert keys(section) == {("m.room.create", "")}
        (section,) = (await talk.list(limit=50, state=[*LAZY, create])).values()
        assert ("m.room.member", bo.user_id) in keys(section)
        assert await talk.list(limit=50, state=[*LAZY, create]) == {}


async def test_name_avatar_heroes_and_counts() -> None:
    async with household() as house:
        ann, bo, cy = [await house.user(name) for name in ("ann", "bo", "cy")]
        room = await house.room(ann, preset="public_chat")
        await house.join(bo, room)
        talk = Talk.of(house, ann)
        (section,) = (await talk.list()).values()
        assert "name" not in section
        assert [hero["user_id"] for hero in section["heroes"]] == [bo.user_id]
        assert (section["joined_count"], section["invited_count"]) == (2, 0)
        await house.set_state(ann, room, "m.room.name", "", {"name": "Kitchen"})
        await house.set_state(ann, room, "m.room.avatar", "", {"url": "mxc://home.test/a"})
        (section,) = (await talk.list()).values()
        assert (section["name"], section["avatar"]) == ("Kitchen", "mxc://home.test/a")
        assert "heroes" not in section
        assert "joined_count" not in section
        await house.invite(ann, room, cy.user_id)
        (section,) = (await talk.list()).values()
        assert (section["joined_count"], section["invited_count"]) == (2, 1)
        named = house.state(room)["m.room.name", ""].event.event_id
        await house.redact(ann, room, named)
        (section,) = (await talk.list()).values()
        assert section["name"] is None
        assert len(section["heroes"]) == 2


async def test_only_what_is_said_makes_a_room_come_up() -> None:
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann)
        talk = Talk.of(house, ann)

        async def stamp() -> int:
            (section,) = (await talk.list()).values()
            return int(section["bump_stamp"])

        made = await stamp()
        said = await house.say(ann, room, "hello")
        assert await stamp() == said.pos > made
        await house.message(ann, room, "m.reaction", {})
        assert await stamp() == said.pos
        await house.set_state(ann, room, "m.room.topic", "", {"topic": "x"})
        assert await stamp() == said.pos
        again = await house.message(ann, room, "m.room.encrypted", {})
        assert await stamp() == again.pos


async def test_direct_conversations_and_unread_counts_change_without_events() -> None:
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, preset="public_chat")
        await house.join(bo, room)
        said = await house.say(bo, room, "hello")
        talk = Talk.of(house, ann)
        (section,) = (await talk.list()).values()
        assert section["notification_count"] == 1
        assert "is_dm" not in section
        await read_up_to(house, ann, room, said.event.event_id)
        (section,) = (await talk.list()).values()
        assert section["notification_count"] == 0
        assert "timeline" not in section
        await read_up_to(house, bo, room, said.event.event_id)
        assert await talk.list() == {}, "that somebody else has read is no news of the room"
        for direct in ([house.room_id(room)], []):
            await put_data(house, ann, 0, "m.direct", {bo.user_id: direct})
            (section,) = (await talk.list()).values()
            assert section["is_dm"] is bool(direct)
        assert await talk.list() == {}


async def test_a_room_joined_without_its_members_waits_for_them() -> None:
    """[B8.05]: but for those who load members as they need them."""
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann)
        event = house.state(room)["m.room.create", ""].nid
        partial = joins.PartialRoom(room, event, "home.test", ())
        await house.store.write(joins.put_partial, partial)
        talk = Talk.of(house, ann)
        assert await talk.list(state=[["*", "*"]]) == {}
        assert set(await Talk.of(house, ann, name="lazy").list(state=LAZY)) == {house.room_id(room)}

        def complete(tx: Any) -> None:
            joins.drop_partial(tx, room, tx.position())
            tx.changed(rooms=(room,))

        await house.store.write(complete)
        assert set(await talk.list(state=[["*", "*"]])) == {house.room_id(room)}


# --- extensions


async def test_messages_to_a_device_go_when_the_client_asks_for_the_next() -> None:
    """T128, [C8.22]."""
    async with household() as house:
        ann = await house.user("ann")
        talk = Talk.of(house, ann)

        async def send(text: str) -> None:
            messages = to_device.parse({ann.user_id: {"*": {"n": text}}})
            key = text.encode()
            await house.store.write(
                to_device.send, house.env.server_name, ann, "m.test", messages, key
            )

        async def told(**asked: Any) -> tuple[list[str], str]:
            extension = {"to_device": {"enabled": True, **asked}}
            found = (await talk.ask(extensions=extension))["extensions"]["to_device"]
            return [event["content"]["n"] for event in found["events"]], found["next_batch"]

        for text in "abc":
            await send(text)
        first, since = await told(limit=2)
        assert first == ["a", "b"]
        assert (await told(limit=2))[0] == ["a", "b"], "it did not say that it has them"
        rest, last = await told(since=since)
        assert rest == ["c"]
        assert (await told(since=last))[0] == []
        await send("d")
        assert (await told(since=str(2**50)))[0] == ["d"], "a token of a lost future"
        assert (await told(since=last))[0] == ["d"]


async def test_account_data_comes_with_the_rooms_it_is_about() -> None:
    async with household() as house:
        ann = await house.user("ann")
        rooms = [await house.room(ann) for _ in range(2)]
        for room in rooms:
            await put_data(house, ann, room, "u.data", {"room": room})
        talk = Talk.of(house, ann)
        asked = {"account_data": {"enabled": True}}

        async def told(*ranges: list[int]) -> Any:
            await talk.list(*ranges, extensions=asked)
            return talk.answer["extensions"].get("account_data", {})

        first = await told([0, 0])
        assert "m.push_rules" in {event["type"] for event in first["global"]}
        assert set(first["rooms"]) == {house.room_id(rooms[1])}
        await put_data(house, ann, rooms[0], "u.data", {"room": "new"})
        await put_data(house, ann, rooms[1], "u.data", {"room": "new"})
        assert set((await told([0, 0]))["rooms"]) == {house.room_id(rooms[1])}
        assert set((await told([0, 1]))["rooms"]) == {house.room_id(rooms[0])}
        assert await told([0, 1]) == {}
        await put_data(house, ann, 0, "u.global", {})
        await talk.list([0, 1])
        assert [event["type"] for event in (await told([0, 1]))["global"]] == ["u.global"]
        narrow = {"enabled": True, "lists": [], "rooms": []}
        await put_data(house, ann, rooms[0], "u.data", {"room": "newer"})
        await talk.list([0, 1], extensions={"account_data": narrow})
        assert talk.answer["extensions"] == {}
        assert set((await told([0, 1]))["rooms"]) == {house.room_id(rooms[0])}


async def test_of_a_room_full_of_receipts_the_newest_come_and_ones_own() -> None:
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, preset="public_chat")
        await house.join(bo, room)
        said = await house.say(ann, room, "hello")

        def read_all(tx: Any) -> None:
            for number in range(150):
                who, thread = (ann.user, "") if not number else (bo.user, f"$thread{number}")
                event_id, point = said.event.event_id, (said.pos, 0)
                receipt = Receipt(who, Kind.READ, thread, event_id, point, 0, tx.position())
                stored_receipts.put(tx, room, receipt)
            tx.changed(receipts=(room,))

        await house.store.write(read_all)
        talk = Talk.of(house, ann)
        await talk.list(extensions={"receipts": {"enabled": True}})
        (event,) = talk.answer["extensions"]["receipts"]["rooms"].values()
        found = event["content"][said.event.event_id]["m.read"]
        assert set(found) == {ann.user_id, bo.user_id}


# --- connections


async def test_the_same_position_may_be_asked_for_again_and_older_ones_may_not() -> None:
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann)
        talk = Talk.of(house, ann)
        await talk.list()
        first = talk.client.pos
        more = await house.room(ann)
        shown = await talk.list()
        lost = talk.client.pos
        talk.client.pos = first
        assert [*await talk.list()] == [*shown] == [house.room_id(more)]
        assert talk.client.pos != lost
        await house.say(ann, room, "hello")
        assert set(await talk.list()) == {house.room_id(room)}
        for old in (first, lost):
            talk.client.pos = old
            with pytest.raises(UnknownPos):
                await talk.list()
        talk.client.pos = None
        assert set(await talk.list()) == {house.room_id(room), house.room_id(more)}


async def test_a_newer_request_takes_over(autojump_clock: MockClock) -> None:
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann)
        talk = Talk.of(house, ann)
        await talk.list()
        pos, ended = talk.client.pos, []

        async def wait() -> None:
            answer = await talk.client.ask({"lists": {}}, 60)
            ended.append((trio.current_time(), answer))

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(5)
            await house.say(ann, room, "nobody looks")
            await trio.sleep(5)
            assert ended == []
            (section,) = (await talk.list()).values()
            assert bodies(section) == ["nobody looks"]
        ((at, answer),) = ended
        assert at - start < 11
        assert (answer["pos"], answer["rooms"]) == (pos, {})
        assert await talk.list() == {}


async def test_news_wake_who_waits_for_them(autojump_clock: MockClock) -> None:
    async with household() as house, trio.open_nursery() as nursery:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, preset="public_chat")
        talk = Talk.of(house, bo)
        await talk.list(extensions={"typing": {"enabled": True}})
        start = trio.current_time()

        async def later() -> None:
            await trio.sleep(3)
            await house.join(bo, room)
            await trio.sleep(3)
            house.env.typing.start(room, ann.user_id, 20)

        nursery.start_soon(later)
        assert set(await talk.list(timeout_s=60)) == {house.room_id(room)}
        assert 3 <= trio.current_time() - start < 4
        shown = await talk.list(timeout_s=60, extensions={"typing": {"enabled": True}})
        assert 6 <= trio.current_time() - start < 7
        assert shown == {}
        assert house.room_id(room) in talk.answer["extensions"]["typing"]["rooms"]
        assert await talk.list(timeout_s=9, extensions={"typing": {"enabled": True}}) == {}
        assert trio.current_time() - start > 14


async def test_who_began_to_type_between_two_requests_is_told_of_at_once(
    autojump_clock: MockClock,
) -> None:
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, preset="public_chat")
        await house.join(bo, room)
        asked = {"typing": {"enabled": True}, "to_device": {"enabled": True, "since": "0"}}
        talk = Talk.of(house, bo)
        await talk.list(extensions=asked)
        house.env.typing.start(room, ann.user_id, 20)
        start = trio.current_time()
        await talk.list(extensions=asked, timeout_s=60)
        assert trio.current_time() - start < 1
        assert house.room_id(room) in talk.answer["extensions"]["typing"]["rooms"]


async def test_a_removed_device_hears_that(autojump_clock: MockClock) -> None:
    """T103: and its connections are gone."""
    async with household() as house, trio.open_nursery() as nursery:
        ann = await house.user("ann")
        talk = Talk.of(house, ann)
        await talk.list()
        assert house.store.read(sliding.count, ann.device) == 1

        async def remove() -> None:
            await trio.sleep(3)
            await house.store.write(sessions.log_out, ann)

        nursery.start_soon(remove)
        with pytest.raises(UnknownToken):
            await talk.list(timeout_s=60)
        assert house.store.read(sliding.count, ann.device) == 0


async def test_a_device_has_so_many_connections(autojump_clock: MockClock) -> None:
    """T082."""
    async with household() as house:
        ann = await house.user("ann")
        await house.room(ann)
        service = service_of(house)
        talks = []
        for number in range(MAX_PER_DEVICE + 3):
            await trio.sleep(1)  # of virtual time: who was used last is a matter of time
            client = SlidingClient(house.store, service, ann, conn_id=str(number))
            talks.append(Talk(client))
            await talks[-1].list()
        assert house.store.read(sliding.count, ann.device) == MAX_PER_DEVICE
        for talk in talks[:3]:
            with pytest.raises(UnknownPos):
                await talk.list()
        for talk in talks[3:]:
            assert await talk.list() == {}


async def test_a_connection_that_wants_ever_other_state_ends() -> None:
    async with household() as house:
        ann = await house.user("ann")
        await house.room(ann)
        talk = Talk.of(house, ann)
        for number in range(MAX_CONFIGS):
            await talk.list(state=[["x", str(number)]])
        with pytest.raises(UnknownPos):
            await talk.list(state=[["x", "more"]])


async def test_memberships_that_were_sent_are_forgotten_when_there_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sliding_connection, "MAX_MEMBERS", 0)
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann)
        talk = Talk.of(house, ann)
        await talk.list(state=LAZY)
        for _ in range(2):
            await house.say(ann, room, "x")
            await talk.list(state=LAZY)
        await house.say(ann, room, "x")
        (section,) = (await talk.list(state=LAZY)).values()
        assert len(section["timeline"]) == 1


async def test_positions_survive_a_restart(tmp_path: Path) -> None:
    async with household(tmp_path / "house.db") as house:
        ann = await house.user("ann")
        first, second = await house.room(ann), await house.room(ann)
        talk = Talk.of(house, ann)
        await talk.list([0, 0], state=[["m.room.name", ""]])
        await talk.list([0, 1], state=[["m.room.name", ""]])
        before = talk.client.pos
        await house.say(ann, first, "before")
        await talk.list([0, 1], state=[["m.room.name", ""]])
    house = evolve(open_house(tmp_path / "house.db"), transactions=100)
    try:
        await house.say(ann, second, "after")
        for pos, expected in (
            (talk.client.pos, {second: ["after"]}),
            (before, {first: ["before"], second: ["after"]}),
        ):
            again = Talk.of(house, ann)
            again.client.pos = pos
            shown = await again.list([0, 1], state=[["m.room.name", ""]])
            found = {house.room_id(room): texts for room, texts in expected.items()}
            assert {room: bodies(section) for room, section in shown.items()} == found
            assert not any(section.get("initial") for section in shown.values())
        again.client.pos = f"{again.client.pos}".replace("_", "_9", 2)
        with pytest.raises(UnknownPos):
            await again.list()
    finally:
        house.store.close()
