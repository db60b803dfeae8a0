"""The page for clients that know no way to sign in, run on Node.js ([C2.10], "Login Fallback")."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from tests.reporting import did_not_run
from tests.server import Server

PROGRAM = Path(__file__).parent / "js" / "page.mjs"
PASSWORD = "a long enough password"
NAMES = count(1)


@pytest.fixture(scope="module")
def node() -> str:
    """Where Node.js is."""
    found = shutil.which("node", path=str(Path(sys.executable).parent)) or shutil.which("node")
    if found is None:
        did_not_run("Node.js is not installed (tests/run.py does it)", required_in_ci=True)
    return found


def ask(server: Server, path: str, body: Any, token: str | None = None) -> Any:
    """A client's request with the password where it is asked for."""
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    url = f"{server.base_url}/_matrix/client{path}"
    request = Request(url, json.dumps(body).encode(), headers)
    with urlopen(request, timeout=20) as answer:
        return json.load(answer)


def registered(server: Server) -> Any:
    """A new account, signed in."""
    name = f"pager{next(NAMES)}"
    auth = {"type": "m.login.dummy"}
    return ask(server, "/v3/register", {"username": name, "password": PASSWORD, "auth": auth})


def through(
    node: str, server: Server, typed: dict[str, str], *, listens: bool = True, **query: str
) -> Any:
    """Fill in the page and press its button; what came of it."""
    address = f"{server.base_url}/_matrix/static/client/login/?{urlencode(query)}"
    job = json.dumps({"address": address, "typed": typed, "listens": listens})
    done = subprocess.run([node, PROGRAM, job], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_app_is_told_what_login_answers(server: Server, node: str):
    """The parameters of the address go to `/login`, but for those that are credentials."""
    ann = registered(server)
    found = through(
        node,
        server,
        {"user": ann["user_id"], "password": PASSWORD},
        device_id="PAGE",
        initial_device_display_name="A <page>",
        refresh_token="true",
        password="not this one",
        type="m.login.odd",
    )
    (asked,) = found["asked"]
    assert asked["path"] == "/_matrix/client/v3/login"
    assert set(asked["body"]) == {
        *("type", "identifier", "password"),
        *("device_id", "initial_device_display_name", "refresh_token"),
    }
    (told,) = found["told"]
    assert (told["user_id"], told["device_id"]) == (ann["user_id"], "PAGE")
    assert told["refresh_token"]
    assert told["well_known"]["m.homeserver"]["base_url"]
    assert (found["heard"], found["done"], found["left"]) == (1, True, "")
    request = Request(
        f"{server.base_url}/_matrix/client/v3/devices/PAGE",
        headers={"Authorization": f"Bearer {told['access_token']}"},
    )
    with urlopen(request, timeout=20) as answer:
        assert json.load(answer)["display_name"] == "A <page>"


def test_a_wrong_password_is_said_and_nobody_is_told(server: Server, node: str):
    ann = registered(server)
    found = through(node, server, {"user": ann["user_id"], "password": "wrong"})
    assert found["told"] == []
    assert not found["done"]
    assert found["trouble"]


def test_a_login_token_is_used_once_the_button_is_pressed(server: Server, node: str):
    """It leaves the address at once; a link alone signs nobody in."""
    ann = registered(server)
    token = login_token(server, ann)
    found = through(node, server, {}, loginToken=token)
    assert found["before"] == token
    assert found["replaced"] == "/_matrix/static/client/login/"
    assert found["asked"][0]["body"] == {"type": "m.login.token", "token": token}
    assert found["told"][0]["user_id"] == ann["user_id"]


def test_without_an_app_the_page_says_that_it_is_done(server: Server, node: str):
    ann = registered(server)
    typed = {"user": ann["user_id"], "password": PASSWORD}
    found = through(node, server, typed, listens=False)
    assert found["done"]
    assert not found.get("trouble")


def test_addresses_and_names_are_told_apart(server: Server, node: str):
    for user, kind in (("ann", "m.id.user"), ("a@b.test", "m.id.thirdparty")):
        found = through(node, server, {"user": f" {user} ", "password": "x"})
        identifier = found["asked"][0]["body"]["identifier"]
        assert identifier["type"] == kind
        assert user in identifier.values()


def login_token(server: Server, who: Any) -> str:
    """A token for another device of the same person."""
    path, token = "/v1/login/get_token", who["access_token"]
    try:
        ask(server, path, {}, token)
    except HTTPError as error:
        session = json.load(error)["session"]
    identifier = {"type": "m.id.user", "user": who["user_id"]}
    auth = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    body = {"auth": {**auth, "session": session}}
    return str(ask(server, path, body, token)["login_token"])
