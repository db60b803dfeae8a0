"""History, dates, spaces and look-ups between a server of ours and a real Synapse.

[B11.01], [B11.05], [B11.06], [B13.01], [B13.02], [B13.03], [C9.05], [C9.08], [C12.05], [C12.09].
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.federation.pair import Pair, Person, Refused, a_synapse, our_server
from tests.peers.synapse_peer import TestCA


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both servers; our list of rooms is open to the other one."""
    folder: Path = tmp_path_factory.mktemp("pair")
    ca = TestCA(folder / "ca")
    rooms = {"directory_over_federation": True}
    with (
        our_server(folder / "ours", ca, rooms=rooms) as (server, ours, our_gate),
        a_synapse(folder / "synapse", ca) as (peer, theirs, their_gate),
    ):
        yield Pair(ours, theirs, server, peer, (our_gate, their_gate), ca)


def two(pair: Pair, first: str) -> tuple[Person, Person]:
    """Who makes the room, and somebody of the other side."""
    here, there = pair.sides(first)
    return here.person("alice"), there.person("bob")


def v1(who: Person, path: str) -> Any:
    """A request under ``/_matrix/client/v1``."""
    return who.side.request("GET", f"/_matrix/client/v1{path}", token=who.token)


def bodies(events: list[Any]) -> list[Any]:
    return [e["content"].get("body") for e in events if e["type"] == "m.room.message"]


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
def test_history_with_state_in_it(pair: Pair, first: str, version: str) -> None:
    """Topics, names and members among the messages: all of it comes, in the same order."""
    alice, bob = two(pair, first)
    room = alice.create_room(version)
    for number in range(60):
        alice.say(room, f"m{number}")
        if number % 7 == 0:
            alice.set_state(room, "m.room.topic", {"topic": f"t{number}"})
            alice.upon("invite", room, bob.side.person("carol"))
    bob.join(room, via=alice.side)
    ours = [e["event_id"] for e in bob.history(room, limit=30)]
    theirs = [e["event_id"] for e in alice.history(room, limit=30)]
    assert ours == theirs


def test_history_that_was_closed(pair: Pair, first: str) -> None:
    """What was sent before the join is not shown where only members see."""
    alice, bob = two(pair, first)
    room = alice.create_room("11")
    alice.set_state(room, "m.room.history_visibility", {"history_visibility": "joined"})
    alice.say(room, "before")
    bob.join(room, via=alice.side)
    last = alice.say(room, "after")
    bob.sees(room, last)
    assert bodies([*bob.history(room)]) == ["after"]


def test_a_jump_to_a_date(pair: Pair, first: str) -> None:
    """From both directions, to a message from before the join, and the context of it."""
    alice, bob = two(pair, first)
    room = alice.create_room("11")
    for number in range(30):
        alice.say(room, f"m{number}")
    time.sleep(0.3)
    between = round(time.time() * 1000)
    time.sleep(0.3)
    for number in range(30, 150):
        alice.say(room, f"m{number}")
    bob.join(room, via=alice.side)
    for direction, expected in (("b", "m29"), ("f", "m30")):
        path = f"/rooms/{quote(room)}/timestamp_to_event?ts={between}&dir={direction}"
        found = v1(bob, path)
        context = f"/rooms/{quote(room)}/context/{quote(found['event_id'])}?limit=6"
        around = bob.request("GET", context)
        assert around["event"]["content"]["body"] == expected
        if first == "theirs":  # Synapse shows nobody the neighbours of such an event
            assert bodies(around["events_before"])[0] == f"m{int(expected[1:]) - 1}"


def test_an_alias_a_profile_and_a_summary(pair: Pair, first: str) -> None:
    """Looked up at the other server."""
    alice, bob = two(pair, first)
    name = f"square{time.time_ns()}"
    room = alice.create_room("12", room_alias_name=name, name="Square", topic="All meet here")
    alias = f"#{name}:{alice.side.name}"
    found = bob.request("GET", f"/directory/room/{quote(alias)}")
    assert found["room_id"] == room
    assert alice.side.name in found["servers"]
    with pytest.raises(Refused) as refused:
        bob.request("GET", f"/directory/room/{quote(f'#nothing:{alice.side.name}')}")
    assert refused.value.errcode == "M_NOT_FOUND"

    user = quote(alice.user_id)
    alice.request("PUT", f"/profile/{user}/displayname", {"displayname": "Alice"})
    assert bob.request("GET", f"/profile/{user}")["displayname"] == "Alice"
    nobody = quote(f"@nobody{time.time_ns()}:{alice.side.name}")
    with pytest.raises(Refused):
        bob.request("GET", f"/profile/{nobody}")

    summary = v1(bob, f"/room_summary/{quote(room)}?via={quote(alice.side.name)}")
    assert summary["room_id"] == room
    assert (summary["name"], summary["topic"]) == ("Square", "All meet here")
    assert summary["num_joined_members"] == 1
    bob.request("POST", f"/join/{quote(alias)}", {})
    assert bob.membership(room, bob) == "join"


def test_our_list_of_rooms(pair: Pair) -> None:
    """Read and searched by the other server, which publishes nothing itself by default."""
    alice, bob = two(pair, "ours")
    word = f"word{time.time_ns()}"
    room = alice.create_room("12", visibility="public", name=f"The {word}")
    server = quote(alice.side.name)
    listed = bob.request("GET", f"/publicRooms?server={server}&limit=100")
    assert room in [entry["room_id"] for entry in listed["chunk"]]
    search = {"filter": {"generic_search_term": word}}
    listed = bob.request("POST", f"/publicRooms?server={server}", search)
    assert [entry["room_id"] for entry in listed["chunk"]] == [room]
    nothing = alice.request("GET", f"/publicRooms?server={quote(bob.side.name)}")
    assert nothing["chunk"] == []


def test_a_space_with_rooms_on_both_sides(pair: Pair, first: str) -> None:
    """[C12.09]: walked through by somebody who is in none of its rooms."""
    alice, bob = two(pair, first)
    space = {"creation_content": {"type": "m.space"}}
    home = alice.create_room("12", name="Home", **space)
    inner = alice.create_room("11", name="Inner", **space)
    kitchen, cellar = alice.create_room("12"), alice.create_room("12", preset="private_chat")
    theirs = bob.create_room("12", name="Theirs")
    via = {"via": [alice.side.name]}
    alice.set_state(home, "m.space.child", {**via, "order": "a"}, inner)
    alice.set_state(home, "m.space.child", {**via, "order": "b"}, cellar)
    alice.set_state(home, "m.space.child", {"via": [bob.side.name], "order": "c"}, theirs)
    alice.set_state(inner, "m.space.child", via, kitchen)
    walked = v1(alice, f"/rooms/{quote(home)}/hierarchy")["rooms"]
    assert [room["room_id"] for room in walked] == [home, inner, kitchen, cellar, theirs]
    top = bob.create_room("12", name="Top", **space)
    bob.set_state(top, "m.space.child", via, home)
    walked = v1(bob, f"/rooms/{quote(top)}/hierarchy")["rooms"]
    assert [room["room_id"] for room in walked] == [top, home, inner, kitchen, theirs]
