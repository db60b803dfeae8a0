"""C1, C7, F: what holds for all endpoints."""

from __future__ import annotations

import json

from tests.api.conformance.house import CLIENT, House
from tests.api.conformance.requirements import requirement
from tests.api.conformance.server import BASE_URL
from tests.api.conformance.wire import segment

WHOAMI = "/v3/account/whoami"
SEND = "/v3/rooms/{}/send/{}/{}"


@requirement("C1.01")
def the_type_of_a_body_does_not_matter(house: House) -> None:
    alice = house.user()
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", ""):
        body = json.dumps({"name": kind}).encode()
        path = "/v3/user/{}/account_data/m.kind"
        alice.good("PUT", path, alice.user_id, body=body, headers={"Content-Type": kind})
        assert alice.good("GET", path, alice.user_id) == {"name": kind}


@requirement("C1.02", "C1.07")
def unknown_paths_and_methods(house: House) -> None:
    for path in ("/", "/_matrix", "/_matrix/client/v3/none", "/_matrix/client/v9/sync", "/%00"):
        house.bad(404, "M_UNRECOGNIZED", "GET", path)
    house.bad(404, "M_UNRECOGNIZED", "POST", "/_matrix/client/v3/sync/", body={})
    house.bad(405, "M_UNRECOGNIZED", "POST", "/_matrix/client/v3/sync", body={})
    house.bad(405, "M_UNRECOGNIZED", "PATCH", "/_matrix/client/v3/login", body={})


@requirement("C1.03")
def transactions_belong_to_a_device_an_endpoint_and_a_path(house: House) -> None:
    alice = house.user()
    other = house.login(alice)
    room, second = alice.room(), alice.room()
    text = {"msgtype": "m.text", "body": "x"}

    def sent(user, *where, body=text):
        return user.good("PUT", SEND, *where, body=body)["event_id"]

    first = sent(alice, room, "m.room.message", "t")
    assert sent(alice, room, "m.room.message", "t", body={}) == first
    different = {
        first,
        sent(alice, room, "m.room.message", "u"),
        sent(alice, room, "m.sticker", "t"),
        sent(alice, second, "m.room.message", "t"),
        sent(other, room, "m.room.message", "t"),
    }
    assert len(different) == 5
    redact = "/v3/rooms/{}/redact/{}/{}"
    redaction = alice.good("PUT", redact, room, first, "t", body={})["event_id"]
    assert redaction not in different
    assert alice.good("PUT", redact, room, first, "t", body={})["event_id"] == redaction
    # What failed may be tried again under the same name.
    alice.bad(400, "M_BAD_JSON", "PUT", SEND, room, "m.room.message", "v", body={"n": 1.5})
    assert sent(alice, room, "m.room.message", "v") not in different


@requirement("C1.04")
def browsers_may_ask_first(house: House) -> None:
    before = len(house.user().good("GET", "/v3/devices")["devices"])
    for path in (f"{CLIENT}/v3/createRoom", "/none", f"{CLIENT}/v3/rooms/%ff/leave"):
        answer = house.connection.ask("OPTIONS", path, headers={"Origin": "https://app.test"})
        assert answer.status == 204
        allowed = answer.headers["access-control-allow-methods"]
        assert {"PATCH", "HEAD"} <= set(allowed.split(", "))  # what unstable endpoints need
    assert before == 1


@requirement("C1.05")
def where_a_token_may_stand(house: House) -> None:
    alice = house.user()
    expected = alice.good("GET", WHOAMI)
    assert house.good("GET", WHOAMI, query={"access_token": alice.token}) == expected
    for scheme in ("bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {alice.token}"}
        assert house.good("GET", WHOAMI, headers=headers) == expected


@requirement("C1.06")
def bad_tokens(house: House) -> None:
    house.bad(401, "M_MISSING_TOKEN", "GET", WHOAMI)
    house.bad(401, "M_MISSING_TOKEN", "GET", WHOAMI, query="access_token=")
    for token in ("x", "mbx_" + 43 * "A", 7_000 * "x", "\xe9"):
        answer = house.bad(401, "M_UNKNOWN_TOKEN", "GET", WHOAMI, token=token)
        assert answer["soft_logout"] is False


