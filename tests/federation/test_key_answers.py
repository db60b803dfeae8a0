"""What servers say about their keys: what is believed, and how much of it (T047, T045)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core.identifiers import KeyId, ServerName
from matrixbox.core.signing import SigningKey, decode_base64, encode_base64, sign_json
from matrixbox.federation import key_answers
from matrixbox.federation.key_answers import (
    MAX_CURRENT_KEYS,
    MAX_OLD_KEYS,
    MAX_VALIDITY_MS,
    BadKeyAnswer,
    merge_direct,
    merge_notarised,
    read_answer,
)
from matrixbox.store.server_keys import ServerKey
from tests.federation.inside import DAY_MS, key_named

FAR = ServerName("far.test")
NOW = 1_700_000_000_000
KEY, OTHER = key_named("k"), key_named("o")
ID, OTHER_ID = KEY.key_id, OTHER.key_id


def entry(key: SigningKey) -> dict[str, object]:
    return {"key": key.verify_key_base64}


def said(**changes: object) -> dict[str, object]:
    """An answer about the keys of far.test; what is None is left out."""
    answer = {
        "server_name": FAR,
        "verify_keys": {ID: entry(KEY)},
        "old_verify_keys": {},
        "valid_until_ts": NOW + DAY_MS,
    } | changes
    found = {key: value for key, value in answer.items() if value is not None}
    return sign_json(found, FAR, KEY)


def ignored(key_id: KeyId) -> None:
    raise AssertionError(f"{key_id} has other bytes")


def test_b3_03_an_answer_gives_the_current_and_the_old_keys():
    old = {OTHER_ID: {**entry(OTHER), "expired_ts": NOW - 5}}
    read = read_answer(FAR, said(old_verify_keys=old), NOW)
    assert read.keys == {
        ID: ServerKey(KEY.verify_key, NOW + DAY_MS, is_old=False),
        OTHER_ID: ServerKey(OTHER.verify_key, NOW - 5, is_old=True),
    }
    assert (read.answer.fetched_ms, read.answer.valid_until_ms) == (NOW, NOW + DAY_MS)


@pytest.mark.parametrize(
    "answer",
    [
        said(server_name="other.test"),
        said(server_name=None),
        said(valid_until_ts=None),
        said(valid_until_ts="soon"),
        said(valid_until_ts=True),
        said(valid_until_ts=[]),
        said(verify_keys=None),
        said(verify_keys=[]),
        said(verify_keys={}),
        said(verify_keys={OTHER_ID: entry(OTHER)}),  # signed with another key
        said(verify_keys={ID: entry(OTHER)}),
        said(verify_keys={ID: {"key": "AAAA"}}),
        said(verify_keys={ID: {"key": 5}}),
        said(verify_keys={ID: KEY.verify_key_base64}),
        said() | {"valid_until_ts": NOW + 1},  # changed after it was signed
        said() | {"signatures": {}},
        said() | {"signatures": {"other.test": said()["signatures"]["far.test"]}},  # type: ignore[index]
        {},
    ],
)
def test_t047_confused_answers_are_refused(answer):
    with pytest.raises(BadKeyAnswer):
        read_answer(FAR, answer, NOW)


@pytest.mark.parametrize("name", ["type", "room_id", "sender", "content", "method", "uri"])
def test_t050_an_answer_that_could_be_taken_for_something_else_is_refused(name):
    with pytest.raises(BadKeyAnswer):
        read_answer(FAR, said(**{name: "x"}), NOW)


def test_t047_of_two_signatures_of_its_own_both_must_be_good():
    both = said(verify_keys={ID: entry(KEY), OTHER_ID: entry(OTHER)})
    assert set(read_answer(FAR, sign_json(both, FAR, OTHER), NOW).keys) == {ID, OTHER_ID}
    assert set(read_answer(FAR, both, NOW).keys) == {ID, OTHER_ID}
    spoilt = {FAR: {**both["signatures"][FAR], OTHER_ID: encode_base64(bytes(64))}}  # type: ignore[index]
    with pytest.raises(BadKeyAnswer):
        read_answer(FAR, both | {"signatures": spoilt}, NOW)


def test_t047_keys_with_odd_names_are_passed_over():
    odd = dict.fromkeys(["ed25519:", "rsa:1", "ed25519:a b", "ed25519", ""], entry(OTHER))
    read = read_answer(FAR, said(verify_keys={ID: entry(KEY), **odd}, old_verify_keys=odd), NOW)
    assert set(read.keys) == {ID}


@pytest.mark.parametrize("until", [NOW + 9 * DAY_MS, 253_402_300_799_000, 2**62, 10**30])
def test_t047_no_validity_is_longer_than_a_week(until):
    [key] = read_answer(FAR, said(valid_until_ts=until), NOW).keys.values()
    assert key.valid_until_ms == NOW + MAX_VALIDITY_MS == NOW + 7 * DAY_MS


def test_t047_of_10_000_old_keys_the_last_100_are_kept():
    old = {f"ed25519:k{n}": {**entry(OTHER), "expired_ts": n} for n in range(10_000)}
    keys = read_answer(FAR, said(old_verify_keys=old), NOW).keys
    assert set(keys) == {ID, *(f"ed25519:k{n}" for n in range(9_900, 10_000))}
    current = {f"ed25519:k{n}": entry(OTHER) for n in range(1000)}
    assert len(read_answer(FAR, said(verify_keys={ID: entry(KEY), **current}), NOW).keys) == 20


def test_t047_an_old_key_does_not_run_out_in_the_future():
    old = {OTHER_ID: {**entry(OTHER), "expired_ts": NOW + 900 * DAY_MS}}
    assert read_answer(FAR, said(old_verify_keys=old), NOW).keys[OTHER_ID].valid_until_ms == NOW


@pytest.mark.parametrize("expired", [None, "x", True, 1.5, {}])
def test_t047_an_old_key_without_an_end_is_passed_over(expired):
    old = {OTHER_ID: {**entry(OTHER), "expired_ts": expired}}
    assert set(read_answer(FAR, said(old_verify_keys=old), NOW).keys) == {ID}


def test_t047_a_key_in_both_lists_is_an_old_one():
    old = {ID: {**entry(KEY), "expired_ts": NOW - 7}}
    assert read_answer(FAR, said(old_verify_keys=old), NOW).keys[ID].is_old


def test_t047_keys_whose_private_half_is_known_are_refused():
    seed = decode_base64("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")  # the specification's
    known = SigningKey("1", seed)
    answer = said(verify_keys={known.key_id: entry(known)})
    with pytest.raises(BadKeyAnswer):
        read_answer(FAR, sign_json(answer, FAR, known), NOW)
    both = said(verify_keys={ID: entry(KEY), known.key_id: entry(known)})
    assert set(read_answer(FAR, both, NOW).keys) == {ID}
    assert all(len(key) == 32 for key in key_answers.REFUSED_KEYS)


# Points of small order on the curve, as published with RFC 8032's security considerations and in
# the test vectors of several libraries.
LOW_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_t045_a_key_of_small_order_vouches_for_nothing(point):
    """With such a key somebody could sign without knowing anything."""
    public = bytes.fromhex(point)
    for signature in (bytes(64), public + bytes(32), b"\x01" + bytes(63)):
        answer = {
            "server_name": FAR,
            "verify_keys": {"ed25519:low": {"key": encode_base64(public)}},
            "valid_until_ts": NOW + DAY_MS,
            "signatures": {FAR: {"ed25519:low": encode_base64(signature)}},
        }
        with pytest.raises(BadKeyAnswer):
            read_answer(FAR, answer, NOW)


@pytest.mark.parametrize(
    "written",
    [
        lambda text: text + "=",
        lambda text: text.replace("+", "-").replace("/", "_"),
        lambda text: text[:10] + "\n" + text[10:],
    ],
)
def test_t045_base64_is_read_as_leniently_as_elsewhere(written):
    text = written(KEY.verify_key_base64)
    assert set(read_answer(FAR, said(verify_keys={ID: {"key": text}}), NOW).keys) == {ID}


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = ["server_name", "verify_keys", "old_verify_keys", "valid_until_ts", "signatures"]


@given(st.sampled_from(FIELDS), values, st.booleans())
def test_t090_any_value_in_any_place_is_refused_or_read(name, value, inside):
    """Never another exception, and never a key that is not 32 bytes."""
    answer = said()
    if inside and isinstance(answer[name], dict):
        changed = {name: {**answer[name], ID: value, "x": value}}  # type: ignore[dict-item]
    else:
        changed = {name: value}
    try:
        read = read_answer(FAR, answer | changed, NOW)
    except BadKeyAnswer:
        return
    assert all(len(key.public_key) == 32 for key in read.keys.values())
    assert all(key.valid_until_ms <= NOW + MAX_VALIDITY_MS for key in read.keys.values())


# --- merging

A = ServerKey(bytes([1]) * 32, NOW + 10, is_old=False)
B = ServerKey(bytes([2]) * 32, NOW + 20, is_old=False)
ONE, TWO = KeyId("ed25519:one"), KeyId("ed25519:two")


def later(key: ServerKey, until: int) -> ServerKey:
    return ServerKey(key.public_key, until, is_old=key.is_old)


def old(key: ServerKey, until: int) -> ServerKey:
    return ServerKey(key.public_key, until, is_old=True)


def test_a_server_is_believed_about_its_own_keys():
    assert merge_direct({}, {ONE: A}, NOW, ignored) == {ONE: A}
    assert merge_direct({ONE: A}, {ONE: later(A, NOW + 99)}, NOW, ignored)[ONE] == later(
        A, NOW + 99
    )
    assert merge_direct({ONE: A}, {ONE: old(A, NOW - 5)}, NOW, ignored)[ONE] == old(A, NOW - 5)


def test_a_key_that_is_no_longer_listed_becomes_an_old_one():
    merged = merge_direct({ONE: A, TWO: old(B, NOW - 9)}, {}, NOW, ignored)
    assert merged == {ONE: old(A, NOW), TWO: old(B, NOW - 9)}


def test_t047_other_bytes_are_believed_from_the_server_and_told_about():
    told: list[KeyId] = []
    new = ServerKey(bytes([9]) * 32, NOW + 50, is_old=False)
    assert merge_direct({ONE: A}, {ONE: new}, NOW, told.append) == {ONE: new}
    assert told == [ONE]


def test_t047_a_notary_adds_and_lengthens_but_changes_nothing():
    told: list[KeyId] = []
    known = {ONE: A}
    assert merge_notarised({}, {ONE: A}, told.append) == {ONE: A}
    assert merge_notarised(known, {TWO: B}, told.append) == {ONE: A, TWO: B}
    assert merge_notarised(known, {ONE: later(A, NOW + 99)}, told.append)[ONE] == later(A, NOW + 99)
    assert merge_notarised(known, {ONE: later(A, NOW - 99)}, told.append) == known
    assert merge_notarised(known, {}, told.append) == known
    assert merge_notarised(known, {ONE: old(A, NOW - 5)}, told.append) == known
    assert told == []
    assert merge_notarised(known, {ONE: B}, told.append) == known
    assert told == [ONE]


def test_t048_a_notary_with_a_stale_answer_cannot_bring_an_old_key_back():
    known = {ONE: old(A, NOW - 5)}
    assert merge_notarised(known, {ONE: later(A, NOW + 99)}, ignored) == known


def test_what_is_known_of_one_server_is_bounded():
    keys = {
        KeyId(f"ed25519:k{n}"): ServerKey(bytes([n % 250]) * 32, n, is_old=n % 2 == 0)
        for n in range(5000)
    }
    merged = merge_direct(keys, {ONE: A}, NOW, ignored)
    assert len(merged) == MAX_CURRENT_KEYS + MAX_OLD_KEYS
    assert merged[ONE] == A
