"""Known mistakes that the simulation must find: its negative controls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

FAULTS: dict[str, Callable[[], AbstractContextManager[None]]] = {}
"""By name: each makes all servers wrong in one way while it lasts."""
