"""A small server for attacks: test routes through the real front door, in a process of its own.

    python -m tests.live.door_app --kind door --port 8008 --bounds '{"head_s": 1}' --certificate F

Prints one line of JSON when it listens: its plain and TLS ports. `--kind hypercorn` serves the same
routes by Hypercorn as it comes, `--kind quart` one route of a plain Quart application: the negative
controls, which the attacks must bring down where ours stands.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import signal
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

import hypercorn.trio
import trio
from attrs import define, field
from hypercorn.config import Config
from quart_trio import QuartTrio

from matrixbox.api.admission import HOME_NETWORKS, Admission, IpNetwork
from matrixbox.api.answers import Response
from matrixbox.api.app import make_quart
from matrixbox.api.asgi import Application
from matrixbox.api.bounds import BODY_FEDERATION_SEND, MIB, Bounds
from matrixbox.api.call import Answer, Call
from matrixbox.api.exchange import AsgiApp
from matrixbox.api.listener import Bind, Door, new_server_context
from matrixbox.api.routes import Auth, BodyKind, Mount, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden, UnknownToken
from matrixbox.observe import log

BIG = b"x" * (8 * MIB)
TICK_S = 0.01

routes = RouteTable()


@define
class Watched:
    """What the tests ask about afterwards."""

    counts: Counter[str] = field(factory=Counter)
    worst_pause_ms: float = 0.0
    connections: Callable[[], int] = int

    async def tick(self) -> None:
        """Notice when the loop is held up (T079)."""
        while True:
            before = trio.current_time()
            await trio.sleep(TICK_S)
            pause_ms = (trio.current_time() - before - TICK_S) * 1000
            self.worst_pause_ms = max(self.worst_pause_ms, pause_ms)


@routes.get("/_matrix/client/versions", auth=Auth.NONE)
async def versions(call: Call) -> Answer:
    """The normal client's question."""
    return {"versions": ["v1.19"]}


@routes.get("/_test/watched", auth=Auth.NONE)
async def watched(call: Call) -> Answer:
    """Counts, and the worst pause since the last question."""
    seen: Watched = call.services
    pause, seen.worst_pause_ms = seen.worst_pause_ms, 0.0
    counts: dict[str, Json] = dict(seen.counts)
    return {"counts": counts, "worst_pause_ms": pause, "connections": seen.connections()}


@routes.post("/_test/echo", auth=Auth.NONE)
async def echo(call: Call) -> Answer:
    """The JSON body, back."""
    call.services.counts["echo"] += 1
    return await call.json()


@routes.post("/_test/large", auth=Auth.NONE, body_limit=BODY_FEDERATION_SEND)
async def large(call: Call) -> Answer:
    """The size of a large JSON body."""
    return {"keys": len(await call.json())}


@routes.get("/_test/named/{name}/end", auth=Auth.NONE)
async def named(call: Call) -> Answer:
    """A path's segment as it was understood."""
    return {"name": call.path["name"], "target": call.raw_path}


@routes.get("/_test/big", auth=Auth.NONE)
async def big(call: Call) -> Answer:
    """8 MiB in one piece."""
    return Response(body=BIG)


@routes.get("/_test/big_stream", auth=Auth.NONE)
async def big_stream(call: Call) -> Answer:
    """64 MiB, piece by piece; counts what was produced."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(1024):
            call.services.counts["produced"] += 1
            yield BIG[: 64 * 1024]

    return Response(body=pieces())


@routes.get("/_test/poll", auth=Auth.NONE)
async def poll(call: Call) -> Answer:
    """A long poll."""
    call.services.counts["polls"] += 1
    try:
        async with call.waiting(float(call.param("seconds") or 30)) as scope:
            await trio.sleep_forever()
        return {"ended": "early" if trio.current_time() < scope.deadline else "late"}
    except trio.Cancelled:
        call.services.counts["polls cancelled"] += 1
        raise


@routes.get("/_test/slow", auth=Auth.NONE)
async def slow(call: Call) -> Answer:
    """A handler at work, holding its slot."""
    call.services.counts["slow"] += 1
    try:
        await trio.sleep(float(call.param("seconds") or 5))
    except trio.Cancelled:
        call.services.counts["slow cancelled"] += 1
        raise
    return {}


@routes.put("/_test/upload", auth=Auth.NONE, body=BodyKind.STREAM, body_limit=50 * MIB, body_s=4)
async def upload(call: Call) -> Answer:
    """Takes a stream, after `wait` seconds without reading."""
    call.services.counts["uploads"] += 1
    await trio.sleep(float(call.param("wait") or 0))
    size = 0
    async for piece in call.stream():
        size += len(piece)
    return {"size": size}


@routes.post("/_test/ignore", auth=Auth.NONE, body_limit=50 * MIB)
async def ignore(call: Call) -> Answer:
    """Answers without reading its body."""
    return {}


@routes.get("/_test/bug", auth=Auth.NONE)
async def bug(call: Call) -> Answer:
    """Fails."""
    raise RuntimeError("a bug")


@routes.get("/_test/breaks", auth=Auth.NONE)
async def breaks(call: Call) -> Answer:
    """Fails halfway through its answer."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("a bug")

    return Response(body=pieces())


