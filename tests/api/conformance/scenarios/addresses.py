"""E-mail addresses of people: proven, added, used to sign in and to set a new password."""

from __future__ import annotations

import re
from html import unescape
from itertools import count
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.api.conformance.house import PASSWORD, House, User
from tests.api.conformance.scenarios import covers
from tests.api.conformance.scenarios.accounts import DUMMY, password_login
from tests.api.conformance.server import BASE_URL, MAILING, MAILING_LIMITED, OFFICE, OPEN
from tests.api.conformance.wire import Answer

MINE, REGISTER, LOGIN, WHOAMI = (
    "/v3/account/3pid",
    "/v3/register",
    "/v3/login",
    "/v3/account/whoami",
)
FOR_PASSWORD, NEW = "/v3/account/password/email/requestToken", "/v3/account/password"
TO_REGISTER, TO_ADD = f"{REGISTER}/email/requestToken", f"{MINE}/email/requestToken"
PAGE = "/_matrix/client/unstable/org.matrixbox/email/{sid}"
STAGE = "m.login.email.identity"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def token_of(link: str) -> tuple[str, str]:
    """The path and query of a link in a letter."""
    assert link.startswith(f"{BASE_URL}/_matrix/")
    parts = urlsplit(link)
    return parts.path, parts.query


def look(house: House, link: str) -> Answer:
    """Open a link, as people and programs do."""
    path, query = token_of(link)
    return house.connection.ask("GET", path, query=query)


def confirm(house: House, link: str) -> Answer:
    """Open a link and press its button."""
    shown = look(house, link)
    assert shown.status == 200, shown
    hidden = re.search(r'name="token" value="([^"]*)"', shown.raw.decode())
    assert hidden is not None
    data = urlencode({"token": unescape(hidden[1])}).encode()
    return house.connection.ask("POST", token_of(link)[0], data, headers=FORM)


def asked(house: House, path: str, address: str, secret: str = "s", **more: Any) -> str:
    """Have a message sent; the id of the session."""
    body = {"client_secret": secret, "email": address, "send_attempt": 1, **more}
    answer = house.good("POST", path, body=body)
    assert set(answer) == {"sid"}
    return str(answer["sid"])


NUMBERS = count(1)


def address(house: House) -> str:
    """An address that nobody has."""
    return f"somebody{next(NUMBERS)}@example.org"


def creds(sid: str, secret: str = "s") -> dict[str, Any]:
    """What stands in `auth` for the stage of the message."""
    return {"type": STAGE, "threepid_creds": {"sid": sid, "client_secret": secret}}


def add(user: User, mail: str) -> None:
    """Give a user an address, in all its steps."""
    house = user.house
    sid = asked(house, TO_ADD, mail)
    assert confirm(house, OFFICE.link(mail, len(letters(mail)))).status == 200
    user.with_password("POST", f"{MINE}/add", body={"sid": sid, "client_secret": "s"})


def letters(mail: str) -> list[Any]:
    """What has come for somebody so far."""
    return [one for one in OFFICE.letters if one["To"] == mail]


