"""One besieged server for each file of attacks; one pair with Synapse for each of scenarios."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.federation.pair import Pair, federating
from tests.federation.siege import Siege, besieged


@pytest.fixture(scope="module")
def besieged_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    """A server of ours and a hostile one, for a whole file."""
    with besieged(tmp_path_factory.mktemp("siege")) as made:
        yield made


@pytest.fixture
def siege(besieged_server: Siege) -> Iterator[Siege]:
    """The same, with the three questions after each test."""
    besieged_server.foe.answers.clear()
    besieged_server.foe.asked.clear()
    with besieged_server.survived():
        yield besieged_server


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A server of ours and a Synapse, for a whole file."""
    with federating(tmp_path_factory.mktemp("pair")) as made:
        yield made


@pytest.fixture(params=("ours", "theirs"))
def first(request: pytest.FixtureRequest) -> str:
    """On which side the room is made, or Alice is."""
    return str(request.param)


@pytest.fixture(params=("1", "6", "9", "10", "11", "12"))
def version(request: pytest.FixtureRequest) -> str:
    """The room's version."""
    return str(request.param)
