"""Events that are sent later (MSC4140), in the proposed form and in the one that calls use."""

from __future__ import annotations

from typing import Any

from tests.api.conformance.house import House, User, eventually
from tests.api.conformance.scenarios import covers

BASE = "/_matrix/client/unstable/org.matrix.msc4140"
ALL = f"{BASE}/delayed_events"
SCHEDULE = f"{BASE}/rooms/{{}}/delayed_event/{{}}/{{}}"
DELAY = "org.matrix.msc4140.delay"
SEND = "/v3/rooms/{}/send/{}/{}"
STATE = "/v3/rooms/{}/state/{}/{}"
KIND = "org.example.call"
NOT_DELAYED = """
[registration]
open = true

[limits]
rate_limits = false
password_hash_cost = "lowest"
delayed_events_per_user = 0
"""


def later(user: User, method: str, path: str, *values: str, delay: str, body: Any) -> str:
    """Ask for something later through the parameter; the identifier."""
    answer = user.ask(method, path, *values, body=body, query={DELAY: delay}, described=False)
    assert (answer.status, set(answer.json)) == (200, {"delay_id"}), answer
    return str(answer.json["delay_id"])


def waiting(user: User) -> list[Any]:
    """What is still to be sent."""
    found = user.good("GET", ALL)
    assert set(found) == {"delayed_events"}
    return list(found["delayed_events"])


def content(user: User, room: str, key: str) -> Any:
    """The content of the state, None without it."""
    answer = user.ask("GET", STATE, room, KIND, key)
    return answer.json if answer.status == 200 else None


