"""What other servers get of our rooms: who may ask, what is shown, and how much of it.

Matrix v1.19, Server-Server API, "Retrieving events", "Backfilling and retrieving missing events"
([B11.01] to [B11.07], [B13.12] to [B13.15], T037, T106).
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from attrs import define

from matrixbox.core.events import parse_event
from matrixbox.core.room_versions import ROOM_VERSIONS
from matrixbox.core.signing import content_hash_matches, hash_and_sign_event
from tests.federation.towns import Account, Country, FakeServer, Town, country

V1 = "/_matrix/federation/v1"
_serial = itertools.count(1)


def q(text: str) -> str:
    return quote(text, safe="")


@define
class Scene:
    """A room of ours, and a server that asks about it."""

    land: Country
    town: Town
    ann: Account
    far: FakeServer
    room: str
    version: str

    @property
    def bo(self) -> str:
        """A user of the other server."""
        return f"@bo:{self.far.name}"

    async def ask(self, target: str, body: Any = None, far: FakeServer | None = None) -> Any:
        """Status and answer."""
        method = "GET" if body is None else "POST"
        return await (far or self.far).call(self.town, method, V1 + target, body)

    async def good(self, target: str, body: Any = None) -> Any:
        """The answer, which is a 200."""
        status, answer = await self.ask(target, body)
        assert status == 200, answer
        return answer

    async def join(self, user: str | None = None) -> str:
        """A user of the other server comes in; the event's id."""
        return await self.move("join", user or self.bo)

    async def leave(self, user: str | None = None) -> str:
        """The user leaves."""
        return await self.move("leave", user or self.bo)

    async def move(self, what: str, user: str) -> str:
        far, rules = self.far, ROOM_VERSIONS[self.version]
        target = f"{V1}/make_{what}/{q(self.room)}/{q(user)}?ver={self.version}"
        status, made = await far.call(self.town, "GET", target)
        assert status == 200, made
        template = dict(made["event"])
        if rules.event_id_in_pdu:
            template["event_id"] = f"$far{next(_serial)}:{far.name}"
        pdu = hash_and_sign_event(rules, template, far.name, far.key)
        event_id = parse_event(rules, pdu).event_id
        target = f"/_matrix/federation/v2/send_{what}/{q(self.room)}/{q(event_id)}"
        status, answer = await far.call(self.town, "PUT", target, pdu)
        assert status == 200, answer
        return event_id

    async def say(self, *texts: str) -> list[str]:
        """Messages of ours; their ids."""
        return [await self.town.say(self.ann, self.room, text) for text in texts]

    async def set(self, kind: str, content: Any) -> str:
        """State set by the room's creator."""
        return await self.town.set_state(self.ann, self.room, kind, content)

    async def see(self, setting: str) -> None:
        """Set who sees the history."""
        await self.set("m.room.history_visibility", {"history_visibility": setting})

    def every_target(self, event_id: str) -> list[tuple[str, Any]]:
        """Each endpoint that tells of the room, asked about one event of it."""
        room, event = q(self.room), q(event_id)
        missing = {"earliest_events": [], "latest_events": [event_id]}
        return [
            (f"/state/{room}?event_id={event}", None),
            (f"/state_ids/{room}?event_id={event}", None),
            (f"/event_auth/{room}/{event}", None),
            (f"/backfill/{room}?v={event}&limit=5", None),
            (f"/get_missing_events/{room}", missing),
            (f"/timestamp_to_event/{room}?ts=0&dir=f", None),
        ]


@asynccontextmanager
async def scene(folder: Path, version: str = "12", **wanted: Any) -> AsyncIterator[Scene]:
    """A room of ours, a year old, without others in it."""
    async with country(folder) as land:
        town = await land.town("home.test")
        ann = await town.register("ann")
        room = await town.room(ann, room_version=version, **wanted)
        yield Scene(land, town, ann, land.fake("far.test"), room, version)


def bodies(pdus: list[Any]) -> list[Any]:
    """What the messages say; None for what was taken off."""
    return [pdu["content"].get("body") for pdu in pdus if pdu["type"] == "m.room.message"]


# --- who may ask


async def test_only_servers_in_the_room_are_told_of_it(tmp_path: Path) -> None:
    """[B11.06], T106: before, while and after; an unknown room looks like one of others."""
    async with scene(tmp_path) as here:
        (first,) = await here.say("one")
        refusals = [await here.ask(*target) for target in here.every_target(first)]
        assert {status for status, _ in refusals} == {403}
        room, here.room = here.room, "!nowhere:home.test"
        assert [await here.ask(*target) for target in here.every_target(first)] == refusals
        here.room = room
        await here.join()
        for target in here.every_target(first):
            await here.good(*target)
        await here.leave()
        assert [await here.ask(*target) for target in here.every_target(first)] == refusals


