"""HTTP/2 byte sequences and upgrades that have ended servers (threats T069, T074, T075).

HTTP/1.1 is all that is spoken, so every one of these must end at its first bytes. They are kept
whole so that they still mean something on the day HTTP/2 is switched on, and because Hypercorn as
it comes believes the preface on any connection.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = (
    0, 1, 2, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + (
        struct.pack(">I", stream) + payload
    )  # fmt: skip


def headers(
    *extra: tuple[bytes, bytes],
    method: bytes = b"GET",
    path: bytes | None = b"/",
    stream: int = 1,
    ends: bool = True,
    encoder: hpack.Encoder | None = None,
) -> bytes:
    """A request's HEADERS frame."""
    fields = [(b":method", method), (b":scheme", b"http"), (b":authority", b"old.test")]
    if path is not None:
        fields.append((b":path", path))
    block = (encoder or hpack.Encoder()).encode([*fields, *extra])
    return frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, block)


def _priority(stream: int, parent: int) -> bytes:
    return frame(PRIORITY, 0, stream, struct.pack(">IB", parent, 10))


def _reset(stream: int) -> bytes:
    return frame(RESET, 0, stream, struct.pack(">I", 8))


def _rapid_resets() -> bytes:
    encoder = hpack.Encoder()
    return b"".join(
        headers(stream=1 + 2 * n, encoder=encoder) + _reset(1 + 2 * n) for n in range(5000)
    )


def _window(increment: int) -> bytes:
    return frame(WINDOW, 0, 1, struct.pack(">I", increment))


def _setting(key: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, struct.pack(">HI", key, value))


def _continuations() -> bytes:
    block = hpack.Encoder().encode([(b":method", b"GET"), (b":path", b"/")])
    return frame(HEADERS, END_STREAM, 1, block) + frame(CONTINUATION, 0, 1) * 20_000


def _header_bomb() -> bytes:
    block = hpack.Encoder().encode([(b":method", b"GET"), (b":path", b"/"), (b"a", b"b" * 4000)])
    return frame(HEADERS, END_STREAM | END_HEADERS, 1, block + b"\xbe" * 12_000)


SEQUENCES: Mapping[str, bytes] = {
    "a good request": headers(),
    "a method beyond ASCII": headers(method=b"\xff\xfe"),
    "a path beyond ASCII": headers(path=b"/\xff\xfe"),
    "no path": headers(path=None),
    "CONNECT without path": headers(method=b"CONNECT", path=None),
    "an empty path": headers(path=b""),
    "a path without slash": headers(path=b"foo"),
    "an asterisk": headers(method=b"OPTIONS", path=b"*"),
    "control characters in a field": headers((b"x-a", b"\xff\x00\n")),
    "a malformed length": headers((b"content-length", b"abc")),
    "a transfer coding": headers((b"transfer-encoding", b"chunked")),
    "a field without name": headers((b"", b"x")),
    "a stream that depends on itself": _priority(1, 1),
    "a flood of priorities": b"".join(_priority(1 + 2 * n, 0) for n in range(3000)),
    "a loop of priorities": _priority(3, 5) + _priority(5, 3),
    "a priority below nobody": _priority(3, 1001),
    "data on a closed stream": headers() + frame(DATA, END_STREAM, 1, b"x" * 10),
    "data after a reset": headers(ends=False) + _reset(1) + frame(DATA, 0, 1, b"x" * 10),
    "a window beyond its size": headers(ends=False) + _window(0x7FFFFFFF) * 2,
    "a window of nothing": _setting(4, 0) + headers(),
    "a setting out of range": _setting(2, 7),
    "a flood of continuations": _continuations(),
    "a header bomb": _header_bomb(),
    "a flood of pings": frame(PING, 0, 0, b"12345678") * 20_000,
    "a flood of settings": _setting(4, 65_535) * 20_000,
    "rapid resets": _rapid_resets(),
    "going away first": frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)) + headers(),
    "a flood of unknown frames": frame(0x77, 0, 0, b"x" * 100) * 5000,
    "a frame that is too large": frame(DATA, 0, 1, b"x" * 70_000),
    "empty data without end": headers(ends=False) + frame(DATA, 0, 1) * 20_000,
    "extended CONNECT": headers((b":protocol", b"websocket"), method=b"CONNECT"),
}


def upgrade(*lines: bytes, behind: bytes = b"", target: bytes = b"/") -> bytes:
    """A request that asks for another protocol, with bytes behind it."""
    head = [b"GET %s HTTP/1.1" % target, b"Host: old.test", *lines]
    return b"".join(b"%s\r\n" % line for line in head) + b"\r\n" + behind


_WEBSOCKET = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: bKdPyn3u98cTfZJSh4TNeQ==",
)
_H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c")

# What is behind some of them is the start of a further request, and stays unanswered.
UPGRADES: Mapping[str, bytes] = {
    "websocket": upgrade(*_WEBSOCKET),
    "websocket with a byte behind it": upgrade(*_WEBSOCKET, behind=b"x"),
    "websocket without key": upgrade(*_WEBSOCKET[:2]),
    "h2c": upgrade(*_H2C, b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
    "h2c with malformed settings": upgrade(*_H2C, b"HTTP2-Settings: !!!!"),
    "h2c with settings beyond ASCII": upgrade(*_H2C, b"HTTP2-Settings: \xe9\xe9"),
    "h2c with half a setting": upgrade(*_H2C, b"HTTP2-Settings: AAMA"),
    "h2c without settings": upgrade(*_H2C),
    "an unknown protocol": upgrade(b"Connection: Upgrade", b"Upgrade: TLS/1.0, HTTP/3"),
}
