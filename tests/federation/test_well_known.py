"""Delegation: what counts as one, how it is fetched, how long it is believed.

[B2.03], [B2.08]; threats T055.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection

import pytest
import trio
from attrs import frozen

from matrixbox.federation import well_known
from matrixbox.federation.well_known import WellKnown, life_s
from tests.net.calling import IP, Net, net
from tests.net.web import Reply, dripping, hang_up, raw, reply, silence
from tests.server import running_server

PATH = well_known.PATH
HOUR = 3600


@frozen
class Asking:
    net: Net
    known: WellKnown

    def on(self, answer: Reply, host: str = "a.test", target: str = PATH) -> None:
        """Answer so."""
        self.net.web.on(host, target, answer)

    async def get(self) -> str | None:
        """What a.test delegates to."""
        return await self.known.delegation("a.test")

    async def hurry(self, clock, rate: float) -> None:
        """Let time pass quickly, once there is a connection: TLS takes real time."""
        self.net.web.on("a.test", "/warm", reply())
        await self.net.client.request("GET", "https://a.test/warm")
        clock.rate = rate

    @property
    def fetched(self) -> int:
        """How often the document was asked for."""
        return sum(seen.target == PATH for seen in self.net.web.seen)


@asynccontextmanager
async def asking() -> AsyncIterator[Asking]:
    async with net() as it:
        it.site("a.test", IP, 443)
        yield Asking(it, WellKnown(it.client))


@pytest.fixture
def clock(mock_clock):
    mock_clock.rate = 1
    return mock_clock


def delegating(to: str = "b.test", **headers: str) -> Reply:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return reply(b'{"m.server": "%s"}' % to.encode(), 200, named)


async def test_the_document_is_asked_for_in_the_plain_way():
    async with asking() as it:
        it.on(reply(b'{"m.server": "b.test"}', 200, [("Content-Type", "text/plain")]))
        assert await it.get() == "b.test"
        (seen,) = it.net.web.seen
        assert (seen.method, seen.host, seen.sni) == ("GET", "a.test", "a.test")
        assert "authorization" not in seen.headers
        assert it.net.switchboard.rings == [(IP, 443)]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", b"null", b"[]", b'"b.test"', b'{"m.server": null}', b'{"m.server": ""}'),
        *(b'{"m.server": {}}', b'{"m.server": ["b.test"]}', b'{"m.server": 8448}', b"<html>"),
        *(
            b'{"m.server": "https://b.test"}',
            b'{"m.server": "b.test/x"}',
            b'{"m.server": "u@b.test"}',
        ),
        *(b'{"m.server": "b.test:"}', b'{"m.server": " b.test"}', b'{"m.server": "b\\u00fc.test"}'),
        *(b'{"m.server": "b.test:8448:1"}', b'{"m.server": "b.test", "m.server": "c.test"}'),
        *(b'\xef\xbb\xbf{"m.server": "b.test"}', b'{"m.server": "b.test"} x', b"[" * 40_000),
        b'{"m.server": "' + b"b" * 300 + b'"}',
    ],
)
async def test_t055_what_is_no_delegation_counts_as_none(body):
    async with asking() as it:
        it.on(reply(body))
        assert await it.get() is None


@pytest.mark.parametrize("status", [201, 204, 400, 401, 403, 404, 410, 429, 500, 503])
async def test_other_statuses_count_as_none(status):
    async with asking() as it:
        it.on(reply(b'{"m.server": "b.test"}', status))
        assert await it.get() is None


@pytest.mark.parametrize(
    "answer",
    [
        hang_up,
        silence,
        raw(b"nonsense\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 52428800\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b" " * 60_000),
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n", b" ", 1),
        dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 1),
        reply(b"x", 200, [("Content-Encoding", "gzip")]),
    ],
)
async def test_t055_a_hostile_answer_costs_little_and_counts_as_none(answer, mock_clock):
    async with asking() as it:
        it.on(answer)
        await it.hurry(mock_clock, 40)
        before = trio.current_time()
        assert await it.get() is None
        assert trio.current_time() - before < well_known.TOTAL_S + 5
        fetched = it.fetched
        assert await it.get() is None
        assert it.fetched == fetched, "a failure is remembered"


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_b2_03_redirects_are_followed(status):
    async with asking() as it:
        it.net.site("www.test", "5.6.7.8", 8443)
        it.on(reply(b"", status, [("Location", "/one?x=y")]))
        next_ = "https://www.test:8443/two#fragment"
        it.on(reply(b"", status, [("Location", next_)]), target="/one?x=y")
        it.on(delegating("b.test"), "www.test:8443", "/two")
        assert await it.get() == "b.test"


@pytest.mark.parametrize(
    "location",
    [
        *("http://a.test/x", "ftp://a.test/x", "https://127.0.0.1/x", "https://inside.test/x", ""),
        *("https://a.test:22/x", "https://u:p@a.test/x", "https://127.1/x", "https://[::1]/x"),
        *(
            "//inside.test/x",
            "\\\\a.test\\x",
            "https://a.test:x/",
            "https://[/",
            "javascript:x",
            PATH,
        ),
    ],
)
async def test_t055_redirects_that_are_not_followed(location):
    async with asking() as it:
        it.net.names.add("inside.test", "A", "192.168.1.1")
        it.on(reply(b"", 302, [("Location", location)]))
        it.net.web.on("a.test", "/x", delegating("b.test"))
        assert await it.get() is None
        assert set(it.net.switchboard.rings) == {(IP, 443)}


async def test_t055_a_redirect_without_a_place_counts_as_none():
    async with asking() as it:
        it.on(reply(b"", 302))
        assert await it.get() is None


async def test_t055_loops_of_redirects_end():
    async with asking() as it:
        it.on(reply(b"", 302, [("Location", "/one")]))
        it.on(reply(b"", 302, [("Location", PATH)]), target="/one")
        assert await it.get() is None
        assert len(it.net.web.seen) == 2


@pytest.mark.parametrize(("redirects", "expected"), [(5, "b.test"), (6, None)])
async def test_t055_five_redirects_and_no_more(redirects, expected):
    async with asking() as it:
        it.on(reply(b"", 302, [("Location", "/1")]))
        for n in range(1, redirects):
            it.on(reply(b"", 302, [("Location", f"/{n + 1}")]), target=f"/{n}")
        it.on(delegating("b.test"), target=f"/{redirects}")
        assert await it.get() == expected


async def test_t055_all_redirects_together_have_one_deadline(mock_clock):
    async def slow(stream, seen) -> None:
        await trio.sleep(5)
        await reply(b"", 302, [("Location", f"/{len(seen.target)}x" + seen.target[1:])])(
            stream, seen
        )

    async with asking() as it:
        it.net.web.replies[()] = slow
        await it.hurry(mock_clock, 40)
        before = trio.current_time()
        assert await it.get() is None
        assert trio.current_time() - before < well_known.TOTAL_S + 5


async def test_t055_a_caller_who_gives_up_has_not_waited_in_vain(mock_clock):
    """A host that never answers: the next caller goes on at once."""
    async with asking() as it:
        it.on(silence)
        await it.hurry(mock_clock, 20)
        with trio.move_on_after(0.1):
            await it.get()  # too short to say anything about the host
        with trio.move_on_after(4) as scope:
            await it.get()
        assert scope.cancelled_caught
        with trio.move_on_after(1) as scope:
            assert await it.get() is None
        assert not scope.cancelled_caught


# How long it is believed.


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({}, 24 * HOUR),
        ({"cache-control": "public, max-age=7200"}, 2 * HOUR),
        ({"cache-control": 'Max-Age="7200"'}, 2 * HOUR),
        ({"cache-control": "max-age=99999999999"}, 48 * HOUR),
        ({"cache-control": "max-age=604800"}, 48 * HOUR),
        ({"cache-control": "max-age=0"}, 300),
        ({"cache-control": "max-age=-5"}, 24 * HOUR),
        ({"cache-control": "no-store, max-age=7200"}, 300),
        ({"cache-control": "no-cache"}, 300),
        ({"cache-control": "public"}, 24 * HOUR),
        (
            {
                "date": "Mon, 06 Jul 2026 10:00:00 GMT",
                "expires": "Mon, 06 Jul 2026 13:00:00 GMT",
            },
            3 * HOUR,
        ),
        ({"date": "Mon, 06 Jul 2026 10:00:00 GMT", "expires": "0"}, 300),
        ({"date": "x", "expires": "Mon, 06 Jul 2026 13:00:00 GMT"}, 300),
        ({"expires": "Mon, 06 Jul 2026 13:00:00 GMT"}, 24 * HOUR),
        (
            {
                "cache-control": "max-age=7200",
                "date": "Mon, 06 Jul 2026 10:00:00 GMT",
                "expires": "Mon, 06 Jul 2026 10:00:00 GMT",
            },
            2 * HOUR,
        ),
    ],
)
def test_b2_08_lifetimes(headers, expected_s):
    assert life_s(headers) == expected_s


async def test_b2_08_the_document_is_kept_for_its_lifetime(clock):
    async with asking() as it:
        it.on(delegating(cache_control="max-age=36000"))
        assert await it.get() == "b.test"
        clock.jump(8.9 * HOUR)
        assert await it.get() == "b.test"
        assert it.fetched == 1
        clock.jump(2.2 * HOUR)
        it.on(delegating("c.test"))
        assert await it.get() == "c.test"


async def test_lifetimes_differ_a_little(clock):
    async with net() as it:
        known = WellKnown(it.client)
        for n in range(20):
            it.site(f"n{n}.test", IP, 443)
            it.web.on(f"n{n}.test", PATH, delegating(cache_control="max-age=36000"))
            await known.delegation(f"n{n}.test")
        ends = {round(entry.fresh_until_s) for entry in known._cache._entries.values()}
        assert len(ends) > 5


async def test_b2_08_failures_are_kept_ever_longer_up_to_an_hour(clock):
    async with asking() as it:
        it.on(reply(b"", 404))
        pauses = []
        for _ in range(8):
            started = trio.current_time()
            fetched = it.fetched
            while it.fetched == fetched:
                clock.jump(20)
                assert await it.get() is None
            pauses.append(trio.current_time() - started)
        assert pauses[0] < 25
        assert 90 < pauses[1] < 180
        assert pauses[1] < pauses[2] < pauses[3] < pauses[4]
        assert 2700 < pauses[7] < 4400


async def test_t055_a_delegation_outlives_the_troubles_of_its_host(clock):
    """Valid today, 500 for hours: the old one holds, but not beyond 48 hours."""
    async with asking() as it:
        it.on(delegating(cache_control="max-age=3600"))
        await it.get()
        for trouble in (reply(b"", 500), hang_up, reply(b"", 429)):
            it.on(trouble)
            clock.jump(5 * HOUR)
            assert await it.get() == "b.test"
        it.net.names.drop("a.test")
        clock.jump(30 * HOUR)
        assert await it.get() == "b.test"
        clock.jump(4 * HOUR)
        assert await it.get() is None


async def test_t055_while_in_trouble_the_host_is_asked_now_and_then(clock):
    async with asking() as it:
        it.on(delegating(cache_control="max-age=3600"))
        await it.get()
        it.on(reply(b"", 500))
        clock.jump(2 * HOUR)
        for _ in range(5):
            await it.get()
        assert it.fetched == 2
        it.on(delegating("c.test"))
        clock.jump(200)
        assert await it.get() == "c.test"


async def test_a_delegation_that_is_taken_back_is_forgotten(clock):
    async with asking() as it:
        it.on(delegating(cache_control="max-age=3600"))
        await it.get()
        it.on(reply(b"", 404))
        clock.jump(2 * HOUR)
        assert await it.get() is None


async def test_t055_one_look_up_for_all_who_ask_at_once():
    async with asking() as it:
        it.on(delegating())
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(it.get)
        assert it.fetched == 1


async def test_t055_a_storm_of_names_fills_no_memory():
    async with asking() as it:
        it.known._cache._size = 10
        for n in range(30):
            assert await it.known.delegation(f"n{n}.test") is None
        assert len(it.known._cache) == 10


async def test_doubts_lead_to_another_look_unless_the_last_was_just_now(clock):
    async with asking() as it:
        it.on(delegating())
        await it.get()
        it.known.doubt("a.test")
        await it.get()
        assert it.fetched == 1
        clock.jump(600)
        it.known.doubt("a.test")
        it.on(delegating("c.test"))
        assert await it.get() == "c.test"
        it.known.doubt("unknown.test")


# Serving it.


@pytest.mark.parametrize("name", ["matrix.home.test:443", ""])
def test_b2_12_the_document_that_we_serve(name, tmp_path):
    server = {"name": "home.test", "data_dir": "data", "federation_name": name}
    with running_server(tmp_path, {"server": server}) as running:
        connection = HTTPConnection("127.0.0.1", running.port, timeout=5)
        connection.request("GET", PATH)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
    if name:
        assert answer.status == 200
        assert well_known.delegation_in(body) == name
    else:
        assert answer.status == 404
        assert json.loads(body)["errcode"] == "M_NOT_FOUND"
