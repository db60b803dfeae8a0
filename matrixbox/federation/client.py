"""Requests to other servers: signed, bounded, and answers read as strictly as requests.

Matrix v1.19, Server-Server API, "API standards" and "Request Authentication" ([B1.02], [B1.04],
[B1.05], [B4.01], [B4.04]).  Every call raises RemoteError and nothing else; redirects are not
followed, they are errors like any other status (limits of the threat page, section 3).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Protocol, cast
from urllib.parse import quote

from attrs import define, frozen

from matrixbox.core import json
from matrixbox.core.identifiers import ServerName
from matrixbox.core.json import Json
from matrixbox.core.signing import SigningKey, encode_base64
from matrixbox.errors import RemoteBackingOff, RemoteError, RemoteInvalid, RemoteRefused
from matrixbox.federation.transport import Limits, Request, StreamedAnswer, Transport
from matrixbox.tasks import Offload, in_thread

KIB = 1024
MIB = 1024 * KIB

DEFAULT_LIMITS = Limits(total_s=30, idle_s=20, max_bytes=4 * MIB)
SMALL_LIMITS = Limits(total_s=30, idle_s=20, max_bytes=1 * MIB)
"""Profiles, directories, and whatever else is small by nature."""
MAKE_LIMITS = Limits(total_s=60, idle_s=60, max_bytes=1 * MIB)
"""make_join, make_leave, make_knock, invite: the other side may have to ask others first."""
SEND_LIMITS = Limits(total_s=60, idle_s=60, max_bytes=1 * MIB)
"""Transactions: the answer comes when everything in them has been looked at."""
EVENTS_LIMITS = Limits(total_s=60, idle_s=20, max_bytes=8 * MIB)
"""backfill, get_missing_events."""
STATE_IDS_LIMITS = Limits(total_s=60, idle_s=20, max_bytes=16 * MIB)
STATE_LIMITS = Limits(total_s=120, idle_s=20, max_bytes=32 * MIB)
"""state, event_auth."""

DECODE_IN_THREAD_OVER_BYTES = 128 * KIB
MAX_ERROR_BYTES = 64 * KIB
_MAX_ERROR_TEXT = 500
_JSON_TYPE = ("content-type", "application/json")

Query = Sequence[tuple[str, str]]


class Destinations(Protocol):
    """Which servers are worth a try; back-off after failures (``federation.destinations``).

    `failed` is told of servers that could not be reached, did not answer in time or whose proxy
    said so; whoever sends in the background adds its own failures.  `alive`: the server called us.
    """

    def may_try(self, server: ServerName) -> bool: ...

    def failed(self, server: ServerName) -> None: ...

    def succeeded(self, server: ServerName) -> None: ...

    def alive(self, server: ServerName) -> None: ...

    def heard_within(self, server: ServerName, seconds: float) -> bool: ...


@frozen
class NoBackOff:
    """Tries every server every time, for tests and tools."""

    def may_try(self, server: ServerName) -> bool:
        """Always."""
        return True

    def failed(self, server: ServerName) -> None:
        """Nothing is remembered."""

    def succeeded(self, server: ServerName) -> None:
        """Nothing is remembered."""

    def alive(self, server: ServerName) -> None:
        """Nothing is remembered."""

    def heard_within(self, server: ServerName, seconds: float) -> bool:
        """Nothing is remembered."""
        return False


def target(*segments: str, query: Query = ()) -> str:
    """`/_matrix/federation/…`: each segment and parameter percent-encoded [B1.04].

    target("v1", "event", event_id)
    """
    return _target("/_matrix/federation", segments, query)


def key_target(*segments: str, query: Query = ()) -> str:
    """`/_matrix/key/…`, likewise."""
    return _target("/_matrix/key", segments, query)


def _target(prefix: str, segments: Iterable[str], query: Query) -> str:
    path = "/".join((prefix, *(quote(segment, safe="") for segment in segments)))
    if not query:
        return path
    pairs = (f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query)
    return f"{path}?{'&'.join(pairs)}"


def request_bytes(
    method: str, uri: str, origin: str, destination: str | None, content: bytes | None
) -> bytes:
    """What the signature of a request covers [B4.01]; `content` is canonical JSON already.

    Canonical JSON sorts its keys: content, destination, method, origin, uri.
    """
    fields: list[tuple[str, bytes]] = []
    if content is not None:
        fields.append(("content", content))
    if destination is not None:
        fields.append(("destination", json.encode_canonical(destination)))
    fields += [
        ("method", json.encode_canonical(method)),
        ("origin", json.encode_canonical(origin)),
        ("uri", json.encode_canonical(uri)),
    ]
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in fields) + b"}"


@define(eq=False)
class FederationClient:
    """Speaks to other servers in our name.

    Bodies are given as JSON objects, answers are JSON objects that passed the border; numbers that
    canonical JSON does not know stay RawNumbers in them.
    """

    server_name: ServerName
    key: SigningKey
    transport: Transport
    destinations: Destinations
    offload: Offload = in_thread

    async def get_json(
        self,
        server: ServerName,
        uri: str,
        *,
        limits: Limits = DEFAULT_LIMITS,
        ignore_backoff: bool = False,
    ) -> Mapping[str, Json]:
        """GET; the answer's object.  Raises RemoteError."""
        return _object(server, await self._call("GET", server, uri, None, limits, ignore_backoff))

    async def put_json(
        self,
        server: ServerName,
        uri: str,
        body: Mapping[str, Json],
        *,
        limits: Limits = DEFAULT_LIMITS,
        ignore_backoff: bool = False,
    ) -> Mapping[str, Json]:
        """PUT; the answer's object.  Raises RemoteError."""
        return _object(server, await self._call("PUT", server, uri, body, limits, ignore_backoff))

    async def post_json(
        self,
        server: ServerName,
        uri: str,
        body: Mapping[str, Json],
        *,
        limits: Limits = DEFAULT_LIMITS,
        ignore_backoff: bool = False,
    ) -> Mapping[str, Json]:
        """POST; the answer's object.  Raises RemoteError."""
        return _object(server, await self._call("POST", server, uri, body, limits, ignore_backoff))

    async def put_any(
        self,
        server: ServerName,
        uri: str,
        body: Mapping[str, Json],
        *,
        limits: Limits = DEFAULT_LIMITS,
        ignore_backoff: bool = False,
    ) -> Json:
        """PUT to version 1 of an endpoint that answers `[200, {…}]`; whatever JSON comes."""
        return await self._call("PUT", server, uri, body, limits, ignore_backoff)

    async def fetch_bytes(
        self,
        method: str,
        server: ServerName,
        uri: str,
        body: Mapping[str, Json] | None = None,
        *,
        limits: Limits,
        ignore_backoff: bool = False,
    ) -> bytes:
        """The body of an answer as it came, for callers that take it apart themselves."""
        request = self._signed(method, server, uri, body, ignore_backoff)
        with _Watch(self.destinations, server):
            answer = await self.transport.exchange(server, request, limits)
            _refuse_error(server, answer.status, answer.body)
            return answer.body

    def stream(
        self,
        method: str,
        server: ServerName,
        uri: str,
        body: Mapping[str, Json] | None = None,
        *,
        limits: Limits,
        ignore_backoff: bool = False,
    ) -> AbstractAsyncContextManager[StreamedAnswer]:
        """A request whose answer is taken piece by piece; statuses below 200 and from 300 on
        raise RemoteRefused.  RemoteErrors may come out of the iteration, too."""
        return self._stream(method, server, uri, body, limits, ignore_backoff)

    async def fetch_unsigned(
        self, server: ServerName, uri: str, *, limits: Limits
    ) -> Mapping[str, Json]:
        """GET without signature or regard to back-off, for what is public: keys, versions."""
        answer = await self.transport.exchange(server, Request("GET", uri), limits)
        _refuse_error(server, answer.status, answer.body)
        return _object(server, await decoded(server, answer.body, self.offload))

    async def _call(
        self,
        method: str,
        server: ServerName,
        uri: str,
        body: Mapping[str, Json] | None,
        limits: Limits,
        ignore_backoff: bool,
    ) -> Json:
        body_bytes = await self.fetch_bytes(
            method, server, uri, body, limits=limits, ignore_backoff=ignore_backoff
        )
        return await decoded(server, body_bytes, self.offload)

    @asynccontextmanager
    async def _stream(
        self,
        method: str,
        server: ServerName,
        uri: str,
        body: Mapping[str, Json] | None,
        limits: Limits,
        ignore_backoff: bool,
    ) -> AsyncGenerator[StreamedAnswer, None]:
        request = self._signed(method, server, uri, body, ignore_backoff)
        with _Watch(self.destinations, server):
            async with self.transport.stream(server, request, limits) as answer:
                if not 200 <= answer.status < 300:
                    _refuse_error(server, answer.status, await _beginning(answer.__aiter__()))
                yield answer

    def _signed(
        self,
        method: str,
        server: ServerName,
        uri: str,
        body: Mapping[str, Json] | None,
        ignore_backoff: bool,
    ) -> Request:
        if server == self.server_name:
            raise RemoteInvalid(server, "that is this server")  # T058
        if not ignore_backoff and not self.destinations.may_try(server):
            raise RemoteBackingOff(server, "it failed before and is not tried yet")
        content = None if body is None else json.encode_canonical(body)
        message = request_bytes(method, uri, self.server_name, server, content)
        headers = [("authorization", self._authorization(server, message))]
        if content is not None:
            headers.append(_JSON_TYPE)
        return Request(method, uri, tuple(headers), content or b"")

    def _authorization(self, server: ServerName, message: bytes) -> str:
        """The header that every server understands [B4.04]."""
        return (
            f'X-Matrix origin="{self.server_name}",destination="{server}",'
            f'key="{self.key.key_id}",sig="{encode_base64(self.key.sign(message))}"'
        )


