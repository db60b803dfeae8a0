"""One besieged server for each file of attacks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
