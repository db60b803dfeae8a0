"""Pushers, and the list of notifications."""

from __future__ import annotations

from typing import Any

from tests.api.conformance.house import House
from tests.api.conformance.scenarios import covers

URL = "https://push.invalid/_matrix/push/v1/notify"
PUSHER: dict[str, Any] = {
    "kind": "http",
    "app_id": "org.example.app",
    "pushkey": "a key",
    "app_display_name": "App",
    "device_display_name": "Phone",
    "lang": "en",
    "profile_tag": "x",
    "data": {"url": URL, "format": "event_id_only"},
}
UNFIT_URLS = (
    "http://push.invalid/_matrix/push/v1/notify",
    "https://push.invalid/",
    "https://push.invalid/_matrix/push/v1/notify/",
    "https://push.invalid/other/_matrix/push/v1/notify",
    "https://me:secret@push.invalid/_matrix/push/v1/notify",
    "https://127.0.0.1/_matrix/push/v1/notify",
    "https://[::1]/_matrix/push/v1/notify",
    "https://192.168.1.1/_matrix/push/v1/notify",
    "https://2130706433/_matrix/push/v1/notify",
    "https://0x7f.1/_matrix/push/v1/notify",
    "https://push.invalid:25/_matrix/push/v1/notify",
    "https:///_matrix/push/v1/notify",
    "ftp://push.invalid/_matrix/push/v1/notify",
    "/_matrix/push/v1/notify",
    "",
)


@covers("GET /v3/pushers", "POST /v3/pushers/set")
def pushers(house: House) -> None:
    """E.01, E.06, T131."""
    alice, bob = house.user(), house.user()
    listing, setting = "/v3/pushers", "/v3/pushers/set"
    assert alice.good("GET", listing) == {"pushers": []}
    assert alice.good("POST", setting, body=PUSHER) == {}
    assert alice.good("GET", listing) == {"pushers": [PUSHER]}
    changed = {**PUSHER, "lang": "de", "append": True}
    changed.pop("profile_tag")
    assert alice.good("POST", setting, body=changed) == {}
    (shown,) = alice.good("GET", listing)["pushers"]
    assert (shown["lang"], "profile_tag" in shown) == ("de", False)

    bob.good("POST", setting, body=changed)
    assert len(alice.good("GET", listing)["pushers"]) == 1
    bob.good("POST", setting, body=PUSHER)
    assert alice.good("GET", listing)["pushers"] == []
    gone = {"kind": None, "app_id": PUSHER["app_id"], "pushkey": PUSHER["pushkey"]}
    alice.good("POST", setting, body=gone)
    assert len(bob.good("GET", listing)["pushers"]) == 1
    bob.good("POST", setting, body=gone)
    assert bob.good("GET", listing)["pushers"] == []

    for key in (*PUSHER.keys() - {"profile_tag"},):
        rest = {name: value for name, value in PUSHER.items() if name != key}
        alice.bad(400, "M_MISSING_PARAM", "POST", setting, body=rest)
    for key in PUSHER:
        alice.bad(400, "M_BAD_JSON", "POST", setting, body={**PUSHER, key: 5})
    for url in UNFIT_URLS:
        body = {**PUSHER, "data": {"url": url}}
        alice.bad(400, "M_INVALID_PARAM", "POST", setting, body=body)
    for unfit in (
        {"data": {}},
        {"data": {"url": 5}},
        {"pushkey": "ä" * 257},
        {"pushkey": ""},
        {"app_id": "a" * 65},
        {"app_id": ""},
        {"lang": "x" * 256},
        {"kind": "email"},
        {"kind": "email", "app_id": "m.email", "pushkey": "a@example.org", "data": {}},
        {"app_id": "m.email", "data": {}},
        {"kind": "smoke"},
        {"data": {"url": URL, "more": "x" * 17_000}},
    ):
        alice.bad(400, "M_INVALID_PARAM", "POST", setting, body={**PUSHER, **unfit})
    assert alice.good("GET", listing)["pushers"] == []


@covers()
def pushers_go_with_their_device(house: House) -> None:
    """T103; E.06: a change of the password removes the pushers of all other devices."""
    alice = house.user()
    phone = house.login(alice)
    alice.good("POST", "/v3/pushers/set", body={**PUSHER, "pushkey": "desk"})
    phone.good("POST", "/v3/pushers/set", body={**PUSHER, "pushkey": "phone"})
    body: dict[str, Any] = {"new_password": "a new password", "logout_devices": False}
    alice.with_password("POST", "/v3/account/password", body=body)
    assert len(alice.good("GET", "/v3/pushers")["pushers"]) == 2
    first = alice.ask("POST", "/v3/account/password", body={"new_password": "another password"})
    auth = alice.password_stage(first.json["session"], "a new password")
    body = {"new_password": "another password", "auth": auth}
    alice.good("POST", "/v3/account/password", body=body)
    found = alice.good("GET", "/v3/pushers")["pushers"]
    assert [one["pushkey"] for one in found] == ["desk"]


@covers("GET /v3/notifications")
def notifications(house: House) -> None:
    """C14.16."""
    alice, bob = house.user(), house.user()
    room = alice.room(preset="public_chat")
    bob.join(room)
    path = "/v3/notifications"
    assert bob.good("GET", path) == {"notifications": []}
    alice.say(room, "one")
    second = alice.say(room, "two", **{"m.mentions": {"user_ids": [bob.user_id]}})
    third = alice.say(room, "three")
    bob.good("POST", "/v3/rooms/{}/receipt/m.read/{}", room, second, body={})

    newest = bob.good("GET", path, query={"limit": "1"})
    (told,) = newest["notifications"]
    assert told["event"]["event_id"] == third
    assert (told["read"], told["room_id"]) == (False, room)
    assert told["actions"] == ["notify", {"set_tweak": "sound", "value": "default"}]
    rest = bob.good("GET", path, query={"from": newest["next_token"]})
    assert [one["event"]["content"]["body"] for one in rest["notifications"]] == ["two", "one"]
    assert all(one["read"] for one in rest["notifications"])
    assert "next_token" not in rest
    (loud,) = bob.good("GET", path, query={"only": "highlight"})["notifications"]
    assert loud["event"]["event_id"] == second
    assert {"set_tweak": "highlight"} in loud["actions"]
    assert alice.good("GET", path) == {"notifications": []}

    bob.bad(400, "M_INVALID_PARAM", "GET", path, query={"from": "x"})
    bob.bad(400, "M_INVALID_PARAM", "GET", path, query={"limit": "-1"})
    bob.leave(room)
    assert bob.good("GET", path) == {"notifications": []}
