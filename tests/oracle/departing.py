"""Departures from the text: the machinery that names and applies them.

A departure is the reference with a sentence of the text changed into what Synapse does, so that
it says exactly which verdict or state Synapse gives: an answer of Synapse that differs from the
reference is explained only if the reference with these changes gives that very answer.
The departures themselves are in `departures` and `failures`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Rewrite = Callable[[Any], Any]
"""Makes a class with a changed sentence from a class of the reference."""


@dataclass(frozen=True, slots=True)
class Departure:
    name: str
    why: str
    of: str
    """What it changes: "rules" or "resolution"."""
    rewrite: Rewrite


Table = dict[str, Departure]


def departing(table: Table) -> Callable[[str, str], Callable[[Rewrite], Rewrite]]:
    """The decorator that names a rewrite, says what it changes, and puts it into `table`."""

    def departure(name: str, of: str) -> Callable[[Rewrite], Rewrite]:
        def register(rewrite: Rewrite) -> Rewrite:
            table[name] = Departure(name, " ".join((rewrite.__doc__ or "").split()), of, rewrite)
            return rewrite

        return register

    return departure
