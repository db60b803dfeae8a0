"""The ASGI application: from a request's raw target to its route, its handler and its answer.

Matrix v1.19, Client-Server API, "API standards", "Standard error response", "Web browser clients";
requirements C1.01-C1.07, B1.02-B1.04. The order is: find the route, refuse what is too large or
coded, take a slot, authenticate, take one of the requester's slots, handle. The same steps run for
routes that are mounted on Quart; only who calls the handler differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import CoroutineType
from typing import Any

import trio
from attrs import evolve

from matrixbox.api.answers import (
    JSON_HEADERS,
    PREFLIGHT_HEADERS,
    SECRET_HEADERS,
    Response,
    all_headers,
)
from matrixbox.api.bounds import Bounds
from matrixbox.api.call import (
    Answer,
    Call,
    ClientGone,
    Surroundings,
    UnsupportedMediaType,
)
from matrixbox.api.errors import bug_response, error_response, only_matrix_error, wrong_method
from matrixbox.api.exchange import AsgiApp, Message, Receive, Send
from matrixbox.api.routes import (
    Auth,
    BodyKind,
    Found,
    Mount,
    Route,
    RouteTable,
    WrongMethod,
)
from matrixbox.api.slots import Turns
from matrixbox.core import json
from matrixbox.errors import InvalidParam, MatrixError, TooLarge, Unrecognized
from matrixbox.observe import log

Authenticator = Callable[[Call], Any]
"""Returns the requester, or an awaitable of it; raises a MatrixError."""
RateLimit = Callable[[Call], None]
"""Raises LimitExceeded; called when the requester is known."""

_PREFLIGHT = Response(204, headers=PREFLIGHT_HEADERS, cors=False)
_WITHOUT_LENGTH = frozenset({204, 304})
_CLEAN_UP_S = 5
_HOUSEHOLD = frozenset({Auth.USER, Auth.ADMINISTRATOR})


class Application:
    """The server's ASGI application, made from one table of routes."""

    def __init__(
        self,
        routes: RouteTable,
        *,
        services: object,
        authenticators: Mapping[Auth, Authenticator],
        rate_limits: Mapping[str, RateLimit] | None = None,
        bounds: Bounds | None = None,
        spool_folder: Path | None = None,
        default_mount: Mount = Mount.ASGI,
        quart: Callable[[Application], AsgiApp] | None = None,
        on_household: Callable[[str], None] = lambda address: None,
    ) -> None:
        """Put the table to work; ValueError where a route needs something that is not given.

        `on_household` is told the address of every request whose user has been authenticated.
        `quart` makes the application for routes mounted on Quart.
        """
        self.bounds = bounds or Bounds()
        self.turns = Turns(self.bounds)
        self.shared = Surroundings(services, self.bounds, self.turns, spool_folder)
        self._routes = routes
        self._authenticators = dict(authenticators)
        self._rate_limits = dict(rate_limits or {})
        self._on_household = on_household
        self._default_mount = default_mount
        for route in routes:
            if route.auth is not Auth.NONE and route.auth not in self._authenticators:
                raise ValueError(f"{route.patterns}: nothing authenticates {route.auth.value}")
            if route.rate is not None and route.rate not in self._rate_limits:
                raise ValueError(f"{route.patterns}: no rate limit is called {route.rate}")
        self._quart: AsgiApp | None = None
        if any(self._mount_of(route) is Mount.QUART for route in routes):
            if quart is None:
                raise ValueError("there are routes for Quart, but no Quart")
            self._quart = quart(self)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; raises nothing but cancellation."""
        if scope["type"] != "http":
            return await _refuse_scope(scope, receive, send)
        found = self._find(scope)
        if isinstance(found, Response):
            return await send_response(found, send, method=scope["method"])
        call = Call(self.shared, found, scope, receive)
        try:
            if self._mount_of(found.route) is Mount.QUART:
                # Quart gets the request without its body, which the handler reads from here.
                assert self._quart is not None
                scope["matrixbox.call"] = call
                return await self._quart(scope, receive, send)
            response = await self.answer(call)
            if response is not None:
                await send_response(response, send, method=scope["method"])
        finally:
            call.answered()
        return None

    async def answer(self, call: Call) -> Response | None:
        """Run the request's handler; None when the client is gone or broke the protocol."""
        with log.request(log.new_id()):
            try:
                _check_head(call)
                await call.turn.begin()
                return _response_of(await self._handle(call), call.route)
            except ClientGone:
                return None
            except Exception as error:  # noqa: BLE001 one request fails alone
                known = only_matrix_error(error)
                if known is None:
                    return bug_response(error, route=f"{call.method} {call.route.patterns[0]}")
                return error_response(known)
            finally:
                call.turn.end()

    async def _handle(self, call: Call) -> Answer:
        route = call.route
        authenticate = self._authenticators.get(route.auth)
        if authenticate is not None:
            requester = authenticate(call)
            if isinstance(requester, CoroutineType):
                requester = await requester
            call.requester = requester
            if route.auth in _HOUSEHOLD:
                self._on_household(call.address)
            if call.spender is not None:
                is_server = route.auth is Auth.FEDERATION
                await call.turn.charge(call.spender, is_server=is_server)
        if route.rate is not None:
            self._rate_limits[route.rate](call)
        answer: Answer = await route.handler(call)
        return answer

    def _mount_of(self, route: Route) -> Mount:
        if route.body is BodyKind.STREAM:
            return route.mount or Mount.ASGI
        return route.mount or self._default_mount

    def _find(self, scope: Message) -> Found | Response:
        method = scope["method"]
        if method == "OPTIONS":
            # Whatever the path: browsers ask before they learn that there is nothing [C1.04].
            return _PREFLIGHT
        try:
            found = self._routes.find(method, scope["raw_path"].decode("ascii"))
        except UnicodeDecodeError:
            return error_response(InvalidParam("The path is not ASCII"))
        except MatrixError as error:
            return error_response(error)
        if found is None:
            return error_response(Unrecognized())
        return wrong_method(found.allowed) if isinstance(found, WrongMethod) else found


def _check_head(call: Call) -> None:
    """Refuse by the head alone what will be refused anyway, before anything is spent on it."""
    if call.header("content-encoding") is not None:
        raise UnsupportedMediaType("Bodies are not decoded here")
    length = call.header("content-length")
    if length is not None and int(length) > call.route.body_limit and call.reads_body:
        raise TooLarge("The body is too large")


def _response_of(answer: Answer, route: Route) -> Response:
    headers = SECRET_HEADERS if route.secret else ()
    if isinstance(answer, Response):
        return evolve(answer, headers=answer.headers + headers) if headers else answer
    return Response(200, json.encode(answer), JSON_HEADERS + headers)


async def send_response(response: Response, send: Send, *, method: str) -> None:
    """Send an answer; one that breaks off halfway is left unfinished, which ends the connection."""
    headers = all_headers(response)
    body = response.body
    if isinstance(body, bytes):
        if response.status not in _WITHOUT_LENGTH:
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    try:
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if method != "HEAD":
            async for piece in body:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except Exception as error:  # noqa: BLE001 one request fails alone
        log.bug("answer broke off", error)
    finally:
        close = getattr(body, "aclose", None)
        if close is not None:
            with trio.CancelScope(shield=True), trio.move_on_after(_CLEAN_UP_S):
                await close()


async def _refuse_scope(scope: Message, receive: Receive, send: Send) -> None:
    """What is not HTTP: the start and end of a life, for other servers than ours, or refused."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
