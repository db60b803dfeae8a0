"""Requests and answers: bounds, deadlines, connections kept (threats T055, T083, T117, T156)."""

from __future__ import annotations

import pytest
import trio

from matrixbox.errors import RemoteError, RemoteInvalid, RemoteTimeout, RemoteUnreachable
from matrixbox.net import connection as connections
from matrixbox.net import http
from matrixbox.net.exchange import Limits, Request, Route, Target
from matrixbox.net.http import InvalidUrl, parse_url
from tests.net.calling import GET, IP, QUICK, net, route
from tests.net.web import dripping, hang_up, raw, reply, silence

OK = b"HTTP/1.1 200 OK\r\n"


async def test_the_request_arrives_as_it_was_made():
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, reply(b'{"a":1}', 201, [("X-One", "1"), ("X-One", "2")]))
        body = b"x" * 700_000
        target = "/_matrix/%21room%3Aa.test/../x?y=%2F&z"
        request = Request("PUT", target, (("Authorization", "X-Matrix a"),), body)
        answer = await it.client.exchange(route(), request, QUICK)
        assert (answer.status, answer.body) == (201, b'{"a":1}')
        assert answer.headers["x-one"] == "1, 2"
        (seen,) = it.web.seen
        assert (seen.method, seen.target, seen.body) == ("PUT", target, body)
        assert seen.headers == {
            "host": "a.test",
            "user-agent": "test",
            "authorization": "X-Matrix a",
            "accept-encoding": "identity",
            "content-length": "700000",
        }


@pytest.mark.parametrize(
    "request_",
    [
        Request("GET", "/a b"),
        Request("GET", "/\r\nX: y"),
        Request("GET", "/", (("A", "b\r\nC: d"),)),
        Request("GET", "/", (("A b", "c"),)),
        Request("GET", "/ü"),
        Request("G T", "/"),
    ],
)
async def test_nothing_slips_into_the_head(request_):
    async with net() as it:
        it.site("a.test")
        with pytest.raises(RemoteInvalid):
            await it.client.exchange(route(), request_, QUICK)
        assert it.web.seen == []


@pytest.mark.parametrize("status", [200, 204, 301, 304, 401, 404, 429, 500, 502, 599])
async def test_any_status_is_an_answer_and_redirects_are_not_followed(status):
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, reply(b"", status, [("Location", "https://b.test/")]))
        answer = await it.client.exchange(route(), GET, QUICK)
        assert (answer.status, answer.headers["location"]) == (status, "https://b.test/")
        assert len(it.web.seen) == 1


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: t\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nabcde",
        OK + b"Connection: close\r\n\r\nabcde",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nabcde",
    ],
)
async def test_bodies_of_each_framing_are_read(data):
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, raw(data, hang_up=True))
        assert (await it.client.exchange(route(), GET, QUICK)).body == b"abcde"


INVALID = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.0\r\n\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" * 3 + b"\r\n\r\n",
    "status of five digits": b"HTTP/1.1 20000 OK\r\n\r\n",
    "control characters": OK + b"A: b\x00c\r\nContent-Length: 0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": OK + b"Content-Length: -1\r\n\r\n",
    "length that is no number": OK + b"Content-Length: 1e3\r\n\r\n",
    "chunk size": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "unknown coding": OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "compressed": OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "length over the limit": OK + b"Content-Length: 100001\r\n\r\n" + b"x" * 10,
    "huge length": OK + b"Content-Length: 99999999999999999999\r\n\r\n",
    "body over the limit": OK + b"Connection: close\r\n\r\n" + b"x" * 100_001,
    "chunks over the limit": OK
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"4000\r\n%s\r\n" % (b"x" * 0x4000) * 7,
    "many fields": OK + b"A: b\r\n" * 101 + b"Content-Length: 0\r\n\r\n",
    "long field": OK + b"A: " + b"b" * 40_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "endless head": OK + b"A: b\r\n" * 20_000,
    "endless line": b"HTTP/1.1 200 " + b"x" * 100_000,
    "interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + OK + b"Content-Length: 0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switch\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("name", INVALID)
