"""What happens when the disk is full.

On a full disk even DELETE fails, so a file of reserved space lies beside the database (T144). The
first write that finds no space fails, and the reserve is given up: writing goes on in that room.
When three quarters of it are used, writes are refused without touching the disk, so that the last
checkpoint, the log and an orderly stop still have some. Once there is space for a whole reserve
again, it is made anew and writing goes on by itself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from matrixbox.observe import log
from matrixbox.store.errors import StoreReadOnly

RESERVE_BYTES = 64 * 1024 * 1024
SMALLEST_MARGIN_BYTES = 1024 * 1024


class Space(Enum):
    """How much room there is for writing."""

    ENOUGH = "enough"
    RESERVE = "reserve"  # the reserve is given up and being used
    NONE = "none"  # writes are refused


class DiskSpace:
    """Keeps the reserve file, and says whether a write may be tried."""

    def __init__(
        self,
        database: Path | None,
        size_bytes: int = RESERVE_BYTES,
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._folder = None if database is None else database.parent
        self._reserve: Path | None = None
        if database is not None and size_bytes:
            self._reserve = database.with_name(database.name + "-reserve")
        self._size = size_bytes
        self._margin = max(size_bytes // 4, SMALLEST_MARGIN_BYTES)
        self._free = free_bytes or self._free_on_disk
        self.state = Space.ENOUGH
        if not self._make_reserve():
            self.state = Space.RESERVE

    def _free_on_disk(self) -> int:
        if self._folder is None:
            return self._size + self._margin
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def check(self) -> None:
        """Called before each transaction; costs nothing while there is space.

        Raises StoreReadOnly while there is none.
        """
        if self.state is Space.ENOUGH:
            return
        free = self._free()
        if free >= self._size + self._margin and self._make_reserve():
            self.state = Space.ENOUGH
            log.info("disk has space again", free_bytes=free)
        elif free < self._margin and self.state is Space.RESERVE:
            self.state = Space.NONE
            log.error("disk full: writing stopped", free_bytes=free)
        if self.state is Space.NONE:
            raise StoreReadOnly("the disk is full")

    def found_full(self) -> None:
        """A write found no space: give up the reserve, or stop writing.

        What failed may have been tried before the reserve was given up, or may have been too big
        for it: while there is room, writing goes on.
        """
        if self._reserve is not None and self._reserve.exists():
            self._reserve.unlink()
            self.state = Space.RESERVE
            log.error("disk full: reserve given up", reserve_bytes=self._size)
        elif self.state is not Space.NONE and self._free() < self._margin:
            self.state = Space.NONE
            log.error("disk full: writing stopped")

    def _make_reserve(self) -> bool:
        """Whether the reserve is there, or could be made (or is not wanted)."""
        if self._reserve is None:
            return True
        if self._reserve.exists() and self._reserve.stat().st_size == self._size:
            return True
        try:
            with self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
        except OSError:
            with contextlib.suppress(OSError):  # the file may not even have come to be
                self._reserve.unlink()
            return False
        return True