async def test_a_server_may_learn_how_it_was_put_out(tmp_path: Path) -> None:
    """[B11.03], T028: the states of its time in the room, the one before the ban among them.

    Where it lacks what the ban cites, it could not tell otherwise whether the ban is allowed, and
    would go on believing that it is in the room.
    """
    async with scene(tmp_path) as here:
        join = await here.join()
        (within,) = await here.say("last")
        await here.town.upon(here.ann, here.room, "ban", user_id=here.bo)
        room = q(here.room)
        ban = (await here.town.state(here.ann, here.room))["m.room.member", here.bo]["event_id"]
        told = await here.good(f"/state_ids/{room}?event_id={q(ban)}")
        assert join in told["pdu_ids"]
        assert ban not in told["pdu_ids"]
        await here.good(f"/state/{room}?event_id={q(ban)}")
        await here.good(f"/event_auth/{room}/{q(ban)}")
        await here.good(f"/state_ids/{room}?event_id={q(within)}")
        (late,) = await here.say("late")
        for event_id in (late, join):
            for target in here.every_target(event_id):
                assert (await here.ask(*target))[0] == 403
        stranger = here.land.fake("stranger.test")
        for target in here.every_target(ban):
            assert (await here.ask(*target, far=stranger))[0] == 403


async def test_an_invited_server_is_not_in_the_room(tmp_path: Path) -> None:
    """[B11.06]: an invitation opens nothing but the join."""
    async with scene(tmp_path) as here:
        here.far.answers["invite"] = lambda request, body: {"event": signed(here, body)}
        await here.town.upon(here.ann, here.room, "invite", user_id=here.bo)
        (first,) = await here.say("one")
        for target in here.every_target(first):
            assert (await here.ask(*target))[0] == 403


def signed(here: Scene, body: Any) -> Any:
    return hash_and_sign_event(
        ROOM_VERSIONS[here.version], body["event"], here.far.name, here.far.key
    )


@pytest.mark.parametrize(
    "acl",
    [
        {"allow": ["*"], "deny": ["far.test"]},
        {"allow": ["*"], "deny": ["FAR.*"]},
        {"allow": ["home.test"]},
        {},
    ],
)
async def test_t037_servers_that_the_list_keeps_out(tmp_path: Path, acl: Any) -> None:
    """[B11.07], [B13.12], [B13.14], [B13.15]: 403 on each, although the server is in the room."""
    async with scene(tmp_path) as here:
        (first,) = await here.say("one")
        await here.join()
        await here.set("m.room.server_acl", acl)
        for target in (*here.every_target(first), (f"/event/{q(first)}", None)):
            status, answer = await here.ask(*target)
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), target
        await here.set("m.room.server_acl", {"allow": ["*"]})
        for target in (*here.every_target(first), (f"/event/{q(first)}", None)):
            await here.good(*target)


async def test_t106_events_of_another_room(tmp_path: Path) -> None:
    """The event has to be one of the room in the path, whatever else the server may see."""
    async with scene(tmp_path) as here:
        await here.join()
        other = await here.town.room(here.ann)
        secret = await here.town.say(here.ann, other, "secret")
        (known,) = await here.say("one")
        for event_id in (secret, "$" + "A" * 43, "$odd:far.test"):
            for target, body in here.every_target(event_id)[:4]:
                status, answer = await here.ask(target, body)
                assert (status, answer["errcode"]) == (404, "M_NOT_FOUND"), target
            target, body = here.every_target(event_id)[4]
            assert await here.good(target, body) == {"events": []}
            status, _ = await here.ask(f"/event/{q(event_id)}")
            assert status == 404
        room = q(here.room)
        mixed = await here.good(f"/backfill/{room}?v={q(secret)}&v={q(known)}&limit=1")
        assert bodies(mixed["pdus"]) == ["one"]


# --- what is shown


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
@pytest.mark.parametrize("setting", ["world_readable", "shared", "invited", "joined"])
async def test_history_from_before_the_join(tmp_path: Path, setting: str, version: str) -> None:
    """[B11.06], [C9.01]: whole where it is open to those who come later, else in redacted form,
    whose hash does not match while its name is the same."""
    async with scene(tmp_path, version) as here:
        await here.see(setting)
        before = await here.say("before")
        join = await here.join()
        after = await here.say("after")
        open_to_all = setting in ("world_readable", "shared")
        expected = ["before" if open_to_all else None, "after"]
        room = q(here.room)
        found = (await here.good(f"/backfill/{room}?v={q(after[0])}&limit=100"))["pdus"]
        assert sorted(bodies(found), key=str) == sorted(expected, key=str)
        wanted = {"earliest_events": [], "latest_events": after, "limit": 20}
        missing = (await here.good(f"/get_missing_events/{room}", wanted))["events"]
        assert bodies(missing) == expected[:1]
        (event,) = (await here.good(f"/event/{q(before[0])}"))["pdus"]
        assert bodies([event]) == expected[:1]
        rules = ROOM_VERSIONS[version]
        assert parse_event(rules, event).event_id == before[0]
        assert content_hash_matches(event) is open_to_all
        (own,) = (await here.good(f"/event/{q(join)}"))["pdus"]
        assert content_hash_matches(own)


