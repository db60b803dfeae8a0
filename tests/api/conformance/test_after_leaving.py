"""What users read of rooms that they are not in, or not any more (T104, T105)."""

from __future__ import annotations

import pytest

MEMBERS = "/v3/rooms/{}/members"
STATE = "/v3/rooms/{}/state"
LEFT = '{"room":{"include_leave":true}}'


@pytest.fixture
def people(house):
    """Somebody with a room, and somebody else."""
    return house.user("alice"), house.user("bob")


def sections_of_left_room(user, room, since):
    for synced in (user.sync(since), user.sync(filter=LEFT)):
        yield synced["rooms"]["leave"][room]


def test_a_refused_invitation_shows_nothing_of_the_room(people):
    """T104: the timeline holds the refusal, and neither state nor counts come with it."""
    alice, bob = people
    room = alice.room(topic="a secret", invite=[bob.user_id])
    since = bob.sync()["next_batch"]
    bob.leave(room)
    for section in sections_of_left_room(bob, room, since):
        shown = section["timeline"]["events"]
        assert [event["content"] for event in shown] == [{"membership": "leave"}]
        assert section["state"]["events"] == []
        assert "summary" not in section
    leave = shown[0]["event_id"]
    around = bob.good("GET", "/v3/rooms/{}/context/{}", room, leave)
    assert around["state"] == around["events_before"] == around["events_after"] == []
    bob.bad(403, "M_FORBIDDEN", "GET", STATE, room)
    bob.bad(403, "M_FORBIDDEN", "GET", MEMBERS, room)


def test_a_ban_from_afar_shows_nothing_of_the_room(people):
    alice, bob = people
    room = alice.room(topic="a secret")
    since = bob.sync()["next_batch"]
    alice.upon(room, "ban", bob)
    for synced in (bob.sync(since), bob.sync(filter=LEFT)):
        section = synced.get("rooms", {}).get("leave", {}).get(room)
        if section is not None:
            assert section.get("state", {"events": []})["events"] == []
            assert len(section["timeline"]["events"]) <= 1
    bob.bad(403, "M_FORBIDDEN", "GET", STATE, room)


def test_who_left_and_knocks_again_sees_the_state_as_it_was_when_leaving(people):
    alice, bob = people
    rule = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    room = alice.room(initial_state=[rule], topic="before", invite=[bob.user_id])
    bob.join(room)
    bob.leave(room)
    alice.put_state(room, "m.room.topic", {"topic": "after"})
    bob.good("POST", "/v3/knock/{}", room, body={})
    assert bob.state(room, "m.room.topic")["topic"] == "before"
    since = bob.sync()["next_batch"]
    bob.leave(room)
    assert bob.state(room, "m.room.topic")["topic"] == "before"
    for section in sections_of_left_room(bob, room, since):
        topics = [e for e in section["state"]["events"] if e["type"] == "m.room.topic"]
        assert [event["content"]["topic"] for event in topics] in ([], ["before"])


def test_pages_of_old_messages_tell_nothing_newer_of_their_senders(people):
    alice, bob = people
    room = alice.room(preset="public_chat")
    bob.join(room)
    alice.say(room)
    bob.leave(room)
    name = {"displayname": "A new name"}
    alice.good("PUT", "/v3/profile/{}/displayname", alice.user_id, body=name)
    query = {"dir": "b", "filter": '{"lazy_load_members":true}'}
    page = bob.good("GET", "/v3/rooms/{}/messages", room, query=query)
    shown = {event["state_key"]: event["content"] for event in page["state"]}
    assert "displayname" not in shown[alice.user_id]


def test_a_forgotten_room_is_closed(people):
    """T104: also single events of it, and what surrounds them."""
    alice, bob = people
    room = alice.room(preset="public_chat")
    bob.join(room)
    event = alice.say(room)
    bob.leave(room)
    assert bob.good("GET", "/v3/rooms/{}/event/{}", room, event)["event_id"] == event
    bob.good("POST", "/v3/rooms/{}/forget", room)
    for path in ("/v3/rooms/{}/event/{}", "/v3/rooms/{}/context/{}", "/v1/rooms/{}/relations/{}"):
        bob.bad(404, "M_NOT_FOUND", "GET", path, room, event)
    for path in (STATE, MEMBERS, "/v1/rooms/{}/threads"):
        bob.bad(403, "M_FORBIDDEN", "GET", path, room)
    bob.bad(403, "M_FORBIDDEN", "GET", "/v3/rooms/{}/messages", room, query="dir=b")
    query = "dir=f&ts=0"
    bob.bad(403, "M_FORBIDDEN", "GET", "/v1/rooms/{}/timestamp_to_event", room, query=query)
    bob.join(room)
    assert bob.good("GET", "/v3/rooms/{}/event/{}", room, event)["event_id"] == event


def test_everybody_reads_a_world_readable_room(people):
    """[C9.01], [C9.04]: also who was never in it."""
    alice, bob = people
    history = {"type": "m.room.history_visibility"}
    history["content"] = {"history_visibility": "world_readable"}
    room = alice.room(initial_state=[history], topic="for all")
    event = alice.say(room)
    page = bob.good("GET", "/v3/rooms/{}/messages", room, query="dir=b&limit=1")
    assert page["chunk"][0]["event_id"] == event
    assert bob.good("GET", "/v3/rooms/{}/event/{}", room, event)["event_id"] == event
    assert bob.state(room, "m.room.topic")["topic"] == "for all"
    assert [e["state_key"] for e in bob.good("GET", MEMBERS, room)["chunk"]] == [alice.user_id]


def test_who_left_learns_that_something_was_redacted_and_not_why(people):
    """T105: the redaction came later; that the event is gone shows with it."""
    alice, bob = people
    room = alice.room(preset="public_chat")
    bob.join(room)
    said = alice.say(room, "to be redacted")
    bob.leave(room)
    path = "/v3/rooms/{}/redact/{}/{}"
    alice.good("PUT", path, room, said, alice.house.name("txn"), body={"reason": "a secret"})
    for who, reason in ((alice, "a secret"), (bob, None)):
        shown = who.good("GET", "/v3/rooms/{}/event/{}", room, said)
        because = shown["unsigned"]["redacted_because"]
        assert shown["content"] == {}
        assert because["content"].get("reason") == reason
        assert because["content"].get("redacts", said) == said


def test_who_was_there_before_one_came_is_history_too(people):
    """T104, [C9.07]: members at a token of before one's time are those that one came to."""
    alice, bob = people
    closed = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    room = alice.room(preset="public_chat", initial_state=[closed])
    name = {"displayname": "An old name"}
    alice.put_state(room, "m.room.member", {"membership": "join", **name}, alice.user_id)
    before = bob.sync()["next_batch"]
    own = alice.sync()["next_batch"]
    alice.put_state(room, "m.room.member", {"membership": "join"}, alice.user_id)
    bob.join(room)

    def names(user, at):
        found = user.good("GET", MEMBERS, room, query={"at": at})["chunk"]
        return {one["state_key"]: one["content"].get("displayname") for one in found}

    assert names(alice, own) == {alice.user_id: "An old name"}
    assert names(bob, before) == {alice.user_id: None}
    assert names(bob, bob.sync()["next_batch"]).keys() == {alice.user_id, bob.user_id}