@covers(
    f"POST {TO_ADD}",
    f"GET {MINE}",
    f"POST {MINE}/add",
    f"POST {MINE}/delete",
    f"POST {MINE}/unbind",
    f"GET {PAGE}",
    f"POST {PAGE}",
    settings=MAILING,
)
def adding_an_address(house: House) -> None:
    """C4.05, C4.10."""
    alice, mail = house.user("alice"), address(house)
    assert alice.good("GET", MINE) == {"threepids": []}
    sid = asked(house, TO_ADD, f" {mail.upper()} ")
    body = {"sid": sid, "client_secret": "s"}
    session = alice.ask("POST", f"{MINE}/add", body=body).json["session"]
    tried = {**body, "auth": alice.password_stage(session)}
    alice.bad(403, "M_THREEPID_AUTH_FAILED", "POST", f"{MINE}/add", body=tried)
    link = OFFICE.link(mail)
    # Looking does nothing, however often it is done.
    assert {look(house, link).status for _ in range(3)} == {200}
    session = alice.ask("POST", f"{MINE}/add", body=body).json["session"]
    tried = {**body, "auth": alice.password_stage(session)}
    alice.bad(403, "M_THREEPID_AUTH_FAILED", "POST", f"{MINE}/add", body=tried)
    assert confirm(house, link).status == 200
    assert look(house, link).status == 400  # it was for one use
    for wrong in ({"client_secret": "t"}, {"sid": "unknown"}):
        bad = {**body, **wrong}
        session = alice.ask("POST", f"{MINE}/add", body=bad).json["session"]
        tried = {**bad, "auth": alice.password_stage(session)}
        alice.bad(403, "M_THREEPID_AUTH_FAILED", "POST", f"{MINE}/add", body=tried)
    assert alice.with_password("POST", f"{MINE}/add", body=body) == {}
    (mine,) = alice.good("GET", MINE)["threepids"]
    assert (mine["medium"], mine["address"]) == ("email", mail)
    assert mine["validated_at"] <= mine["added_at"]
    # What the session has proven is used up.
    session = alice.ask("POST", f"{MINE}/add", body=body).json["session"]
    tried = {**body, "auth": alice.password_stage(session)}
    alice.bad(403, "M_THREEPID_AUTH_FAILED", "POST", f"{MINE}/add", body=tried)

    assert alice.good("GET", "/v3/capabilities")["capabilities"]["m.3pid_changes"]["enabled"]
    named = {"medium": "email", "address": mail.upper()}
    result = {"id_server_unbind_result": "no-support"}
    assert alice.good("POST", f"{MINE}/unbind", body=named) == result
    assert house.user("bob").good("POST", f"{MINE}/delete", body=named) == result
    assert len(alice.good("GET", MINE)["threepids"]) == 1
    assert alice.good("POST", f"{MINE}/delete", body={**named, "id_server": "id.test"}) == result
    assert alice.good("GET", MINE) == {"threepids": []}
    for path in (f"{MINE}/delete", f"{MINE}/unbind"):
        alice.bad(400, "M_MISSING_PARAM", "POST", path, body={"medium": "email"})
        bad = {"medium": "pigeon", "address": "x"}
        alice.bad(400, "M_INVALID_PARAM", "POST", path, body=bad)
    alice.bad(400, "M_MISSING_PARAM", "POST", f"{MINE}/add", body={"sid": sid})


@covers(settings=MAILING)
def a_session_is_good_for_one_purpose(house: House) -> None:
    """T097: what proves an address for one thing proves it for nothing else."""
    alice, mail = house.user("alice"), address(house)
    sid = asked(house, TO_REGISTER, mail)
    confirm(house, OFFICE.link(mail))
    body = {"sid": sid, "client_secret": "s"}
    session = alice.ask("POST", f"{MINE}/add", body=body).json["session"]
    tried = {**body, "auth": alice.password_stage(session)}
    alice.bad(403, "M_THREEPID_AUTH_FAILED", "POST", f"{MINE}/add", body=tried)
    again = asked(house, TO_ADD, mail)
    assert again != sid
    new = {"new_password": "another good one", "auth": creds(again)}
    house.bad(401, "M_THREEPID_AUTH_FAILED", "POST", NEW, body=new)


