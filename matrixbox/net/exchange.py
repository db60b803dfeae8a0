"""The values of one exchange: request, bounds, answer."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen


@frozen
class Request:
    """A request as it goes on the wire; `target` is the path and query, percent-encoded."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@frozen
class Limits:
    """Bounds of one exchange: seconds, and bytes of the answer's body."""

    total_s: float = 60.0
    idle_s: float = 20.0
    max_bytes: int = 8 * 1024 * 1024


@frozen
class Answer:
    """An answer of any status; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@frozen
class Target:
    """Where to connect: a DNS name or an address literal without brackets, and a port."""

    host: str
    port: int


@frozen
class Route:
    """How a destination is reached.

    `name` says who is meant, in errors and logs.  `host` is the Host header.  `tls_name` is the
    name or address that the certificate must be for; None means plain HTTP.  The targets are tried
    in order.
    """

    name: str
    host: str
    tls_name: str | None
    targets: tuple[Target, ...]
