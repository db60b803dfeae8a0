"""What the commands about users, rooms and reports share: a function is called, its result shown.

The running server is asked; when none runs, it is done on the database.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeAlias

import trio

from matrixbox.cli.common import Refused, settings_of, tell
from matrixbox.config import EXIT_CONFIG, Settings, default_data_dir
from matrixbox.core.json import Json
from matrixbox.datafolder import DataFolder, FolderError, FolderInUse
from matrixbox.errors import MatrixError
from matrixbox.household import control
from matrixbox.household.checking import EXIT_DATABASE
from matrixbox.keyfile import EXIT_KEY, KeyFileError
from matrixbox.store.errors import StoreError

_NO_DATA = (
    "There is no data of a server in {folder}. Let `data_dir` in the configuration name the folder"
    " that the server uses, or start the server here first."
)

Argument: TypeAlias = "Json | Callable[[], Json]"


def run(
    options: argparse.Namespace,
    name: str,
    arguments: Mapping[str, Argument],
    show: Callable[[Json], None],
) -> int:
    """Call the function ``name`` and show its result, or tell why not; the exit code.

    An argument that can be called is asked of the one at the terminal, when all else is right.
    """
    settings = settings_of(options)
    if settings is None:
        return EXIT_CONFIG
    try:
        given = {key: value() if callable(value) else value for key, value in arguments.items()}
        result = _call_server(settings, name, given, is_configured=options.config is not None)
    except Refused as error:
        tell(str(error))
        return error.exit_code
    show(result)
    return 0


def _call_server(
    settings: Settings, name: str, arguments: Mapping[str, Json], *, is_configured: bool
) -> Json:
    """Ask the running server; when none runs, do it here. Raises Refused.

    Where a configuration does not name the data folder, it depends on who asks: systemd's is
    another one than that of a person at a terminal, who would make a second server in theirs.
    """
    assert settings.server.data_dir is not None  # `load` has chosen one
    folder = DataFolder(settings.server.data_dir)
    try:
        return control.call(folder.control_socket, name, arguments)
    except control.ControlError as error:
        raise Refused(str(error)) from error
    except control.NotRunning:
        is_guessed = is_configured and folder.path == default_data_dir(os.environ)
        if is_guessed and not (folder.database.exists() or folder.signing_key.exists()):
            raise Refused(_NO_DATA.format(folder=folder.path)) from None
        return _call_here(settings, name, arguments)


def _call_here(settings: Settings, name: str, arguments: Mapping[str, Json]) -> Json:
    """Do it on the database of a server that does not run.  Raises Refused."""
    from matrixbox import serve  # noqa: PLC0415 - the whole server, needed only in this case

    async def call() -> Json:
        async with serve.open_users(settings) as users:
            return await users.functions()[name](arguments)

    try:
        return trio.run(call)
    except MatrixError as error:
        raise Refused(error.text) from error
    except FolderInUse as error:
        raise Refused(str(error), error.exit_code) from error
    except FolderError as error:
        text = f"{error} Or start the server: while it runs, it is asked to do this."
        raise Refused(text, error.exit_code) from error
    except KeyFileError as error:
        raise Refused(str(error), EXIT_KEY) from error
    except StoreError as error:
        raise Refused(f"The database cannot be used: {error}", EXIT_DATABASE) from error


def print_each(rows: Json, show: Callable[[dict[str, Json]], None], if_none: str) -> None:
    """Print the rows of a list, or tell that there are none."""
    assert isinstance(rows, list)
    for row in rows:
        assert isinstance(row, dict)
        show(row)
    if not rows and if_none:
        tell(if_none)


def moment(ms: Json) -> datetime:
    """A time of the server, in milliseconds, as one can print it."""
    return datetime.fromtimestamp(int(str(ms)) / 1000, UTC)


def printable(text: Json) -> str:
    """What somebody wrote, so that it does not steer the terminal that shows it."""
    return "".join(c if c.isprintable() else " " for c in str(text or ""))
