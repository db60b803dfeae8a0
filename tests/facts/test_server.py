"""What Hypercorn 0.18, h11 0.16, Quart and quart-trio do: "Server" in section 6 of threats (T160).

The front door is built around these. A test that fails after an upgrade says which reason has gone
or changed; `tests/live/test_control.py` shows the same from outside, on a real process.
"""

from __future__ import annotations

import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import h11
import hpack
import hypercorn.trio
import pytest
import quart
import trio
import trio.testing
import trustme
from hypercorn.config import Config
from hypercorn.events import RawData
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from quart_trio import QuartTrio

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


async def _answers_ok(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await trio.sleep(0.2)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def _serving(app: Any, config: Config | None = None) -> AsyncIterator[int]:
    """Hypercorn as it comes; gives its port. What ends it is raised."""
    config = config or Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(
            partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait)
        )
        yield int(bound[0].rpartition(":")[2])
        nursery.cancel_scope.cancel()


async def _exchange(port: int, data: bytes, wait_s: float = 0.5) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(data)
        received = b""
        with trio.move_on_after(wait_s):
            while piece := await stream.receive_some():
                received += piece
    return received


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _http2(path: bytes = b"/", method: bytes = b"GET") -> bytes:
    fields = [(b":method", method), (b":scheme", b"http"), (b":authority", b"x"), (b":path", path)]
    return PREFACE + _frame(4, 0, 0, b"") + _frame(1, 5, 1, hpack.Encoder().encode(fields))


def _priorities() -> bytes:
    weights = (_frame(2, 0, 1 + 2 * n, struct.pack(">IB", 0, 10)) for n in range(1500))
    return PREFACE + _frame(4, 0, 0, b"") + b"".join(weights)


WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bKdPyn3u98cTfZJSh4TNeQ==\r\n\r\nx"
)
H2C = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n"
)


@pytest.mark.parametrize(
    ("packet", "error"),
    [
        (_http2(method=b"\xff\xfe"), "UnicodeDecodeError"),
        (_http2(path=b"/\xff\xfe"), "UnicodeDecodeError"),
        (_priorities(), "TooManyStreamsError"),
        (H2C, "InvalidFrameError"),
        (WEBSOCKET, "LocalProtocolError"),
    ],
    ids=["method", "path", "priorities", "h2c", "websocket"],
)
async def test_an_exception_in_one_connection_ends_the_server(packet: bytes, error: str) -> None:
    """T069: one packet each, from anybody."""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with _serving(_answers_ok) as port:
            await _exchange(port, packet, wait_s=2)
            await trio.sleep(2)  # cut short when the error gets here
    assert error in _names(caught.value)


def _names(error: BaseException) -> set[str]:
    found = [error]
    for item in found:
        if isinstance(item, BaseExceptionGroup):
            found.extend(item.exceptions)
    return {type(item).__name__ for item in found}


async def test_the_http2_preface_is_believed_where_http1_was_negotiated() -> None:
    """T069: taking h2 out of ALPN does not help."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("x.test").configure_cert(server)
    server.set_alpn_protocols(["http/1.1"])
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    client.set_alpn_protocols(["http/1.1"])
    config = Config()
    config.create_ssl_context = lambda: server  # type: ignore[method-assign]
    config.certfile = config.keyfile = "given above"
    with pytest.raises(BaseExceptionGroup) as caught:
        async with _serving(_answers_ok, config) as port:
            async with await trio.open_tcp_stream("127.0.0.1", port) as plain:
                stream = trio.SSLStream(plain, client, server_hostname="x.test")
                await stream.send_all(_http2(path=b"/\xff"))
                assert stream.selected_alpn_protocol() == "http/1.1"
                await trio.sleep(2)  # cut short when the error gets here
    assert "UnicodeDecodeError" in _names(caught.value)


async def test_sending_is_shielded_and_has_no_deadline() -> None:
    """T071: neither cancellation nor Quart's RESPONSE_TIMEOUT ends a send."""

    reads_at_last = trio.Event()

    class Stuck:
        async def send_all(self, data: bytes) -> None:
            await reads_at_last.wait()

    server = TCPServer(None, Config(), WorkerContext(None), {}, Stuck())  # type: ignore[arg-type]
    ended: list[bool] = []

    async def send() -> None:
        with trio.move_on_after(0.01):
            await server.protocol_send(RawData(b"x"))
        ended.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(0.2)
        assert not ended
        reads_at_last.set()


