"""What a server may see is what one of its users may ([B11.06], [C9.01], [C9.02], T104, T106).

And what it costs to walk through a room on behalf of others (section 3).
"""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from matrixbox.core.events import Event
from matrixbox.core.identifiers import ServerName
from matrixbox.core.visibility import HistoryVisibility
from matrixbox.errors import Forbidden
from matrixbox.rooms import serving, timeline
from matrixbox.rooms.reading import Reader
from matrixbox.rooms.serving import ServerReader
from matrixbox.store import members
from tests.rooms.far import CREATOR, Graph
from tests.rooms.house import SERVER, House, household

BO, CY = "@bo:near.test", "@cy:near.test"
SETTINGS = [setting.value for setting in HistoryVisibility]


def far_room(rng: random.Random, length: int) -> Graph:
    """A room whose members come and go while who may read changes."""
    graph = Graph("11")
    graph.begin("@al:one.test")
    membership = {BO: "leave", CY: "leave"}
    for number in range(length):
        step = rng.choice(["say", "say", "visibility", "move", "move"])
        if step == "say":
            graph.make("m.room.message", CREATOR, {"body": f"{number}"})
        elif step == "visibility":
            content = {"history_visibility": rng.choice(SETTINGS)}
            graph.make("m.room.history_visibility", CREATOR, content, "")
        else:
            user = rng.choice([BO, CY])
            allowed = {
                "leave": ["join", "invite", "ban"],
                "invite": ["join", "leave"],
                "join": ["leave", "ban", "join"],
                "ban": ["leave"],
            }[membership[user]]
            new = rng.choice(allowed)
            by_other = new in ("invite", "ban") or membership[user] == "ban"
            graph.make("m.room.member", CREATOR if by_other else user, {"membership": new}, user)
            membership[user] = new
    return graph


def model(graph: Graph, server: str) -> dict[str, bool]:
    """The rules of the specification, taken literally, for any user of a server."""
    events = [*graph.events.values()]
    joins = [
        (place, event)
        for place, event in enumerate(events)
        if event.type == "m.room.member" and event.content["membership"] == "join"
    ]
    return {
        event.event_id: any(
            _may_see(graph, event, place, user, joins)
            for user in (BO, CY)
            if user.endswith(f":{server}")
        )
        or _is_public(graph, event)
        for place, event in enumerate(events)
    }


def _states(graph: Graph, event: Event) -> list[dict[Any, Any]]:
    return [graph.before[event.event_id], graph.after[event.event_id]]


def _settings(graph: Graph, event: Event) -> set[str]:
    found = set()
    for state in _states(graph, event):
        setting = state.get(("m.room.history_visibility", ""))
        content = {} if setting is None else graph.events[setting].content
        found.add(content.get("history_visibility", "shared"))
    return found


def _is_public(graph: Graph, event: Event) -> bool:
    return "world_readable" in _settings(graph, event)


def _may_see(
    graph: Graph, event: Event, place: int, user: str, joins: list[tuple[int, Event]]
) -> bool:
    memberships = set()
    for state in _states(graph, event):
        member = state.get(("m.room.member", user))
        memberships.add(None if member is None else graph.events[member].content["membership"])
    settings = _settings(graph, event)
    later = any(there >= place and join.state_key == user for there, join in joins)
    return (
        "join" in memberships
        or ("shared" in settings and (later or _is_in(graph, user)))
        or ("invited" in settings and "invite" in memberships)
    )


def _is_in(graph: Graph, user: str) -> bool:
    member = graph.after[graph.last().event_id].get(("m.room.member", user))
    return member is not None and graph.events[member].content["membership"] == "join"


@pytest.mark.parametrize("seed", range(40))
async def test_t106_a_server_sees_what_its_users_see(seed: int) -> None:
    """Against a literal model, for a server with two users and for one with none."""
    rng = random.Random(seed)
    async with household() as house:
        graph = far_room(rng, 40)
        room = await graph.deliver_all(house)
        for server in ("near.test", "nobody.test"):
            expected = model(graph, server)

            def look(tx: Any, server: str = server) -> dict[str, bool]:
                reader = ServerReader(tx, room, ServerName(server))
                return {
                    stored.event.event_id: reader.may_see(stored) for stored in house.timeline(room)
                }

            assert house.store.read(look) == expected


