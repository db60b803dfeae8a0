"""Versions and discovery; accounts, sessions, devices."""

from __future__ import annotations

import re
from typing import Any

from tests.api.conformance.house import PASSWORD, House, User
from tests.api.conformance.scenarios import covers
from tests.api.conformance.server import (
    BASE_URL,
    CLOSED,
    CLOSED_AND_LIMITED,
    LIMITED,
    SERVER_NAME,
)

DUMMY = {"type": "m.login.dummy"}


def password_login(user: str, password: str = PASSWORD, **more: object) -> dict[str, object]:
    """The body of a login with a password."""
    identifier = {"type": "m.id.user", "user": user}
    return {"type": "m.login.password", "identifier": identifier, "password": password, **more}


@covers("GET /_matrix/client/versions", "GET /.well-known/matrix/client")
def what_the_server_is(house: House) -> None:
    versions = house.good("GET", "/_matrix/client/versions")
    assert {"v1.1", "v1.19"} <= set(versions["versions"])
    found = house.good("GET", "/.well-known/matrix/client")
    assert found == {"m.homeserver": {"base_url": BASE_URL}}
    house.bad(405, "M_UNRECOGNIZED", "POST", "/_matrix/client/versions", body={})
    house.bad(405, "M_UNRECOGNIZED", "DELETE", "/.well-known/matrix/client")


@covers("GET /.well-known/matrix/support")
def whom_to_ask(house: House) -> None:
    """C1.10."""
    found = house.good("GET", "/.well-known/matrix/support")
    security = {"matrix_id": "@ann:home.test", "email_address": "security@home.test"}
    assert found == {
        "support_page": "https://home.test/help",
        "contacts": [
            {"role": "m.role.admin", "matrix_id": "@ann:home.test"},
            {"role": "m.role.security", **security},
        ],
    }


@covers(settings=CLOSED)
def nobody_to_ask(house: House) -> None:
    """C1.10: a document without contacts and page is not allowed."""
    house.bad(404, "M_NOT_FOUND", "GET", "/.well-known/matrix/support")


@covers("GET /v3/capabilities")
def what_the_server_can_do(house: House) -> None:
    found = house.user().good("GET", "/v3/capabilities")["capabilities"]
    assert found["m.room_versions"]["default"] == "12"
    assert set(found["m.room_versions"]["available"]) == {str(n) for n in range(1, 13)}
    assert found["m.change_password"] == {"enabled": True}


@covers("POST /v3/register")
def registering(house: House) -> None:
    name = house.name("new")
    body = {"username": name, "password": PASSWORD, "device_id": "PHONE"}
    first = house.ask("POST", "/v3/register", body=body, is_good=True)
    assert first.status == 401
    assert first.json["flows"] == [{"stages": ["m.login.dummy"]}]
    assert "errcode" not in first.json
    auth = {**DUMMY, "session": first.json["session"]}
    made = house.good("POST", "/v3/register", body={**body, "auth": auth})
    assert made["user_id"] == f"@{name}:{SERVER_NAME}"
    assert made["device_id"] == "PHONE"

    unnamed = {"password": PASSWORD, "auth": DUMMY, "inhibit_login": True}
    silent = house.good("POST", "/v3/register", body=unnamed, query="kind=user")
    assert set(silent) == {"user_id", "home_server"}

    again = {**body, "auth": DUMMY}
    house.bad(400, "M_USER_IN_USE", "POST", "/v3/register", body=again)
    for username in ("so wrong", "Ünï", "a:b", "@a", "a" * 250):
        bad = {**again, "username": username}
        house.bad(400, "M_INVALID_USERNAME", "POST", "/v3/register", body=bad)
    weak = {"password": "x", "auth": DUMMY}
    house.bad(400, "M_WEAK_PASSWORD", "POST", "/v3/register", body=weak)
    house.bad(400, "M_MISSING_PARAM", "POST", "/v3/register", body={"auth": DUMMY})
    unfit = {"password": PASSWORD, "auth": "dummy"}
    house.bad(400, "M_BAD_JSON", "POST", "/v3/register", body=unfit)
    unfit = {"password": PASSWORD, "auth": {**DUMMY, "session": "unknown"}}
    house.bad(403, "M_FORBIDDEN", "POST", "/v3/register", body=unfit)
    house.bad(400, "M_BAD_JSON", "POST", "/v3/register", body={**again, "username": 5})
    guest = {"initial_device_display_name": "a guest"}
    house.bad(
        403, "M_GUEST_ACCESS_FORBIDDEN", "POST", "/v3/register", body=guest, query="kind=guest"
    )


