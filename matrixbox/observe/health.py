"""Is the server well: notices to systemd, pauses of the event loop, and parts that do not work.

systemd: `sd_notify` of sd_notify(3), without a library: READY=1, STOPPING=1 and WATCHDOG=1, the
last sent by the loop itself, so that a loop that hangs is killed and started again (threats T170).
Pauses: what keeps the loop for longer than 50 ms is logged with the task's name (T079). Parts: what
is broken at the start does not stop the rest, and is told (T151).
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Self

import trio

from matrixbox.observe import log

PAUSE_S = 0.05
"""A round of the loop that takes longer than this holds up everybody and is logged."""

LOOK_EVERY_S = 0.05
LOOK_AT_SLEEP_EVERY_S = 0.2
LONG_ROUND_S = 0.02
"""A round that takes longer than one of the former and this is always looked at. A loop that sleeps
is left to sleep, unless a pause was missed in the last minute."""

EAGER_S = 60.0

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
    """Logs when the event loop was held up for longer than `PAUSE_S`, by whom and where.

    Install with `trio.lowlevel.add_instrument`. Looking at every step of every task would cost half
    as much again as the steps themselves, so the loop only notes when it begins and ends a round,
    and a thread looks, up to twenty times a second, who is at work in a round that takes long.
    """

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._round_since: float | None = None
        self._seen: tuple[float, dict[str, object]] | None = None
        self._last_told = -PAUSE_LOG_EVERY_S
        self._untold = 0
        self._eager_until = 0.0
        self._loop_thread = threading.get_ident()
        self._over = threading.Event()
        threading.Thread(target=self._look, name="observe.loop", daemon=True).start()

    def reset(self) -> float:
        """The longest round so far in seconds; starts counting anew."""
        worst, self.worst_s = self.worst_s, 0.0
        return worst

    def after_io_wait(self, timeout: float) -> None:
        """A round of tasks begins."""
        self._round_since = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        """The round is over."""
        since = self._round_since
        if since is None:
            return
        self._round_since = None
        took = time.perf_counter() - since
        if took > self.worst_s:  # noqa: PLR1730 - a call of max() costs more than all else here
            self.worst_s = took
        if took >= PAUSE_S:
            self._tell(since, took)

    def after_run(self) -> None:
        """The loop is over."""
        self._over.set()

    def _tell(self, since: float, took: float) -> None:
        if since - self._last_told < PAUSE_LOG_EVERY_S:
            self._untold += 1
            return
        fields = self._seen[1] if self._seen is not None and self._seen[0] == since else {}
        if not fields:
            self._eager_until = since + EAGER_S
        log.warning("loop paused", took_ms=round(took * 1000), not_told=self._untold, **fields)
        self._last_told, self._untold = since, 0

    def _look(self) -> None:
        """In a thread of its own: note who works in a round that takes long already."""
        wait_s = LOOK_EVERY_S
        while not self._over.wait(wait_s):
            since, now = self._round_since, time.perf_counter()
            is_asleep = since is None and now >= self._eager_until
            wait_s = LOOK_AT_SLEEP_EVERY_S if is_asleep else LOOK_EVERY_S
            if since is not None and now - since >= LONG_ROUND_S:
                frame = sys._current_frames().get(self._loop_thread)
                if frame is not None and since == self._round_since:
                    self._seen = (since, _at_work(frame))


def _at_work(frame: FrameType) -> dict[str, object]:
    """The task that runs, and the innermost place in this program that it is at."""
    found: dict[str, object] = {}
    for outer, line in traceback.walk_stack(frame):
        file = outer.f_code.co_filename
        if "place" not in found and "/matrixbox/" in file:
            found["place"] = f"{file.rpartition('/matrixbox/')[2]}:{line} {outer.f_code.co_name}"
        if file.endswith("trio/_core/_run.py") and outer.f_code.co_name == "unrolled_run":
            # Trio keeps the task that it runs in this variable; a test notices when it does not.
            found["task"] = getattr(outer.f_locals.get("task"), "name", "unknown")
            break
    return found


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
