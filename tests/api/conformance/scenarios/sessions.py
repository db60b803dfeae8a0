"""Sessions that are refreshed, handed on and ended; accounts that are locked, suspended, closed."""

from __future__ import annotations

import hmac
from threading import Thread
from typing import Any

from tests.api.conformance.house import PASSWORD, SECRET, House, User, eventually
from tests.api.conformance.scenarios import covers
from tests.api.conformance.scenarios.accounts import password_login, refused_after
from tests.api.conformance.server import LIMITED, SERVER_NAME
from tests.api.conformance.wire import Connection

LOGIN, WHOAMI, REFRESH = "/v3/login", "/v3/account/whoami", "/v3/refresh"
GET_TOKEN, DEACTIVATE = "/v1/login/get_token", "/v3/account/deactivate"
LOCK, SUSPEND = "/v1/admin/lock/{}", "/v1/admin/suspend/{}"


def administrator(house: House) -> User:
    """Somebody who administers the server."""
    path = "/_synapse/admin/v1/register"
    nonce = house.ask("GET", path, described=False).json["nonce"]
    name = house.name("admin")
    message = "\0".join([nonce, name, PASSWORD, "admin"])
    mac = hmac.new(SECRET.encode(), message.encode(), "sha1").hexdigest()
    body = {"nonce": nonce, "username": name, "password": PASSWORD, "admin": True, "mac": mac}
    answer = house.ask("POST", path, body=body, described=False)
    assert answer.status == 200, answer
    return User.of(house, answer.json)


def with_token(user: User, token: str) -> User:
    """The same session with another access token."""
    return User(user.house, user.user_id, token, user.device_id)


@covers("POST /v3/refresh")
def refreshing(house: House) -> None:
    """C2.04, C2.07, C2.08, T100."""
    alice = house.user()
    made = house.good("POST", LOGIN, body=password_login(alice.user_id, refresh_token=True))
    assert made["expires_in_ms"] == 3_600_000
    phone = User.of(house, made)
    phone.good("GET", WHOAMI)
    pair = house.good("POST", REFRESH, body={"refresh_token": made["refresh_token"]})
    assert pair["expires_in_ms"] == 3_600_000
    fresh = with_token(phone, pair["access_token"])
    assert fresh.good("GET", WHOAMI)["device_id"] == phone.device_id
    # With its first use the old ones are over.
    eventually(lambda: phone.ask("GET", WHOAMI).status == 401)
    assert phone.bad(401, "M_UNKNOWN_TOKEN", "GET", WHOAMI)["soft_logout"] is True
    again = house.bad(
        401, "M_UNKNOWN_TOKEN", "POST", REFRESH, body={"refresh_token": made["refresh_token"]}
    )
    assert again["soft_logout"] is True
    # And using them ends the session; the device and its keys stay for who knows the password.
    assert fresh.bad(401, "M_UNKNOWN_TOKEN", "GET", WHOAMI)["soft_logout"] is True
    listed = alice.good("GET", "/v3/devices")["devices"]
    assert phone.device_id in {one["device_id"] for one in listed}

    unknown = house.bad(401, "M_UNKNOWN_TOKEN", "POST", REFRESH, body={"refresh_token": "x"})
    assert unknown["soft_logout"] is False
    house.bad(400, "M_MISSING_PARAM", "POST", REFRESH, body={})
    house.bad(400, "M_BAD_JSON", "POST", REFRESH, body={"refresh_token": 5})
    body = password_login(alice.user_id, refresh_token="yes")
    house.bad(400, "M_BAD_JSON", "POST", LOGIN, body=body)
    new = {
        "username": house.name("new"),
        "password": PASSWORD,
        "refresh_token": True,
        "auth": {"type": "m.login.dummy"},
    }
    assert "refresh_token" in house.good("POST", "/v3/register", body=new)


