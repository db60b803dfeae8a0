"""A push gateway on loopback, over TLS, in a thread of its own."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from attrs import define, field

PATH = "/_matrix/push/v1/notify"
Answer = tuple[int, bytes]


@define
class WebGateway:
    """What arrived, with the time of its arrival; `answer` decides what is answered."""

    port: int = 0
    authority: Path = Path()
    told: list[tuple[float, dict[str, Any]]] = field(factory=list)
    answer: Callable[[dict[str, Any]], Answer] = lambda _: (200, b'{"rejected":[]}')
    headers: dict[str, str] = field(factory=dict)

    @property
    def url(self) -> str:
        """For pushers."""
        return f"https://127.0.0.1:{self.port}{PATH}"

    def take(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """One call."""
        arrived = time.monotonic()
        assert (path, headers["content-type"]) == (PATH, "application/json")
        told = json.loads(body)
        assert set(told) == {"notification"}
        self.told.append((arrived, told["notification"]))
        return self.answer(told["notification"])

    def until(self, count: int, within_s: float = 15) -> list[dict[str, Any]]:
        """All notifications, once there are so many."""
        give_up = time.monotonic() + within_s
        while len(self.told) < count:
            assert time.monotonic() < give_up, f"{len(self.told)} of {count} notifications"
            time.sleep(0.01)
        return [told for _, told in self.told]


@contextmanager
def web_gateway(folder: Path) -> Iterator[WebGateway]:
    """A gateway that runs inside the block."""
    gateway = WebGateway()
    ca = trustme.CA()
    gateway.authority = folder / "gateway-ca.pem"
    ca.cert_pem.write_to_path(str(gateway.authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, body = gateway.take(self.path, headers, self.rfile.read(size))
            self.send_response(status)
            for name, value in gateway.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """The other side hung up, as tests make it do."""

    server = Quiet(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    gateway.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
