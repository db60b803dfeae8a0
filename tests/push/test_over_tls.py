"""The real server, and a gateway that it reaches over TLS (E.01 to E.05, T131, T132)."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from attrs import frozen

from tests.push.web_gateway import PATH, WebGateway, web_gateway
from tests.server import Server, running_server

MESSAGES = 60
PASSWORD = "a good password"


@frozen
class Person:
    """Somebody with a session."""

    connection: http.client.HTTPConnection
    token: str
    user_id: str

    def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """Call the client API."""
        headers = {"Authorization": f"Bearer {self.token}"}
        sent = None if body is None else json.dumps(body)
        self.connection.request(method, f"/_matrix/client{path}", sent, headers)
        answer = self.connection.getresponse()
        data = json.loads(answer.read())
        assert answer.status == status, data
        return data

    def say(self, room: str, text: str) -> str:
        """A message; the event's id."""
        path = f"/v3/rooms/{quote(room)}/send/m.room.message/{quote(text)}"
        return str(self.ask("PUT", path, {"msgtype": "m.text", "body": text})["event_id"])

    def pusher(self, url: str, pushkey: str, status: int = 200, **data: Any) -> Any:
        """Set a pusher."""
        body = {
            "kind": "http",
            "app_id": "test.app",
            "pushkey": pushkey,
            "app_display_name": "App",
            "device_display_name": "Phone",
            "lang": "en",
            "data": {"url": url, **data},
            "append": True,
        }
        return self.ask("POST", "/v3/pushers/set", body, status)

    def pushkeys(self) -> list[str]:
        """The keys of the pushers."""
        return [one["pushkey"] for one in self.ask("GET", "/v3/pushers")["pushers"]]


def person(server: Server, name: str) -> Person:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    connection.request("POST", "/_matrix/client/v3/register", json.dumps(body))
    made = json.loads(connection.getresponse().read())
    return Person(connection, made["access_token"], made["user_id"])


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[WebGateway]:
    with web_gateway(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture(scope="module")
def server(gateway, tmp_path_factory) -> Iterator[Server]:
    outbound = {"extra_ca_files": [str(gateway.authority)], "private_push_gateways": True}
    folder = tmp_path_factory.mktemp("server")
    with running_server(folder, {"outbound": outbound}) as found:
        yield found


@pytest.fixture
def people(gateway, server) -> Iterator[tuple[Person, Person, str]]:
    """Two in a room, the second with a pusher; the room."""
    number = len(gateway.told) + time.monotonic_ns()
    one, other = person(server, f"a{number}"), person(server, f"b{number}")
    room = one.ask("POST", "/v3/createRoom", {"preset": "public_chat"})["room_id"]
    other.ask("POST", f"/v3/join/{quote(room)}", {})
    gateway.told.clear()
    yield one, other, room
    gateway.answer = lambda _: (200, b'{"rejected":[]}')
    gateway.headers.clear()
    other.ask("POST", "/v3/logout/all")
    for who in (one, other):
        who.connection.close()


def test_a_message_reaches_the_gateway(gateway, people):
    one, other, room = people
    other.pusher(gateway.url, "key", own={"a": [1]})
    event_id = one.say(room, "hello")
    (told,) = gateway.until(1)
    assert (told["event_id"], told["content"]["body"]) == (event_id, "hello")
    assert told["counts"] == {"unread": 1}
    assert told["devices"][0]["data"] == {"own": {"a": [1]}}
    other.ask("POST", f"/v3/rooms/{quote(room)}/receipt/m.read/{quote(event_id)}", {})
    assert gateway.until(2)[1]["counts"] == {"unread": 0}


def test_from_sending_to_the_gateway_takes_less_than_a_second(gateway, people):
    """The 95th percentile, while messages come as fast as one connection can send them."""
    one, other, room = people
    other.pusher(gateway.url, "key", format="event_id_only")
    began: dict[str, float] = {}
    for number in range(MESSAGES):
        before = time.monotonic()
        began[one.say(room, f"m{number}")] = before
    told = gateway.until(MESSAGES)
    assert [each["event_id"] for each in told] == list(began)
    took = sorted(at - began[each["event_id"]] for at, each in gateway.told)
    assert took[int(len(took) * 0.95)] < 1.0


def test_t132_what_a_gateway_rejects_is_removed(gateway, people):
    one, other, room = people
    gateway.answer = lambda _: (200, b'{"rejected":["gone","not ours"]}')
    other.pusher(gateway.url, "gone")
    other.pusher(gateway.url, "stays")
    one.say(room, "hello")
    gateway.until(2)
    give_up = time.monotonic() + 5
    while other.pushkeys() != ["stays"]:
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.mark.parametrize("status", [301, 404, 429, 500])
def test_t131_an_error_is_tried_again_and_a_redirect_not_followed(status, gateway, people):
    one, other, room = people
    gateway.headers["Location"] = f"https://127.0.0.1:{gateway.port}{PATH}?redirected"
    gateway.answer = lambda _: (status, b"{}") if len(gateway.told) < 2 else (200, b"{}")
    other.pusher(gateway.url, "key")
    one.say(room, "hello")
    first, second = gateway.until(2)
    assert first == second
    assert gateway.told[1][0] - gateway.told[0][0] > 0.5
    assert other.pushkeys() == ["key"]


def test_t131_an_endless_answer_is_cut_off(gateway, people):
    one, other, room = people
    gateway.answer = lambda _: (200, b" " * 1_000_000)
    other.pusher(gateway.url, "key")
    one.say(room, "hello")
    gateway.until(2)  # it did not count as an answer
    gateway.answer = lambda _: (200, b"{}")
    gateway.until(len(gateway.told) + 1)
    assert other.pushkeys() == ["key"]


def test_notifications_go_on_after_a_kill(gateway, server, people):
    one, other, room = people
    gateway.answer = lambda _: (503, b"{}")
    other.pusher(gateway.url, "key")
    event_id = one.say(room, "hello")
    gateway.until(1)
    server.kill()
    gateway.answer = lambda _: (200, b"{}")
    gateway.told.clear()
    server.start()
    for who in (one, other):
        who.connection.close()
    assert gateway.until(1)[0]["event_id"] == event_id


def test_t131_private_addresses_are_not_called_unless_the_configuration_says_so(
    gateway, tmp_path
) -> None:
    """Neither as a literal nor as a name that leads there (`localhost`)."""
    outbound = {"extra_ca_files": [str(gateway.authority)]}
    with running_server(tmp_path, {"outbound": outbound}) as server:
        one, other = person(server, "one"), person(server, "other")
        room = one.ask("POST", "/v3/createRoom", {"preset": "public_chat"})["room_id"]
        other.ask("POST", f"/v3/join/{quote(room)}", {})
        gateway.told.clear()
        refused = other.pusher(gateway.url, "key", 400)
        assert refused["errcode"] == "M_INVALID_PARAM"
        other.pusher(gateway.url.replace("127.0.0.1", "localhost"), "key")
        one.say(room, "hello")
        give_up = time.monotonic() + 10
        while "AddressRefused" not in server.log_tail():
            assert time.monotonic() < give_up, server.log_tail()
            time.sleep(0.02)
        assert gateway.told == []
        for who in (one, other):
            who.connection.close()
