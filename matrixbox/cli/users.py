"""`matrixbox user`: accounts, through the running server or directly on the database."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import trio

from matrixbox.cli.common import Refused, settings_of, tell
from matrixbox.config import EXIT_CONFIG, Settings
from matrixbox.core.json import Json
from matrixbox.datafolder import DataFolder, FolderError
from matrixbox.errors import MatrixError
from matrixbox.household import control
from matrixbox.household.checking import EXIT_DATABASE
from matrixbox.keyfile import EXIT_KEY, KeyFileError
from matrixbox.store.errors import StoreError


def add(options: argparse.Namespace) -> int:
    """Make an account."""
    return _run(options, "user.add", "Made {}.", admin=options.admin, password=_new_password)


def passwd(options: argparse.Namespace) -> int:
    """Set a password."""
    done = "{} has a new password."
    keep = options.keep_sessions
    return _run(options, "user.passwd", done, keep_sessions=keep, password=_new_password)


def deactivate(options: argparse.Namespace) -> int:
    """End an account."""
    if not options.yes:
        if not sys.stdin.isatty():
            tell("Nobody can be asked; add --yes to deactivate the account for good.")
            return 1
        if input(f"Deactivate {options.name} for good? Type yes: ").strip() != "yes":
            tell("Nothing was changed.")
            return 1
    return _run(options, "user.deactivate", "Deactivated {}.")


def show(options: argparse.Namespace) -> int:
    """List accounts."""
    options.name = None
    return _run(options, "user.list", "")


def _run(options: argparse.Namespace, name: str, done: str, **arguments: object) -> int:
    """Call the function and tell how it went."""
    settings = settings_of(options)
    if settings is None:
        return EXIT_CONFIG
    call: dict[str, Json] = {} if options.name is None else {"name": options.name}
    try:
        for key, value in arguments.items():
            call[key] = value() if callable(value) else value  # type: ignore[assignment]
        result = call_server(settings, name, call)
    except Refused as error:
        tell(str(error))
        return error.exit_code
    if isinstance(result, list):
        _print_accounts(result)
    else:
        print(done.format(result))
    return 0


def call_server(settings: Settings, name: str, arguments: Mapping[str, Json]) -> Json:
    """Ask the running server; when none runs, do it here. Raises Refused."""
    assert settings.server.data_dir is not None  # `load` has chosen one
    folder = DataFolder(settings.server.data_dir)
    try:
        return control.call(folder.control_socket, name, arguments)
    except control.ControlError as error:
        raise Refused(str(error)) from error
    except control.NotRunning:
        return call_here(settings, name, arguments)


def call_here(settings: Settings, name: str, arguments: Mapping[str, Json]) -> Json:
    """Do it on the database of a server that does not run.  Raises Refused."""
    from matrixbox import serve  # noqa: PLC0415 - the whole server, needed only in this case

    async def run() -> Json:
        async with serve.open_users(settings) as users:
            return await users.functions()[name](arguments)

    try:
        return trio.run(run)
    except MatrixError as error:
        raise Refused(error.text) from error
    except FolderError as error:
        raise Refused(str(error), error.exit_code) from error
    except KeyFileError as error:
        raise Refused(str(error), EXIT_KEY) from error
    except StoreError as error:
        raise Refused(f"The database cannot be used: {error}", EXIT_DATABASE) from error


def _new_password() -> str:
    """From the terminal, twice, or one line of standard input. Raises Refused."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != password:
        raise Refused("The two were not the same; nothing was changed.")
    return password


def _print_accounts(accounts: list[Json]) -> None:
    for account in accounts:
        assert isinstance(account, dict)
        made = datetime.fromtimestamp(int(str(account["created_ms"])) / 1000, UTC)
        notes = [word for word in ("admin", "deactivated") if account[word] is True]
        print(f"{account['user_id']}  {made:%Y-%m-%d}  {' '.join(notes)}".rstrip())