@covers("GET /v3/register/available")
def asking_whether_a_name_is_free(house: House) -> None:
    path = "/v3/register/available"
    free = house.name("free")
    assert house.good("GET", path, query={"username": free}) == {"available": True}
    taken = house.user().localpart
    house.bad(400, "M_USER_IN_USE", "GET", path, query={"username": taken})
    house.bad(400, "M_USER_IN_USE", "GET", path, query={"username": taken.upper()})
    house.bad(400, "M_INVALID_USERNAME", "GET", path, query={"username": "so wrong"})
    house.bad(400, "M_MISSING_PARAM", "GET", path)


@covers("GET /v3/login", "POST /v3/login", "GET /v3/account/whoami")
def signing_in(house: House) -> None:
    user = house.user()
    flows = house.good("GET", "/v3/login")["flows"]
    token = {"type": "m.login.token", "get_login_token": True}
    assert flows == [{"type": "m.login.password"}, token]
    for given in (user.user_id, user.localpart):
        body = password_login(given, initial_device_display_name="tablet")
        session = User.of(house, house.good("POST", "/v3/login", body=body))
        whoami = session.good("GET", "/v3/account/whoami")
        assert whoami == {
            "user_id": user.user_id,
            "device_id": session.device_id,
            "is_guest": False,
        }
    old = {"type": "m.login.password", "user": user.localpart, "password": PASSWORD}
    house.good("POST", "/v3/login", body=old)

    same = User.of(
        house,
        house.good("POST", "/v3/login", body=password_login(user.user_id, device_id="D")),
    )
    house.good("POST", "/v3/login", body=password_login(user.user_id, device_id="D"))
    same.bad(401, "M_UNKNOWN_TOKEN", "GET", "/v3/account/whoami")

    wrong = password_login(user.user_id, "wrong")
    nobody = password_login(f"@nobody:{SERVER_NAME}")
    answers = [house.bad(403, "M_FORBIDDEN", "POST", "/v3/login", body=b) for b in (wrong, nobody)]
    assert answers[0] == answers[1]
    elsewhere = password_login("@nobody:elsewhere.test")
    house.bad(403, "M_FORBIDDEN", "POST", "/v3/login", body=elsewhere)
    by_mail = {"type": "m.id.thirdparty", "medium": "email", "address": "a@b.test"}
    body = {"type": "m.login.password", "identifier": by_mail, "password": PASSWORD}
    house.bad(403, "M_FORBIDDEN", "POST", "/v3/login", body=body)
    house.bad(400, "M_UNKNOWN", "POST", "/v3/login", body={"type": "m.login.unheard"})
    house.bad(400, "M_MISSING_PARAM", "POST", "/v3/login", body={})
    house.bad(400, "M_BAD_JSON", "POST", "/v3/login", body={**body, "identifier": []})
    house.bad(
        400,
        "M_INVALID_PARAM",
        "POST",
        "/v3/login",
        body=password_login(user.user_id, device_id=""),
    )


@covers("POST /v3/logout", "POST /v3/logout/all")
def signing_out(house: House) -> None:
    user = house.user()
    second, third = house.login(user), house.login(user)
    assert second.good("POST", "/v3/logout") == {}
    second.bad(401, "M_UNKNOWN_TOKEN", "POST", "/v3/logout")
    assert user.good("POST", "/v3/logout/all") == {}
    for session in (user, third):
        session.bad(401, "M_UNKNOWN_TOKEN", "POST", "/v3/logout/all")
    house.bad(401, "M_MISSING_TOKEN", "POST", "/v3/logout")
    house.bad(401, "M_MISSING_TOKEN", "POST", "/v3/logout/all")