@requirement("C1.08")
def versions(house: House) -> None:
    alice = house.user()
    plain = house.good("GET", "/_matrix/client/versions")
    assert plain["versions"] == ["r0.6.1", *(f"v1.{n}" for n in range(1, 20))]
    old = alice.ask("GET", "/_matrix/client/r0/account/whoami", described=False)
    assert old.json["user_id"] == alice.user_id
    assert alice.good("GET", "/_matrix/client/versions") == plain
    assert house.good("GET", "/_matrix/client/versions", token="unknown") == plain


@requirement("C1.09")
def discovery(house: House) -> None:
    found = house.good("GET", "/.well-known/matrix/client")
    assert found["m.homeserver"]["base_url"] == BASE_URL


@requirement("C1.11")
def ids_in_paths(house: House) -> None:
    alice = house.user()
    room, alias = alice.room(), alice.alias()
    alice.good("PUT", "/v3/directory/room/{}", alias, body={"room_id": room})
    for user in (alice.user_id, segment(alice.user_id), alice.user_id.replace(":", "%3a")):
        house.good("GET", f"/v3/profile/{user}", token=alice.token)
    for one in (room, segment(room)):
        alice.good("GET", f"/v3/rooms/{one}/state")
    assert house.good("GET", "/v3/directory/room/{}", alias)["room_id"] == room
    house.bad(404, "M_UNRECOGNIZED", "GET", "/v3/directory/room/")
    for key in ("plain", "a/b", "%2F", "a b+c", "\u00fc", "\U0001f600", "..."):
        alice.put_state(room, "org.example.key", {"key": key}, key)
        assert alice.state(room, "org.example.key", key) == {"key": key}
    alice.good("GET", "/v3/pushrules")
    alice.good("GET", "/v3/pushrules/")


@requirement("C1.12")
def unknown_members_are_ignored(house: House) -> None:
    alice = house.user()
    room = alice.room(**{"org.example.unknown": [1]})
    assert alice.good("POST", "/v3/rooms/{}/leave", room, body={"unheard": {}}) == {}


@requirement("C1.13")
def times_are_milliseconds(house: House) -> None:
    alice = house.user()
    room = alice.room()
    event = alice.good("GET", "/v3/rooms/{}/event/{}", room, alice.say(room))
    stamp = event["origin_server_ts"]
    assert type(stamp) is int
    assert stamp > 1_600_000_000_000
    assert type(event["unsigned"]["age"]) is int


@requirement("C7.01", "C7.02", "C7.03")
def capabilities(house: House) -> None:
    found = house.user().good("GET", "/v3/capabilities")["capabilities"]
    assert found["m.room_versions"]["available"]["1"] == "stable"
    assert found["m.change_password"]["enabled"] is True
    assert found["m.3pid_changes"]["enabled"] is False
    assert found["m.profile_fields"]["enabled"] is True
    assert found["m.set_displayname"] == found["m.set_avatar_url"] == {"enabled": True}
    assert found["m.get_login_token"]["enabled"] is True
    assert "m.account_moderation" not in found  # which means no


@requirement("F3.01", "F3.02")
def events_and_ids_have_a_size(house: House) -> None:
    alice = house.user()
    room = alice.room()
    text = {"msgtype": "m.text", "body": 64_000 * "x"}
    alice.good("PUT", SEND, room, "m.room.message", "fits", body=text)
    text["body"] += 2_000 * "x"
    alice.bad(413, "M_TOO_LARGE", "PUT", SEND, room, "m.room.message", "t", body=text)
    state = "/v3/rooms/{}/state/{}/{}"
    fits, more = 255 * "x", 256 * "x"
    alice.good("PUT", state, room, fits, fits, body={})
    alice.bad(413, "M_TOO_LARGE", "PUT", state, room, more, "", body={})
    alice.bad(413, "M_TOO_LARGE", "PUT", state, room, "m.x", more, body={})
    umlauts = 128 * "\u00fc"  # bytes count
    alice.bad(413, "M_TOO_LARGE", "PUT", state, room, "m.x", umlauts, body={})
    alice.bad(413, "M_TOO_LARGE", "PUT", SEND, room, more, "t", body={})
    for method, path in (("GET", "/v3/rooms/{}/state"), ("POST", "/v3/rooms/{}/join")):
        body = {} if method == "GET" else {"body": {}}
        alice.bad(400, "M_INVALID_PARAM", method, path, "!" + 255 * "a", **body)
    alice.bad(400, "M_INVALID_PARAM", "GET", "/v3/profile/{}", f"@{255 * 'a'}:b.test")
    alice.bad(400, "M_INVALID_PARAM", "GET", "/v3/directory/room/{}", f"#{255 * 'a'}:b.test")
    alice.bad(400, "M_INVALID_PARAM", "GET", "/v3/rooms/{}/event/{}", room, "$" + 255 * "a")


