"""The table of routes: each endpoint is declared once, with everything the border needs to know.

    routes = RouteTable()

    @routes.post("/_matrix/client/[v3|r0]/rooms/{room_id}/leave", auth=Auth.USER)
    async def leave(call: Call) -> Answer: ...

Patterns are split at `/`. A segment is literal, `[a|b]` (one of these literals), `{name}` (one
segment that is not empty) or, at the end, `{name*}` (any number of segments, also none). `/?` at
the end also accepts the path with a trailing slash. Literal segments go before named ones.

Paths are matched as they came, undecoded; each named segment is decoded once, so an id may hold
`%2F` (Client-Server API, "API standards"; requirements B1.04, C1.11; threats T065, T091).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum
from itertools import product
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from attrs import frozen

from matrixbox.api import bounds
from matrixbox.core import json
from matrixbox.errors import InvalidParam

Handler = Callable[[Any], Awaitable[Any]]
H = TypeVar("H", bound=Handler)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"})

_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()+,;=:@-]*")
_ALTERNATIVES = re.compile(r"\[([^\[\]{}]+)\]")
_NAMED = re.compile(r"\{([a-z_][a-z0-9_]*)(\*?)\}")
BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Auth(Enum):
    """Who may call a route; what that means is the authenticator's business."""

    NONE = "none"
    OPTIONAL = "optional"  # a user if there is a token, and nobody if there is none
    USER = "user"
    APPSERVICE = "appservice"
    FEDERATION = "federation"
    ADMINISTRATOR = "administrator"


class BodyKind(Enum):
    """What a route reads after the head."""

    NONE = "none"  # whatever is sent is thrown away
    JSON = "json"  # an object
    JSON_OR_EMPTY = "json or empty"  # clients that send nothing mean {}
    STREAM = "stream"  # raw bytes, piece by piece
    FORM = "form"  # application/x-www-form-urlencoded, on pages only


class Mount(Enum):
    """What runs a handler: our ASGI application itself, or Quart inside it."""

    ASGI = "asgi"
    QUART = "quart"


@frozen(kw_only=True)
class Route:
    """One endpoint; times in seconds, sizes in bytes."""

    method: str
    patterns: tuple[str, ...]
    handler: Handler
    auth: Auth
    guest_ok: bool
    body: BodyKind
    body_limit: int
    body_s: float
    json_limits: json.Limits
    rate: str | None
    mount: Mount | None
    cors: bool
    secret: bool  # answers carry a token: nothing on the way, nor the browser, may keep them


@frozen
class Found:
    """The route of a request, and its named segments, decoded."""

    route: Route
    values: dict[str, str]


@frozen
class WrongMethod:
    """The path exists, with other methods."""

    allowed: tuple[str, ...]


# By method: the route of a pattern, and the names of its named segments in order.
_Ends = dict[str, tuple[Route, tuple[str, ...]]]


class _Node:
    """A segment in the tree of all patterns."""

    __slots__ = ("ends", "literals", "named", "rests")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.named: _Node | None = None
        self.ends: _Ends = {}
        # Patterns that go on from here with any number of segments.
        self.rests: _Ends = {}


