"""The JSON border and the canonical form: T085-T090, [F4.01], [F4.02]."""

from __future__ import annotations

import json
import sys

import canonicaljson
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from matrixbox.core.json import (
    CLIENT,
    FEDERATION,
    BadNumber,
    JsonError,
    Limits,
    NotCanonical,
    NotJson,
    RawNumber,
    TooDeep,
    TooLarge,
    decode,
    decode_stored,
    encode,
    encode_canonical,
    encode_strict,
)

BOTH = pytest.mark.parametrize("limits", [CLIENT, FEDERATION], ids=["client", "federation"])

# appendices, "Canonical JSON", "Examples"
VECTORS = [
    ("{}", "{}"),
    ('{\n    "one": 1,\n    "two": "Two"\n}', '{"one":1,"two":"Two"}'),
    ('{\n    "b": "2",\n    "a": "1"\n}', '{"a":"1","b":"2"}'),
    ('{"b":"2","a":"1"}', '{"a":"1","b":"2"}'),
    (
        '{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name":'
        ' "John Doe", "three_pids": [{"medium": "email", "address": "john.doe@example.org"},'
        ' {"medium": "msisdn", "address": "123456789"}]}}}',
        '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids"'
        ':[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":'
        '"msisdn"}]},"success":true}}',
    ),
    ('{"a": "日本語"}', '{"a":"日本語"}'),
    ('{"本": 2, "日": 1}', '{"日":1,"本":2}'),
    ('{"a": "\\u65E5"}', '{"a":"日"}'),
    ('{"a": null}', '{"a":null}'),
]


@BOTH
@pytest.mark.parametrize(("text", "canonical"), VECTORS)
def test_the_specification_s_examples_of_canonical_json(limits, text, canonical):
    """appendices, "Canonical JSON" """
    value = decode(text.encode(), limits)
    assert encode_canonical(value) == canonical.encode()
    assert encode_strict(value) == canonical.encode()


def test_the_last_example_keeps_its_exponent_as_written():
    """appendices, "Canonical JSON": -0 becomes 0; 1e10 stays, as the module says (T086)."""
    value = decode(b'{"a": -0, "b": 1e10}', FEDERATION)
    assert encode_canonical(value) == b'{"a":0,"b":1e10}'
    assert decode(b'{"a": -0, "b": 1e10}', CLIENT) == {"a": 0, "b": 10000000000}


# --- what the border refuses

JUNK = [
    b"",
    b" ",
    b"{",
    b"[1,]",
    b"{'a':1}",
    b"nul",
    b"1 2",
    b"{}{}",
    b"{} x",
    b"[01]",
    b"+1",
    b".5",
    b"1.",
    b'"\t"',
    b'"\n"',
    b'"\\x"',
    b"\xef\xbb\xbf{}",  # byte-order mark
    b'"\xff"',
    b'"\xed\xa0\x80"',  # a surrogate in CESU style
    b'"\xc0\x80"',
    '{"a":1}'.encode("utf-16"),
    b'"\\ud800"',
    b'"\\uD800"',
    b'"\\udc00"',
    b'"\\ud800\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\ud800x\\udc00"',
    b'{"\\udfff":1}',
    b'"\\\\\\ud800"',
    b"NaN",
    b"Infinity",
    b"[-Infinity]",
]


@BOTH
@pytest.mark.parametrize("data", JUNK)
def test_what_is_not_json_is_refused(limits, data):
    """T086, T088"""
    with pytest.raises(NotJson):
        decode(data, limits)


@BOTH
@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\uD83D\\uDE00"', "\U0001f600"),
        (b'"\\\\ud800"', "\\ud800"),
        (b'"\\\\\\ud83d\\ude00"', "\\\U0001f600"),
        (b'"\\u0000"', "\0"),
        (b'"\\n\\"\\ud83d\\ude00"', '\n"\U0001f600'),
        (b" [1 ,\t2,\r\n-3 ] ", [1, 2, -3]),
        (b"null", None),
        (b"true", True),
    ],
)
def test_escapes_that_are_text_are_read(limits, data, value):
    """T088"""
    assert decode(data, limits) == value


@BOTH
@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"m.room.message","type":"m.room.power_levels"}',
        b'[{"a":{"b":1,"c":2,"b":1}}]',
        b'{"a":1,"\\u0061":2}',
    ],
)
def test_duplicate_keys_are_refused_at_any_depth(limits, data):
    """T085"""
    with pytest.raises(NotJson):
        decode(data, limits)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values, st.text(), st.integers(0, 30))