async def test_invited_means_from_the_invitation_on(tmp_path: Path) -> None:
    """[C9.01]: what was sent between the invitation and the join."""
    async with scene(tmp_path) as here:
        await here.see("invited")
        here.far.answers["invite"] = lambda request, body: {"event": signed(here, body)}
        await here.say("before")
        await here.town.upon(here.ann, here.room, "invite", user_id=here.bo)
        await here.say("between")
        await here.join()
        (last,) = await here.say("after")
        found = await here.good(f"/backfill/{q(here.room)}?v={q(last)}&limit=100")
        assert bodies(found["pdus"]) == ["after", "between", None]


async def test_a_server_that_has_left_may_ask_for_single_events_it_could_see(
    tmp_path: Path,
) -> None:
    """[B11.06], T106: those of its time and, where history is shared, before; nothing later."""
    async with scene(tmp_path) as here:
        (early,) = await here.say("early")
        await here.join()
        (within,) = await here.say("within")
        await here.leave()
        (late,) = await here.say("late")
        for event_id, status in ((early, 200), (within, 200), (late, 404)):
            assert (await here.ask(f"/event/{q(event_id)}"))[0] == status
        stranger = here.land.fake("stranger.test")
        for event_id in (early, within, late):
            assert (await here.ask(f"/event/{q(event_id)}", far=stranger))[0] == 404
        await here.see("world_readable")
        (public,) = await here.say("public")
        assert (await here.ask(f"/event/{q(public)}", far=stranger))[0] == 200
        assert (await here.ask(f"/event/{q(late)}", far=stranger))[0] == 404


async def test_the_nearest_event_is_one_the_server_may_see(tmp_path: Path) -> None:
    """[B11.05], T106."""
    async with scene(tmp_path) as here:
        await here.see("joined")
        closed = (await here.town.state(here.ann, here.room))["m.room.history_visibility", ""]
        here.land.clock.step(60_000)
        start = here.land.clock.now_ms()
        await here.say("before")
        here.land.clock.step(60_000)
        join = await here.join()
        room = q(here.room)
        found = await here.good(f"/timestamp_to_event/{room}?ts={start}&dir=f")
        assert found["event_id"] == join
        # That the history was closed was still for all to see.
        found = await here.good(f"/timestamp_to_event/{room}?ts={start + 60_000}&dir=b")
        assert found["event_id"] == closed["event_id"]
        status, answer = await here.ask(f"/timestamp_to_event/{room}?ts=5&dir=b")
        assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


async def test_redacted_events_have_no_content_for_anybody(tmp_path: Path) -> None:
    """T040: what was redacted here leaves no other way either."""
    async with scene(tmp_path) as here:
        await here.join()
        (gone,) = await here.say("secret")
        path = f"/rooms/{q(here.room)}/redact/{q(gone)}/t"
        redaction = (await here.town.client(here.ann, "PUT", path, {}))["event_id"]
        (event,) = (await here.good(f"/event/{q(gone)}"))["pdus"]
        assert event["content"] == {}
        found = await here.good(f"/backfill/{q(here.room)}?v={q(redaction)}&limit=2")
        assert bodies(found["pdus"]) == [None]


# --- states


@pytest.mark.parametrize("version", ["1", "2", "6", "12"])
async def test_the_state_before_an_event(tmp_path: Path, version: str) -> None:
    """[B11.03], [B11.04]: before it, not after it; with all that authorises it."""
    async with scene(tmp_path, version) as here:
        await here.set("m.room.topic", {"topic": "old"})
        await here.join()
        topic = await here.set("m.room.topic", {"topic": "new"})
        room = q(here.room)
        whole = await here.good(f"/state/{room}?event_id={q(topic)}")
        rules = ROOM_VERSIONS[version]
        state = [parse_event(rules, pdu) for pdu in whole["pdus"]]
        chain = [parse_event(rules, pdu) for pdu in whole["auth_chain"]]
        content = {(e.type, e.state_key): e.content for e in state}
        assert content["m.room.topic", ""] == {"topic": "old"}
        assert content["m.room.member", here.bo]["membership"] == "join"
        known = {event.event_id for event in chain}
        for event in (*state, *chain):
            assert set(event.auth_event_ids) <= known
        ids = await here.good(f"/state_ids/{room}?event_id={q(topic)}")
        assert sorted(ids["pdu_ids"]) == sorted(e.event_id for e in state)
        assert sorted(ids["auth_chain_ids"]) == sorted(known)
        auth = await here.good(f"/event_auth/{room}/{q(topic)}")
        found = {parse_event(rules, pdu).event_id for pdu in auth["auth_chain"]}
        assert topic not in found
        (itself,) = (await here.good(f"/event/{q(topic)}"))["pdus"]
        assert set(parse_event(rules, itself).auth_event_ids) <= found <= known