@covers(f"GET {ALL}", f"POST {ALL}/{{delay_id}}/restart", f"GET {ALL}/{{delay_id}}")
def a_call_that_notices_who_has_gone(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    features = house.good("GET", "/_matrix/client/versions")["unstable_features"]
    assert features["org.matrix.msc4140"] is True
    limits = alice.good("GET", "/v3/capabilities")["capabilities"]
    assert limits["org.matrix.msc4140.delayed_events"] == {
        "max_delay_ms": 720 * 3_600_000,
        "max_scheduled": 100,
    }
    room = alice.room(preset="public_chat")
    bob.join(room)
    key = f"_{alice.user_id}_{alice.device_id}"
    delay_id = later(alice, "PUT", STATE, room, KIND, key, delay="700", body={})
    alice.put_state(room, KIND, {"device": "here"}, key)
    (one,) = waiting(alice)
    assert one == alice.good("GET", f"{ALL}/{{}}", delay_id)
    assert (one["delay_id"], one["room_id"], one["type"]) == (delay_id, room, KIND)
    assert (one["state_key"], one["delay"], one["delay_ms"]) == (key, 700, 700)
    assert (one["content"], one["running_since"]) == ({}, one["delayed_since_ts"])
    assert waiting(bob) == []
    # Without an account, as the server of a call does it, and with the token of the participant.
    assert house.good("POST", f"{ALL}/{{}}/restart", delay_id) == {}
    assert alice.good("POST", f"{ALL}/{{}}/restart", delay_id, body={}) == {}
    assert alice.good("POST", f"{ALL}/{{}}", delay_id, body={"action": "restart"}) == {}
    assert content(bob, room, key) == {"device": "here"}
    eventually(lambda: content(bob, room, key) == {})
    assert waiting(alice) == []
    gone = alice.good("GET", f"{ALL}/{{}}", delay_id)
    event = bob.good("GET", "/v3/rooms/{}/event/{}", room, gone["event_id"])
    assert event["sender"] == alice.user_id
    assert "org.matrix.msc4140.delay_id" not in event["unsigned"]
    event = alice.good("GET", "/v3/rooms/{}/event/{}", room, gone["event_id"])
    assert event["unsigned"]["org.matrix.msc4140.delay_id"] == delay_id


@covers(
    f"PUT {BASE}/rooms/{{room_id}}/delayed_event/{{event_type}}/{{txn_id}}",
    f"POST {ALL}/{{delay_id}}/send",
    f"POST {ALL}/{{delay_id}}/cancel",
    f"POST {ALL}/{{delay_id}}",
)
def messages_that_are_sent_later(house: House) -> None:
    alice = house.user("alice")
    room = alice.room()
    text = {"msgtype": "m.text", "body": "tea"}
    body = {"delay_ms": 3_600_000, "content": text}
    first = alice.good("PUT", SCHEDULE, room, "m.room.message", "t1", body=body)["delay_id"]
    again = alice.good("PUT", SCHEDULE, room, "m.room.message", "t1", body=body)["delay_id"]
    assert first == again
    state = {**body, "state_key": "", "content": {"topic": "tea"}}
    second = alice.good("PUT", SCHEDULE, room, "m.room.topic", "t2", body=state)["delay_id"]
    # A repeated transaction needs no body.
    values = (SEND, room, "m.room.message", "t3")
    third = later(alice, "PUT", *values, delay="7200000", body=text)
    answer = alice.ask("PUT", *values, query={DELAY: "7200000"}, described=False)
    assert answer.json == {"delay_id": third}
    assert [one["delay_id"] for one in waiting(alice)] == [first, second, third]
    assert alice.good("POST", f"{ALL}/{{}}/send", first) == {}
    assert house.good("POST", f"{ALL}/{{}}/send", first) == {}
    assert alice.good("POST", f"{ALL}/{{}}", second, body={"action": "send"}) == {}
    assert alice.state(room, "m.room.topic") == {"topic": "tea"}
    assert house.good("POST", f"{ALL}/{{}}/cancel", third) == {}
    assert alice.good("POST", f"{ALL}/{{}}/cancel", third) == {}
    assert waiting(alice) == []
    chunk = alice.good("GET", "/v3/rooms/{}/messages", room, query={"dir": "b"})["chunk"]
    assert [event["content"] for event in chunk if event["type"] == "m.room.message"] == [text]
    for action, over in (("restart", first), ("cancel", first), ("send", third)):
        house.bad(409, "M_UNKNOWN", "POST", f"{ALL}/{{}}/{action}", over)


@covers(f"POST {ALL}/{{delay_id}}/restart")
def wrong_requests_about_later_messages(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room()
    values, text = (SEND, room, "m.room.message", "t"), {"msgtype": "m.text", "body": "tea"}
    mine = later(alice, "PUT", *values, delay="60000", body=text)
    for action in ("restart", "send", "cancel"):
        house.bad(404, "M_NOT_FOUND", "POST", f"{ALL}/abc/{action}")
        bob.bad(404, "M_NOT_FOUND", "POST", f"{ALL}/{{}}/{action}", mine)
        wrong = {"token": "wrong"}
        house.bad(401, "M_UNKNOWN_TOKEN", "POST", f"{ALL}/{{}}/{action}", mine, **wrong)
    bob.bad(404, "M_NOT_FOUND", "GET", f"{ALL}/{{}}", mine)
    house.bad(404, "M_UNRECOGNIZED", "POST", f"{ALL}/abc/oops", body={})
    house.bad(400, "M_MISSING_PARAM", "POST", f"{ALL}/abc", body={})
    house.bad(400, "M_INVALID_PARAM", "POST", f"{ALL}/abc", body={"action": "oops"})
    house.bad(401, "M_MISSING_TOKEN", "GET", ALL)
    for wrong_delay in ("soon", "0", "-5", "", "1.5", "true"):
        query = {DELAY: wrong_delay}
        more = {"body": text, "query": query, "described": False}
        alice.bad(400, "M_INVALID_PARAM", "PUT", *values, **more)
        alice.bad(400, "M_INVALID_PARAM", "PUT", STATE, room, KIND, "", **more)
    too_long = {DELAY: str(720 * 3_600_000 + 1)}
    alice.bad(403, "M_FORBIDDEN", "PUT", *values, body=text, query=too_long, described=False)
    said = alice.say(room)
    path = "/v3/rooms/{}/redact/{}/{}"
    more = {"body": {}, "query": {DELAY: "5"}, "described": False}
    alice.bad(400, "M_INVALID_PARAM", "PUT", path, room, said, "r", **more)
    for status, code, body in (
        (400, "M_MISSING_PARAM", {"content": {}}),
        (400, "M_MISSING_PARAM", {"delay_ms": 5}),
        (400, "M_INVALID_PARAM", {"delay_ms": 0, "content": {}}),
        (400, "M_BAD_JSON", {"delay_ms": "5", "content": {}}),
        (400, "M_BAD_JSON", {"delay_ms": 5, "content": []}),
        (400, "M_BAD_JSON", {"delay_ms": 5, "content": {}, "state_key": 5}),
        (403, "M_FORBIDDEN", {"delay_ms": 10**12, "content": {}}),
    ):
        alice.bad(status, code, "PUT", SCHEDULE, room, KIND, "w", body=body)
    fine = {"delay_ms": 5, "content": {}}
    bob.bad(403, "M_FORBIDDEN", "PUT", SCHEDULE, room, KIND, "w", body=fine)
    assert content(alice, room, "") is None
    assert [one["delay_id"] for one in waiting(alice)] == [mine]


@covers(f"GET {ALL}", settings=NOT_DELAYED)
def a_server_that_sends_nothing_later(house: House) -> None:
    alice = house.user("alice")
    features = house.good("GET", "/_matrix/client/versions")["unstable_features"]
    assert features["org.matrix.msc4140"] is False
    capabilities = alice.good("GET", "/v3/capabilities")["capabilities"]
    assert "org.matrix.msc4140.delayed_events" not in capabilities
    room = alice.room()
    query = {"query": {DELAY: "1000"}, "described": False}
    values = (SEND, room, "m.room.message", "t")
    alice.bad(403, "M_FORBIDDEN", "PUT", *values, body={"body": "x"}, **query)
    alice.bad(403, "M_FORBIDDEN", "PUT", STATE, room, KIND, "", body={}, **query)
    body = {"delay_ms": 5, "content": {}}
    alice.bad(403, "M_FORBIDDEN", "PUT", SCHEDULE, room, KIND, "t", body=body)
    assert waiting(alice) == []
    chunk = alice.good("GET", "/v3/rooms/{}/messages", room, query={"dir": "b"})["chunk"]
    assert KIND not in {event["type"] for event in chunk}
