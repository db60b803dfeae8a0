"""Backups of room keys ([C17.11] to [C17.14], T129)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.e2ee import key_backup
from matrixbox.errors import (
    BadJson,
    InvalidParam,
    MatrixError,
    NotFound,
    TooLarge,
    WrongRoomKeysVersion,
)
from matrixbox.store.key_backup import Quality, Session
from tests.e2ee.people import Device, Object, Town, town

ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
ROOM = "!r:home.test"
QUALITIES = st.builds(Quality, st.booleans(), st.integers(0, 3), st.integers(0, 3))


def session(name: str, first: int = 0, forwarded: int = 0, *, verified: bool = False) -> Session:
    """One session, told apart by its quality."""
    value = {
        "first_message_index": first,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": {"cipher": f"{name} {first} {forwarded} {verified}"},
    }
    return key_backup.parse_session(ROOM, name, value)


async def create(house: Town, who: Device) -> str:
    write = house.house.store.write
    return await write(key_backup.create, who.who.user, ALGORITHM, {"public_key": "x"})


async def put(house: Town, who: Device, version: str, *sessions: Session) -> Object:
    result = await house.house.store.write(key_backup.put, who.who.user, version, sessions)
    return result.answer()


def stored(house: Town, who: Device, version: str) -> dict[str, Any]:
    """The sessions' ciphers by name."""
    found = house.house.store.read(key_backup.read, who.who.user, version, None, None)
    return {one.session_id: key_backup.shown_session(one) for one in found}


async def test_only_the_newest_version_can_be_written_to() -> None:
    """[C17.11]."""
    async with town() as house:
        ann = await house.user("ann")
        read, user = house.house.store.read, ann.who.user
        with pytest.raises(NotFound):
            read(key_backup.version, user, None)
        with pytest.raises(NotFound):
            await put(house, ann, "1", session("a"))
        first = await create(house, ann)
        await put(house, ann, first, session("a"))
        second = await create(house, ann)
        assert read(key_backup.version, user, None).version == int(second) != int(first)
        with pytest.raises(WrongRoomKeysVersion) as error:
            await put(house, ann, first, session("b"))
        assert error.value.fields == {"current_version": second}
        assert set(stored(house, ann, first)) == {"a"}
        assert stored(house, ann, second) == {}


async def test_the_etag_changes_exactly_when_the_keys_do() -> None:
    """[C17.13], T129; the count is that of the keys."""
    async with town() as house:
        ann = await house.user("ann")
        version = await create(house, ann)
        first = await put(house, ann, version, session("a", 5), session("b", 5))
        assert first["count"] == 2
        same = await put(house, ann, version, session("a", 5), session("b", 6))
        assert same == first
        better = await put(house, ann, version, session("a", 4), session("c"))
        assert better["count"] == 3
        assert better["etag"] != first["etag"]
        shown = key_backup.shown(house.house.store.read(key_backup.version, ann.who.user, version))
        assert {name: shown[name] for name in ("etag", "count")} == better

        async def remove(room: str | None, name: str | None) -> Object:
            result = await house.house.store.write(
                key_backup.remove, ann.who.user, version, room, name
            )
            return result.answer()

        assert await remove(ROOM, "none") == better
        fewer = await remove(ROOM, "a")
        assert (fewer["count"], fewer["etag"] != better["etag"]) == (2, True)
        assert await remove("!other:home.test", None) == fewer
        empty = await remove(None, None)
        assert empty["count"] == 0
        assert stored(house, ann, version) == {}


async def test_better_copies_replace_worse_ones() -> None:
    """[C17.14]: verified, then the lower first index, then forwarded less often."""
    async with town() as house:
        ann = await house.user("ann")
        version = await create(house, ann)
        qualities = itertools.product((False, True), (2, 1, 0), (2, 1, 0))
        for verified, first, forwarded in qualities:  # from the worst to the best
            one = session("a", first, forwarded, verified=verified)
            await put(house, ann, version, one)
            shown = stored(house, ann, version)["a"]
            assert shown["session_data"] == {"cipher": f"a {first} {forwarded} {verified}"}
        await put(house, ann, version, session("a", 0, 0))
        assert stored(house, ann, version)["a"]["is_verified"] is True


@given(st.lists(QUALITIES, min_size=1, max_size=6))
def test_the_order_in_which_copies_arrive_does_not_matter(qualities: list[Quality]) -> None:
    """T129."""

    def kept(order: list[Quality]) -> Quality:
        best = order[0]
        for quality in order[1:]:
            best = quality if quality.is_better_than(best) else best
        return best

    assert kept(qualities) == kept(qualities[::-1]) == kept(sorted(qualities, key=str))


async def test_deleting_a_version_is_idempotent_and_its_number_is_not_used_again() -> None:
    """[C17.12]."""
    async with town() as house:
        ann = await house.user("ann")
        write, user = house.house.store.write, ann.who.user
        first, second = await create(house, ann), await create(house, ann)
        await put(house, ann, second, session("a"))
        for _ in range(2):
            await write(key_backup.delete, user, second)
        assert house.house.store.read(key_backup.version, user, None).version == int(first)
        with pytest.raises(NotFound):
            stored(house, ann, second)
        for unknown in ("99", "x", "", "01", "9" * 30):
            with pytest.raises(NotFound):
                await write(key_backup.delete, user, unknown)
        assert await create(house, ann) not in (first, second)


async def test_only_the_auth_data_of_a_version_can_be_changed() -> None:
    """[C17.11]."""
    async with town() as house:
        ann = await house.user("ann")
        version = await create(house, ann)
        write, user = house.house.store.write, ann.who.user
        await write(key_backup.update, user, version, ALGORITHM, {"public_key": "y"})
        found = key_backup.shown(house.house.store.read(key_backup.version, user, version))
        assert found["auth_data"] == {"public_key": "y"}
        with pytest.raises(InvalidParam):
            await write(key_backup.update, user, version, "other", {})
        with pytest.raises(NotFound):
            await write(key_backup.update, user, "7", ALGORITHM, {})


async def test_a_single_key_that_is_not_there_is_not_found() -> None:
    """[C17.12]: rooms and all keys are empty instead."""
    async with town() as house:
        ann = await house.user("ann")
        version = await create(house, ann)
        read, user = house.house.store.read, ann.who.user
        assert read(key_backup.read, user, version, ROOM, None) == []
        with pytest.raises(NotFound):
            read(key_backup.read, user, version, ROOM, "a")
        with pytest.raises(NotFound):
            read(key_backup.read, user, "7", None, None)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"session_data": None}, BadJson),
        ({"session_data": "x"}, BadJson),
        ({"is_verified": 1}, BadJson),
        ({"first_message_index": -1}, BadJson),
        ({"first_message_index": True}, BadJson),
        ({"forwarded_count": "1"}, BadJson),
        ({"session_data": {"x": 300_000 * "x"}}, TooLarge),
    ],
)
def test_malformed_sessions_are_refused(change: Object, error: type[MatrixError]) -> None:
    """T129."""
    value = {
        "first_message_index": 0,
        "forwarded_count": 0,
        "is_verified": False,
        "session_data": {},
        **change,
    }
    with pytest.raises(error):
        key_backup.parse_session(ROOM, "a", value)


async def test_one_user_does_not_see_the_backup_of_another() -> None:
    """T129."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        version = await create(house, ann)
        await put(house, ann, version, session("a"))
        with pytest.raises(NotFound):
            stored(house, bo, version)
        assert await create(house, bo) == version, "versions are counted for each user"
        assert stored(house, bo, version) == {}
