"""The negative control: the same attacks bring down Hypercorn as it comes (section 4 of threats).

An attack that Hypercorn survived would prove nothing about ours. Where one of these fails after an
upgrade of Hypercorn, the upgrade has mended something, and section 6 has to be read again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import trio

from tests.live.http1_table import Raw, table
from tests.live.http2_frames import PREFACE, SEQUENCES, SETTINGS, UPGRADES, frame
from tests.live.siege import deaf, is_established
from tests.live.target import (
    Running,
    connect,
    exchange,
    get,
    running,
    survives,
)

DEADLY = {
    "a method beyond ASCII": SEQUENCES,
    "a path beyond ASCII": SEQUENCES,
    "a flood of priorities": SEQUENCES,
    "h2c with half a setting": UPGRADES,
    "websocket with a byte behind it": UPGRADES,
}
BELIEVED = (
    "Content-Length before Transfer-Encoding",
    "Transfer-Encoding before Content-Length",
    "the same Content-Length twice",
    "a list of lengths",
    "bare LF line ends",
    "one bare LF",
    "a folded line",
    "an absolute-form target",
    "a dot segment",
    "20 KiB of one field",
    "150 fields",
    "trailers",
)


CASES = [case for case in table() if case.name in BELIEVED]


@pytest.fixture(scope="module")
def hypercorn() -> Iterator[Running]:
    with running(kind="hypercorn") as found:
        yield found


@pytest.mark.parametrize("name", DEADLY)
async def test_t069_one_packet_ends_a_plain_hypercorn(name: str) -> None:
    data = DEADLY[name][name]
    if DEADLY[name] is SEQUENCES:
        data = PREFACE + frame(SETTINGS, 0, 0) + data
    with running(kind="hypercorn") as target:
        with pytest.raises((AssertionError, OSError)):
            async with survives(target):
                await exchange(target, data)
                await target.exit_s(2)
        assert not target.is_alive


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_t073_a_plain_hypercorn_believes_ambiguous_requests(
    hypercorn: Running, case: Raw
) -> None:
    answered = await exchange(hypercorn, *case.pieces(hypercorn.paths), wait_s=0.15)
    assert tuple(answered.statuses) != case.statuses


def test_every_control_is_in_the_table() -> None:
    assert set(BELIEVED) <= {case.name for case in table()}


async def test_t070_behind_quart_idle_connections_stay_for_ever() -> None:
    """The timer of a twentieth of a second does not start again after an answer."""
    with running("--keep-alive", "0.05", kind="quart") as target:
        answered = await exchange(target, get(target.paths.small), wait_s=0.8)
        assert answered.statuses == [200]
        assert not answered.is_closed
    with running("--keep-alive", "0.05", kind="hypercorn") as target:
        answered = await exchange(target, get(target.paths.small), wait_s=1.5)
        assert answered.is_closed  # with a plain ASGI application it does


async def test_t071_a_slow_reader_holds_up_the_stop_of_a_plain_hypercorn() -> None:
    with running(kind="hypercorn") as target:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deaf, target, "127.0.0.1")
            await trio.sleep(0.5)
            target.signal(signal.SIGTERM)
            assert await target.exit_s(4) is None
            nursery.cancel_scope.cancel()


async def test_t072_a_plain_hypercorn_takes_every_connection(hypercorn: Running) -> None:
    streams = [await connect(hypercorn) for _ in range(520)]
    await trio.sleep(0.5)
    assert sum(map(is_established, streams)) == 520
    for stream in streams:
        await trio.aclose_forcefully(stream)
