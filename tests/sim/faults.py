"""Known mistakes that the simulation must find: its negative controls.

v2        rooms of version 12 are resolved as those of version 11 are, not by version 2.1
rejected  what cannot be judged yet, because something it cites is missing, counts as refused
stale     our own events are built on the end of the graph as it was some time before: what a
          server without a room lock does when it builds them outside of the write function
believed  a state that another server told is taken for what was, for ever
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from attrs import evolve

from matrixbox.core import resolve
from matrixbox.core.resolve_v2 import resolve_v2
from matrixbox.core.room_versions import StateResolution
from matrixbox.rooms import commit, ingest, letting_in
from matrixbox.rooms.letting_in import Outcome, Verdict
from matrixbox.store import hearsay

ORDINARY = ("m.room.message", "m.room.topic", "m.room.redaction")


@contextmanager
def without_v2_1() -> Iterator[None]:
    """v2 for v2.1."""

    def older(reader: Any, states: Any) -> Any:
        rules = evolve(reader.rules, state_resolution=StateResolution.V2)
        return resolve_v2(type(reader)(rules, reader.graph, reader.create_event_id), states)

    with patch.object(resolve, "resolve_v2", older):
        yield


@contextmanager
def unknown_is_rejected() -> Iterator[None]:
    """What waits counts as refused."""
    original = letting_in._take_one

    def take_one(*args: Any) -> Outcome:
        found = original(*args)
        return found if found.is_final else Outcome(Verdict.REJECTED, 4, "something is missing")

    with patch.object(letting_in, "_take_one", take_one):
        yield


@contextmanager
def built_too_early() -> Iterator[None]:
    """Our events cite what was the end of the graph one event earlier, now and then."""
    head_of, built = ingest.rooms.head, ingest._built
    rng = random.Random(0)
    ends: dict[tuple[int, int], Any] = {}

    def build(tx: Any, env: Any, room: Any, draft: Any) -> Any:
        now = head_of(tx, room)
        before = ends.get((id(env), room), now)
        ends[id(env), room] = now
        if draft.type not in ORDINARY or rng.random() > 0.5:
            return built(tx, env, room, draft)
        with patch.object(ingest.rooms, "head", lambda *_: before):
            return built(tx, env, room, draft)

    with patch.object(ingest, "_built", build):
        yield


@contextmanager
def told_is_believed() -> Iterator[None]:
    """No event bears the mark that its state is another server's word."""
    with patch.object(commit, "is_hearsay", lambda _: False), patch.object(hearsay, "put"):
        yield


FAULTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "v2": without_v2_1,
    "rejected": unknown_is_rejected,
    "stale": built_too_early,
    "believed": told_is_believed,
}
"""By name: each makes all servers wrong in one way while it lasts."""