def test_a_duplicate_anywhere_is_refused(value, key, depth):
    """T085"""
    inner = json.dumps(value)
    name = json.dumps(key)
    text = "[" * depth + f'{{"x":1,{name}:{inner},"y":2,{name}:0}}' + "]" * depth
    with pytest.raises(NotJson):
        decode(text.encode(), FEDERATION)


@given(values)
def test_everything_else_is_read_as_the_standard_decoder_reads_it(value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        for limits in (CLIENT, FEDERATION):
            assert decode(text.encode(), limits) == value


# --- numbers


@BOTH
@pytest.mark.parametrize("text", ["9007199254740991", "-9007199254740991", "0", "7"])
def test_integers_within_2_to_the_53_are_plain(limits, text):
    value = decode(text.encode(), limits)
    assert type(value) is int
    assert value == int(text)


@pytest.mark.parametrize(
    "text", ["9007199254740992", "-9007199254740992", "1" * 64, "1e400", "-1e400"]
)
def test_clients_numbers_out_of_range_are_refused(text):
    """T086"""
    with pytest.raises(BadNumber):
        decode(text.encode(), CLIENT)


def test_clients_fractions_are_floats():
    """Account data may hold them, as the order of tags does."""
    assert decode(b"[0.25, 1e2, -1.5E-1]", CLIENT) == [0.25, 100.0, -0.15]


@pytest.mark.parametrize(
    "text",
    [
        "9007199254740992",
        "-9007199254740992",
        "100000000000000000000",
        "18446744073709551616",
        "1.0",
        "1E2",
        "1e400",
        "-0.0",
        "5.114698E4",
        "0.10",
    ],
)
def test_numbers_outside_canonical_json_stay_as_written(text):
    """T086, [F4.02], [K.12]: bytes in, the same canonical bytes out."""
    data = f'{{"a":[{text}]}}'.encode()
    value = decode(data, FEDERATION)
    assert value == {"a": [RawNumber(text)]}
    assert encode_canonical(value) == data
    assert encode(value) == data
    with pytest.raises(NotCanonical):
        encode_strict(value)


@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,10})?([eE][+-]?[0-9]{1,5})?", fullmatch=True)
)
@example("-0")
def test_any_number_goes_through_the_federation_border_unchanged(text):
    """T086"""
    value = decode(text.encode(), FEDERATION)
    assert encode_canonical(value) == (b"0" if text == "-0" else text.encode())
    assert decode_stored(encode(value), exact_numbers=True) == (0 if text == "-0" else value)


@BOTH
@pytest.mark.parametrize("text", ["1" * 65, "-" + "1" * 65, "0." + "1" * 64, "1" * 5000])
def test_numbers_of_more_than_64_digits_are_refused(limits, text):
    """T086: 5,000 digits never reach int()."""
    with pytest.raises(BadNumber):
        decode(text.encode(), limits)


def test_64_digits_are_not_too_many():
    assert decode(b"-" + b"1" * 64, FEDERATION) == RawNumber("-" + "1" * 64)
    assert decode(b"-0." + b"1" * 63, CLIENT) == -float("0." + "1" * 63)


@pytest.mark.parametrize(
    ("text", "value"), [("100000000000000000000", 10**20), ("-5", -5), ("1.0", None), ("1e2", None)]
)
def test_raw_numbers_know_whether_they_were_integers(text, value):
    assert RawNumber(text).integer() == value


# --- bounds before parsing


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + closing * depth).encode()


@pytest.mark.parametrize(("limits", "depth"), [(CLIENT, 64), (FEDERATION, 128)])
def test_nesting_up_to_the_limit_is_read_and_one_more_is_not(limits, depth):
    """T087"""
    assert encode_canonical(decode(nested(depth), limits)) == nested(depth)
    with pytest.raises(TooDeep):
        decode(nested(depth + 1), limits)
    objects = b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)
    assert encode_canonical(decode(objects, limits)) == objects
    with pytest.raises(TooDeep):
        decode(b'{"a":' + objects + b"}", limits)


def test_a_hundred_thousand_levels_are_refused_before_parsing():
    """T087"""
    with pytest.raises(TooDeep):
        decode(b"[" * 100_000, FEDERATION)


def test_brackets_in_strings_are_not_nesting():
    """T087: escapes don't fool the scan, in either direction."""
    small = Limits(max_depth=2, max_structure=1000, exact_numbers=False)
    for inside in ("[[[[", '\\"[[[[', "\\\\", '[\\\\\\"[[[', "{{[[\\u005b"):
        text = f'[["{inside}"]]'
        assert decode(text.encode(), small) == json.loads(text)
        with pytest.raises(TooDeep):
            decode(f"[{text}]".encode(), small)
    with pytest.raises(TooDeep):
        decode(b'["\\\\",[["x"]]]', small)