@requirement("F3.03", "F3.04", "F3.05")
def small_things_have_a_size(house: House) -> None:
    alice = house.user()
    room, mine = alice.room(), alice.user_id
    tag = "/v3/user/{}/rooms/{}/tags/{}"
    alice.good("PUT", tag, mine, room, 255 * "x", body={})
    alice.bad(400, "M_INVALID_PARAM", "PUT", tag, mine, room, 256 * "x", body={})
    alice.bad(400, "M_INVALID_PARAM", "PUT", SEND, room, "m.x", 256 * "t", body={})
    data = "/v3/user/{}/account_data/{}"
    alice.good("PUT", data, mine, "m.large", body={"x": 250_000 * "x"})
    alice.bad(413, "M_TOO_LARGE", "PUT", data, mine, "m.large", body={"x": 262_144 * "x"})
    profile = "/v3/profile/{}/{}"
    alice.good("PUT", profile, mine, "org.a", body={"org.a": 60_000 * "x"})
    body = {"org.b": 6_000 * "x"}
    alice.bad(400, "M_PROFILE_TOO_LARGE", "PUT", profile, mine, "org.b", body=body)
    assert "org.b" not in alice.good("GET", "/v3/profile/{}", mine)
    short = {"new_password": "xyz"}
    alice.bad(400, "M_WEAK_PASSWORD", "POST", "/v3/account/password", body=short)
    long = {"new_password": 513 * "x"}
    alice.bad(400, "M_WEAK_PASSWORD", "POST", "/v3/account/password", body=long)


@requirement("F4.01")
def keys_stand_once(house: House) -> None:
    alice = house.user()
    room = alice.room()
    twice = b'{"type":"m.room.message","type":"m.room.power_levels"}'
    alice.bad(400, "M_NOT_JSON", "PUT", SEND, room, "m.x", "t", body=twice)
    alice.bad(400, "M_NOT_JSON", "PUT", SEND, room, "m.x", "t", body=b'{"x":"\\ud800"}')


@requirement("F4.02")
def events_hold_integers_only(house: House) -> None:
    alice = house.user()
    for version in ("6", "12"):
        room = alice.room(room_version=version)
        for number in ("1.0", "1e3", "9007199254740992", "-9007199254740992", "1E2"):
            body = f'{{"n":[{number}]}}'.encode()
            alice.bad(400, "M_BAD_JSON", "PUT", SEND, room, "m.x", number, body=body)
            path = "/v3/rooms/{}/state/m.x/"
            alice.bad(400, "M_BAD_JSON", "PUT", path, room, body=body)
        body = b'{"n":[9007199254740991,-9007199254740991,0,-0]}'
        sent = alice.good("PUT", SEND, room, "m.x", "t", body=body)["event_id"]
        shown = alice.good("GET", "/v3/rooms/{}/event/{}", room, sent)["content"]["n"]
        assert shown == [2**53 - 1, -(2**53) + 1, 0, 0]


@requirement("F4.04")
def content_is_the_clients_own(house: House) -> None:
    alice = house.user()
    room = alice.room()
    odd = {"msgtype": 5, "body": None, "a\0b": "\u202e\U0001f600\x7f\u2028", "": {"/": [[]]}}
    sent = alice.send(room, "m.room.message", odd)
    assert alice.good("GET", "/v3/rooms/{}/event/{}", room, sent, described=False)["content"] == odd