class RouteTable:
    """All routes of a module, or of the server."""

    def __init__(self) -> None:
        self._routes: list[Route] = []
        self._root = _Node()

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def __len__(self) -> int:
        return len(self._routes)

    def add(
        self,
        method: str,
        *patterns: str,
        handler: Handler,
        auth: Auth,
        guest_ok: bool = False,
        body: BodyKind | None = None,
        body_limit: int | None = None,
        body_s: float | None = None,
        rate: str | None = None,
        mount: Mount | None = None,
        cors: bool = True,
        secret: bool = False,
    ) -> Route:
        """Declare a route. TypeError for an incomplete declaration, ValueError for a wrong one.

        Left out, `body` is JSON for POST and PUT and nothing for other methods, and limits are
        those of the kind of authentication. `mount` is the table's default unless given.
        """
        if not isinstance(auth, Auth):
            raise TypeError(f"{method} {patterns}: a route declares its authentication")
        if body is None:
            body = BodyKind.JSON if method in ("POST", "PUT") else BodyKind.NONE
        if body is BodyKind.STREAM and (body_limit is None or mount is Mount.QUART):
            # Quart buffers whatever arrives, as fast as it arrives.
            raise TypeError(f"{method} {patterns}: a stream needs a limit, and goes without Quart")
        if method not in METHODS or not patterns:
            raise ValueError(f"{method} {patterns}: not a method, or no path")
        times = bounds.Bounds()
        default_s = times.stream_body_s if body is BodyKind.STREAM else times.json_body_s
        route = Route(
            method=method,
            patterns=patterns,
            handler=handler,
            auth=auth,
            guest_ok=guest_ok,
            body=body,
            body_limit=_default_limit(auth) if body_limit is None else body_limit,
            body_s=default_s if body_s is None else body_s,
            json_limits=json.FEDERATION if auth is Auth.FEDERATION else json.CLIENT,
            rate=rate,
            mount=mount,
            cors=cors,
            secret=secret,
        )
        self._insert(route)
        return route

    def get(self, *patterns: str, auth: Auth, **declared: Any) -> Callable[[H], H]:
        """Declare a GET route, which answers HEAD as well."""
        return self._decorator("GET", patterns, auth, declared)

    def post(self, *patterns: str, auth: Auth, **declared: Any) -> Callable[[H], H]:
        """Declare a POST route."""
        return self._decorator("POST", patterns, auth, declared)

    def put(self, *patterns: str, auth: Auth, **declared: Any) -> Callable[[H], H]:
        """Declare a PUT route."""
        return self._decorator("PUT", patterns, auth, declared)

    def delete(self, *patterns: str, auth: Auth, **declared: Any) -> Callable[[H], H]:
        """Declare a DELETE route."""
        return self._decorator("DELETE", patterns, auth, declared)

    def include(self, other: RouteTable) -> None:
        """Add all routes of another table."""
        for route in other:
            self._insert(route)

    def alias(self, prefix: str, name: str, of: str) -> None:
        """Let a literal segment after a prefix stand for another: old clients say r0 for v3."""
        node = self._root
        for segment in prefix.split("/")[1:]:
            node = node.literals[segment]
        if name in node.literals:
            raise ValueError(f"{prefix}/{name} is declared already")
        node.literals[name] = node.literals[of]

    def find(self, method: str, raw_path: str) -> Found | WrongMethod | None:
        """The route for a path as it came; None for a path that nobody declared.

        Raises InvalidParam where a named segment is not percent-encoded UTF-8.
        """
        segments = raw_path.split("/")
        node = self._root
        taken = []
        for at in range(1, len(segments)):
            child = node.literals.get(segments[at])
            if child is None:
                child = node.named
                if child is None or not segments[at]:
                    return self._find_slowly(method, segments)
                taken.append(at)
            node = child
        end = node.ends.get(method)
        if end is None:
            return self._find_slowly(method, segments)
        route, names = end
        return Found(
            route, {name: _decoded(segments[at]) for name, at in zip(names, taken, strict=True)}
        )

    def _find_slowly(self, method: str, segments: list[str]) -> Found | WrongMethod | None:
        """Look at every way to read the path, for the method and then for any method."""
        readings = self._readings(segments)
        for ends, taken, rest in readings:
            end = ends.get(method) or (ends.get("GET") if method == "HEAD" else None)
            if end is not None:
                route, names = end
                found = [_decoded(segments[at]) for at in taken]
                if rest is not None:
                    found.append("/".join(map(_decoded, segments[rest:])))
                return Found(route, dict(zip(names, found, strict=True)))
        allowed = {method for ends, _, _ in readings for method in ends}
        if not allowed:
            return None
        if "GET" in allowed:
            allowed.add("HEAD")
        return WrongMethod(tuple(sorted(allowed | {"OPTIONS"})))

    def _readings(self, segments: list[str]) -> list[tuple[_Ends, tuple[int, ...], int | None]]:
        """All ends in the tree that the path reaches, the most literal first.

        With each come the positions of its named segments, and where its rest starts if it has one.
        """
        level: list[tuple[_Node, tuple[int, ...]]] = [(self._root, ())]
        rests: list[tuple[_Ends, tuple[int, ...], int | None]] = []
        for at in range(1, len(segments)):
            rests[:0] = [(node.rests, taken, at) for node, taken in level if node.rests]
            segment = segments[at]
            further = []
            for node, taken in level:
                literal = node.literals.get(segment)
                if literal is not None:
                    further.append((literal, taken))
                if node.named is not None and segment:
                    further.append((node.named, (*taken, at)))
            level = further
        whole: list[tuple[_Ends, tuple[int, ...], int | None]] = [
            (node.ends, taken, None) for node, taken in level if node.ends
        ]
        none_left = [(node.rests, taken, len(segments)) for node, taken in level if node.rests]
        return whole + none_left + rests

    def _decorator(
        self, method: str, patterns: tuple[str, ...], auth: Auth, declared: dict[str, Any]
    ) -> Callable[[H], H]:
        def declare(handler: H) -> H:
            self.add(method, *patterns, handler=handler, auth=auth, **declared)
            return handler

        return declare

    def _insert(self, route: Route) -> None:
        for pattern in route.patterns:
            for segments in _expanded(pattern):
                self._insert_path(route, segments, pattern)
        self._routes.append(route)

    def _insert_path(self, route: Route, segments: tuple[str, ...], pattern: str) -> None:
        node = self._root
        names: list[str] = []
        is_rest = False
        for segment in segments:
            named = _NAMED.fullmatch(segment)
            if is_rest or (named is None and _LITERAL.fullmatch(segment) is None):
                raise ValueError(f"{pattern}: {segment!r} cannot stand here")
            if named is None:
                node = node.literals.setdefault(segment, _Node())
            else:
                names.append(named[1])
                is_rest = named[2] == "*"
                if not is_rest:
                    if node.named is None:
                        node.named = _Node()
                    node = node.named
        ends = node.rests if is_rest else node.ends
        if route.method in ends or len(set(names)) < len(names):
            raise ValueError(f"{route.method} {pattern}: declared twice, or a name used twice")
        ends[route.method] = (route, tuple(names))


def _expanded(pattern: str) -> Iterator[tuple[str, ...]]:
    """The segments of every path form that a pattern stands for."""
    if not pattern.startswith("/"):
        raise ValueError(f"{pattern}: a pattern starts with a slash")
    optional_slash = pattern.endswith("/?")
    segments = pattern.removesuffix("/?").split("/")[1:]
    choices = [
        tuple(match[1].split("|")) if (match := _ALTERNATIVES.fullmatch(segment)) else (segment,)
        for segment in segments
    ]
    for chosen in product(*choices):
        yield chosen
        if optional_slash:
            yield (*chosen, "")


def _default_limit(auth: Auth) -> int:
    if auth in (Auth.NONE, Auth.OPTIONAL):
        return bounds.BODY_UNAUTHENTICATED
    return bounds.BODY_FEDERATION if auth is Auth.FEDERATION else bounds.BODY_CLIENT


def _decoded(segment: str) -> str:
    """One segment, decoded once as strict UTF-8; `+` stays what it is."""
    if "%" not in segment:
        return segment
    if BROKEN_PERCENT.search(segment) is not None:
        raise InvalidParam("The path is not percent-encoded as it must be")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise InvalidParam("The path is not UTF-8") from error
