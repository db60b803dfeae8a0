"""Guests: accounts without a password, for rooms that are open to them."""

from __future__ import annotations

from typing import Any

from tests.api.conformance.house import PASSWORD, House, User, eventually
from tests.api.conformance.refusals import Place, targets
from tests.api.conformance.scenarios import covers
from tests.api.conformance.scenarios.accounts import DUMMY, password_login
from tests.api.conformance.server import GUESTS, GUESTS_LIMITED, SERVER_NAME

REGISTER, WHOAMI = "/v3/register", "/v3/account/whoami"
ROOM = "/_matrix/client/v3/rooms/{room_id}"
# What the specification's module lists.
LISTED = {
    f"GET {ROOM}/state",
    f"GET {ROOM}/context/{{event_id}}",
    f"GET {ROOM}/event/{{event_id}}",
    f"GET {ROOM}/state/{{event_type}}/{{state_key}}",
    f"GET {ROOM}/state/{{event_type}}",
    f"GET {ROOM}/messages",
    f"GET {ROOM}/members",
    f"GET {ROOM}/initialSync",
    "GET /_matrix/client/v3/sync",
    "GET /_matrix/client/v3/events",
    "GET /_matrix/client/v1/media/download/{server_name}/{media_id}",
    "GET /_matrix/client/v1/media/download/{server_name}/{media_id}/{file_name}",
    "GET /_matrix/client/v1/media/thumbnail/{server_name}/{media_id}",
    f"POST {ROOM}/join",
    f"POST {ROOM}/leave",
    f"PUT {ROOM}/send/{{event_type}}/{{txn_id}}",
    f"PUT {ROOM}/state/{{event_type}}/{{state_key}}",
    f"PUT {ROOM}/state/{{event_type}}",
    "PUT /_matrix/client/v3/sendToDevice/{event_type}/{txn_id}",
    "PUT /_matrix/client/v3/profile/{user_id}/{key}",
    "DELETE /_matrix/client/v3/profile/{user_id}/{key}",
    "GET /_matrix/client/v3/devices",
    "GET /_matrix/client/v3/devices/{device_id}",
    "PUT /_matrix/client/v3/devices/{device_id}",
    "GET /_matrix/client/v3/account/whoami",
    "POST /_matrix/client/v3/keys/upload",
    "POST /_matrix/client/v3/keys/query",
    "POST /_matrix/client/v3/keys/claim",
}
# What it does not list, and guests can do without it only badly.
MORE = {
    "POST /_matrix/client/v3/logout": "an account that is not wanted any more",
    "POST /_matrix/client/v3/logout/all": "likewise",
    "POST /_matrix/client/v3/join/{room_id_or_alias}": "joining, by another path",
    "POST /_matrix/client/v3/user/{user_id}/filter": "syncing needs it",
    "GET /_matrix/client/v3/user/{user_id}/filter/{filter_id}": "likewise",
    "POST /_matrix/client/v4/sync": "another form of sync",
    "POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync": "likewise",
}
DELAYED = "/unstable/org.matrix.msc4140/"
"""Delayed events: guests take part in calls."""


def guest(house: House, **body: Any) -> User:
    """A new guest."""
    return User.of(house, house.good("POST", REGISTER, body=body, query="kind=guest"))


def open_room(user: User, **more: Any) -> str:
    """A public room that lets guests in."""
    access = {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}}
    return user.room(preset="public_chat", initial_state=[access], **more)


