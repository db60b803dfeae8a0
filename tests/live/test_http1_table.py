"""Every raw request of the table gets the answer it must, and the server goes on (T073)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.http1_table import Raw, table
from tests.live.target import Running, exchange, survives, target_called

CASES = list(table())


@pytest.fixture(scope="module", params=["door", "serve"])
def target(request: pytest.FixtureRequest) -> Iterator[Running]:
    """The test application with short deadlines, and the full server."""
    with target_called(request.param) as found:
        yield found


@pytest.mark.parametrize("case", CASES, ids=[f"{case.threat} {case.name}" for case in CASES])
async def test_raw_request_gets_the_answer_it_must(target: Running, case: Raw) -> None:
    async with survives(target):
        # Long enough for an answer and the drain behind it; what stays open ends by the wait.
        wait_s = 3.0 if case.ends else 0.15
        answered = await exchange(
            target, *case.pieces(target.paths), wait_s=wait_s, between_s=0.005
        )
    statuses = tuple(answered.statuses)
    if case.statuses is None:
        assert len(statuses) == 1
        assert statuses[0] in target.paths.json_statuses
    else:
        assert statuses == case.statuses
    assert answered.is_closed == case.ends


def test_the_table_is_as_long_as_it_says() -> None:
    """T073 asks for 25 raw requests at least."""
    assert len(CASES) >= 90
    assert len({case.name for case in CASES}) == len(CASES)