async def decoded(server: ServerName, body: bytes, offload: Offload) -> Json:
    """The JSON of an answer; in a thread if there is much of it.  Raises RemoteInvalid."""
    try:
        if len(body) > DECODE_IN_THREAD_OVER_BYTES:
            return await offload(json.decode, body, json.FEDERATION)
        return json.decode(body, json.FEDERATION)
    except json.JsonError as error:
        raise RemoteInvalid(server, f"its answer is not acceptable JSON: {error}") from error


@define(eq=False)
class _Watch:
    """Tells the back-off how a call went."""

    destinations: Destinations
    server: ServerName

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RemoteError) and is_failure_of_server(error):
            self.destinations.failed(self.server)
        elif error is None or isinstance(error, RemoteRefused):
            self.destinations.succeeded(self.server)


def is_failure_of_server(error: RemoteError) -> bool:
    """Whether the server as a whole cannot be used, and not just refuses one request.

    500 and 501 come from a homeserver that is there; 502 to 504, and what some proxies send from
    520 on, say that it is not.  What breaks the protocol tells neither.
    """
    if isinstance(error, RemoteRefused):
        return error.status in (502, 503, 504) or error.status >= 520
    return not isinstance(error, RemoteInvalid)


def _object(server: ServerName, value: Json) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise RemoteInvalid(server, "its answer is not a JSON object")
    return value


