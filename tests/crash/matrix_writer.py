"""`matrixbox serve` as the kill harness sees it: two clients of the client-server API.

Register (m.login.dummy), createRoom, join, PUT send with transaction ids, GET messages; nothing
else of the server is used.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import quote

from matrixbox.store.migrate import Migration, shipped_migrations
from tests.crash.process import Connection, ServerProcess

CONFIG = """
[server]
name = "home.test"
data_dir = "data"

[listen]
http = ["127.0.0.1:{port}"]

[registration]
open = true

[limits]
rate_limits = false
password_hash_cost = "lowest"
"""
CLIENT_API = "/_matrix/client/v3"


class MatrixProgram:
    """The server, and what its clients keep: tokens and the room."""

    clients = 2

    def __init__(self, folder: Path, port: int) -> None:
        config = folder / "matrixbox.toml"
        config.touch(mode=0o600)
        config.write_text(CONFIG.format(port=port))
        self.database = folder / "data" / "matrixbox.db"
        command = [sys.executable, "-m", "matrixbox", "serve", "--config", str(config)]
        self.process = ServerProcess(command, folder, port)
        self.connections = [Connection(port) for _ in range(self.clients)]
        self.users: list[str] = []
        self.room = ""

    @property
    def migrations(self) -> tuple[Migration, ...]:
        return shipped_migrations()

    def spawn(self) -> None:
        self.process.spawn()

    def kill(self) -> None:
        self.process.kill()

    def hang_up(self) -> None:
        for connection in self.connections:
            connection.close()

    def wait_ready(self) -> None:
        self.process.wait_ready("/_matrix/client/versions")

    def prepare(self) -> None:
        for number, connection in enumerate(self.connections):
            account = {
                "username": f"writer{number}",
                "password": f"wonderland {number}",
                "auth": {"type": "m.login.dummy"},
            }
            answer = connection.call("POST", f"{CLIENT_API}/register", account)
            connection.token = answer["access_token"]
            self.users.append(answer["user_id"])
        first, *others = self.connections
        created = first.call("POST", f"{CLIENT_API}/createRoom", {"preset": "public_chat"})
        self.room = quote(created["room_id"], safe="")
        for connection in others:
            connection.call("POST", f"{CLIENT_API}/rooms/{self.room}/join", {})

    def send(self, client: int, number: int) -> str:
        answer = self.connections[client].call(
            "PUT",
            f"{CLIENT_API}/rooms/{self.room}/send/m.room.message/{number}",
            {"msgtype": "m.text", "body": str(number)},
        )
        return str(answer["event_id"])

    def messages_after(self, known: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
        """Pages backwards from the newest, until the newest known message comes."""
        last = known[-1][2] if known else None
        found: list[tuple[int, int, str]] = []
        path = f"{CLIENT_API}/rooms/{self.room}/messages?dir=b&limit=100"
        start = ""
        while True:
            page = self.connections[0].call("GET", path + start)
            for event in page["chunk"]:
                if event["event_id"] == last:
                    return found[::-1]
                if event["type"] == "m.room.message":
                    client = self.users.index(event["sender"])
                    found.append((client, int(event["content"]["body"]), event["event_id"]))
            if "end" not in page:
                return found[::-1]
            start = f"&from={quote(page['end'], safe='')}"
