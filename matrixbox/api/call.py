"""One request as a handler sees it.

    @routes.post("/_matrix/client/v3/rooms/{room_id}/leave", auth=Auth.USER)
    async def leave(call: Call) -> Answer:
        body = await call.json()
        await call.services.rooms.leave(call.requester, parse_room_id(call.path["room_id"]), ...)
        return {}

A handler returns a JSON object, which becomes a 200, or a Response. It raises a MatrixError for a
failure. It never learns whether Quart or our own ASGI application called it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

import trio
from attrs import frozen

from matrixbox.api.answers import Header, Response
from matrixbox.api.body import Spool
from matrixbox.api.bounds import Bounds
from matrixbox.api.exchange import Message, Receive
from matrixbox.api.routes import BROKEN_PERCENT, Auth, BodyKind, Found
from matrixbox.api.slots import Turn, Turns
from matrixbox.core import json as core_json
from matrixbox.core.identifiers import ServerName
from matrixbox.core.json import Json
from matrixbox.errors import BadJson, InvalidParam, MatrixError, NotJson, TooLarge, Unavailable
from matrixbox.observe import log

Answer: TypeAlias = "Mapping[str, Json] | Response"
T = TypeVar("T")

_MOST_FORM_FIELDS = 50
_MOST_PARAMETERS = 200
_FORM_TYPE = "application/x-www-form-urlencoded"


class ClientGone(Exception):
    """The client hung up, or broke the protocol, in the middle of its body: nobody to answer."""


class UnsupportedMediaType(MatrixError):
    """The body is in a form or a coding that is not read here."""

    status, errcode = 415, "M_UNKNOWN"


@frozen
class Surroundings:
    """What all calls share: the services for handlers, and the limits of the border."""

    services: Any
    bounds: Bounds
    turns: Turns
    spool_folder: Path | None


class Call:
    """A request: what it asks for, who asks, and what it brings.

    `path` holds the named segments, `raw_path` and `raw_query` the target as it came (which is what
    servers sign), `address` the client's address, `headers` pairs with lower-case names.
    `requester` is what the route's authenticator returned. An authenticator sets `spender` to the
    user or server whose slots the request uses.
    """

    __slots__ = (
        "_body_began",
        "_fields",
        "_json",
        "_query",
        "_receive",
        "_scope",
        "_shared",
        "_turn",
        "_when_answered",
        "headers",
        "method",
        "path",
        "raw_path",
        "requester",
        "route",
        "services",
        "spender",
    )

    def __init__(
        self, shared: Surroundings, found: Found, scope: Message, receive: Receive
    ) -> None:
        self.route = found.route
        self.path = found.values
        self.method: str = scope["method"]
        self.raw_path: str = scope["raw_path"].decode("ascii")
        self.headers: list[Header] = scope["headers"]
        self.services = shared.services
        self.requester: Any = None
        self.spender: str | None = None
        self._shared = shared
        self._scope = scope
        self._receive = receive
        self._turn = Turn(shared.turns)
        self._fields: dict[bytes, bytes] | None = None
        self._query: dict[str, list[str]] | None = None
        self._json: dict[str, Json] | None = None
        self._body_began = False
        self._when_answered: list[Callable[[], None]] = []

    # The head.

    @property
    def turn(self) -> Turn:
        """The slots that the request holds; for the border only."""
        return self._turn

    @property
    def address(self) -> str:
        """The address that the request came from."""
        host: str = self._scope["client"][0]
        return host

    @property
    def is_tls(self) -> bool:
        """Whether the request came through TLS."""
        return bool(self._scope["scheme"] == "https")

    @property
    def raw_query(self) -> str:
        """The query as it came, without the question mark."""
        query: bytes = self._scope["query_string"]
        return query.decode("ascii")

    @property
    def raw_target(self) -> str:
        """The request target as it came, which is what servers sign [B1.04]."""
        target = self._scope["extensions"].get("matrixbox.target")
        if target is not None:
            return str(target, "ascii")
        return f"{self.raw_path}?{self.raw_query}" if self.raw_query else self.raw_path

    @property
    def origin(self) -> ServerName:
        """The server that calls, on routes for other servers."""
        if self.route.auth is not Auth.FEDERATION:
            raise TypeError(f"{self.route.patterns}: no server has signed this")
        origin: ServerName = self.requester
        return origin

    def header(self, name: str) -> str | None:
        """A header's value, None without it; the last one where there are several."""
        if self._fields is None:
            self._fields = dict(self.headers)
        value = self._fields.get(name.encode("ascii"))
        return None if value is None else value.decode("latin-1")

    def all_headers(self, name: str) -> list[str]:
        """The values of all headers of this name."""
        wanted = name.encode("ascii")
        return [value.decode("latin-1") for found, value in self.headers if found == wanted]

    @property
    def query(self) -> Mapping[str, list[str]]:
        """The parameters of the query; raises InvalidParam where it is not UTF-8."""
        if self._query is None:
            self._query = _pairs(self.raw_query, InvalidParam, _MOST_PARAMETERS)
        return self._query

    def param(self, name: str) -> str | None:
        """The first value of a parameter of the query, None without it."""
        values = self.query.get(name)
        return None if values is None else values[0]

    # The body.

    @property
    def reads_body(self) -> bool:
        """Whether the route looks at the body at all."""
        return self.route.body is not BodyKind.NONE

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body piece by piece, as fast as the caller takes it; once only.

        Raises TooLarge beyond the route's limit, and ClientGone.
        """
        if self._body_began:
            raise RuntimeError("the body has been read")
        self._body_began = True
        exchange = self._scope["extensions"].get("matrixbox.exchange")
        if exchange is not None:
            exchange.allow_body_time(self.route.body_s)
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message["body"]
            size += len(piece)
            if size > self.route.body_limit:
                raise TooLarge("The body is too large")
            if piece:
                yield piece
            if not message["more_body"]:
                return

    async def json(self) -> dict[str, Json]:
        """The body, a JSON object; the same one at every call.

        Raises NotJson, BadJson, TooLarge, LimitExceeded, and ClientGone.
        """
        if self._json is None:
            if self.route.body not in (BodyKind.JSON, BodyKind.JSON_OR_EMPTY):
                raise TypeError(f"{self.route.patterns} does not declare a JSON body")
            value = await self._read_body(self._decode)
            if isinstance(value, MatrixError):
                raise value
            if not isinstance(value, dict):
                raise BadJson("The body must be a JSON object")
            self._json = value
        return self._json

    async def form(self) -> Mapping[str, list[str]]:
        """The fields of a form; raises UnsupportedMediaType, BadJson, TooLarge, and ClientGone."""
        if self.route.body is not BodyKind.FORM:
            raise TypeError(f"{self.route.patterns} does not declare a form")
        if (self.header("content-type") or "").partition(";")[0].strip().lower() != _FORM_TYPE:
            raise UnsupportedMediaType("The body must be a form")
        data = await self._read_body(lambda data: data)
        try:
            text = data.decode("ascii")
        except UnicodeDecodeError as error:
            raise BadJson("The form is malformed") from error
        return _pairs(text, BadJson, _MOST_FORM_FIELDS)

    async def _read_body(self, read: Callable[[bytes], T]) -> T:
        bounds = self._shared.bounds
        async with Spool(bounds.spool_over_bytes, self._shared.spool_folder) as spool:
            try:
                async with aclosing(self.stream()) as pieces:
                    async for piece in pieces:
                        await spool.add(piece)
            except OSError as error:
                log.warning("no room for a request body", reason=error.strerror)
                raise Unavailable("The server cannot take large requests now") from error
            if spool.size > bounds.large_body_bytes:
                await self._turn.take_large_body()
            return await spool.read(read)

    def _decode(self, data: bytes) -> Json | MatrixError:
        """The JSON, or what is wrong with it.

        Returned, not raised: an exception keeps the frames that it passed, and with them the whole
        body, until the garbage collector comes by.
        """
        if not data and self.route.body is BodyKind.JSON_OR_EMPTY:
            return {}
        try:
            return core_json.decode(data, self.route.json_limits)
        except core_json.NotJson as error:
            return NotJson(f"The body is not JSON: {error}")
        except core_json.TooLarge:
            if self.route.auth is Auth.FEDERATION:
                return BadJson("The body has too many elements")
            return TooLarge("The body has too many elements")
        except core_json.JsonError as error:
            return BadJson(f"The body is not acceptable: {error}")

    # The end.

    def when_answered(self, function: Callable[[], None]) -> None:
        """Have something done once the answer has left, or the request has failed."""
        self._when_answered.append(function)

    def answered(self) -> None:
        """Do all that; for the border only."""
        for function in self._when_answered:
            function()

    # Waiting.

    def waiting(self, timeout_s: float) -> AbstractAsyncContextManager[trio.CancelScope]:
        """Wait for news inside, at most `timeout_s`; the way every long poll waits.

            async with call.waiting(timeout_s):
                await doorbell.beyond(since, user)

        The wait ends early, without an error, when the server is being stopped. Meanwhile the
        request holds none of the slots of those that are being handled. Raises LimitExceeded when
        the requester waits too often at the same time.
        """
        return self._turn.waiting(timeout_s)


def _pairs(text: str, malformed: type[MatrixError], most: int) -> dict[str, list[str]]:
    """Parse `a=b&c=d`, strictly UTF-8; raise `malformed` for anything else."""
    pairs: dict[str, list[str]] = {}
    if text.count("&") >= most:
        raise malformed("There are too many parameters")
    for field in text.split("&"):
        if field:
            name, _, value = field.partition("=")
            pairs.setdefault(_plain(name, malformed), []).append(_plain(value, malformed))
    return pairs


def _plain(text: str, malformed: type[MatrixError]) -> str:
    if "+" in text:
        text = text.replace("+", " ")
    if "%" not in text:
        return text
    if BROKEN_PERCENT.search(text) is not None:
        raise malformed("A parameter is not percent-encoded as it must be")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise malformed("A parameter is not UTF-8") from error
