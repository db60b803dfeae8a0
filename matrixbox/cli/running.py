"""`matrixbox serve`: the server in the foreground."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from matrixbox import serve as server
from matrixbox.cli.common import settings_of, tell
from matrixbox.config import EXIT_CONFIG, Settings
from matrixbox.datafolder import EXIT_UNUSABLE, FolderError
from matrixbox.household.checking import EXIT_DATABASE, EXIT_LISTENER
from matrixbox.keyfile import EXIT_KEY, KeyFileError
from matrixbox.observe import log
from matrixbox.store.errors import StoreError
from matrixbox.tasks import CrashLoop, one_error

EXIT_SOFTWARE = 70
"""EX_SOFTWARE of sysexits; what the store ends the process with, too."""


def serve(options: argparse.Namespace) -> int:
    """Run the server until it is told to stop; returns the exit code."""
    settings = settings_of(options)
    if settings is None:
        return EXIT_CONFIG
    if os.geteuid() == 0 and not settings.is_loopback_only and not options.allow_root:
        # Whoever breaks in would have the whole machine (threats T170). On loopback there is
        # nobody to break in, and containers and test machines are often root.
        tell(
            "The server should not run as root while other machines can connect to it.\n"
            "Run it as another user, or by systemd (packaging/matrixbox.service), or, if you must, "
            "add --allow-root."
        )
        return EXIT_UNUSABLE
    os.umask(0o077)
    try:
        log.configure(settings.log.level, settings.log.file, settings.log.keep_days)
    except OSError as error:
        tell(f"The log file {settings.log.file} cannot be written: {error.strerror}")
        return EXIT_UNUSABLE
    return _run(settings)


def _run(settings: Settings) -> int:
    """The server itself; what keeps it from starting becomes one line and an exit code."""
    is_ready = False

    def ready(problems: Mapping[str, str]) -> None:
        nonlocal is_ready
        is_ready = True
        print(welcome(settings), flush=True)
        for part, reason in problems.items():
            tell(f"Does not work, and the rest goes on without it: {part}: {reason}")

    try:
        with one_error():
            return server.main(settings, ready)
    except FolderError as error:
        tell(str(error))
        return error.exit_code
    except KeyFileError as error:
        tell(str(error))
        return EXIT_KEY
    except CrashLoop:
        return EXIT_SOFTWARE  # logged where it happened; systemd starts the server again
    except Exception as error:  # noqa: BLE001 - logged without texts of others, see observe.log
        if not is_ready and isinstance(error, StoreError):
            tell(f"The database in {settings.server.data_dir} cannot be used: {error}")
            return EXIT_DATABASE
        if not is_ready and isinstance(error, OSError):
            tell(f"The server cannot start: {error.strerror}. `matrixbox check` tells more.")
            return EXIT_LISTENER
        error_id = log.bug("server ended by a bug", error)
        tell(f"The server ended because of a bug, {error_id} in the log.")
        return EXIT_SOFTWARE


def welcome(settings: Settings) -> str:
    """What the one at the terminal should know once the server is ready."""
    lines = [f"matrixbox is running as {settings.server.name}. Ctrl-C stops it."]
    lines += [f"  clients:  {settings.base_url}", f"  data:     {settings.server.data_dir}"]
    if settings.registration.open and settings.is_loopback_only:
        lines += [
            "",
            "This is a try-out: only this machine can connect, and anybody on it can register.",
            "What to do next:",
            f"  - In a Matrix client on this machine, choose the homeserver {settings.base_url}",
            "    and create an account. Or make one here, in a second terminal:",
            "      matrixbox user add NAME",
            "  - For a server of your own: matrixbox init your.domain",
        ]
    return "\n".join(lines)