def _refuse_error(server: ServerName, status: int, body: bytes) -> None:
    """Raise RemoteRefused for every status but success; read a standard error if there is one."""
    if 200 <= status < 300:
        return
    fields: dict[str, object] = {}
    if len(body) <= MAX_ERROR_BYTES:
        try:
            value = json.decode(body, json.CLIENT)
        except json.JsonError:
            value = None  # an HTML page of some proxy: the status says enough
        fields = cast(dict[str, object], value) if isinstance(value, dict) else {}
    errcode, text = fields.pop("errcode", None), fields.pop("error", None)
    raise RemoteRefused(
        server,
        text[:_MAX_ERROR_TEXT] if isinstance(text, str) else "",
        status=status,
        errcode=errcode[:_MAX_ERROR_TEXT] if isinstance(errcode, str) else None,
        fields=fields,
    )


async def _beginning(pieces: AsyncIterator[bytes]) -> bytes:
    """As much of a body as a standard error may take."""
    taken = b""
    if isinstance(pieces, AsyncGenerator):
        async with aclosing(pieces):
            async for piece in pieces:
                taken += piece
                if len(taken) > MAX_ERROR_BYTES:
                    break
        return taken
    async for piece in pieces:
        taken += piece
        if len(taken) > MAX_ERROR_BYTES:
            break
    return taken
