"""What clients did before `/sync`, previews of rooms, reports, and small things."""

from __future__ import annotations

import base64
import hmac
from typing import Any

from tests.api.conformance.house import SECRET, House, User, eventually
from tests.api.conformance.scenarios import covers
from tests.api.conformance.server import OPEN

EVENTS = "/v3/events"
TURNING = f"""{OPEN}
[turn]
uris = ["turn:turn.home.test?transport=udp", "turns:turn.home.test"]
shared_secret = "for the tests"
lifetime_minutes = 60
"""


def ids(events: list[Any]) -> list[str]:
    return [event["event_id"] for event in events]


def senders(events: list[Any]) -> set[str]:
    return {event["sender"] for event in events}


def listen(user: User, since: str, timeout: int = 0, **query: str) -> Any:
    """The events after a token."""
    query |= {"from": since, "timeout": str(timeout)}
    # The descriptions of the stream of all rooms and of that of one are one: it asks for a room.
    answer = user.ask("GET", EVENTS, query=query, is_good="room_id" in query)
    assert answer.status == 200, answer
    return answer.json


@covers("GET /v3/initialSync")
def a_first_look_at_everything(house: House) -> None:
    """C8.32"""
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat", name="Kitchen", visibility="public")
    bob.join(room)
    said = [bob.say(room, f"message {number}") for number in range(12)]
    where = "/v3/user/{}/rooms/{}/account_data/{}"
    alice.good("PUT", where, alice.user_id, room, "org.example", body={"a": 1})
    left, party = alice.room(name="Left"), bob.room(invite=[alice.user_id], name="Party")
    last = alice.say(left, "bye")
    alice.leave(left)
    status = "/v3/presence/{}/status"
    bob.good("PUT", status, bob.user_id, body={"presence": "online", "status_msg": "here"})
    eventually(lambda: bob.user_id in senders(alice.good("GET", "/v3/initialSync")["presence"]))
    first = alice.good("GET", "/v3/initialSync", query={"limit": "5"})
    found = {one["room_id"]: one for one in first["rooms"]}
    assert set(found) == {room, party}
    assert found[party]["membership"] == "invite"
    assert found[party]["invite"]["sender"] == bob.user_id
    assert {"state", "messages"}.isdisjoint(found[party])
    kitchen = found[room]
    assert (kitchen["membership"], kitchen["visibility"]) == ("join", "public")
    assert ids(kitchen["messages"]["chunk"]) == said[-5:]
    assert "m.room.name" in {event["type"] for event in kitchen["state"]}
    assert kitchen["account_data"] == [{"type": "org.example", "content": {"a": 1}}]
    assert bob.user_id in senders(first["presence"])
    assert "m.push_rules" in {event["type"] for event in first["account_data"]}
    page = {"dir": "b", "from": kitchen["messages"]["start"], "limit": "3"}
    older = alice.good("GET", "/v3/rooms/{}/messages", room, query=page)["chunk"]
    assert ids(older[::-1]) == said[-8:-5]
    nothing = alice.good("GET", "/v3/initialSync", query={"limit": "0"})
    assert all(not one["messages"]["chunk"] for one in nothing["rooms"] if "messages" in one)
    archive = alice.good("GET", "/v3/initialSync", query={"archived": "true"})
    found = {one["room_id"]: one for one in archive["rooms"]}
    assert found[left]["membership"] == "leave"
    assert last in ids(found[left]["messages"]["chunk"])
    assert "Left" in {event["content"].get("name") for event in found[left]["state"]}
    alice.bad(400, "M_INVALID_PARAM", "GET", "/v3/initialSync", query={"archived": "yes"})


@covers("GET /v3/events", "GET /v3/events/{eventId}")
def listening_to_events(house: House) -> None:
    """C8.32"""
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    first = alice.good("GET", "/v3/initialSync")
    quiet = listen(alice, first["end"], timeout=1)
    assert quiet["chunk"] == []
    sent = [bob.say(room, "news"), alice.put_state(room, "m.room.topic", {"topic": "t"})]
    news = listen(alice, quiet["end"], timeout=5_000)
    assert ids(news["chunk"]) == sent
    assert {event["room_id"] for event in news["chunk"]} == {room}
    again = bob.room(invite=[alice.user_id])
    (invitation,) = listen(alice, news["end"], timeout=5_000)["chunk"]
    assert (invitation["room_id"], invitation["type"]) == (again, "m.room.member")
    since = listen(alice, news["end"])["end"]
    many = [bob.say(room, f"{number}") for number in range(103)]
    found_ids = []
    while len(found_ids) < len(many):
        part = listen(alice, since)
        assert 0 < len(part["chunk"]) <= 100
        found_ids += ids(part["chunk"])
        since = part["end"]
    assert found_ids == many
    assert alice.ask("GET", EVENTS).json["chunk"] == []
    future = listen(alice, "s9999999999_0", timeout=5_000)
    assert future["chunk"] == []

    event = alice.good("GET", "/v3/events/{}", sent[0])
    assert event["content"]["body"] == "news"
    strangers = house.user("carol").room()
    secret = bob.say(bob.room(), "secret")
    for unseen in (secret, "$" + 43 * "A"):
        alice.bad(404, "M_NOT_FOUND", "GET", "/v3/events/{}", unseen)
    alice.bad(400, "M_INVALID_PARAM", "GET", EVENTS, query={"from": "yesterday"})
    alice.bad(400, "M_INVALID_PARAM", "GET", EVENTS, query={"timeout": "long"})
    alice.bad(403, "M_FORBIDDEN", "GET", EVENTS, query={"room_id": strangers})


