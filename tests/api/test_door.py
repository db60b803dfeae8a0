"""The door itself, in process: starting, being cancelled, and keeping out of each other's way."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from matrixbox.api.bounds import Bounds
from matrixbox.api.exchange import Message, Receive, Send
from matrixbox.api.listener import Bind, Door, new_server_context
from matrixbox.observe.health import Parts

SMALL = b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n"
BIG = b"x" * 20_000_000


class App:
    """An ASGI application that does what the path says."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.cancelled = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/wait":
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                self.cancelled += 1
                raise
        if path == "/raises":
            raise ExceptionGroup("", [RuntimeError("a bug"), ValueError("another")])
        if path == "/silent":
            return
        if path == "/shielded":
            with trio.CancelScope(shield=True):
                self.messages += [await receive(), await receive()]
            return
        body = BIG if path == "/big" else b"small"
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


async def start(nursery: trio.Nursery, app: Any, **bounds: float) -> tuple[Door, int]:
    door = Door(app, [Bind("127.0.0.1", 0)], bounds=Bounds(sweep_s=0.02, **bounds))  # type: ignore[arg-type]
    ((_, port),) = await nursery.start(door.run)
    return door, port


async def ask(port: int, data: bytes, until: bytes = b"small", wait_s: float = 2) -> bytes:
    received = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(data)
        with trio.move_on_after(wait_s):
            while until not in received:
                piece = await stream.receive_some()
                if not piece:
                    break
                received += piece
    return received


async def test_a_door_that_is_cancelled_is_not_held_up_by_a_slow_reader() -> None:
    """Sends are shielded, so their sockets are closed."""
    with trio.fail_after(3):
        async with trio.open_nursery() as nursery:
            _, port = await start(nursery, App())
            sock = trio.socket.socket()
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
            await sock.connect(("127.0.0.1", port))
            await sock.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
    sock.close()


async def test_a_bug_of_the_application_is_a_500_and_the_door_stays_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trio.open_nursery() as nursery:
        _, port = await start(nursery, App())
        for path in ("raises", "silent"):
            request = f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            assert (await ask(port, request, b"}")).startswith(b"HTTP/1.1 500 ")
        assert b"small" in await ask(port, SMALL)
        nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == ["application failed"]


async def test_an_application_that_shields_itself_learns_that_the_peer_is_gone() -> None:
    app = App()
    async with trio.open_nursery() as nursery:
        door, port = await start(nursery, app, json_body_s=0.3)
        request = b"POST /shielded HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"
        assert await ask(port, request) == b""
        with trio.fail_after(2):
            while door.connections:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert [message["type"] for message in app.messages] == ["http.request", "http.disconnect"]


async def test_a_stop_tells_the_application_and_cuts_what_does_not_end() -> None:
    app = App()
    told: list[str] = []
    with trio.fail_after(3):
        async with trio.open_nursery() as nursery:
            door = Door(
                app,
                [Bind("127.0.0.1", 0)],
                bounds=Bounds(stop_s=0.3),
                tell_stopping=lambda: told.append("stopping"),
            )
            ((_, port),) = await nursery.start(door.run)
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
                await wait_all_tasks_blocked(0.05)
                before = trio.current_time()
                await door.stop()
                assert 0.3 <= trio.current_time() - before < 1
    assert told == ["stopping"]
    assert (app.cancelled, door.connections) == (1, 0)


async def test_where_every_address_is_taken_that_is_an_error_at_the_start() -> None:
    async with trio.open_nursery() as nursery:
        _, port = await start(nursery, App())
        with trio.fail_after(5), pytest.raises(OSError, match="ddress already in use"):
            await Door(App(), [Bind("127.0.0.1", port)]).run()
        nursery.cancel_scope.cancel()


async def test_t151_where_one_address_is_taken_the_others_are_listened_on() -> None:
    parts = Parts()
    async with trio.open_nursery() as nursery:
        _, taken = await start(nursery, App())
        door = Door(App(), [Bind("127.0.0.1", 0), Bind("127.0.0.1", taken)], parts=parts)
        ((_, port),) = await nursery.start(door.run)
        assert b"small" in await ask(port, SMALL)
        nursery.cancel_scope.cancel()
    assert parts.problems() == {f"http 127.0.0.1:{taken}": "Address already in use"}


async def test_a_tls_context_that_cannot_be_made_costs_one_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> Any:
        raise OSError("no certificate")

    async with trio.open_nursery() as nursery:
        door = Door(App(), [Bind("127.0.0.1", 0, tls=broken), Bind("127.0.0.1", 0)])
        (_, tls_port), (_, port) = await nursery.start(door.run)
        assert await ask(tls_port, SMALL) == b""
        assert b"small" in await ask(port, SMALL)
        assert door.admission.in_use <= 1
        nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == ["connection failed"]


def test_the_tls_context_is_a_modern_one() -> None:
    import ssl

    context = new_server_context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_quart_is_imported_only_where_a_route_is_mounted_on_it() -> None:
    """It takes 12 MiB and a sixth of a second."""
    program = "import sys, matrixbox.api.app; sys.exit('quart' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
