"""Real answers, good and bad, of every endpoint, against the official OpenAPI files.

Without the environment variable MATRIXBOX_SPEC_DATA the scenarios are played all the same, and
each says that its answers were not held against the files.
"""

from __future__ import annotations

import pytest

from tests.api.conformance.conftest import WITHOUT_DATA
from tests.api.conformance.scenarios import SCENARIOS, Scenario
from tests.api.conformance.scenarios.table import load
from tests.reporting import did_not_run

load()


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
def test_scenario(scenario: Scenario, house):
    checker = house.checker
    before = {} if checker is None else dict(checker.good)
    scenario.play(house)
    if checker is None:
        did_not_run(WITHOUT_DATA)
    seen = {name for name, count in checker.good.items() if count > before.get(name, 0)}
    assert scenario.covers <= seen, "it claims to cover what it does not"
