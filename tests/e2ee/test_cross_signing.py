"""Cross-signing keys and signatures ([C17.06] to [C17.10], T126)."""

from __future__ import annotations

from typing import Any

import pytest

from matrixbox.e2ee import cross_signing
from matrixbox.e2ee.cross_signing import ConsentNeeded
from matrixbox.errors import (
    BadJson,
    Forbidden,
    InvalidParam,
    InvalidSignature,
    MatrixError,
    MissingParam,
)
from tests.e2ee.people import CrossSigning, Device, Object, Town, signed, town


async def upload(house: Town, who: Device, body: Object, *, consented: bool = False) -> None:
    new = cross_signing.parse(body, who.who.user_id)
    await house.house.store.write(cross_signing.upload, who.who, new, consented)


async def sign(house: Town, who: Device, body: Any) -> Any:
    return await house.house.store.write(cross_signing.add_signatures, who.who, body)


async def test_the_first_keys_need_no_consent_and_neither_do_the_same_again() -> None:
    """[C17.06], MSC3967."""
    async with town() as house:
        ann = await house.user("ann")
        mine = CrossSigning(ann.user_id)
        await ann.cross_sign(mine)
        await ann.cross_sign(mine)
        answer = await house.query(ann, ann.user_id)
        assert answer["master_keys"] == {ann.user_id: mine.public("master")}
        assert answer["self_signing_keys"] == {ann.user_id: mine.public("self_signing")}
        assert answer["user_signing_keys"] == {ann.user_id: mine.public("user_signing")}


async def test_replacing_or_adding_a_key_needs_consent() -> None:
    """[C17.06], T126: a stolen token is not enough."""
    async with town() as house:
        ann = await house.user("ann")
        mine = CrossSigning(ann.user_id)
        body = mine.upload()
        del body["user_signing_key"]
        await upload(house, ann, body)
        with pytest.raises(ConsentNeeded):
            await upload(house, ann, mine.upload())
        other = CrossSigning(ann.user_id)
        with pytest.raises(ConsentNeeded):
            await ann.cross_sign(other)
        kept = (await house.query(ann, ann.user_id))["master_keys"]
        assert kept == {ann.user_id: mine.public("master")}
        await ann.cross_sign(other, consented=True)
        answer = await house.query(ann, ann.user_id)
        assert answer["master_keys"] == {ann.user_id: other.public("master")}


async def test_a_new_master_key_alone_ends_the_keys_that_it_has_not_signed() -> None:
    """T126."""
    async with town() as house:
        ann = await house.user("ann")
        await ann.cross_sign(CrossSigning(ann.user_id))
        other = CrossSigning(ann.user_id)
        await upload(house, ann, {"master_key": other.public("master")}, consented=True)
        answer = await house.query(ann, ann.user_id)
        assert answer["master_keys"] == {ann.user_id: other.public("master")}
        assert answer["self_signing_keys"] == answer["user_signing_keys"] == {}


async def test_keys_must_be_signed_by_the_master_key() -> None:
    """[C17.07]."""
    async with town() as house:
        ann = await house.user("ann")
        mine, other = CrossSigning(ann.user_id), CrossSigning(ann.user_id)
        with pytest.raises(MissingParam):
            await upload(house, ann, {"self_signing_key": mine.public("self_signing")})
        body = {**mine.upload(), "self_signing_key": other.public("self_signing")}
        with pytest.raises(InvalidSignature):
            await upload(house, ann, body)
        unsigned = {**mine.public("user_signing"), "signatures": {}}
        with pytest.raises(InvalidSignature):
            await upload(house, ann, {**mine.upload(), "user_signing_key": unsigned})
        assert (await house.query(ann, ann.user_id))["master_keys"] == {}


@pytest.mark.parametrize(
    "change",
    [
        {"user_id": "@bo:home.test"},
        {"usage": ["self_signing"]},
        {"usage": "master"},
        {"keys": {}},
        {"keys": []},
        {"keys": {"ed25519:a": "b"}},
        {"keys": {"ed25519:x": "x", "ed25519:y": "y"}},
        {"x": 1.5},
    ],
)
async def test_malformed_keys_are_refused(change: Object) -> None:
    """[C17.07], T126."""
    async with town() as house:
        ann = await house.user("ann")
        key = {**CrossSigning(ann.user_id).public("master"), **change}
        with pytest.raises((BadJson, InvalidParam)):
            await upload(house, ann, {"master_key": key})


