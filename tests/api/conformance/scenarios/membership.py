"""Coming, going, and being made to."""

from __future__ import annotations

from tests.api.conformance.house import House
from tests.api.conformance.scenarios import covers
from tests.api.conformance.scenarios.rooms import UNKNOWN_ROOM
from tests.api.conformance.server import SERVER_NAME

BY_MAIL = {"id_server": "id.test", "id_access_token": "t", "medium": "email", "address": "a@b.test"}


@covers("POST /v3/rooms/{roomId}/join", "POST /v3/join/{roomIdOrAlias}")
def joining(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    name = house.name("hall")
    public = alice.room(preset="public_chat", room_alias_name=name)
    private = alice.room()
    by_id, by_any = "/v3/rooms/{}/join", "/v3/join/{}"
    joined = {"room_id": public}
    assert bob.good("POST", by_any, f"#{name}:{SERVER_NAME}", body={"reason": "hello"}) == joined
    assert bob.good("POST", by_any, public, body={}, query="via=home.test&via=b.test") == joined
    assert bob.good("POST", by_id, public, body={}) == joined
    assert bob.ask("POST", by_id, public).status == 200  # some clients send no body
    for path in (by_id, by_any):
        bob.bad(403, "M_FORBIDDEN", "POST", path, private, body={})
        bob.bad(404, "M_NOT_FOUND", "POST", path, UNKNOWN_ROOM, body={})
        bob.bad(400, "M_INVALID_PARAM", "POST", path, "hall", body={})
        bob.bad(400, "M_BAD_JSON", "POST", path, public, body={"reason": 5})
    bob.bad(404, "M_NOT_FOUND", "POST", by_any, alice.alias(), body={})
    alice.upon(private, "invite", bob)
    assert bob.good("POST", by_id, private, body={}) == {"room_id": private}


@covers("POST /v3/rooms/{roomId}/invite")
def inviting(house: House) -> None:
    alice, bob, carol = house.user("alice"), house.user("bob"), house.user("carol")
    room, path = alice.room(), "/v3/rooms/{}/invite"
    alice.upon(room, "invite", bob, reason="come")
    alice.upon(room, "invite", bob)
    invited = bob.sync()["rooms"]["invite"][room]["invite_state"]["events"]
    assert {"m.room.create", "m.room.member"} <= {event["type"] for event in invited}
    body = {"user_id": carol.user_id}
    bob.bad(403, "M_FORBIDDEN", "POST", path, room, body=body)
    carol.bad(403, "M_FORBIDDEN", "POST", path, room, body=body)
    carol.bad(403, "M_FORBIDDEN", "POST", path, UNKNOWN_ROOM, body=body)
    bob.join(room)
    alice.bad(403, "M_FORBIDDEN", "POST", path, room, body={"user_id": bob.user_id})
    alice.upon(room, "ban", carol)
    alice.bad(403, "M_FORBIDDEN", "POST", path, room, body=body)
    alice.bad(400, "M_MISSING_PARAM", "POST", path, room, body={})
    alice.bad(400, "M_INVALID_PARAM", "POST", path, room, body={"user_id": "carol"})
    alice.bad(400, "M_BAD_JSON", "POST", path, room, body={"user_id": 5})
    alice.bad(400, "M_BAD_JSON", "POST", path, room, body={**body, "reason": []})
    alice.bad(403, "M_FORBIDDEN", "POST", path, room, body=BY_MAIL)


@covers("POST /v3/knock/{roomIdOrAlias}")
def knocking(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    name = house.name("door")
    rule = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    room = alice.room(initial_state=[rule], room_alias_name=name)
    path = "/v3/knock/{}"
    knocked = bob.good("POST", path, f"#{name}:{SERVER_NAME}", body={"reason": "please"})
    assert knocked == {"room_id": room}
    state = bob.sync()["rooms"]["knock"][room]["knock_state"]["events"]
    assert "m.room.create" in {event["type"] for event in state}
    bob.leave(room)
    assert bob.good("POST", path, room, body={}, query="via=home.test") == {"room_id": room}
    alice.upon(room, "invite", bob)
    bob.join(room)
    bob.bad(403, "M_FORBIDDEN", "POST", path, room, body={})
    bob.bad(403, "M_FORBIDDEN", "POST", path, alice.room(), body={})
    bob.bad(404, "M_NOT_FOUND", "POST", path, UNKNOWN_ROOM, body={})
    bob.bad(404, "M_NOT_FOUND", "POST", path, alice.alias(), body={})
    bob.bad(400, "M_INVALID_PARAM", "POST", path, "door", body={})


@covers("POST /v3/rooms/{roomId}/leave", "POST /v3/rooms/{roomId}/forget")
def leaving(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    leave, forget = "/v3/rooms/{}/leave", "/v3/rooms/{}/forget"
    bob.bad(403, "M_FORBIDDEN", "POST", leave, room, body={})
    bob.bad(400, "M_UNKNOWN", "POST", forget, room)
    bob.join(room)
    bob.bad(400, "M_UNKNOWN", "POST", forget, room)
    bob.bad(400, "M_BAD_JSON", "POST", leave, room, body={"reason": 5})
    assert bob.good("POST", leave, room, body={"reason": "tired"}) == {}
    assert bob.good("POST", leave, room, body={}) == {}
    assert bob.good("POST", forget, room) == {}
    bob.bad(403, "M_FORBIDDEN", "GET", "/v3/rooms/{}/messages", room, query="dir=b")
    for path in (leave, forget):
        bob.bad(400, "M_INVALID_PARAM", "POST", path, "hall", body={})
    bob.bad(403, "M_FORBIDDEN", "POST", leave, UNKNOWN_ROOM, body={})
    bob.bad(400, "M_UNKNOWN", "POST", forget, UNKNOWN_ROOM, body={})


@covers("POST /v3/rooms/{roomId}/kick")
def kicking(house: House) -> None:
    alice, bob, carol = house.user("alice"), house.user("bob"), house.user("carol")
    room, path = alice.room(preset="public_chat"), "/v3/rooms/{}/kick"
    body = {"user_id": bob.user_id}
    alice.bad(403, "M_FORBIDDEN", "POST", path, room, body=body)
    bob.join(room)
    carol.bad(403, "M_FORBIDDEN", "POST", path, room, body=body)
    carol.join(room)
    carol.bad(403, "M_FORBIDDEN", "POST", path, room, body=body)
    alice.upon(room, "kick", bob, reason="out")
    left = bob.sync(filter='{"room":{"include_leave":true}}')["rooms"]["leave"][room]
    assert left["timeline"]["events"][-1]["content"]["reason"] == "out"
    refused_by_name(house, path)


@covers("POST /v3/rooms/{roomId}/ban", "POST /v3/rooms/{roomId}/unban")
def banning(house: House) -> None:
    alice, bob, carol = house.user("alice"), house.user("bob"), house.user("carol")
    room, ban, unban = alice.room(preset="public_chat"), "/v3/rooms/{}/ban", "/v3/rooms/{}/unban"
    body = {"user_id": bob.user_id}
    alice.bad(403, "M_BAD_STATE", "POST", unban, room, body=body)
    bob.join(room)
    alice.bad(403, "M_BAD_STATE", "POST", unban, room, body=body)
    alice.upon(room, "ban", bob, reason="out")
    alice.upon(room, "ban", bob)
    bob.bad(403, "M_FORBIDDEN", "POST", "/v3/rooms/{}/join", room, body={})
    bob.bad(403, "M_FORBIDDEN", "POST", "/v3/rooms/{}/leave", room, body={})
    carol.join(room)
    for path in (ban, unban):
        carol.bad(403, "M_FORBIDDEN", "POST", path, room, body=body)
    refused_by_name(house, ban)
    refused_by_name(house, unban, code="M_BAD_STATE")
    alice.upon(room, "unban", bob, reason="again")
    bob.join(room)


def refused_by_name(house: House, path: str, code: str = "M_FORBIDDEN") -> None:
    """What every endpoint refuses that does something to another user."""
    alice, other = house.user("alice"), house.user()
    room = alice.room()
    alice.bad(400, "M_MISSING_PARAM", "POST", path, room, body={})
    alice.bad(400, "M_BAD_JSON", "POST", path, room, body={"user_id": 5})
    alice.bad(400, "M_INVALID_PARAM", "POST", path, room, body={"user_id": "bob"})
    body = {"user_id": other.user_id}
    alice.bad(400, "M_BAD_JSON", "POST", path, room, body={**body, "reason": 5})
    alice.bad(400, "M_INVALID_PARAM", "POST", path, "hall", body=body)
    other.bad(403, "M_FORBIDDEN", "POST", path, UNKNOWN_ROOM, body=body)
    other.bad(403, code, "POST", path, room, body={"user_id": alice.user_id})
