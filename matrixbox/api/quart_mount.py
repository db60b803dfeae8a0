"""Routes on Quart: the application that runs the handlers of routes mounted there.

One catch-all view runs the same steps and the same handlers as our own ASGI application. Quart is
given the request without its body: it would take in whatever arrives, as fast as it arrives, while
the handler reads from the connection at its own pace. What the mount costs is measured by
`python -m tests.bench.door`.
"""

from __future__ import annotations

from typing import cast

import trio
from quart import Response as QuartResponse
from quart import request
from quart_trio import QuartTrio
from werkzeug.datastructures import Headers

from matrixbox.api.answers import Response, all_headers
from matrixbox.api.asgi import Application
from matrixbox.api.call import Call
from matrixbox.api.exchange import AsgiApp, Message, Receive, Send

_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]


def mount(application: Application) -> AsgiApp:
    """Quart around `application`'s handlers."""
    quart = QuartTrio(__name__, static_folder=None)
    quart.config["RESPONSE_TIMEOUT"] = None  # the guard bounds how long an answer may take
    quart.url_map.merge_slashes = False

    async def view(path: str = "") -> QuartResponse:
        scope = cast(Message, request.scope)
        call: Call = scope["matrixbox.call"]
        response = await application.answer(call)
        if response is None:
            scope["matrixbox.gone"].set()
            await trio.sleep_forever()
        return _quart_response(response)

    quart.add_url_rule("/", "root", view, methods=_METHODS, provide_automatic_options=False)
    quart.add_url_rule(
        "/<path:path>", "any", view, methods=_METHODS, provide_automatic_options=False
    )

    serve = cast(AsgiApp, quart)

    async def run(scope: Message, receive: Receive, send: Send) -> None:
        gone = scope["matrixbox.gone"] = trio.Event()
        await serve(scope, _NoBody(gone).receive, send)

    return run


class _NoBody:
    """What Quart receives: an empty body, and the news that nobody is to be answered."""

    def __init__(self, gone: trio.Event) -> None:
        self._gone = gone
        self._given = False

    async def receive(self) -> Message:
        """ASGI `receive`."""
        if not self._given:
            self._given = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}


def _quart_response(response: Response) -> QuartResponse:
    headers = Headers(
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in all_headers(response)]
    )
    answer = QuartResponse(response.body, response.status, headers)
    answer.timeout = None
    return answer
