"""One server, and a household on it, for the tests of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api.conformance.house import House
from tests.api.conformance.openapi.checking import Checker
from tests.api.conformance.server import OPEN, Server, serving
from tests.api.conformance.wire import Connection

DATA = "MATRIXBOX_SPEC_DATA"
WITHOUT_DATA = f"${DATA} does not name the specification's data: answers were not held against it"


@pytest.fixture(scope="session")
def checker() -> Checker | None:
    """What holds answers against the official descriptions; None where those are not at hand."""
    folder = os.environ.get(DATA)
    return Checker.of(Path(folder)) if folder else None


@contextmanager
def house_on(server: Server, checker: Checker | None) -> Iterator[House]:
    """A household that talks to a server; fails where the server logged a bug."""
    connection = Connection(server.host, server.port)
    yield House(server, checker, connection)
    connection.close()
    assert server.is_alive, "the server ended"
    assert server.bugs() == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with open registration and without limits on how often things are done."""
    with serving(tmp_path_factory.mktemp("server"), OPEN) as running:
        yield running


@pytest.fixture(scope="module")
def house(server: Server, checker: Checker | None) -> Iterator[House]:
    """The household on that server."""
    with house_on(server, checker) as found:
        yield found
