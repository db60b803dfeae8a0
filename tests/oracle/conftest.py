"""One Synapse worker for all tests that ask it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.oracle.synapse_pipe import Synapse, environment
from tests.peers.installing import PeerError
from tests.reporting import did_not_run


@pytest.fixture(scope="session")
def synapse_if_there() -> Iterator[Synapse | None]:
    """The worker; None where Synapse cannot be installed."""
    try:
        interpreter = environment()
    except (PeerError, subprocess.SubprocessError, OSError):
        yield None
        return
    with Synapse(interpreter) as worker:
        yield worker


@pytest.fixture
def synapse(synapse_if_there: Synapse | None) -> Synapse:
    if synapse_if_there is None:
        did_not_run("Synapse could not be installed as an oracle", required_in_ci=True)
    return synapse_if_there
