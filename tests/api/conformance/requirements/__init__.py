"""The requirements of the client API, a row for each: what is asked, and that it is so.

The ids are those of the project's checklist of the specification (C1 to C15, F).  A row is a
function that asks the running server; what has no row is named in later.py, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from tests.api.conformance.house import House
from tests.api.conformance.server import OPEN

Ask = Callable[[House], None]


@frozen
class Row:
    """One requirement, or one side of it."""

    id: str
    ask: Ask
    settings: str

    @property
    def name(self) -> str:
        """What the row is called in lists."""
        return f"{self.id} {self.ask.__name__}"


ROWS: list[Row] = []


def requirement(*ids: str, settings: str = OPEN) -> Callable[[Ask], Ask]:
    """Declare a row for one or more requirements, on a server with these settings."""

    def declare(ask: Ask) -> Ask:
        ROWS.extend(Row(one, ask, settings) for one in ids)
        return ask

    return declare
