"""The server ends, in good order or not, and comes back: clients go on as if nothing had been."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.clients.conversation import Client, Company, Kind, Program, Refused, connected, texts
from tests.server import Server, running_server

ENDS = ["stop", "kill"]
MESSAGES = 30


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that nobody else needs."""
    with running_server(tmp_path) as server:
        yield server


@pytest.fixture
async def house(
    own_server: Server, programs: dict[Kind, Program], nursery: trio.Nursery
) -> Company:
    """Its clients."""
    return Company(own_server, await connected(programs, nursery), "x")


async def restart(server: Server, how: str) -> None:
    """End the server one way or the other, and start it again."""
    await trio.to_thread.run_sync(getattr(server, how))
    await trio.to_thread.run_sync(server.start)


async def go_on(*clients: Client) -> None:
    """Tell those clients that are slow to look again by themselves that they may."""
    for client in clients:
        if client.kind == "js":
            await client.do("resume")


@pytest.mark.parametrize("how", ENDS)
async def test_a_conversation_survives_restarts(house: Company, how: str):
    alice = await house.register("js", "alice")
    bob = await house.register("nio", "bob")
    offline = await house.login("js", "bob", "bob's phone", limit=50)
    room = await alice.create_room(preset="public_chat", name="Attic")
    await bob.do("join", room=room)
    await offline.until(lambda view: view["membership"] == "join", room=room)
    said = [f"{number}" for number in range(13)]
    first = await alice.say(room, said[0])
    await bob.sees(room, first)
    await bob.do("receipt", room=room, event=first)
    await offline.sees(room, first)
    await offline.do("pause")
    for number in (1, 5, 9):
        await alice.say(room, said[number])
        await bob.say(room, said[number + 1])
        await restart(house.server, how)
        await go_on(alice)
        await bob.say(room, said[number + 2])
        await alice.say(room, said[number + 3])
    await offline.do("resume")
    await offline.until(lambda view: texts(view)[-1:] == said[-1:], room=room)
    while await offline.do("back", room=room, limit=10):
        pass
    newcomer = await house.login("nio", "alice", "alice's tablet", limit=50)
    for client in (alice, bob, offline, newcomer):
        view = await client.until(lambda view: texts(view)[-1:] == said[-1:], room=room)
        assert texts(view) == said
        assert view["name"] == "Attic"
    read = {bob.user_id: {"main": first}}  # matrix-nio keeps these apart
    await newcomer.until(lambda view: view["thread_receipts"] == read, room=room)


@pytest.mark.parametrize("how", ENDS)
async def test_a_message_whose_answer_was_lost_is_sent_again_and_appears_once(
    house: Company, how: str
):
    alice = await house.register("js", "alice")
    bob = await house.register("nio", "bob")
    room = await alice.create_room(preset="public_chat")
    await bob.do("join", room=room)
    await alice.until(lambda view: view["joined"] == 2, room=room)
    # It is stored, but Alice's client does not learn it.
    await alice.do("pause", only="/sync")
    await alice.do("lose_answers", count=1)
    with pytest.raises(Refused, match="lost"):
        await alice.say(room, "once")
    await restart(house.server, how)
    await alice.do("resume")
    await alice.do("resend", room=room)
    mine = await bob.do("send", room=room, content={"msgtype": "m.text", "body": "me too"}, txn="7")
    await restart(house.server, how)
    again = await bob.do(
        "send", room=room, content={"msgtype": "m.text", "body": "me too"}, txn="7"
    )
    assert again == mine
    await go_on(alice)
    last = await alice.say(room, "last")
    for client in (alice, bob):
        await client.sees(room, last)
        view = await client.until(lambda view: view, room=room)
        assert texts(view) == ["once", "me too", "last"]
        assert view.get("pending", []) == []


@pytest.mark.parametrize("kind", ["nio", "js"])
async def test_what_was_being_sent_when_the_server_crashed_appears_once(house: Company, kind: Kind):
    alice = await house.register(kind, "alice", limit=50)
    bob = await house.register("nio", "bob", limit=50)
    room = await alice.create_room(preset="public_chat")
    await bob.do("join", room=room)
    await alice.until(lambda view: view["joined"] == 2, room=room)
    acknowledged: list[str] = []
    failed: list[str] = []
    enough = trio.Event()

    async def say(body: str) -> None:
        try:
            acknowledged.append(await alice.say(room, body))
        except Refused:
            failed.append(body)
        if len(acknowledged) > MESSAGES // 4:
            enough.set()

    said = [f"message {number}" for number in range(MESSAGES)]
    async with trio.open_nursery() as nursery:
        for body in said:
            nursery.start_soon(say, body)
        await enough.wait()
        await restart(house.server, "kill")
    await go_on(alice)
    if kind == "js":  # but for those which it has seen in the room meanwhile
        acknowledged += await alice.do("resend", room=room)
    else:
        assert failed == []  # the library tried again by itself
        assert len(set(acknowledged)) == MESSAGES
    for client in (alice, bob):
        view = await client.until(lambda view: len(texts(view)) == MESSAGES, room=room)
        assert sorted(texts(view)) == sorted(said)
        assert set(acknowledged) <= {event["id"] for event in view["timeline"]}
