"""The servers, the networks between them and the clients, and the people who use them."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import trio
from attrs import define, field, frozen

from tests.clients.conversation import (
    Client,
    Company,
    Kind,
    Program,
    connected,
    running_program,
    secret,
)
from tests.clients.programs import command_of, why_not
from tests.federation.gate import Gate
from tests.federation.pair import VENV, Pair, Side, federating
from tests.peers.installing import has_synapse
from tests.server import free_port
from tests.soak.watch import Watch, watching

KINDS: tuple[Kind, ...] = ("js", "nio", "rust")
CLIENT_ADDRESS = "127.0.0.1"
PATIENCE_S = 90.0  # with a client, on a machine that has other work
LATE_S = 5.0  # a server that was not reached is left alone for a while
AMONG_CLIENTS = ("connections_drop", "no_network", "slow_clients", "app_in_background")
TELLS_LETTERS = ("js", "nio")  # whose messages between devices the tests can see


def missing() -> str | None:
    """Why no soak can run here; None if it can."""
    if not has_synapse(VENV):
        return "Synapse is not installed (tests/run.py does it)"
    return next((why_not(kind) for kind in KINDS if command_of(kind) is None), None)


@frozen
class Buildings:
    """What runs, but for the clients in their programs."""

    pair: Pair
    street: Gate  # between our server and its clients
    programs: dict[Kind, Program]


@contextmanager
def built(folder: Path) -> Iterator[Buildings]:
    """Start everything; AssertionError in the end if our server tells of errors."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        pair = stack.enter_context(federating(folder))
        back = (CLIENT_ADDRESS, pair.server.port)
        street = stack.enter_context(Gate((CLIENT_ADDRESS, free_port()), back))
        programs: dict[Kind, Program] = {}
        for kind in KINDS:
            (folder / kind).mkdir()
            command = command_of(kind)
            assert command is not None, why_not(kind)
            programs[kind] = stack.enter_context(running_program(command, folder / kind))
        yield Buildings(pair, street, programs)


@define(eq=False)
class Town:
    """The clients: Ann, Bob and Cy with us, Dan on Synapse."""

    buildings: Buildings
    ours: Company
    theirs: Company
    people: list[Client]
    guests: int = 0
    restarts: int = 0
    suffered: list[tuple[str, float, float]] = field(factory=list)  # fault, from, until

    @property
    def local(self) -> list[Client]:
        """Those with us."""
        return self.people[:-1]

    @property
    def remote(self) -> Client:
        """The one on Synapse."""
        return self.people[-1]

    async def guest(self) -> Client:
        """A new device of Bob's, on a library that tells what it has been sent."""
        self.guests += 1
        client = await self.ours.login("nio", "bob", f"guest{self.guests}", encryption=True)
        await client.do("letters")
        return client

    @asynccontextmanager
    async def watched(self, seed: int) -> AsyncIterator[Watch]:
        """Probes of Cy's, who is on sliding sync, beside everybody's clients."""
        pair, front = self.buildings.pair, self.buildings.street.front
        ours = Side(pair.ours.name, *front, pair.ours.make_account)
        cy = self.ours.local("cy")
        async with watching(
            pair.server, ours, pair.theirs, cy, secret("cy"), random.Random(f"{seed} probes")
        ) as watch:
            yield watch

    @contextmanager
    def suffering(self, fault: str) -> Iterator[None]:
        """Note when a fault was played."""
        began = time.time()
        try:
            yield
        finally:
            self.suffered.append((fault, began, time.time()))

    def explains(self, kind: str, at: float) -> bool:
        """Whether a key could not be had then because of a fault: see ledger.Claim."""
        return any(
            began <= at <= ended + LATE_S
            for fault, began, ended in self.suffered
            if kind == "unanswered" or fault not in AMONG_CLIENTS
        )

    async def go_on(self, clients: list[Client]) -> None:
        """Tell the clients that the network is back, as a phone does."""
        for client in clients:
            if client.kind in ("js", "rust"):
                await client.do("resume")


@asynccontextmanager
async def inhabited(buildings: Buildings) -> AsyncIterator[Town]:
    """Sign everybody in."""
    front, theirs = buildings.street.front, buildings.pair.theirs
    async with trio.open_nursery() as nursery:
        lines = await connected(buildings.programs, nursery)
        for line in lines.values():
            line.patience_s = PATIENCE_S
        here = cast("Any", SimpleNamespace(base_url=f"http://{front[0]}:{front[1]}"))
        there = cast("Any", SimpleNamespace(base_url=f"http://{theirs.address}:{theirs.port}"))
        town = Town(buildings, Company(here, lines, "soak"), Company(there, lines, "soak"), [])
        for kind, name in (("js", "ann"), ("nio", "bob"), ("rust", "cy")):
            town.people.append(await town.ours.register(cast("Kind", kind), name, encryption=True))
        dan = await trio.to_thread.run_sync(theirs.person, "dan")
        client = await town.theirs._new("js", "dan", encryption=True)
        localpart = dan.user_id[1:].partition(":")[0]
        await town.theirs._signed_in(client, "login", user=localpart, password="secret")
        await client.do("start", encryption=True)
        town.people.append(client)
        for person in town.people:
            if person.kind in TELLS_LETTERS:
                await person.do("letters")
        try:
            yield town
        finally:
            nursery.cancel_scope.cancel()
