"""C8: what wakes /sync, whom it shows to be there, closed doors, archives; C13.08."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.api.conformance.house import House, User, eventually
from tests.api.conformance.requirements import requirement
from tests.api.conformance.requirements.encryption import published
from tests.api.conformance.requirements.syncing import filtered, joined, kinds, wait

STATUS = "/v3/presence/{}/status"
RECEIPT = "/v3/rooms/{}/receipt/m.read/{}"
DATA = "/v3/user/{}/account_data/{}"


def woken(house: House, user: User, since: str, wake: Callable[[], object]) -> Any:
    """The answer to a long poll that something ends."""
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.append(wait(house, user, since)))
    waiter.start()
    time.sleep(0.05)
    wake()
    waiter.join(10)
    assert found, "nobody woke up"
    return found[0]


def there(synced: Any) -> dict[str, str]:
    """Who is there, and how."""
    events = synced.get("presence", {}).get("events", [])
    return {event["sender"]: event["content"]["presence"] for event in events}


def told(user: User, other: User, **query: str) -> str | None:
    """How another user is, by what a first sync says."""
    return there(user.sync(set_presence="offline", **query)).get(other.user_id)


@requirement("C8.05", "C8.18")
def waiting_for_more_than_rooms(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    event = bob.say(room)
    tablet = house.login(alice)
    send = "/v3/sendToDevice/{}/{}"
    message = {"messages": {alice.user_id: {"*": {"n": 1}}}}
    since = alice.sync()["next_batch"]
    news = woken(house, alice, since, lambda: bob.good("PUT", send, "m.x", "t1", body=message))
    assert kinds(news["to_device"]["events"]) == ["m.x"]
    since = alice.sync(news["next_batch"])["next_batch"]
    news = woken(house, alice, since, lambda: published(bob))
    assert news["device_lists"]["changed"] == [bob.user_id]
    # A receipt of one's own from another device sets the counts anew in the same answer.
    before = joined(alice.sync(), room)["unread_notifications"]
    assert before["notification_count"] == 1
    since = news["next_batch"]
    news = woken(house, alice, since, lambda: tablet.good("POST", RECEIPT, room, event, body={}))
    assert joined(news, room)["unread_notifications"]["notification_count"] == 0
    since = news["next_batch"]
    body = {"presence": "unavailable", "status_msg": "away"}
    news = woken(house, alice, since, lambda: bob.good("PUT", STATUS, bob.user_id, body=body))
    assert there(news) == {bob.user_id: "unavailable"}


@requirement("C8.05", "C8.09")
def filters_decide_what_is_news(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    event = bob.say(room)
    nothing = {
        "presence": {"types": []},
        "account_data": {"types": []},
        "room": {
            "timeline": {"not_senders": [bob.user_id]},
            "state": {"types": []},
            "ephemeral": {"types": ["m.typing"]},
            "account_data": {"not_types": ["org.*"]},
        },
    }
    deaf = {"filter": json.dumps(nothing)}
    since = alice.sync(**deaf)["next_batch"]
    bob.good("PUT", STATUS, bob.user_id, body={"presence": "unavailable"})
    bob.good("POST", RECEIPT, room, event, body={})
    alice.good("PUT", DATA, alice.user_id, "org.a", body={})
    where = "/v3/user/{}/rooms/{}/account_data/{}"
    alice.good("PUT", where, alice.user_id, room, "org.a", body={})
    before = time.monotonic()
    quiet = alice.sync(since, timeout="300", **deaf)
    assert time.monotonic() - before > 0.25
    assert {"rooms", "presence", "account_data"}.isdisjoint(quiet)
    alice.good("PUT", where, alice.user_id, room, "com.b", body={})
    section = joined(alice.sync(since, **deaf), room)
    assert kinds(section["account_data"]["events"]) == ["com.b"]
    assert section["timeline"]["events"] == section["ephemeral"]["events"] == []
    bob.good("PUT", "/v3/rooms/{}/typing/{}", room, bob.user_id, body={"typing": True})
    section = joined(alice.sync(since, **deaf), room)
    assert kinds(section["ephemeral"]["events"]) == ["m.typing"]


@requirement("C8.27", "C13.08")
def who_is_there(house: House) -> None:
    alice, bob, carol = house.user("alice"), house.user("bob"), house.user("carol")
    room = alice.room(preset="public_chat")
    bob.join(room)
    bob.sync()
    eventually(lambda: told(alice, bob) == "online")
    assert bob.user_id not in there(carol.sync())
    body = {"presence": "online", "status_msg": "busy"}
    alice.good("PUT", STATUS, alice.user_id, body=body)
    eventually(lambda: told(bob, alice) == "online")
    event = next(
        event
        for event in bob.sync(set_presence="offline")["presence"]["events"]
        if event["sender"] == alice.user_id
    )
    assert event["type"] == "m.presence"
    assert event["content"]["status_msg"] == "busy"
    assert event["content"]["last_active_ago"] < 60_000
    alice.sync(set_presence="unavailable")
    eventually(lambda: told(bob, alice) == "unavailable")
    # Who is met since is shown too, and nobody who is ignored.
    since = carol.sync()["next_batch"]
    carol.join(room)
    assert alice.user_id in there(carol.sync(since))
    ignored = {"ignored_users": {alice.user_id: {}}}
    carol.good("PUT", DATA, carol.user_id, "m.ignored_user_list", body=ignored)
    assert alice.user_id not in there(carol.sync())
    only = json.dumps({"presence": {"senders": [bob.user_id]}})
    assert set(there(carol.sync(filter=only))) <= {bob.user_id}


@requirement("C8.27")
def syncing_unseen(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    bob.join(alice.room(preset="public_chat"))
    bob.good("PUT", STATUS, bob.user_id, body={"presence": "offline"})
    eventually(lambda: told(alice, bob) is None)
    since = bob.sync(set_presence="offline")["next_batch"]
    bob.sync(since, set_presence="offline", timeout="200")
    assert told(alice, bob) is None


@requirement("C8.19")
def knocking_and_hidden_invitations(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room = alice.room(name="Closed", initial_state=[rule])
    since = bob.sync()["next_batch"]
    bob.good("POST", "/v3/knock/{}", room, body={"reason": "please"})
    for synced in (bob.sync(since), bob.sync()):
        events = synced["rooms"]["knock"][room]["knock_state"]["events"]
        assert {"m.room.create", "m.room.join_rules", "m.room.name"} <= set(kinds(events))
        mine = [event for event in events if event["state_key"] == bob.user_id]
        assert [event["content"]["membership"] for event in mine] == ["knock"]
        assert {"invite", "join", "leave"}.isdisjoint(synced["rooms"])
    since = bob.sync()["next_batch"]
    assert "rooms" not in bob.sync(since)
    kind, place = bob.sync(filter=filtered(not_rooms=[room])), bob.sync(since)
    assert room not in str(kind) + str(place)
    alice.upon(room, "invite", bob)
    assert set(bob.sync(since)["rooms"]) == {"invite"}
    bob.leave(room)
    bob.good("POST", "/v3/knock/{}", room, body={})
    since = bob.sync()["next_batch"]
    alice.upon(room, "kick", bob)
    left = bob.sync(since)["rooms"]["leave"][room]
    assert left["timeline"]["events"][-1]["sender"] == alice.user_id
    assert "Closed" not in str(left)
    # All invitations are hidden from who wants none.
    block = {"default_action": "block"}
    waiting = alice.room(invite=[bob.user_id])
    assert waiting in bob.sync()["rooms"]["invite"]
    bob.good("PUT", DATA, bob.user_id, "m.invite_permission_config", body=block)
    assert "invite" not in bob.sync().get("rooms", {})


@requirement("C8.20", "C8.03", "C8.04")
def archives(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat", name="Then")
    bob.join(room)
    seen = alice.say(room, "then")
    alice.upon(room, "ban", bob, reason="enough")
    alice.put_state(room, "m.room.name", {"name": "Now"})
    unseen = alice.say(room, "now")
    everything = filtered(include_leave=True, timeline={"limit": 3})
    archive = bob.sync(filter=everything)["rooms"]["leave"][room]
    timeline = [event["event_id"] for event in archive["timeline"]["events"]]
    assert timeline[-2] == seen
    assert unseen not in timeline
    assert archive["timeline"]["limited"] is True
    names = [event for event in archive["state"]["events"] if event["type"] == "m.room.name"]
    assert [event["content"]["name"] for event in names] == ["Then"]
    assert {"ephemeral", "summary", "unread_notifications"}.isdisjoint(archive)
    after = bob.sync(filter=everything, use_state_after="true")["rooms"]["leave"][room]
    assert "state" not in after
    members = [
        event for event in after["state_after"]["events"] if event["type"] == "m.room.member"
    ]
    words = {event["state_key"]: event["content"]["membership"] for event in members}
    assert words[bob.user_id] == "ban"
    older = {"dir": "b", "from": archive["timeline"]["prev_batch"]}
    assert bob.good("GET", "/v3/rooms/{}/messages", room, query=older)["chunk"]
    # Only what is asked for by name, and nothing that was forgotten.
    since = bob.sync()["next_batch"]
    full = bob.sync(since, full_state="true", filter=everything)
    assert "leave" not in full.get("rooms", {})
    bob.good("POST", "/v3/rooms/{}/forget", room, body={})
    assert "rooms" not in bob.sync(filter=everything)


@requirement("C8.32")
def before_there_was_sync(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    first = alice.good("GET", "/v3/initialSync")
    assert [one["room_id"] for one in first["rooms"]] == [room]
    said = bob.say(room)
    query = {"from": first["end"], "timeout": "5000"}
    found = alice.ask("GET", "/v3/events", query=query).json
    assert [event["event_id"] for event in found["chunk"]] == [said]
    assert alice.good("GET", "/v3/events/{}", said)["event_id"] == said
    # One token for both ways.
    timeline = joined(alice.sync(first["end"]), room)["timeline"]["events"]
    assert [event["event_id"] for event in timeline] == [said]
