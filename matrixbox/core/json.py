"""The border for JSON: strict decoding, canonical and compact encoding.

Matrix v1.19, appendices, "Canonical JSON"; requirements [F4.01]-[F4.03]; threats T085-T090.

Three parsers would give three readings of odd input, so one strict decoder reads everything from
outside, and the fast parser only what this server stored.  Canonical JSON means `canonicaljson`;
the faster encoder is used for the values for which both are the same, which a property tests.

Numbers that canonical JSON does not know (fractions, exponents, integers beyond 2^53, `-0`) stay
as they were written where room versions 1 to 5 may need them, as RawNumber, and are encoded so
again; only `-0` is encoded as `0`, as everybody does.  The appendix's example rewrites `1e10`
to digits, which would change the hash of an event that somebody else made (T086).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TypeAlias

import canonicaljson
import orjson
from attrs import frozen

MAX_INTEGER = 2**53 - 1
MAX_DIGITS = 64  # in any number of a text from outside


class JsonError(ValueError):
    """The bytes, or the value, are not JSON that this server takes."""


class NotJson(JsonError):
    """Not JSON, or JSON that different readers understand differently."""


class TooDeep(JsonError):
    """More levels of nesting than the limit."""


class TooLarge(JsonError):
    """More elements than the limit."""


class BadNumber(JsonError):
    """A number that Matrix does not allow here: not finite, or out of range."""


class NotCanonical(JsonError):
    """The value has no canonical form: a fraction, or an integer out of range."""


@frozen
class RawNumber:
    """A number outside of canonical JSON, exactly as it was written."""

    text: str

    def integer(self) -> int | None:
        """The value, if it was written as a plain integer."""
        return int(self.text) if self.text.removeprefix("-").isdigit() else None


Json: TypeAlias = (
    "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | RawNumber | None"
)


@frozen
class Limits:
    """What a document may cost before it is parsed, and what its numbers become.

    `max_structure` bounds the number of `[`, `{` and `,`.  With `exact_numbers`, numbers outside
    of canonical JSON become RawNumber; otherwise fractions are floats, and integers beyond 2^53
    are refused.
    """

    max_depth: int
    max_structure: int
    exact_numbers: bool


CLIENT = Limits(max_depth=64, max_structure=100_000, exact_numbers=False)
FEDERATION = Limits(max_depth=128, max_structure=600_000, exact_numbers=True)


def decode(data: bytes, limits: Limits) -> Json:
    """Read a JSON document from outside; raise a JsonError.

    The bytes are UTF-8 without byte-order mark; no duplicate keys, no NaN or infinities, no lone
    surrogates, nothing after the document.  The cost is bounded before anything is parsed.
    """
    opening = data.count(b"[") + data.count(b"{")
    if opening + data.count(b",") > limits.max_structure:
        raise TooLarge("too many elements")
    if opening > limits.max_depth and _depth(data) > limits.max_depth:
        raise TooDeep("nested too deeply")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise NotJson("not UTF-8") from error
    if "\\ud" in text or "\\uD" in text:
        _refuse_lone_surrogates(text)
    decoder = _EXACT if limits.exact_numbers else _PLAIN
    try:
        value: Json = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise NotJson(f"not JSON: {error.msg} at {error.pos}") from error
    return value


_BRACKETS_AND_QUOTES = b'[]{}"'
_OTHER_BYTES = bytes(set(range(256)) - set(_BRACKETS_AND_QUOTES))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def _depth(data: bytes) -> int:
    """The deepest nesting, by a scan that runs in C and does not recurse (T087).

    Escapes are removed first (pairs of backslashes, then escaped quotes), so that every second
    piece between the remaining quotes is outside of strings.  For text that is not JSON the
    result is right up to its first error, and no parser gets further.
    """
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(data.translate(None, _OTHER_BYTES).split(b'"')[::2])
    return max(accumulate(memoryview(outside.translate(_STEPS)).cast("b")), default=0)


# Escapes in order, so that the second backslash of "\\\\" starts none; group 1: a lone surrogate.
_ESCAPES = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]|(u[dD][89a-fA-F])|.)", re.DOTALL
)


def _refuse_lone_surrogates(text: str) -> None:
    for escape in _ESCAPES.finditer(text):
        if escape[1] is not None:
            raise NotJson("a lone surrogate")


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise NotJson("an object has the same key twice")
    return value


def _constant(text: str) -> Json:
    raise NotJson(f"{text} is not a JSON number")


def _check_digits(text: str) -> None:
    if len(text) > MAX_DIGITS and sum(map(str.isdigit, text)) > MAX_DIGITS:
        raise BadNumber("a number has too many digits")


def _plain_int(text: str) -> Json:
    _check_digits(text)
    value = int(text)
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise BadNumber("an integer is out of range")
    return value


def _plain_float(text: str) -> Json:
    _check_digits(text)
    value = float(text)
    if not math.isfinite(value):
        raise BadNumber("a number is out of range")
    return value


def _exact_int(text: str) -> Json:
    _check_digits(text)
    value = int(text)
    if text == "-0" or not -MAX_INTEGER <= value <= MAX_INTEGER:
        return RawNumber(text)
    return value


def _exact_float(text: str) -> Json:
    _check_digits(text)
    return RawNumber(text)


_PLAIN = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_plain_int,
    parse_float=_plain_float,
    parse_constant=_constant,
)
_EXACT = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_exact_int,
    parse_float=_exact_float,
    parse_constant=_constant,
)


def decode_stored(data: bytes, *, exact_numbers: bool = False) -> Json:
    """Read what this server encoded itself, fast.

    Pass `rules.exact_numbers` for events: rooms of versions 1 to 5 hold numbers that the fast
    parser would round.  Raises ValueError for damaged data.
    """
    if exact_numbers:
        value: Json = _EXACT.decode(data.decode())
        return value
    stored: Json = orjson.loads(data)
    return stored


def encode(value: Json) -> bytes:
    """Compact UTF-8 JSON for answers and storage, keys in the order of the dicts."""
    return orjson.dumps(value, default=_as_written)


_SCALARS: frozenset[type] = frozenset({str, int, bool, type(None)})
_SCALARS_AND_RAW: frozenset[type] = _SCALARS | {RawNumber}


def encode_canonical(value: Json) -> bytes:
    """Canonical JSON as the package `canonicaljson` writes it, RawNumbers as they were written.

    Raises JsonError for what JSON cannot hold (NaN, lone surrogates).
    """
    if _consists_of(value, _SCALARS_AND_RAW):
        try:
            return orjson.dumps(value, default=_as_written, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            # Integers beyond 64 bits, nesting beyond 253, lone surrogates: the slow way decides.
            return _encode_slowly(value)
    return _encode_slowly(value)


def _encode_slowly(value: Json) -> bytes:
    try:
        return canonicaljson.encode_canonical_json(value)
    except (TypeError, ValueError) as error:
        raise JsonError(f"not encodable: {error}") from error


def encode_strict(value: Json) -> bytes:
    """Canonical JSON of a value that obeys its grammar; raise NotCanonical for any other.

    Appendices, "Canonical JSON", as room versions 6 and later enforce it: no fractions, integers
    within 2^53, no RawNumber.
    """
    if not _consists_of(value, _SCALARS):
        raise NotCanonical("a number that canonical JSON does not allow")
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER)
    except TypeError as error:
        raise NotCanonical(f"no canonical form: {error}") from error


def _consists_of(value: Json, scalars: frozenset[type]) -> bool:
    """Whether only dicts, lists and exactly these types of scalars occur in the value."""
    found = [value]
    for item in found:  # grows while it is read: a walk without recursion
        kind = type(item)
        if kind is dict:
            found.extend(item.values())  # type: ignore[union-attr]
        elif kind is list:
            found.extend(item)  # type: ignore[arg-type]
        elif kind not in scalars:
            return False
    return True


def _as_written(value: object) -> orjson.Fragment:
    if isinstance(value, RawNumber):
        return orjson.Fragment("0" if value.text == "-0" else value.text)
    raise TypeError(f"{type(value).__name__} is not JSON")