@routes.get("/_test/forbidden", auth=Auth.NONE)
async def forbidden(call: Call) -> Answer:
    """May not."""
    raise Forbidden("No")


@routes.get("/_test/who", auth=Auth.USER)
async def who(call: Call) -> Answer:
    """Needs a token."""
    return {"user_id": call.requester}


@routes.get("/_test/quart/{name}", auth=Auth.NONE, mount=Mount.QUART)
async def on_quart(call: Call) -> Answer:
    """Through Quart."""
    return {"name": call.path["name"]}


@routes.post("/_test/quart_echo", auth=Auth.NONE, mount=Mount.QUART)
async def quart_echo(call: Call) -> Answer:
    """Through Quart, with a body."""
    return await call.json()


def authenticate(call: Call) -> str:
    """Any bearer is a user of that name."""
    scheme, _, token = (call.header("authorization") or "").partition(" ")
    if scheme != "Bearer" or not token:
        raise UnknownToken
    call.spender = token
    return token


def plain_quart() -> AsgiApp:
    """An application as Quart's documentation shows it."""
    quart = QuartTrio(__name__)

    @quart.get("/_matrix/client/versions")
    async def versions() -> dict[str, list[str]]:
        return {"versions": ["v1.19"]}

    return cast(AsgiApp, quart)


def make_application(
    seen: Watched, bounds: Bounds, on_household: Callable[[str], None] = lambda address: None
) -> Application:
    """The application with the test routes."""
    return Application(
        routes,
        services=seen,
        authenticators={Auth.USER: authenticate},
        bounds=bounds,
        quart=make_quart,
        on_household=on_household,
    )


async def serve_door(arguments: argparse.Namespace, seen: Watched) -> None:
    """Serve until SIGTERM, then stop in good order."""
    bounds = Bounds(**json.loads(arguments.bounds))
    home: tuple[IpNetwork, ...] = HOME_NETWORKS
    if arguments.home:
        home = (ipaddress.ip_network(arguments.home),)
    admission = Admission(bounds, clock=trio.current_time, home=home)
    app = make_application(seen, bounds, on_household=admission.remember)
    context = load_context(arguments.certificate)
    door = Door(
        app,
        [Bind(arguments.host, arguments.port), Bind(arguments.host, 0, tls=lambda: context)],
        bounds=bounds,
        admission=admission,
        tell_stopping=app.turns.waiting.stop,
    )
    seen.connections = lambda: door.connections
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(seen.tick)
            addresses = await nursery.start(door.run)
            announce([port for _, port in addresses])
            async for number in signals:
                if number == signal.SIGHUP:
                    with suppress(ssl.SSLError):
                        # Replaced between the certificate and the key: the old pair goes on.
                        context = load_context(arguments.certificate)
                else:
                    await door.stop()
                    break
            nursery.cancel_scope.cancel()


async def serve_hypercorn(arguments: argparse.Namespace, seen: Watched) -> None:
    """Serve by Hypercorn as it comes."""
    app = plain_quart() if arguments.kind == "quart" else make_application(seen, Bounds())
    config = Config()
    config.bind = [f"{arguments.host}:{arguments.port}"]
    config.errorlog = None
    config.keep_alive_timeout = arguments.keep_alive
    serve = partial(hypercorn.trio.serve, app, config)  # type: ignore[arg-type]
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(seen.tick)
            async with trio.open_nursery() as serving:
                # Hypercorn gives the addresses that it has bound.
                bound = await serving.start(
                    partial(serve, shutdown_trigger=signals.__anext__)  # type: ignore[arg-type]
                )
                announce([int(address.rpartition(":")[2]) for address in bound])
            nursery.cancel_scope.cancel()


def load_context(pem: Path) -> ssl.SSLContext:
    """A new context: a pair that does not match must not reach the one in use."""
    context = new_server_context()
    context.load_cert_chain(pem)
    return context


def announce(ports: list[int]) -> None:
    """Tell the tests where we listen."""
    print(json.dumps({"ports": ports}), flush=True)


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("door", "hypercorn", "quart"), default="door")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bounds", default="{}", help="limits that differ, as JSON")
    parser.add_argument("--home", default="", help="the home network instead of the private ones")
    parser.add_argument("--certificate", type=Path, help="certificate and key in one PEM file")
    parser.add_argument("--keep-alive", type=float, default=5, help="Hypercorn's own timeout")
    parser.add_argument("--log", default="warning")
    arguments = parser.parse_args()
    log.configure(arguments.log)
    serve = serve_door if arguments.kind == "door" else serve_hypercorn
    trio.run(serve, arguments, Watched())
    sys.exit(0)


if __name__ == "__main__":
    main()