@covers(f"POST {TO_REGISTER}", "POST /v3/register", settings=MAILING)
def registering_with_an_address(house: House) -> None:
    mail = address(house)
    body = {"username": house.name("new"), "password": PASSWORD}
    first = house.ask("POST", REGISTER, body=body, is_good=True).json
    assert first["flows"] == [{"stages": ["m.login.dummy"]}, {"stages": [STAGE]}]
    sid = asked(house, TO_REGISTER, mail, next_link="https://app.test/next?a=1&b=<2>")
    early = {**body, "auth": {**creds(sid), "session": first["session"]}}
    told = house.bad(401, "M_THREEPID_AUTH_FAILED", "POST", REGISTER, body=early)
    assert "completed" not in told
    session_only = {**body, "auth": {"session": first["session"]}}
    assert house.ask("POST", REGISTER, body=session_only).status == 401
    done = confirm(house, OFFICE.link(mail))
    assert b'<a href="https://app.test/next?a=1&amp;b=&lt;2&gt;"' in done.raw
    # C3.03: the session alone is enough, now that the link was opened.
    made = User.of(house, house.good("POST", REGISTER, body=session_only))
    assert [one["address"] for one in made.good("GET", MINE)["threepids"]] == [mail]
    # The proof was used up with the account.
    other = {**body, "username": house.name("new"), "auth": creds(sid)}
    house.bad(401, "M_THREEPID_AUTH_FAILED", "POST", REGISTER, body=other)
    # C3.05: either form of the credentials is known.
    mail = address(house)
    sid = asked(house, TO_REGISTER, mail)
    confirm(house, OFFICE.link(mail))
    auth = {"type": STAGE, "threepidCreds": {"sid": sid, "client_secret": "s"}}
    other = {**body, "username": house.name("new"), "auth": auth}
    assert house.ask("POST", REGISTER, body=other).status == 200
    for bad in ({"type": STAGE}, {"type": STAGE, "threepid_creds": {"sid": sid}}):
        other = {**body, "username": house.name("new"), "auth": bad}
        assert house.ask("POST", REGISTER, body=other).status == 401


@covers(f"POST {FOR_PASSWORD}", "POST /v3/account/password", settings=MAILING)
def a_forgotten_password(house: House) -> None:
    """C4.08."""
    alice, mail = house.user("alice"), address(house)
    add(alice, mail)
    phone = house.login(alice)
    new = {"new_password": "another good password"}
    first = house.ask("POST", NEW, body=new, is_good=True)
    assert first.status == 401
    assert first.json["flows"] == [{"stages": [STAGE]}]
    sid = asked(house, FOR_PASSWORD, mail)
    body = {**new, "auth": {**creds(sid), "session": first.json["session"]}}
    house.bad(401, "M_THREEPID_AUTH_FAILED", "POST", NEW, body=body)
    confirm(house, OFFICE.link(mail, 1))
    stolen = {"new_password": "a thief's password", "auth": body["auth"]}
    house.bad(403, "M_FORBIDDEN", "POST", NEW, body=stolen)  # begun for another password
    assert house.good("POST", NEW, body=body) == {}
    house.bad(403, "M_FORBIDDEN", "POST", LOGIN, body=password_login(alice.user_id))
    for session in (alice, phone):
        session.bad(401, "M_UNKNOWN_TOKEN", "GET", WHOAMI)
    house.good("POST", LOGIN, body=password_login(alice.user_id, "another good password"))
    again = {"new_password": "a third good password", "auth": creds(sid)}
    house.bad(401, "M_THREEPID_AUTH_FAILED", "POST", NEW, body=again)
    house.bad(400, "M_WEAK_PASSWORD", "POST", NEW, body={"new_password": "x"})


@covers(settings=MAILING)
def somebody_else_s_address_opens_nothing(house: House) -> None:
    alice, bob, mail = house.user("alice"), house.user("bob"), address(house)
    add(alice, mail)
    sid = asked(house, FOR_PASSWORD, mail)
    confirm(house, OFFICE.link(mail, 1))
    body = {"new_password": "another good password", "auth": creds(sid)}
    bob.bad(403, "M_FORBIDDEN", "POST", NEW, body=body)
    house.good("POST", LOGIN, body=password_login(bob.user_id))
    house.good("POST", LOGIN, body=password_login(alice.user_id))


def by_mail(mail: str, password: str = PASSWORD) -> dict[str, Any]:
    """The body of a login by an address."""
    identifier = {"type": "m.id.thirdparty", "medium": "email", "address": mail}
    return {"type": "m.login.password", "identifier": identifier, "password": password}


