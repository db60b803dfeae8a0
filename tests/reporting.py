"""What could not run here is said, never passed over in silence.

A test that needs something which this machine lacks calls `did_not_run(reason)`. The reasons stand
at the end of the summary. What continuous integration must always run fails there instead.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, NoReturn

import pytest

PREFIX = "did not run: "


def did_not_run(reason: str, *, required_in_ci: bool = False) -> NoReturn:
    """End the test as not run; with `required_in_ci`, as failed where $CI is set."""
    if required_in_ci and os.environ.get("CI"):
        pytest.fail(f"must run in continuous integration, but: {reason}")
    pytest.skip(PREFIX + reason)


def reasons(reports: list[Any]) -> Counter[str]:
    """How many tests did not run, by reason, from the reports of skipped tests."""
    found: Counter[str] = Counter()
    for report in reports:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        found[text.removeprefix("Skipped: ").removeprefix(PREFIX)] += 1
    return found
