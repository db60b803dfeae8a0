"""What a push gateway is told for the readers, each of whom has a pusher (T105, T111)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import trio
from attrs import define, field

from matrixbox.push.sender import PushSender
from matrixbox.serve.base import Base

URL = "https://push.test/_matrix/push/v1/notify"


@define
class Pushed:
    """A gateway that takes everything; the notifications by the pusher's key."""

    taken: dict[str, list[Mapping[str, Any]]] = field(factory=dict)

    async def notify(self, url: str, body: bytes) -> frozenset[str]:
        """See ``matrixbox.push.gateway.Gateway``."""
        assert url == URL
        told = json.loads(body)["notification"]
        for device in told["devices"]:
            self.taken.setdefault(device["pushkey"], []).append(told)
        return frozenset()

    def start(self, nursery: trio.Nursery, base: Base) -> None:
        """Begin to push."""
        nursery.start_soon(PushSender(base.store, base.env, self).run)


def pusher(key: str) -> dict[str, Any]:
    """What a client asks for to be told whole events."""
    return {
        "kind": "http",
        "app_id": "net.example",
        "app_display_name": "An example",
        "device_display_name": "A phone",
        "pushkey": key,
        "lang": "en",
        "data": {"url": URL},
    }