def test_defaults_that_are_too_large_or_missing() -> None:
    config = Config()
    assert config.keep_alive_timeout == 5
    assert config.ssl_handshake_timeout == 60
    assert config.backlog == 100
    assert config.read_timeout is None
    assert not [name for name in dir(config) if "max_connections" in name]
    app = quart.Quart(__name__)
    assert app.config["MAX_CONTENT_LENGTH"] == 16 * 1024 * 1024
    assert app.config["BODY_TIMEOUT"] == app.config["RESPONSE_TIMEOUT"] == 60


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        b"GET http://evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /../x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n",
    ],
    ids=["both lengths", "1.0 chunked", "bare LF", "folded", "absolute", "dots", "list"],
)
def test_h11_accepts_ambiguous_heads(head: bytes) -> None:
    """T073: so heads are checked before h11 sees them."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    assert isinstance(connection.next_event(), h11.Request)


def test_both_framing_headers_reach_the_handler() -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}


def test_h11_takes_a_bare_line_feed_and_trailers_at_the_end_of_a_chunked_body() -> None:
    for end in (b"0\r\n\n", b"0\r\nContent-Length: 7\r\n\r\n"):
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + end
        )
        connection.next_event()
        assert isinstance(connection.next_event(), h11.EndOfMessage)


def test_h11_bounds_only_what_is_incomplete() -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1000)
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n")
    assert isinstance(connection.next_event(), h11.Request)


def test_h11_waits_for_an_upgrade_that_nobody_grants() -> None:
    """Until an answer is sent, the bytes behind an upgrade are not parsed."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: a\r\n\r\n")
    assert isinstance(connection.next_event(), h11.Request)
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    assert connection.next_event() is h11.PAUSED


async def test_continue_is_said_before_any_limit_is_looked_at() -> None:
    """T076."""
    app = QuartTrio(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 10

    @app.post("/")
    async def post() -> str:
        return str(len(await quart.request.get_data()))

    async with _serving(app) as port:
        received = await _exchange(
            port,
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n"
            b"Expect: 100-continue\r\n\r\n",
        )
    assert received.startswith(b"HTTP/1.1 100")
    assert b"HTTP/1.1 413" in received


async def test_the_asgi_path_is_decoded() -> None:
    """T065, T091: route and verify by raw_path."""
    seen: list[tuple[str, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append((scope["path"], scope["raw_path"]))
        await _answers_ok(scope, receive, send)

    async with _serving(app) as port:
        await _exchange(port, b"GET /a%2Fb%FF%00 HTTP/1.1\r\nHost: x\r\n\r\n", wait_s=0.2)
    assert seen == [("/a/b\ufffd\0", b"/a%2Fb%FF%00")]


async def test_a_client_that_disconnects_cancels_the_handler() -> None:
    """20 of 20, through quart-trio."""
    started = cancelled = 0
    app = QuartTrio(__name__)

    @app.get("/")
    async def wait() -> str:
        nonlocal started, cancelled
        started += 1
        try:
            await trio.sleep(60)
        except trio.Cancelled:
            cancelled += 1
            raise
        return ""

    async with _serving(app) as port:
        for number in range(20):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                with trio.fail_after(2):
                    while started <= number:
                        await trio.sleep(0.005)
        with trio.fail_after(2):
            while cancelled < 20:
                await trio.sleep(0.005)


async def test_quart_buffers_an_upload_that_nobody_reads() -> None:
    """T076: streams go past Quart."""
    app = QuartTrio(__name__)
    app.config["MAX_CONTENT_LENGTH"] = None
    buffered = 0

    @app.post("/")
    async def lazy() -> str:
        nonlocal buffered
        await trio.sleep(0.5)
        buffered = len(quart.request.body._data)
        return ""

    async with _serving(app) as port:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n"
        await _exchange(port, head + bytes(8_388_608), wait_s=2)
    assert buffered == 8_388_608


async def test_https_compatible_streams_give_no_closing_notice() -> None:
    """Trio: the front door's TLS streams are of the other kind."""
    authority = trustme.CA()
    server, client = (
        ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)
    )
    authority.issue_cert("x.test").configure_cert(server)
    authority.configure_trust(client)
    for compatible in (True, False):
        ours, theirs = trio.testing.memory_stream_pair()
        serving = trio.SSLStream(ours, server, server_side=True, https_compatible=compatible)
        asking = trio.SSLStream(theirs, client, server_hostname="x.test")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serving.do_handshake)
            await asking.do_handshake()
        await serving.aclose()
        if compatible:
            with pytest.raises(trio.BrokenResourceError):
                await asking.receive_some()
        else:
            assert await asking.receive_some() == b""
