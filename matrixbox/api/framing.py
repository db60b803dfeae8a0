"""Strict HTTP/1.1 message framing, checked before any parser sees the bytes.

RFC 9112 sections 2.2, 3, 5, 6 and 7.1. Where the RFC lets a recipient choose between refusing and
repairing (bare line feeds, folded lines, both framing headers, repeated lengths, absolute-form
targets, trailers), this module refuses: two recipients that repair differently see different
requests in the same bytes.
"""

from __future__ import annotations

import re
from typing import Protocol

from attrs import frozen

from matrixbox.api.bounds import Bounds

_REQUEST_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++) ([\x21-\x7e]++) HTTP/([0-9])\.([0-9])\r\n"
)
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r")
_CHUNKED = re.compile(rb"\ntransfer-encoding:[ \t]*chunked[ \t]*\r")
_EXPECT = re.compile(rb"\nexpect:[ \t]*100-continue[ \t]*\r")
_DOT_SEGMENT = re.compile(rb"/(?:\.|%2e){1,2}(?=/|$)", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[\t\x20-\x7e\x80-\xff]*+)?\r\n")
_CONTROL = re.compile(rb"[^\t\r\n\x20-\x7e\x80-\xff]")

_CHUNK_LINE_BYTES = 256
# A chunk costs the same work however small it is, so small ones are allowed only in small numbers.
_CHUNKS_FREE = 1000
_BYTES_PER_CHUNK = 512


class Refused(Exception):
    """The bytes are not a request that this server reads; the connection ends after the answer."""

    def __init__(self, status: int, text: str, errcode: str = "M_UNKNOWN") -> None:
        self.status = status
        self.text = text
        self.errcode = errcode
        super().__init__(f"{status} {text}")


class BodyFraming(Protocol):
    """Says which of the bytes that follow a head belong to its message."""

    @property
    def complete(self) -> bool:
        """Whether the whole message has been seen."""

    @property
    def remaining(self) -> int | None:
        """Bytes still to come, or None where the message does not say."""

    def take(self, data: bytes) -> int:
        """How many bytes at the start of `data` belong to the message; raises Refused."""


class LengthBody:
    """A body of the length that Content-Length gives; 0 where there is no framing header."""

    __slots__ = ("remaining",)

    def __init__(self, length: int) -> None:
        self.remaining = length

    @property
    def complete(self) -> bool:
        """Whether the whole body has been seen."""
        return self.remaining == 0

    def take(self, data: bytes) -> int:
        """Count the bytes of the body at the start of `data`."""
        taken = min(self.remaining, len(data))
        self.remaining -= taken
        return taken


class ChunkedBody:
    """A chunked body: sizes, line ends and the empty trailer section are followed byte by byte."""

    __slots__ = ("_chunks", "_data_bytes", "_line", "_reading", "_to_come", "complete")

    remaining = None

    def __init__(self) -> None:
        self.complete = False
        self._reading = "size"
        self._line = b""  # an incomplete size line, line end or trailer
        self._to_come = 0
        self._chunks = 0
        self._data_bytes = 0

    def take(self, data: bytes) -> int:
        """Count the bytes of the body at the start of `data`; Refused where the form is wrong."""
        at = 0
        while at < len(data) and not self.complete:
            if self._reading == "data":
                step = min(self._to_come, len(data) - at)
                self._to_come -= step
                at += step
                if self._to_come == 0:
                    self._reading = "end of data"
            else:
                at = self._take_line(data, at)
        return at

    def _take_line(self, data: bytes, at: int) -> int:
        found = data.find(b"\n", at)
        end = len(data) if found < 0 else found + 1
        line = self._line + data[at:end]
        if len(line) > _CHUNK_LINE_BYTES:
            raise Refused(400, "A chunk's size line is too long")
        if found < 0:
            self._line = line
            return end
        self._line = b""
        if self._reading == "size":
            self._start_chunk(line)
        elif line != b"\r\n":
            raise Refused(400, "A chunk or the chunked body does not end as it must")
        elif self._reading == "end of data":
            self._reading = "size"
        else:
            self.complete = True
        return end

    def _start_chunk(self, line: bytes) -> None:
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise Refused(400, "A chunk's size line is malformed")
        self._to_come = int(match[1], 16)
        self._reading = "data" if self._to_come else "trailers"
        self._chunks += 1
        self._data_bytes += self._to_come
        if self._chunks > _CHUNKS_FREE + self._data_bytes // _BYTES_PER_CHUNK:
            raise Refused(400, "The body comes in too many small chunks")