@covers("POST /v3/login", settings=MAILING)
def signing_in_by_an_address(house: House) -> None:
    """C2.02, C3.08; T094: whether an address is known is not told."""
    alice, mail = house.user("alice"), address(house)
    add(alice, mail)
    assert house.good("POST", LOGIN, body=by_mail(mail.upper()))["user_id"] == alice.user_id
    old = {"type": "m.login.password", "medium": "email", "address": mail, "password": PASSWORD}
    assert house.good("POST", LOGIN, body=old)["user_id"] == alice.user_id
    bodies = [
        by_mail(mail, "wrong password"),
        by_mail(address(house)),
        by_mail("no address at all"),
        {**by_mail(mail), "identifier": {"type": "m.id.phone", "country": "GB", "phone": "1"}},
        {**by_mail(mail), "identifier": {**by_mail(mail)["identifier"], "medium": "msisdn"}},
    ]
    answers = [house.bad(403, "M_FORBIDDEN", "POST", LOGIN, body=body) for body in bodies]
    assert all(answer == answers[0] for answer in answers)
    # And where the password is asked for again.
    path, body = "/v3/delete_devices", {"devices": ["GONE"]}
    stage = {**by_mail(mail), "session": alice.ask("POST", path, body=body).json["session"]}
    assert alice.good("POST", path, body={**body, "auth": stage}) == {}
    # An account that has ended has no address any more.
    alice.with_password("POST", "/v3/account/deactivate", body={})
    house.bad(403, "M_FORBIDDEN", "POST", LOGIN, body=by_mail(mail))
    bob = house.user("bob")
    add(bob, mail)
    assert house.good("POST", LOGIN, body=by_mail(mail))["user_id"] == bob.user_id


@covers(settings=MAILING)
def who_has_an_address_is_not_told(house: House) -> None:
    """T094, C4.06: the answer is the same; only the owner of the mailbox learns more."""
    alice, known, unknown = house.user("alice"), address(house), address(house)
    add(alice, known)
    for path in (TO_REGISTER, TO_ADD, FOR_PASSWORD):
        answers = []
        for mail in (known, unknown):
            body = {"client_secret": house.name("s"), "email": mail, "send_attempt": 1}
            before = len(letters(mail))
            answers.append(house.ask("POST", path, body=body, is_good=True))
            letter = OFFICE.letter(mail, before).get_content()
            has_link = (mail == known) is (path == FOR_PASSWORD)
            assert ("/_matrix/client/" in letter) is has_link, letter
            assert alice.localpart not in letter
        assert [one.status for one in answers] == [200, 200]
        assert {len(one.raw) for one in answers} == {len(answers[0].raw)}


@covers(settings=MAILING)
def asking_again_for_a_message(house: House) -> None:
    """C4.05: only a greater `send_attempt` brings another message."""
    mail = address(house)
    sid = asked(house, TO_ADD, mail, send_attempt=2)
    first = OFFICE.link(mail)
    for attempt in (1, 2):
        assert asked(house, TO_ADD, mail, send_attempt=attempt) == sid
    assert asked(house, TO_ADD, mail, send_attempt=3) == sid
    second = OFFICE.link(mail, 1)
    assert len(letters(mail)) == 2
    assert look(house, first).status == 400  # the newer link counts
    assert confirm(house, second).status == 200
    assert asked(house, TO_ADD, mail, "another.secret") != sid


