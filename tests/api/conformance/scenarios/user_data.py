"""What users keep on the server: profiles, account data, tags, filters, push rules, receipts."""

from __future__ import annotations

from typing import Any

from tests.api.conformance.house import House
from tests.api.conformance.scenarios import covers
from tests.api.conformance.scenarios.events import UNKNOWN_EVENT
from tests.api.conformance.scenarios.rooms import UNKNOWN_ROOM
from tests.api.conformance.server import CLOSED, SERVER_NAME

AVATAR = "mxc://home.test/abc"


@covers("POST /v3/user/{userId}/openid/request_token")
def proving_who_one_is(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    path = "/v3/user/{}/openid/request_token"
    given = alice.good("POST", path, alice.user_id, body={})
    assert given["token_type"] == "Bearer"
    assert given["matrix_server_name"] == SERVER_NAME
    assert given["expires_in"] == 3600
    userinfo = "/_matrix/federation/v1/openid/userinfo"

    def ask(token: str) -> Any:
        return house.ask("GET", userinfo, query={"access_token": token}, described=False)

    assert ask(given["access_token"]).json == {"sub": alice.user_id}
    # Neither kind of token does for the other.
    answer = ask(alice.token)
    assert (answer.status, answer.errcode) == (401, "M_UNKNOWN_TOKEN")
    house.bad(401, "M_UNKNOWN_TOKEN", "GET", "/v3/account/whoami", token=given["access_token"])
    assert house.ask("GET", userinfo, described=False).errcode == "M_MISSING_PARAM"
    bob.bad(403, "M_FORBIDDEN", "POST", path, alice.user_id, body={})
    bob.bad(400, "M_INVALID_PARAM", "POST", path, "alice", body={})
    bob.bad(400, "M_BAD_JSON", "POST", path, bob.user_id, body=[])


@covers("GET /v3/presence/{userId}/status", "PUT /v3/presence/{userId}/status")
def presence(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    path = "/v3/presence/{}/status"
    bob.bad(403, "M_FORBIDDEN", "GET", path, alice.user_id)
    room = alice.room(preset="public_chat")
    bob.join(room)
    said = {"presence": "unavailable", "status_msg": "at the sea"}
    assert alice.good("PUT", path, alice.user_id, body=said) == {}
    for user in (alice, bob):
        seen = user.good("GET", path, alice.user_id)
        assert {key: seen[key] for key in said} == said
    told = bob.sync()["presence"]["events"]
    assert alice.user_id in {event["sender"] for event in told}
    bob.bad(403, "M_FORBIDDEN", "PUT", path, alice.user_id, body=said)
    bob.bad(400, "M_INVALID_PARAM", "PUT", path, bob.user_id, body={"presence": "asleep"})
    bob.bad(400, "M_MISSING_PARAM", "PUT", path, bob.user_id, body={})
    bob.bad(400, "M_INVALID_PARAM", "GET", path, "alice")


@covers(
    "GET /v3/profile/{userId}",
    "GET /v3/profile/{userId}/{keyName}",
    "PUT /v3/profile/{userId}/{keyName}",
    "DELETE /v3/profile/{userId}/{keyName}",
)
def profiles(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, field = alice.room(), "/v3/profile/{}/{}"
    fields = {
        "displayname": "Alice",
        "avatar_url": AVATAR,
        "m.tz": "Europe/London",
        "org.example.pets": [{"kind": "cat"}],
    }
    for key, value in fields.items():
        assert alice.good("PUT", field, alice.user_id, key, body={key: value}) == {}
        assert bob.good("GET", field, alice.user_id, key) == {key: value}
    assert bob.good("GET", "/v3/profile/{}", alice.user_id) == fields
    member = alice.state(room, "m.room.member", alice.user_id)
    assert (member["displayname"], member["avatar_url"]) == ("Alice", AVATAR)
    for key in ("avatar_url", "org.example.pets", "org.example.none"):
        assert alice.good("DELETE", field, alice.user_id, key) == {}
    assert set(bob.good("GET", "/v3/profile/{}", alice.user_id)) == {"displayname", "m.tz"}
    assert "avatar_url" not in alice.state(room, "m.room.member", alice.user_id)

    nobody = f"@nobody:{SERVER_NAME}"
    bob.bad(404, "M_NOT_FOUND", "GET", "/v3/profile/{}", nobody)
    bob.bad(404, "M_NOT_FOUND", "GET", field, nobody, "displayname")
    bob.bad(404, "M_NOT_FOUND", "GET", field, alice.user_id, "org.example.none")
    bob.bad(404, "M_NOT_FOUND", "GET", field, alice.user_id, "avatar_url")
    bob.bad(400, "M_INVALID_PARAM", "GET", "/v3/profile/{}", "alice")
    body = {"displayname": "Mallory"}
    bob.bad(403, "M_FORBIDDEN", "PUT", field, alice.user_id, "displayname", body=body)
    bob.bad(403, "M_FORBIDDEN", "DELETE", field, alice.user_id, "displayname")
    mine = alice.user_id
    alice.bad(400, "M_MISSING_PARAM", "PUT", field, mine, "m.tz", body=body)
    alice.bad(400, "M_BAD_JSON", "PUT", field, mine, "displayname", body={"displayname": 5})
    alice.bad(400, "M_BAD_JSON", "PUT", field, mine, "avatar_url", body={"avatar_url": []})
    long = "org.example." + 250 * "x"
    alice.bad(400, "M_KEY_TOO_LARGE", "PUT", field, mine, long, body={long: 1})
    alice.bad(400, "M_KEY_TOO_LARGE", "DELETE", field, mine, long)
    huge = {"org.example.huge": 66_000 * "x"}
    alice.bad(400, "M_PROFILE_TOO_LARGE", "PUT", field, mine, "org.example.huge", body=huge)
    odd = {"Not A Key": 1}
    alice.bad(400, "M_INVALID_PARAM", "PUT", field, mine, "Not A Key", body=odd)
    alice.bad(400, "M_INVALID_PARAM", "DELETE", field, mine, "Not A Key")
    # Where the directory is open to strangers, profiles are too.
    assert house.good("GET", "/v3/profile/{}", mine) == alice.good("GET", "/v3/profile/{}", mine)
    assert house.good("GET", field, mine, "displayname") == {"displayname": "Alice"}
    house.bad(404, "M_NOT_FOUND", "GET", "/v3/profile/{}", nobody)


@covers(settings=CLOSED)
def profiles_for_strangers(house: House) -> None:
    """C15.01, T094: those of people whom anybody may meet; and nothing tells who lives here."""
    alice, one, field = house.user_by_secret("alice"), "/v3/profile/{}", "/v3/profile/{}/{}"
    body = {"displayname": "Alice"}
    alice.good("PUT", field, alice.user_id, "displayname", body=body)
    alice.room()

    def assert_unknown() -> None:
        refused = [
            house.bad(403, "M_FORBIDDEN", "GET", one, user_id)
            for user_id in (alice.user_id, f"@nobody:{SERVER_NAME}", "@nobody:far.test")
        ]
        assert refused[0] == refused[1] == refused[2]
        house.bad(403, "M_FORBIDDEN", "GET", field, alice.user_id, "displayname")

    assert_unknown()
    seen = {"history_visibility": "world_readable"}
    for content in (
        {"preset": "public_chat"},
        {
            "initial_state": [
                {"type": "m.room.history_visibility", "state_key": "", "content": seen}
            ]
        },
    ):
        room = alice.room(**content)
        assert house.good("GET", one, alice.user_id) == body
        assert house.good("GET", field, alice.user_id, "displayname") == body
        house.bad(404, "M_NOT_FOUND", "GET", field, alice.user_id, "avatar_url")
        alice.leave(room)
        assert_unknown()


GLOBAL = "/v3/user/{}/account_data/{}"
FOR_ROOM = "/v3/user/{}/rooms/{}/account_data/{}"


@covers(
    "PUT /v3/user/{userId}/account_data/{type}",
    "GET /v3/user/{userId}/account_data/{type}",
    "PUT /v3/user/{userId}/rooms/{roomId}/account_data/{type}",
    "GET /v3/user/{userId}/rooms/{roomId}/account_data/{type}",
)
def account_data(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, mine, kind = alice.room(), alice.user_id, "org.example/kind of data"
    for path, where in ((GLOBAL, (mine,)), (FOR_ROOM, (mine, room))):
        alice.bad(404, "M_NOT_FOUND", "GET", path, *where, kind)
        assert alice.good("PUT", path, *where, kind, body={"n": [1.5, None]}) == {}
        assert alice.good("GET", path, *where, kind) == {"n": [1.5, None]}
        for managed in ("m.fully_read", "m.push_rules"):
            alice.bad(405, "M_BAD_JSON", "PUT", path, *where, managed, body={})
        for body in ([], "text", 5, None):
            alice.bad(400, "M_BAD_JSON", "PUT", path, *where, kind, body=body)
        bob.bad(403, "M_FORBIDDEN", "PUT", path, *where, kind, body={})
        bob.bad(403, "M_FORBIDDEN", "GET", path, *where, kind)
        bob.bad(400, "M_INVALID_PARAM", "GET", path, "bob", *where[1:], kind)
        huge = {"x": 300_000 * "x"}
        alice.bad(413, "M_TOO_LARGE", "PUT", path, *where, kind, body=huge)
    assert "global" in alice.good("GET", GLOBAL, mine, "m.push_rules")
    alice.bad(400, "M_INVALID_PARAM", "GET", FOR_ROOM, mine, "kitchen", kind)
    alice.bad(400, "M_INVALID_PARAM", "PUT", FOR_ROOM, mine, "kitchen", kind, body={})
    alice.bad(404, "M_NOT_FOUND", "GET", FOR_ROOM, mine, UNKNOWN_ROOM, kind)
    events = alice.sync()["account_data"]["events"]
    assert {"type": kind, "content": {"n": [1.5, None]}} in events


@covers(
    "GET /v3/user/{userId}/rooms/{roomId}/tags",
    "PUT /v3/user/{userId}/rooms/{roomId}/tags/{tag}",
    "DELETE /v3/user/{userId}/rooms/{roomId}/tags/{tag}",
)
def tags(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, mine = alice.room(), alice.user_id
    listed, one = "/v3/user/{}/rooms/{}/tags", "/v3/user/{}/rooms/{}/tags/{}"
    assert alice.good("GET", listed, mine, room) == {"tags": {}}
    assert alice.good("PUT", one, mine, room, "m.favourite", body={"order": 0.25}) == {}
    assert alice.good("PUT", one, mine, room, "u.work/ü", body={}) == {}
    expected = {"m.favourite": {"order": 0.25}, "u.work/ü": {}}
    assert alice.good("GET", listed, mine, room) == {"tags": expected}
    synced = alice.sync()["rooms"]["join"][room]["account_data"]["events"]
    assert {"type": "m.tag", "content": {"tags": expected}} in synced
    assert alice.good("DELETE", one, mine, room, "m.favourite") == {}
    assert alice.good("DELETE", one, mine, room, "m.favourite") == {}
    assert alice.good("GET", listed, mine, room) == {"tags": {"u.work/ü": {}}}
    bob.bad(403, "M_FORBIDDEN", "GET", listed, mine, room)
    bob.bad(403, "M_FORBIDDEN", "PUT", one, mine, room, "u.x", body={})
    bob.bad(403, "M_FORBIDDEN", "DELETE", one, mine, room, "u.x")
    for order in ("first", True, []):
        alice.bad(400, "M_BAD_JSON", "PUT", one, mine, room, "u.x", body={"order": order})
    alice.bad(400, "M_INVALID_PARAM", "PUT", one, mine, room, 300 * "x", body={})
    for method, path in (("GET", listed), ("DELETE", listed + "/u.x")):
        alice.bad(400, "M_INVALID_PARAM", method, path, mine, "kitchen")
        alice.bad(404, "M_NOT_FOUND", method, path, mine, UNKNOWN_ROOM)


@covers("POST /v3/user/{userId}/filter", "GET /v3/user/{userId}/filter/{filterId}")
def filters(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    define, one = "/v3/user/{}/filter", "/v3/user/{}/filter/{}"
    body = {
        "event_fields": ["type", "content", "sender"],
        "event_format": "client",
        "presence": {"types": ["m.presence"], "not_senders": [bob.user_id]},
        "account_data": {"limit": 5},
        "room": {
            "ephemeral": {"not_types": ["m.typing"]},
            "state": {"types": ["m.room.*"], "lazy_load_members": True},
            "timeline": {"limit": 10, "contains_url": False, "unread_thread_notifications": True},
            "include_leave": True,
            "not_rooms": [UNKNOWN_ROOM],
        },
    }
    filter_id = alice.good("POST", define, alice.user_id, body=body)["filter_id"]
    assert not filter_id.startswith("{")
    assert alice.good("GET", one, alice.user_id, filter_id) == body
    alice.sync(filter=filter_id)
    bob.bad(403, "M_FORBIDDEN", "POST", define, alice.user_id, body={})
    bob.bad(403, "M_FORBIDDEN", "GET", one, alice.user_id, filter_id)
    bob.bad(404, "M_NOT_FOUND", "GET", one, bob.user_id, filter_id)
    for unknown in ("999", "x", "-1", "1.0", "²"):
        alice.bad(404, "M_NOT_FOUND", "GET", one, alice.user_id, unknown)
    for wrong in (
        {"room": []},
        {"room": {"rooms": "x"}},
        {"room": {"rooms": ["kitchen"]}},
        {"room": {"timeline": {"limit": "x"}}},
        {"room": {"timeline": {"senders": ["bob"]}}},
        {"presence": {"types": [1]}},
        {"event_format": "xml"},
        {"event_fields": "type"},
    ):
        alice.bad(400, "M_BAD_JSON", "POST", define, alice.user_id, body=wrong)
    huge = {"event_fields": [17_000 * "x"]}
    alice.bad(413, "M_TOO_LARGE", "POST", define, alice.user_id, body=huge)


RULE = "/v3/pushrules/global/{}/{}"


@covers(
    "GET /v3/pushrules/",
    "GET /v3/pushrules/global/",
    "GET /v3/pushrules/global/{kind}/{ruleId}",
    "PUT /v3/pushrules/global/{kind}/{ruleId}",
    "DELETE /v3/pushrules/global/{kind}/{ruleId}",
    "GET /v3/pushrules/global/{kind}/{ruleId}/enabled",
    "PUT /v3/pushrules/global/{kind}/{ruleId}/enabled",
    "GET /v3/pushrules/global/{kind}/{ruleId}/actions",
    "PUT /v3/pushrules/global/{kind}/{ruleId}/actions",
)
def push_rules(house: House) -> None:
    alice = house.user("alice")
    room = alice.room()
    everything = alice.good("GET", "/v3/pushrules/")
    assert alice.good("GET", "/v3/pushrules/global/") == everything["global"]
    condition = {"kind": "event_match", "key": "type", "pattern": "m.room.message"}
    rules = {
        ("override", "over"): {"actions": ["notify"], "conditions": [condition]},
        ("underride", "under"): {"actions": [], "conditions": []},
        ("content", "cake"): {"actions": ["notify"], "pattern": "cake"},
        ("room", room): {"actions": [{"set_tweak": "sound", "value": "default"}]},
        ("sender", alice.user_id): {"actions": ["notify", {"set_tweak": "highlight"}]},
    }
    for (kind, rule_id), body in rules.items():
        assert alice.good("PUT", RULE, kind, rule_id, body=body) == {}
        shown = alice.good("GET", RULE, kind, rule_id)
        assert shown == {**body, "rule_id": rule_id, "default": False, "enabled": True}
        enabled, actions = RULE + "/enabled", RULE + "/actions"
        assert alice.good("PUT", enabled, kind, rule_id, body={"enabled": False}) == {}
        assert alice.good("GET", enabled, kind, rule_id) == {"enabled": False}
        assert alice.good("PUT", actions, kind, rule_id, body={"actions": ["notify"]}) == {}
        assert alice.good("GET", actions, kind, rule_id) == {"actions": ["notify"]}
    second = {"actions": [], "pattern": "tea"}
    alice.good("PUT", RULE, "content", "tea", body=second, query="after=cake")
    alice.good("PUT", RULE, "content", "milk", body=second, query="before=tea")
    listed = [rule["rule_id"] for rule in alice.good("GET", "/v3/pushrules/global/")["content"]]
    assert listed == ["cake", "milk", "tea"]
    master = ("override", ".m.rule.master")
    alice.good("PUT", RULE + "/enabled", *master, body={"enabled": True})
    assert alice.good("GET", RULE, *master)["enabled"] is True
    for kind, rule_id in rules:
        assert alice.good("DELETE", RULE, kind, rule_id) == {}

    for path, bodies in {
        RULE: {"GET": {}, "DELETE": {}},
        RULE + "/enabled": {"GET": {}, "PUT": {"body": {"enabled": True}}},
        RULE + "/actions": {"GET": {}, "PUT": {"body": {"actions": []}}},
    }.items():
        for method, body in bodies.items():
            alice.bad(404, "M_NOT_FOUND", method, path, "override", "none", **body)
            alice.bad(400, "M_INVALID_PARAM", method, path, "strange", "none", **body)
    content = ("content", "bad")
    for body in (
        {},
        {"actions": []},
        {"pattern": "x"},
        {"actions": "notify", "pattern": "x"},
        {"actions": ["shout"], "pattern": "x"},
        {"actions": [{"set_tweak": 5}], "pattern": "x"},
        {"actions": [], "pattern": 5},
    ):
        alice.bad(400, "M_BAD_JSON", "PUT", RULE, *content, body=body)
    for body in ({"actions": [], "conditions": "x"}, {"actions": [], "conditions": [{}]}):
        alice.bad(400, "M_BAD_JSON", "PUT", RULE, "override", "bad", body=body)
    for rule_id in (".dotted", "a/b", "a\\b"):
        body = {"actions": [], "pattern": "x"}
        alice.bad(400, "M_INVALID_PARAM", "PUT", RULE, "content", rule_id, body=body)
    for kind in ("room", "sender"):
        alice.bad(400, "M_INVALID_PARAM", "PUT", RULE, kind, "somebody", body={"actions": []})
    alice.bad(400, "M_UNKNOWN", "PUT", RULE, *content, body=second, query="before=none")
    alice.bad(400, "M_MISSING_PARAM", "PUT", RULE + "/enabled", *master, body={})
    alice.bad(400, "M_BAD_JSON", "PUT", RULE + "/enabled", *master, body={"enabled": 1})
    alice.bad(400, "M_MISSING_PARAM", "PUT", RULE + "/actions", *master, body={})
    alice.bad(400, "M_BAD_JSON", "PUT", RULE + "/actions", *master, body={"actions": ["shout"]})


@covers(
    "POST /v3/rooms/{roomId}/receipt/{receiptType}/{eventId}",
    "POST /v3/rooms/{roomId}/read_markers",
)
def receipts(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    event, later = alice.say(room), alice.say(room)
    path, markers = "/v3/rooms/{}/receipt/{}/{}", "/v3/rooms/{}/read_markers"
    since = bob.sync()["next_batch"]
    assert bob.good("POST", path, room, "m.read", event, body={"thread_id": "main"}) == {}
    assert bob.good("POST", path, room, "m.read.private", event, body={}) == {}
    assert bob.good("POST", path, room, "m.fully_read", event, body={}) == {}
    assert bob.ask("POST", path, room, "m.read", event).status == 200
    body = {"m.fully_read": later, "m.read": later, "m.read.private": later}
    assert bob.good("POST", markers, room, body=body) == {}
    assert bob.good("POST", markers, room, body={}) == {}
    synced = bob.sync(since)["rooms"]["join"][room]
    receipt = synced["ephemeral"]["events"][0]["content"]
    assert bob.user_id in receipt[later]["m.read"]
    assert bob.user_id in receipt[later]["m.read.private"]
    marked = {"type": "m.fully_read", "content": {"event_id": later}}
    assert marked in synced["account_data"]["events"]

    bob.bad(400, "M_INVALID_PARAM", "POST", path, room, "m.unheard", event, body={})
    bob.bad(400, "M_INVALID_PARAM", "POST", path, room, "m.read", "one", body={})
    for thread in ("", 5, ["x"], later):  # null: what matrix-nio sends for none
        body = {"thread_id": thread}
        bob.bad(400, "M_INVALID_PARAM", "POST", path, room, "m.read", event, body=body)
    body = {"thread_id": "main"}
    bob.bad(400, "M_INVALID_PARAM", "POST", path, room, "m.fully_read", event, body=body)
    bob.bad(404, "M_NOT_FOUND", "POST", path, room, "m.read", UNKNOWN_EVENT, body={})
    bob.bad(400, "M_BAD_JSON", "POST", markers, room, body={"m.read": 5})
    bob.bad(400, "M_INVALID_PARAM", "POST", markers, room, body={"m.read": "one"})
    stranger = house.user()
    stranger.bad(403, "M_FORBIDDEN", "POST", path, room, "m.read", event, body={})
    stranger.bad(403, "M_FORBIDDEN", "POST", markers, room, body={"m.read": event})
    stranger.bad(403, "M_FORBIDDEN", "POST", path, UNKNOWN_ROOM, "m.read", event, body={})


@covers("PUT /v3/rooms/{roomId}/typing/{userId}")
def typing(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, path = alice.room(preset="public_chat"), "/v3/rooms/{}/typing/{}"
    bob.join(room)
    since = alice.sync()["next_batch"]
    body = {"typing": True, "timeout": 20_000}
    assert bob.good("PUT", path, room, bob.user_id, body=body) == {}
    shown = alice.sync(since, timeout="5000")["rooms"]["join"][room]["ephemeral"]["events"]
    assert shown == [{"type": "m.typing", "content": {"user_ids": [bob.user_id]}}]
    assert bob.good("PUT", path, room, bob.user_id, body={"typing": False}) == {}
    bob.bad(403, "M_FORBIDDEN", "PUT", path, room, alice.user_id, body=body)
    bob.bad(400, "M_MISSING_PARAM", "PUT", path, room, bob.user_id, body={})
    bob.bad(400, "M_BAD_JSON", "PUT", path, room, bob.user_id, body={"typing": "yes"})
    wrong = {"typing": True, "timeout": "long"}
    bob.bad(400, "M_BAD_JSON", "PUT", path, room, bob.user_id, body=wrong)
    stranger = house.user()
    stranger.bad(403, "M_FORBIDDEN", "PUT", path, room, stranger.user_id, body=body)
    stranger.bad(403, "M_FORBIDDEN", "PUT", path, UNKNOWN_ROOM, stranger.user_id, body=body)
    stranger.bad(400, "M_INVALID_PARAM", "PUT", path, room, "stranger", body=body)
