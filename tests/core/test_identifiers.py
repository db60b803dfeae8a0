"""Identifier grammars and the leniency for historical ones [G.01]-[G.08]."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core import identifiers as ids
from matrixbox.core.identifiers import InvalidIdentifier

SERVERS = [
    "matrix.org",
    "matrix.org:8888",
    "1.2.3.4",
    "1.2.3.4:1234",
    "[1234:5678::abcd]",
    "[1234:5678::abcd]:5678",
    "[::1]",
    "MATRIX.org",
    "999.999.999.999",  # a DNS name by the grammar
    "a:99999",
    "x" * 255,
]
NO_SERVERS = [
    "",
    ":8448",
    "a:",
    "a:123456",
    "a:b",
    "a b",
    "a/b",
    "ä.de",
    "[::1",
    "::1",
    "[]",
    "[:]",
    "[1:2]",
    "[::g]",
    "[::1%eth0]",
    "[12345::]",
    "a\n",
    "a:1\n",
    "x" * 256,
    "[" + "1" * 46 + "]",
]


@pytest.mark.parametrize("text", SERVERS)
def test_server_names_of_every_form_are_read(text):
    """[G.01]"""
    assert ids.parse_server_name(text) == text


@pytest.mark.parametrize("text", NO_SERVERS)
def test_what_is_no_server_name_is_refused(text):
    """[G.01]"""
    with pytest.raises(InvalidIdentifier):
        ids.parse_server_name(text)


@pytest.mark.parametrize(
    ("server", "host", "literal"),
    [
        ("a.b:8448", "a.b", False),
        ("a.b", "a.b", False),
        ("1.2.3.4:80", "1.2.3.4", True),
        ("1.2.3.4", "1.2.3.4", True),
        ("1.2.3.4.de", "1.2.3.4.de", False),
        ("[::1]:80", "[::1]", True),
        ("[::1]", "[::1]", True),
    ],
)
def test_hosts_are_told_from_ports_and_literals_from_names(server, host, literal):
    assert ids.hostname_of(server) == host
    assert ids.is_ip_literal(server) is literal


@pytest.mark.parametrize(
    "text",
    [
        "@alice:example.org",
        "@:example.org",  # historical: an empty localpart
        "@ÄÖ \n\t!:example.org",
        "@Alice#1:example.org:8448",
        "@a@b:[::1]:8448",
        "@" + "a" * 242 + ":example.org",
        "@" + "ü" * 121 + ":example.org",
    ],
)
def test_user_ids_are_read_with_historical_leniency(text):
    """[G.02]"""
    assert ids.parse_user_id(text) == text
    assert ids.is_user_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "alice:example.org",
        "@alice",
        "@alice:",
        "@al\0ice:example.org",
        "#alice:example.org",
        "@alice:exa mple.org",
        "@" + "a" * 243 + ":example.org",
        "@" + "ü" * 122 + ":example.org",  # 256 bytes, fewer characters
        "@\ud800:example.org",
    ],
)
def test_what_is_no_user_id_is_refused(text):
    """[G.02], T088, T002"""
    with pytest.raises(InvalidIdentifier):
        ids.parse_user_id(text)
    assert not ids.is_user_id(text)


@pytest.mark.parametrize("value", [None, 5, True, [], {}, ["@a:b"]])
def test_other_types_are_no_user_ids(value):
    assert not ids.is_user_id(value)


@pytest.mark.parametrize(
    "text", ["!opaque:example.org", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", "!:a", "! ä:a"]
)
def test_room_ids_come_with_and_without_domain(text):
    """[G.05]"""
    assert ids.parse_room_id(text) == text


@pytest.mark.parametrize(
    "text", ["", "!", "room:a", "$room:a", "!room:", "!a\0b", "!a\0b:c", "!" + "a" * 255]
)
def test_what_is_no_room_id_is_refused(text):
    """[G.05], T088"""
    with pytest.raises(InvalidIdentifier):
        ids.parse_room_id(text)


@pytest.mark.parametrize(
    "text", ["$opaque:example.org", "$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7"]
)
def test_event_ids_come_with_and_without_domain(text):
    """[G.06]"""
    assert ids.parse_event_id(text) == text


@pytest.mark.parametrize("text", ["", "$", "abc", "!a:b", "$a:", "$a\0", "$" + "a" * 255])
def test_what_is_no_event_id_is_refused(text):
    """[G.06]"""
    with pytest.raises(InvalidIdentifier):
        ids.parse_event_id(text)


def test_event_ids_of_the_old_form_need_a_domain():
    assert ids.has_event_id_form("$a:b", with_domain=True)
    assert not ids.has_event_id_form("$a", with_domain=True)
    assert ids.has_event_id_form("$a")


@pytest.mark.parametrize("text", ["#room:a.b", "#:a.b", "#Ä b:a.b:1"])
def test_room_aliases_are_read(text):
    """[G.06]"""
    assert ids.parse_room_alias(text) == text


@pytest.mark.parametrize("text", ["", "#a", "a:b", "#a\0:b", "#" + "a" * 252 + ":abc"])
def test_what_is_no_room_alias_is_refused(text):
    """[G.06]"""
    with pytest.raises(InvalidIdentifier):
        ids.parse_room_alias(text)


def test_identifiers_are_split_at_the_first_colon():
    """[G.04]"""
    user = ids.parse_user_id("@a@b:[::1]:8448")
    assert ids.server_of(user) == "[::1]:8448"
    assert ids.localpart_of(user) == "a@b"
    assert ids.localpart_of(ids.parse_user_id("@:b")) == ""


@pytest.mark.parametrize("text", ["$hash", "!hash", "@x:"])
def test_identifiers_without_domain_have_no_server(text):
    with pytest.raises(InvalidIdentifier):
        ids.server_of(text)


@pytest.mark.parametrize(
    ("user", "compliant"),
    [
        ("@alice:a", True),
        ("@Al!ce~:a", True),
        ("@:a", False),
        ("@al ice:a", False),
        ("@alicé:a", False),
        ("@al\x7fice:a", False),
    ],
)
def test_users_outside_the_historical_range_are_not_compliant(user, compliant):
    """[G.03]"""
    assert ids.is_compliant_user_id(ids.parse_user_id(user)) is compliant


@pytest.mark.parametrize("text", ["alice", "a.b_c=d-e/f+9", "0"])
def test_new_localparts_keep_to_the_strict_grammar(text):
    """[G.02]"""
    ids.check_new_localpart(text)
    assert ids.new_user_id(text, ids.parse_server_name("a.b:80")) == f"@{text}:a.b:80"


@pytest.mark.parametrize("text", ["", "Alice", "a b", "ä", "a:b", "a\n", "a@b"])
def test_other_new_localparts_are_refused(text):
    """[G.02]"""
    with pytest.raises(InvalidIdentifier):
        ids.check_new_localpart(text)
    with pytest.raises(InvalidIdentifier):
        ids.new_user_id(text, ids.parse_server_name("a"))


def test_new_user_ids_are_at_most_255_bytes():
    """[F3.02]"""
    server = ids.parse_server_name("a.b")
    assert len(ids.new_user_id("x" * 250, server)) == 255
    with pytest.raises(InvalidIdentifier):
        ids.new_user_id("x" * 251, server)


@pytest.mark.parametrize("text", ["ed25519:1", "ed25519:a_RXGa"])
def test_key_ids_are_read(text):
    """[G.08]"""
    assert ids.parse_key_id(text) == text


@pytest.mark.parametrize("text", ["", "ed25519:", "rsa:1", "ed25519", "ed25519:a-b", "ed25519:1\n"])
def test_other_key_ids_are_refused(text):
    """[G.08], T047"""
    with pytest.raises(InvalidIdentifier):
        ids.parse_key_id(text)


@pytest.mark.parametrize("text", ["A", "ABCDEFGHIJ", "x" * 255, "Ä/b"])
def test_device_ids_are_read(text):
    assert ids.parse_device_id(text) == text


@pytest.mark.parametrize("text", ["", "a\0", "x" * 256, "\ud800"])
def test_other_device_ids_are_refused(text):
    with pytest.raises(InvalidIdentifier):
        ids.parse_device_id(text)


@pytest.mark.parametrize(
    ("text", "namespaced", "opaque"),
    [
        ("m.room.name", True, True),
        ("a" * 255, True, True),
        ("a" * 256, False, False),
        ("", False, False),
        ("M.x", False, True),
        ("a b", False, False),
        ("A~z.-_9", False, True),
        ("a~", False, True),
        ("9a", False, True),
        ("a\n", False, False),
    ],
)
def test_common_grammars(text, namespaced, opaque):
    """[G.07]"""
    assert ids.is_namespaced(text) is namespaced
    assert ids.is_opaque(text) is opaque


@given(st.text())
def test_no_text_makes_a_parser_fail_in_another_way(text):
    for parse in (
        ids.parse_user_id,
        ids.parse_room_id,
        ids.parse_event_id,
        ids.parse_room_alias,
        ids.parse_server_name,
        ids.parse_device_id,
        ids.parse_key_id,
    ):
        for attempt in (text, "@" + text, "!" + text, "$x:" + text, f"[{text}]"):
            try:
                assert parse(attempt) == attempt
            except InvalidIdentifier:
                continue
