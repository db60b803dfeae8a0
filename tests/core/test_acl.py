"""Server access control lists: T037."""

from __future__ import annotations

import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core.acl import ServerAcl
from matrixbox.core.globs import Glob
from matrixbox.core.identifiers import ServerName
from tests.core.timing import within


def allows(server: str, **content) -> bool:
    return ServerAcl.from_content(content).allows(ServerName(server))


@pytest.mark.parametrize(
    ("server", "allow", "deny", "allowed"),
    [
        ("a.com", ["*"], [], True),
        ("a.com", [], [], False),
        ("a.com", ["b.com"], [], False),
        ("a.com", ["a.com"], [], True),
        ("a.com", ["*"], ["a.com"], False),
        ("a.com", ["a.com"], ["*"], False),
        ("a.com", ["*"], ["*.a.com"], True),
        ("x.a.com", ["*"], ["*.a.com"], False),
        ("evil.com:8448", ["*"], ["evil.com"], False),
        ("evil.com:1234", ["*"], ["evil.com"], False),
        ("EVIL.com", ["*"], ["evil.COM"], False),
        ("evil.com", ["*"], ["EVIL.com"], False),
        ("evil.com", ["*"], ["evil*"], False),
        ("xevil.com", ["*"], ["evil*"], True),
        ("evil.com", ["*"], ["e?il.com"], False),
        ("evil.com", ["*"], ["e*l.com"], False),
        ("evil.com", ["*"], ["e*l.org"], True),
        ("evil.com", ["*"], ["*vil*"], False),
        ("good.com", ["*"], ["*vil*"], True),
        ("a", ["*"], ["*.very.long.suffix"], True),
        ("a", ["*"], ["averylongprefix*"], True),
    ],
)
def test_deny_comes_before_allow_and_the_rest_is_denied(server, allow, deny, allowed):
    """m.room.server_acl, steps 3 to 5"""
    assert allows(server, allow=allow, deny=deny) is allowed


@pytest.mark.parametrize("server", ["1.2.3.4", "1.2.3.4:80", "[::1]", "[::1]:80"])
def test_address_literals_may_be_denied(server):
    """step 2"""
    assert not allows(server, allow=["*"], allow_ip_literals=False)
    for value in (True, None, 0, "false"):
        assert allows(server, allow=["*"], allow_ip_literals=value)
    assert allows(server, allow=["*"])
    assert allows("a.com", allow=["*"], allow_ip_literals=False)


def test_literals_match_patterns_without_their_port():
    assert not allows("[::1]:80", allow=["*"], deny=["[::1]"])
    assert not allows("1.2.3.4:80", allow=["*"], deny=["1.2.3.*"])


@pytest.mark.parametrize("odd", [None, "*", {}, 5, [5, None, ["*"]]])
def test_lists_of_the_wrong_type_are_empty(odd):
    assert not allows("a.com", allow=odd)
    assert allows("a.com", allow=["*"], deny=odd)


def test_strings_among_odd_entries_count():
    assert not allows("a.com", allow=["*", 5], deny=[None, "a.com"])


@given(
    st.lists(st.text("ab.*?", max_size=6), max_size=6),
    st.lists(st.text("ab.*?", max_size=6), max_size=6),
    st.text("ab.", min_size=1, max_size=8),
)
def test_the_matcher_agrees_with_one_glob_after_another(allow, deny, server):
    """T037"""
    denied = any(Glob.of(pattern).matches(server) for pattern in deny)
    allowed = any(Glob.of(pattern).matches(server) for pattern in allow)
    assert allows(server, allow=allow, deny=deny) is (allowed and not denied)


def test_ten_thousand_globs_and_a_thousand_names_take_less_than_a_second():
    """T037"""
    random = Random(5)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-."

    def name() -> str:
        return "".join(random.choices(letters, k=random.randint(5, 20))) + ".com"

    def glob() -> str:
        text, kind = name(), random.random()
        if kind < 0.3:
            return "*." + text
        if kind < 0.5:
            return text
        if kind < 0.6:
            return text[:5] + "*"
        place = random.randrange(len(text))
        return text[:place] + random.choice("*?") + text[place + 1 :] + random.choice(["", "*"])

    content = {"allow": ["*"], "deny": [glob() for _ in range(10_000)]}
    names = [ServerName(name()) for _ in range(1000)]
    start = time.process_time()
    acl = ServerAcl.from_content(content)
    assert sum(map(acl.allows, names)) > 900
    assert time.process_time() - start < within(1)


def test_patterns_are_not_kept_twice():
    acl = ServerAcl.from_content({"allow": ["*"], "deny": ["a?b"] * 1000 + ["A?B"] * 1000})
    assert len(acl._deny.others) == 1