async def test_t055_answers_that_break_the_rules_or_the_limits(name):
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, raw(INVALID[name]))
        with pytest.raises(RemoteInvalid):
            await it.client.exchange(route(), GET, QUICK)
        it.web.on("a.test", None, reply(b"fine"))
        assert (await it.client.exchange(route(), GET, QUICK)).body == b"fine"
        assert it.web.connections == 2, "the broken connection is not used again"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200",
        OK + b"Content-Length: 10\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
async def test_an_answer_that_is_cut_off_may_be_asked_for_again(data):
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, raw(data, hang_up=True))
        with pytest.raises(RemoteUnreachable) as caught:
            await it.client.exchange(route(), GET, QUICK)
        assert caught.value.may_retry
        assert caught.value.destination == "a.test"


SLOW = {
    "silence": silence,
    "a byte of the head per second": dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x", 1),
    "interim answers": dripping(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 1),
    "a byte of the body per second": dripping(OK + b"Content-Length: 1000\r\n\r\n", b"x", 1),
    "chunks": dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 1),
    "silence after the head": raw(OK + b"Content-Length: 10\r\n\r\n"),
}


@pytest.mark.parametrize("name", SLOW)
async def test_t055_slow_answers_end_with_the_total_deadline(name, mock_clock):
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, SLOW[name])
        await it.hurry(mock_clock, 20)
        before = trio.current_time()
        with pytest.raises((RemoteTimeout, RemoteInvalid)):
            await it.client.exchange(route(), GET, Limits(total_s=10, idle_s=6, max_bytes=100))
        assert trio.current_time() - before < 12


async def test_silence_ends_with_the_idle_deadline(mock_clock):
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, silence)
        await it.hurry(mock_clock, 20)
        before = trio.current_time()
        with pytest.raises(RemoteTimeout):
            await it.client.exchange(route(), GET, Limits(total_s=60, idle_s=3, max_bytes=100))
        assert trio.current_time() - before < 6


async def test_t117_a_long_answer_must_not_be_slow(mock_clock):
    """Bytes come all the time and the total deadline is far: the rate ends it."""
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, dripping(OK + b"Connection: close\r\n\r\n", b"x" * 10, 1))
        await it.hurry(mock_clock, 50)
        before = trio.current_time()
        with pytest.raises(RemoteTimeout) as caught:
            await it.client.exchange(route(), GET, Limits(total_s=600, idle_s=20, max_bytes=10**6))
        assert "slow" in caught.value.text
        assert trio.current_time() - before < connections.SLOW_GRACE_S + 15


async def test_a_peer_that_does_not_take_the_request_ends_with_the_idle_deadline(mock_clock):
    async def deaf(stream: trio.SocketStream) -> None:
        from tests.net.web import server_context

        tls = trio.SSLStream(stream, server_context("a.test"), server_side=True)
        await tls.do_handshake()
        await trio.sleep_forever()

    async with net() as it, trio.open_nursery() as nursery:
        it.site("a.test")
        listeners = await nursery.start(_serve, deaf)
        it.switchboard.lines[IP, 8448] = listeners[0].socket.getsockname()[1]
        mock_clock.rate = 20
        with pytest.raises(RemoteTimeout):
            huge = Request("PUT", "/", (), b"x" * 30_000_000)
            await it.client.exchange(route(), huge, Limits(total_s=60, idle_s=3, max_bytes=100))
        nursery.cancel_scope.cancel()


async def _serve(handler, task_status):
    await trio.serve_tcp(handler, 0, host="127.0.0.1", task_status=task_status)


async def test_an_answer_before_the_end_of_the_request_counts():
    async def refuse(stream: trio.SocketStream) -> None:
        from tests.net.web import server_context

        tls = trio.SSLStream(
            stream, server_context("a.test"), server_side=True, https_compatible=True
        )
        await tls.do_handshake()
        await tls.receive_some(100)
        await tls.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
        await trio.sleep(0.3)
        await tls.aclose()

    async with net() as it, trio.open_nursery() as nursery:
        it.site("a.test")
        listeners = await nursery.start(_serve, refuse)
        it.switchboard.lines[IP, 8448] = listeners[0].socket.getsockname()[1]
        huge = Request("PUT", "/", (), b"x" * 30_000_000)
        try:
            answer = await it.client.exchange(route(), huge, QUICK)
        except RemoteUnreachable:
            answer = None  # a reset may overtake the answer; never a hang or another error
        assert answer is None or answer.status == 413
        nursery.cancel_scope.cancel()


