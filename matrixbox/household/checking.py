"""`matrixbox check`: is everything in order for the server to run (threats T151).

Looks, never changes, and works while the server runs; then the database and the addresses are in
use, and are left alone.
"""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress

from attrs import frozen

from matrixbox.config import Address, Settings
from matrixbox.datafolder import EXIT_UNUSABLE, DataFolder, FolderError, is_in_use
from matrixbox.keyfile import EXIT_KEY, KeyFileError, next_key_file, read_key
from matrixbox.net.tls import new_client_context
from matrixbox.store import inspection, meta

EXIT_DATABASE = 65
"""EX_DATAERR of sysexits: the database is damaged or not ours."""
EXIT_LISTENER = 69
"""EX_UNAVAILABLE of sysexits: an address or a certificate cannot be used."""
EXIT_SPACE = 74
"""EX_IOERR of sysexits: the disk is full."""

WARN_FREE_BYTES = 2 * 1024**3
LEAST_FREE_BYTES = 64 * 1024**2


@frozen
class Finding:
    """One thing looked at; `exit_code` is 0 when it is in order."""

    part: str
    text: str
    exit_code: int = 0


def check(settings: Settings) -> list[Finding]:
    """Everything that `matrixbox check` looks at after the configuration, in order."""
    assert settings.server.data_dir is not None  # `load` has chosen one
    folder = DataFolder(settings.server.data_dir)
    running = is_in_use(folder.path)
    findings = [_folder(folder, running=running)]
    if findings[0].exit_code == 0 and folder.path.exists():
        findings.append(_space(folder))
        findings.extend(_key_and_database(folder, settings.server.name, running=running))
    if settings.tls.mode == "files":
        findings.append(_certificate(settings))
    if settings.outbound.extra_ca_files:
        findings.append(_authorities(settings))
    findings.extend(_listeners(settings, running=running))
    return findings


def _folder(folder: DataFolder, *, running: bool) -> Finding:
    part = "data folder"
    if not folder.path.exists():
        return Finding(part, f"{folder.path} does not exist yet; the first start makes it")
    if running:
        return Finding(part, f"{folder.path}; a server is running on it")
    try:
        with DataFolder.open(folder.path):
            mode = folder.path.stat().st_mode & 0o077
    except FolderError as error:
        return Finding(part, str(error), error.exit_code)
    if mode:
        text = f"Others can look into {folder.path}. Do: chmod 700 {folder.path}"
        return Finding(part, text, EXIT_UNUSABLE)
    return Finding(part, str(folder.path))


def _space(folder: DataFolder) -> Finding:
    free = shutil.disk_usage(folder.path).free
    text = f"{free // 1024**2:,} MiB free"
    if free < LEAST_FREE_BYTES:
        return Finding("disk", f"{text}: nothing can be written any more", EXIT_SPACE)
    return Finding("disk", text + (": make room soon" if free < WARN_FREE_BYTES else ""))


def _key_and_database(folder: DataFolder, name: str, *, running: bool) -> Iterator[Finding]:
    known = None if running else inspection.read(folder.database, meta.get_text, "key_id")
    yield _key(folder, known)
    if running:
        yield Finding("database", "in use by the running server; not looked at")
        return
    found = inspection.inspect(folder.database)
    owner = inspection.read(folder.database, meta.get_text, "server_name")
    if found.problems:
        yield Finding("database", "; ".join(found.problems), EXIT_DATABASE)
    elif owner not in (None, name):
        text = f"belongs to the server {owner}, but server.name is {name}"
        yield Finding("database", text, EXIT_DATABASE)
    elif found.version == 0:
        yield Finding("database", "none yet; the first start makes it")
    elif found.version < found.newest:
        yield Finding("database", "in order; the next start brings it up to this release")
    else:
        yield Finding("database", "in order")


def _key(folder: DataFolder, known: str | None) -> Finding:
    part = "signing key"
    try:
        key = read_key(folder.signing_key)
        if known not in (None, key.key_id):
            # A change of keys that was broken off: the next start goes on with it.
            with suppress(FileNotFoundError):
                key = read_key(next_key_file(folder.signing_key))
    except FileNotFoundError:
        if known is not None:
            text = f"{folder.signing_key} is missing: put it back from a backup"
            return Finding(part, text, EXIT_KEY)
        return Finding(part, "none yet; the first start makes it")
    except KeyFileError as error:
        return Finding(part, str(error), EXIT_KEY)
    if known not in (None, key.key_id):
        text = f"{folder.signing_key} holds {key.key_id}, which this database does not know"
        return Finding(part, text, EXIT_KEY)
    return Finding(part, key.key_id)


def _certificate(settings: Settings) -> Finding:
    part = "certificate"
    assert settings.tls.cert is not None  # `load` has seen to it
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls.cert, settings.tls.key)
    except ssl.SSLError as error:
        text = f"{settings.tls.cert} and {settings.tls.key}: {error.reason or 'not readable'}"
        return Finding(part, text, EXIT_LISTENER)
    except OSError as error:
        text = f"{settings.tls.cert} or {settings.tls.key}: {error.strerror}"
        return Finding(part, text, EXIT_LISTENER)
    return Finding(part, str(settings.tls.cert))


def _authorities(settings: Settings) -> Finding:
    part = "authorities"
    try:
        new_client_context(settings.outbound.extra_ca_files)
    except OSError as error:
        return Finding(part, f"{error.filename}: {error.strerror}", EXIT_LISTENER)
    return Finding(part, ", ".join(map(str, settings.outbound.extra_ca_files)))


def _listeners(settings: Settings, *, running: bool) -> Iterator[Finding]:
    for scheme, addresses in (("http", settings.listen.http), ("https", settings.listen.https)):
        for address in addresses:
            part = f"{scheme} {address}"
            if running:
                yield Finding(part, "not tried: a server is running")
            else:
                yield _address(part, address)


def _address(part: str, address: Address) -> Finding:
    try:
        choices = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, place in choices:
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                tried.bind(place)
                tried.listen(1)
    except OSError as error:
        return Finding(part, f"cannot be used: {error.strerror}", EXIT_LISTENER)
    return Finding(part, "free")
