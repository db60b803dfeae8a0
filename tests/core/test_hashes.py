"""Base64, content hashes, reference hashes, event IDs."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256

import canonicaljson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core.hashes import (
    content_hash,
    content_hash_matches,
    decode_base64,
    encode_base64,
    event_id_of,
    is_canonical_base64,
    reference_hash,
)
from matrixbox.core.room_versions import ROOM_VERSIONS
from tests.core.making import VERSIONS, standard_room

# appendices, "Unpadded Base64"
BASE64 = [
    (b"", ""),
    (b"f", "Zg"),
    (b"fo", "Zm8"),
    (b"foo", "Zm9v"),
    (b"foob", "Zm9vYg"),
    (b"fooba", "Zm9vYmE"),
    (b"foobar", "Zm9vYmFy"),
]


@pytest.mark.parametrize(("data", "text"), BASE64)
def test_the_specification_s_examples_of_base64(data, text):
    """appendices, "Unpadded Base64" """
    assert encode_base64(data) == text
    assert decode_base64(text) == data
    assert is_canonical_base64(text)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("Zg==", b"f"),
        ("Zh", b"f"),  # spare bits
        ("Zg=", b"f"),
        ("-_-_", b"\xfb\xff\xbf"),
        ("+/+/", b"\xfb\xff\xbf"),
        ("Z m\n9v!", b"foo"),
        ("Zmü9v", b"foo"),
        ("Zm\ud8009v", b"foo"),
    ],
)
def test_base64_of_others_is_read_leniently(text, data):
    """[F4.03], T045"""
    assert decode_base64(text) == data


@pytest.mark.parametrize("text", ["Zg==", "Zh", "-_-_", "Zm9v ", "Z", "Zm9vZ", "YR"])
def test_only_one_encoding_is_canonical(text):
    """T045: what our clients upload."""
    assert not is_canonical_base64(text)


@pytest.mark.parametrize("text", ["Z", "Zm9vY", "Zm9vYmFyZ===="])
def test_impossible_lengths_are_errors(text):
    with pytest.raises(ValueError, match="not base64"):
        decode_base64(text)


@pytest.mark.parametrize("length", range(20))
def test_every_length_comes_back_from_base64(length):
    for data in (bytes(length), b"\xff" * length, bytes([0, 0, 0x17]) * length):
        text = encode_base64(data)
        assert (
            decode_base64(text) == decode_base64(text + "=") == decode_base64(text + "==") == data
        )
    assert encode_base64(b"\0\0\x17") == "AAAX"


@given(st.binary())
def test_base64_comes_back(data):
    assert decode_base64(encode_base64(data)) == data
    assert is_canonical_base64(encode_base64(data))


EVENT = {
    "room_id": "!x:domain",
    "sender": "@a:domain",
    "type": "X",
    "content": {"body": "x"},
    "prev_events": [],
    "auth_events": [],
    "depth": 3,
    "origin_server_ts": 1000000,
}


def test_the_content_hash_covers_everything_but_three_keys():
    """[A4.01]"""
    expected = sha256(canonicaljson.encode_canonical_json(EVENT)).digest()
    extra = {"unsigned": {"age": 1}, "signatures": {"a": {}}, "hashes": {"sha256": "x"}}
    assert content_hash(EVENT) == expected
    assert content_hash({**EVENT, **extra}) == expected
    for key in EVENT:
        assert content_hash({**EVENT, key: "other"}) != expected


def test_a_content_hash_matches_in_any_spelling():
    """[A4.07], T046"""
    digest = content_hash(EVENT)
    for text in (encode_base64(digest), b64encode(digest).decode()):
        assert content_hash_matches({**EVENT, "hashes": {"sha256": text}})


@pytest.mark.parametrize(
    "hashes", [None, {}, [], {"sha256": None}, {"sha256": "x" * 43}, {"sha256": "Z"}, {"sha1": ""}]
)
def test_other_content_hashes_do_not_match(hashes):
    """T046: and none of them is an exception."""
    assert not content_hash_matches({**EVENT, "hashes": hashes})


def test_an_event_without_canonical_form_matches_no_hash():
    assert not content_hash_matches({"content": float("nan"), "hashes": {"sha256": "eA"}})


def test_the_reference_hash_covers_the_redacted_event_and_its_hashes():
    """[A4.02]"""
    rules = ROOM_VERSIONS["11"]
    event = {**EVENT, "hashes": {"sha256": "x"}, "signatures": {"a": {}}, "unsigned": {"age": 1}}
    kept = {**EVENT, "hashes": {"sha256": "x"}, "content": {}}
    expected = sha256(canonicaljson.encode_canonical_json(kept)).digest()
    assert reference_hash(rules, event) == expected
    assert reference_hash(rules, {**event, "content": {"body": "y"}}) == expected
    assert reference_hash(rules, {**event, "hashes": {"sha256": "y"}}) != expected


@pytest.mark.parametrize("version", VERSIONS)
def test_event_ids_have_the_form_of_their_version(version):
    """rooms/v1, v3, v4, "Event IDs"; T006: from version 3 on they are computed, never read."""
    room = standard_room(version)
    pdu = room.pdu("m.room.message", {}, sender="@bob:two.test")
    event_id = event_id_of(room.rules, pdu)
    if room.rules.event_id_in_pdu:
        assert event_id == pdu["event_id"]
        return
    digest = reference_hash(room.rules, pdu)
    altchars = b"-_" if room.rules.event_id_url_safe else b"+/"
    assert event_id == "$" + b64encode(digest, altchars).decode().removesuffix("=")
    assert re.fullmatch(r"\$[A-Za-z0-9+/_-]{43}", event_id)
    assert event_id_of(room.rules, {**pdu, "event_id": "$mine"}) != "$mine"


def test_both_alphabets_occur():
    """rooms/v3 and v4: the same hash, spelled differently."""
    pdus = [{**EVENT, "depth": depth} for depth in range(50)]
    old = [event_id_of(ROOM_VERSIONS["3"], pdu) for pdu in pdus]
    new = [event_id_of(ROOM_VERSIONS["4"], pdu) for pdu in pdus]
    assert new == [text.replace("+", "-").replace("/", "_") for text in old]
    assert new != old
