"""A device learns of its own message from the answer to its request first, from `/sync` second.

matrix-js-sdk throws away the state of a reply in a thread when it is the other way round.
"""

from __future__ import annotations

import json
import select
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import trio
import trio.testing

from matrixbox.store.nids import DeviceNid
from matrixbox.sync.sends import AT_MOST_S, Sends
from tests.server import Server

ROUNDS = 150


def test_a_device_hears_of_its_own_message_after_the_request_was_answered(server: Server):
    with closing(connection(server)) as sending, closing(connection(server)) as polling:
        body = {"username": "echo", "password": "echo echo", "auth": {"type": "m.login.dummy"}}
        token = ask(sending, "POST", "/v3/register", body)["access_token"]
        room = ask(sending, "POST", "/v3/createRoom", {}, token)["room_id"]
        since = ask(polling, "GET", "/v3/sync", None, token)["next_batch"]
        too_early = 0
        for number in range(ROUNDS):
            begin(polling, "GET", f"/v3/sync?timeout=20000&since={since}", None, token)
            path = f"/v3/rooms/{room}/send/m.room.message/{number}"
            begin(sending, "PUT", path, {"msgtype": "m.text", "body": "echo"}, token)
            assert select.select([polling.sock], [], [], 20)[0], "no answer to /sync"
            too_early += not select.select([sending.sock], [], [], 0)[0]
            event_id = end(sending.getresponse())["event_id"]
            news = end(polling.getresponse())
            since = news["next_batch"]
            events = news["rooms"]["join"][room]["timeline"]["events"]
            assert [event["event_id"] for event in events] == [event_id]
    assert too_early == 0


def connection(server: Server) -> HTTPConnection:
    """A connection of its own."""
    return HTTPConnection("127.0.0.1", server.port, timeout=20)


def ask(
    connection: HTTPConnection, method: str, path: str, body: Any, token: str | None = None
) -> Any:
    """A request and its answer."""
    begin(connection, method, path, body, token)
    return end(connection.getresponse())


def begin(connection: HTTPConnection, method: str, path: str, body: Any, token: str | None) -> None:
    """Send a request."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body)
    connection.request(method, f"/_matrix/client{path}", data, headers)


def end(answer: HTTPResponse) -> Any:
    """The body of an answer that is no error."""
    data = json.loads(answer.read())
    assert answer.status == 200, data
    return data


async def test_news_wait_for_the_requests_under_way_and_not_for_later_ones(autojump_clock):
    sends = Sends()
    phone, laptop = DeviceNid(1), DeviceNid(2)
    first, second = sends.begin(phone), sends.begin(phone)
    order: list[str] = []

    async def hear(device: DeviceNid, who: str) -> None:
        await sends.answered(device)
        order.append(who)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear, phone, "phone")
        nursery.start_soon(hear, laptop, "laptop")
        await trio.testing.wait_all_tasks_blocked()
        later = sends.begin(phone)
        for answered in (second, first):
            await trio.testing.wait_all_tasks_blocked()
            assert order == ["laptop"]
            sends.end(phone, answered)
    assert order == ["laptop", "phone"]
    sends.end(phone, later)


async def test_a_request_that_is_not_answered_holds_news_back_for_a_moment_only(autojump_clock):
    sends = Sends()
    sends.begin(DeviceNid(1))
    before = trio.current_time()
    await sends.answered(DeviceNid(1))
    assert trio.current_time() - before == AT_MOST_S
