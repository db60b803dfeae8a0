"""A small HTTP server around the real store: the harness's own proof, and its control.

PUT /m/CLIENT/NUMBER stores a message once and answers its id; GET /m shows all. Run as a program:
PORT FOLDER, and `careless` for a server that acknowledges before it commits.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import h11
import trio

from matrixbox.store.database import Store, Tuning
from matrixbox.store.migrate import Migration
from matrixbox.store.transaction import Tx
from tests.crash.process import Connection, ServerProcess
from tests.crash.workload import RELEASES, send_once

TUNING = Tuning(reserve_bytes=0, checkpoint_bytes=64 * 1024)
CARELESS_DELAY_S = 0.05


def messages(tx: Tx, beyond: int) -> list[list[Any]]:
    rows = tx.run("SELECT device, key, pos FROM txn WHERE pos > ? ORDER BY pos", beyond)
    return [[device, int(key), pos] for device, key, pos in rows]


class TinyServer:
    """Answers on connections of its own; each request is one call of the store."""

    def __init__(self, store: Store, nursery: trio.Nursery, careless: bool) -> None:
        self.store = store
        self.nursery = nursery
        self.careless = careless
        self.promised = 0

    async def answer(self, method: bytes, target: bytes) -> object:
        parts = target.decode().split("/")
        if method == b"GET":
            return self.store.read(messages, int(parts[2]))
        client, number = int(parts[2]), parts[3]
        write = partial(self.store.write, send_once, 0, client, number, b"x" * 200, False)
        if not self.careless:
            return await write()
        self.promised += 1
        self.nursery.start_soon(self.later, write)
        return self.promised

    async def later(self, write: Any) -> None:
        await trio.sleep(CARELESS_DELAY_S)
        await write()

    async def serve(self, stream: trio.SocketStream) -> None:
        protocol = h11.Connection(h11.SERVER)
        async with stream:
            while True:
                event = protocol.next_event()
                if event is h11.NEED_DATA:
                    protocol.receive_data(await stream.receive_some())
                elif isinstance(event, h11.Request):
                    body = json.dumps(await self.answer(event.method, event.target)).encode()
                elif isinstance(event, h11.EndOfMessage):
                    length = [("Content-Length", str(len(body)))]
                    for part in (
                        h11.Response(status_code=200, headers=length),
                        h11.Data(data=body),
                        h11.EndOfMessage(),
                    ):
                        await stream.send_all(protocol.send(part) or b"")
                    protocol.start_next_cycle()
                elif isinstance(event, h11.ConnectionClosed):
                    return


async def main(port: int, folder: str, careless: bool) -> None:
    async with (
        Store.open(Path(folder) / "db", migrations=RELEASES[0], tuning=TUNING) as store,
        trio.open_nursery() as nursery,
    ):
        server = TinyServer(store, nursery, careless)
        await trio.serve_tcp(server.serve, port, host="127.0.0.1")


class TinyProgram:
    """The server as the harness sees it."""

    clients = 2
    migrations: tuple[Migration, ...] = RELEASES[0]

    def __init__(self, folder: Path, port: int, *, careless: bool = False) -> None:
        self.database = folder / "db"
        command = [sys.executable, "-m", "tests.crash.tiny_server", str(port), str(folder)]
        self.process = ServerProcess([*command, *(["careless"] if careless else [])], folder, port)
        self.connections = [Connection(port) for _ in range(self.clients)]

    def spawn(self) -> None:
        self.process.spawn()

    def kill(self) -> None:
        self.process.kill()

    def hang_up(self) -> None:
        for connection in self.connections:
            connection.close()

    def wait_ready(self) -> None:
        self.process.wait_ready("/m/0")

    def prepare(self) -> None:
        """Nothing: messages need no room here."""

    def send(self, client: int, number: int) -> str:
        return str(self.connections[client].call("PUT", f"/m/{client}/{number}"))

    def messages_after(self, known: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
        last = known[-1][2] if known else "0"
        shown = self.connections[0].call("GET", f"/m/{last}")
        return [(client, number, str(pos)) for client, number, pos in shown]


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2], sys.argv[3:] == ["careless"])
