"""A request's body: within its limit, and in memory only while it is small.

Threats T076, T078: what many peers send at the same time must not add up in memory. A body above a
quarter of a megabyte goes to an unnamed file as it comes, and is read back in one piece by a thread
that parses it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

import trio

T = TypeVar("T")


class Spool:
    """Bytes that are collected in memory, and on disk once there are many."""

    def __init__(self, over_bytes: int, folder: Path | None) -> None:
        self._over_bytes = over_bytes
        self._folder = folder
        self._pieces: list[bytes] = []
        self._in_memory = 0
        self._file: IO[bytes] | None = None
        self.size = 0

    async def __aenter__(self) -> Spool:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            # An unnamed file: closing frees its space, and takes no time worth a thread.
            self._file.close()

    async def add(self, piece: bytes) -> None:
        """Keep one more piece; raises OSError when the disk does not take it."""
        self._pieces.append(piece)
        self.size += len(piece)
        self._in_memory += len(piece)
        if self._in_memory > self._over_bytes:
            await trio.to_thread.run_sync(self._write_out)

    async def read(self, read: Callable[[bytes], T]) -> T:
        """What `read` makes of all bytes, in a thread if they are many."""
        if self._file is None:
            return read(b"".join(self._pieces))
        return await trio.to_thread.run_sync(self._read_back, read)

    def _write_out(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 closed on exit
        self._file.writelines(self._pieces)
        self._pieces.clear()
        self._in_memory = 0

    def _read_back(self, read: Callable[[bytes], T]) -> T:
        self._write_out()
        assert self._file is not None
        self._file.seek(0)
        return read(self._file.read())
