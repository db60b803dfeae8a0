"""Names that the machine knows without the DNS: the hosts file and the system's own resolver."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import trio

from matrixbox.net.guard import IPAddress, parse_host

HOSTS_FILE = Path("/etc/hosts")
MAX_FILE_BYTES = 1024 * 1024
LOOK_AGAIN_S = 5.0
"""How often to see whether the file has changed."""


class HostsFile:
    """The hosts file, read again when it has changed; unreadable lines are passed over."""

    def __init__(self, path: Path = HOSTS_FILE) -> None:
        self._path = path
        self._looked_s = float("-inf")
        self._stamp: tuple[int, int] | None = None
        self._names: Mapping[str, tuple[IPAddress, ...]] = {}

    def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """The addresses of a name in lower case; none when the file does not have it."""
        now = trio.current_time()
        if now - self._looked_s >= LOOK_AGAIN_S:
            self._looked_s = now
            self._look()
        return self._names.get(name, ())

    def _look(self) -> None:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._names = _read(self._path)
                self._stamp = stamp
        except OSError:
            self._names, self._stamp = {}, None  # a machine may well have no such file


def _read(path: Path) -> dict[str, tuple[IPAddress, ...]]:
    with path.open("rb") as file:
        text = file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
    found: dict[str, tuple[IPAddress, ...]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2:
            continue
        try:
            address = ip_address(words[0])
        except ValueError:
            continue
        for name in words[1:]:
            known = found.get(name.lower(), ())
            if address not in known:
                found[name.lower()] = (*known, address)
    return found


_threads = trio.CapacityLimiter(4)  # the system's resolver may hang for long


async def ask_system(name: str) -> tuple[IPAddress, ...]:
    """What the system's resolver says (search lists, multicast DNS, directories); may be nothing.

    The thread is left behind when the caller is cancelled.
    """
    parse_host(name)  # never anything that getaddrinfo would read as a number (T053)

    def ask() -> tuple[IPAddress, ...]:
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return ()
        plain = (str(entry[4][0]) for entry in found)
        return tuple(dict.fromkeys(ip_address(text) for text in plain if "%" not in text))

    return await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=_threads)