@covers("POST /v3/register", settings=GUESTS)
def coming_as_a_guest(house: House) -> None:
    """C4.01: whatever else is asked for, a guest says only what the device is called."""
    asked = {"username": "boss", "password": PASSWORD, "device_id": "MINE", "refresh_token": True}
    made = house.good(
        "POST",
        REGISTER,
        body={**asked, "initial_device_display_name": "kiosk"},
        query="kind=guest",
    )
    assert set(made) == {"user_id", "access_token", "device_id", "home_server"}
    one = User.of(house, made)
    assert (one.localpart != "boss", one.device_id != "MINE") == (True, True)
    assert one.good("GET", WHOAMI)["is_guest"] is True
    assert one.good("GET", "/v3/devices")["devices"][0]["display_name"] == "kiosk"
    assert guest(house).user_id != one.user_id
    house.bad(403, "M_FORBIDDEN", "POST", "/v3/login", body=password_login(one.user_id, ""))
    house.bad(400, "M_BAD_JSON", "POST", REGISTER, body={"initial_device_display_name": 1},
              query="kind=guest")  # fmt: skip
    one.good("POST", "/v3/logout")
    one.bad(401, "M_UNKNOWN_TOKEN", "GET", WHOAMI)


@covers(settings=GUESTS_LIMITED)
def not_too_many_guests(house: House) -> None:
    """T096: guests come without any proof, but not by the thousand."""
    for _ in range(6):
        answer = house.ask("POST", REGISTER, body={}, query="kind=guest")
        if answer.status != 200:
            break
    assert (answer.status, answer.errcode) == (429, "M_LIMIT_EXCEEDED")


@covers(settings=GUESTS)
def what_guests_may_ask_for(house: House) -> None:
    """C11.08: every endpoint that is not for guests says so, whatever it is asked."""
    place, visitor = Place.of(house), guest(house)
    allowed = LISTED | set(MORE)
    seen = set()
    for target in targets():
        if target.route.auth.value not in ("user", "optional"):
            continue
        path = target.path({name: place.values.get(name, "x") for name in target.parameters})
        body = {"body": {}} if target.is_json else {}
        method = target.route.method
        answer = visitor.ask(method, path, described=False, **body)
        refused = (answer.status, answer.errcode) == (403, "M_GUEST_ACCESS_FORBIDDEN")
        if target.name in allowed or DELAYED in target.name:
            seen.add(target.name)
            assert target.route.guest_ok, target.name
            if target.name.endswith("logout") or target.name.endswith("logout/all"):
                visitor = guest(house)
        else:
            assert refused, (target.name, answer)
    # No endpoint is named above that is not there, but those that are not served yet.
    assert {name for name in allowed - seen if is_served(name)} == set()


def is_served(name: str) -> bool:
    """Whether there is a route of that name."""
    return name in {target.name for target in targets()}