# Streams.


async def test_a_body_can_be_read_piece_by_piece():
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, reply(b"x" * 3_000_000))
        size, most = 0, 0
        async with it.client.stream(route(), GET, Limits(max_bytes=4_000_000)) as answer:
            assert answer.status == 200
            async for piece in answer:
                size += len(piece)
                most = max(most, len(piece))
        assert size == 3_000_000
        assert most <= connections.RECEIVE_BYTES
        await it.client.exchange(route(), GET, Limits())
        assert it.web.connections == 1


async def test_a_reader_that_stops_early_closes_the_connection():
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, reply(b"x" * 3_000_000))
        async with it.client.stream(route(), GET, Limits()) as answer:
            async for _ in answer:
                break
        it.web.on("a.test", None, reply(b"y"))
        assert (await it.client.exchange(route(), GET, QUICK)).body == b"y"
        assert it.web.connections == 2


async def test_a_reader_may_take_its_time(mock_clock):
    """What the reader does with a piece does not count as the peer's slowness."""
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, reply(b"x" * 100_000))
        await it.hurry(mock_clock, 20)
        size = 0
        async with it.client.stream(route(), GET, Limits(total_s=500, idle_s=2)) as answer:
            async for piece in answer:
                size += len(piece)
                await trio.sleep(4)
        assert size == 100_000


async def test_an_error_of_the_reader_is_the_reader_s():
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, reply(b"x"))
        with pytest.raises(KeyError):
            async with it.client.stream(route(), GET, QUICK):
                raise KeyError
        await it.client.exchange(route(), GET, QUICK)
        assert it.web.connections == 2


# Connections.


async def test_one_connection_serves_one_request_after_the_other():
    async with net() as it:
        it.site("a.test")
        for _ in range(5):
            await it.client.exchange(route(), Request("POST", "/x", (), b"{}"), QUICK)
        assert [seen.connection for seen in it.web.seen] == [1] * 5


async def test_t057_a_connection_is_never_used_for_another_name_host_or_port():
    """One address and one certificate for all: still nobody gets another's connection."""
    async with net() as it:
        for name in ("a.test", "b.test"):
            it.site(name, IP, 8448, 8449)
        a = Target("a.test", 8448)
        routes = [
            Route("a.test", "a.test", "a.test", (a,)),
            Route("another", "a.test", "a.test", (a,)),
            Route("a.test", "b.test", "a.test", (a,)),
            Route("a.test", "a.test", "b.test", (a,)),
            Route("a.test", "a.test", "a.test", (Target("a.test", 8449),)),
        ]
        for _ in range(2):
            for each in routes:
                await it.client.exchange(each, GET, QUICK)
        assert [seen.connection for seen in it.web.seen] == [1, 2, 3, 4, 5] * 2


async def test_targets_in_another_order_are_the_same_route():
    async with net() as it:
        it.site("a.test")
        it.site("b.test")
        targets = (Target("a.test", 8448), Target("b.test", 8448))
        for order in (targets, targets[::-1]):
            await it.client.exchange(Route("a", "a.test", "a.test", order), GET, QUICK)
        assert it.web.connections == 1


async def test_a_connection_that_the_peer_closed_is_not_used():
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, raw(OK + b"Content-Length: 0\r\n\r\n", hang_up=True))
        for method in ("GET", "POST"):
            await it.client.exchange(route(), Request(method, "/x"), QUICK)
            await trio.sleep(0.05)
        assert it.web.connections == 2


