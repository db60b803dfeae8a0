"""The signing key's file: private, made once, never silently replaced (threats T051).

One line: algorithm, version, and the 32-byte seed in unpadded base64, as other homeservers write
it. Whoever has the key is the server to everybody else; a server that signs with a new key under an
old name looks like a thief. So a missing file is an error once the database knows of a key.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Collection
from pathlib import Path

from matrixbox.core import signing
from matrixbox.core.signing import SigningKey

EXIT_KEY = 77
"""EX_NOPERM of sysexits: the key cannot be used as it is."""

_MAX_FILE_BYTES = 1_000


class KeyFileError(Exception):
    """The key cannot be used; the text says what to do."""


def open_key(path: Path, known_key_ids: Collection[str]) -> SigningKey:
    """The server's key; made anew only when there is none and the database knows of none.

    `known_key_ids` are the ids of the keys that this database has been used with. Raises
    KeyFileError.
    """
    try:
        key = read_key(path)
        if known_key_ids and key.key_id not in known_key_ids:
            key = _adopt_next(path, known_key_ids) or key
    except FileNotFoundError:
        if known_key_ids:
            raise KeyFileError(
                f"The signing key file {path} is missing, but this server has signed with "
                f"{_listed(known_key_ids)}. Put the file back from a backup. No new key is made, "
                "because other servers would not accept it for this name."
            ) from None
        return make_key(path)
    if known_key_ids and key.key_id not in known_key_ids:
        raise KeyFileError(
            f"The signing key file {path} holds {key.key_id}, but this database belongs to "
            f"{_listed(known_key_ids)}. Put the right file back from a backup."
        )
    return key


def next_key_file(path: Path) -> Path:
    """Where a new key waits while the database is told of it."""
    return path.with_name(path.name + ".next")


def make_next_key(path: Path, taken_ids: Collection[str]) -> SigningKey:
    """A new key beside the one in use, with an id that none has had.  Raises KeyFileError."""
    waiting = next_key_file(path)
    while True:
        waiting.unlink(missing_ok=True)  # of a change that was broken off before it counted
        key = make_key(waiting)
        if key.key_id not in taken_ids:
            return key


def adopt_next_key(path: Path) -> None:
    """The key that waits takes the place of the one in use.  Durable.  Raises KeyFileError."""
    try:
        next_key_file(path).replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise KeyFileError(f"The signing key file {path} cannot be replaced: {error}") from error


def _adopt_next(path: Path, known_key_ids: Collection[str]) -> SigningKey | None:
    """Finish a change of keys that was broken off after the database was told of it."""
    try:
        waiting = read_key(next_key_file(path))
    except FileNotFoundError:
        return None
    if waiting.key_id not in known_key_ids:
        return None
    adopt_next_key(path)
    return waiting


def make_key(path: Path) -> SigningKey:
    """A new key in a new file; never overwrites. Durable when this returns. Raises KeyFileError."""
    key = signing.generate(secrets.token_bytes)
    line = f"ed25519 {key.version} {signing.encode_base64(key.seed)}\n"
    waiting = path.with_name(path.name + ".new")
    try:
        with contextlib.suppress(FileExistsError):  # what is there is checked below
            path.parent.mkdir(mode=0o700, parents=True)
        _check_folder(path.parent)
        waiting.unlink(missing_ok=True)
        descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(line)
            file.flush()
            os.fsync(descriptor)
        os.link(waiting, path)  # unlike a rename, it fails when the file exists
        waiting.unlink()
        _sync_folder(path.parent)
        _sync_folder(path.parent.parent)
    except OSError as error:
        raise KeyFileError(
            f"The signing key file {path} cannot be made: {error.strerror}"
        ) from error
    return key


def read_key(path: Path) -> SigningKey:
    """The key in the file. Raises FileNotFoundError, and KeyFileError for everything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            _check_folder(path.parent)
            _check_file(path, os.fstat(descriptor))
            content = file.read(_MAX_FILE_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(
            f"The signing key file {path} cannot be read: {error.strerror}"
        ) from error
    try:
        algorithm, version, seed = content.decode("ascii").split()
        if algorithm != "ed25519":
            raise ValueError("another algorithm")
        return SigningKey(version, signing.decode_base64(seed))
    except ValueError:
        # The cause is left out: it might quote the secret.
        raise KeyFileError(
            f"The signing key file {path} is damaged. Put it back from a backup."
        ) from None


def _check_folder(folder: Path) -> None:
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        raise KeyFileError(
            f"Others can enter the folder of the signing key. Do: chmod 700 {folder}"
        )


def _check_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeyFileError(f"The signing key {path} is not a file.")
    if found.st_mode & 0o077:
        raise KeyFileError(f"Others can read the signing key. Do: chmod 600 {path}")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _listed(key_ids: Collection[str]) -> str:
    return ", ".join(sorted(key_ids))