async def test_a_key_cannot_have_the_name_of_a_device_nor_the_other_way_round() -> None:
    """[C17.07], [C17.08], T126."""
    async with town() as house:
        ann = await house.user("ann")
        mine = CrossSigning(ann.user_id)
        name = mine.master.verify_key_base64
        tablet = await house.device(ann, name)
        with pytest.raises(Forbidden):
            await ann.cross_sign(mine)
        await house.remove(tablet)
        await ann.cross_sign(mine)
        with pytest.raises(MatrixError):
            await house.device(ann, name)


async def test_devices_and_the_master_key_are_signed_and_shown_so_to_everybody() -> None:
    """[C17.09], [C17.10]."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        mine = CrossSigning(ann.user_id)
        await ann.cross_sign(mine)
        device = mine.sign(ann.identity(), "self_signing")
        master = ann.sign(mine.public("master"))
        name = mine.master.verify_key_base64
        body = {ann.user_id: {ann.who.device_id: device, name: master}}
        assert await sign(house, ann, body) == {}
        for viewer in (ann, bo):
            answer = await house.query(viewer, ann.user_id)
            assert answer["device_keys"][ann.user_id] == {ann.who.device_id: device}
            assert answer["master_keys"][ann.user_id] == master
        assert await sign(house, ann, body) == {}, "once more"


async def test_signatures_on_others_keys_are_shown_to_their_maker_only() -> None:
    """[C17.09], [C17.10], T126, CVE-2022-39250."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        mine, theirs = CrossSigning(ann.user_id), CrossSigning(bo.user_id)
        await ann.cross_sign(mine)
        await bo.cross_sign(theirs)
        name = theirs.master.verify_key_base64
        vouched = mine.sign(theirs.public("master"), "user_signing")
        await ann.sync()
        await bo.sync()
        assert await sign(house, ann, {bo.user_id: {name: vouched}}) == {}
        assert (await house.query(ann, bo.user_id))["master_keys"][bo.user_id] == vouched
        seen = (await house.query(bo, bo.user_id))["master_keys"][bo.user_id]
        assert seen == theirs.public("master")
        assert await ann.list_changes() == ([bo.user_id], []), "ann's other devices ask again"
        assert await bo.list_changes() == ([], [])


async def test_what_cannot_be_signed_is_named_among_the_failures() -> None:
    """[C17.09]: the rest of the upload counts."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        mine, theirs = CrossSigning(ann.user_id), CrossSigning(bo.user_id)
        await ann.cross_sign(mine)
        await bo.cross_sign(theirs)
        good = mine.sign(ann.identity(), "self_signing")
        wrong = signed(bo.identity(), ann.user_id, "ed25519:x", mine.self_signing)
        master = theirs.master.verify_key_base64
        changed = mine.sign({**theirs.public("master"), "x": 1}, "user_signing")
        broken = mine.sign(theirs.public("master"), "user_signing")
        (key_id,) = broken["signatures"][ann.user_id]
        broken["signatures"][ann.user_id][key_id] = "A" * 86
        body = {
            ann.user_id: {ann.who.device_id: good, "NONE": good, "nothing": 5},
            bo.user_id: {bo.who.device_id: wrong, master: changed},
            "@nobody:home.test": {"x": {}},
        }
        failures = await sign(house, ann, body)
        found = {
            (user, key): error["errcode"]
            for user, keys in failures.items()
            for key, error in keys.items()
        }
        assert found == {
            (ann.user_id, "NONE"): "M_NOT_FOUND",
            (ann.user_id, "nothing"): "M_NOT_FOUND",
            (bo.user_id, bo.who.device_id): "M_INVALID_SIGNATURE",
            (bo.user_id, master): "M_INVALID_SIGNATURE",
            ("@nobody:home.test", "x"): "M_NOT_FOUND",
        }
        failures = await sign(house, ann, {bo.user_id: {master: broken}})
        assert failures[bo.user_id][master]["errcode"] == "M_INVALID_SIGNATURE"
        shown = (await house.query(ann, ann.user_id))["device_keys"][ann.user_id]
        assert shown == {ann.who.device_id: good}


async def test_new_keys_and_signatures_are_a_change_of_the_list() -> None:
    """[C17.02], [C17.08]: also for the user's own devices."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.house.room(ann.who, preset="public_chat")
        await house.house.join(bo.who, room)
        for device in (ann, bo):
            await device.sync()
        mine = CrossSigning(ann.user_id)
        await ann.cross_sign(mine)
        for device in (ann, bo):
            assert await device.list_changes() == ([ann.user_id], [])
        body = {ann.user_id: {ann.who.device_id: mine.sign(ann.identity(), "self_signing")}}
        await sign(house, ann, body)
        for device in (ann, bo):
            assert await device.list_changes() == ([ann.user_id], [])
        await sign(house, ann, body)
        await ann.cross_sign(mine)
        assert await bo.list_changes() == ([], []), "nothing new was said"
