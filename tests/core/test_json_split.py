"""A large object taken apart while it is read; T036, T089 (bounded memory), threats section 3."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core.json import JsonError, NotJson, TooDeep, TooLarge
from matrixbox.core.json_split import Piece, split_object

ARRAYS = ("state", "auth_chain")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
documents = st.fixed_dictionaries(
    {}, optional={name: st.lists(values, max_size=6) for name in ARRAYS}
).flatmap(
    lambda found: st.dictionaries(
        st.sampled_from(["event", "origin", "members_omitted", "x"]), values
    ).map(lambda others: {**others, **found})
)


def pieces(
    text: bytes, size: int = 7, max_piece: int = 10_000, max_pieces: int = 10_000
) -> list[Piece]:
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    return list(split_object(chunks, ARRAYS, max_piece=max_piece, max_pieces=max_pieces))


def put_together(found: list[Piece]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for piece in found:
        value = json.loads(piece.data)
        if piece.key in ARRAYS:
            whole.setdefault(piece.key, []).append(value)
        else:
            whole[piece.key] = value
    return whole


@given(documents, st.integers(1, 64), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_whatever_the_chunks_the_pieces_are_the_values(document, size, indent, ascii_only):
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    found = pieces(text, size)
    expected = {k: v for k, v in document.items() if k not in ARRAYS or v != []}
    assert put_together(found) == expected
    for piece in found:
        assert text[piece.start : piece.start + len(piece.data)] == piece.data


@given(documents, st.integers(1, 64), st.data())
def test_a_text_that_is_cut_off_or_followed_by_more_is_refused(document, size, data):
    text = json.dumps(document).encode()
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(NotJson):
        pieces(text[:cut], size)
    with pytest.raises(NotJson):
        pieces(text + b"x", size)


@given(st.binary(max_size=60), st.integers(1, 64))
def test_any_bytes_give_pieces_or_a_json_error(noise, size):
    for text in (noise, b'{"state":[' + noise, b'{"a":' + noise + b"}"):
        try:
            pieces(text, size)
        except JsonError:
            continue


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b'{"state":[1,]}',
        b'{"state":[1 2]}',
        b'{"state":[}',
        b'{"state":[{]}]}',
        b'{"state":[{"a":1]]}',
        b'{"state":[],"state":[]}',
        b'{"st\\u0061te":[]}',
        b'{"state" []}',
        b'{"a":1,}',
        b'{,"a":1}',
        b'{"a":}',
        b'{"a":,"b":1}',
        b"{1:2}",
    ],
)
def test_what_readers_could_cut_differently_is_refused(text):
    with pytest.raises(NotJson):
        pieces(text)
    with pytest.raises(NotJson):
        pieces(text, 1)


def test_brackets_and_quotes_in_strings_are_passed_over():
    member = json.dumps({'a"]}': '}]\\"{["', "b": ["\\", "]"]}).encode()
    for size in range(1, len(member)):
        (found,) = pieces(b'{"state": [' + member + b"]}", size)
        assert found.data == member


def test_t036_sizes_counts_and_depth_are_bounded():
    with pytest.raises(TooLarge):
        pieces(b'{"state":[{"a":"%s"}]}' % (b"x" * 10_000), 4096)
    with pytest.raises(TooLarge):
        pieces(b'{"event":"%s"}' % (b"x" * 10_001), 4096)
    with pytest.raises(TooLarge):
        pieces(b'{"%s":1}' % (b"x" * 20_001), 4096)
    with pytest.raises(TooLarge):
        pieces(b'{"state":[%s]}' % b",".join([b"1"] * 11), max_pieces=10)
    assert len(pieces(b'{"state":[%s]}' % b",".join([b"1"] * 10), max_pieces=10)) == 10
    with pytest.raises(TooDeep):
        pieces(b'{"state":[%s]}' % (b"[" * 129), 4096)
    pieces(b'{"state":[%s%s]}' % (b"[" * 128, b"]" * 128), 4096)


def test_t036_memory_stays_flat_however_long_the_text():
    member = json.dumps({"content": {"a": "b" * 400}, "type": "m.room.member"}).encode()

    def chunks() -> Any:
        yield b'{"state":['
        for _ in range(400):
            yield (member + b",") * 100
        yield member + b"]}"

    tracemalloc.start()
    count = sum(1 for _ in split_object(chunks(), ARRAYS, max_piece=10_000, max_pieces=100_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 40_001
    assert peak < 2**20


def test_a_name_that_is_no_utf8_is_refused():
    with pytest.raises(NotJson, match="UTF-8"):
        pieces(b'{"\xff":1,"state":[]}')


def test_empty_chunks_are_no_end():
    chunks = [b"", b'{"state"', b"", b":[1", b"", b"]}", b""]
    found = list(split_object(chunks, ARRAYS, max_piece=100, max_pieces=10))
    assert put_together(found) == {"state": [1]}
