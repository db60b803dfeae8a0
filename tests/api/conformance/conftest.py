"""One server, and a household on it, for the tests of a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.api.conformance.house import House
from tests.api.conformance.openapi.checking import Checker
from tests.api.conformance.server import OPEN, Server, serving
from tests.api.conformance.wire import Connection

DATA = "MATRIXBOX_SPEC_DATA"
WITHOUT_DATA = f"${DATA} does not name the specification's data: answers were not held against it"


def spec_data() -> Path | None:
    """The folder of the specification's data; None where it is not at hand."""
    folder = os.environ.get(DATA)
    return Path(folder) if folder else None


@pytest.fixture(scope="session")
def checker() -> Checker | None:
    """What holds answers against the official descriptions; None where those are not at hand."""
    folder = spec_data()
    return None if folder is None else Checker.of(folder)


@contextmanager
def house_on(server: Server, checker: Checker | None) -> Iterator[House]:
    """A household that talks to a server; fails where it logged a bug, or wrote a token (T101)."""
    connection = Connection(server.host, server.port)
    yield House(server, checker, connection)
    connection.close()
    assert server.is_alive, "the server ended"
    assert server.bugs() == []
    assert server.tokens_written() == set()


class Houses:
    """Households on servers with different settings, each started when it is asked for."""

    def __init__(self, stack: ExitStack, folder: Callable[[], Path], checker: Checker | None):
        self.checker = checker
        self._stack = stack
        self._folder = folder
        self._by_settings: dict[str, House] = {}

    def on(self, settings: str) -> House:
        """The household on the server with these settings."""
        if settings not in self._by_settings:
            server = self._stack.enter_context(serving(self._folder(), settings))
            house = self._stack.enter_context(house_on(server, self.checker))
            self._by_settings[settings] = house
        return self._by_settings[settings]


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory, checker: Checker | None) -> Iterator[Houses]:
    """Households for all settings."""
    with ExitStack() as stack:
        yield Houses(stack, lambda: tmp_path_factory.mktemp("server"), checker)


@pytest.fixture(scope="module")
def house(houses: Houses) -> House:
    """The household on a server with open registration and no limits on how often."""
    return houses.on(OPEN)
