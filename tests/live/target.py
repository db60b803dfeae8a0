"""What the attacks are aimed at: a real process, and the three questions that end every attack.

A target is started by a command that prints one line of JSON with its ports. The paths that the
attacks use are part of it, so that the same table runs against the test application, the full
server, and Hypercorn as it comes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import trio
import trustme
from attrs import define, field, frozen

TOP = Path(__file__).resolve().parents[2]
HOME_CLIENT = "127.0.1.1"  # the address of the household's client
MIB = 1024 * 1024
MEMORY_MARGIN = 32 * MIB
PAGE = os.sysconf("SC_PAGESIZE")

# CI has no minutes to wait for deadlines; one test looks at the real ones.
SHORT: Mapping[str, float] = {
    "handshake_s": 1.0,
    "head_s": 1.0,
    "idle_s": 0.8,
    "json_body_s": 2.5,
    "drain_s": 0.5,
    "body_grace_s": 1.0,
    "send_stall_s": 1.0,
    "rate_window_s": 2.0,
    "slot_wait_s": 5.0,
    "large_body_wait_s": 5.0,
    "stop_s": 4.0,
    "sweep_s": 0.05,
}


@frozen(kw_only=True)
class Paths:
    """Where the target answers what; None for what it does not have."""

    small: str = "/_matrix/client/versions"  # GET, 200, no authentication
    json: str = "/_test/echo"  # POST, reads a JSON object, no authentication
    json_statuses: tuple[int, ...] = (200,)  # what a POST of {} there may be answered with
    big: str | None = "/_test/big"  # GET, many MiB
    poll: str | None = "/_test/poll"  # GET, waits
    upload: str | None = "/_test/upload"  # PUT, a stream of up to 50 MiB
    large: str | None = "/_test/large"  # POST, JSON of up to 12.5 MiB


@define
class Running:
    """A target's process."""

    process: subprocess.Popen[str]
    host: str
    port: int
    tls_port: int | None
    paths: Paths = field(factory=Paths)

    def memory(self) -> int:
        """Resident bytes."""
        statm = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(statm.split()[1]) * PAGE

    def processor_s(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def is_alive(self) -> bool:
        """Whether the process that was started still runs."""
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def exit_s(self, at_most_s: float) -> float | None:
        """Seconds until the process has ended; None when it has not."""
        before = time.monotonic()
        with trio.move_on_after(at_most_s):
            while self.is_alive:
                await trio.sleep(0.02)
            return time.monotonic() - before
        return None


@contextmanager
def running(
    *arguments: str,
    bounds: Mapping[str, float] | None = None,
    kind: str = "door",
    real: bool = False,
    before: Callable[[], None] | None = None,
    pem: Path | None = None,
) -> Iterator[Running]:
    """Start the test application, and end it; with short deadlines unless `real`.

    `before` runs in the new process, before the program does; `pem` is the certificate's file, a
    new one unless given.
    """
    with certificate() if pem is None else nullcontext(pem) as file:
        limits = {**({} if real else SHORT), **(bounds or {})}
        command = [
            *(sys.executable, "-m", "tests.live.door_app", "--kind", kind),
            *("--bounds", json.dumps(limits), "--certificate", str(file)),
            *arguments,
        ]
        process = subprocess.Popen(
            command, cwd=TOP, stdout=subprocess.PIPE, text=True, preexec_fn=before
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the target did not start"
            ports = json.loads(line)["ports"]
            yield Running(process, "127.0.0.1", ports[0], ports[1] if len(ports) > 1 else None)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def certificate() -> Iterator[Path]:
    """A certificate for the target, in a file that `renew` may write again."""
    pem = Path(os.environ.get("TMPDIR", "/tmp")) / f"door-{os.getpid()}-{time.monotonic_ns()}.pem"
    renew(pem, "old.test")
    try:
        yield pem
    finally:
        pem.unlink()


def renew(pem: Path, name: str) -> None:
    """Write a new certificate and key."""
    made = trustme.CA().issue_cert(name)
    pem.touch(mode=0o600)
    pem.write_bytes(made.private_key_and_cert_chain_pem.bytes())


# Clients.


async def connect(
    target: Running,
    source: str | None = None,
    *,
    receive_buffer: int | None = None,
    port: int | None = None,
) -> trio.SocketStream:
    """A connection, from another loopback address if one is given."""
    sock = trio.socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
    try:
        if source is not None:
            await sock.bind((source, 0))
        await sock.connect((target.host, port or target.port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


@frozen
class Answered:
    """Everything that came back on a connection, and how it ended."""

    raw: bytes
    is_closed: bool
    seconds: float

    @property
    def statuses(self) -> list[int]:
        """The status codes of all answers, interim ones included."""
        return [int(code) for code in re.findall(rb"(?:^|[\n}])HTTP/1\.1 (\d{3})", self.raw)]

    @property
    def body(self) -> bytes:
        """What follows the first head."""
        return self.raw.partition(b"\r\n\r\n")[2]

    def json(self) -> Any:
        """The first answer's body."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """A header of the first answer."""
        head = self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        found = dict(line.split(": ", 1) for line in head)
        return found.get(name)


async def exchange(
    target: Running,
    *pieces: bytes,
    wait_s: float = 0.6,
    between_s: float = 0.05,
    source: str | None = None,
    stream: trio.abc.Stream | None = None,
) -> Answered:
    """Send the pieces one after the other; collect what comes until the end, or for `wait_s`."""
    before = trio.current_time()
    received = bytearray()
    is_closed = False
    if stream is None:
        stream = await connect(target, source)
    async with stream:
        try:
            for number, piece in enumerate(pieces):
                if number:
                    await trio.sleep(between_s)
                await stream.send_all(piece)
        except trio.BrokenResourceError:
            is_closed = True
        with trio.move_on_after(wait_s):
            try:
                while data := await stream.receive_some():
                    received += data
            except trio.BrokenResourceError:
                pass  # a reset is an end as well
            is_closed = True
    return Answered(bytes(received), is_closed, trio.current_time() - before)


def get(path: str, *headers: str, version: str = "1.1") -> bytes:
    """A GET request."""
    lines = [f"GET {path} HTTP/{version}", "Host: old.test", *headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def post(path: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
    """A request with a body of known length."""
    lines = [f"{method} {path} HTTP/1.1", "Host: old.test", f"Content-Length: {len(body)}"]
    return "".join(f"{line}\r\n" for line in [*lines, *headers, ""]).encode("latin-1") + body


async def ask(target: Running, request: bytes, *, wait_s: float = 1.0, **more: Any) -> Answered:
    """One request of the household's client, on a connection of its own."""
    head, _, body = request.partition(b"\r\n\r\n")
    request = head + b"\r\nConnection: close\r\n\r\n" + body
    return await exchange(target, request, wait_s=wait_s, source=HOME_CLIENT, **more)


async def watched(target: Running) -> Any:
    """The test application's counts, and its loop's worst pause since the last question."""
    return (await ask(target, get("/_test/watched"))).json()


# The three questions.


@asynccontextmanager
async def survives(target: Running, *, margin: int = MEMORY_MARGIN) -> AsyncIterator[None]:
    """After the attack inside: a normal client is answered, memory is back, the process the same.

    Section 4 of the threat catalogue.
    """
    before = target.memory()
    yield
    answer = await ask(target, get(target.paths.small))
    assert target.is_alive, "the process ended"
    assert answer.statuses == [200], f"the household is not answered: {answer}"
    assert answer.seconds < 1.0
    with trio.move_on_after(10):
        while target.memory() > before + margin:
            await trio.sleep(0.1)
    grown = (target.memory() - before) / MIB
    assert target.memory() <= before + margin, f"{grown:.0f} MiB were not given back"


# The full server.

SERVER_CONFIG = """
[server]
name = "old.test"
data_dir = "{folder}"

[listen]
http = ["127.0.0.1:{port}"]
https = ["127.0.0.1:{tls_port}"]

[tls]
mode = "files"
cert = "{pem}"
key = "{pem}"

[limits]
rate_limits = false
"""
SERVER_PATHS = Paths(
    json="/_matrix/client/v3/login",
    json_statuses=(400, 403),
    big=None,
    poll=None,
    upload=None,
    large=None,
)


@contextmanager
def serving() -> Iterator[Running]:
    """Start `matrixbox serve`, and end it."""
    with certificate() as pem, tempfile.TemporaryDirectory() as folder:
        port, tls_port = _free_port(), _free_port()
        config = Path(folder) / "matrixbox.toml"
        config.write_text(
            SERVER_CONFIG.format(folder=f"{folder}/data", port=port, tls_port=tls_port, pem=pem)
        )
        command = [sys.executable, "-m", "matrixbox", "serve", "--config", str(config)]
        with subprocess.Popen(command, cwd=TOP, text=True) as process:
            try:
                _wait_until_open(port)
                yield Running(process, "127.0.0.1", port, tls_port, SERVER_PATHS)
            finally:
                process.kill()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_until_open(port: int, within_s: float = 15) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def target_called(name: str) -> Iterator[Running]:
    """A target by its name: `door`, `serve`, or the controls `hypercorn` and `quart`."""
    with serving() if name == "serve" else running(kind=name) as found:
        yield found
