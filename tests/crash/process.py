"""A server process that is killed and started again, and the HTTP calls of its clients."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from pathlib import Path
from typing import Any

READY_WITHIN_S = 10.0  # T141: start within 10 s, whatever came before
TOP = Path(__file__).resolve().parents[2]


class Unanswered(OSError):
    """The server went away before it answered."""


class ServerProcess:
    """The process; its log goes to a file in its folder."""

    def __init__(self, command: list[str], folder: Path, port: int) -> None:
        self.command = command
        self.folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        """Start, and don't wait."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command, cwd=TOP, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait_ready(self, path: str) -> None:
        """Wait until a GET is answered; AssertionError if that takes too long."""
        give_up = time.monotonic() + READY_WITHIN_S
        while True:
            connection = Connection(self.port)
            try:
                connection.call("GET", path)
            except OSError:
                assert self._process is not None
                assert self._process.poll() is None, f"ended:\n{self.log_tail()}"
                assert time.monotonic() < give_up, f"no answer:\n{self.log_tail()}"
                time.sleep(0.01)
            else:
                return
            finally:
                connection.close()

    def log_tail(self) -> str:
        """The end of the log."""
        return (self.folder / "log").read_text(errors="replace")[-3000:]


class Connection:
    """One client's connection, opened anew when it broke."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.token = token

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of a 200. Raises Unanswered, or AssertionError for any other status."""
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        data = None if body is None else json.dumps(body)
        try:
            self._http.request(method, path, data, headers)
            answer = self._http.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            raise Unanswered(repr(error)) from error
        assert answer.status == 200, f"{method} {path}: {answer.status} {content[:300]!r}"
        return json.loads(content)

    def close(self) -> None:
        """Close it."""
        self._http.close()