async def test_large_states_come_in_pieces(tmp_path: Path) -> None:
    """[B11.03]: more events than are read at once."""
    async with scene(tmp_path) as here:
        await here.join()
        for number in range(230):
            await here.town.set_state(
                here.ann, here.room, "net.example.n", {"n": number}, f"{number}"
            )
        (last,) = await here.say("last")
        whole = await here.good(f"/state/{q(here.room)}?event_id={q(last)}")
        numbers = [p["content"]["n"] for p in whole["pdus"] if p["type"] == "net.example.n"]
        assert sorted(numbers) == list(range(230))


# --- how much


async def test_answers_are_bounded(tmp_path: Path) -> None:
    """[B11.01], [B11.02]: 100 and 20 events, whatever is asked for."""
    async with scene(tmp_path) as here:
        await here.join()
        said = await here.say(*(f"m{number}" for number in range(130)))
        room = q(here.room)
        found = await here.good(f"/backfill/{room}?v={q(said[-1])}&limit=100000")
        assert bodies(found["pdus"]) == [f"m{number}" for number in range(129, 29, -1)]
        wanted = {"earliest_events": [], "latest_events": [said[-1]], "limit": 10_000}
        missing = (await here.good(f"/get_missing_events/{room}", wanted))["events"]
        assert bodies(missing) == [f"m{number}" for number in range(109, 129)]
        del wanted["limit"]
        missing = (await here.good(f"/get_missing_events/{room}", wanted))["events"]
        assert bodies(missing) == [f"m{number}" for number in range(119, 129)]
        wanted["earliest_events"] = [said[124]]
        missing = (await here.good(f"/get_missing_events/{room}", wanted))["events"]
        assert bodies(missing) == [f"m{number}" for number in range(125, 129)]
        (newest,) = (await here.good(f"/event/{q(said[-1])}"))["pdus"]
        deep = {**wanted, "earliest_events": [], "min_depth": newest["depth"] - 2}
        missing = (await here.good(f"/get_missing_events/{room}", deep))["events"]
        assert bodies(missing) == ["m127", "m128"]


@pytest.mark.parametrize(
    ("target", "body", "errcode"),
    [
        ("/backfill/{room}?limit=5", None, "M_MISSING_PARAM"),
        ("/backfill/{room}?v=$a", None, "M_MISSING_PARAM"),
        ("/backfill/{room}?v=a&limit=5", None, "M_INVALID_PARAM"),
        ("/backfill/{room}?v=$a&limit=-5", None, "M_INVALID_PARAM"),
        ("/backfill/{room}?v=$a&limit=0", None, "M_INVALID_PARAM"),
        ("/backfill/x?v=$a&limit=5", None, "M_INVALID_PARAM"),
        ("/state/{room}", None, "M_MISSING_PARAM"),
        ("/state_ids/{room}", None, "M_MISSING_PARAM"),
        ("/state_ids/{room}?event_id=a", None, "M_INVALID_PARAM"),
        ("/event/a", None, "M_INVALID_PARAM"),
        ("/event_auth/{room}/a", None, "M_INVALID_PARAM"),
        ("/timestamp_to_event/{room}?ts=5", None, "M_MISSING_PARAM"),
        ("/timestamp_to_event/{room}?dir=f", None, "M_MISSING_PARAM"),
        ("/timestamp_to_event/{room}?ts=5&dir=x", None, "M_INVALID_PARAM"),
        ("/timestamp_to_event/{room}?ts=x&dir=f", None, "M_INVALID_PARAM"),
        ("/get_missing_events/{room}", {}, "M_MISSING_PARAM"),
        ("/get_missing_events/{room}", {"earliest_events": [], "latest_events": "a"}, "M_BAD_JSON"),
        ("/get_missing_events/{room}", {"earliest_events": [], "latest_events": [5]}, "M_BAD_JSON"),
    ],
)
async def test_requests_that_are_wrong(
    tmp_path: Path, target: str, body: Any, errcode: str
) -> None:
    """[B11.01] to [B11.05], T090: 400, from everybody."""
    async with scene(tmp_path) as here:
        await here.join()
        status, answer = await here.ask(target.replace("{room}", q(here.room)), body)
        assert (status, answer["errcode"]) == (400, errcode)
