"""A VFS whose operations can be made to fail, under the checksum VFS and over the real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

BeforeOperation = Callable[[str, str, int], None]
"""Called before each operation with its name, its file, and for xWrite where the write ends."""


def _nothing(operation: str, file: str, end: int) -> None:
    """No fault."""


class FaultyVfs(apsw.VFS):
    """Asks `before` at each operation; what that raises is what SQLite sees."""

    def __init__(self, base: str = "unix-excl") -> None:
        self.name = "faulty"
        self.base = base
        self.before: BeforeOperation = _nothing
        super().__init__(self.name, base)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        full = name.filename() if isinstance(name, apsw.URIFilename) else name
        assert full is not None, "SQLite opened a temporary file"
        file = Path(full).name
        self.before("xOpen", file, 0)
        return _File(self, file, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.before("xDelete", Path(filename).name, 0)
        super().xDelete(filename, syncdir)

    def xAccess(self, pathname: str, flags: int) -> bool:
        self.before("xAccess", Path(pathname).name, 0)
        return super().xAccess(pathname, flags)


class _File(apsw.VFSFile):
    def __init__(
        self, vfs: FaultyVfs, file: str, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        self.vfs = vfs
        self.file = file
        super().__init__(vfs.base, name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        self.vfs.before("xRead", self.file, 0)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        self.vfs.before("xWrite", self.file, offset + len(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self.vfs.before("xTruncate", self.file, 0)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        self.vfs.before("xSync", self.file, 0)
        super().xSync(flags)

    def xFileSize(self) -> int:
        self.vfs.before("xFileSize", self.file, 0)
        return super().xFileSize()

    def xLock(self, level: int) -> None:
        self.vfs.before("xLock", self.file, 0)
        super().xLock(level)

    def xUnlock(self, level: int) -> None:
        self.vfs.before("xUnlock", self.file, 0)
        super().xUnlock(level)

    def xCheckReservedLock(self) -> bool:
        self.vfs.before("xCheckReservedLock", self.file, 0)
        return super().xCheckReservedLock()


def io_error(operation: str) -> apsw.Error:
    """The error that the operation gives on a failing disk."""
    kinds: dict[str, tuple[type[apsw.Error], int]] = {
        "xOpen": (apsw.CantOpenError, apsw.SQLITE_CANTOPEN),
        "xRead": (apsw.IOError, apsw.SQLITE_IOERR_READ),
        "xWrite": (apsw.IOError, apsw.SQLITE_IOERR_WRITE),
        "xSync": (apsw.IOError, apsw.SQLITE_IOERR_FSYNC),
        "xTruncate": (apsw.IOError, apsw.SQLITE_IOERR_TRUNCATE),
        "xDelete": (apsw.IOError, apsw.SQLITE_IOERR_DELETE),
        "xAccess": (apsw.IOError, apsw.SQLITE_IOERR_ACCESS),
        "xFileSize": (apsw.IOError, apsw.SQLITE_IOERR_FSTAT),
        "xLock": (apsw.IOError, apsw.SQLITE_IOERR_LOCK),
        "xUnlock": (apsw.IOError, apsw.SQLITE_IOERR_UNLOCK),
        "xCheckReservedLock": (apsw.IOError, apsw.SQLITE_IOERR_CHECKRESERVEDLOCK),
    }
    kind, code = kinds[operation]
    error: Any = kind(f"made to fail: {operation}")
    error.extendedresult = code
    return error  # type: ignore[no-any-return]
