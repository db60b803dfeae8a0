"""Every kind of thing that happens in rooms, between a server of ours and a real Synapse.

[A4.01], [A4.11], [A6.01], [B5.01], [B7.01], [B8.01], [B9.01].  After each scenario the state maps
of both servers are equal.
"""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.federation.pair import Pair, Refused, eventually, together


def test_a_room_is_joined_and_both_talk(pair: Pair, first: str, version: str) -> None:
    alice, bob, room = together(pair, first, version)
    pair.agree(room, alice, bob)
    said = [alice.say(room, "hello"), bob.say(room, "good morning")]
    said.append(alice.set_state(room, "m.room.topic", {"topic": "Breakfast"}))
    said.append(alice.say(room, "ärger, 茶 and 🫖"))
    for person in (alice, bob):
        for event_id in said:
            person.sees(room, event_id)
    state = pair.agree(room, alice, bob)
    assert state["m.room.topic", ""] == said[2]
    assert state["m.room.member", bob.user_id]


def test_an_invitation_is_accepted(pair: Pair, first: str, version: str) -> None:
    here, there = pair.sides(first)
    alice, bob = here.person("alice"), there.person("bob")
    room = alice.create_room(version, preset="private_chat", name="Secret")
    alice.upon("invite", room, bob, reason="please come")
    section = eventually(lambda: bob.section("invite", room), "the invitation")
    told = {event["type"]: event for event in section["invite_state"]["events"]}
    assert told["m.room.name"]["content"] == {"name": "Secret"}
    assert told["m.room.member"]["sender"] == alice.user_id
    bob.join(room)
    bob.sees(room, alice.say(room, "welcome"))
    pair.agree(room, alice, bob)


def test_an_invitation_is_rejected(pair: Pair, first: str, version: str) -> None:
    here, there = pair.sides(first)
    alice, bob = here.person("alice"), there.person("bob")
    room = alice.create_room(version, preset="private_chat")
    alice.upon("invite", room, bob)
    eventually(lambda: bob.section("invite", room), "the invitation")
    bob.leave(room)
    eventually(lambda: alice.membership(room, bob) == "leave", "the refusal")
    assert bob.section("invite", room) is None
    with pytest.raises(Refused) as refused:
        bob.join(room, via=here)
    assert refused.value.status == 403


@pytest.mark.parametrize("version", ["9", "10", "11", "12"])
def test_a_knock_is_answered(pair: Pair, first: str, version: str) -> None:
    here, there = pair.sides(first)
    alice, bob = here.person("alice"), there.person("bob")
    rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room = alice.create_room(version, preset="private_chat", initial_state=[rule])
    bob.knock(room, via=here)
    eventually(lambda: alice.membership(room, bob) == "knock", "the knock")
    alice.upon("invite", room, bob)
    eventually(lambda: bob.section("invite", room), "the invitation")
    bob.join(room)
    pair.agree(room, alice, bob)


@pytest.mark.parametrize("version", ["9", "10", "11", "12"])
def test_members_of_another_room_may_join(pair: Pair, first: str, version: str) -> None:
    alice, bob, allowed = together(pair, first, version)
    rule = {
        "join_rule": "restricted",
        "allow": [{"type": "m.room_membership", "room_id": allowed}],
    }
    room = alice.create_room(
        version,
        preset="private_chat",
        initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": rule}],
    )
    stranger = bob.side.person("stranger")
    with pytest.raises(Refused) as refused:
        stranger.join(room, via=alice.side)
    assert refused.value.status == 403
    bob.join(room, via=alice.side)
    member = bob.content(room, "m.room.member", bob.user_id)
    assert member["join_authorised_via_users_server"] == alice.user_id
    pair.agree(room, alice, bob)


def test_kick_ban_and_unban(pair: Pair, first: str, version: str) -> None:
    alice, bob, room = together(pair, first, version)
    witness = bob.side.person("witness")
    witness.join(room, via=alice.side)
    alice.upon("kick", room, bob, reason="not now")
    eventually(lambda: witness.membership(room, bob) == "leave", "the kick")
    eventually(lambda: bob.section("join", room) is None, "the kick in bob's sync")
    bob.join(room, via=alice.side)
    pair.agree(room, alice, bob)
    alice.upon("ban", room, bob)
    eventually(lambda: witness.membership(room, bob) == "ban", "the ban")
    with pytest.raises(Refused) as refused:
        bob.join(room, via=alice.side)
    assert refused.value.status == 403
    alice.upon("unban", room, bob)
    eventually(lambda: witness.membership(room, bob) == "leave", "the end of the ban")
    bob.join(room, via=alice.side)
    pair.agree(room, alice, bob, witness)


