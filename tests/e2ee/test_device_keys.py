"""Publishing and asking for identity keys ([C17.01] to [C17.03], T122)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrixbox.core.identifiers import DeviceId, UserId
from matrixbox.core.json import decode_stored, encode_canonical
from matrixbox.e2ee import cross_signing, device_keys, shapes
from matrixbox.errors import BadJson, InvalidParam, MatrixError
from matrixbox.store import accounts, keys
from tests.e2ee.people import CrossSigning, Device, new_key, town

USER, DEVICE = UserId("@ann:home.test"), DeviceId("PHONE")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


async def test_published_keys_are_shown_to_others_with_the_name_of_the_device() -> None:
    """[C17.03]: `[]` asks for all devices, unknown users are just absent."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        tablet = await house.device(ann, "TABLET")
        await house.house.store.write(accounts.rename_device, tablet.who.device, "Ann's tablet")
        answer = await house.query(bo, ann.user_id, "@nobody:home.test")
        assert answer["failures"] == {}
        assert set(answer["device_keys"]) == {ann.user_id}
        shown = answer["device_keys"][ann.user_id]
        assert shown[ann.who.device_id] == ann.identity()
        unsigned = {"device_display_name": "Ann's tablet"}
        assert shown["TABLET"] == {**tablet.identity(), "unsigned": unsigned}


async def test_single_devices_can_be_asked_for() -> None:
    """[C17.03]."""
    async with town() as house:
        ann = await house.user("ann")
        await house.device(ann, "TABLET")
        wanted: Any = {ann.user_id: ["TABLET", "NONE"]}
        answer = await house.keys.query(ann.who, wanted, 1)
        assert set(answer["device_keys"][ann.user_id]) == {"TABLET"}  # type: ignore[index,call-overload]


async def test_a_user_without_keys_has_an_empty_entry() -> None:
    """[C17.03]."""
    async with town() as house:
        ann = await house.user("ann", uploaded=False)
        assert (await house.query(ann, ann.user_id))["device_keys"] == {ann.user_id: {}}


async def test_keys_of_another_user_or_device_are_refused() -> None:
    """[C17.01], T122."""
    async with town() as house:
        ann = await house.user("ann")
        for change in ({"user_id": "@bo:home.test"}, {"device_id": "OTHER"}):
            value = ann.sign({**ann.identity(), **change})
            with pytest.raises(InvalidParam):
                shapes.device_keys(value, ann.who.user_id, ann.who.device_id)


@pytest.mark.parametrize(
    "change",
    [
        {"keys": None},
        {"keys": []},
        {"keys": {"ed25519:PHONE": 5}},
        {"algorithms": "m.olm"},
        {"algorithms": [5]},
        {"signatures": []},
        {"signatures": {"@ann:home.test": "x"}},
        {"signatures": {"@ann:home.test": {"ed25519:PHONE": 5}}},
        {"signatures": None},
        {"signatures": {"@ann:home.test": {}}},
        {"signatures": {"@bo:home.test": {"ed25519:PHONE": "x"}}},
        {"keys": {}},
        {"keys": {"ed25519:PHONE": "short"}},
        {"x": 1.5},
        {"x": 2**60},
        {"x": 40_000 * "x"},
    ],
)
async def test_malformed_keys_are_refused(change: dict[str, Any]) -> None:
    """T122: what other servers could not be sent, or clients not use, is not stored."""
    async with town() as house:
        ann = await house.user("ann", uploaded=False)
        value = {**ann.identity(), **change}
        with pytest.raises((BadJson, InvalidParam)):
            shapes.device_keys(value, ann.who.user_id, ann.who.device_id)


async def test_keys_without_any_signature_are_taken_as_they_are() -> None:
    """T122, [C17.01]: they can be federated, and clients use none that are not signed."""
    async with town() as house:
        ann = await house.user("ann", uploaded=False)
        value = {**ann.identity(), "signatures": {}}
        found = shapes.device_keys(value, ann.who.user_id, ann.who.device_id)
        assert found["signatures"] == {}
        assert decode_stored(encode_canonical(found)) == found


