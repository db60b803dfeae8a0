"""C8: /sync."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from tests.api.conformance.house import House, User
from tests.api.conformance.requirements import requirement
from tests.api.conformance.scenarios.rooms import UNKNOWN_ROOM
from tests.api.conformance.wire import Connection

SYNC = "/v3/sync"


def filtered(**parts: Any) -> str:
    """A filter of rooms, as a parameter."""
    return json.dumps({"room": parts})


def joined(synced: Any, room: str) -> Any:
    """What an answer tells of a joined room."""
    return synced["rooms"]["join"][room]


def kinds(events: Any) -> list[str]:
    """The types of events."""
    return [event["type"] for event in events]


@requirement("C8.01", "C8.30")
def parameters(house: House) -> None:
    alice = house.user()
    filter_id = alice.good("POST", "/v3/user/{}/filter", alice.user_id, body={})["filter_id"]
    for query in ({"filter": filter_id}, {"filter": "{}"}, {"set_presence": "offline"}):
        alice.sync(**query)
    for query in ("since=x", "since=s1", "timeout=-1", "timeout=x", "full_state=1", "filter={"):
        alice.bad(400, "M_INVALID_PARAM", "GET", SYNC, query=query)
    future = alice.sync("s999999999_0", timeout="30000")  # T082: at once, with the newest position
    assert future["next_batch"] == alice.sync()["next_batch"]


@requirement("C8.02", "C8.06", "C8.07", "K.14")
def state_before_the_timeline(house: House) -> None:
    alice = house.user()
    room = alice.room(name="one")
    since = alice.sync()["next_batch"]
    alice.put_state(room, "m.room.name", {"name": "two"})
    sent = [alice.say(room) for _ in range(5)]
    alice.put_state(room, "m.room.name", {"name": "three"})
    whole = joined(alice.sync(since), room)
    assert whole["timeline"]["limited"] is False
    assert whole["state"]["events"] == []
    some = joined(alice.sync(since, filter=filtered(timeline={"limit": 3})), room)
    assert some["timeline"]["limited"] is True
    names = [event["content"]["name"] for event in some["state"]["events"]]
    assert names == ["two"]
    shown = [event["event_id"] for event in some["timeline"]["events"]]
    assert shown[:2] == sent[-2:]
    initial = joined(alice.sync(filter=filtered(timeline={"limit": 1})), room)
    names = [e["content"]["name"] for e in initial["state"]["events"] if e["type"] == "m.room.name"]
    assert names == ["two"]  # at the start of the timeline, which brings "three"


@requirement("C8.03", "K.14")
def state_after_the_timeline(house: House) -> None:
    alice = house.user()
    room = alice.room(name="one")
    since = alice.sync()["next_batch"]
    alice.put_state(room, "m.room.name", {"name": "two"})
    plain = joined(alice.sync(since, use_state_after="true"), room)
    assert "state" not in plain
    assert [event["content"] for event in plain["state_after"]["events"]] == [{"name": "two"}]
    since = alice.sync()["next_batch"]
    alice.say(room)
    nothing = joined(alice.sync(since, use_state_after="true"), room)
    assert nothing["state_after"] == {"events": []}
    unstable = {"org.matrix.msc4222.use_state_after": "true"}
    other = joined(alice.sync(since, **unstable), room)
    assert other["org.matrix.msc4222.state_after"] == {"events": []}
    assert "state" not in other
    alice.leave(room)
    left = alice.sync(since, use_state_after="true")["rooms"]["leave"][room]
    assert "state" not in left
    assert "state_after" in left


@requirement("C8.04")
def full_state(house: House) -> None:
    alice = house.user()
    room = alice.room(name="one")
    since = alice.sync()["next_batch"]
    before = time.monotonic()
    whole = joined(alice.sync(since, full_state="true", timeout="30000"), room)
    assert time.monotonic() - before < 10
    assert whole["timeline"]["events"] == []
    assert {"m.room.create", "m.room.name"} <= set(kinds(whole["state"]["events"]))


@requirement("C8.05")
def waiting(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    since = alice.sync()["next_batch"]
    before = time.monotonic()
    nothing = alice.sync(since, timeout="300")
    assert 0.25 < time.monotonic() - before < 10
    assert "rooms" not in nothing
    assert alice.sync(nothing["next_batch"])["next_batch"]
    receipt = "/v3/rooms/{}/receipt/m.read/{}"
    event = bob.say(room)
    typing, mine = {"typing": True, "timeout": 1000}, "/v3/user/{}/account_data/org.a"
    for wake in (
        lambda: bob.say(room),
        lambda: bob.good("POST", receipt, room, event, body={}),
        lambda: bob.good("PUT", "/v3/rooms/{}/typing/{}", room, bob.user_id, body=typing),
        lambda: bob.room(invite=[alice.user_id]),
        lambda: house.login(alice),  # nothing new for alice, but the next is
        lambda: alice.good("PUT", mine, alice.user_id, body={}),
    ):
        since = alice.sync()["next_batch"]
        found: list[Any] = []
        waiter = threading.Thread(target=lambda: found.append(wait(house, alice, since)))  # noqa: B023
        waiter.start()
        time.sleep(0.05)
        wake()
        if "login" in wake.__code__.co_names:
            alice.good("PUT", mine, alice.user_id, body={"n": 1})
        waiter.join(10)
        assert found, "nobody woke up"
        assert {"rooms", "account_data"} & set(found[0])


def wait(house: House, user: User, since: str) -> Any:
    """A long poll on a connection of its own."""
    connection = Connection(house.server.host, house.server.port)
    query = {"since": since, "timeout": "20000"}
    answer = connection.ask("GET", "/_matrix/client/v3/sync", token=user.token, query=query)
    connection.close()
    return answer.json


@requirement("C8.08", "C8.09")
def filters(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, other = alice.room(preset="public_chat"), alice.room()
    bob.join(room)
    alice.say(room)
    bob.send(room, "org.example.thing", {"url": "mxc://home.test/a"})
    for parts, expected in (
        ({"rooms": [room]}, {room}),
        ({"not_rooms": [room]}, {other}),
        ({"rooms": []}, set()),
        ({"rooms": [room], "not_rooms": [room]}, set()),
    ):
        found = alice.sync(filter=filtered(**parts)).get("rooms", {}).get("join", {})
        assert set(found) == expected, parts
    for parts, expected in (
        ({"types": ["m.room.message"]}, ["m.room.message"]),
        ({"types": ["org.*"]}, ["org.example.thing"]),
        ({"types": []}, []),
        ({"types": ["m.*", "org.*"], "not_types": ["m.*"]}, ["org.example.thing"]),
        ({"senders": [bob.user_id], "not_types": ["m.*"]}, ["org.example.thing"]),
        ({"not_senders": [bob.user_id], "types": ["org.*"]}, []),
        ({"contains_url": True}, ["org.example.thing"]),
        ({"rooms": [other], "types": ["m.room.message"]}, []),
        ({"limit": 1}, ["org.example.thing"]),
    ):
        part = joined(alice.sync(filter=filtered(timeline=parts)), room)
        assert kinds(part["timeline"]["events"]) == expected, parts
    none = {"account_data": {"types": []}, "presence": {"types": []}}
    assert "account_data" not in alice.sync(filter=json.dumps(none))


@requirement("C8.10")
def filters_are_ones_own(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    define, one = "/v3/user/{}/filter", "/v3/user/{}/filter/{}"
    filter_id = alice.good("POST", define, alice.user_id, body={"room": {}})["filter_id"]
    bob.bad(403, "M_FORBIDDEN", "GET", one, alice.user_id, filter_id)
    bob.bad(404, "M_NOT_FOUND", "GET", SYNC, query={"filter": filter_id + "9"})
    alice.bad(404, "M_NOT_FOUND", "GET", one, alice.user_id, "77")


@requirement("C8.11")
def projection(house: House) -> None:
    alice = house.user()
    room = alice.room()
    alice.send(room, "m.x", {"a.b": 1, "a": {"b": 2, "c": 3}})
    fields = {"event_fields": ["type", "content.a.b", "content.a\\.b"]}
    query = {"filter": json.dumps(fields)}
    part = joined(alice.ask("GET", SYNC, query=query, described=False).json, room)
    event = part["timeline"]["events"][-1]
    assert event["content"] == {"a.b": 1, "a": {"b": 2}}


@requirement("C8.12", "C8.13", "C8.14", "K.17")
def lazy_loading(house: House) -> None:
    alice, bob, carol = house.user("alice"), house.user("bob"), house.user("carol")
    room = alice.room(preset="public_chat", name="named")
    for user in (bob, carol):
        user.join(room)
    bob.say(room)
    lazy = filtered(state={"lazy_load_members": True}, timeline={"limit": 1})

    def members(synced: Any) -> set[str]:
        events = joined(synced, room)["state"]["events"]
        return {event["state_key"] for event in events if event["type"] == "m.room.member"}

    first = alice.sync(filter=lazy)
    assert members(first) >= {alice.user_id, bob.user_id}
    assert "m.room.create" in kinds(joined(first, room)["state"]["events"])
    carol.leave(room)
    bob.say(room)
    bob.say(room)
    gap = alice.sync(first["next_batch"], filter=lazy)
    assert joined(gap, room)["timeline"]["limited"] is True
    assert carol.user_id in members(gap)  # her leaving is in the gap


@requirement("C8.15")
def summaries(house: House) -> None:
    alice, bob, carol = house.user("alice"), house.user("bob"), house.user("carol")
    room = alice.room(invite=[bob.user_id])
    synced = alice.sync()
    assert joined(synced, room)["summary"] == {
        "m.heroes": [bob.user_id],
        "m.joined_member_count": 1,
        "m.invited_member_count": 1,
    }
    alice.say(room)
    synced = alice.sync(synced["next_batch"])
    assert not joined(synced, room).get("summary")
    alice.upon(room, "invite", carol)
    synced = alice.sync(synced["next_batch"])
    assert joined(synced, room)["summary"]["m.invited_member_count"] == 2
    bob.join(room)
    bob.leave(room)
    carol.leave(room)
    heroes = joined(alice.sync(), room)["summary"]["m.heroes"]
    assert set(heroes) == {bob.user_id, carol.user_id}


@requirement("C8.16", "C8.17")
def ephemeral_and_account_data(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    event = alice.say(room)
    alice.good("PUT", "/v3/user/{}/account_data/org.a", alice.user_id, body={"n": 1})
    bob.good("POST", "/v3/rooms/{}/receipt/m.read/{}", room, event, body={})
    first = alice.sync()
    assert "m.push_rules" in kinds(first["account_data"]["events"])
    assert kinds(joined(first, room)["ephemeral"]["events"]) == ["m.receipt"]
    bob.good("PUT", "/v3/rooms/{}/typing/{}", room, bob.user_id, body={"typing": True})
    second = alice.sync(first["next_batch"])
    assert kinds(joined(second, room)["ephemeral"]["events"]) == ["m.typing"]
    assert "account_data" not in second
    alice.leave(room)
    left = alice.sync(second["next_batch"])["rooms"]["leave"][room]
    assert "ephemeral" not in left


@requirement("C8.19")
def invitations(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(name="n", invite=[bob.user_id])
    events = bob.sync()["rooms"]["invite"][room]["invite_state"]["events"]
    assert {"m.room.create", "m.room.join_rules", "m.room.name"} <= set(kinds(events))
    mine = [event for event in events if event["state_key"] == bob.user_id]
    assert [event["content"]["membership"] for event in mine] == ["invite"]
    assert all(set(event) == {"type", "state_key", "sender", "content"} for event in events)


@requirement("C8.20", "C8.21")
def rooms_that_were_left(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, refused = alice.room(preset="public_chat"), alice.room(invite=[bob.user_id])
    bob.join(room)
    since = bob.sync()["next_batch"]
    seen = alice.say(room)
    bob.leave(room)
    unseen = alice.say(room)
    bob.leave(refused)
    news = bob.sync(since)
    assert set(news["rooms"]["leave"]) == {room, refused}
    events = news["rooms"]["leave"][room]["timeline"]["events"]
    assert next(event["event_id"] for event in events) == seen
    assert events[-1]["content"]["membership"] == "leave"
    assert unseen not in str(news)
    assert "rooms" not in bob.sync(news["next_batch"])
    assert "leave" not in bob.sync().get("rooms", {})
    assert room in bob.sync(filter=filtered(include_leave=True))["rooms"]["leave"]
    between = alice.room(preset="public_chat")
    bob.join(between)
    bob.leave(between)
    assert set(bob.sync(news["next_batch"])["rooms"]) == {"leave"}
    bob.join(room)
    back = joined(bob.sync(news["next_batch"]), room)
    assert "m.room.create" in kinds(back["state"]["events"] + back["timeline"]["events"])


@requirement("C8.24", "C8.25", "K.16")
def counts_of_keys(house: House) -> None:
    alice = house.user()
    for synced in (alice.sync(), alice.sync(alice.sync()["next_batch"])):
        assert synced["device_unused_fallback_key_types"] == []
        assert isinstance(synced["device_one_time_keys_count"], dict)


@requirement("C8.26")
def what_surrounds_events(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    phone = house.login(alice)
    room = alice.room(preset="public_chat", name="old")
    bob.join(room)
    since, bobs = phone.sync()["next_batch"], bob.sync()["next_batch"]
    path = "/v3/rooms/{}/send/m.room.message/mine"
    alice.good("PUT", path, room, body={"msgtype": "m.text", "body": "x"})
    alice.put_state(room, "m.room.name", {"name": "new"})
    for user, token, transaction in (
        (alice, since, "mine"),
        (phone, since, None),
        (bob, bobs, None),
    ):
        said, named = joined(user.sync(token), room)["timeline"]["events"]
        assert said["unsigned"].get("transaction_id") == transaction
        assert said["unsigned"]["membership"] == "join"
        assert said["unsigned"]["age"] >= 0
        assert named["unsigned"]["prev_content"] == {"name": "old"}
        assert named["unsigned"]["replaces_state"].startswith("$")
        assert "room_id" not in said


@requirement("C8.06")
def a_room_joined_since(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat", topic="t")
    since = bob.sync()["next_batch"]
    bob.join(room)
    part = joined(bob.sync(since, filter=filtered(timeline={"limit": 1})), room)
    assert part["timeline"]["limited"] is True
    assert {"m.room.create", "m.room.topic"} <= set(kinds(part["state"]["events"]))
    assert kinds(part["timeline"]["events"]) == ["m.room.member"]
    query = {"dir": "b", "from": part["timeline"]["prev_batch"]}
    older = bob.good("GET", "/v3/rooms/{}/messages", room, query=query)["chunk"]
    assert older[0]["type"] == "m.room.topic"
    bob.bad(403, "M_FORBIDDEN", "GET", "/v3/rooms/{}/messages", UNKNOWN_ROOM, query=query)
