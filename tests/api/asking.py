"""Ask an ASGI application in process, as the front door would."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import trio
from attrs import frozen

from matrixbox.api.asgi import Application


@frozen
class Got:
    """An answer; `status` is None when there was none."""

    status: int | None
    headers: dict[str, str]
    body: bytes
    is_whole: bool

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


async def ask(
    app: Application,
    method: str,
    target: str,
    *,
    headers: Iterable[tuple[str, str]] = (),
    pieces: Iterable[bytes] = (),
    hangs_up: bool = False,
    address: str = "192.0.2.1",
) -> Got:
    """One request; with `hangs_up` the client goes away after the pieces."""
    raw_path, _, query = target.encode("latin-1").partition(b"?")
    waiting = list(pieces) or [b""]
    sent: list[Any] = []
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": raw_path.decode("latin-1"),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        "client": (address, 1234),
        "server": ("192.0.2.2", 8008),
        "state": {},
        "extensions": {},
    }

    async def receive() -> Any:
        if waiting:
            more = len(waiting) > 1 or hangs_up
            return {"type": "http.request", "body": waiting.pop(0), "more_body": more}
        if hangs_up:
            return {"type": "http.disconnect"}
        return await trio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if not sent:
        return Got(None, {}, b"", False)
    return Got(
        sent[0]["status"],
        {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]},
        b"".join(message["body"] for message in sent[1:]),
        len(sent) > 1 and not sent[-1].get("more_body", False),
    )