@covers("POST /v1/login/get_token", "POST /v3/login")
def signing_in_a_second_device(house: House) -> None:
    """C2.06."""
    alice = house.user()
    made = alice.with_password("POST", GET_TOKEN, body={})
    assert made["expires_in_ms"] == 120_000
    body = {"type": "m.login.token", "token": made["login_token"]}
    second = User.of(house, house.good("POST", LOGIN, body=body))
    assert (second.user_id, second.device_id != alice.device_id) == (alice.user_id, True)
    house.bad(403, "M_FORBIDDEN", "POST", LOGIN, body=body)
    house.bad(403, "M_FORBIDDEN", "POST", LOGIN, body={**body, "token": "x"})
    house.bad(400, "M_MISSING_PARAM", "POST", LOGIN, body={"type": "m.login.token"})
    # The password is asked for each time.
    assert alice.ask("POST", GET_TOKEN, body={}).status == 401
    first = alice.ask("POST", GET_TOKEN, body={}).json
    wrong = alice.password_stage(first["session"], "wrong")
    assert alice.ask("POST", GET_TOKEN, body={"auth": wrong}).status == 401
    alice.bad(400, "M_BAD_JSON", "POST", GET_TOKEN, body={"auth": 5})


@covers(settings=LIMITED)
def one_login_token_a_minute(house: House) -> None:
    """C2.06, F1.01."""
    alice = house.user_by_secret("alice")
    alice.with_password("POST", GET_TOKEN, body={})
    session = alice.ask("POST", GET_TOKEN, body={}).json["session"]
    body = {"auth": alice.password_stage(session)}
    alice.bad(429, "M_LIMIT_EXCEEDED", "POST", GET_TOKEN, body=body)
    refused_after(house, 60, "POST", REFRESH, body={"refresh_token": "x"})


