"""One-time keys are handed out once ([C17.01], [C17.04], [K.16], T123, T124)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from matrixbox.core.identifiers import ServerName
from matrixbox.e2ee import one_time_keys
from matrixbox.errors import InvalidParam
from matrixbox.store import keys
from tests.e2ee.people import ALGORITHM, town

FAR = ServerName("far.test")


async def test_keys_are_handed_out_in_the_order_of_their_upload() -> None:
    """[C17.04]."""
    async with town() as house:
        ann = await house.user("ann")
        first, second = ann.prekeys(3), ann.prekeys(3)
        assert await ann.upload(first) == {ALGORITHM: 3}
        assert await ann.upload(second) == {ALGORITHM: 6}
        names = [await house.claim_one(ann) for _ in range(7)]
        assert names == [*first, *second, None]


async def test_many_claims_at_once_get_different_keys() -> None:
    """T123."""
    async with town() as house:
        ann = await house.user("ann")
        await ann.upload(ann.prekeys(50))
        found: list[str | None] = []

        async def claim() -> None:
            found.append(await house.claim_one(ann))

        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(claim)
        given = [name for name in found if name is not None]
        assert len(given) == len(set(given)) == 50


async def test_the_fallback_key_is_handed_out_when_nothing_is_left() -> None:
    """[C17.04], [C8.25]: it counts as used then, and a new one as unused."""
    async with town() as house:
        ann = await house.user("ann")
        fallback = ann.prekeys(1, fallback=True)
        await ann.upload(ann.prekeys(1), fallback)
        read = house.house.store.read
        assert read(keys.counts, ann.who.device).unused_fallback == (ALGORITHM,)
        await house.claim(ann)
        name = next(iter(fallback))
        for _ in range(2):
            claimed = (await house.claim(ann))[ann.user_id][ann.who.device_id]
            assert claimed == {name: fallback[name]}
            assert read(keys.counts, ann.who.device).unused_fallback == ()
        await ann.upload(fallback=fallback)
        assert read(keys.counts, ann.who.device).unused_fallback == (), "it is the one used"
        await ann.upload(fallback=ann.prekeys(1, fallback=True))
        assert read(keys.counts, ann.who.device).unused_fallback == (ALGORITHM,)


async def test_a_key_of_the_same_name_and_other_content_is_refused() -> None:
    """[C17.01], T123; an equal one is taken for a request that was repeated."""
    async with town() as house:
        ann = await house.user("ann")
        first = ann.prekeys(2)
        await ann.upload(first)
        assert await ann.upload(first) == {ALGORITHM: 2}
        name = next(iter(first))
        other = {name: next(iter(ann.prekeys(1).values()))}
        with pytest.raises(InvalidParam):
            await ann.upload(other)
        assert await house.claim_one(ann) == name


async def test_a_key_that_was_handed_out_is_not_revived_by_a_repeated_upload() -> None:
    """T123: the answer to an upload was lost, and meanwhile a key was claimed."""
    async with town() as house:
        ann = await house.user("ann")
        first = ann.prekeys(3)
        await ann.upload(first)
        taken = await house.claim_one(ann)
        assert await ann.upload(first) == {ALGORITHM: 2}
        assert taken not in [await house.claim_one(ann) for _ in range(4)]


async def test_only_so_many_keys_are_kept() -> None:
    """T123: the counts show what was not stored; what was handed out is forgotten in time."""
    async with town() as house:
        ann = await house.user("ann")
        counts = await ann.upload(ann.prekeys(one_time_keys.MAX_UNCLAIMED + 5))
        assert counts == {ALGORITHM: one_time_keys.MAX_UNCLAIMED}
        for _ in range(3):
            for _ in range(one_time_keys.MAX_UNCLAIMED):
                await house.claim_one(ann)
            await ann.upload(ann.prekeys(one_time_keys.MAX_UNCLAIMED))
        gone = house.house.store.read(keys.handed_out, ann.who.device)
        assert len(gone) <= one_time_keys.REMEMBERED + one_time_keys.MAX_UNCLAIMED


async def test_another_server_cannot_drain_a_device(autojump_clock: MockClock) -> None:
    """T124: beyond the rate it gets the fallback key, and the device keeps the others."""
    async with town() as house:
        ann = await house.user("ann")
        fallback = ann.prekeys(1, fallback=True)
        await ann.upload(ann.prekeys(100), fallback)
        wanted: Any = {ann.user_id: {ann.who.device_id: ALGORITHM}}

        async def claim() -> str:
            found: Any = await house.keys.claim_for_peer(wanted, FAR)
            return str(next(iter(found["one_time_keys"][ann.user_id][ann.who.device_id])))

        names = [await claim() for _ in range(one_time_keys.BURST + 10)]
        assert len(set(names[: one_time_keys.BURST])) == one_time_keys.BURST
        assert set(names[one_time_keys.BURST :]) == set(fallback)
        left = house.house.store.read(keys.counts, ann.who.device).one_time[ALGORITHM]
        assert left == 100 - one_time_keys.BURST
        await trio.sleep(one_time_keys.EVERY_S + 1)
        assert await claim() not in fallback


async def test_claims_for_unknown_devices_and_users_are_left_out() -> None:
    """[C17.04]."""
    async with town() as house:
        ann = await house.user("ann")
        await ann.upload(ann.prekeys(1))
        wanted: Any = {
            ann.user_id: {"NONE": ALGORITHM, ann.who.device_id: "unknown"},
            "@nobody:home.test": {"X": ALGORITHM},
        }
        assert await house.keys.claim(wanted, 1) == {"one_time_keys": {}, "failures": {}}


async def test_every_sync_tells_how_many_keys_are_left() -> None:
    """[C8.24], [C8.25]: also an answer without news."""
    async with town() as house:
        ann = await house.user("ann", uploaded=False)
        answer = await ann.sync()
        assert answer["device_one_time_keys_count"] == {ALGORITHM: 0}
        assert answer["device_unused_fallback_key_types"] == []
        await ann.upload(ann.prekeys(3), ann.prekeys(1, fallback=True))
        assert (await ann.sync())["device_one_time_keys_count"] == {ALGORITHM: 3}
        await house.claim(ann)
        answer = await ann.sync()
        assert answer["device_one_time_keys_count"] == {ALGORITHM: 2}
        assert answer["device_unused_fallback_key_types"] == [ALGORITHM]


async def test_keys_are_dropped_after_a_restore() -> None:
    """T123: some may have been handed out since the backup was made."""
    async with town() as house:
        ann = await house.user("ann")
        fallback = ann.prekeys(1, fallback=True)
        await ann.upload(ann.prekeys(3), fallback)
        await house.house.store.write(keys.drop_one_time_keys)
        assert (await ann.sync())["device_one_time_keys_count"] == {ALGORITHM: 0}
        assert await house.claim_one(ann) in fallback


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_handed_out_twice_over_restarts(seed: int, tmp_path: Path) -> None:
    """T123: uploads, repeated uploads and claims in any order, with restarts in between."""
    rng = random.Random(seed)
    given: list[str] = []
    uploads: list[Any] = []
    async with town(tmp_path / "a.db") as house:
        ann = await house.user("ann")
    for _ in range(4):
        async with town(tmp_path / "a.db") as house:
            ann.house = house.house
            for _ in range(30):
                action = rng.choice(["upload", "repeat", "claim", "claim", "claim"])
                if action == "upload":
                    uploads.append(ann.prekeys(rng.randint(1, 9)))
                    await ann.upload(uploads[-1])
                elif action == "repeat" and uploads:
                    await ann.upload(rng.choice(uploads[-3:]))
                else:
                    name = await house.claim_one(ann)
                    given += [] if name is None else [name]
    assert len(given) == len(set(given)) > 10
