"""Nobody reaches us, and the household is told (T156)."""

from __future__ import annotations

from contextlib import closing

import trio

from matrixbox.clock import SimulatedClock
from matrixbox.core.identifiers import ServerName
from matrixbox.federation.destinations import Destinations
from matrixbox.federation.reachability import PART, Reachability
from matrixbox.observe.health import Parts
from matrixbox.store.database import Store
from matrixbox.store.runner import Runner

A, B = ServerName("a.test"), ServerName("b.test")


def watched(store: Store) -> tuple[Destinations, Parts, Reachability]:
    destinations, parts = Destinations(store, SimulatedClock(1)), Parts()
    return destinations, parts, Reachability(ServerName("own.test"), destinations, parts)


async def test_t156_that_only_one_direction_works_is_told_with_what_to_look_at(
    tmp_path, autojump_clock
):
    with closing(Store.open(tmp_path / "db", runner=Runner.INLINE)) as store:
        destinations, parts, reachability = watched(store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reachability.run)
            for server in (A, B, A, B):
                destinations.delivered(server)
                await trio.sleep(600)
            assert parts.problems() == {}
            await trio.sleep(1_300)
            advice = parts.problems()[PART]
            assert "2 of them" in advice
            assert "own.test/.well-known/matrix/server" in advice
            destinations.succeeded(A)  # answers tell nothing new
            assert PART in parts.problems()
            destinations.alive(B)
            assert parts.problems() == {}
            await trio.sleep(7_200)
            assert parts.problems() == {}
            nursery.cancel_scope.cancel()


async def test_t156_a_server_that_is_called_now_and_then_is_reached(tmp_path, autojump_clock):
    with closing(Store.open(tmp_path / "db", runner=Runner.INLINE)) as store:
        destinations, parts, reachability = watched(store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reachability.run)
            for turn in range(30):
                destinations.delivered(A)
                if turn % 5 == 0:
                    destinations.alive(B)
                await trio.sleep(600)
            assert parts.problems() == {}
            nursery.cancel_scope.cancel()


async def test_t156_a_message_that_nobody_answers_is_no_sign_of_it(tmp_path, autojump_clock):
    with closing(Store.open(tmp_path / "db", runner=Runner.INLINE)) as store:
        destinations, parts, reachability = watched(store)
        destinations.delivered(A)
        destinations.delivered(A)
        await trio.sleep(86_400)
        reachability.look()
        assert parts.problems() == {}


async def test_a_sign_of_life_counts_when_the_waiting_is_over_too(tmp_path, autojump_clock):
    """What waits for a server longer than the back-off lasts is told, at most once a minute."""
    told: list[ServerName] = []
    with closing(Store.open(tmp_path / "db", runner=Runner.INLINE)) as store:
        destinations, _, _ = watched(store)
        destinations.on_sign_of_life.append(told.append)
        destinations.alive(A)
        assert told == []  # it never failed
        destinations.failed(A)
        await trio.sleep(3_600)
        assert destinations.may_try(A)
        for _ in range(3):
            destinations.alive(A)
        assert told == [A]
        await trio.sleep(61)
        destinations.alive(A)
        assert told == [A, A]
