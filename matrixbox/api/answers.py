"""What a handler may answer with.

Matrix v1.19, Client-Server API, "API standards" and "Web browser clients": JSON in UTF-8, with
CORS headers on every answer, errors included.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping

from attrs import frozen

from matrixbox.core import json

Header = tuple[bytes, bytes]

CORS_HEADERS: tuple[Header, ...] = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"),
    (b"access-control-allow-headers", b"X-Requested-With, Content-Type, Authorization"),
)
PREFLIGHT_HEADERS: tuple[Header, ...] = (*CORS_HEADERS, (b"access-control-max-age", b"86400"))
JSON_HEADERS: tuple[Header, ...] = ((b"content-type", b"application/json"),)
SECRET_HEADERS: tuple[Header, ...] = ((b"cache-control", b"no-store"), (b"pragma", b"no-cache"))
"""Of answers that carry tokens (T101)."""


@frozen
class Response:
    """An answer other than 200 with JSON.

    `body` is sent as it is; a stream is sent as it comes, chunked unless `headers` give a
    content-length. `headers` have lower-case names. Content-Length and CORS are added.
    """

    status: int = 200
    body: bytes | AsyncIterable[bytes] = b""
    headers: tuple[Header, ...] = ()
    cors: bool = True


def json_response(
    value: Mapping[str, json.Json], status: int = 200, headers: tuple[Header, ...] = ()
) -> Response:
    """An answer with a JSON body."""
    return Response(status, json.encode(value), JSON_HEADERS + headers)


def all_headers(response: Response) -> list[Header]:
    """The answer's headers with those for browsers; Content-Length comes with the body."""
    return [*response.headers, *CORS_HEADERS] if response.cors else [*response.headers]
