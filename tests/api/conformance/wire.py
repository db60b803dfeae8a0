"""A client that sends exactly what it is told to, and gives back exactly what came."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from attrs import frozen

Body = bytes | Mapping[str, Any] | list[Any] | str | int | float | bool | None
NO_BODY = object()


def segment(text: str) -> str:
    """One segment of a path, percent-encoded."""
    return quote(text, safe="")


def path_of(pattern: str, *values: str) -> str:
    """A path, with the values encoded in the place of `{}`."""
    return pattern.format(*map(segment, values))


@frozen
class Request:
    """What was sent."""

    method: str
    raw_path: str
    raw_query: str
    body: Any  # as Python values, bytes as they were sent, NO_BODY for none
    has_token: bool

    def __str__(self) -> str:
        query = f"?{self.raw_query}" if self.raw_query else ""
        body = "" if self.body is NO_BODY else f" {self.body!r}"
        return f"{self.method} {self.raw_path}{query}{body}"[:300]


@frozen
class Answer:
    """What came back; header names in lower case."""

    request: Request
    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        """The body; raises ValueError where it is no JSON."""
        return json.loads(self.raw)

    @property
    def errcode(self) -> str | None:
        """The code of an error."""
        try:
            value = self.json
        except ValueError:
            return None
        return value.get("errcode") if isinstance(value, dict) else None

    def __str__(self) -> str:
        return f"{self.request} -> {self.status} {self.raw[:600]!r}"


class Connection:
    """A connection to the server, kept open between requests and opened again when it ended."""

    def __init__(self, host: str, port: int) -> None:
        self._http = http.client.HTTPConnection(host, port, timeout=30)

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def ask(
        self,
        method: str,
        raw_path: str,
        body: Any = NO_BODY,
        *,
        token: str | None = None,
        query: Mapping[str, str] | str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and wait for its answer; a body that is no bytes is sent as JSON."""
        raw_query = query if isinstance(query, str) else urlencode(query)
        request = Request(method, raw_path, raw_query, body, token is not None)
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        data = None
        if body is not NO_BODY:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        target = f"{raw_path}?{raw_query}" if raw_query else raw_path
        try:
            response = self._send(method, target, data, sent)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            # The server ends idle connections, and those whose body it did not read.
            self._http.close()
            response = self._send(method, target, data, sent)
        raw = response.read()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(request, response.status, found, raw)

    def _send(
        self, method: str, target: str, data: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        self._http.request(method, target, data, dict(headers))
        return self._http.getresponse()
