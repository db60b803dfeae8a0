"""Bodies: back-pressure, large ones at once, early answers, 100-continue (T076, T077, T078)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.live.siege import Household
from tests.live.target import (
    MIB,
    Answered,
    Running,
    ask,
    connect,
    exchange,
    get,
    post,
    running,
    survives,
    watched,
)

FIFTY_MIB = 50 * MIB
PIECE = b"x" * 65_536


@pytest.fixture(scope="module")
def target() -> Iterator[Running]:
    with running(bounds={"json_body_s": 20.0}) as found:
        yield found


def _put(query: str, length: int) -> bytes:
    return (
        f"PUT /_test/upload{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
    )


async def _answer(stream: trio.SocketStream, within_s: float = 10) -> Answered:
    received = b""
    before = trio.current_time()
    with trio.fail_after(within_s):
        while not received.endswith(b"}"):
            data = await stream.receive_some()
            if not data:
                break
            received += data
    return Answered(received, False, trio.current_time() - before)


async def test_t076_a_handler_that_does_not_read_makes_the_peer_wait(target: Running) -> None:
    """50 MiB offered to a handler that sleeps: they stay with the sender."""
    before = target.memory()
    async with survives(target), await connect(target) as stream:
        await stream.send_all(_put("?wait=1.5", FIFTY_MIB))
        sent = 0
        with trio.move_on_after(1):
            while sent < FIFTY_MIB:
                sent += await stream.socket.send(PIECE)
        assert sent < 8 * MIB  # what the kernels of both sides hold
        assert target.memory() < before + MIB
        while sent < FIFTY_MIB:
            sent += await stream.socket.send(PIECE[: FIFTY_MIB - sent])
        answered = await _answer(stream)
    assert answered.json() == {"size": FIFTY_MIB}
    assert target.memory() < before + 4 * MIB


async def test_t076_a_stream_may_take_the_time_that_its_route_gives(target: Running) -> None:
    """Slow, but above the slowest rate, and slower than a JSON body might be."""
    with running(bounds={"json_body_s": 0.5}) as short:  # the upload route has 4 s
        async with await connect(short) as stream:
            await stream.send_all(_put("", 15_000))
            for _ in range(15):
                await stream.send_all(b"x" * 1000)
                await trio.sleep(0.1)
            assert (await _answer(stream)).json() == {"size": 15_000}


async def test_t076_many_large_bodies_at_once(target: Running) -> None:
    """32 bodies of 12 MB: one is parsed at a time, the others wait on disk."""
    body = b'{"a":"' + b"x" * 12_000_000 + b'"}'
    request = post("/_test/large", body)
    answers: list[Answered] = []
    grown = 0

    async def attack() -> None:
        answers.append(await exchange(target, request + b"", wait_s=30))

    async def watch() -> None:
        nonlocal grown
        while True:
            grown = max(grown, target.memory() - before)
            await trio.sleep(0.01)

    household = Household(target)
    async with survives(target):
        before = target.memory()
        async with trio.open_nursery() as living:
            living.start_soon(household.live)
            living.start_soon(watch)
            async with trio.open_nursery() as attacks:
                for _ in range(32):
                    attacks.start_soon(attack)
            living.cancel_scope.cancel()
    assert {answer.statuses[0] for answer in answers} <= {200, 429}
    assert sum(answer.statuses == [200] for answer in answers) >= 16
    assert grown < 96 * MIB
    household.check()


@pytest.mark.parametrize("unit", [b"[],", b'{"a":0},'])
async def test_t078_json_that_swells_is_counted_before_it_is_parsed(
    target: Running, unit: bytes
) -> None:
    body = b'{"a":[' + unit * (10_500_000 // len(unit)) + b"0]}"
    request = post("/_test/large", body, "Connection: close")
    answers: list[Answered] = []

    async def attack() -> None:
        answers.append(await exchange(target, request, wait_s=30))

    await watched(target)
    async with survives(target):
        before = target.memory()
        async with trio.open_nursery() as attacks:
            for _ in range(8):
                attacks.start_soon(attack)
        assert target.memory() < before + 64 * MIB
    assert [answer.statuses for answer in answers] == [[413]] * 8
    assert (await watched(target))["worst_pause_ms"] < 250


async def test_t076_continue_is_said_only_where_the_body_is_read(target: Running) -> None:
    head = post("/_test/echo", b"{}", "Expect: 100-continue")[:-2]
    answered = await exchange(target, head, b"{}", between_s=0.2)
    assert answered.statuses == [100, 200]
    unread = await exchange(target, post("/_test/ignore", b"{}", "Expect: 100-continue")[:-2])
    assert unread.statuses == [200]
    assert unread.is_closed  # whether the two bytes come is not known
    unauthorised = post("/_matrix/client/versions", b"{}", "Expect: 100-continue")[:-2]
    assert (await exchange(target, unauthorised)).statuses == [405]


async def test_t076_no_continue_for_a_peer_that_sends_anyway(target: Running) -> None:
    both = post("/_test/echo", b'{"a":1}', "Expect: 100-continue")
    assert (await exchange(target, both)).statuses in ([200], [100, 200])


async def test_t076_a_refused_body_ends_the_connection_within_two_seconds(target: Running) -> None:
    """At most 64 KiB of it are read, and the answer arrives all the same."""
    async with survives(target), await connect(target) as stream:
        head = b"POST /_test/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n"
        await stream.send_all(head)
        before = trio.current_time()
        sent = 0
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(2):
            while True:
                await stream.send_all(b"x" * 1000)
                sent += 1000
                await trio.sleep(0.005)
        assert sent < 1_000_000
    assert trio.current_time() - before < 2
    polite = await exchange(target, head, wait_s=2)
    assert polite.statuses == [413]
    assert polite.is_closed
    assert polite.json()["errcode"] == "M_TOO_LARGE"


async def test_a_short_body_that_nobody_reads_costs_no_connection(target: Running) -> None:
    """Clients that send `{}` where nothing is asked for; also when it comes late."""
    request = post("/_test/ignore", b"{}")
    at_once = await exchange(target, request + get(target.paths.small))
    assert at_once.statuses == [200, 200]
    late = await exchange(target, request[:-2], b"{}" + get(target.paths.small))
    assert late.statuses == [200, 200]
    never = await exchange(target, request[:-2], wait_s=2)
    assert never.statuses == [200]
    assert never.is_closed


async def test_a_long_body_that_nobody_reads_ends_the_connection(target: Running) -> None:
    answered = await exchange(
        target, post("/_test/ignore", b"x" * 200_000) + get(target.paths.small), wait_s=2
    )
    assert answered.statuses == [200]
    assert answered.header("connection") == "close"
    assert answered.is_closed


async def test_quart_routes_read_from_the_connection_like_others(target: Running) -> None:
    answered = await ask(target, post("/_test/quart_echo", b'{"a":1}'))
    assert answered.json() == {"a": 1}
    assert (await ask(target, post("/_test/quart_echo", b"{"))).json()["errcode"] == "M_NOT_JSON"
    before = await exchange(target, post("/_test/quart_echo", b"x" * 70_000)[:-70_000], wait_s=2)
    assert before.statuses == [413]
    broken = (
        b"POST /_test/quart_echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    )
    assert (await exchange(target, broken)).statuses == [400]
