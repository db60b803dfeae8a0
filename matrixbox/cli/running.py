"""`matrixbox serve`: the server in the foreground."""

from __future__ import annotations

import argparse
import os
from importlib import import_module

from matrixbox.cli.common import settings_of, tell
from matrixbox.config import EXIT_CONFIG, Settings
from matrixbox.datafolder import EXIT_UNUSABLE, FolderError
from matrixbox.keyfile import EXIT_KEY, KeyFileError
from matrixbox.observe import log


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
    server = import_module("matrixbox.serve")
    try:
        code = server.main(settings, lambda: print(welcome(settings), flush=True))
    except FolderError as error:
        tell(str(error))
        return error.exit_code
    except KeyFileError as error:
        tell(str(error))
        return EXIT_KEY
    assert isinstance(code, int)
    return code


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