@frozen
class Head:
    """What the framing of a request says, before its meaning is looked at."""

    body: BodyFraming
    expects_continue: bool


def check_unfinished(received: bytes | bytearray, bounds: Bounds) -> None:
    """Refuse a head that cannot become a good one, however it goes on."""
    if len(received) > bounds.head_bytes:
        raise Refused(431, "The request head is too large", "M_TOO_LARGE")
    line_end = received.find(b"\n")
    if line_end < 0 and len(received) > bounds.request_line_bytes:
        raise Refused(414, "The request line is too long", "M_TOO_LARGE")
    if _CONTROL.search(received) is not None:
        raise Refused(400, "The request head holds control characters")
    if received.count(b"\n") != received.count(b"\r\n"):
        raise Refused(400, "Lines of the request head must end in CR LF")


def check_head(head: bytes, bounds: Bounds) -> Head:
    """Check a complete head, up to and with its empty line; raise Refused.

    RFC 9112 section 3 (request line), 3.2 (target and Host), 5 (fields), 6.3 (length).
    """
    if len(head) > bounds.head_bytes:
        raise Refused(431, "The request head is too large", "M_TOO_LARGE")
    line = _REQUEST_LINE.match(head)
    if line is None:
        if head.find(b"\n") > bounds.request_line_bytes:
            raise Refused(414, "The request line is too long", "M_TOO_LARGE")
        raise Refused(400, "The request line is malformed")
    if line.end() > bounds.request_line_bytes:
        raise Refused(414, "The request line is too long", "M_TOO_LARGE")
    _, target, major, minor = line.groups()
    if major != b"1" or minor not in b"01":
        raise Refused(505, "Only HTTP/1.1 is spoken here")
    _check_target(line[1], target)
    if _FIELDS.fullmatch(head, line.end() - 0) is None:
        raise Refused(400, "A header field is malformed")
    fields = head[line.end() - 2 :].lower()
    if fields.count(b"\n") - 2 > bounds.header_fields:
        raise Refused(431, "There are too many header fields", "M_TOO_LARGE")
    return _framing_of(fields, is_http10=minor == b"0")


def _check_target(method: bytes, target: bytes) -> None:
    """Origin-form only (RFC 9112 3.2.1), and no form that another party might resolve."""
    if target[:1] != b"/" and not (target == b"*" and method == b"OPTIONS"):
        raise Refused(400, "The request target must be a path")
    if b"#" in target:
        raise Refused(400, "The request target holds a fragment")
    path = target.partition(b"?")[0]
    if (b"/." in path or b"/%2" in path) and _DOT_SEGMENT.search(path) is not None:
        raise Refused(400, "The request target holds dot segments")


def _framing_of(fields: bytes, *, is_http10: bool) -> Head:
    hosts = fields.count(b"\nhost:")
    if hosts > 1 or (hosts == 0 and not is_http10):
        raise Refused(400, "There must be one Host header")
    lengths = fields.count(b"\ncontent-length:")
    codings = fields.count(b"\ntransfer-encoding:")
    expects_continue = b"\nexpect:" in fields
    if expects_continue and _EXPECT.search(fields) is None:
        raise Refused(417, "The expectation cannot be met")
    if not lengths and not codings:
        return Head(LengthBody(0), expects_continue=False)
    if lengths + codings > 1:
        raise Refused(400, "The length of the body is given more than once")
    expects_continue = expects_continue and not is_http10
    if codings:
        if is_http10:
            raise Refused(400, "HTTP/1.0 has no transfer codings")
        if _CHUNKED.search(fields) is None:
            raise Refused(400, "The only transfer coding is chunked")
        return Head(ChunkedBody(), expects_continue)
    length = _LENGTH.search(fields)
    if length is None:
        raise Refused(400, "The length of the body is malformed")
    return Head(LengthBody(int(length[1])), expects_continue)
