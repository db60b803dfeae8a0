"""The data folder: its layout, its modes, and the lock that keeps a second server out.

Two processes writing to one SQLite file through two ideas of what is in memory ruin it, so the
folder is locked for as long as a server, or a command that changes something, works on it (threats
T147). The folder is private: it holds everybody's messages and the signing key (T051).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

EXIT_IN_USE = 73
"""EX_CANTCREAT of sysexits: what a second server on one folder ends with."""

EXIT_UNUSABLE = 77
"""EX_NOPERM of sysexits: the folder cannot be used as it is."""


class FolderError(Exception):
    """The data folder cannot be used; the text says what to do, `exit_code` is for the program."""

    exit_code = EXIT_UNUSABLE


class FolderInUse(FolderError):
    """Another process works on the folder."""

    exit_code = EXIT_IN_USE


class DataFolder:
    """A locked data folder; unlocks when closed, or when the process ends however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / "matrixbox.db"

    @property
    def signing_key(self) -> Path:
        """The signing key, in a folder of its own that only the server may enter."""
        return self.path / "keys" / "signing.key"

    @property
    def control_socket(self) -> Path:
        """Where the command line reaches a running server."""
        return self.path / "control.sock"

    @property
    def lock_file(self) -> Path:
        """What is locked; holds the process id of the one who does, for people."""
        return self.path / "lock"

    @classmethod
    def open(cls, path: Path) -> Self:
        """Make the folder if it is missing, check its modes, and lock it.

        Raises FolderInUse when it is locked already, FolderError when it cannot be used.
        """
        folder = cls(path)
        try:
            make_private(path)
            folder._take_lock()
        except OSError as error:
            raise FolderError(f"The data folder {path} cannot be used: {error.strerror}") from error
        return folder

    def close(self) -> None:
        """Unlock. The lock file stays: removing it would let two processes lock two files."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take_lock(self) -> None:
        descriptor = os.open(
            self.lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise FolderInUse(
                f"The data folder {self.path} is in use by process {holder or 'unknown'}: "
                "a matrixbox server is running on it already. Stop that one first."
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor


def is_in_use(path: Path) -> bool:
    """Whether some process holds the lock of the folder at this moment."""
    try:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def make_private(folder: Path) -> None:
    """Make a folder with mode 0700, parents as usual; an empty one of ours becomes private too.

    Raises OSError, or FolderError when others could write into it or it belongs to somebody else.
    What only lets others read is left to `matrixbox check` to tell.
    """
    with contextlib.suppress(FileExistsError):  # the usual case; what is there is checked next
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise FolderError(f"{folder} is not a folder.")
    if found.st_uid != os.geteuid():
        raise FolderError(
            f"The folder {folder} belongs to another user. Run matrixbox as its owner, or give "
            f"the folder to the user that runs matrixbox (chown)."
        )
    if found.st_mode & 0o077 and not any(folder.iterdir()):
        folder.chmod(0o700)
    elif found.st_mode & 0o022:
        raise FolderError(f"Others can write into the folder {folder}. Do: chmod 700 {folder}")