def test_power_changes_hands(pair: Pair, first: str, version: str) -> None:
    alice, bob, room = together(pair, first, version)
    with pytest.raises(Refused) as refused:
        bob.set_state(room, "m.room.name", {"name": "mine"})
    assert refused.value.status == 403
    levels = alice.content(room, "m.room.power_levels")
    alice.set_state(
        room, "m.room.power_levels", {**levels, "users": {**levels["users"], bob.user_id: 60}}
    )
    eventually(
        lambda: bob.content(room, "m.room.power_levels")["users"].get(bob.user_id) == 60, "power"
    )
    named = bob.set_state(room, "m.room.name", {"name": "ours"})
    alice.sees(room, named)
    users = {**levels["users"], bob.user_id: 0}
    alice.set_state(room, "m.room.power_levels", {**levels, "users": users})
    state = pair.agree(room, alice, bob)
    assert state["m.room.name", ""] == named
    with pytest.raises(Refused):
        bob.set_state(room, "m.room.name", {"name": "mine again"})


def test_redactions_reach_the_other_side(pair: Pair, first: str, version: str) -> None:
    alice, bob, room = together(pair, first, version)
    own, other = bob.say(room, "oops"), bob.say(room, "worse")
    alice.sees(room, other)
    bob.redact(room, own)
    alice.redact(room, other)
    for person in (alice, bob):
        for event_id in (own, other):
            eventually(
                lambda p=person, e=event_id: (p.event(room, e) or {}).get("content") == {},
                f"{event_id} is empty for {person.user_id}",
            )
    pair.agree(room, alice, bob)


def test_a_room_is_upgraded(pair: Pair, first: str) -> None:
    alice, bob, room = together(pair, first, "10")
    path = f"/rooms/{quote(room)}/upgrade"
    new = alice.request("POST", path, {"new_version": "12"})["replacement_room"]
    eventually(
        lambda: ("m.room.tombstone", "") in bob.state(room), "the tombstone on the other side"
    )
    assert bob.content(room, "m.room.tombstone")["replacement_room"] == new
    bob.join(new, via=alice.side)
    assert bob.content(new, "m.room.create")["predecessor"]["room_id"] == room
    pair.agree(new, alice, bob)
    pair.agree(room, alice, bob)


@pytest.mark.parametrize(("first", "version"), [("ours", "12"), ("theirs", "1")])
def test_the_past_is_fetched(pair: Pair, first: str, version: str) -> None:
    """Backfill of 200 events, oldest last, none missing and none twice."""
    here, there = pair.sides(first)
    alice, bob = here.person("alice"), there.person("bob")
    room = alice.create_room(version)
    said = [alice.say(room, f"number {number}") for number in range(200)]
    bob.join(room, via=here)
    seen = [event["event_id"] for event in bob.history(room) if event["type"] == "m.room.message"]
    assert seen == said[::-1]


@pytest.mark.parametrize("version", ["6", "10", "11", "12"])
def test_a_netsplit_heals(pair: Pair, first: str, version: str) -> None:
    """Both sides change state while neither reaches the other ([A6.01], T028)."""
    alice, bob, room = together(pair, first, version)
    levels = alice.content(room, "m.room.power_levels")
    alice.set_state(
        room, "m.room.power_levels", {**levels, "users": {**levels["users"], bob.user_id: 90}}
    )
    eventually(lambda: bob.content(room, "m.room.power_levels")["users"].get(bob.user_id), "power")
    pair.agree(room, alice, bob)
    with pair.split():
        for person in (alice, bob):
            for number in range(3):
                person.say(room, f"alone {number}")
            person.set_state(room, "m.room.topic", {"topic": person.user_id})
            person.set_state(room, "m.room.name", {"name": person.user_id})
        bob.set_state(room, "m.room.join_rules", {"join_rule": "invite"})
        alice.set_state(
            room, "m.room.power_levels", {**levels, "users": {**levels["users"], bob.user_id: 0}}
        )
    alice.say(room, "back again")
    bob.say(room, "so am I")
    state = pair.agree(room, alice, bob)
    assert state == bob.state(room)


@pytest.mark.parametrize("away", ["ours", "theirs"])
def test_what_was_said_while_one_was_away_arrives(pair: Pair, away: str) -> None:
    """Long traffic while one side is down; it gets all of it, in order, without being asked."""
    alice, bob, room = together(pair, "ours" if away == "theirs" else "theirs", "12")
    pair.agree(room, alice, bob)
    with pair.down(away):
        said = [alice.say(room, f"number {number}") for number in range(120)]
        topic = alice.set_state(room, "m.room.topic", {"topic": "you missed this"})
    bob.sees(room, alice.say(room, "good to have you back"))
    assert pair.agree(room, alice, bob)["m.room.topic", ""] == topic
    seen = [event["event_id"] for event in bob.history(room) if event["type"] == "m.room.message"]
    assert seen[::-1][: len(said)] == said
