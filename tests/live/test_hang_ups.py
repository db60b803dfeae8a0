"""A client that goes away cancels its handler; one that stays has its timers restarted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.live.siege import connect_tls
from tests.live.target import Running, ask, connect, exchange, get, post, running, survives, watched


@pytest.fixture(scope="module")
def target() -> Iterator[Running]:
    with running() as found:
        yield found


async def _count(target: Running, what: str) -> int:
    return int((await watched(target))["counts"].get(what, 0))


async def _until_count(target: Running, what: str, count: int, within_s: float = 2) -> None:
    with trio.fail_after(within_s):
        while await _count(target, what) < count:
            await trio.sleep(0.02)


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("path", "what"), [("/_test/poll?seconds=60", "polls"), ("/_test/slow?seconds=60", "slow")]
)
async def test_20_hang_ups_cancel_20_handlers(
    target: Running, path: str, what: str, over_tls: bool
) -> None:
    started, ended = await _count(target, what), await _count(target, f"{what} cancelled")
    async with survives(target):
        streams = [await (connect_tls(target) if over_tls else connect(target)) for _ in range(20)]
        for stream in streams:
            await stream.send_all(get(path))
        await _until_count(target, what, started + 20)
        assert await _count(target, f"{what} cancelled") == ended
        for stream in streams:
            await stream.aclose()
        await _until_count(target, f"{what} cancelled", ended + 20)


async def test_a_hang_up_behind_a_pipelined_request_is_noticed(target: Running) -> None:
    ended = await _count(target, "slow cancelled")
    async with await connect(target) as stream:
        await stream.send_all(get("/_test/slow?seconds=60") + get(target.paths.small))
        await trio.sleep(0.1)
    await _until_count(target, "slow cancelled", ended + 1)


async def test_a_hang_up_in_the_middle_of_a_body_ends_the_request(target: Running) -> None:
    async with survives(target):
        for cut in (b"", b"{", b'{"a"'):
            async with await connect(target) as stream:
                await stream.send_all(post("/_test/echo", b"x" * 1000)[:-1000] + cut)
                await trio.sleep(0.01)
    assert (await watched(target))["connections"] == 1


async def test_a_client_that_waits_is_not_taken_for_gone(target: Running) -> None:
    answered = await exchange(target, get("/_test/poll?seconds=0.5"), wait_s=0.9)
    assert answered.statuses == [200]
    assert answered.json() == {"ended": "late"}


async def test_idle_connections_are_closed_after_an_answer_too(target: Running) -> None:
    """Section 6: behind quart-trio Hypercorn's timer does not start again."""
    for path in (target.paths.small, "/_test/quart/a", "/_test/nothing-here"):
        answered = await exchange(target, get(path), wait_s=4)
        assert answered.is_closed
        assert 0.7 < answered.seconds < 1.8


async def test_a_connection_serves_a_thousand_requests() -> None:
    with running(bounds={"requests_per_connection": 20}) as target:
        answered = await exchange(target, get(target.paths.small) * 30, wait_s=2)
    assert answered.statuses == [200] * 20
    assert answered.is_closed
    assert answered.raw.lower().count(b"connection: close") == 1


async def test_answers_that_are_larger_than_all_buffers_arrive(target: Running) -> None:
    for path, size in (("/_test/big", 8 << 20), ("/_test/big_stream", 64 << 20)):
        for over_tls in (False, True):
            stream = await (connect_tls(target) if over_tls else connect(target))
            request = get(path, "Connection: close")
            answered = await exchange(target, request, wait_s=20, stream=stream)
            assert answered.is_closed
            assert answered.raw.count(b"x" * 1024) == size // 1024


async def test_a_stream_is_made_no_faster_than_it_is_read(target: Running) -> None:
    before = await _count(target, "produced")
    memory = target.memory()
    async with await connect(target, receive_buffer=4096) as stream:
        await stream.send_all(get("/_test/big_stream"))
        await trio.sleep(0.5)
        produced = await _count(target, "produced") - before
        assert produced <= 4 + 128 // 64  # 64 KiB each; at most 256 KiB beside the kernel's
        assert target.memory() < memory + 1024 * 1024
    assert (await ask(target, get(target.paths.small))).statuses == [200]
