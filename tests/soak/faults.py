"""What goes wrong in a round, and is well again when the function returns."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import apsw
import trio

from matrixbox.store.connection import locate
from tests.soak.town import Town

Fault = Callable[[Town, random.Random], Awaitable[None]]


async def killed(town: Town, chance: random.Random) -> None:
    """Our server crashes, and is started again."""
    await begun_again(town, chance, town.buildings.pair.server.kill)


async def begun_again(town: Town, chance: random.Random, end: Callable[[], object]) -> None:
    """Our server ends in some way, and is started again."""
    await trio.to_thread.run_sync(end)
    await trio.sleep(chance.uniform(0, 2))
    await trio.to_thread.run_sync(town.buildings.pair.server.start)
    town.restarts += 1


async def killed_twice(town: Town, chance: random.Random) -> None:
    """And again, at once."""
    await killed(town, chance)
    await trio.sleep(chance.uniform(0, 0.5))
    await killed(town, chance)


async def restarted(town: Town, chance: random.Random) -> None:
    """Our server is stopped in good order, and started again."""
    await begun_again(town, chance, town.buildings.pair.server.stop)


async def peer_restarted(town: Town, chance: random.Random) -> None:
    """The other server is stopped and started."""
    await trio.to_thread.run_sync(town.buildings.pair.synapse.restart)


async def connections_drop(town: Town, chance: random.Random) -> None:
    """All connections of our clients break, some times; answers are lost on the way."""
    for _ in range(chance.randrange(1, 6)):
        town.buildings.street.drop()
        await trio.sleep(chance.uniform(0.05, 0.8))


async def no_network(town: Town, chance: random.Random) -> None:
    """Our clients have none for a while."""
    town.buildings.street.shut()
    await trio.sleep(chance.uniform(0.5, 5))
    town.buildings.street.reopen()


async def slow_clients(town: Town, chance: random.Random) -> None:
    """Every piece that goes between our server and its clients takes long."""
    town.buildings.street.delay_s = chance.uniform(0.1, 0.6)
    await trio.sleep(chance.uniform(2, 6))
    town.buildings.street.delay_s = 0.0


async def slow_peer(town: Town, chance: random.Random) -> None:
    """Every piece that goes between the servers takes long."""
    for gate in town.buildings.pair.gates:
        gate.delay_s = chance.uniform(0.3, 1.5)
    await trio.sleep(chance.uniform(3, 9))
    for gate in town.buildings.pair.gates:
        gate.delay_s = 0.0


async def servers_parted(town: Town, chance: random.Random) -> None:
    """The servers don't reach each other, and connections between them break."""
    for gate in town.buildings.pair.gates:
        gate.shut()
    await trio.sleep(chance.uniform(0.5, 6))
    for gate in town.buildings.pair.gates:
        gate.reopen()


async def peer_connections_drop(town: Town, chance: random.Random) -> None:
    """Connections between the servers break, some times."""
    for _ in range(chance.randrange(1, 8)):
        for gate in town.buildings.pair.gates:
            gate.drop()
        await trio.sleep(chance.uniform(0.05, 0.5))


async def app_in_background(town: Town, chance: random.Random) -> None:
    """The app on Cy's phone is put away for a while, and comes back with its position."""
    (cy,) = (person for person in town.people if person.kind == "rust")
    await cy.do("pause")
    await trio.sleep(chance.uniform(0.5, 5))
    await cy.do("resume")


FAULTS: tuple[Fault, ...] = (
    killed,
    killed_twice,
    restarted,
    peer_restarted,
    connections_drop,
    no_network,
    slow_clients,
    slow_peer,
    servers_parted,
    peer_connections_drop,
    app_in_background,
)


async def letters_lost(town: Town, chance: random.Random) -> None:
    """A negative control, no fault to live with: a server that forgets messages between devices."""
    server = town.buildings.pair.server
    town.buildings.street.shut()
    await trio.sleep(4)  # Dan's keys come in by federation meanwhile
    await trio.to_thread.run_sync(server.kill)
    location = locate(server.folder / "data" / "matrixbox.db")
    database = apsw.Connection(location.filename, vfs=location.vfs)
    database.execute("DELETE FROM inbox")
    database.close()
    await trio.to_thread.run_sync(server.start)
    town.buildings.street.reopen()


CONTROLS: dict[str, Fault] = {"letters_lost": letters_lost}
