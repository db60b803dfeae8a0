"""Keys between a server of ours and a real Synapse: notaries both ways, and a new key of ours.

[B3.02], [B3.05], [B3.09], T048.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any
from urllib.parse import quote

from matrixbox.core.signing import decode_base64, json_signature_valid
from tests.federation.pair import Pair
from tests.server import TOP


def keys_of(pair: Pair) -> dict[str, Any]:
    """What our server says about its keys."""
    found: dict[str, Any] = pair.ours.request("GET", "/_matrix/key/v2/server")
    return found


def is_signed(answer: dict[str, Any], name: str, keys: dict[str, Any]) -> bool:
    """Whether it bears a good signature with one of the current keys in `keys`."""
    return any(
        json_signature_valid(answer, name, key_id, decode_base64(entry["key"]))
        for key_id, entry in keys["verify_keys"].items()
    )


def rotate(pair: Pair) -> None:
    """Replace our key; our server must not run."""
    subprocess.run(
        [sys.executable, "-m", "matrixbox", "key", "rotate", "--config", str(pair.server.config)],
        cwd=TOP,
        check=True,
        capture_output=True,
        timeout=60,
    )


def test_b3_05_we_vouch_for_what_synapse_says_about_its_keys(pair: Pair) -> None:
    path = f"/_matrix/key/v2/query/{quote(pair.theirs.name)}"
    [answer] = pair.ours.request("GET", path)["server_keys"]
    assert is_signed(answer, pair.theirs.name, answer)
    assert is_signed(answer, pair.ours.name, keys_of(pair))
    body = {"server_keys": {pair.theirs.name: {}, "127.0.0.1:1": {}, pair.ours.name: {}}}
    answers = pair.ours.request("POST", "/_matrix/key/v2/query", body)["server_keys"]
    assert sorted(said["server_name"] for said in answers) == sorted(
        [pair.theirs.name, pair.ours.name]
    )


def test_b3_02_a_new_key_is_believed_and_the_old_one_still_counts_for_what_it_signed(
    pair: Pair,
) -> None:
    alice, bob = pair.ours.person("alice"), pair.theirs.person("bob")
    room = alice.create_room("11")
    bob.join(room, via=pair.ours)
    bob.sees(room, alice.say(room, "with the first key"))
    before = keys_of(pair)
    with pair.split():
        # Signed with the old key, and delivered after it has become one.
        waiting = alice.say(room, "still with the first key")
        with pair.down("ours"):
            rotate(pair)
        after = keys_of(pair)
        [old], [new] = before["verify_keys"], after["verify_keys"]
        assert old != new
        assert after["old_verify_keys"][old]["key"] == before["verify_keys"][old]["key"]
        assert is_signed(after, pair.ours.name, after)
        assert not is_signed(after, pair.ours.name, before)
    bob.sees(room, alice.say(room, "with the second key"))
    bob.sees(room, waiting)
    alice.sees(room, bob.say(room, "you sound different"))
    pair.agree(room, alice, bob)


def test_b3_09_a_room_that_began_with_an_old_key_can_be_joined(pair: Pair) -> None:
    alice, bob = pair.ours.person("alice"), pair.theirs.person("bob")
    room = alice.create_room("11")
    alice.set_state(room, "m.room.topic", {"topic": "of old"})
    with pair.down("ours"):
        rotate(pair)
    bob.join(room, via=pair.ours)
    bob.sees(room, alice.say(room, "welcome"))
    pair.agree(room, alice, bob)