@covers(
    "GET /v3/devices",
    "GET /v3/devices/{deviceId}",
    "PUT /v3/devices/{deviceId}",
    "DELETE /v3/devices/{deviceId}",
    "POST /v3/delete_devices",
)
def devices(house: House) -> None:
    user = house.user()
    others = [house.login(user) for _ in range(4)]
    listed = user.good("GET", "/v3/devices")["devices"]
    assert {device["device_id"] for device in listed} == {
        session.device_id for session in (user, *others)
    }
    one = "/v3/devices/{}"
    assert user.good("PUT", one, user.device_id, body={"display_name": "desk"}) == {}
    assert user.good("PUT", one, user.device_id, body={}) == {}
    shown = user.good("GET", one, user.device_id)
    assert (shown["device_id"], shown["display_name"]) == (user.device_id, "desk")
    for method, body in (("GET", {}), ("PUT", {"body": {"display_name": "x"}})):
        user.bad(404, "M_NOT_FOUND", method, one, "NONE", **body)
    user.bad(404, "M_NOT_FOUND", "PUT", one, "NONE", body={})
    user.bad(400, "M_BAD_JSON", "PUT", one, user.device_id, body={"display_name": 1})

    assert user.with_password("DELETE", one, others[0].device_id, body={}) == {}
    others[0].bad(401, "M_UNKNOWN_TOKEN", "GET", "/v3/devices")
    body = {"devices": [others[1].device_id, others[2].device_id, "GONE"]}
    assert user.with_password("POST", "/v3/delete_devices", body=body) == {}
    others[1].bad(401, "M_UNKNOWN_TOKEN", "GET", "/v3/devices")

    first = user.ask("POST", "/v3/delete_devices", body={"devices": [others[3].device_id]})
    stage = user.password_stage(first.json["session"], "wrong")
    tried = {"devices": [others[3].device_id], "auth": stage}
    user.bad(401, "M_FORBIDDEN", "POST", "/v3/delete_devices", body=tried)
    stranger = {"auth": house.user().password_stage(first.json["session"])}
    user.bad(403, "M_FORBIDDEN", "POST", "/v3/delete_devices", body={**tried, **stranger})
    user.bad(400, "M_BAD_JSON", "POST", "/v3/delete_devices", body={"devices": [1]})
    user.bad(400, "M_MISSING_PARAM", "POST", "/v3/delete_devices", body={})
    others[3].good("GET", "/v3/devices")


@covers("POST /v3/account/password")
def changing_the_password(house: House) -> None:
    user = house.user()
    other = house.login(user)
    path, new = "/v3/account/password", "another good password"
    user.bad(400, "M_MISSING_PARAM", "POST", path, body={})
    user.bad(400, "M_BAD_JSON", "POST", path, body={"new_password": 7})
    user.bad(400, "M_WEAK_PASSWORD", "POST", path, body={"new_password": "x"})
    body = {"new_password": new, "logout_devices": False}
    assert user.with_password("POST", path, body=body) == {}
    other.good("GET", "/v3/devices")
    wrong, right = password_login(user.user_id), password_login(user.user_id, new)
    house.bad(403, "M_FORBIDDEN", "POST", "/v3/login", body=wrong)
    house.good("POST", "/v3/login", body=right)

    back = {"new_password": PASSWORD}
    session = user.ask("POST", path, body=back).json["session"]
    stage = user.password_stage(session, new)
    assert user.good("POST", path, body={**back, "auth": stage}) == {}
    user.good("GET", "/v3/devices")
    other.bad(401, "M_UNKNOWN_TOKEN", "GET", "/v3/devices")


@covers("GET /v3/auth/{authType}/fallback/web", "POST /v3/auth/{authType}/fallback/web")
def a_stage_in_the_browser(house: House) -> None:
    """No description has these pages; what is checked is that they lead through."""
    body = {"username": house.name("new"), "password": PASSWORD}
    session = house.ask("POST", "/v3/register", body=body).json["session"]
    path = "/_matrix/client/v3/auth/m.login.dummy/fallback/web"
    shown = house.connection.ask("GET", path, query={"session": session})
    assert shown.status == 200
    assert session in shown.raw.decode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    data = f"session={session}".encode()
    done = house.connection.ask("POST", path, data, headers=form)
    assert b"onAuthDone" in done.raw
    house.good("POST", "/v3/register", body={**body, "auth": {"session": session}})
    house.bad(403, "M_FORBIDDEN", "GET", path, query="session=unknown", described=False)
    house.bad(400, "M_INVALID_PARAM", "GET", path, described=False)


@covers("GET /_matrix/static/client/login/")
def signing_in_in_the_browser(house: House) -> None:
    """C2.10: no description has this page; a program in tests/clients goes through it."""
    for path in ("/_matrix/static/client/login/", "/_matrix/static/client/login"):
        query = {"device_id": "<b>PHONE</b>", "loginToken": "<b>"}
        shown = house.connection.ask("GET", path, query=query)
        assert shown.status == 200
        assert shown.headers["content-type"] == "text/html; charset=utf-8"
        text = shown.raw.decode()
        assert "window.matrixLogin.onLogin(response)" in text
        assert "<b>" not in text
        policy = shown.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "connect-src 'self'" in policy
        (nonce,) = {*re.findall(r'<script nonce="([^"]+)">', text)}
        assert f"script-src 'nonce-{nonce}'" in policy
        assert "frame-ancestors 'none'" in policy
    house.bad(405, "M_UNRECOGNIZED", "POST", path, described=False)