@covers(settings=MAILING)
def links_that_were_not_sent(house: House) -> None:
    """T102: what is not right is shown escaped, if at all, on a page that nothing else can use."""
    mail = address(house)
    asked(house, TO_ADD, mail, next_link="javascript:alert(1)")
    link = OFFICE.link(mail)
    path, query = token_of(link)
    shown = look(house, link)
    headers = shown.headers
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert "access-control-allow-origin" not in headers
    marker = '"><script>alert(1)</script>'
    for wrong in ("", "token=", urlencode({"token": marker}), f"{query}x"):
        answer = house.connection.ask("GET", path, query=wrong)
        assert answer.status == 400
        assert b"<script" not in answer.raw
    for data in (b"", b"token=", urlencode({"token": marker}).encode()):
        answer = house.connection.ask("POST", path, data, headers=FORM)
        assert answer.status == 400
        assert b"<script" not in answer.raw
    other = PAGE.replace("{sid}", "%22%3E%3Cscript%3E")
    assert house.connection.ask("GET", other, query=query).status == 400
    done = confirm(house, link)
    assert done.status == 200
    assert b"javascript" not in done.raw
    assert b"href" not in done.raw


@covers("GET /v3/auth/{authType}/fallback/web", settings=MAILING)
def the_stage_of_the_message_in_a_browser(house: House) -> None:
    """C3.07."""
    mail = address(house)
    body = {"username": house.name("new"), "password": PASSWORD}
    session = house.ask("POST", REGISTER, body=body).json["session"]
    path = f"/_matrix/client/v3/auth/{STAGE}/fallback/web"
    assert b'name="email"' in house.connection.ask("GET", path, query={"session": session}).raw

    def submit(**fields: str) -> Answer:
        data = urlencode({"session": session, **fields}).encode()
        return house.connection.ask("POST", path, data, headers=FORM)

    assert submit(email="no address").status == 401
    assert b"that we have sent you" in submit(email=mail).raw
    assert submit().status == 401
    confirm(house, OFFICE.link(mail))
    assert b"onAuthDone" in submit().raw
    made = house.good("POST", REGISTER, body={**body, "auth": {"session": session}})
    found = User.of(house, made).good("GET", MINE)["threepids"]
    assert [one["address"] for one in found] == [mail]


@covers(settings=MAILING)
def wishes_that_make_no_sense(house: House) -> None:
    """C4.05, C4.07."""
    right = {"client_secret": "s", "email": "a@example.org", "send_attempt": 1}
    for path in (TO_REGISTER, TO_ADD, FOR_PASSWORD):
        for key in right:
            bad = {name: value for name, value in right.items() if name != key}
            house.bad(400, "M_MISSING_PARAM", "POST", path, body=bad)
            house.bad(400, "M_BAD_JSON", "POST", path, body={**right, key: []})
        for wrong in (
            "",
            "a",
            "@example.org",
            "a@",
            "a@b@example.org",
            "a b@example.org",
            "a@example.org\nBcc: b@example.org",
            "a@example.org, b@example.org",
            "<a@example.org>",
            '"a"@example.org',
            "ä@example.org",
            f"{65 * 'a'}@example.org",
            f"a@{250 * 'a'}.org",
            "a@-example.org",
        ):
            house.bad(400, "M_INVALID_PARAM", "POST", path, body={**right, "email": wrong})
        for wrong in ("", "a b", 256 * "a", "ä"):
            bad = {**right, "client_secret": wrong}
            house.bad(400, "M_INVALID_PARAM", "POST", path, body=bad)


MSISDN = {"client_secret": "s", "country": "GB", "phone_number": "07700900001", "send_attempt": 1}
BY_TELEPHONE = [f"{path}/msisdn/requestToken" for path in (REGISTER, NEW, MINE)]
BIND = {"client_secret": "s", "id_server": "id.test", "id_access_token": "t", "sid": "1"}


