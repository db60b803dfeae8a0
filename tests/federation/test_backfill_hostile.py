"""Servers that lie about a room's history: what is wrong is left out, what is right comes in.

T005, T007, T013, T016, T043, T046; [B11.01], [B11.03], [A4.04].
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from attrs import define, field

from matrixbox.core.events import Event
from matrixbox.core.signing import SigningKey, citation, hash_and_sign_event
from matrixbox.store import events
from matrixbox.store.events import Status
from tests.federation.hand_made import HandMadeRoom
from tests.federation.test_backfill import pages, said
from tests.federation.towns import Account, Country, Town, country


@define(eq=False)
class Resident:
    """A hand-made room with a history, and what its server says about it."""

    land: Country
    home: Town
    bo: Account
    room: HandMadeRoom
    lies: dict[str, Any] = field(factory=dict)  # by event id: the PDU given instead, None: none

    def history(self, count: int, *, topics: bool = False) -> list[Event]:
        """Some messages, with a topic after each third one if wanted."""
        made = []
        for number in range(count):
            made.append(self.room.add("m.room.message", {"body": f"m{number}"}, None))
            if topics and number % 3 == 2:
                self.room.add("m.room.topic", {"topic": f"t{number}"})
        return made

    async def join(self) -> None:
        """Our user comes in."""
        await self.home.join(self.bo, self.room.room_id, self.room.server.name)

    async def read(self) -> list[dict[str, Any]]:
        """All that our user gets to see, newest first."""
        return await pages(self.home, self.bo, self.room.room_id)

    def asked(self, word: str) -> int:
        """How often the server was asked something."""
        return len(self.room.server.asked(word))

    def stored(self, event_id: str) -> Any:
        """How an event is stored with us."""
        return self.home.store.read(events.by_id, event_id)

    # --- answers

    def pdu(self, event: Event) -> Any:
        """What it gives for an event."""
        lie = self.lies.get(event.event_id, event.json)
        return None if lie is None else json.loads(json.dumps(lie))

    def open(self) -> None:
        self.room.open()
        answers = self.room.server.answers
        answers["backfill"] = self.backfill
        answers["state_ids"] = self.state_ids
        answers["state"] = self.state
        answers["event"] = self.event

    def index(self, event_id: str) -> int:
        ids = [event.event_id for event in self.room.events]
        return ids.index(event_id)

    def transaction(self, pdus: list[Any]) -> Any:
        return {"origin": self.room.server.name, "origin_server_ts": 1, "pdus": pdus}

    def backfill(self, request: Any, _: Any) -> Any:
        query = unquote(request.target.partition("?")[2])
        wanted = [part[2:] for part in query.split("&") if part.startswith("v=")]
        found = self.room.events[: max(self.index(one) for one in wanted) + 1][-100:]
        return self.transaction([p for e in reversed(found) if (p := self.pdu(e)) is not None])

    def state_before(self, request: Any) -> list[Event]:
        event_id = unquote(request.target.partition("event_id=")[2])
        state = {}
        for event in self.room.events[: self.index(event_id)]:
            if event.state_key is not None:
                state[event.type, event.state_key] = event
        return [*state.values()]

    def state_ids(self, request: Any, _: Any) -> Any:
        ids = [event.event_id for event in self.state_before(request)]
        return {"pdu_ids": ids, "auth_chain_ids": ids}

    def state(self, request: Any, _: Any) -> Any:
        found = [self.pdu(event) for event in self.state_before(request)]
        return {"pdus": found, "auth_chain": found}

    def event(self, request: Any, _: Any) -> Any:
        event_id = unquote(request.target.rpartition("/")[2])
        known = {event.event_id: event for event in self.room.events}
        if event_id not in known:
            return 404, {"errcode": "M_NOT_FOUND", "error": "no"}
        return self.transaction([self.pdu(known[event_id])])


@asynccontextmanager
async def resident(folder: Path, version: str = "12") -> AsyncIterator[Resident]:
    """A server of ours, and a room on a hand-made one."""
    async with country(folder) as land:
        home = await land.town("home.test")
        bo = await home.register("bo")
        made = Resident(land, home, bo, HandMadeRoom(land.fake("evil.test"), version))
        made.open()
        yield made


@pytest.mark.parametrize("version", ["1", "2", "5", "6", "11", "12"])
async def test_the_truth_comes_in(tmp_path: Path, version: str) -> None:
    """That lies are refused means nothing unless the truth is not."""
    async with resident(tmp_path, version) as here:
        here.history(230, topics=True)
        await here.join()
        found = await here.read()
        assert said(found) == [f"m{number}" for number in range(230)]
        assert len([e for e in found if e["type"] == "m.room.topic"]) == 76
        assert here.asked("backfill") == 4


async def test_t043_a_wrong_signature_ends_the_history(tmp_path: Path) -> None:
    """What is before it cannot be told from what is invented; nothing of it is stored."""
    async with resident(tmp_path) as here:
        made = here.history(10)
        bad = made[5]
        forged = hash_and_sign_event(
            here.room.rules,
            {k: v for k, v in bad.json.items() if k not in ("signatures", "hashes")},
            "evil.test",
            SigningKey("fake", b"x" * 32),
        )
        here.lies[bad.event_id] = forged
        await here.join()
        assert said(await here.read()) == ["m6", "m7", "m8", "m9"]
        assert here.stored(bad.event_id) is None
        assert here.stored(made[2].event_id) is None


async def test_t046_spoiled_content_is_taken_off(tmp_path: Path) -> None:
    """[A4.04]: the event stays in its place in redacted form, and history goes on behind it."""
    async with resident(tmp_path) as here:
        made = here.history(10)
        here.lies[made[5].event_id] = {**made[5].json, "content": {"body": "spoiled"}}
        await here.join()
        found = await here.read()
        bodies = [
            e["content"].get("body") for e in reversed(found) if e["type"] == "m.room.message"
        ]
        assert bodies == [None if number == 5 else f"m{number}" for number in range(10)]
        assert here.stored(made[5].event_id).status & Status.PRUNED


async def test_t005_events_of_another_room_and_uncalled_for_ones(tmp_path: Path) -> None:
    """Nothing comes in that does not lead up to what was asked for."""
    async with resident(tmp_path) as here:
        here.history(3)
        other = HandMadeRoom(here.room.server, "11")
        foreign = other.add("m.room.message", {"body": "foreign"}, None)
        stray = here.room.make("m.room.message", {"body": "stray"}, None)
        truth = here.backfill

        def lie(request: Any, body: Any) -> Any:
            found = truth(request, body)
            extra = [json.loads(json.dumps(one.json)) for one in (foreign, stray)]
            return {**found, "pdus": [*extra, 5, {}, *found["pdus"]]}

        here.room.server.answers["backfill"] = lie
        await here.join()
        assert said(await here.read()) == ["m0", "m1", "m2"]
        assert here.stored(foreign.event_id) is None
        assert here.stored(stray.event_id) is None


async def test_t013_events_that_were_not_allowed_are_hidden_and_passed(tmp_path: Path) -> None:
    """A stranger's messages in the history: judged by the state then; what is before them comes."""
    async with resident(tmp_path) as here:
        here.history(120)
        for number in range(5):
            stranger = f"@stranger{number}:evil.test"
            here.room.add("m.room.message", {"body": "bad"}, None, sender=stranger)
        last = here.room.events[-1]
        here.room.add("m.room.message", {"body": "end"}, None)
        await here.join()
        expected = [*(f"m{number}" for number in range(120)), "end"]
        assert said(await here.read()) == expected
        assert here.stored(last.event_id).status & Status.REJECTED


