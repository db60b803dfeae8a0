"""A real Synapse talked while we were down: all of it comes in after our start, by our asking.

The one that was away is silent, and nobody speaks once it is back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.federation.pair import Pair, eventually, federating
from tests.federation.test_with_synapse import together

WITHIN_S = 120.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with federating(tmp_path_factory.mktemp("missed")) as found:
        yield found


@pytest.mark.parametrize("version", ["1", "10", "12"])
def test_what_synapse_said_meanwhile_arrives_without_a_word(pair: Pair, version: str) -> None:
    alice, bob, room = together(pair, "theirs", version)
    pair.agree(room, alice, bob)
    with pair.down("ours"):
        said = [alice.say(room, f"number {number}") for number in range(60)]
        topic = alice.set_state(room, "m.room.topic", {"topic": "you missed this"})
        time.sleep(5)  # Synapse notices, and gives up for ten minutes
    began = time.monotonic()
    for event_id in said:
        eventually(lambda one=event_id: bob.event(room, one), event_id, WITHIN_S)
    assert time.monotonic() - began < WITHIN_S
    assert pair.agree(room, alice, bob)["m.room.topic", ""] == topic
    seen = [event["event_id"] for event in bob.history(room) if event["type"] == "m.room.message"]
    assert seen[::-1][: len(said)] == said
