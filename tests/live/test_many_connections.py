"""Thousands of connections, and too few descriptors, do not lock the household out (T072)."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from tests.live.siege import HOME, besiege_with_connections, fuzz, stranger
from tests.live.target import (
    HOME_CLIENT,
    Running,
    connect,
    exchange,
    get,
    running,
    survives,
    target_called,
    watched,
)

PATIENT = {"head_s": 20.0, "idle_s": 20.0, "handshake_s": 20.0}


@pytest.fixture(scope="module")
def target() -> Iterator[Running]:
    with running("--home", HOME, bounds=PATIENT) as found:
        yield found


@asynccontextmanager
async def held(target: Running, count: int, *sources: str) -> AsyncIterator[int]:
    """Open so many connections from each source; gives how many the server keeps."""
    streams: list[trio.SocketStream] = []
    kept = 0

    async def open_one(source: str) -> None:
        nonlocal kept
        stream = await connect(target, source)
        streams.append(stream)
        with suppress(trio.BrokenResourceError), trio.move_on_after(0.3) as waiting:
            # Whoever is refused sees the end, or a reset.
            await stream.receive_some()
        kept += waiting.cancelled_caught

    try:
        async with trio.open_nursery() as nursery:
            for source in sources:
                for _ in range(count):
                    nursery.start_soon(open_one, source)
        yield kept
    finally:
        for stream in streams:
            await trio.aclose_forcefully(stream)


async def test_t072_ten_thousand_connections(target: Running) -> None:
    """The household reads and writes within a second all the while."""
    async with survives(target, margin=64 * 1024 * 1024):
        kept = await besiege_with_connections(target, 10_000, addresses=400)
    assert kept == 384  # 512 in all, less the reserved ones


async def test_t072_one_address_has_48_connections(target: Running) -> None:
    async with survives(target):
        async with held(target, 60, stranger(1)) as kept, held(target, 1, stranger(2)) as other:
            assert (kept, other) == (48, 1)
    await trio.sleep(0.1)
    async with held(target, 2, stranger(1)) as kept:
        assert kept == 2


async def test_t072_the_reserved_slots_are_the_households(target: Running) -> None:
    """An address that has shown a good token counts as the household's, wherever it is."""
    friend = stranger(70_000)
    with_token = get("/_test/who", "Authorization: Bearer me", "Connection: close")
    assert (await exchange(target, with_token, source=friend)).statuses == [200]
    async with held(target, 48, *(stranger(number) for number in range(100, 108))) as kept:
        assert kept == 384
        async with held(target, 1, stranger(999)) as refused:
            assert refused == 0
        for source in (friend, HOME_CLIENT):
            answered = await exchange(target, get(target.paths.small), source=source)
            assert answered.statuses == [200]


async def test_t072_the_accept_loop_survives_running_out_of_descriptors(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))

    # Without the limit that keeps descriptors back, so that they really run out.
    no_reserve = {**PATIENT, "spare_descriptors": -1000}
    with running(bounds=no_reserve, before=few_descriptors) as target:
        async with survives(target):
            async with held(target, 120, "127.0.0.1") as kept:
                assert 20 < kept < 120
                assert target.is_alive
            await trio.sleep(0.3)
    assert "no descriptors left for connections" in capfd.readouterr().err


async def test_t072_descriptors_are_kept_for_files() -> None:
    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))

    with running(bounds=PATIENT, before=few_descriptors) as target:
        async with held(target, 40, "127.0.0.1") as kept:
            assert kept == 160 - 128


@pytest.mark.parametrize("name", ["door", "serve"])
async def test_t069_random_bytes_end_nothing_but_their_connection(name: str) -> None:
    """Four seconds here; `python -m tests.live.siege fuzz --seconds 60` for the whole of it."""
    with target_called(name) as target:
        sent = await fuzz(target, seconds=4, seed=7)
        if name == "door":
            assert (await watched(target))["worst_pause_ms"] < 250  # T079
    assert sent > 200
