"""Encrypted conversations with somebody whose account is on a real Synapse.

[C17.03], [C17.04], [C17.16], [B7.04] to [B7.08].
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from tests.clients.conversation import Client, Company, Kind, Program, connected, secret
from tests.clients.test_encryption import ENCRYPTION, reads, verify
from tests.federation.pair import Pair, federating


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both servers."""
    with federating(tmp_path_factory.mktemp("pair")) as made:
        yield made


class Neighbours:
    """Clients on both servers."""

    def __init__(self, pair: Pair, lines: Any) -> None:
        self.pair, self.tag = pair, "e2ee"
        self.ours = Company(pair.server, lines, self.tag)
        base_url = f"http://{pair.theirs.address}:{pair.theirs.port}"
        there = cast("Any", SimpleNamespace(base_url=base_url))
        self.theirs = Company(there, lines, self.tag)

    async def here(self, kind: Kind, name: str) -> Client:
        """Somebody on our server."""
        return await self.ours.register(kind, name, encryption=True)

    async def there(self, kind: Kind, name: str) -> Client:
        """Somebody on Synapse."""
        person = await trio.to_thread.run_sync(self.pair.theirs.person, name)
        client = await self.theirs._new(kind, name, encryption=True)
        localpart = person.user_id[1:].partition(":")[0]
        await self.theirs._signed_in(client, "login", user=localpart, password="secret")
        await client.do("start", encryption=True)
        return client


@pytest.fixture
async def neighbours(
    pair: Pair, programs: dict[Kind, Program], nursery: trio.Nursery
) -> Neighbours:
    """Clients on both servers."""
    return Neighbours(pair, await connected(programs, nursery))


async def together(alice: Client, bob: Client) -> str:
    """Both in an encrypted room that Alice made."""
    room = await alice.create_room(
        preset="private_chat", invite=[bob.user_id], initial_state=[ENCRYPTION]
    )
    await bob.until(lambda view: view["membership"] == "invite", room=room)
    await bob.do("join", room=room)
    for client in (alice, bob):
        await client.until(lambda view: view.get("joined") == 2, room=room)
    return room


@pytest.mark.parametrize("first", ["ours", "theirs"])
async def test_messages_are_read_on_both_servers(neighbours: Neighbours, first: str) -> None:
    """Keys are asked for and claimed, and room keys sent, over federation."""
    here, there = await neighbours.here("js", f"ann-{first}"), await neighbours.there("js", "bo")
    alice, bob = (here, there) if first == "ours" else (there, here)
    room = await together(alice, bob)
    for number in range(4):
        sender, reader = (alice, bob) if number % 2 == 0 else (bob, alice)
        event = await sender.say(room, f"message {number}")
        await reads(reader, room, event, f"message {number}")
    more = await neighbours.ours.login("js", f"ann-{first}", f"tablet-{first}", encryption=True)
    await there.until_true("devices", lambda found: more.device_id in found, user=here.user_id)
    event = await there.say(room, "to both devices")
    for reader in (here, more):
        await reads(reader, room, event, "to both devices")


async def test_people_on_two_servers_verify_each_other(neighbours: Neighbours) -> None:
    """Requests for verification, emoji and signatures, over federation."""
    here, there = await neighbours.here("js", "cy"), await neighbours.there("js", "di")
    await here.do("set_up_recovery", password=secret("cy"))
    await there.do("set_up_recovery", password="secret")
    room = await together(here, there)
    for one, other in ((here, there), (there, here)):
        await one.until_true(
            "trust",
            lambda found: found["signed"],
            user=other.user_id,
            device=other.device_id,
        )
    await verify(here, there, room=room)
    for one, other in ((here, there), (there, here)):
        await one.until_true("trust", lambda found: found["user"], user=other.user_id)
