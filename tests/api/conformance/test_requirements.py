"""Requirement by requirement (C1 to C15, F; K where things go wrong; T081), the running server."""

from __future__ import annotations

from importlib import import_module

import pytest

from tests.api.conformance.requirements import ROWS
from tests.api.conformance.requirements.later import LATER, SECTIONS

for _module in (
    "general",
    "accounts",
    "syncing",
    "syncing_more",
    "rooms",
    "user_data",
    "encryption",
):
    import_module(f"tests.api.conformance.requirements.{_module}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_requirement(row, houses):
    row.ask(houses.on(row.settings))


def test_every_requirement_has_a_row_or_a_reason():
    ids = {f"{section}.{n:02}" for section, count in SECTIONS.items() for n in range(1, count + 1)}
    asked = {row.id for row in ROWS}
    in_tables = {"F1.01"}  # test_scenarios.py: doing_things_too_often
    assert ids - asked - in_tables - set(LATER) == set()
    assert not asked & set(LATER)
    assert {one for one in asked if one[0] in "CF"} | set(LATER) <= ids