async def test_a_connection_on_which_something_came_unasked_is_not_used():
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, raw((OK + b"Content-Length: 1\r\n\r\na") * 2))
        for _ in range(2):
            assert (await it.client.exchange(route(), GET, QUICK)).body == b"a"
            await trio.sleep(0.05)
        assert it.web.connections == 2


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_request_lost_with_an_old_connection_is_made_again(method):
    async with net() as it:
        it.site("a.test")
        await it.client.exchange(route(), GET, QUICK)
        first = True

        async def once(stream, seen) -> None:
            nonlocal first
            await (hang_up if first else reply(b"again"))(stream, seen)
            first = False

        it.web.on("a.test", None, once)
        assert (await it.client.exchange(route(), Request(method, "/x"), QUICK)).body == b"again"
        assert [seen.connection for seen in it.web.seen] == [1, 1, 2]


async def test_a_request_that_must_not_be_made_twice_is_not():
    async with net() as it:
        it.site("a.test")
        await it.client.exchange(route(), GET, QUICK)
        it.web.on("a.test", None, hang_up)
        with pytest.raises(RemoteUnreachable):
            await it.client.exchange(route(), Request("POST", "/x"), QUICK)
        assert len(it.web.seen) == 2


async def test_a_request_on_a_new_connection_is_made_once():
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, hang_up)
        with pytest.raises(RemoteUnreachable):
            await it.client.exchange(route(), GET, QUICK)
        assert len(it.web.seen) == 1


async def test_a_request_whose_answer_began_is_made_once():
    async with net() as it:
        it.site("a.test")
        await it.client.exchange(route(), GET, QUICK)
        it.web.on("a.test", None, raw(b"HTTP/1.1 2", hang_up=True))
        with pytest.raises(RemoteUnreachable):
            await it.client.exchange(route(), GET, QUICK)
        assert len(it.web.seen) == 2


async def test_t156_no_connection_is_idle_for_over_30_seconds(mock_clock):
    async with net() as it:
        it.site("a.test")
        await it.client.exchange(route(), GET, QUICK)
        (pool,) = it.client._pools.values()
        (kept,) = pool.idle
        mock_clock.rate = 50
        await trio.sleep(31)
        assert it.client._pools == {}
        with pytest.raises(trio.ClosedResourceError):
            await kept._stream.send_all(b"x")


async def test_a_busy_connection_is_replaced_now_and_then(mock_clock):
    async with net() as it:
        it.site("a.test")
        mock_clock.rate = 1
        for _ in range(31):
            await it.client.exchange(route(), GET, QUICK)
            mock_clock.jump(20)
        assert it.web.connections == 2


async def test_idle_connections_are_bounded():
    async with net() as it:
        for n in range(http.IDLE_IN_ALL + 5):
            it.names.add(f"n{n}.test", "A", IP)
            it.web.certify(f"n{n}.test")
        it.switchboard.lines[IP, 8448] = it.web.port
        for n in range(http.IDLE_IN_ALL + 5):
            await it.client.exchange(route(f"n{n}.test"), GET, QUICK)
        kept = [key[0] for key, pool in it.client._pools.items() if pool.idle]
        assert kept == [f"n{n}.test" for n in range(5, http.IDLE_IN_ALL + 5)], "the oldest went"
        assert sum(len(pool.idle) for pool in it.client._pools.values()) == http.IDLE_IN_ALL


async def test_t155_a_slow_destination_has_only_so_many_slots():
    async with net() as it:
        it.site("slow.test")
        it.site("good.test")
        it.web.on("slow.test", None, silence)

        def slow() -> int:
            return sum(seen.host == "slow.test" for seen in it.web.seen)

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(it.client.exchange, route("slow.test"), GET, Limits())
            while slow() < http.AT_ONCE_PER_ROUTE:
                await trio.sleep(0.01)
            with trio.fail_after(5):
                await it.client.exchange(route("good.test"), GET, Limits())
            assert slow() == http.AT_ONCE_PER_ROUTE
            with pytest.raises(RemoteTimeout) as caught:
                await it.client.exchange(route("slow.test"), GET, Limits(total_s=0.2))
            assert "earlier requests" in caught.value.text
            nursery.cancel_scope.cancel()
        assert {key[0] for key in it.client._pools} == {"good.test"}


