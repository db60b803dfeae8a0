"""Is the server well: notices to systemd, pauses of the event loop, and parts that do not work.

systemd: `sd_notify` of sd_notify(3), without a library: READY=1, STOPPING=1 and WATCHDOG=1, the
last sent by the loop itself, so that a loop that hangs is killed and started again (threats T170).
Pauses: a step of a task that keeps the loop for longer than 50 ms is logged with the task's name
(T079). Parts: what is broken at the start does not stop the rest, and is told (T151).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Self

import trio

from matrixbox.observe import log

PAUSE_S = 0.05
"""A step that takes longer than this holds up everybody and is logged."""

PAUSE_LOG_EVERY_S = 1.0
"""Pauses closer together than this are counted and told with the next line."""


class Notifier:
    """Tells systemd how the service is doing; does nothing when systemd did not start it."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        self._address = address
        self.watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """As $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID say."""
        watchdog_s = None
        usec = environment.get("WATCHDOG_USEC", "")
        if usec.isdigit() and environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            watchdog_s = int(usec) / 1_000_000
        return cls(environment.get("NOTIFY_SOCKET") or None, watchdog_s)

    def ready(self) -> None:
        """Listening, and the database is open."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The orderly stop has begun."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("STATUS=" + text.replace("\n", " "))

    async def feed_watchdog(self) -> None:
        """Tell systemd, from the loop, that the loop turns; returns at once if it does not ask."""
        if self._address is None or not self.watchdog_s:
            return
        while True:
            self._send("WATCHDOG=1")
            await trio.sleep(self.watchdog_s / 3)

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        # "@" stands for the NUL byte of an abstract address.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.setblocking(False)
                out.sendto(message.encode(), address)
        except OSError as failure:
            # systemd being away is no reason to stop; it will act on the missing message itself.
            log.warning("sd_notify failed", reason=failure.strerror)


class LoopWatch(trio.abc.Instrument):
    """Logs every step of a task that keeps the event loop longer than `PAUSE_S`.

    Install with `trio.lowlevel.add_instrument`. `worst_s` is the longest step since `reset`.
    """

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._started = time.perf_counter()
        self._last_told = -PAUSE_LOG_EVERY_S
        self._untold = 0

    def reset(self) -> float:
        """The longest step so far in seconds; starts counting anew."""
        worst, self.worst_s = self.worst_s, 0.0
        return worst

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio is about to run a step of `task`."""
        self._started = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """The step is over."""
        now = time.perf_counter()
        took = now - self._started
        self.worst_s = max(self.worst_s, took)
        if took < PAUSE_S:
            return
        if now - self._last_told < PAUSE_LOG_EVERY_S:
            self._untold += 1
            return
        log.warning(
            "loop paused", task=task.name, took_ms=round(took * 1000), not_told=self._untold
        )
        self._last_told, self._untold = now, 0


class Parts:
    """Which parts of the server do not work, and why."""

    def __init__(self) -> None:
        self._broken: dict[str, str] = {}

    def broken(self, part: str, reason: str) -> None:
        """`part` does not work; the rest goes on without it."""
        if self._broken.get(part) != reason:
            log.warning("part broken", part=part, reason=reason)
        self._broken[part] = reason

    def works(self, part: str) -> None:
        """`part` works, or works again."""
        if self._broken.pop(part, None) is not None:
            log.info("part works again", part=part)

    def problems(self) -> dict[str, str]:
        """Reasons by part."""
        return dict(self._broken)
