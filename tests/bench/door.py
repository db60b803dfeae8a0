"""What a request costs at the front door: processor time of the server per request.

    python -m tests.bench.door
    python -m tests.bench.door --requests 20000 --runs 5

Serves one small JSON answer in several ways, each in a process of its own, to four connections at
once, in turns. The figures decide on which mount the table's routes stand by default
(`Application(default_mount=...)`). Processor time hardly depends on what else the machine does; the
rate does. `h11` is the floor: a bare loop around h11, without limits, routes or headers.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import h11
import hypercorn.trio
import quart
import trio
from hypercorn.config import Config
from quart_trio import QuartTrio

from matrixbox.api.answers import CORS_HEADERS, JSON_HEADERS
from matrixbox.api.app import make_quart
from matrixbox.api.asgi import Application
from matrixbox.api.call import Answer, Call
from matrixbox.api.listener import Bind, Door
from matrixbox.api.routes import Auth, Mount, RouteTable

TOP = Path(__file__).resolve().parents[2]
PATH = "/_matrix/client/v3/rooms/!abcdefgh:example.org/state/m.room.name"
ANSWER = {"next_batch": "s12345", "account_data": {"events": []}, "rooms": {"join": {}}}
BODY = json.dumps(ANSWER, separators=(",", ":")).encode()
REQUEST = (
    f"GET {PATH}?since=s123_4&timeout=0 HTTP/1.1\r\nHost: 127.0.0.1:8008\r\n"
    "Authorization: Bearer abcdefghijk\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
    "User-Agent: Python/3.11 aiohttp/3.14.5\r\n\r\n"
).encode()
KINDS = ("h11", "door, bare ASGI", "door", "door, Quart", "hypercorn", "hypercorn, plain Quart")
CONNECTIONS = 4


def table() -> RouteTable:
    """The route asked for, among others."""
    routes = RouteTable()

    async def answer(call: Call) -> Answer:
        call.param("since")
        return ANSWER

    for number in range(200):
        patterns = f"/_matrix/client/v3/rooms/{{room_id}}/thing{number}/{{event_type}}"
        routes.add("GET", patterns, handler=answer, auth=Auth.USER)
    routes.add(
        "GET",
        "/_matrix/client/[v3|r0]/rooms/{room_id}/state/{event_type}",
        handler=answer,
        auth=Auth.USER,
    )
    return routes


def authenticate(call: Call) -> str | None:
    """A token in a dictionary would cost as much."""
    call.spender = call.header("authorization")
    return call.spender


def application(mount: Mount) -> Application:
    """The application as the server makes it."""
    return Application(
        table(),
        services=None,
        authenticators={Auth.USER: authenticate},
        default_mount=mount,
        quart=make_quart,
    )


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application without any of it."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    headers = [*JSON_HEADERS, *CORS_HEADERS, (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def plain_quart() -> QuartTrio:
    """The same in Quart, as its documentation shows it."""
    app = QuartTrio(__name__)

    @app.get("/_matrix/client/v3/rooms/<room_id>/state/<event_type>")
    async def answer(room_id: str, event_type: str) -> quart.Response:
        return quart.Response(BODY, content_type="application/json")

    return app


async def h11_loop(stream: trio.SocketStream) -> None:
    """A connection and nothing else."""
    connection = h11.Connection(h11.SERVER)
    headers = [*JSON_HEADERS, *CORS_HEADERS, (b"content-length", b"%d" % len(BODY))]
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.EndOfMessage):
            data = connection.send(h11.Response(status_code=200, headers=headers))
            data += connection.send(h11.Data(data=BODY)) + connection.send(h11.EndOfMessage())
            await stream.send_all(data)
            connection.start_next_cycle()
        elif isinstance(event, h11.ConnectionClosed):
            return


async def serve(kind: str) -> None:
    """Serve in one of the ways until killed; prints the port."""
    async with trio.open_nursery() as nursery:
        if kind == "h11":
            (listener, *_) = await nursery.start(
                partial(trio.serve_tcp, h11_loop, 0, host="127.0.0.1")
            )
            port = listener.socket.getsockname()[1]
        elif kind.startswith("door"):
            mount = Mount.QUART if "Quart" in kind else Mount.ASGI
            app: Any = bare if "bare" in kind else application(mount)
            ((_, port),) = await nursery.start(Door(app, [Bind("127.0.0.1", 0)]).run)
        else:
            config = Config()
            config.bind, config.errorlog = ["127.0.0.1:0"], None
            app = plain_quart() if "Quart" in kind else bare
            run = partial(hypercorn.trio.serve, app, config, shutdown_trigger=trio.sleep_forever)
            (bound,) = await nursery.start(run)
            port = int(bound.rpartition(":")[2])
        print(port, flush=True)


class Load:
    """Four connections that each ask again when they are answered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        for _ in range(CONNECTIONS):
            self._connect()

    def close(self) -> None:
        """Close the connections."""
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _connect(self) -> None:
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(sock, selectors.EVENT_READ)
        sock.sendall(REQUEST)

    def run(self, requests: int) -> None:
        """Until so many have been answered."""
        answered = 0
        while answered < requests:
            for key, _ in self._selector.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                data = sock.recv(65536)
                answered += data.count(b"next_batch")
                if not data or b"connection: close" in data.lower():
                    self._selector.unregister(sock)
                    sock.close()
                    self._connect()
                elif data.endswith(b"}"):
                    sock.sendall(REQUEST)


def measure(kind: str, requests: int) -> tuple[float, float]:
    """Processor milliseconds per request, and requests per second."""
    command = [sys.executable, "-m", "tests.bench.door", "--serve", kind]
    with subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            with closing(Load(int(process.stdout.readline()))) as load:
                load.run(requests // 5)
                cpu_s, before = _cpu_s(process.pid), time.perf_counter()
                load.run(requests)
                took_s = time.perf_counter() - before
                return (_cpu_s(process.pid) - cpu_s) / requests * 1000, requests / took_s
        finally:
            process.kill()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure in turns, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--serve", choices=KINDS)
    arguments = parser.parse_args()
    if arguments.serve:
        trio.run(serve, arguments.serve)
        return
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.runs):
        for kind in KINDS:
            found[kind].append(measure(kind, arguments.requests))
    for kind, results in found.items():
        cpu_ms = statistics.median(cpu for cpu, _ in results)
        rate = statistics.median(rate for _, rate in results)
        print(f"{kind:24} {cpu_ms:.3f} ms CPU per request, {rate:6.0f} requests/s")


if __name__ == "__main__":
    main()
