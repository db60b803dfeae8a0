"""Strict framing: what is refused, and that nothing is read twice or in two ways (T073)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.api.bounds import Bounds
from matrixbox.api.framing import (
    ChunkedBody,
    Head,
    LengthBody,
    Refused,
    check_head,
    check_unfinished,
)
from tests.live.http1_table import Raw, table
from tests.live.target import Paths

BOUNDS = Bounds()
HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\n"


def head(fields: bytes = b"", line: bytes = b"POST /a HTTP/1.1\r\nHost: x\r\n") -> Head:
    return check_head(line + fields + b"\r\n", BOUNDS)


def test_a_head_says_how_long_its_body_is() -> None:
    assert head().body.remaining == 0
    assert head(b"Content-Length: 12\r\n").body.remaining == 12
    assert head(b"CONTENT-LENGTH:\t007 \r\n").body.remaining == 7
    chunked = head(b"Transfer-Encoding: Chunked\r\n").body
    assert isinstance(chunked, ChunkedBody)
    assert chunked.remaining is None


def test_an_expectation_counts_only_where_there_is_a_body() -> None:
    assert not head(b"Expect: 100-continue\r\n").expects_continue
    assert head(b"Expect: 100-Continue\r\nContent-Length: 5\r\n").expects_continue
    old = head(b"Expect: 100-continue\r\nContent-Length: 5\r\n", line=b"POST /a HTTP/1.0\r\n")
    assert not old.expects_continue


@pytest.mark.parametrize("case", [case for case in table() if case.ends], ids=lambda c: c.name)
def test_every_refused_request_of_the_table_is_refused_here(case: Raw) -> None:
    """By the head, by its first bytes, or by the body behind it; never by luck further in."""
    data = b"".join(case.pieces(Paths()))
    assert case.statuses is not None
    status = case.statuses[-1]
    if status in (413, 200) or b"HTTP/1.1\n\n" in data[-12:]:
        return  # refused by a route's limit, or only closed
    with pytest.raises(Refused) as caught:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            check_unfinished(data, BOUNDS)
        check_unfinished(data[: end + 2], BOUNDS)
        body = check_head(data[: end + 4], BOUNDS).body
        body.take(data[end + 4 :])
    assert caught.value.status == status


def test_limits_are_met_exactly() -> None:
    """8 KiB of request line, 16 KiB of head, 100 fields."""
    line = b"GET /%s HTTP/1.1\r\n"
    fits = BOUNDS.request_line_bytes - len(line % b"")
    check_head(line % (b"a" * fits) + b"Host: x\r\n\r\n", BOUNDS)
    with pytest.raises(Refused, match="414"):
        check_head(line % (b"a" * (fits + 1)) + b"Host: x\r\n\r\n", BOUNDS)
    field = b"X: %s\r\n"
    fits = BOUNDS.head_bytes - len(HEAD + field % b"" + b"\r\n")
    head(field % (b"a" * fits))
    with pytest.raises(Refused, match="431"):
        head(field % (b"a" * (fits + 1)))
    head(b"X: a\r\n" * 99)
    with pytest.raises(Refused, match="431"):
        head(b"X: a\r\n" * 100)


@given(st.binary(max_size=400))
def test_random_bytes_are_refused_or_understood_but_never_raise_otherwise(data: bytes) -> None:
    for check in (check_unfinished, check_head):
        for whole in (data, HEAD + data, HEAD + data + b"\r\n\r\n"):
            assert refusal(check, whole, BOUNDS) in (None, 400, 414, 417, 431, 505)


def refusal(check: Callable[..., object], *given: object) -> int | None:
    """The status with which it refuses, None when it does not."""
    try:
        check(*given)
    except Refused as refused:
        return refused.status
    return None


FIELDS = st.sampled_from(
    [
        b"Content-Length: 5",
        b"Content-Length: 05",
        b"content-length:5",
        b"Content-Length: 5,5",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b"TE: chunked",
        b"Connection: close",
        b"X-Content-Length: 9",
        b"X: Content-Length: 9",
        b"X: a",
        b"X:",
        b" folded",
        b"Host: y",
        b"Expect: 100-continue",
    ]
)


@given(st.lists(FIELDS, max_size=5), st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\n "]))
def test_what_is_accepted_means_the_same_to_h11(fields: list[bytes], end: bytes) -> None:
    """Both see a body of the same length, or neither accepts the head."""
    data = HEAD + b"".join(field + end for field in fields) + b"\r\n"
    try:
        ours = check_head(data, BOUNDS).body
    except Refused:
        return
    content = b"hello"[: 5 if ours.remaining is None else ours.remaining]
    body = content if ours.remaining is not None else b"5\r\nhello\r\n0\r\n\r\n"
    assert ours.take(body + b"more") == len(body)
    assert ours.complete
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data + body)
    assert isinstance(connection.next_event(), h11.Request)
    found = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        found += event.data
    assert found == content
    assert connection.trailing_data == (b"", False)


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    st.lists(st.integers(0, 400), max_size=6),
    st.binary(max_size=10),
)
def test_a_chunked_body_ends_at_the_same_place_however_it_is_cut(
    chunks: list[bytes], cuts: list[int], behind: bytes
) -> None:
    whole = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    data = whole + behind
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    body = ChunkedBody()
    taken = 0
    for start, end in pairwise(edges):
        if body.complete:
            break
        taken += body.take(data[start:end])
    assert body.complete
    assert taken == len(whole)


@given(st.binary(max_size=60))
def test_a_damaged_chunked_body_is_refused_or_waits(data: bytes) -> None:
    taken: list[int] = []
    body = ChunkedBody()
    if refusal(lambda: taken.append(body.take(data))) is None:
        assert taken == [len(data)] or body.complete
    else:
        assert not body.complete


def test_many_small_chunks_are_allowed_only_in_small_numbers() -> None:
    ChunkedBody().take(b"1\r\na\r\n" * 999)
    with pytest.raises(Refused, match="small chunks"):
        ChunkedBody().take(b"1\r\na\r\n" * 1010)
    ChunkedBody().take((b"400\r\n" + b"a" * 1024 + b"\r\n") * 5000)


def test_a_body_of_known_length_takes_no_byte_of_the_next_request() -> None:
    body = LengthBody(5)
    assert body.take(b"hel") == 3
    assert not body.complete
    assert body.take(b"loGET /") == 2
    assert body.complete
    assert body.take(b"GET /") == 0