@pytest.mark.parametrize("lie", ["no create", "foreign", "missing", "too many"])
async def test_t016_states_that_are_none(tmp_path: Path, lie: str) -> None:
    """[B11.03]: an unusable state before the oldest event lets nothing in, now and later."""
    async with resident(tmp_path) as here:
        # More than a page, so that the state before its oldest event is asked for.
        here.history(150)
        other = HandMadeRoom(here.room.server, "11")
        truth = here.state_ids

        def answer(request: Any, body: Any) -> Any:
            ids = truth(request, body)["pdu_ids"]
            if lie == "no create":
                ids = ids[1:]
            elif lie == "foreign":
                ids = [*ids, *(event.event_id for event in other.events)]
            elif lie == "missing":
                ids = [*ids, "$" + "A" * 43]
            else:
                ids = [*ids, *("$" + f"{number:043}" for number in range(100_001))]
            return {"pdu_ids": ids, "auth_chain_ids": []}

        here.room.server.answers["state_ids"] = answer
        await here.join()
        assert said(await here.read()) == []
        asked = here.asked("backfill")
        assert said(await here.read()) == []
        assert here.asked("backfill") == asked, "a gap that nobody could fill is left alone"


async def test_a_server_that_has_nothing(tmp_path: Path) -> None:
    """[C9.03]: the client is not kept in a circle, and the server not asked over and over."""
    async with resident(tmp_path) as here:
        here.history(3)
        here.room.server.answers["backfill"] = here.transaction([])
        await here.join()
        for _ in range(5):
            assert [e["type"] for e in await here.read()] == ["m.room.member"]
        assert here.asked("backfill") == 1


@pytest.mark.parametrize("version", ["1", "2"])
async def test_t007_events_in_a_circle(tmp_path: Path, version: str) -> None:
    """In old versions, where names are free: events that come before themselves stay out."""
    async with resident(tmp_path, version) as here:
        made = here.history(4)

        def again(event: Event, parents: list[Event]) -> Any:
            pdu = {k: v for k, v in event.json.items() if k not in ("signatures", "hashes")}
            pdu["prev_events"] = [citation(parent) for parent in parents]
            return here.room.signed(pdu)

        here.lies[made[1].event_id] = again(made[1], [made[2]])
        await here.join()
        assert said(await here.read()) == []
        for event in made:
            assert here.stored(event.event_id) is None


async def test_an_answer_with_thousands_of_events(tmp_path: Path) -> None:
    """Section 3: above its limit an answer is refused as a whole."""
    async with resident(tmp_path) as here:
        here.history(3)
        pdu = json.loads(json.dumps(here.room.events[-1].json))
        here.room.server.answers["backfill"] = here.transaction([pdu] * 5_000)
        await here.join()
        assert said(await here.read()) == []


async def test_a_jump_to_an_event_that_is_not_there(tmp_path: Path) -> None:
    """[B11.05]: what another server claims about a date is believed when the event is here."""
    async with resident(tmp_path) as here:
        made = here.history(150)
        await here.join()
        claim = {"event_id": made[10].event_id, "origin_server_ts": 5}
        here.room.server.answers["timestamp_to_event"] = claim
        target = (
            f"/_matrix/client/v1/rooms/{quote(here.room.room_id)}"
            f"/timestamp_to_event?ts={here.land.clock.now_ms()}&dir=b"
        )
        found = await here.home.request("GET", target, token=here.bo.token)
        # It claimed a time that is further off than what we know: nobody fetches it.
        assert found["event_id"] not in [event.event_id for event in made]
        assert here.stored(made[10].event_id) is None
        for odd in ({"event_id": 5, "origin_server_ts": 5}, {}, {"event_id": "$x"}, b"[]"):
            here.room.server.answers["timestamp_to_event"] = odd
            assert await here.home.request("GET", target, token=here.bo.token) == found