@covers("GET /v3/rooms/{roomId}/initialSync", "GET /v3/events")
def a_preview_of_a_room(house: House) -> None:
    """C8.32, T104, T105"""
    alice, bob, carol = house.user("alice"), house.user("bob"), house.user("carol")
    open_room = [
        {
            "type": "m.room.history_visibility",
            "state_key": "",
            "content": {"history_visibility": "world_readable"},
        }
    ]
    room, closed = alice.room(initial_state=open_room), alice.room(preset="public_chat")
    said = alice.say(room, "to everybody")
    path = "/v3/rooms/{}/initialSync"
    preview = bob.good("GET", path, room)
    assert "membership" not in preview
    assert said in ids(preview["messages"]["chunk"])
    assert preview["visibility"] == "private"
    since = preview["messages"]["end"]
    more = alice.say(room, "more")
    assert ids(listen(bob, since, timeout=5_000, room_id=room)["chunk"]) == [more]
    bob.bad(403, "M_FORBIDDEN", "GET", path, closed)
    bob.bad(403, "M_FORBIDDEN", "GET", EVENTS, query={"room_id": closed})
    bob.bad(403, "M_FORBIDDEN", "GET", path, "!" + 43 * "A")
    bob.bad(403, "M_FORBIDDEN", "GET", EVENTS, query={"room_id": "!" + 43 * "A"})
    assert alice.good("GET", path, room)["membership"] == "join"
    carol.join(closed)
    before = alice.say(closed, "with Carol")
    carol.leave(closed)
    after = alice.say(closed, "without her")
    past = carol.good("GET", path, closed)
    assert past["membership"] == "leave"
    assert before in ids(past["messages"]["chunk"])
    assert after not in ids(past["messages"]["chunk"])
    assert listen(carol, since, room_id=closed)["chunk"][-1]["content"]["membership"] == "leave"
    change = {"history_visibility": "joined"}
    alice.put_state(room, "m.room.history_visibility", change)
    since = alice.sync()["next_batch"]
    alice.say(room, "between us")
    bob.bad(403, "M_FORBIDDEN", "GET", EVENTS, query={"room_id": room, "from": since})


@covers(
    "POST /v3/rooms/{roomId}/report",
    "POST /v3/rooms/{roomId}/report/{eventId}",
    "POST /v3/users/{userId}/report",
)
def reporting(house: House) -> None:
    """C18.05, T107"""
    alice, bob, carol = house.user("alice"), house.user("bob"), house.user("carol")
    room = bob.room(preset="public_chat")
    alice.join(room)
    said = bob.say(room, "something nasty")
    event, place, person = "/v3/rooms/{}/report/{}", "/v3/rooms/{}/report", "/v3/users/{}/report"
    assert alice.good("POST", event, room, said, body={"reason": "nasty", "score": -100}) == {}
    assert alice.good("POST", event, room, said, body={}) == {}
    for body in ({}, {"reason": "not in it"}):
        carol.bad(404, "M_NOT_FOUND", "POST", event, room, said, body=body)
    unknown = "$" + 43 * "A"
    alice.bad(404, "M_NOT_FOUND", "POST", event, room, unknown, body={})
    alice.bad(404, "M_NOT_FOUND", "POST", event, "!" + 43 * "A", said, body={})
    # Whether there is such a room or user is not told.
    for found in (room, "!" + 43 * "A"):
        assert carol.good("POST", place, found, body={"reason": "spam"}) == {}
    for user in (bob.user_id, "@nobody:home.test", "@nobody:else.test"):
        assert carol.good("POST", person, user, body={"reason": ""}) == {}
    for path, what in ((place, room), (person, bob.user_id)):
        carol.bad(400, "M_MISSING_PARAM", "POST", path, what, body={})
        carol.bad(400, "M_BAD_JSON", "POST", path, what, body={"reason": 5})
        carol.bad(400, "M_INVALID_PARAM", "POST", path, what, body={"reason": 2_001 * "x"})
    alice.bad(400, "M_BAD_JSON", "POST", event, room, said, body={"reason": []})
    for number in range(100):
        said = bob.say(room, f"spam {number}")
        answer = alice.ask("POST", event, room, said, body={"reason": "spam"})
    assert (answer.status, answer.errcode) == (429, "M_LIMIT_EXCEEDED")


@covers("GET /v3/voip/turnServer", settings=TURNING)
def calls_through_a_turn_server(house: House) -> None:
    """C18.03"""
    alice = house.user("alice")
    found = alice.good("GET", "/v3/voip/turnServer")
    assert found["uris"] == ["turn:turn.home.test?transport=udp", "turns:turn.home.test"]
    assert found["ttl"] == 3600
    until, _, user = found["username"].partition(":")
    assert until.isdigit()
    assert user == alice.user_id
    mac = hmac.new(SECRET.encode(), found["username"].encode(), "sha1").digest()
    assert base64.b64decode(found["password"]) == mac


@covers("GET /v3/thirdparty/protocols", "GET /v3/admin/whois/{userId}")
def small_questions(house: House) -> None:
    """C6.04, C18.03, C18.04"""
    alice, bob = house.user("alice"), house.user("bob")
    assert alice.ask("GET", "/v3/voip/turnServer", described=False).json == {}
    house.bad(401, "M_MISSING_TOKEN", "GET", "/v3/voip/turnServer")
    assert alice.good("GET", "/v3/thirdparty/protocols") == {}
    path = "/v3/admin/whois/{}"
    found = alice.good("GET", path, alice.user_id)
    assert found["user_id"] == alice.user_id
    assert set(found["devices"]) == {alice.device_id}
    for other in (bob.user_id, "@nobody:home.test", "@bob:else.test"):
        alice.bad(403, "M_FORBIDDEN", "GET", path, other)
    alice.bad(400, "M_INVALID_PARAM", "GET", path, "bob")
