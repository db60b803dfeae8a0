"""Syncing, in every kind of room and with every parameter."""

from __future__ import annotations

import json
from typing import Any

from tests.api.conformance.house import House
from tests.api.conformance.scenarios import covers


def timeline(synced: Any, room: str, group: str = "join") -> list[str]:
    """The ids of the events in a room's timeline."""
    events = synced["rooms"][group][room]["timeline"]["events"]
    return [event["event_id"] for event in events]


@covers("GET /v3/sync")
def syncing(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    first = alice.sync()
    assert alice.sync(first["next_batch"], timeout="1")["next_batch"]
    room = alice.room(preset="public_chat", topic="all")
    bob.join(room)
    since = alice.sync(first["next_batch"], set_presence="unavailable")["next_batch"]
    alice.put_state(room, "m.room.name", {"name": "Kitchen"})
    sent = [bob.say(room, f"message {number}") for number in range(15)]
    bob.good("POST", "/v3/rooms/{}/receipt/m.read/{}", room, sent[-1], body={})

    counts = alice.sync(since)["rooms"]["join"][room]["unread_notifications"]
    assert counts == {"notification_count": 15, "highlight_count": 0}
    alice.put_state(room, "m.room.avatar", {"url": "mxc://home.test/abc"})
    limited = alice.sync(since, filter='{"room":{"timeline":{"limit":5}}}')
    part = limited["rooms"]["join"][room]
    assert part["timeline"]["limited"] is True
    assert [event["type"] for event in part["state"]["events"]] == ["m.room.name"]
    gap = {"dir": "b", "from": part["timeline"]["prev_batch"], "to": since, "limit": "50"}
    missed = alice.good("GET", "/v3/rooms/{}/messages", room, query=gap)["chunk"]
    found = [event["event_id"] for event in missed[::-1]] + timeline(limited, room)
    assert [event_id for event_id in found if event_id in sent] == sent

    none = '{"room":{"timeline":{"limit":0}}}'  # no event: then all changes are in the state
    part = alice.sync(since, filter=none)["rooms"]["join"][room]
    assert (part["timeline"]["events"], part["timeline"]["limited"]) == ([], True)
    assert {event["type"] for event in part["state"]["events"]} == {"m.room.name", "m.room.avatar"}
    gap["from"] = part["timeline"]["prev_batch"]
    missed = alice.good("GET", "/v3/rooms/{}/messages", room, query=gap)["chunk"]
    assert [event["event_id"] for event in missed[::-1] if event["event_id"] in sent] == sent

    after = alice.sync(since, use_state_after="true", filter='{"room":{"timeline":{"limit":5}}}')
    part = after["rooms"]["join"][room]
    kinds = {event["type"] for event in part["state_after"]["events"]}
    assert kinds == {"m.room.name", "m.room.avatar"}
    assert "state" not in part
    unstable = {"org.matrix.msc4222.use_state_after": "true"}
    part = alice.sync(since, **unstable)["rooms"]["join"][room]
    assert "org.matrix.msc4222.state_after" in part
    full = alice.sync(alice.sync(since)["next_batch"], full_state="true", timeout="30000")
    assert len(full["rooms"]["join"][room]["state"]["events"]) > 5

    for query in (
        {"since": "yesterday"},
        {"timeout": "long"},
        {"full_state": "perhaps"},
        {"set_presence": "asleep"},
        {"filter": "{"},
        {"filter": '{"room":[]}'},
        {"use_state_after": "1"},
    ):
        alice.bad(400, "M_INVALID_PARAM", "GET", "/v3/sync", query=query)
    alice.bad(404, "M_NOT_FOUND", "GET", "/v3/sync", query="filter=999")


@covers("GET /v3/sync")
def every_kind_of_room_and_event(house: House) -> None:
    alice, bob, carol = house.user("alice"), house.user("bob"), house.user("carol")
    left, banned, kicked = (alice.room(preset="public_chat") for _ in range(3))
    invited, refused = alice.room(invite=[bob.user_id]), alice.room(invite=[bob.user_id])
    rule = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    knocked = alice.room(initial_state=[rule])
    rooms = [alice.room(room_version=version) for version in ("1", "6", "10", "11")]
    since = bob.sync()["next_batch"]
    for room in (left, banned, kicked):
        bob.join(room)
    bob.leave(left)
    alice.upon(banned, "ban", bob)
    alice.upon(kicked, "kick", bob)
    bob.leave(refused)
    bob.good("POST", "/v3/knock/{}", knocked, body={})
    for room in rooms:
        alice.upon(room, "invite", bob)
        bob.join(room)
        redacted = alice.say(room)
        alice.good("PUT", "/v3/rooms/{}/redact/{}/{}", room, redacted, "t", body={})
        alice.upon(room, "invite", carol)
    many_kinds(house, rooms[-1], alice)
    everything = '{"room":{"include_leave":true,"timeline":{"limit":50}}}'
    for synced in (bob.sync(filter=everything), bob.sync(since)):
        groups = synced["rooms"]
        assert set(rooms) == set(groups["join"])
        assert {left, banned, kicked, refused} == set(groups["leave"])
        assert set(groups["knock"]) == {knocked}
    assert set(bob.sync()["rooms"]["invite"]) == {invited}
    none = '{"room":{"include_leave":true,"timeline":{"limit":0}}}'
    over = bob.sync(filter=none)["rooms"]["leave"]
    for part in (over[left], over[banned], over[kicked]):
        (own,) = [one for one in part["state"]["events"] if one["state_key"] == bob.user_id]
        assert own["content"]["membership"] in ("leave", "ban")
        assert part["timeline"]["events"] == []
    assert "leave" not in bob.sync()["rooms"]
    federation = json.dumps({"event_format": "federation", "room": {"timeline": {"limit": 1}}})
    whole = bob.ask("GET", "/v3/sync", query={"filter": federation}, described=False).json
    event = whole["rooms"]["join"][rooms[0]]["timeline"]["events"][0]
    assert {"hashes", "signatures", "auth_events", "depth"} <= set(event)
    projection = {"filter": '{"event_fields":["type","content.body"]}'}
    small = bob.ask("GET", "/v3/sync", query=projection, described=False).json
    event = small["rooms"]["join"][rooms[0]]["timeline"]["events"][0]
    assert "type" in event
    assert "sender" not in event


def many_kinds(house: House, room: str, alice: Any) -> None:
    """State and messages of the common types, so that their shape is looked at."""
    alias = alice.alias()
    alice.good("PUT", "/v3/directory/room/{}", alias, body={"room_id": room})
    for kind, content in {
        "m.room.canonical_alias": {"alias": alias, "alt_aliases": [alias]},
        "m.room.pinned_events": {"pinned": [alice.say(room)]},
        "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2"},
        "m.room.server_acl": {"allow": ["*"], "deny": ["evil.test"], "allow_ip_literals": False},
        "m.room.guest_access": {"guest_access": "forbidden"},
        "m.room.history_visibility": {"history_visibility": "invited"},
        "m.room.topic": {"topic": "other"},
    }.items():
        alice.put_state(room, kind, content)
    alice.put_state(room, "m.space.child", {"via": ["home.test"]}, room)
    sizes = {"w": 1, "h": 1, "size": 1, "mimetype": "image/png"}
    image = {"msgtype": "m.image", "body": "i", "url": "mxc://home.test/abc", "info": sizes}
    alice.send(room, "m.room.message", image)
    alice.send(room, "m.room.message", {"msgtype": "m.notice", "body": "hear"})
    alice.send(room, "m.sticker", {"body": "s", "url": "mxc://home.test/abc", "info": sizes})
