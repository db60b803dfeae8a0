"""The certificate of the TLS listeners, read from files, and again when they change.

Who renews certificates writes new files; the next connections get them without a restart (T061).
Files that cannot be used stop nothing: the last usable certificate stays, and while there was none
every TLS handshake fails and the other listeners go on (T151).
"""

from __future__ import annotations

import ssl
from pathlib import Path

import trio
from attrs import define, field

from matrixbox.api.listener import new_server_context
from matrixbox.observe.health import Parts

LOOK_EVERY_S = 60.0
PART = "certificate"

Stamp = tuple[tuple[int, int, int] | None, ...]


@define(eq=False)
class Certificate:
    """What new TLS connections are served with."""

    chain: Path
    key: Path
    parts: Parts
    context: ssl.SSLContext = field(factory=new_server_context, init=False)
    _stamp: Stamp | None = field(default=None, init=False)

    def look(self) -> None:
        """Read the files if they changed since the last look; what is wrong is told to `parts`."""
        stamp = (_stamp(self.chain), _stamp(self.key))
        if stamp == self._stamp:
            return
        self._stamp = stamp
        context = new_server_context()
        try:
            context.load_cert_chain(self.chain, self.key, password=_no_password)
        except ssl.SSLError as error:
            why = error.reason or "not readable"
            self.parts.broken(PART, f"{self.chain} and {self.key}: {why}")
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            self.parts.broken(PART, f"{self.chain} or {self.key}: {why}")
        else:
            self.context = context
            self.parts.works(PART)

    async def run(self) -> None:
        """Look at the files once a minute."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            self.look()


def _no_password() -> str:
    raise ValueError("the key needs a password, which nobody is there to type")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file, also when another one is put in its place."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
