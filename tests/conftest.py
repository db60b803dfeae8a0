"""For all tests: what did not run is told."""

from __future__ import annotations

import pytest

from tests.reporting import PREFIX, reasons


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end what did not run, and why."""
    found = reasons(terminalreporter.stats.get("skipped", []))
    if found:
        terminalreporter.section("not everything ran")
        for reason, count in sorted(found.items()):
            tests = "1 test" if count == 1 else f"{count} tests"
            terminalreporter.write_line(f"{PREFIX}{reason} ({tests})")