async def test_a_call_that_is_cancelled_leaves_nothing_behind():
    async with net() as it:
        it.site("a.test")
        it.web.on("a.test", None, silence)
        for _ in range(http.AT_ONCE_PER_ROUTE * 2):
            with trio.move_on_after(0.02):
                await it.client.exchange(route(), GET, QUICK)
        assert it.client._pools == {}
        assert it.client._slots.value == http.AT_ONCE


async def test_at_the_end_all_connections_are_closed():
    async with net() as it:
        it.site("a.test")
        await it.client.exchange(route(), GET, QUICK)
        (pool,) = it.client._pools.values()
        (kept,) = pool.idle
    with pytest.raises(trio.ClosedResourceError):
        await kept._stream.send_all(b"x")


# Calls by URL.


async def test_a_url_is_called_with_the_same_guard():
    async with net() as it:
        it.site("push.test", IP, 443)
        it.web.on("push.test", "/_matrix/push/v1/notify?a=b", reply(b"{}"))
        url = "https://Push.test/_matrix/push/v1/notify?a=b#fragment"
        assert (await it.client.request("POST", url, body=b"{}")).body == b"{}"
        (seen,) = it.web.seen
        assert (seen.host, seen.sni, seen.body) == ("push.test", "push.test", b"{}")
        for inside in ("https://127.0.0.1/", "https://[::1]/", "https://192.168.1.1:8443/x"):
            with pytest.raises(RemoteError):
                await it.client.request("GET", inside)
        assert it.switchboard.rings == [(IP, 443)]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://a.test/",
            "ftp://a.test/",
            "//a.test/",
            "a.test",
            "/x",
            "",
            "https://",
            "https:///",
        ),
        *("https://u@a.test/", "https://u:p@a.test/", "https://a.test:99999/", "https://a.test:x/"),
        *(
            "https://a.test:22/",
            "https://a.test:0/",
            "https://127.1/",
            "https://0x7f.1/",
            "https://a b/",
        ),
        *(
            "https://a.te\tst/",
            "https://a.test/\n",
            "https://a.test/ü",
            "https://[::1/",
            "https://::1/",
        ),
        *("https://a..test/", "https://a.test/" + "x" * 5000, "https://[fe80::1%25eth0]/"),
        *("javascript:alert(1)", "https://a.test\\@b.test/", "https://a.test:443:443/"),
    ],
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(InvalidUrl):
        parse_url(url)


@pytest.mark.parametrize(
    ("url", "host", "authority", "port", "target"),
    [
        ("https://a.test", "a.test", "a.test", 443, "/"),
        ("HTTPS://A.test:443/x", "a.test", "a.test", 443, "/x"),
        ("https://a.test:8448/x?y=z", "a.test", "a.test:8448", 8448, "/x?y=z"),
        ("https://[2001:DB8::1]:8448/", "2001:db8::1", "[2001:db8::1]:8448", 8448, "/"),
        ("https://1.2.3.4?x", "1.2.3.4", "1.2.3.4", 443, "/?x"),
        ("http://a.test:8080/%2F", "a.test", "a.test:8080", 8080, "/%2F"),
    ],
)
def test_urls_in_parts(url, host, authority, port, target):
    found = parse_url(url, plain=True)
    assert (found.host, found.authority, found.port, found.target) == (
        host,
        authority,
        port,
        target,
    )
    assert found.route.tls_name == (host if found.scheme == "https" else None)
    assert parse_url(str(found), plain=True) == found


async def test_plain_http_only_when_it_is_asked_for():
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(OK + b"Content-Length: 5\r\n\r\nplain")

    async with net() as it, trio.open_nursery() as nursery:
        it.site("a.test")
        listeners = await nursery.start(_serve, answer)
        it.switchboard.lines[IP, 8080] = listeners[0].socket.getsockname()[1]
        with pytest.raises(InvalidUrl):
            await it.client.request("GET", "http://a.test:8080/")
        found = await it.client.request("GET", "http://a.test:8080/", plain=True)
        assert found.body == b"plain"
        nursery.cancel_scope.cancel()
