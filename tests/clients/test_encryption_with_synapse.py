"""Encrypted conversations with somebody whose account is on a real Synapse.

[C17.03], [C17.04], [C17.16], [B7.04] to [B7.08].
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from tests.clients.conversation import (
    Client,
    Company,
    Kind,
    Program,
    connected,
    event_of,
    secret,
)
from tests.clients.test_element_x import know_each_other
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
        return await self.there_again(kind, person.user_id, name)

    async def there_again(self, kind: Kind, user_id: str, name: str) -> Client:
        """One more device of somebody on Synapse."""
        client = await self.theirs._new(kind, name, encryption=True)
        localpart = user_id[1:].partition(":")[0]
        await self.theirs._signed_in(client, "login", user=localpart, password="secret")
        await client.do("start", encryption=True)
        return client


@pytest.fixture
async def neighbours(
    pair: Pair, programs: dict[Kind, Program], nursery: trio.Nursery
) -> Neighbours:
    """Clients on both servers."""
    return Neighbours(pair, await connected(programs, nursery))


@pytest.fixture
async def with_element_x(
    pair: Pair, all_programs: dict[Kind, Program], nursery: trio.Nursery
) -> Neighbours:
    """The same, and Element X's library among them."""
    return Neighbours(pair, await connected(all_programs, nursery))


async def together(alice: Client, bob: Client) -> str:
    """Both in an encrypted room that Alice made."""
    room = await alice.create_room(
        preset="private_chat",
        invite=[bob.user_id],
        initial_state=[ENCRYPTION],
        is_direct=True,
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


async def test_a_device_removed_there_reads_nothing_more(neighbours: Neighbours) -> None:
    """[C8.23], [B7.05]: our devices learn of it, and of one that nobody signed."""
    here, there = await neighbours.here("js", "ed"), await neighbours.there("js", "flo")
    await there.do("set_up_recovery", password="secret")
    room = await together(here, there)
    await reads(here, room, await there.say(room, "one"), "one")
    tablet = await neighbours.there_again("js", there.user_id, "flo's tablet")
    await here.until_true("devices", lambda found: tablet.device_id in found, user=there.user_id)
    two = await here.say(room, "two")
    for client in (there, tablet):
        await reads(client, room, two, "two")
    unsigned = await tablet.say(room, "from a tablet")
    await reads(here, room, unsigned, "from a tablet")
    await here.until_true("shield", lambda found: found["colour"] == 2, room=room, event=unsigned)
    await there.do("remove_devices", devices=[tablet.device_id], password="secret")
    await here.until_true("devices", lambda found: found == [there.device_id], user=there.user_id)
    await reads(there, room, await here.say(room, "three"), "three")


async def test_nio_compares_emoji_over_federation(neighbours: Neighbours) -> None:
    """Messages between devices in both directions, each once."""
    here, there = await neighbours.here("nio", "gus"), await neighbours.there("nio", "hal")
    room = await together(here, there)
    await reads(there, room, await here.say(room, "hello"), "hello")
    await verify(here, there, device=there.device_id)
    for one, other in ((here, there), (there, here)):
        assert (await one.do("trust", user=other.user_id, device=other.device_id))["device"]


ELEMENT_X: list[tuple[Kind, Kind]] = [("rust", "js"), ("js", "rust"), ("rust", "nio")]


@pytest.mark.parametrize("kinds", ELEMENT_X, ids="-".join)
async def test_element_x_talks_over_federation(
    with_element_x: Neighbours, kinds: tuple[Kind, Kind]
) -> None:
    """On our sliding sync here and on Synapse's there; emoji are compared where both know how."""
    tag = "".join(kinds)
    here = await with_element_x.here(kinds[0], f"x{tag}")
    there = await with_element_x.there(kinds[1], f"y{tag}")
    for client, password in ((here, secret(f"x{tag}")), (there, "secret")):
        if client.kind == "js":
            await client.do("set_up_recovery", password=password)
    room = await together(here, there)
    for number in range(4):
        sender, reader = (here, there) if number % 2 == 0 else (there, here)
        event = await sender.say(room, f"message {number}")
        await reads(reader, room, event, f"message {number}")
    if "nio" in kinds:
        return
    await know_each_other(here, there)
    await verify(here, there, room=room)
    for one, other in ((here, there), (there, here)):
        await one.until_true("trust", lambda found: found["user"], user=other.user_id)


async def test_a_phone_lost_there_costs_no_history(with_element_x: Neighbours) -> None:
    """[C17.06], [C17.11] to [C17.17]: an account on Synapse, in a room of ours."""
    here, there = await with_element_x.here("rust", "ida"), await with_element_x.there("rust", "jo")
    key = await there.do("set_up_recovery", password="secret")
    room = await together(here, there)
    said = []
    for number in range(3):
        said.append(await here.say(room, f"message {number}"))
        await reads(there, room, said[-1], f"message {number}")
    await there.do("backed_up")
    await there.do("logout")
    phone = await with_element_x.there_again("rust", there.user_id, "a new phone")
    await phone.until(lambda view: event_of(view, said[-1]), room=room)
    bad = await phone.say(room, "it is me")
    await reads(here, room, bad, "it is me")
    await here.until_true("shield", lambda found: found["colour"] == 2, room=room, event=bad)
    await phone.do("recover", key=key)
    for number, event in enumerate(said):
        await reads(phone, room, event, f"message {number}")
    await here.until_true("shield", lambda found: found["colour"] == 0, room=room, event=bad)
    await reads(phone, room, await here.say(room, "welcome back"), "welcome back")