@covers("POST /v3/account/deactivate")
def deactivating(house: House) -> None:
    """C4.09, T042."""
    alice, bob = house.user(), house.user()
    other = house.login(alice)
    room, invited = bob.room(preset="public_chat"), bob.room(invite=[alice.user_id])
    alice.join(room)
    made = house.good("POST", LOGIN, body=password_login(alice.user_id, refresh_token=True))
    token = alice.with_password("POST", GET_TOKEN, body={})["login_token"]
    openid = alice.good("POST", "/v3/user/{}/openid/request_token", alice.user_id, body={})
    alice.bad(400, "M_BAD_JSON", "POST", DEACTIVATE, body={"erase": "yes"})
    ended = alice.with_password("POST", DEACTIVATE, body={"erase": False})
    assert ended == {"id_server_unbind_result": "no-support"}

    for session in (alice, other, with_token(alice, made["access_token"])):
        gone = session.bad(401, "M_UNKNOWN_TOKEN", "GET", WHOAMI)
        assert gone["soft_logout"] is False
    house.bad(403, "M_USER_DEACTIVATED", "POST", LOGIN, body=password_login(alice.user_id))
    by_token = {"type": "m.login.token", "token": token}
    house.bad(403, "M_USER_DEACTIVATED", "POST", LOGIN, body=by_token)
    stale = {"refresh_token": made["refresh_token"]}
    house.bad(401, "M_UNKNOWN_TOKEN", "POST", REFRESH, body=stale)
    info = house.connection.ask(
        "GET",
        "/_matrix/federation/v1/openid/userinfo",
        query={"access_token": openid["access_token"]},
    )
    assert info.status == 401
    taken = {"username": alice.localpart, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    house.bad(400, "M_USER_IN_USE", "POST", "/v3/register", body=taken)
    for where in (room, invited):
        eventually(
            lambda where=where: (  # type: ignore[misc]
                bob.state(where, "m.room.member", alice.user_id)["membership"] == "leave"
            )
        )
    body = {"user_id": alice.user_id}
    bob.bad(404, "M_NOT_FOUND", "POST", "/v3/rooms/{}/invite", room, body=body)


@covers()
def the_last_who_administers_stays(house: House) -> None:
    """T139, as far as there is one alone; the servers of these tests may have more."""
    first, second = administrator(house), administrator(house)
    second.with_password("POST", DEACTIVATE, body={})
    first.good("GET", WHOAMI)


@covers()
def erasing(house: House) -> None:
    """C4.09, T110: who comes later gets what was said without its content."""
    alice, bob, carol = house.user(), house.user(), house.user()
    room = bob.room(preset="public_chat")
    alice.join(room)
    alice.good(
        "PUT", "/v3/profile/{}/displayname", alice.user_id, body={"displayname": "Al Marker"}
    )
    kind = "org.example.said"  # what is left of a message has not the form of a message
    said = alice.send(room, kind, {"body": "a marker"})
    changed = {"rel_type": "m.replace", "event_id": said}
    content = {"m.new_content": {"body": "another marker"}, "m.relates_to": changed}
    edited = alice.send(room, kind, content)
    alice.with_password("POST", DEACTIVATE, body={"erase": True})
    carol.join(room)
    event = "/v3/rooms/{}/event/{}"
    assert bob.good("GET", event, room, said)["content"]["body"] == "a marker"
    for one in (said, edited):
        assert carol.good("GET", event, room, one)["content"] == {}
    seen = repr(carol.good("GET", "/v3/rooms/{}/messages", room, query={"dir": "b"}))
    seen += repr(carol.good("GET", "/v3/rooms/{}/context/{}", room, said)) + repr(carol.sync())
    assert "marker" not in seen
    assert "Marker" not in seen


@covers("GET /v1/admin/lock/{userId}", "PUT /v1/admin/lock/{userId}")
def locking(house: House) -> None:
    """C6.01, C6.03, T042."""
    admin, alice = administrator(house), house.user()
    made = house.good("POST", LOGIN, body=password_login(alice.user_id, refresh_token=True))
    assert admin.good("GET", LOCK, alice.user_id) == {"locked": False}
    assert admin.good("PUT", LOCK, alice.user_id, body={"locked": True}) == {"locked": True}
    assert admin.good("GET", LOCK, alice.user_id) == {"locked": True}
    for method, path, body in (
        ("GET", WHOAMI, None),
        ("GET", "/v3/sync", None),
        ("POST", "/v3/createRoom", {}),
        ("POST", DEACTIVATE, {}),
    ):
        more: dict[str, Any] = {} if body is None else {"body": body}
        refused = alice.bad(401, "M_USER_LOCKED", method, path, described=False, **more)
        assert refused["soft_logout"] is True
    house.bad(
        401,
        "M_USER_LOCKED",
        "POST",
        LOGIN,
        body=password_login(alice.user_id),
        described=False,
    )
    house.bad(403, "M_FORBIDDEN", "POST", LOGIN, body=password_login(alice.user_id, "wrong"))
    stale = {"refresh_token": made["refresh_token"]}
    house.bad(401, "M_USER_LOCKED", "POST", REFRESH, body=stale)
    assert alice.good("POST", "/v3/logout") == {}
    assert admin.good("PUT", LOCK, alice.user_id, body={"locked": False}) == {"locked": False}
    with_token(alice, made["access_token"]).good("GET", WHOAMI)  # it had only rested
    only_administrators(house, admin, LOCK, {"locked": True})


@covers("GET /v1/admin/suspend/{userId}", "PUT /v1/admin/suspend/{userId}")
def suspending(house: House) -> None:
    """C6.02, C6.03, T042."""
    admin, alice, bob = administrator(house), house.user(), house.user()
    room, other = bob.room(preset="public_chat"), bob.room(invite=[alice.user_id])
    alice.join(room)
    said, foreign = alice.say(room), bob.say(room)
    assert admin.good("GET", SUSPEND, alice.user_id) == {"suspended": False}
    body = {"suspended": True}
    assert admin.good("PUT", SUSPEND, alice.user_id, body=body) == body
    assert admin.good("GET", SUSPEND, alice.user_id) == body
    in_room = "/v3/rooms/{}/"
    for method, path, values, sent in (
        ("POST", in_room + "join", (other,), {}),
        ("POST", "/v3/join/{}", (other,), {}),
        ("POST", "/v3/knock/{}", (other,), {}),
        ("POST", in_room + "invite", (room,), {"user_id": admin.user_id}),
        ("POST", in_room + "kick", (room,), {"user_id": bob.user_id}),
        ("PUT", in_room + "send/{}/{}", (room, "m.room.message", "t"), {"body": "x"}),
        ("PUT", in_room + "state/{}", (room, "m.room.topic"), {"topic": "x"}),
        ("PUT", in_room + "redact/{}/{}", (room, foreign, "t1"), {}),
        ("PUT", in_room + "send/{}/{}", (room, "m.room.redaction", "t2"), {"redacts": foreign}),
        ("PUT", "/v3/profile/{}/displayname", (alice.user_id,), {"displayname": "x"}),
        ("POST", "/v3/createRoom", (), {}),
    ):
        alice.bad(403, "M_USER_SUSPENDED", method, path, *values, body=sent, described=False)
    alice.sync()
    house.login(alice)
    alice.good("GET", in_room + "messages", room, query={"dir": "b"})
    alice.good("PUT", in_room + "redact/{}/{}", room, said, "t3", body={})
    alice.leave(other)
    alice.leave(room)
    assert admin.good("PUT", SUSPEND, alice.user_id, body={"suspended": False}) == {
        "suspended": False
    }
    alice.join(room)
    only_administrators(house, admin, SUSPEND, {"suspended": True})


def only_administrators(house: House, admin: User, path: str, body: dict[str, Any]) -> None:
    """C6.03: who may, and of whom."""
    alice, second = house.user(), administrator(house)
    for user in (alice.user_id, admin.user_id, "@nobody:home.test", "@a:elsewhere.test"):
        alice.bad(403, "M_FORBIDDEN", "GET", path, user)
        alice.bad(403, "M_FORBIDDEN", "PUT", path, user, body=body)
    for user in (admin.user_id, second.user_id):
        admin.good("GET", path, user)
        admin.bad(403, "M_FORBIDDEN", "PUT", path, user, body=body)
    for method, more in (("GET", {}), ("PUT", {"body": body})):
        admin.bad(404, "M_NOT_FOUND", method, path, f"@nobody:{SERVER_NAME}", **more)
        admin.bad(400, "M_INVALID_PARAM", method, path, "@a:elsewhere.test", **more)
        admin.bad(400, "M_INVALID_PARAM", method, path, "a", **more)
    admin.bad(400, "M_MISSING_PARAM", "PUT", path, alice.user_id, body={})
    unfit = dict.fromkeys(body, "yes")
    admin.bad(400, "M_BAD_JSON", "PUT", path, alice.user_id, body=unfit)


@covers()
def a_lock_ends_waiting_requests(house: House) -> None:
    """T103: within a second."""
    admin, alice = administrator(house), house.user()
    since = alice.sync()["next_batch"]
    found: list[Any] = []

    def wait() -> None:
        connection = Connection(house.server.host, house.server.port)
        path = f"/_matrix/client/v3/sync?timeout=20000&since={since}"
        found.append(connection.ask("GET", path, token=alice.token))
        connection.close()

    waiting = Thread(target=wait)
    waiting.start()
    waiting.join(0.3)
    admin.good("PUT", LOCK, alice.user_id, body={"locked": True})
    waiting.join(1.5)
    assert [answer.errcode for answer in found] == ["M_USER_LOCKED"]


@covers("GET /v3/capabilities")
def what_administrators_can_do(house: House) -> None:
    """C6.03, C7.01."""
    path = "/v3/capabilities"
    found = administrator(house).good("GET", path)["capabilities"]
    assert found["m.account_moderation"] == {"lock": True, "suspend": True}
    assert "m.account_moderation" not in house.user().good("GET", path)["capabilities"]
    assert found["m.get_login_token"] == {"enabled": True}
