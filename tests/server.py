"""A `matrixbox serve` process of its own for tests: on a free loopback port, with its own data.

    with running_server(tmp_path) as server:
        ...                      # server.base_url answers
        server.kill()            # as kill -9 does
        server.start()           # the same port, the same data

Everything here waits in place: it is meant for fixtures and for the moments of a test in which
nothing else happens. Tests with tasks of their own call it as `await trio.to_thread.run_sync(...)`.
"""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field

TOP = Path(__file__).resolve().parents[1]
NAME = "home.test"
READY_WITHIN_S = 30.0
STOPPED_WITHIN_S = 15.0
LOOK_EVERY_S = 0.02
# Below the ports that outgoing connections get: those of others must not take ours while the
# server is down between two runs.
PORTS = range(20_000, 32_000)

Section = Mapping[str, str | int | bool | list[str]]
DEFAULTS: Mapping[str, Section] = {
    "registration": {"open": True},
    "limits": {"rate_limits": False, "password_hash_cost": "lowest"},
}


@define
class Server:
    """A server's process, and what stays when it ends: its folder and its port."""

    folder: Path
    port: int
    name: str
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def base_url(self) -> str:
        """What clients are told to use."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether there is a process that has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "matrixbox.toml"

    @property
    def log(self) -> Path:
        """What all runs of this server wrote."""
        return self.folder / "server.log"

    def start(self) -> None:
        """Start the process and wait until it answers."""
        assert not self.is_running, "the server runs already"
        command = [sys.executable, "-m", "matrixbox", "serve", "--config", self.config]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=TOP, stdout=log, stderr=log)
        give_up = time.monotonic() + READY_WITHIN_S
        while not self.answers():
            assert self.is_running, f"the server did not start:\n{self.log_tail()}"
            assert time.monotonic() < give_up, f"the server does not answer:\n{self.log_tail()}"
            time.sleep(LOOK_EVERY_S)

    def answers(self) -> bool:
        """Whether a request is answered now."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/_matrix/client/versions")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> int:
        """Stop the process in good order; returns its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop in good order and start again."""
        assert self.stop() == 0, self.log_tail()
        self.start()

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None, "the server was not started"
        self._process.send_signal(number)
        try:
            return self._process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the server did not stop:\n{self.log_tail()}") from None

    def log_tail(self, lines: int = 30) -> str:
        """The end of the log."""
        return "\n".join(self._log_lines()[-lines:])

    def errors(self) -> list[str]:
        """The lines of the log that tell of something broken."""
        return [line for line in self._log_lines() if line.split(" ")[1:2] == ["error"]]

    def _log_lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()


@contextmanager
def running_server(
    folder: Path, settings: Mapping[str, Section] | None = None, *, name: str = NAME
) -> Iterator[Server]:
    """Start a server, and stop it in the end; AssertionError if it then tells of errors.

    The `settings` are sections of the configuration file; they replace those in DEFAULTS, except
    that those in "listen" come beside the plain listener.
    """
    server = Server(folder, free_port(), name)
    given = dict(settings or {})
    sections: dict[str, Section] = {
        "server": {"name": name, "data_dir": "data"},
        "listen": {"http": [f"127.0.0.1:{server.port}"], **given.pop("listen", {})},
        **DEFAULTS,
        **given,
    }
    server.config.touch(mode=0o600)
    server.config.write_text("\n".join(_toml(sections)))
    try:
        server.start()
        yield server
    finally:
        if server.is_running:
            code = server.stop()
            assert code == 0, f"exit code {code}:\n{server.log_tail()}"
    assert server.errors() == []


def free_port() -> int:
    """A loopback port that nobody listens on."""
    for _ in range(200):
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no free port")


def _toml(sections: Mapping[str, Section]) -> Iterator[str]:
    for section, settings in sections.items():
        yield f"[{section}]"
        for key, value in settings.items():
            yield f"{key} = {json.dumps(value)}"
