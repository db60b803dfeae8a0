"""What ends a plain Hypercorn is the trouble of one connection here (T069, T074, T075)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.live.http2_frames import PREFACE, SEQUENCES, SETTINGS, UPGRADES, frame, upgrade
from tests.live.target import (
    Running,
    ask,
    exchange,
    get,
    running,
    survives,
    target_called,
)


@pytest.fixture(scope="module", params=["door", "serve"])
def target(request: pytest.FixtureRequest) -> Iterator[Running]:
    """The test application with short deadlines, and the full server."""
    with target_called(request.param) as found:
        yield found


@pytest.fixture(scope="module")
def door() -> Iterator[Running]:
    """The test application, for what the full server has no paths for."""
    with running() as found:
        yield found


@pytest.mark.parametrize("name", SEQUENCES)
async def test_t075_http2_ends_at_its_preface(target: Running, name: str) -> None:
    before_s = target.processor_s()
    async with survives(target):
        answered = await exchange(target, PREFACE + frame(SETTINGS, 0, 0) + SEQUENCES[name])
    assert answered.statuses in ([505], [])  # a reset may overtake the answer
    assert answered.is_closed
    assert target.processor_s() - before_s < 0.5  # T074 allows 2 s


async def test_t069_http2_gets_505(target: Running) -> None:
    answered = await exchange(target, PREFACE)
    assert answered.statuses == [505]


@pytest.mark.parametrize("name", UPGRADES)
async def test_t069_upgrades_are_ignored(target: Running, name: str) -> None:
    async with survives(target):
        answered = await exchange(target, UPGRADES[name], wait_s=0.15)
    assert answered.statuses == [404]  # "/" is nobody's path, and no protocol was switched


async def test_t069_a_request_behind_an_ignored_upgrade_is_answered(target: Running) -> None:
    small = target.paths.small.encode()
    lines = (b"Connection: Upgrade", b"Upgrade: websocket")
    both = upgrade(*lines, target=small) + get(target.paths.small)
    answered = await exchange(target, both, wait_s=0.15)
    assert answered.statuses == [200, 200]


async def test_t069_resets_at_every_moment_end_only_their_connection(door: Running) -> None:
    """A peer that resets while its answer is made, sent, or awaited."""
    big = door.paths.big
    assert big is not None
    linger = (1, 0)
    async with survives(door):
        for pause_s in (0, 0.001, 0.01, 0.05):
            for request in (get(big), get("/_test/slow?seconds=1"), get(door.paths.small) * 3):
                sock = trio.socket.socket()
                await sock.connect((door.host, door.port))
                await sock.send(request)
                await trio.sleep(pause_s)
                sock.setsockopt(
                    trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"".join(
                        value.to_bytes(4, "little") for value in linger
                    ),
                )  # fmt: skip
                sock.close()


async def test_a_bug_in_a_handler_is_a_500_with_an_id_and_nothing_else(door: Running) -> None:
    answered = await ask(door, get("/_test/bug"))
    assert answered.statuses == [500]
    assert answered.json()["errcode"] == "M_UNKNOWN"
    assert "a bug" not in answered.body.decode()
    assert (await ask(door, get(door.paths.small))).statuses == [200]


async def test_an_answer_that_breaks_off_is_never_shown_as_whole(door: Running) -> None:
    async with survives(door):
        answered = await exchange(door, get("/_test/breaks"))
    assert answered.statuses == [200]
    assert answered.is_closed
    assert not answered.raw.endswith(b"0\r\n\r\n")