@covers(
    *(f"POST {path}" for path in BY_TELEPHONE),
    f"POST {MINE}/bind",
    f"POST {MINE}",
    settings=MAILING,
)
def what_is_not_done_here(house: House) -> None:
    """C4.07, C4.10, H.06: no telephones, and no identity servers."""
    alice = house.user("alice")
    for path in BY_TELEPHONE:
        house.bad(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "POST", path, body=MSISDN)
        house.bad(400, "M_MISSING_PARAM", "POST", path, body={})
    bind = f"{MINE}/bind"
    alice.bad(400, "M_SERVER_NOT_TRUSTED", "POST", bind, body=BIND, described=False)
    alice.bad(400, "M_MISSING_PARAM", "POST", bind, body={}, described=False)
    old = {"three_pid_creds": BIND}
    alice.bad(403, "M_THREEPID_AUTH_FAILED", "POST", MINE, body=old)
    alice.bad(400, "M_MISSING_PARAM", "POST", MINE, body={}, described=False)
    alice.bad(400, "M_BAD_JSON", "POST", MINE, body={"three_pid_creds": 1}, described=False)


@covers(settings=OPEN)
def where_no_mail_is_sent(house: House) -> None:
    """C4.07: and no stage is offered that cannot be passed."""
    alice = house.user("alice")
    right = {"client_secret": "s", "email": "a@example.org", "send_attempt": 1}
    for path in (TO_REGISTER, TO_ADD, FOR_PASSWORD):
        house.bad(403, "M_THREEPID_DENIED", "POST", path, body=right)
    for path in BY_TELEPHONE:
        house.bad(403, "M_THREEPID_DENIED", "POST", path, body=MSISDN)
    body = {"sid": "1", "client_secret": "s"}
    alice.bad(403, "M_THREEPID_DENIED", "POST", f"{MINE}/add", body=body, described=False)
    assert alice.good("GET", MINE) == {"threepids": []}
    found = alice.good("GET", "/v3/capabilities")["capabilities"]
    assert found["m.3pid_changes"] == {"enabled": False}
    first = house.ask("POST", REGISTER, body={"password": PASSWORD}).json
    assert first["flows"] == [{"stages": [DUMMY["type"]]}]
    house.bad(401, "M_MISSING_TOKEN", "POST", NEW, body={"new_password": PASSWORD})


@covers(settings=MAILING_LIMITED)
def not_too_much_mail(house: House) -> None:
    """T094: nobody's mailbox is filled, and strangers who cannot register get no mail."""
    mail = address(house)
    denied = {"client_secret": "s", "email": mail, "send_attempt": 1}
    house.bad(403, "M_THREEPID_DENIED", "POST", TO_REGISTER, body=denied)
    for attempt in range(1, 8):
        body = {"client_secret": "s", "email": mail, "send_attempt": attempt}
        answer = house.ask("POST", FOR_PASSWORD, body=body)
        if answer.status != 200:
            break
    assert (answer.status, attempt) == (429, 6)
    assert house.ask("POST", FOR_PASSWORD, body={**body, "email": address(house)}).status == 200


@covers(settings=MAILING)
def mail_about_what_is_unread(house: House) -> None:
    """E.06: pushers of the kind `email` write to one's own addresses."""
    alice, mail = house.user("alice"), address(house)
    setting, listing = "/v3/pushers/set", "/v3/pushers"
    wanted: dict[str, Any] = {
        "kind": "email",
        "app_id": "m.email",
        "pushkey": mail,
        "app_display_name": "E-mail",
        "device_display_name": mail,
        "lang": "en",
        "data": {},
    }
    alice.bad(400, "M_INVALID_PARAM", "POST", setting, body=wanted)
    add(alice, mail)
    for unfit in ({"app_id": "test.app"}, {"pushkey": "nobody"}, {"pushkey": ""}):
        alice.bad(400, "M_INVALID_PARAM", "POST", setting, body={**wanted, **unfit})
    house.user("bob").bad(400, "M_INVALID_PARAM", "POST", setting, body=wanted)
    more = {"pushkey": mail.upper(), "data": {"url": "https://push.test/"}}
    assert alice.good("POST", setting, body={**wanted, **more}) == {}
    (shown,) = alice.good("GET", listing)["pushers"]
    assert {key: shown[key] for key in wanted} == wanted
    alice.good("POST", f"{MINE}/delete", body={"medium": "email", "address": mail})
    assert alice.good("GET", listing)["pushers"] == []
