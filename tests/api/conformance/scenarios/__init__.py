"""What households do with the client API, well and badly: one function a scenario.

A scenario names the operations that it covers, as the specification writes their paths; running it
must bring at least one right answer of each.  The status page lists them.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from tests.api.conformance.house import CLIENT, House
from tests.api.conformance.server import OPEN

Play = Callable[[House], None]


@frozen
class Scenario:
    """A scenario, the operations that it covers (`METHOD /path/{parameter}`), and its server."""

    name: str
    play: Play
    covers: frozenset[str]
    settings: str


SCENARIOS: dict[str, Scenario] = {}


def covers(*operations: str, settings: str = OPEN) -> Callable[[Play], Play]:
    """Declare a scenario; operations of the client API are given without its prefix.

    `settings` are those of the server that it needs.
    """

    def declare(play: Play) -> Play:
        if play.__name__ in SCENARIOS:
            raise ValueError(f"there are two scenarios called {play.__name__}")
        whole = frozenset(map(_whole, operations))
        SCENARIOS[play.__name__] = Scenario(play.__name__, play, whole, settings)
        return play

    return declare


def _whole(operation: str) -> str:
    method, _, path = operation.partition(" ")
    return f"{method} {CLIENT}{path}" if path.startswith(("/v1/", "/v3/")) else operation
