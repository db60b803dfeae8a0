"""User-interactive authentication: a session allows what it was begun for, once (T097)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from matrixbox.accounts.uia import LIFETIME_S, MAX_SESSIONS, Action, Flow, Refused, TooEarly, Uia
from matrixbox.clock import SimulatedClock
from matrixbox.core.json import Json
from matrixbox.errors import AuthenticationNeeded, Forbidden, MatrixError

FLOWS: list[Flow] = [("a", "b"), ("c",)]
DELETE = Action.of("@ann:home.test", "delete_devices", {"devices": ["X"]})


class Door:
    """An endpoint behind two ways in; a stage is passed with the right answer."""

    def __init__(self, flows: list[Flow] = FLOWS) -> None:
        self.flows = flows
        self.uia = Uia(SimulatedClock())
        self.passed: list[str] = []
        self.is_later = False

    async def ask(
        self, auth: Json, action: Action = DELETE, **how: Any
    ) -> Mapping[str, Any] | None:
        """None when let in, else what the refusal says."""

        def stage(name: str) -> Any:
            async def check(given_: Mapping[str, Json]) -> None:
                if given_.get("answer") == "later" and not self.is_later:
                    raise TooEarly("not yet")
                if given_.get("answer") == "of somebody else":
                    raise Refused("That is another user.")
                if given_.get("answer") not in ("right", "later"):
                    raise Forbidden("wrong")
                self.passed.append(name)

            return check

        stages = {name: stage(name) for flow in self.flows for name in flow}
        try:
            await self.uia.require(action, auth, self.flows, stages)
        except AuthenticationNeeded as error:
            return error.fields
        return None

    async def begin(self) -> str:
        needed = await self.ask(None)
        assert needed is not None
        return str(needed["session"])


async def test_an_answer_that_was_too_early_is_tried_again_by_the_session_alone() -> None:
    """[C3.03]: as after a link in a message was opened; it is not asked for again."""
    door = Door()
    session = await door.begin()
    for auth in (answer("c", session, "later"), {"session": session}, {"session": session}):
        needed = await door.ask(auth)
        assert needed is not None
        assert "completed" not in needed
    door.is_later = True
    assert await door.ask({"session": session}) is None
    assert door.passed == ["c"]


async def test_somebody_else_s_answer_ends_the_matter_but_not_the_session() -> None:
    """[C3.08]: it is refused, not asked for again."""
    door = Door()
    session = await door.begin()
    for auth in (
        {"type": "c", "answer": "of somebody else"},
        answer("c", session, "of somebody else"),
    ):
        with pytest.raises(Refused):
            await door.ask(auth)
    assert door.passed == []
    assert await door.ask(answer("c", session)) is None


def answer(stage: str, session: str, text: str = "right") -> dict[str, Json]:
    return {"type": stage, "session": session, "answer": text}


async def test_the_first_answer_names_the_ways_in():
    needed = await Door().ask(None)
    assert needed is not None
    assert needed["flows"] == [{"stages": ["a", "b"]}, {"stages": ["c"]}]
    assert "completed" not in needed


async def test_stages_are_passed_one_after_the_other():
    door = Door()
    session = await door.begin()
    needed = await door.ask(answer("a", session))
    assert needed is not None
    assert needed["completed"] == ["a"]
    assert await door.ask(answer("b", session)) is None


@pytest.mark.parametrize(
    "other",
    [
        Action.of("@ben:home.test", "delete_devices", {"devices": ["X"]}),
        Action.of("@ann:home.test", "password", {"devices": ["X"]}),
        Action.of("@ann:home.test", "delete_devices", {"devices": ["Y"]}),
        Action.of("", "delete_devices", {"devices": ["X"]}),
    ],
    ids=["another user", "another endpoint", "another body", "nobody"],
)
async def test_a_session_is_of_no_use_for_anything_else(other: Action):
    door = Door()
    session = await door.begin()
    await door.ask(answer("a", session))
    with pytest.raises(Forbidden):
        await door.ask(answer("b", session), other)
    assert await door.ask(answer("b", session)) is None


async def test_the_answers_themselves_are_not_part_of_what_is_allowed():
    body = {"devices": ["X"], "auth": {"type": "a"}}
    assert Action.of("@ann:home.test", "delete_devices", body) == DELETE


async def test_a_session_lets_in_once():
    door = Door()
    session = await door.begin()
    assert await door.ask(answer("c", session)) is None
    with pytest.raises(Forbidden):
        await door.ask(answer("c", session))


async def test_a_session_ends_after_ten_minutes(autojump_clock: MockClock):
    door = Door()
    session = await door.begin()
    await trio.sleep(LIFETIME_S + 1)
    with pytest.raises(Forbidden):
        await door.ask(answer("c", session))


async def test_a_client_that_knows_the_only_stage_may_begin_with_its_answer():
    door = Door()
    needed = await door.ask({"type": "c", "answer": "wrong"})
    assert needed is not None
    assert await door.ask({"type": "c", "answer": "right"}) is None


async def test_nor_does_that_skip_a_stage():
    door = Door()
    needed = await door.ask({"type": "b", "answer": "right"})
    assert needed is not None
    assert "completed" not in needed
    needed = await door.ask({"type": "a", "answer": "right"})
    assert needed is not None
    assert needed["completed"] == ["a"]


@pytest.mark.parametrize("auth", [[], "x", 5, True])
async def test_what_is_no_answer_is_refused(auth: Json):
    with pytest.raises(MatrixError):
        await Door().ask(auth)


@pytest.mark.parametrize("odd", [None, 5, [], {}, "b", "m.login.dummy"])
async def test_a_stage_that_is_not_next_is_refused(odd: Json):
    door = Door()
    session = await door.begin()
    needed = await door.ask({"type": odd, "session": session, "answer": "right"})
    assert needed is not None
    assert door.passed == []


async def test_sessions_of_strangers_are_bounded():
    door = Door()
    first = await door.begin()
    for _ in range(MAX_SESSIONS):
        await door.begin()
    with pytest.raises(Forbidden):
        await door.ask(answer("c", first))


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 1)), max_size=12)


@given(STEPS)
async def test_whatever_is_sent_in_whatever_order_only_a_whole_flow_lets_in(
    steps: list[tuple[str, bool, int]],
):
    """Two sessions at once; a stage counts for its own session, once, when its answer is right."""
    door = Door()
    sessions = [await door.begin(), await door.begin()]
    done: list[list[str]] = [[], []]
    over = [False, False]
    for stage, right, which in steps:
        auth = answer(stage, sessions[which], "right" if right else "wrong")
        if over[which]:
            with pytest.raises(Forbidden):
                await door.ask(auth)
            continue
        let_in = await door.ask(auth) is None
        mine = done[which]
        nexts = {flow[len(mine)] for flow in FLOWS if list(flow[: len(mine)]) == mine}
        if right and stage in nexts:
            mine.append(stage)
        assert let_in == (tuple(mine) in FLOWS)
        over[which] = let_in