@covers("POST /v3/rooms/{roomId}/join", settings=GUESTS)
def guests_in_rooms(house: House) -> None:
    """C11.07, C11.08."""
    alice, visitor = house.user("alice"), guest(house)
    room = open_room(alice)
    visitor.join(room)
    visitor.say(room, "good day")
    visitor.send(room, "org.example.anything", {"a": 1})
    visitor.good("GET", "/v3/rooms/{}/messages", room, query="dir=b")
    visitor.good("GET", "/v3/rooms/{}/state", room)
    visitor.good("GET", "/v3/rooms/{}/members", room)
    assert room in visitor.sync()["rooms"]["join"]
    path = "/v3/profile/{}/{}"
    mine = (path, visitor.user_id)
    assert visitor.good("PUT", *mine, "displayname", body={"displayname": "A guest"}) == {}
    assert alice.state(room, "m.room.member", visitor.user_id)["displayname"] == "A guest"
    visitor.good("DELETE", *mine, "displayname")
    for key in ("avatar_url", "org.example.key"):
        body = {key: "mxc://home.test/x"}
        visitor.bad(403, "M_GUEST_ACCESS_FORBIDDEN", "PUT", *mine, key, body=body)
        visitor.bad(403, "M_GUEST_ACCESS_FORBIDDEN", "DELETE", *mine, key)
    visitor.leave(room)

    closed = alice.room(preset="public_chat")
    private = alice.room(preset="private_chat")
    alice.upon(closed, "invite", visitor)
    for which in (closed, "!unknown:elsewhere.test"):
        for path in ("/v3/rooms/{}/join", "/v3/join/{}"):
            visitor.bad(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", path, which, body={})
    state = "/v3/rooms/{}/state/m.room.member/{}"
    body = {"membership": "join"}
    visitor.bad(403, "M_GUEST_ACCESS_FORBIDDEN", "PUT", state, closed, visitor.user_id, body=body)
    # A room that people are invited to, and which is open to guests: by the presets.
    alice.upon(private, "invite", visitor)
    visitor.join(private)


def membership(user: User, room: str, other: User) -> str:
    """What somebody is in a room."""
    return str(user.state(room, "m.room.member", other.user_id)["membership"])


@covers(settings=GUESTS)
def rooms_that_close_to_guests(house: House) -> None:
    """C11.07: who is in is put out; the household stays."""
    alice, bob = house.user("alice"), house.user("bob")
    for close in ("forbidden", "redaction", "nothing"):
        room, visitor = open_room(alice), guest(house)
        other, still_open = guest(house), open_room(alice)
        for user in (visitor, other, bob):
            user.join(room)
        since = visitor.sync()["next_batch"]
        visitor.join(still_open)
        if close == "redaction":
            access = "/v3/rooms/{}/state/m.room.guest_access"
            event = alice.good("GET", access, room, query="format=event")
            redact = "/v3/rooms/{}/redact/{}/{}"
            alice.good("PUT", redact, room, event["event_id"], house.name("t"), body={})
        else:
            content = {"guest_access": "forbidden"} if close == "forbidden" else {}
            alice.put_state(room, "m.room.guest_access", content)
        for user in (visitor, other):
            eventually(lambda user=user, room=room: membership(alice, room, user) == "leave")
            user.bad(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", "/v3/rooms/{}/join", room, body={})
        assert membership(alice, room, bob) == "join"
        assert membership(alice, still_open, visitor) == "join"
        told = visitor.ask("GET", "/v3/sync", query={"since": since}, described=False)
        assert room in told.json["rooms"]["leave"]


@covers("POST /v3/register", settings=GUESTS)
def a_guest_who_stays(house: House) -> None:
    """C11.09."""
    alice, visitor = house.user("alice"), guest(house)
    room = open_room(alice)
    visitor.join(room)
    wanted = {
        "username": visitor.localpart,
        "password": PASSWORD,
        "guest_access_token": visitor.token,
        "device_id": visitor.device_id,
    }
    for wrong in (
        {"guest_access_token": "mbx_unknown"},
        {"guest_access_token": alice.token},
        {"guest_access_token": alice.token, "username": alice.localpart},
        {"username": alice.localpart},
        {"username": house.name("another")},
    ):
        body = {**wanted, **wrong, "auth": DUMMY}
        house.bad(403, "M_FORBIDDEN", "POST", REGISTER, body=body)
    nameless = {key: wanted[key] for key in ("password", "guest_access_token")}
    house.bad(400, "M_MISSING_PARAM", "POST", REGISTER, body=nameless)
    body = {**wanted, "guest_access_token": 5}
    house.bad(400, "M_BAD_JSON", "POST", REGISTER, body=body)
    assert house.ask("POST", REGISTER, body=wanted).status == 401
    made = User.of(house, house.good("POST", REGISTER, body={**wanted, "auth": DUMMY}))
    assert (made.user_id, made.device_id) == (visitor.user_id, visitor.device_id)
    visitor.bad(401, "M_UNKNOWN_TOKEN", "GET", WHOAMI)
    assert made.good("GET", WHOAMI)["is_guest"] is False
    house.good("POST", "/v3/login", body=password_login(visitor.user_id))
    # Rooms that close to guests do not concern who is none any more.
    alice.put_state(room, "m.room.guest_access", {"guest_access": "forbidden"})
    made.say(room, "still here")
    made.room(name="of my own")
    house.bad(403, "M_FORBIDDEN", "POST", REGISTER, body={**wanted, "auth": DUMMY})
    taken = {"username": visitor.localpart, "password": PASSWORD, "auth": DUMMY}
    house.bad(400, "M_USER_IN_USE", "POST", REGISTER, body=taken)
    assert made.user_id == f"@{visitor.localpart}:{SERVER_NAME}"