async def _living_room(house: House, seed: int) -> Any:
    """A room of ours whose members come and go while who may read changes."""
    rng = random.Random(seed)
    ann, bo, cy = [await house.user(name) for name in ("ann", "bo", "cy")]
    room = await house.room(ann, preset="public_chat")
    for number in range(40):
        who = rng.choice([bo, cy])
        steps = [
            lambda number=number: house.say(ann, room, f"{number}"),
            lambda: house.set_state(
                ann,
                room,
                "m.room.history_visibility",
                "",
                {"history_visibility": rng.choice(SETTINGS)},
            ),
            lambda who=who: house.join(who, room),
            lambda who=who: house.leave(who, room),
            lambda who=who: house.invite(ann, room, who.user_id),
        ]
        try:
            await rng.choice(steps)()
        except Forbidden:
            continue
    if rng.random() < 0.5:
        await house.leave(ann, room)
    return room


@pytest.mark.parametrize("seed", range(40))
async def test_t106_the_two_readers_agree(seed: int) -> None:
    """What our server may see by the one reader is what its users may by the other."""
    async with household() as house:
        room = await _living_room(house, seed)

        def look(tx: Any) -> None:
            server = ServerReader(tx, room, SERVER)
            readers = [Reader(tx, room, user, 0) for user, _ in members.of_server(tx, room, SERVER)]
            for stored in house.timeline(room):
                one = any(reader.may_see_room_at(stored) for reader in readers)
                assert server.may_see(stored) is one

        house.store.read(look)


async def test_rejected_and_soft_failed_events_and_outliers(tmp_path: Any) -> None:
    """[B11.06], T011, T012: rejected ones are given to nobody, soft-failed ones where they lie on
    the way, and the walk goes on behind both."""
    async with household() as house:
        graph = Graph("11")
        graph.begin(BO, users={CREATOR: 100})
        first = graph.make("m.room.message", BO, {"body": "first"})
        bad = graph.make("m.room.topic", BO, {"topic": "not his to set"}, "")
        last = graph.make("m.room.message", BO, {"body": "last"}, prev=[bad])
        room = await graph.deliver_all(house)

        def look(tx: Any) -> tuple[list[Event], list[Event], bool]:
            reader = ServerReader(tx, room, ServerName("near.test"))
            back = serving.backwards(reader, [last.event_id], 3)
            missing = serving.between(reader, [], [last.event_id], 20, 0)
            stored = house.stored(bad.event_id)
            assert stored is not None
            return back, missing, reader.shown(stored) is not None

        back, missing, is_shown = house.store.read(look)
        assert [event.event_id for event in back][:2] == [last.event_id, first.event_id]
        assert bad.event_id not in [event.event_id for event in missing]
        assert first.event_id in [event.event_id for event in missing]
        assert not is_shown
        assert house.store.read(serving.state_before, room, bad.event_id) is None
        assert house.store.read(serving.auth_chain_of, room, bad.event_id) is not None


async def test_t079_a_walk_ends_and_is_quick() -> None:
    """A room of thousands of events of which none may be given: 500 are looked at, no more."""
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann)
        for number in range(600):
            said = await house.say(ann, room, f"{number}")

        def look(tx: Any) -> list[Event]:
            reader = ServerReader(tx, room, ServerName("far.test"))
            return serving.backwards(reader, [said.event.event_id], 100)

        start = time.process_time()
        assert house.store.read(look) == []
        assert time.process_time() - start < 0.5


async def test_the_nearest_event_to_a_time() -> None:
    """[C9.08]: in both directions, at the ends, and among events of one time."""
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann)
        said = []
        for number in range(20):
            house.env.clock.step(10_000)
            said.append(await house.say(ann, room, f"{number}"))
        times = [one.event.origin_server_ts for one in said]

        def nearest(ts: int, *, back: bool) -> Any:
            found = house.look(ann, room, lambda reader: timeline.nearest(reader, ts, back=back))
            return None if found is None else found.event.content.get("body")

        for number, ts in enumerate(times):
            assert nearest(ts, back=True) == nearest(ts, back=False) == f"{number}"
            assert nearest(ts + 1, back=True) == f"{number}"
            assert nearest(ts - 1, back=False) == f"{number}"
        assert nearest(times[-1] + 1, back=False) is None
        assert nearest(1, back=True) is None
        assert nearest(2**53, back=True) == "19"
