"""Typing, receipts and presence between a server of ours and a real Synapse.

[B7.01], [B7.02], [B7.03].
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.federation.pair import Pair, Person, eventually, federating

VERSIONS = ("1", "6", "9", "10", "11", "12")
FIRST = ("ours", "theirs")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both servers, for all scenarios."""
    with federating(tmp_path_factory.mktemp("pair")) as made:
        yield made


@pytest.fixture(params=FIRST)
def first(request: pytest.FixtureRequest) -> str:
    """On which side the room is made."""
    return str(request.param)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """The room's version."""
    return str(request.param)


def together(pair: Pair, first: str, version: str, **wanted: object) -> tuple[Person, Person, str]:
    """A creator, somebody of the other side who has joined, and the room."""
    here, there = pair.sides(first)
    alice, bob = here.person("alice"), there.person("bob")
    room = alice.create_room(version, **wanted)
    bob.join(room, via=here)
    return alice, bob, room


def test_typing_and_receipts_are_seen(pair: Pair, first: str) -> None:
    alice, bob, room = together(pair, first, "11")
    said = alice.say(room, "are you there?")
    bob.sees(room, said)

    def ephemeral(person: Person, kind: str) -> dict[str, object]:
        section = person.section("join", room)
        events = section["ephemeral"]["events"] if section else []
        return next((event["content"] for event in events if event["type"] == kind), {})

    for one, other in ((alice, bob), (bob, alice)):
        path = f"/rooms/{quote(room)}/typing/{quote(one.user_id)}"
        one.request("PUT", path, {"typing": True, "timeout": 20_000})
        eventually(
            lambda o=one, p=other: o.user_id in ephemeral(p, "m.typing").get("user_ids", []),
            f"{one.user_id} is typing",
        )
        one.request("PUT", path, {"typing": False})
        eventually(
            lambda o=one, p=other: o.user_id not in ephemeral(p, "m.typing").get("user_ids", []),
            f"{one.user_id} has stopped",
        )
        one.request("POST", f"/rooms/{quote(room)}/receipt/m.read/{quote(said)}", {})
        eventually(
            lambda o=one, p=other: (
                o.user_id in ephemeral(p, "m.receipt").get(said, {}).get("m.read", {})
            ),
            f"{one.user_id} has read it",
        )


def test_presence_is_seen(pair: Pair, first: str) -> None:
    alice, bob, _ = together(pair, first, "11")
    for one, other in ((alice, bob), (bob, alice)):
        path = f"/presence/{quote(one.user_id)}/status"
        one.request("PUT", path, {"presence": "online", "status_msg": "making tea"})
        eventually(
            lambda o=one, p=other: (
                p.request("GET", f"/presence/{quote(o.user_id)}/status").get("status_msg")
                == "making tea"
            ),
            f"{one.user_id} is making tea",
        )
