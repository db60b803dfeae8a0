"""C2, C3, C4: accounts and sessions."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from tests.api.conformance.house import PASSWORD, House, User
from tests.api.conformance.requirements import requirement
from tests.api.conformance.scenarios import addresses, guests
from tests.api.conformance.scenarios import sessions as scenarios
from tests.api.conformance.scenarios.accounts import DUMMY, password_login
from tests.api.conformance.server import CLOSED, GUESTS, LIMITED, MAILING, SERVER_NAME
from tests.api.conformance.wire import Answer, Connection

REGISTER, LOGIN, WHOAMI = "/v3/register", "/v3/login", "/v3/account/whoami"


@requirement("C2.01", "C2.02")
def kinds_of_login(house: House) -> None:
    alice = house.user()
    flows = house.good("GET", LOGIN)["flows"]
    assert {"type": "m.login.password"} in flows
    whole = {"type": "m.id.user", "user": alice.user_id}
    for named in (
        {"identifier": whole},
        {"identifier": {"type": "m.id.user", "user": alice.localpart}},
        {"user": alice.user_id},
        {"user": alice.localpart.upper()},
        {"identifier": whole, "user": "somebody else"},
    ):
        body = {"type": "m.login.password", "password": PASSWORD, **named}
        assert house.good("POST", LOGIN, body=body)["user_id"] == alice.user_id
    for kind in ("m.login.application_service", "m.login.dummy", ""):
        house.bad(400, "M_UNKNOWN", "POST", LOGIN, body={"type": kind})


@requirement("C2.03")
def a_device_keeps_its_name_and_has_one_token(house: House) -> None:
    alice = house.user()
    first = password_login(alice.user_id, device_id="D", initial_device_display_name="one")
    old = User.of(house, house.good("POST", LOGIN, body=first))
    again = {**first, "initial_device_display_name": "two"}
    new = User.of(house, house.good("POST", LOGIN, body=again))
    assert new.device_id == old.device_id == "D"
    old.bad(401, "M_UNKNOWN_TOKEN", "GET", WHOAMI)
    assert new.good("GET", "/v3/devices/D")["display_name"] == "one"
    alice.good("GET", WHOAMI)


@requirement("C2.04")
def a_client_that_could_refresh_gets_a_token_that_lasts(house: House) -> None:
    alice = house.user()
    made = house.good("POST", LOGIN, body=password_login(alice.user_id, refresh_token=True))
    assert ("refresh_token" in made) == ("expires_in_ms" in made)
    assert made["home_server"] == SERVER_NAME


# Played in full as scenarios.
requirement("C2.06")(scenarios.signing_in_a_second_device)
requirement("C2.07", "C2.08")(scenarios.refreshing)
requirement("C4.09")(scenarios.deactivating)
requirement("C4.05", settings=MAILING)(addresses.asking_again_for_a_message)
requirement("C4.06", settings=MAILING)(addresses.who_has_an_address_is_not_told)
requirement("C4.07", settings=MAILING)(addresses.what_is_not_done_here)
requirement("C4.10", settings=MAILING)(addresses.adding_an_address)
requirement("C11.07", settings=GUESTS)(guests.rooms_that_close_to_guests)
requirement("C11.08", settings=GUESTS)(guests.what_guests_may_ask_for)
requirement("C11.09", settings=GUESTS)(guests.a_guest_who_stays)


@requirement("C2.05")
def what_was_wrong_is_not_told(house: House) -> None:
    alice = house.user()
    bodies = [
        password_login(alice.user_id, "wrong"),
        password_login("@nobody:home.test"),
        password_login("@nobody:elsewhere.test"),
        password_login("@no body"),
        password_login(""),
        password_login("@" + 300 * "a" + ":home.test"),
    ]
    answers = [house.bad(403, "M_FORBIDDEN", "POST", LOGIN, body=body) for body in bodies]
    assert all(answer == answers[0] for answer in answers)


@requirement("C2.09")
def logging_out_removes_the_device(house: House) -> None:
    alice = house.user()
    other, third = house.login(alice), house.login(alice)
    other.good("POST", "/v3/logout")
    left = {device["device_id"] for device in alice.good("GET", "/v3/devices")["devices"]}
    assert left == {alice.device_id, third.device_id}
    alice.good("POST", "/v3/logout/all")
    third.bad(401, "M_UNKNOWN_TOKEN", "GET", WHOAMI)


@requirement("C2.10", "T102")
def the_page_for_signing_in_has_no_word_of_the_request(house: House) -> None:
    """What it does is tried in tests/clients; here, that nobody writes into it or frames it."""
    query = {"device_id": "<i>word", "redirect": "javascript:word"}
    shown = house.connection.ask("GET", "/_matrix/static/client/login/", query=query)
    assert shown.status == 200
    assert b"onLogin" in shown.raw
    assert b"word" not in shown.raw.replace(b"password", b"").replace(b"Password", b"")
    assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]


@requirement("T103")
def sessions_end_with_their_reason(house: House) -> None:
    new = {"new_password": "another password"}
    for end in (
        lambda alice, phone: alice.good("POST", "/v3/logout/all"),
        lambda alice, phone: alice.with_password(
            "DELETE", "/v3/devices/{}", phone.device_id, body={}
        ),
        lambda alice, phone: alice.with_password("POST", "/v3/account/password", body=new),
    ):
        alice = house.user()
        phone = house.login(alice)
        since = phone.sync()["next_batch"]
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(long_poll, house, phone, since)
            time.sleep(0.1)
            end(alice, phone)
            ended = time.monotonic()
            answer = waiting.result()
        assert (answer.status, answer.errcode) == (401, "M_UNKNOWN_TOKEN")
        assert time.monotonic() - ended < 1
        phone.bad(401, "M_UNKNOWN_TOKEN", "GET", WHOAMI)
    house.bad(403, "M_FORBIDDEN", "POST", LOGIN, body=password_login(alice.user_id))
    house.good("POST", LOGIN, body=password_login(alice.user_id, "another password"))


def long_poll(house: House, user: User, since: str) -> Answer:
    """A sync that waits, on a connection of its own."""
    connection = Connection(house.server.host, house.server.port)
    query = {"since": since, "timeout": "20000"}
    try:
        return connection.ask("GET", "/_matrix/client/v3/sync", token=user.token, query=query)
    finally:
        connection.close()


@requirement("C3.01", "K.20")
def the_first_request_is_always_answered_401(house: House) -> None:
    body = {"username": house.name("new"), "password": PASSWORD}
    for auth in ({}, {"auth": None}):
        first = house.ask("POST", REGISTER, body={**body, **auth})
        assert first.status == 401
        assert set(first.json) == {"flows", "params", "session"}


@requirement("C3.01")
def a_stage_that_failed_is_told(house: House) -> None:
    alice = house.user()
    body = {"devices": [alice.device_id]}
    session = alice.ask("POST", "/v3/delete_devices", body=body).json["session"]
    wrong = {**body, "auth": alice.password_stage(session, "wrong")}
    told = alice.bad(401, "M_FORBIDDEN", "POST", "/v3/delete_devices", body=wrong)
    assert told["session"] == session
    unknown = {**body, "auth": {"type": "m.login.unheard", "session": session}}
    told = alice.bad(401, "M_FORBIDDEN", "POST", "/v3/delete_devices", body=unknown)
    assert told["flows"] == [{"stages": ["m.login.password"]}]
    right = {**body, "auth": alice.password_stage(session)}
    alice.good("POST", "/v3/delete_devices", body=right)


@requirement("C3.02", "C3.03", "C3.07", "C3.10", settings=CLOSED)
def stages_are_passed_once(house: House) -> None:
    body = {"username": house.name("new"), "password": PASSWORD}
    first = house.ask("POST", REGISTER, body=body).json
    session, stages = first["session"], first["flows"][0]["stages"]
    assert stages[0] == "m.login.registration_token"
    page = "/_matrix/client/v3/auth/{}/fallback/web"
    for stage in stages:
        shown = house.connection.ask("GET", page.format(stage), query={"session": session})
        assert shown.status == 200
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    data = f"session={session}&token=the+word".encode()
    house.connection.ask("POST", page.format(stages[0]), data, headers=form)
    auth: dict[str, object] = {"session": session}
    for done in range(1, len(stages)):
        part = house.ask("POST", REGISTER, body={**body, "auth": auth})
        assert part.status == 401
        assert part.json["completed"] == stages[:done]
        again = {"type": stages[done - 1], "session": session, "token": "wrong now"}
        assert house.ask("POST", REGISTER, body={**body, "auth": again}).status == 401
        auth = {"session": session, "type": stages[done]}
    made = house.good("POST", REGISTER, body={**body, "auth": auth})
    assert made["user_id"] == f"@{body['username']}:{SERVER_NAME}"


@requirement("C3.04")
def a_session_is_for_one_thing(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    other = house.login(alice)
    body = {"devices": [other.device_id]}
    session = alice.ask("POST", "/v3/delete_devices", body=body).json["session"]
    path = "/v3/delete_devices"
    more = {"devices": [alice.device_id], "auth": alice.password_stage(session)}
    alice.bad(403, "M_FORBIDDEN", "POST", path, body=more)
    new = {"new_password": "stolen by a session", "auth": alice.password_stage(session)}
    alice.bad(403, "M_FORBIDDEN", "POST", "/v3/account/password", body=new)
    bob.bad(403, "M_FORBIDDEN", "POST", path, body={**body, "auth": bob.password_stage(session)})
    alice.good("POST", path, body={**body, "auth": alice.password_stage(session)})
    used = {**body, "auth": alice.password_stage(session)}
    alice.bad(403, "M_FORBIDDEN", "POST", path, body=used)


@requirement("C3.05", "C3.09")
def what_asks_for_the_password(house: House) -> None:
    alice = house.user()
    for method, path, body in (
        ("POST", "/v3/account/password", {"new_password": PASSWORD}),
        ("POST", "/v3/delete_devices", {"devices": []}),
        ("DELETE", "/v3/devices/none", {}),
    ):
        asked = alice.ask(method, path, body=body)
        assert asked.status == 401
        assert asked.json["flows"] == [{"stages": ["m.login.password"]}]


@requirement("C3.08")
def the_password_stage_is_for_the_same_user(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    body = {"devices": []}
    session = alice.ask("POST", "/v3/delete_devices", body=body).json["session"]
    wrong = {**body, "auth": bob.password_stage(session)}
    alice.bad(403, "M_FORBIDDEN", "POST", "/v3/delete_devices", body=wrong)
    unknown = {"type": "m.id.thirdparty", "medium": "email", "address": "nobody@example.org"}
    by_mail = {**alice.password_stage(session), "identifier": unknown}
    alice.bad(403, "M_FORBIDDEN", "POST", "/v3/delete_devices", body={**body, "auth": by_mail})
    old_form = {"type": "m.login.password", "user": alice.user_id, "password": PASSWORD}
    auth = {**old_form, "session": session}
    alice.good("POST", "/v3/delete_devices", body={**body, "auth": auth}, described=False)


@requirement("C3.10", settings=LIMITED)
def tokens_are_not_looked_at_where_registration_is_off(house: House) -> None:
    path = "/v1/register/m.login.registration_token/validity"
    house.bad(403, "M_FORBIDDEN", "GET", path, query="token=x")


@requirement("C4.01", settings=LIMITED)
def registration_can_be_closed(house: House) -> None:
    for query in ("", "kind=user"):
        house.bad(403, "M_FORBIDDEN", "POST", REGISTER, body={}, query=query)


@requirement("C4.01")
def there_are_no_guests(house: House) -> None:
    body = {"initial_device_display_name": "g"}
    house.bad(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", REGISTER, body=body, query="kind=guest")
    house.bad(400, "M_INVALID_PARAM", "POST", REGISTER, body=body, query="kind=cat")


@requirement("C4.02", "K.20")
def names_are_checked_before_anything_is_asked(house: House) -> None:
    taken = house.user().localpart
    for username, code in (
        (taken, "M_USER_IN_USE"),
        (taken.upper(), "M_USER_IN_USE"),
        ("no spaces", "M_INVALID_USERNAME"),
        ("\u00fc", "M_INVALID_USERNAME"),
        ("a:b", "M_INVALID_USERNAME"),
        (250 * "a", "M_INVALID_USERNAME"),
    ):
        body = {"username": username, "password": PASSWORD}
        house.bad(400, code, "POST", REGISTER, body=body)
        house.bad(400, code, "POST", REGISTER, body={**body, "auth": DUMMY})
    name = house.name("MiXed")
    body = {"username": name, "password": PASSWORD, "auth": DUMMY}
    made = house.good("POST", REGISTER, body=body)
    assert made["user_id"] == f"@{name.lower()}:{SERVER_NAME}"
    body = {"password": PASSWORD, "auth": DUMMY}
    names = {house.good("POST", REGISTER, body=body)["user_id"] for _ in range(3)}
    assert len(names) == 3
    silent = house.good("POST", REGISTER, body={**body, "inhibit_login": True})
    assert not {"access_token", "device_id"} & set(silent)


@requirement("C4.02")
def a_name_taken_meanwhile_is_noticed(house: House) -> None:
    body = {"username": house.name("race"), "password": PASSWORD}
    session = house.ask("POST", REGISTER, body=body).json["session"]
    house.good("POST", REGISTER, body={**body, "auth": DUMMY})
    late = {**body, "auth": {**DUMMY, "session": session}}
    house.bad(400, "M_USER_IN_USE", "POST", REGISTER, body=late)


@requirement("C4.04")
def names_can_be_asked_for(house: House) -> None:
    path = "/v3/register/available"
    house.bad(400, "M_USER_IN_USE", "GET", path, query={"username": house.user().localpart})
    house.bad(400, "M_INVALID_USERNAME", "GET", path, query={"username": "@a"})
    house.bad(400, "M_MISSING_PARAM", "GET", path, query="username=")
    assert house.good("GET", path, query={"username": house.name("f")}) == {"available": True}


@requirement("C4.08", "K.20")
def a_new_password_ends_other_sessions(house: House) -> None:
    alice = house.user()
    other = house.login(alice)
    body = {"new_password": "a good new password"}
    alice.with_password("POST", "/v3/account/password", body=body)
    alice.good("GET", WHOAMI)
    other.bad(401, "M_UNKNOWN_TOKEN", "GET", WHOAMI)
    house.bad(403, "M_FORBIDDEN", "POST", LOGIN, body=password_login(alice.user_id))


@requirement("C4.11")
def who_am_i(house: House) -> None:
    alice = house.user()
    expected = {"user_id": alice.user_id, "device_id": alice.device_id, "is_guest": False}
    assert alice.good("GET", WHOAMI) == expected
