"""Slow and silent peers are gone in time, and nobody waits for them (T070, T071)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.siege import HOME, besiege_slowly
from tests.live.target import Running, running


@pytest.fixture(scope="module")
def target() -> Iterator[Running]:
    with running("--home", HOME) as found:
        yield found


async def test_t070_slow_peers_of_every_kind_are_cut_off(target: Running) -> None:
    """30 of each of 12 kinds at once: 360, of the 384 that strangers may have."""
    left = await besiege_slowly(target, 30, within_s=12)
    assert not left