TOKEN_VALID = "/v1/register/m.login.registration_token/validity"


@covers(
    "POST /v3/register", "GET /v1/register/m.login.registration_token/validity", settings=CLOSED
)
def registering_with_a_token(house: House) -> None:
    assert house.good("GET", TOKEN_VALID, query={"token": "the word"}) == {"valid": True}
    assert house.good("GET", TOKEN_VALID, query={"token": "a word"}) == {"valid": False}
    house.bad(400, "M_MISSING_PARAM", "GET", TOKEN_VALID)
    body = {"username": house.name("new"), "password": PASSWORD}
    first = house.ask("POST", "/v3/register", body=body, is_good=True).json
    assert first["flows"] == [{"stages": ["m.login.registration_token", "m.login.dummy"]}]
    stage = {"type": "m.login.registration_token", "session": first["session"]}
    for token in ("a word", 5):
        tried = {**body, "auth": {**stage, "token": token}}
        assert house.ask("POST", "/v3/register", body=tried).status == 401
    body["auth"] = {**stage, "token": "the word"}
    second = house.ask("POST", "/v3/register", body=body, is_good=True).json
    assert second["completed"] == ["m.login.registration_token"]
    body["auth"] = {**DUMMY, "session": first["session"]}
    house.good("POST", "/v3/register", body=body)
    dummy = {**body, "username": house.name("new"), "auth": DUMMY}
    assert house.ask("POST", "/v3/register", body=dummy).status in (400, 401)


@covers(settings=LIMITED)
def where_registration_is_closed(house: House) -> None:
    body = {"username": "new", "password": PASSWORD, "auth": DUMMY}
    house.bad(403, "M_FORBIDDEN", "POST", "/v3/register", body=body)
    house.bad(403, "M_FORBIDDEN", "GET", "/v3/register/available", query="username=new")
    house.bad(403, "M_FORBIDDEN", "GET", TOKEN_VALID, query="token=x")
    house.bad(401, "M_MISSING_TOKEN", "GET", "/v3/publicRooms")


@covers(settings=CLOSED)
def where_nobody_publishes_rooms(house: House) -> None:
    alice = house.user_by_secret("alice")
    alice.bad(403, "M_FORBIDDEN", "POST", "/v3/createRoom", body={"visibility": "public"})
    room, path = alice.room(), "/v3/directory/list/room/{}"
    alice.bad(403, "M_FORBIDDEN", "PUT", path, room, body={"visibility": "public"})
    assert alice.good("PUT", path, room, body={"visibility": "private"}) == {}


@covers(settings=LIMITED)
def doing_things_too_often(house: House) -> None:
    """[F1.01]: what is limited answers 429 with Retry-After, and then works again."""
    alice, bob = house.user_by_secret("alice"), house.user_by_secret("bob")
    wrong = password_login(bob.user_id, "wrong")
    refused_after(house, 5, "POST", "/v3/login", body=wrong)
    room = alice.room(preset="public_chat")
    refused_after(alice, 20, "POST", "/v3/createRoom", body={})
    invite = {"user_id": bob.user_id}
    refused_after(alice, 50, "POST", "/v3/rooms/{}/invite", room, body=invite)
    refused_after(alice, 50, "POST", "/v3/rooms/{}/join", room, body={})
    for path in ("/v3/join/{}", "/v3/knock/{}"):
        alice.bad(429, "M_LIMIT_EXCEEDED", "POST", path, room, body={})


@covers(settings=CLOSED_AND_LIMITED)
def guessing_a_token(house: House) -> None:
    refused_after(house, 20, "GET", TOKEN_VALID, query="token=x")


def refused_after(asker: House | User, most: int, *arguments: Any, **more: Any) -> None:
    """Ask until it is too often, which must not be long after `most` times."""
    for _ in range(2 * most + 2):
        answer = asker.ask(*arguments, **more)
        if answer.status == 429:
            assert answer.errcode == "M_LIMIT_EXCEEDED"
            return
    raise AssertionError(f"never too often: {answer}")