@given(values, st.integers(0, 12))
def test_the_depth_scan_agrees_with_the_depth_of_the_value(value, limit):
    """T087"""

    def depth(node) -> int:
        if isinstance(node, dict):
            return 1 + max(map(depth, node.values()), default=0)
        if isinstance(node, list):
            return 1 + max(map(depth, node), default=0)
        return 0

    limits = Limits(max_depth=limit, max_structure=10_000, exact_numbers=False)
    if depth(value) <= limit:
        assert decode(json.dumps(value).encode(), limits) == value
    else:
        with pytest.raises(TooDeep):
            decode(json.dumps(value).encode(), limits)


def test_elements_are_counted_before_parsing():
    limits = Limits(max_depth=10, max_structure=5, exact_numbers=False)
    assert decode(b"[1,2,3,4,5]", limits) == [1, 2, 3, 4, 5]
    assert decode(b"[[],{},5]", limits) == [[], {}, 5]
    for data in (b"[1,2,3,4,5,6]", b"[[],{},[]]", b'"[[[,,,"'):
        with pytest.raises(TooLarge):
            decode(data, limits)


def test_decoding_does_not_depend_on_a_deep_stack():
    """T087: 128 levels are read within a recursion limit of 200 more frames."""
    before = sys.getrecursionlimit()
    depth = len(_frames())
    try:
        sys.setrecursionlimit(depth + 200)
        assert encode_canonical(decode(nested(128), FEDERATION)) == nested(128)
    finally:
        sys.setrecursionlimit(before)


def _frames() -> list[object]:
    frame, found = sys._getframe(), []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


@given(st.binary() | st.text().map(str.encode) | st.text('[]{}",:\\ud8019eE.-+ntf').map(str.encode))
def test_no_bytes_make_the_border_fail_in_another_way(data):
    for limits in (CLIENT, FEDERATION):
        try:
            value = decode(data, limits)
        except JsonError:
            continue
        encode_canonical(value)


# --- encoding

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(anything)
@example({"￿": 1, "\U00010000": 2})  # code points, not UTF-16 units
@example('\x00\x08\x09\x0a\x0c\x0d\x1f\x7f\x80\u2028\u2029/\\"')
@example([2**53, 2**63, 2**64, -(2**63) - 1, 1e16, 1e22, 0.1, 1e-7])
def test_canonical_encoding_is_that_of_canonicaljson(value):
    """T089, [F4.02]"""
    assert encode_canonical(value) == canonicaljson.encode_canonical_json(value)


@given(values)
def test_the_fast_encoder_is_right_for_what_canonical_json_allows(value):
    """T089: orjson against canonicaljson, on the values that are handed to it."""
    fast = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    assert fast == canonicaljson.encode_canonical_json(value)
    assert encode_strict(value) == fast
    assert json.loads(fast) == value


@given(anything)
def test_the_strict_encoder_takes_exactly_what_the_grammar_allows(value):
    """rooms/v6, "Canonical JSON" """

    def allowed(node) -> bool:
        if isinstance(node, dict):
            return all(map(allowed, node.values()))
        if isinstance(node, list):
            return all(map(allowed, node))
        return not isinstance(node, float) and (type(node) is not int or abs(node) <= 2**53 - 1)

    if allowed(value):
        assert encode_strict(value) == canonicaljson.encode_canonical_json(value)
    else:
        with pytest.raises(NotCanonical):
            encode_strict(value)


def test_the_border_of_the_integer_range_is_exact():
    for number in (2**53 - 1, -(2**53) + 1):
        assert encode_strict(number) == str(number).encode()
    for number in (2**53, -(2**53)):
        with pytest.raises(NotCanonical):
            encode_strict(number)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "\ud800", {"\udfff": 1}, {"a": {1, 2}}]
)
def test_what_json_cannot_hold_is_not_encoded(value):
    with pytest.raises(JsonError):
        encode_canonical(value)
    with pytest.raises(NotCanonical):
        encode_strict(value)


def test_values_too_deep_for_the_fast_encoder_are_encoded_slowly():
    """T087: orjson stops at 253 levels."""
    value: object = []
    for _ in range(300):
        value = [value]
    assert encode_canonical(value) == nested(301)


def test_answers_are_compact_and_keep_their_order():
    assert encode({"b": [1, 0.5], "a": "ä"}) == '{"b":[1,0.5],"a":"ä"}'.encode()


def test_other_objects_are_never_encoded():
    with pytest.raises(TypeError):
        encode({"a": object()})


@given(values)
def test_what_was_stored_comes_back(value):
    for exact in (False, True):
        assert decode_stored(encode(value), exact_numbers=exact) == value
        assert decode_stored(encode_canonical(value), exact_numbers=exact) == value
