"""Random programs of writers against a dictionary, and both runners against each other.

A program is a list of rounds; the actions of a round run at once, each in a task of its own, and
some are cancelled meanwhile. Whatever the grouping, the database must show the acknowledged
writes in the order of their positions, and nothing of the refused ones.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio
from attrs import define, evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matrixbox.store.database import Store
from matrixbox.store.errors import ConstraintViolated, StoreError
from matrixbox.store.runner import Runner
from matrixbox.store.transaction import Tx
from tests.store.engine_support import ROOM, Refused, everything, open_store


@frozen
class Action:
    """One transaction: set some keys, perhaps delete one, then end in some way."""

    puts: tuple[tuple[str, int], ...]
    delete: str | None
    ending: str  # "ok", "raise", "constraint", "catch"
    heavy: bool
    cancel: str  # "no", "before", "meanwhile"


@define
class Outcome:
    """What became of an action, as its caller knows it."""

    action: Action
    position: int | None = None
    error: type[BaseException] | None = None
    cancelled: bool = False


NAMES = st.sampled_from("abcdef")
ACTIONS = st.builds(
    Action,
    puts=st.lists(st.tuples(NAMES, st.integers(0, 9)), min_size=1, max_size=3).map(tuple),
    delete=st.none() | NAMES,
    ending=st.sampled_from(["ok", "ok", "ok", "raise", "constraint", "catch"]),
    heavy=st.sampled_from([False, False, False, True]),
    cancel=st.sampled_from(["no", "no", "no", "before", "meanwhile"]),
)
PROGRAMS = st.lists(st.lists(ACTIONS, min_size=1, max_size=6), min_size=1, max_size=6)


def perform(tx: Tx, action: Action, order: list[Action]) -> int:
    """The transaction function. `order` gets the actions whose functions ran to their end."""
    pos = tx.position()
    for key, value in action.puts:
        tx.run(
            "INSERT OR REPLACE INTO entry (key, value, pos) VALUES (?, ?, ?)", key, str(value), pos
        )
    if action.delete is not None:
        tx.run("DELETE FROM entry WHERE key = ?", action.delete)
    tx.changed(rooms=(ROOM,))
    if action.ending == "raise":
        raise Refused
    if action.ending == "constraint":
        tx.run("INSERT INTO child (id, parent) VALUES (1, 99)")
    if action.ending == "catch":
        try:
            tx.run("INSERT INTO child (id, parent) VALUES (1, 99)")
        except ConstraintViolated:
            tx.run("DELETE FROM entry WHERE key = 'a'")
    order.append(action)
    return pos


def model(state: dict[str, str], action: Action) -> None:
    """What an action does to the dictionary."""
    for key, value in action.puts:
        state[key] = str(value)
    state.pop(action.delete or "", None)
    if action.ending == "catch":
        state.pop("a", None)


async def run_program(
    store: Store, program: Sequence[Sequence[Action]]
) -> tuple[list[Outcome], list[Action]]:
    order: list[Action] = []
    outcomes = []

    async def task(outcome: Outcome, scope: trio.CancelScope) -> None:
        with scope:
            try:
                outcome.position = await store.write(
                    perform, outcome.action, order, heavy=outcome.action.heavy
                )
            except (Refused, StoreError) as error:
                outcome.error = type(error)
        outcome.cancelled = scope.cancelled_caught

    for actions in program:
        async with trio.open_nursery() as nursery:
            scopes = []
            for action in actions:
                scope = trio.CancelScope()
                outcomes.append(Outcome(action))
                scopes.append(scope)
                if action.cancel == "before":
                    scope.cancel()
                nursery.start_soon(task, outcomes[-1], scope)
            await trio.lowlevel.checkpoint()
            for action, scope in zip(actions, scopes, strict=True):
                if action.cancel == "meanwhile":
                    scope.cancel()
    return outcomes, order


def check(store: Store, outcomes: Sequence[Outcome], order: Sequence[Action]) -> None:
    expected: dict[str, str] = {}
    for action in order:
        model(expected, action)
    assert store.read(everything) == expected
    committed = [o for o in outcomes if o.position is not None]
    by_position = sorted(committed, key=lambda o: o.position or 0)
    # Every function that ran to its end was acknowledged to its caller, cancelled or not, with
    # positions in the order of running: 1, 2, 3 … as those of the others were given back.
    assert [id(o.action) for o in by_position] == [id(action) for action in order]
    assert [o.position for o in by_position] == list(range(1, len(order) + 1))
    assert store.doorbell.position == len(order)
    for outcome in outcomes:
        if outcome.position is None and not outcome.cancelled:
            wanted = {"raise": Refused, "constraint": ConstraintViolated}
            assert outcome.error is wanted[outcome.action.ending]
        if outcome.action.cancel == "before":
            assert outcome.cancelled
            assert outcome.position is None


async def in_fresh_store(
    runner: Runner, program: Sequence[Sequence[Action]]
) -> tuple[list[Outcome], list[Action], dict[str, str]]:
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        async with open_store(Path(folder) / "db", runner=runner) as store:
            outcomes, order = await run_program(store, program)
            check(store, outcomes, order)
            before = store.read(everything)
        async with open_store(Path(folder) / "db", runner=runner) as store:
            assert store.read(everything) == before
            assert store.doorbell.position == len(order)
    return outcomes, order, before


def fast_folder() -> str | None:
    """Memory where there is some: what is tested here is order, not the disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


FEW = settings(
    max_examples=3_000 if os.environ.get("MATRIXBOX_TEST_SIZE") == "large" else 60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@FEW
@given(PROGRAMS)
def test_concurrent_writers_end_as_the_dictionary_does_t143(program: list[list[Action]]) -> None:
    trio.run(in_fresh_store, Runner.THREADS, unique(program))


@FEW
@given(st.lists(ACTIONS, max_size=15))
def test_both_runners_give_the_same_results_in_the_same_order(actions: list[Action]) -> None:
    program = unique([[action] for action in actions if action.cancel != "meanwhile"])
    threads = trio.run(in_fresh_store, Runner.THREADS, program)
    inline = trio.run(in_fresh_store, Runner.INLINE, program)
    assert threads == inline


@FEW
@given(PROGRAMS)
def test_the_inline_runner_keeps_the_same_promises(program: list[list[Action]]) -> None:
    trio.run(in_fresh_store, Runner.INLINE, unique(program))


def unique(program: list[list[Action]]) -> list[list[Action]]:
    """Equal actions as separate objects: outcomes are told apart by identity."""
    return [[evolve(action) for action in actions] for actions in program]
