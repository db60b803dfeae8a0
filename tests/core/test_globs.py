"""Glob patterns and dotted paths against naive readings of the specification: T037, T080."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core.globs import Glob, is_boundary
from matrixbox.core.paths import look_up, parse_path
from tests.core.timing import within

CASES = [
    ("", "", True),
    ("", "a", False),
    ("a", "a", True),
    ("a", "A", False),
    ("a", "ab", False),
    ("*", "", True),
    ("*", "anything\nat all", True),
    ("?", "a", True),
    ("?", "", False),
    ("?", "ab", False),
    ("?", "\n", True),
    ("a?c", "abc", True),
    ("a?c", "ac", False),
    ("a*c", "ac", True),
    ("a*c", "abbbc", True),
    ("a*c", "abbbcd", False),
    ("ab*ba", "aba", False),
    ("ab*ba", "abba", True),
    ("*a*b*", "xxaxxbxx", True),
    ("*a*b*", "xxbxxaxx", False),
    ("*ab*b", "abb", True),
    ("*ab*b", "ab", False),
    ("a*b*c", "abcbc", True),
    ("a*b*c", "acbc", True),
    ("a**c", "abc", True),
    ("*a?*?b*", "xaxxbx", True),
    ("*a?*?b*", "xaxbx", False),
    ("*.evil.com", "www.evil.com", True),
    ("*.evil.com", "evil.com", False),
    ("*.evil.com", ".evil.com", True),
    ("[a]", "a", False),
    ("[a]", "[a]", True),
    ("a.c", "abc", False),
    ("\\*", "\\", True),
]


@pytest.mark.parametrize(("pattern", "text", "matches"), CASES)
def test_globs_match_whole_texts(pattern, text, matches):
    """[G.10]"""
    assert Glob.of(pattern).matches(text) is matches


def test_question_marks_may_be_plain():
    """In client filters only the star is special."""
    assert Glob.of("a?", single=False).matches("a?")
    assert not Glob.of("a?", single=False).matches("ab")
    assert Glob.of("*?*", single=False).matches("x?x")
    assert not Glob.of("*?*", single=False).matches("xxx")


def naive(pattern: str, text: str) -> bool:
    """By the definition, with a table of all prefixes."""
    possible = {0}
    for char in pattern:
        if char == "*":
            possible = set(range(min(possible), len(text) + 1)) if possible else set()
        else:
            possible = {at + 1 for at in possible if at < len(text) and char in ("?", text[at])}
    return len(text) in possible


patterns = st.text("ab*?", max_size=8)
texts = st.text("ab", max_size=10)


@given(patterns, texts)
def test_matching_agrees_with_the_naive_matcher(pattern, text):
    """T080"""
    assert Glob.of(pattern).matches(text) is naive(pattern, text)
    literal = pattern.replace("?", "b")
    assert Glob.of(literal, single=False).matches(text) is naive(literal, text)


# --- whole words

WORDS = [
    ("ex*ple", "An example event.", True),
    ("ex*ple", "exple", True),
    ("ex*ple", "An exciting triple-whammy", True),
    ("ex*ple", "An exampleé", True),  # only ASCII letters make words
    ("ex*ple", "inexample", False),
    ("ex*ple", "examples", False),
    ("cake", "cake", True),
    ("cake", "a cake!", True),
    ("cake", "cakes cake", True),
    ("cake", "cakes", False),
    ("cake", "cheesecake", False),
    ("cake", "cake_", False),
    ("cake", "my-cake's", True),
    ("@room", "hey @room", True),
    ("@room", "x@room", True),  # the @ itself is a boundary
    ("@room", "@rooms", False),
    ("c?ke", "a coke", True),
    ("c?ke", "a coker coke", True),
    ("c?ke", "a coker", False),
    ("a*b", "xa b a b", True),
    ("a*b", "xa bx", False),
    ("*", "anything", True),
    ("*", "", True),
    ("", "anything", True),
    ("a*", "b a", True),
    ("a*", "ba", False),
    ("*a", "ba b", True),
    ("*a", "bab", False),
    ("a*b*c", "a xbx c", True),
    ("a*b*c", "a c b", False),
    ("a*b*c*d", "a c b d", False),
    ("a*?b*c", "a b c", True),
    ("x*b*c", "a b c", False),
    ("cake", "cakecake cake", True),
]


@pytest.mark.parametrize(("pattern", "text", "matches"), WORDS)
def test_globs_find_whole_words(pattern, text, matches):
    """[C14.05]"""
    assert Glob.of(pattern).matches_words(text) is matches


def test_boundaries_are_next_to_anything_but_ascii_words():
    """Client-Server API, "Push Rules" """
    text = "ab cé_9Z"
    found = [index for index in range(len(text) + 1) if is_boundary(text, index)]
    assert found == [0, 2, 3, 4, 5, 8]


@given(patterns, st.text("ab -", max_size=10))
def test_finding_words_agrees_with_trying_every_part(pattern, text):
    """T080"""
    ends = [0, *(i for i in range(1, len(text)) if not re.match(r"\w\w", text[i - 1 : i + 1]))]
    ends.append(len(text))
    expected = any(
        naive(pattern, text[start:end]) for start in ends for end in ends if start <= end
    )
    assert Glob.of(pattern).matches_words(text) is expected


HOSTILE = [
    "a?" * 64 + "b*" + "?a" * 60,
    "*a" * 127 + "b",
    "a*" * 127 + "b",
    "?" * 256,
    "?" * 255 + "b",
    "a" * 255 + "b",
    "*" * 256,
    "*a?" * 85 + "b",
]


@pytest.mark.parametrize("pattern", HOSTILE)
def test_hostile_patterns_cost_little(pattern):
    """T080: 256 characters against 64 KiB (50 ms on an idle machine)."""
    glob, text = Glob.of(pattern), "a" * 65536
    fastest = min(_seconds(glob, text) for _ in range(3))
    assert fastest < within(0.2)


def _seconds(glob: Glob, text: str) -> float:
    start = time.process_time()
    glob.matches(text)
    glob.matches_words(text)
    return time.process_time() - start


# --- paths


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("content.body", ("content", "body")),
        ("content.m\\.relates_to", ("content", "m.relates_to")),
        ("content.m\\\\foo", ("content", "m\\foo")),
        ("content.m\\xfoo", ("content", "m\\xfoo")),
        ("a\\\\.b", ("a\\", "b")),
        ("a\\", ("a\\",)),
        ("", ("",)),
        (".", ("", "")),
        ("a..b", ("a", "", "b")),
        ("type", ("type",)),
    ],
)
def test_paths_are_split_at_dots_that_are_not_escaped(text, path):
    """appendices, "Dot-separated property paths", [C14.09]"""
    assert parse_path(text) == path


@given(st.lists(st.text("ab.\\"), min_size=1))
def test_escaped_names_come_back(names):
    escaped = ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in names)
    assert parse_path(escaped) == tuple(names)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("a",), {"b": {"c": None}}),
        (("a", "b"), {"c": None}),
        (("a", "b", "c"), None),
        ((), {"a": {"b": {"c": None}}}),
        (("x",), 7),
        (("a", "x"), 7),
        (("a", "b", "c", "d"), 7),
    ],
)
def test_properties_are_looked_up(path, value):
    assert look_up({"a": {"b": {"c": None}}}, path, 7) == value
    assert look_up([1], ("0",)) is None
