"""Setting a server up: `matrixbox init`.

A new server is one folder: the configuration file, and the data folder with the signing key.
Nothing that exists is overwritten.
"""

from __future__ import annotations

import os
from pathlib import Path

from attrs import frozen

from matrixbox.config.example import minimal
from matrixbox.core.identifiers import InvalidIdentifier, ServerName, parse_server_name
from matrixbox.datafolder import DataFolder, FolderError, make_private
from matrixbox.keyfile import KeyFileError, make_key

_INTRODUCTION = """\
# Configuration of matrixbox for {name}.
#
# Only what differs from the defaults has to be here. All settings, with their defaults and
# meaning: matrixbox.toml in the source of matrixbox, or `matrixbox settings`.

"""


SERVICE_DATA = Path("/var/lib/matrixbox")
"""The data folder of the system service; `packaging/matrixbox.service` has it made."""


class SetupError(Exception):
    """The server cannot be set up like this; the text says what to do."""


@frozen
class NewServer:
    """What `init` has made."""

    name: ServerName
    config: Path
    key: Path | None


def create(name: str, folder: Path, *, config_only: bool) -> NewServer:
    """Make the folder of a new server. Raises SetupError; what exists is never overwritten.

    With `config_only`, data folder and key are left to the first start: under systemd the data
    folder belongs to a user that does not exist yet.  It is named in the configuration, so that
    the command line finds it too.
    """
    try:
        server_name = parse_server_name(name)
    except InvalidIdentifier:
        raise SetupError(
            f'"{name}" is not a server name. It is what stands after the colon in user ids, such '
            'as "example.org"; it has no "https://" and no "@".'
        ) from None
    config = folder / "matrixbox.toml"
    data = DataFolder(folder / "data")
    for made in (config, data.signing_key):
        if made.exists():
            raise SetupError(f"{made} exists already; nothing was changed.")
    try:
        make_private(folder)
        if not config_only:
            make_private(data.path)
            make_key(data.signing_key)
        _write_private(config, _config_text(server_name, config_only=config_only))
    except (FolderError, KeyFileError) as error:
        raise SetupError(str(error)) from error
    except OSError as error:
        raise SetupError(f"{error.filename or folder}: {error.strerror}") from error
    return NewServer(server_name, config, None if config_only else data.signing_key)


def _config_text(name: ServerName, *, config_only: bool) -> str:
    values: dict[str, dict[str, object]] = {
        "server": {"name": name, "data_dir": SERVICE_DATA if config_only else Path("data")},
        "listen": {"http": ("127.0.0.1:8008",), "https": ()},
        "tls": {"mode": "off", "cert": None, "key": None},
        "registration": {"open": False},
    }
    return _INTRODUCTION.format(name=name) + minimal(values)


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
