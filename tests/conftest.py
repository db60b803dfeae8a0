"""For all tests: what did not run is told; which tests share a worker; no stray log handlers."""

from __future__ import annotations

import pytest

from tests.reporting import PREFIX, reasons

# They start processes, use much of the machine, and look at times: one after the other, first.
ONE_WORKER = ("live", "clients", "crash")


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark also where pytest-xdist is not installed."""
    config.addinivalue_line("markers", "xdist_group(name): tests that share a worker")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, keep each file, and each of the folders above, on one of them."""
    for item in items:
        folder = item.nodeid.split("/")[1] if item.nodeid.count("/") > 1 else ""
        group = folder if folder in ONE_WORKER else item.nodeid.partition("::")[0]
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(
        key=lambda item: not item.nodeid.startswith(tuple(f"tests/{f}/" for f in ONE_WORKER))
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end what did not run, and why."""
    found = reasons(terminalreporter.stats.get("skipped", []))
    if found:
        terminalreporter.section("not everything ran")
        for reason, count in sorted(found.items()):
            tests = "1 test" if count == 1 else f"{count} tests"
            terminalreporter.write_line(f"{PREFIX}{reason} ({tests})")
