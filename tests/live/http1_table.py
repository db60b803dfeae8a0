"""Raw HTTP/1.1 requests and what must come of each (threats T065, T073, T076, T077, T091).

`ends` tells whether the connection must be closed after the answer, so that nothing behind an
ambiguous request is read as a further one. Every refused request is followed by a smuggled one in
the bytes where that is the point of it: a second status would show that it was obeyed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import frozen

from tests.live.target import Paths

HOST = b"Host: old.test\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@frozen(kw_only=True)
class Raw:
    """One request as bytes, and the answers it must get."""

    name: str
    pieces: Callable[[Paths], tuple[bytes, ...]]
    statuses: tuple[int, ...] | None  # None: as the target answers a POST of {}
    ends: bool
    threat: str = "T073"


def _post(
    headers: bytes, body: bytes, *, version: bytes = b"1.1"
) -> Callable[[Paths], tuple[bytes]]:
    def make(paths: Paths) -> tuple[bytes]:
        line = b"POST %s HTTP/%s\r\n" % (paths.json.encode(), version)
        return (line + HOST + headers + b"\r\n" + body,)

    return make


def _get(headers: bytes = b"", *, host: bytes = HOST) -> Callable[[Paths], tuple[bytes]]:
    def make(paths: Paths) -> tuple[bytes]:
        return (b"GET %s HTTP/1.1\r\n" % paths.small.encode() + host + headers + b"\r\n",)

    return make


def _target(target: bytes, method: bytes = b"GET") -> Callable[[Paths], tuple[bytes]]:
    return lambda paths: (b"%s %s HTTP/1.1\r\n" % (method, target) + HOST + b"\r\n",)


def _small(method: bytes) -> Callable[[Paths], tuple[bytes]]:
    return lambda paths: _target(paths.small.encode(), method)(paths)


def _smuggled(paths: Paths) -> bytes:
    return b"GET %s HTTP/1.1\r\n" % paths.small.encode() + HOST + b"\r\n"


def _with_smuggled(headers: bytes, body: bytes, **more: bytes) -> Callable[[Paths], tuple[bytes]]:
    return lambda paths: (_post(headers, body, **more)(paths)[0] + _smuggled(paths),)


def _raw(data: bytes) -> Callable[[Paths], tuple[bytes]]:
    return lambda paths: (data,)


def table() -> Iterator[Raw]:
    """All cases."""
    yield from _framing()
    yield from _lines()
    yield from _targets()
    yield from _sizes()
    yield from _accepted()


def _framing() -> Iterator[Raw]:
    refused: list[tuple[str, Callable[[Paths], tuple[bytes, ...]]]] = [
        (
            "Content-Length before Transfer-Encoding",
            _with_smuggled(b"Content-Length: 5\r\n" + CHUNKED, b"0\r\n\r\n"),
        ),
        (
            "Transfer-Encoding before Content-Length",
            _with_smuggled(CHUNKED + b"Content-Length: 5\r\n", b"0\r\n\r\n"),
        ),
        (
            "differing Content-Lengths",
            _with_smuggled(b"Content-Length: 2\r\nContent-Length: 3\r\n", b"{} "),
        ),
        (
            "the same Content-Length twice",
            _with_smuggled(b"Content-Length: 2\r\nContent-Length: 2\r\n", b"{}"),
        ),
        ("a list of lengths", _with_smuggled(b"Content-Length: 2, 2\r\n", b"{}")),
        ("a signed length", _with_smuggled(b"Content-Length: +2\r\n", b"{}")),
        ("a negative length", _with_smuggled(b"Content-Length: -2\r\n", b"{}")),
        ("a hexadecimal length", _with_smuggled(b"Content-Length: 0x2\r\n", b"{}")),
        ("an empty length", _with_smuggled(b"Content-Length: \r\n", b"{}")),
        (
            "a length of 20 digits",
            _with_smuggled(b"Content-Length: 99999999999999999999\r\n", b"{}"),
        ),
        ("an unknown coding", _with_smuggled(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n")),
        (
            "identity after chunked",
            _with_smuggled(b"Transfer-Encoding: chunked, identity\r\n", b""),
        ),
        ("gzip before chunked", _with_smuggled(b"Transfer-Encoding: gzip, chunked\r\n", b"")),
        ("chunked twice", _with_smuggled(CHUNKED + CHUNKED, b"0\r\n\r\n")),
        (
            "chunked after a vertical tab",
            _with_smuggled(b"Transfer-Encoding: \x0bchunked\r\n", b""),
        ),
        ("chunked in HTTP/1.0", _with_smuggled(CHUNKED, b"0\r\n\r\n", version=b"1.0")),
        (
            "a chunk that does not end where it says (CVE-2025-43859)",
            _with_smuggled(CHUNKED, b"2\r\n{}XX0\r\n\r\n"),
        ),
        ("a bare LF after a chunk's size", _with_smuggled(CHUNKED, b"2\n{}\r\n0\r\n\r\n")),
        ("a bare LF in a chunk extension", _with_smuggled(CHUNKED, b"2;a=\n\r\n{}\r\n0\r\n\r\n")),
        ("a chunk size with a prefix", _with_smuggled(CHUNKED, b"0x2\r\n{}\r\n0\r\n\r\n")),
        ("a chunk size with a blank", _with_smuggled(CHUNKED, b"2 \r\n{}\r\n0\r\n\r\n")),
        ("a chunk size that overflows", _with_smuggled(CHUNKED, b"1" * 20 + b"\r\n{}\r\n")),
        ("a size line without end", _with_smuggled(CHUNKED, b"2;" + b"a" * 4000)),
        ("a bare LF after the last chunk", _with_smuggled(CHUNKED, b"2\r\n{}\r\n0\r\n\n")),
        ("trailers", _with_smuggled(CHUNKED, b"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n")),
        ("a thousand tiny chunks", _with_smuggled(CHUNKED, b"1\r\n \r\n" * 2000 + b"0\r\n\r\n")),
    ]
    for name, pieces in refused:
        yield Raw(name=name, pieces=pieces, statuses=(400,), ends=True)


def _lines() -> Iterator[Raw]:
    refused: list[tuple[str, Callable[[Paths], tuple[bytes, ...]]]] = [
        ("bare LF line ends", lambda p: (_get()(p)[0].replace(b"\r\n", b"\n"),)),
        ("one bare LF", _get(b"X: a\nY: b\r\n")),
        ("a bare CR", _get(b"X: a\rY: b\r\n")),
        ("a folded line", _get(b"X: a\r\n b\r\n")),
        ("a first field that is folded", _get(host=b" Host: old.test\r\n")),
        ("a blank before the colon", _get(b"Content-Length : 2\r\n")),
        ("a field without colon", _get(b"X\r\n")),
        ("a field without name", _get(b": a\r\n")),
        ("a NUL in a field", _get(b"X: a\0b\r\n")),
        ("an escape in a field", _get(b"X: a\x1bb\r\n")),
        ("no Host", _get(host=b"")),
        ("two Hosts", _get(host=HOST + b"Host: other.test\r\n")),
        ("the same Host twice", _get(host=HOST + HOST)),
        ("an empty line first", lambda p: (b"\r\n" + _get()(p)[0],)),
        ("two blanks in the request line", _raw(b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n")),
        ("a request line without version", _raw(b"GET /\r\n" + HOST + b"\r\n")),
        ("a version of two digits", _raw(b"GET / HTTP/1.10\r\n" + HOST + b"\r\n")),
        ("a method with a quote", _raw(b'G"T / HTTP/1.1\r\n' + HOST + b"\r\n")),
        ("TLS on the plain port", _raw(bytes.fromhex("160301020001000001fc0303") + b"a" * 50)),
        ("a control character at the start", _raw(b"\x01\x02\x03")),
    ]
    for name, pieces in refused:
        yield Raw(name=name, pieces=pieces, statuses=(400,), ends=True)
    for version in (b"0.9", b"2.0", b"3.0"):
        yield Raw(
            name=f"HTTP/{version.decode()}",
            pieces=_raw(b"GET / HTTP/%s\r\n" % version + HOST + b"\r\n"),
            statuses=(505,),
            ends=True,
        )
    yield Raw(
        name="the HTTP/2 preface",
        pieces=_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"),
        statuses=(505,),
        ends=True,
        threat="T069",
    )


def _targets() -> Iterator[Raw]:
    refused = {
        "an absolute-form target": _target(b"http://evil.test/_matrix/client/versions"),
        "an authority-form target": _target(b"evil.test:443", b"CONNECT"),
        "an asterisk that is not for OPTIONS": _target(b"*"),
        "a target without slash": _target(b"_matrix/client/versions"),
        "a dot segment": _target(b"/_matrix/../_matrix/client/versions"),
        "a single dot": _target(b"/_matrix/./client/versions"),
        "an encoded dot segment": _target(b"/_matrix/%2e%2E/_matrix/client/versions"),
        "a half encoded dot segment": _target(b"/_matrix/.%2e/_matrix/client/versions"),
        "a dot segment at the end": _target(b"/_matrix/client/.."),
        "a fragment": _target(b"/_matrix/client/versions#x"),
        "bytes beyond ASCII in the target": _target(b"/_matrix/\xff"),
        "a control character in the target": _target(b"/_matrix/\x7f"),
        "a tab in the target": _target(b"/_matrix\t/client"),
    }
    for name, pieces in refused.items():
        yield Raw(name=name, pieces=pieces, statuses=(400,), ends=True, threat="T065")
    for name, target in {
        "a double slash": b"//_matrix/client/versions",
        "an encoded slash between segments": b"/_matrix%2Fclient/versions",
        "a trailing slash that was not declared": b"/_matrix/client/versions/",
        "an encoded letter": b"/_matrix/client/version%73",
        "an empty path": b"/",
        "dots that are no dot segment": b"/_matrix/.../.well-known",
    }.items():
        yield Raw(name=name, pieces=_target(target), statuses=(404,), ends=False, threat="T091")
    yield Raw(
        name="OPTIONS of everything",
        pieces=_target(b"*", b"OPTIONS"),
        statuses=(204,),
        ends=False,
        threat="T091",
    )
    yield Raw(name="TRACE", pieces=_target(b"/", b"TRACE"), statuses=(404,), ends=False)


def _sizes() -> Iterator[Raw]:
    many = b"".join(b"X%d: a\r\n" % n for n in range(150))
    yield Raw(name="20 KiB of one field", pieces=_get(b"X: " + b"a" * 20_000 + b"\r\n"),
              statuses=(431,), ends=True)  # fmt: skip
    yield Raw(name="150 fields", pieces=_get(many), statuses=(431,), ends=True)
    yield Raw(name="20 KiB without a line end", pieces=_raw(b"G" * 20_000),
              statuses=(431,), ends=True)  # fmt: skip
    yield Raw(name="10 KiB without a line end", pieces=_raw(b"G" * 10_000),
              statuses=(414,), ends=True)  # fmt: skip
    yield Raw(name="a target of 9 KiB", pieces=_target(b"/" + b"a" * 9_000),
              statuses=(414,), ends=True)  # fmt: skip
    yield Raw(
        name="an announced body that is too large",
        pieces=_post(b"Content-Length: 20000000\r\n", b"x" * 30_000),
        statuses=(413,),
        ends=True,
        threat="T076",
    )
    yield Raw(
        name="a body that is too large, expecting to continue",
        pieces=_post(b"Content-Length: 20000000\r\nExpect: 100-continue\r\n", b""),
        statuses=(413,),
        ends=True,
        threat="T076",
    )
    yield Raw(
        name="a chunked body that grows too large",
        pieces=_post(CHUNKED, b"10000\r\n" + b" " * 65_536 + b"\r\n10000\r\n" + b" " * 65_536),
        statuses=(413,),
        ends=True,
        threat="T076",
    )
    yield Raw(
        name="a compressed body",
        pieces=_post(b"Content-Encoding: gzip\r\nContent-Length: 2\r\n", b"{}"),
        statuses=(415,),
        ends=False,
        threat="T077",
    )
    yield Raw(
        name="another expectation",
        pieces=_post(b"Content-Length: 2\r\nExpect: the-unexpected\r\n", b"{}"),
        statuses=(417,),
        ends=True,
    )
    multipart = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 500 + b"--b--\r\n"
    kinds = {
        "multipart": (b"multipart/form-data; boundary=b", multipart),
        "a form of 10,000 fields": (b"application/x-www-form-urlencoded", b"a=1&" * 10_000),
    }
    for name, (kind, body) in kinds.items():
        headers = b"Content-Type: %s\r\nContent-Length: %d\r\n" % (kind, len(body))
        yield Raw(
            name=name, pieces=_post(headers, body), statuses=(400,), ends=False, threat="T077"
        )


def _accepted() -> Iterator[Raw]:
    """What is odd but right must go on working."""
    yield Raw(name="a plain GET", pieces=_get(), statuses=(200,), ends=False)
    yield Raw(name="five in a row", pieces=lambda p: (_smuggled(p) * 5,),
              statuses=(200,) * 5, ends=False)  # fmt: skip
    yield Raw(name="byte by byte", pieces=lambda p: tuple(bytes([b]) for b in _smuggled(p)),
              statuses=(200,), ends=False)  # fmt: skip
    yield Raw(
        name="a refused one behind a good one",
        pieces=lambda p: (_smuggled(p) + b"GET / HTTP/1.1\n\n",),
        statuses=(200, 400),
        ends=True,
    )
    yield Raw(name="HTTP/1.0 without Host", ends=True, statuses=(200,),
              pieces=lambda p: (b"GET %s HTTP/1.0\r\n\r\n" % p.small.encode(),))  # fmt: skip
    yield Raw(name="a field with bytes beyond ASCII", pieces=_get(b"X: \xe9\xff\r\n"),
              statuses=(200,), ends=False)  # fmt: skip
    yield Raw(name="a GET with a body", statuses=(200,), ends=False,
              pieces=lambda p: (_get(b"Content-Length: 2\r\n")(p)[0] + b"{}",))  # fmt: skip
    yield Raw(name="HEAD", pieces=_small(b"HEAD"), statuses=(200,), ends=False)
    yield Raw(name="a wrong method", pieces=_small(b"DELETE"), statuses=(405,), ends=False)
    for name, headers, body in (
        ("a body of known length", b"Content-Length: 2\r\n", b"{}"),
        ("a chunked body", CHUNKED, b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"),
        ("Chunked in capitals", b"TRANSFER-ENCODING: Chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n"),
        ("a chunk extension", CHUNKED, b"2;name=value\r\n{}\r\n0\r\n\r\n"),
        ("tabs around a length", b"Content-Length:\t2\t\r\n", b"{}"),
    ):
        yield Raw(name=name, pieces=_post(headers, body), statuses=None, ends=False)
    yield Raw(
        name="a body that arrives late",
        pieces=lambda p: (_post(b"Content-Length: 2\r\n", b"")(p)[0], b"{", b"}"),
        statuses=None,
        ends=False,
    )
