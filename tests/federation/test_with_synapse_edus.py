"""Typing, receipts and presence between a server of ours and a real Synapse.

[B7.01], [B7.02], [B7.03].
"""

from __future__ import annotations

from urllib.parse import quote

from tests.federation.pair import Pair, Person, eventually, together


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