async def test_a_signature_by_another_key_is_refused() -> None:
    """T122."""
    async with town() as house:
        ann = await house.user("ann", uploaded=False)
        other = Device(house.house, ann.who)
        value = {**ann.identity(), "signatures": other.identity()["signatures"]}
        with pytest.raises(InvalidParam, match="not signed"):
            shapes.device_keys(value, ann.who.user_id, ann.who.device_id)


@given(value=JSON)
@settings(max_examples=200, deadline=None)
def test_any_json_as_device_keys_is_refused_or_has_a_canonical_form(value: Any) -> None:
    """T122: whatever comes, the answer is an error of the protocol, or something to federate."""
    try:
        found = shapes.device_keys_of_peer(value, USER, DEVICE)
    except MatrixError:
        return
    encode_canonical(found)


@given(extra=st.dictionaries(st.text(max_size=9), JSON, max_size=3))
@settings(max_examples=100, deadline=None)
def test_keys_that_were_taken_can_always_be_sent_on(extra: Any) -> None:
    """T122."""
    key = new_key()
    value = {"user_id": USER, "device_id": DEVICE, "keys": {"ed25519:PHONE": "x"}}
    try:
        found = shapes.device_keys_of_peer({**extra, **value, "signatures": {}}, USER, DEVICE)
    except MatrixError:
        return
    assert decode_stored(encode_canonical(found)) == found
    assert key.key_id


async def test_keys_of_a_removed_device_go_with_it() -> None:
    """[C17.15], T103."""
    async with town() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        tablet = await house.device(ann, "TABLET")
        await tablet.upload(tablet.prekeys(3), tablet.prekeys(1, fallback=True))
        await bo.send("m.test", {ann.user_id: {"TABLET": {"n": 1}}})
        await house.remove(tablet)
        assert set((await house.query(bo, ann.user_id))["device_keys"][ann.user_id]) == {
            ann.who.device_id
        }
        assert await house.claim(tablet) == {}
        rows = house.house.everything()
        for table in ("device_key", "one_time_key", "fallback_key", "inbox"):
            assert tablet.who.device not in {row[0] for row in rows[table]} | {
                row[1] for row in rows[table]
            }


async def test_new_identity_keys_end_the_one_time_keys_of_the_old_ones() -> None:
    """A client that lost its data begins anew under the same name of its device."""
    async with town() as house:
        ann = await house.user("ann")
        await ann.upload(ann.prekeys(5), ann.prekeys(1, fallback=True))
        fresh = Device(house.house, ann.who)
        assert await fresh.upload(fresh.prekeys(2)) == {"signed_curve25519": 2}
        assert house.house.store.read(keys.fallback_keys, ann.who.device) == {}


async def test_uploading_the_same_keys_again_keeps_cross_signatures() -> None:
    """[C17.09]: the device's own upload knows nothing of the signatures of users' keys."""
    async with town() as house:
        ann = await house.user("ann")
        mine = CrossSigning(ann.user_id)
        await ann.cross_sign(mine)
        signed = mine.sign(ann.identity(), "self_signing")
        body: Any = {ann.user_id: {ann.who.device_id: signed}}
        assert await house.house.store.write(cross_signing.add_signatures, ann.who, body) == {}
        await ann.upload()
        shown = (await house.query(ann, ann.user_id))["device_keys"][ann.user_id]
        assert shown[ann.who.device_id] == signed


async def test_another_server_gets_all_devices_and_the_number_of_the_last_change() -> None:
    """[B13.04], [B13.05]."""
    async with town() as house:
        ann = await house.user("ann")
        await ann.cross_sign(CrossSigning(ann.user_id))
        read = house.house.store.read
        found: Any = read(device_keys.devices_for_peer, ann.who.user_id)
        assert found["user_id"] == ann.user_id
        assert found["devices"] == [{"device_id": ann.who.device_id, "keys": ann.identity()}]
        assert {"master_key", "self_signing_key"} < set(found)
        assert "user_signing_key" not in found
        before = found["stream_id"]
        await house.device(ann, "TABLET")
        found = read(device_keys.devices_for_peer, ann.who.user_id)
        assert found["stream_id"] > before
        assert read(device_keys.devices_for_peer, UserId("@nobody:home.test")) is None
