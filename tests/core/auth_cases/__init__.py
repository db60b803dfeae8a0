"""Cases for every authorisation rule, each for the room versions in which it is meant.

A case is a function from a standard room to a verdict: None if the event is allowed, else the
reason why not.  Rules are named by their number in version 12; where a rule exists in some versions
only, RULES says in which.  test_auth_table.py runs the cases and looks for gaps.
"""

from __future__ import annotations

from tests.core.auth_cases import (
    citations,
    creation,
    departures,
    invites,
    joins,
    levels,
    sending,
)
from tests.core.auth_cases.registry import BOB, CAROL, CASES, NEW, RULES, Case, verdict_of

__all__ = ["BOB", "CAROL", "CASES", "NEW", "RULES", "Case", "verdict_of"]

# Importing a module registers its cases.
MODULES = (citations, creation, departures, invites, joins, levels, sending)
