"""Rooms joined without their members, and what they are until these are known.

Matrix v1.19, Server-Server API, `send_join` with `omit_members` ([B8.05]); T036.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
from attrs import define, field

from matrixbox.core.events import Event, parse_event
from matrixbox.core.identifiers import ServerName
from matrixbox.store import joins, names, servers
from tests.federation.hand_made import HandMadeRoom
from tests.federation.towns import Country, Failed, FakeServer, Town, country, eventually
from tests.sim.node import Account

LAZY = json.dumps({"room": {"state": {"lazy_load_members": True}}})


@define(eq=False)
class LargeRoom(HandMadeRoom):
    """A room whose server leaves its members out, and tells of them when it is let."""

    may_tell: trio.Event = field(factory=trio.Event)
    joined: Event | None = None
    before: dict[tuple[str, str], Event] = field(factory=dict)
    lies: list[Event] = field(factory=list)

    def answer(self, join: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """The state but for memberships."""
        self.before = dict(self.state)
        self.joined = parse_event(self.rules, join)
        self.events.append(self.joined)
        self.state["m.room.member", str(self.joined.state_key)] = self.joined
        needed = set(self.joined.auth_event_ids)
        for event in self.before.values():
            if event.type != "m.room.member":
                needed |= set(event.auth_event_ids)
        plain = [dict(e.json) for k, e in self.before.items() if k[0] != "m.room.member"]
        chain = [dict(e.json) for e in self.events if e.event_id in needed]
        found = super().answer(join)
        return {
            **found,
            "state": plain,
            "auth_chain": chain,
            "members_omitted": True,
            "servers_in_room": [self.server.name, "third.test"],
            **changes,
        }

    def open(self) -> None:
        """Let users of others in, and tell of the members later."""
        HandMadeRoom.open(self)
        self.server.answers["state_ids"] = self._state_ids
        self.server.answers["state"] = self._state
        self.server.answers["send"] = {}
        self.server.answers["event_auth"] = self._event_auth
        self.server.answers["event"] = self._event

    async def _state_ids(self, *_: Any) -> Any:
        await self.may_tell.wait()
        return self.ids(*self.lies)

    async def _state(self, *_: Any) -> Any:
        return self.pdus(*self.lies)

    def ids(self, *more: Event) -> dict[str, Any]:
        """The answer to state_ids."""
        found = [*self.before.values(), *more]
        return {
            "pdu_ids": [event.event_id for event in found],
            "auth_chain_ids": [event.event_id for event in self.events[:-1]],
        }

    def pdus(self, *more: Event) -> dict[str, Any]:
        """The answer to state."""
        found = [*self.before.values(), *more]
        return {
            "pdus": [dict(event.json) for event in found],
            "auth_chain": [dict(event.json) for event in self.events],
        }

    def _event_auth(self, *_: Any) -> Any:
        return {"auth_chain": [dict(event.json) for event in self.events]}

    def _event(self, request: Any, _: Any) -> Any:
        for event in self.events:
            if quote(event.event_id, safe="") in request.target:
                return {"origin": "x", "origin_server_ts": 1, "pdus": [dict(event.json)]}
        return 404, {"errcode": "M_NOT_FOUND", "error": "no"}

    async def send(self, to: Town, *events: Event) -> Any:
        """Push events to one of ours."""
        body = {
            "origin": self.server.name,
            "origin_server_ts": 1,
            "pdus": [dict(event.json) for event in events],
        }
        name = f"t{len(self.server.seen)}{events[0].event_id[1:8]}"
        status, answer = await self.server.call(
            to, "PUT", f"/_matrix/federation/v1/send/{quote(name)}", body
        )
        assert status == 200
        return answer["pdus"]

    def say(self, who: str, text: str, **fields: Any) -> Event:
        """A message at the end of the room."""
        return self.add("m.room.message", {"body": text}, None, who, **fields)

    def add(self, *given: Any, auth: list[Event] | None = None, **_: Any) -> Event:
        """An event of the room, that may cite other auth events than it should."""
        if auth is None:
            return super().add(*given)
        pdu = self.pdu(*given)
        pdu["auth_events"] = [event.event_id for event in auth]
        event = parse_event(self.rules, self.signed(pdu))
        self.events.append(event)
        return event


@define
class Scene:
    land: Country
    home: Town
    ann: Account
    room: LargeRoom

    @property
    def third(self) -> FakeServer:
        """Another server in the room."""
        found = self.land.network.hosts[ServerName("third.test")]
        assert isinstance(found, FakeServer)
        return found

    def user(self, name: str) -> str:
        return f"@{name}:{self.room.server.name}"

    async def members(self) -> dict[str, str]:
        """Who is in the room, as a client gets to know."""
        path = f"/rooms/{quote(self.room.room_id)}/members"
        found = (await self.home.client(self.ann, "GET", path))["chunk"]
        return {event["state_key"]: event["content"]["membership"] for event in found}

    def is_partial(self) -> bool:
        def read(tx: Any) -> bool:
            room = names.room_nid(tx, self.room.room_id)
            return room is not None and joins.partial(tx, room) is not None

        return bool(self.home.store.read(read))

    async def whole(self) -> None:
        """Let the other server tell, and wait until the room is whole."""
        self.room.may_tell.set()

        async def look() -> bool:
            return not self.is_partial()

        await eventually(look)

    async def shown(self, event: Event) -> bool:
        """Whether a client gets an event."""
        path = f"/rooms/{quote(self.room.room_id)}/event/{quote(event.event_id, safe='')}"
        try:
            await self.home.client(self.ann, "GET", path)
        except Failed as failed:
            if failed.status != 404:
                raise
            return False
        return True

    async def seen(self, event: Event) -> None:
        """Wait until a client gets an event."""

        async def look() -> bool:
            return await self.shown(event)

        await eventually(look)


@asynccontextmanager
async def scene(folder: Path, version: str = "12", *people: str) -> AsyncIterator[Scene]:
    """Ann has joined a room of some people whom her server does not know yet."""
    async with country(folder) as land:
        home = await land.town("home.test")
        ann = await home.register("ann")
        room = LargeRoom(land.fake("evil.test"), version)
        for name in people or ("derek", "elsie"):
            room.add("m.room.member", {"membership": "join"}, f"@{name}:evil.test")
        room.open()
        land.fake("third.test")
        await home.join(ann, room.room_id, "evil.test")
        yield Scene(land, home, ann, room)


@pytest.mark.parametrize("version", ["1", "6", "10", "12"])
async def test_a_room_can_be_used_before_its_members_are_known(
    tmp_path: Path, version: str
) -> None:
    """Messages go out and come in; who writes is known; then everybody is."""
    async with scene(tmp_path, version) as it:
        assert it.is_partial()
        assert "omit_members=true" in it.room.server.asked("send_join")[0].target
        since = (await it.home.sync(it.ann, filter=LAZY))["next_batch"]
        await it.home.say(it.ann, it.room.room_id, "hello")
        hi = it.room.say(it.user("derek"), "hi")
        await it.room.send(it.home, hi)
        await it.seen(hi)
        got = (await it.home.sync(it.ann, filter=LAZY, since=since))["rooms"]["join"]
        shown = got[it.room.room_id]
        assert [e["content"]["body"] for e in shown["timeline"]["events"]] == ["hello", "hi"]
        assert it.user("derek") in [e["state_key"] for e in shown["state"]["events"]]
        await it.whole()
        assert await it.members() == {
            it.ann.user_id: "join",
            it.user("creator"): "join",
            it.user("derek"): "join",
            it.user("elsie"): "join",
        }
        summary = (await it.home.sync(it.ann))["rooms"]["join"][it.room.room_id]["summary"]
        assert summary["m.joined_member_count"] == 4
        later = it.room.say(it.user("elsie"), "now")
        await it.room.send(it.home, later)
        assert await it.shown(later)


async def test_clients_that_want_all_members_wait_for_them(tmp_path: Path) -> None:
    """Without lazy loading the room comes, whole, when it is whole; a waiting sync is woken."""
    async with scene(tmp_path) as it:
        first = await it.home.sync(it.ann)
        assert not first.get("rooms")
        found: list[Any] = []

        async def wait() -> None:
            found.append(await it.home.sync(it.ann, since=first["next_batch"], timeout="9000"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(0.2)
            assert found == []
            it.room.may_tell.set()
        room = found[0]["rooms"]["join"][it.room.room_id]
        told = {e["state_key"] for e in room["state"]["events"] if e["type"] == "m.room.member"}
        told |= {e["state_key"] for e in room["timeline"]["events"]}
        assert told == {it.ann.user_id, *map(it.user, ("creator", "derek", "elsie"))}
        again = await it.home.sync(it.ann, since=found[0]["next_batch"])
        assert not again.get("rooms", {}).get("join")


async def test_an_alias_names_the_servers_that_the_join_told_of(tmp_path: Path) -> None:
    """[B8.05]: others may join by them, though no user of theirs is known yet."""
    async with scene(tmp_path) as it:
        path = f"/directory/room/{quote('#large:home.test')}"
        await it.home.client(it.ann, "PUT", path, {"room_id": it.room.room_id})
        found = await it.home.client(it.ann, "GET", path)
        assert set(found["servers"]) == {"home.test", "evil.test", "third.test"}
        assert found["servers"][0] == "home.test"


async def test_news_of_devices_that_come_before_the_members_are_shown_with_these(
    tmp_path: Path,
) -> None:
    """[B7.06], [C8.23]: who may be in the room is believed; others are not."""
    async with scene(tmp_path) as it:
        since = (await it.home.sync(it.ann, filter=LAZY))["next_batch"]
        strangers = ["@x:third.test", "@derek:other.test", it.ann.user_id]
        contents = [
            {"user_id": user, "device_id": "A", "stream_id": 1}
            for user in (it.user("derek"), *strangers)
        ]
        edus = [{"edu_type": "m.device_list_update", "content": one} for one in contents]
        body = {"origin": it.room.server.name, "origin_server_ts": 1, "pdus": [], "edus": edus}
        status, _ = await it.room.server.call(
            it.home, "PUT", "/_matrix/federation/v1/send/devices", body
        )
        assert status == 200
        early = await it.home.sync(it.ann, filter=LAZY, since=since)
        assert "device_lists" not in early
        await it.whole()
        later = await it.home.sync(it.ann, filter=LAZY, since=since)
        assert it.user("derek") in later["device_lists"]["changed"]
        assert not {*strangers} & {*later["device_lists"]["changed"]}


def heard(server: FakeServer) -> list[Any]:
    """What a server was told of devices."""
    return [
        edu["content"]
        for request in server.asked("send")
        for edu in json.loads(request.body or b"{}").get("edus", [])
        if edu["edu_type"] == "m.device_list_update"
    ]


async def test_of_devices_that_never_changed_nobody_hears_when_the_members_are_known(
    tmp_path: Path,
) -> None:
    """[B7.06]: without keys there is nothing to know of them."""
    async with scene(tmp_path) as it:
        await it.whole()
        await it.home.say(it.ann, it.room.room_id, "hello")

        async def sent() -> bool:
            return bool(it.room.server.asked("send"))

        await eventually(sent)
        assert heard(it.room.server) == []


async def test_servers_hear_of_devices_before_the_members_are_known_and_then(
    tmp_path: Path,
) -> None:
    """[B7.06]: those that the join told of, until they turn out not to be in the room; and all
    that are, since there may be some of which it did not tell."""
    async with scene(tmp_path) as it:
        there, elsewhere = it.room.server, it.third
        for server in (there, elsewhere):
            server.answers["send"] = {}

        async def rename(name: str, *hearing: FakeServer) -> None:
            device = f"/devices/{it.ann.session.device_id}"
            await it.home.client(it.ann, "PUT", device, {"display_name": name})

            async def told() -> bool:
                last = [[one.get("device_display_name") for one in heard(s)][-1:] for s in hearing]
                return all(names == [name] for names in last)

            await eventually(told)

        await rename("Phone", there, elsewhere)
        before = len(heard(there))
        await it.whole()

        async def announced() -> bool:
            return len(heard(there)) > before

        await eventually(announced)
        assert heard(there)[-1]["prev_id"] == []
        before = len(heard(elsewhere))
        await rename("Desk", there)
        assert len(heard(elsewhere)) == before


async def test_who_left_before_the_members_were_known_hears_of_devices_by_another_room(
    tmp_path: Path,
) -> None:
    """[B7.06]: it was there, perhaps, when they changed, and was not told of it."""
    async with scene(tmp_path) as it:
        gone = it.third
        gone.answers["send"] = it.room.server.answers["send"] = {}

        def share(tx: Any, room_id: Any) -> None:
            room = names.room_nid(tx, room_id)
            assert room is not None
            servers.assume(tx, room, [gone.name], tx.position())

        await it.home.store.write(share, await it.home.room(it.ann))
        device = f"/devices/{it.ann.session.device_id}"
        await it.home.client(it.ann, "PUT", device, {"display_name": "Phone"})
        elsie = "@elsie:third.test"
        kicked = it.room.add("m.room.member", {"membership": "leave"}, elsie, it.room.creator)
        assert await it.room.send(it.home, kicked) == {kicked.event_id: {}}

        async def told() -> bool:
            return any(one["prev_id"] == [] for one in heard(gone)[before:])

        async def heard_first() -> bool:
            return bool(heard(gone))

        await eventually(heard_first)
        before = len(heard(gone))
        await it.whole()
        await eventually(told)


async def test_who_asks_for_the_members_waits(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        found: list[Any] = []

        async def ask() -> None:
            found.append(await it.members())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.2)
            assert found == []
            it.room.may_tell.set()
        assert len(found[0]) == 4


async def test_other_servers_get_no_half_answers(tmp_path: Path) -> None:
    """404 for those who want in until the state is known; who asks for the state waits."""
    async with scene(tmp_path) as it:
        other = it.third
        room = quote(it.room.room_id)
        user = quote("@x:third.test", safe="")
        for what in ("join", "knock"):
            path = f"/_matrix/federation/v1/make_{what}/{room}/{user}?ver=12"
            status, answer = await other.call(it.home, "GET", path)
            assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")
        assert it.room.joined is not None
        event_id = quote(it.room.joined.event_id, safe="")
        path = f"/_matrix/federation/v1/state_ids/{room}?event_id={event_id}"
        found: list[Any] = []

        async def ask() -> None:
            found.append(await it.room.server.call(it.home, "GET", path))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.2)
            assert found == []
            await it.whole()
        assert found[0][0] == 200
        path = f"/_matrix/federation/v1/make_join/{room}/{user}?ver=12"
        assert (await other.call(it.home, "GET", path))[0] == 200


async def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        assert it.is_partial()
        await it.home.kill()
        it.room.may_tell.set()
        await it.home.start(it.land.nursery)
        await it.whole()
        assert len(await it.members()) == 4


async def test_another_server_is_asked_when_the_first_fails(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        third = it.third
        third.answers |= {"state_ids": it.room.ids(), "state": it.room.pdus()}
        it.room.server.answers["state_ids"] = (500, {})
        await it.whole()
        assert len(await it.members()) == 4


async def test_t036_lies_about_the_members_only_cost_time(tmp_path: Path) -> None:
    """A state in which our user is banned does not fit our join; another server is asked."""
    async with scene(tmp_path) as it:
        room, third = it.room, it.third
        ban = room.make("m.room.member", {"membership": "ban"}, it.ann.user_id, room.creator)
        room.lies.append(ban)
        third.answers |= {"state_ids": room.ids(), "state": room.pdus()}
        await it.whole()
        assert third.asked("state_ids")
        assert len(await it.members()) == 4
        assert (await it.members())[it.ann.user_id] == "join"


async def test_what_was_accepted_wrongly_is_rejected_in_the_end(tmp_path: Path) -> None:
    """Derek had left; what he sends citing his old join is shown at first, and then no more."""
    async with scene(tmp_path, "11") as it:
        room = it.room
        # Before Ann came, Derek had left.  Make it so in the state that is told later.
        join = room.before["m.room.member", it.user("derek")]
        room.add("m.room.power_levels", {"users": {room.creator: 100, it.user("derek"): 50}})
        levels = room.events[-1]
        await room.send(it.home, levels)
        left = parse_event(
            room.rules,
            room.signed(
                {
                    **room.pdu("m.room.member", {"membership": "leave"}, it.user("derek")),
                    "prev_events": [room.events[3].event_id],
                }
            ),
        )
        room.before["m.room.member", it.user("derek")] = left
        room.events.insert(4, left)
        create = room.events[0]
        bad = room.add("m.room.test", {"x": 1}, "", it.user("derek"), auth=[create, levels, join])
        await room.send(it.home, bad)
        await it.seen(bad)
        await it.whole()
        assert not await it.shown(bad)
        assert ("m.room.test", "") not in await it.home.state(it.ann, room.room_id)
        good = room.say(room.creator, "good")
        await room.send(it.home, good)
        assert await it.shown(good)
        assert (await it.members())[it.user("derek")] == "leave"


async def test_who_was_kicked_meanwhile_is_not_heard_when_the_members_are_known(
    tmp_path: Path,
) -> None:
    """T027: what Derek says beside his kick is soft-failed, and stays so; nor does it end the room,
    which would take from it what was done since."""
    async with scene(tmp_path, "11") as it:
        room, derek = it.room, it.user("derek")
        create, levels = room.events[0], room.state["m.room.power_levels", ""]
        theirs, fork = room.before["m.room.member", derek], room.events[-1]
        kick = room.add("m.room.member", {"membership": "leave"}, derek, room.creator)
        await room.send(it.home, kick)
        await it.seen(kick)
        pdu = {
            **room.pdu("m.room.message", {"body": "late"}, None, derek),
            "prev_events": [fork.event_id],
            "auth_events": [create.event_id, levels.event_id, theirs.event_id],
        }
        late = parse_event(room.rules, room.signed(pdu))
        assert await room.send(it.home, late) == {late.event_id: {}}
        assert not await it.shown(late)
        await it.whole()
        assert not await it.shown(late)
        assert (await it.members())[derek] == "leave"
        template = (
            f"/_matrix/federation/v1/make_join/{quote(room.room_id)}/{quote('@x:third.test')}"
        )
        _, made = await it.third.call(it.home, "GET", f"{template}?ver=11")
        assert made["event"]["prev_events"] == [kick.event_id]


async def test_who_was_kicked_wrongly_may_speak_meanwhile(tmp_path: Path) -> None:
    """By state resolution her join comes back over the kick by somebody who had left perhaps."""
    async with scene(tmp_path, "11") as it:
        room, derek, elsie = it.room, it.user("derek"), it.user("elsie")
        room.add("m.room.power_levels", {"users": {room.creator: 100, derek: 50}})
        create, levels = room.events[0], room.events[-1]
        theirs = {name: room.before["m.room.member", name] for name in (derek, elsie)}
        leave = {"membership": "leave"}
        # This one does not say that it knows of her join.
        kick = room.add("m.room.member", leave, elsie, derek, auth=[create, levels, theirs[derek]])
        said = room.say(elsie, "hello", auth=[create, levels, theirs[elsie]])
        assert await room.send(it.home, levels, kick, said) == {
            event.event_id: {} for event in (levels, kick, said)
        }
        await it.seen(said)


@pytest.mark.parametrize("membership", ["leave", "ban"])
async def test_who_was_kicked_or_banned_may_not_speak_meanwhile(
    tmp_path: Path, membership: str
) -> None:
    async with scene(tmp_path, "11") as it:
        room, elsie = it.room, it.user("elsie")
        create = room.events[0]
        levels = room.before["m.room.power_levels", ""]
        joined = room.before["m.room.member", elsie]
        away = room.add("m.room.member", {"membership": membership}, elsie, room.creator)
        said = room.say(elsie, "hello", auth=[create, levels, joined])
        good = room.say(room.creator, "good")
        await room.send(it.home, away, said, good)
        await it.seen(good)
        assert not await it.shown(said)
        await it.whole()
        assert not await it.shown(said)


async def test_a_second_user_is_let_in_by_the_others_meanwhile(tmp_path: Path) -> None:
    """Whether somebody of ours is banned is not known here, so somebody else decides."""
    async with scene(tmp_path) as it:
        bob = await it.home.register("bob")
        await it.home.join(bob, it.room.room_id, "evil.test")
        assert len(it.room.server.asked("send_join")) == 2
        got = (await it.home.sync(bob, filter=LAZY))["rooms"]["join"]
        assert it.room.room_id in got


@pytest.mark.parametrize("is_known", [True, False], ids=["nobody spoke", "somebody spoke"])
async def test_a_room_is_left_and_joined_again_meanwhile(tmp_path: Path, is_known: bool) -> None:
    """Where nobody has spoken since, the room goes on; else it is joined like any other."""
    async with scene(tmp_path) as it:
        room = it.room
        await it.home.upon(it.ann, room.room_id, "leave")
        sent = await eventually(_leave_sent(room))
        left = parse_event(room.rules, sent)
        room.events.append(left)
        room.state["m.room.member", it.ann.user_id] = left
        if not is_known:
            room.say(room.creator, "meanwhile")
        await it.home.join(it.ann, room.room_id, "evil.test")
        assert it.is_partial()
        await it.whole()
        assert (await it.members())[it.user("elsie")] == "join"
        assert (await it.members())[it.ann.user_id] == "join"
        asked = len(room.server.asked("state_ids"))
        assert asked == (1 if is_known else 2)


def _leave_sent(room: LargeRoom) -> Any:
    async def look() -> Any:
        for request in room.server.asked("send"):
            for pdu in json.loads(request.body)["pdus"]:
                if pdu["content"].get("membership") == "leave":
                    return pdu
        return None

    return look
