"""All scenarios."""

from __future__ import annotations

from importlib import import_module

MODULES = (
    "accounts",
    "rooms",
    "membership",
    "people",
    "addresses",
    "guests",
    "events",
    "user_data",
    "syncing",
    "encryption",
    "sliding",
    "push",
    "sessions",
    "delayed",
    "old_ways",
)


def load() -> None:
    """Read the modules, each of which declares its scenarios."""
    for name in MODULES:
        import_module(f"tests.api.conformance.scenarios.{name}")
