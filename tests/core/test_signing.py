"""Signatures: the specification's vectors, required signers, degenerate keys (T044, T045, T051)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core import signing
from matrixbox.core.events import parse_event
from matrixbox.core.hashes import decode_base64, encode_base64
from matrixbox.core.identifiers import InvalidIdentifier
from matrixbox.core.pruning import redact
from matrixbox.core.room_versions import ROOM_VERSIONS
from tests.core.making import CREATOR, VERSIONS, standard_room, versions

# appendices, "Cryptographic Test Vectors"
KEY = signing.SigningKey("1", decode_base64("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"))
OTHER = signing.SigningKey("2", bytes(32))

SIGNED_OBJECTS = [
    (
        {},
        "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ",
    ),
    (
        {"one": 1, "two": "Two"},
        "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
    ),
]
MINIMAL = {
    "room_id": "!x:domain",
    "sender": "@a:domain",
    "origin": "domain",
    "origin_server_ts": 1000000,
    "signatures": {},
    "hashes": {},
    "type": "X",
    "content": {},
    "prev_events": [],
    "auth_events": [],
    "depth": 3,
    "unsigned": {"age_ts": 1000000},
}
REDACTABLE = {
    "content": {"body": "Here is the message content"},
    "event_id": "$0:domain",
    "origin": "domain",
    "origin_server_ts": 1000000,
    "type": "m.room.message",
    "room_id": "!r:domain",
    "sender": "@u:domain",
    "signatures": {},
    "unsigned": {"age_ts": 1000000},
}
SIGNED_EVENTS = [
    (
        MINIMAL,
        "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
        "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
    ),
    (
        REDACTABLE,
        "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
        "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
    ),
]


@pytest.mark.parametrize(("obj", "signature"), SIGNED_OBJECTS)
def test_the_specification_s_signed_objects(obj, signature):
    """appendices, "JSON Signing" """
    signed = signing.sign_json(obj, "domain", KEY)
    assert signed == {**obj, "signatures": {"domain": {"ed25519:1": signature}}}
    assert signing.json_signature_valid(signed, "domain", "ed25519:1", KEY.verify_key)


@pytest.mark.parametrize(("event", "digest", "signature"), SIGNED_EVENTS)
def test_the_specification_s_signed_events(event, digest, signature):
    """appendices, "Event Signing" (redacted by the rules of version 1)"""
    signed = signing.hash_and_sign_event(ROOM_VERSIONS["1"], event, "domain", KEY)
    assert signed == {
        **event,
        "hashes": {"sha256": digest},
        "signatures": {"domain": {"ed25519:1": signature}},
    }
    assert signing.content_hash_matches(signed)
    assert signing.event_signature_valid(
        ROOM_VERSIONS["1"], signed, "domain", "ed25519:1", KEY.verify_key
    )


def test_signing_changes_neither_its_argument_nor_other_signatures():
    obj = {"a": 1, "signatures": {"other": {"x": "y"}, "domain": {"ed25519:0": "z"}}, "unsigned": 5}
    before = json.dumps(obj)
    signed = signing.sign_json(obj, "domain", KEY)
    assert json.dumps(obj) == before
    assert signed["unsigned"] == 5
    assert signed["signatures"]["other"] == {"x": "y"}
    assert set(signed["signatures"]["domain"]) == {"ed25519:0", "ed25519:1"}


def test_odd_signatures_in_the_way_are_replaced():
    for odd in (5, [], {"domain": 5}):
        signed = signing.sign_json({"signatures": odd}, "domain", KEY)
        assert signing.json_signature_valid(signed, "domain", "ed25519:1", KEY.verify_key)


def test_unsigned_and_other_signatures_are_not_covered():
    """appendices, "Signing Details" """
    signed = signing.sign_json({"a": 1}, "domain", KEY)
    twice = signing.sign_json({**signed, "unsigned": {"age": 5}}, "two", OTHER)
    assert signing.json_signature_valid(twice, "domain", "ed25519:1", KEY.verify_key)
    assert signing.json_signature_valid(twice, "two", "ed25519:2", OTHER.verify_key)


def test_signatures_of_others_keys_or_objects_are_not_valid():
    """T044"""
    signed = signing.sign_json({"a": 1}, "domain", KEY)
    valid = signing.json_signature_valid
    assert not valid(signed, "other", "ed25519:1", KEY.verify_key)
    assert not valid(signed, "domain", "ed25519:2", KEY.verify_key)
    assert not valid(signed, "domain", "ed25519:1", OTHER.verify_key)
    assert not valid({**signed, "a": 2}, "domain", "ed25519:1", KEY.verify_key)
    assert not valid({**signed, "b": 2}, "domain", "ed25519:1", KEY.verify_key)


@pytest.mark.parametrize("signatures", [None, 5, [], {}, {"domain": None}, {"domain": []}])
def test_objects_without_signatures_have_none(signatures):
    obj = {"signatures": signatures}
    assert signing.signatures_by(obj, "domain") == {}
    assert not signing.json_signature_valid(obj, "domain", "ed25519:1", KEY.verify_key)


def test_only_ed25519_signatures_that_are_text_count():
    """appendices, "Checking for a Signature", step 2"""
    entry = {"ed25519:1": "a", "rsa:1": "b", "ed25519:2": 5, "ed25519:": "c", "x": "d"}
    found = signing.signatures_by({"signatures": {"s": entry}}, "s")
    assert found == {"ed25519:1": "a", "ed25519:": "c"}


@pytest.mark.parametrize("text", ["", "Z", "AA", "x" * 85, "x" * 87, "\ud800", "A" * 86])
def test_broken_signatures_are_not_valid(text):
    """T045: False, never an exception."""
    obj = {"signatures": {"domain": {"ed25519:1": text}}}
    assert not signing.json_signature_valid(obj, "domain", "ed25519:1", KEY.verify_key)


def test_signatures_may_be_padded_or_url_safe():
    """T045: base64 is read as leniently as peers do."""
    text = SIGNED_OBJECTS[0][1]
    for spelling in (text + "==", text.replace("+", "-").replace("/", "_")):
        obj = {"signatures": {"domain": {"ed25519:1": spelling}}}
        assert signing.json_signature_valid(obj, "domain", "ed25519:1", KEY.verify_key)


def test_an_object_that_cannot_be_encoded_is_not_validly_signed():
    obj = {"a": float("nan"), "signatures": {"domain": {"ed25519:1": "AAAA"}}}
    assert not signing.json_signature_valid(obj, "domain", "ed25519:1", KEY.verify_key)


# --- degenerate keys

# The points of small order on the curve and their non-canonical encodings.
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_keys_of_small_order_verify_nothing(point):
    """T045"""
    key = bytes.fromhex(point)
    for number in range(64):
        message = b"message %d" % number
        for first in LOW_ORDER:
            assert not signing.verify(key, message, bytes.fromhex(first) + bytes(32))


def test_a_signature_with_the_group_order_added_is_not_valid():
    """T045: S + L."""
    order = 2**252 + 27742317777372353535851937790883648493
    signature = KEY.sign(b"x")
    shifted = int.from_bytes(signature[32:], "little") + order
    assert signing.verify(KEY.verify_key, b"x", signature)
    assert not signing.verify(KEY.verify_key, b"x", signature[:32] + shifted.to_bytes(32, "little"))


@given(st.binary(max_size=40), st.binary(max_size=70), st.binary())
def test_no_bytes_make_verification_fail_in_another_way(key, signature, message):
    """T045"""
    assert not signing.verify(key, message, signature)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_keys_of_wrong_length_verify_nothing(length):
    assert not signing.verify(bytes(length), b"x", bytes(64))


@pytest.mark.parametrize("length", [0, 63, 65, 128])
def test_signatures_of_wrong_length_are_not_valid(length):
    signature = (KEY.sign(b"x") + bytes(64))[:length]
    assert not signing.verify(KEY.verify_key, b"x", signature)


# --- our key


def test_a_key_has_a_name_and_a_public_half():
    assert KEY.key_id == "ed25519:1"
    assert KEY.verify_key_base64 == encode_base64(KEY.verify_key)
    assert len(KEY.verify_key) == 32
    assert len(KEY.sign(b"")) == 64


def test_the_repr_of_a_key_shows_no_secret():
    """T051"""
    assert repr(KEY) == "SigningKey(version='1')"


def test_bad_seeds_and_versions_make_no_key():
    with pytest.raises(ValueError, match="32"):
        signing.SigningKey("1", b"short")
    for version in ("", "a b", "a:b"):
        with pytest.raises(InvalidIdentifier):
            signing.SigningKey(version, bytes(32))


def test_new_keys_come_out_of_the_given_bytes():
    drawn = []

    def random_bytes(count: int) -> bytes:
        drawn.append(count)
        return bytes(range(count))

    key = signing.generate(random_bytes)
    assert key.key_id == "ed25519:a_000102"
    assert key.seed == bytes(range(32))
    assert drawn == [3, 32]


# --- events


@pytest.mark.parametrize("version", VERSIONS)
def test_an_event_s_signature_holds_for_its_redacted_form(version):
    """[A4.03], [A4.04], T046"""
    room = standard_room(version)
    pdu = room.pdu("m.room.message", {"body": "x"}, sender=CREATOR, signatures=None)
    signed = signing.hash_and_sign_event(room.rules, pdu, "one.test", KEY)
    valid = signing.event_signature_valid
    key = KEY.verify_key
    assert valid(room.rules, signed, "one.test", "ed25519:1", key)
    assert valid(room.rules, redact(room.rules, signed), "one.test", "ed25519:1", key)
    assert valid(room.rules, {**signed, "content": {}}, "one.test", "ed25519:1", key)
    assert not valid(room.rules, {**signed, "depth": 77}, "one.test", "ed25519:1", key)
    assert signing.content_hash_matches(signed)
    assert not signing.content_hash_matches({**signed, "content": {}})


@pytest.mark.parametrize("version", VERSIONS)
def test_a_second_signature_leaves_hashes_and_name_alone(version):
    room = standard_room(version)
    pdu = room.pdu("m.room.message", {"body": "x"}, sender=CREATOR)
    once = signing.hash_and_sign_event(room.rules, pdu, "one.test", KEY)
    twice = signing.sign_redacted(room.rules, once, "two.test", OTHER)
    assert twice["hashes"] == once["hashes"]
    assert signing.event_id_of(room.rules, twice) == signing.event_id_of(room.rules, once)
    for server, key in (("one.test", KEY), ("two.test", OTHER)):
        assert signing.event_signature_valid(room.rules, twice, server, key.key_id, key.verify_key)


def signers(room, *, sender, content, type_="m.room.member", key=None, **fields):
    event = parse_event(room.rules, room.pdu(type_, content, sender=sender, key=key, **fields))
    return set(signing.required_signers(room.rules, event))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_sender_s_server_signs(version):
    """[A4.04], T044"""
    room = standard_room(version)
    found = signers(room, type_="m.room.message", sender="@bob:two.test", content={})
    assert found == ({"two.test", "one.test"} if version in ("1", "2") else {"two.test"})


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_event_id_s_server_signs_in_old_rooms(version):
    """[A2.01]"""
    room = standard_room(version)
    found = signers(
        room, type_="x", sender="@bob:two.test", content={}, event_id="$x:three.test:80"
    )
    assert found == {"two.test", "three.test:80"}


@pytest.mark.parametrize("version", VERSIONS)
def test_third_party_invites_need_not_be_signed_by_the_sender(version):
    """[A4.05]"""
    room = standard_room(version)
    invite = {"membership": "invite", "third_party_invite": {}}
    old = {"one.test"} if version in ("1", "2") else set()
    for content, type_, expected in (
        (invite, "m.room.member", old),
        ({"membership": "invite"}, "m.room.member", {"two.test"} | old),
        ({**invite, "membership": "join"}, "m.room.member", {"two.test"} | old),
        (invite, "m.room.other", {"two.test"} | old),
    ):
        found = signers(room, type_=type_, sender="@bob:two.test", content=content, key="@x:y")
        assert found == expected


@pytest.mark.parametrize("membership", ["join", "leave", "invite", "knock", "x"])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_authorising_server_signs_on_any_membership(version, membership):
    """[A5.08], [K.10], T035"""
    room = standard_room(version)
    content = {"membership": membership, "join_authorised_via_users_server": "@a:four.test"}
    found = signers(room, sender="@bob:two.test", content=content, key="@bob:two.test")
    assert ("four.test" in found) is (version in versions(8))
    assert "four.test" not in signers(room, type_="m.x", sender="@bob:two.test", content=content)


@pytest.mark.parametrize("value", [None, 5, "", "a:four.test", ["@a:four.test"], {}])
def test_an_authorising_user_that_is_none_asks_for_no_signature(value):
    room = standard_room("11")
    content = {"membership": "join", "join_authorised_via_users_server": value}
    found = signers(room, sender="@bob:two.test", content=content, key="@bob:two.test")
    assert found == {"two.test"}


@pytest.mark.parametrize("version", VERSIONS)
def test_events_are_cited_in_the_form_of_their_version(version):
    """rooms/v1 and v3, "Event format" """
    room = standard_room(version)
    event = room.make("m.room.message", {}, sender=CREATOR)
    cited = signing.citation(event)
    if room.rules.event_id_in_pdu:
        digest = signing.reference_hash(room.rules, event.json)
        assert cited == [event.event_id, {"sha256": encode_base64(digest)}]
    else:
        assert cited == event.event_id
