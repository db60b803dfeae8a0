"""Commands and options, and how help reads."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from matrixbox import __version__

_DESCRIPTION = """\
A Matrix homeserver for one household.

Try it out, without any configuration:

    matrixbox serve                 on this machine only, open to everybody on it

Set up a server of your own:

    matrixbox init example.org      makes the folder example.org with configuration and key
    matrixbox serve --config example.org/matrixbox.toml
    matrixbox user add ann --config example.org/matrixbox.toml
"""

_EXIT_CODES = """\
exit codes:
  0  done, or everything in order      69  an address or the certificate cannot be used
  1  refused; the text says why        70  the database failed, or a part crashed again and again
  2  wrong use of the command line     73  another server runs on the data folder
  65 the database cannot be used       74  the disk is full
                                       77  wrong permissions, or the signing key cannot be used
                                       78  the configuration is wrong
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top: argparse.ArgumentParser = _new(
        argparse.ArgumentParser, prog="matrixbox", description=_DESCRIPTION, epilog=_EXIT_CODES
    )
    top.add_argument("--version", action="version", version=f"matrixbox {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _serve(commands)
    _init(commands)
    _check(commands)
    _user(commands)
    _report(commands)
    _room(commands)
    _key(commands)
    _settings(commands)
    return top


def _new(make: Callable[..., argparse.ArgumentParser], *names: str, **how: Any) -> Any:
    return make(*names, formatter_class=argparse.RawDescriptionHelpFormatter, **how)


def _command(commands: Any, name: str, function: str, short: str, long: str = "") -> Any:
    """A command that runs `function`, given as module:name in this folder."""
    added = _new(commands.add_parser, name, help=short, description=f"{short}\n\n{long}".strip())
    module, _, attribute = function.partition(":")

    def run(options: argparse.Namespace) -> Any:
        return getattr(import_module(f"matrixbox.cli.{module}"), attribute)(options)

    added.set_defaults(run=run)
    return added


def _with_config(command: Any) -> None:
    command.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration file (TOML); without it: the try-out on this machine",
    )


def _serve(commands: Any) -> None:
    command = _command(
        commands,
        "serve",
        "running:serve",
        "Run the server in the foreground.",
        "Without --config it is a try-out: plain HTTP on 127.0.0.1:8008, server name localhost,\n"
        "open registration, data in ~/.local/state/matrixbox.\n"
        "SIGTERM or Ctrl-C stops it in good order.",
    )
    _with_config(command)
    command.add_argument(
        "--allow-root",
        action="store_true",
        help="run as root although other machines can connect (better: systemd, or another user)",
    )


def _init(commands: Any) -> None:
    command = _command(
        commands,
        "init",
        "setting_up:init",
        "Set up a new server: configuration and signing key.",
        "NAME is what stands after the colon in user ids (@ann:NAME). It cannot be changed later.\n"
        "Nothing that exists is overwritten.",
    )
    command.add_argument("name", metavar="NAME", help="server name, such as example.org")
    command.add_argument(
        "--folder", type=Path, metavar="DIR", help="where to put it; default: ./NAME"
    )
    command.add_argument(
        "--config-only",
        action="store_true",
        help="for a system service: only the configuration file; the first start makes the data"
        " folder /var/lib/matrixbox and the key",
    )


def _check(commands: Any) -> None:
    command = _command(
        commands,
        "check",
        "setting_up:check",
        "Check configuration, data folder, key, database and addresses.",
        "Changes nothing and works while the server runs. The exit code tells the first problem.",
    )
    _with_config(command)


def _user(commands: Any) -> None:
    user = _new(
        commands.add_parser,
        "user",
        help="Manage accounts: add, passwd, list, deactivate.",
        description="Manage accounts, whether the server runs or not.",
    )
    actions = user.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = _command(actions, "add", "users:add", "Make an account.")
    add.add_argument("name", metavar="NAME", help="user name, such as ann")
    add.add_argument("--admin", action="store_true", help="may administer the server")
    passwd = _command(
        actions,
        "passwd",
        "users:passwd",
        "Set a new password.",
        "All devices of the account are signed out, unless --keep-sessions is given.",
    )
    passwd.add_argument("name", metavar="NAME")
    passwd.add_argument("--keep-sessions", action="store_true", help="leave devices signed in")
    listing = _command(actions, "list", "users:show", "List all accounts.")
    deactivate = _command(
        actions,
        "deactivate",
        "users:deactivate",
        "End an account for good.",
        "Its devices are signed out, it leaves its rooms, and its name stays taken.",
    )
    deactivate.add_argument("name", metavar="NAME")
    deactivate.add_argument("--yes", action="store_true", help="do not ask")
    for command in (add, passwd, listing, deactivate):
        _with_config(command)
    for command in (add, passwd):
        command.epilog = "The password is asked for, or read as one line from standard input."


def _room(commands: Any) -> None:
    room = _new(
        commands.add_parser,
        "room",
        help="Rooms that take no events any more: parked, retry.",
        description="Rooms that cost this server too much, whether it runs or not.",
    )
    actions = room.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parked = _command(
        actions,
        "parked",
        "rooms:parked",
        "List the rooms that take no events of other servers.",
        "Working out their state took longer than one room may take; all others go on. What is in\n"
        "them can be read, and they can be left.",
    )
    retry = _command(actions, "retry", "rooms:retry", "Let a room take events again.")
    retry.add_argument("room", metavar="ROOM", help="its id, as `room parked` shows it")
    for command in (parked, retry):
        _with_config(command)


def _report(commands: Any) -> None:
    report = _new(
        commands.add_parser,
        "report",
        help="What users have reported: list, done.",
        description="What users have reported as inappropriate, whether the server runs or not.",
    )
    actions = report.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = _command(actions, "list", "reports:show", "List all reports.")
    done = _command(actions, "done", "reports:done", "Forget a report that was dealt with.")
    done.add_argument("number", metavar="NUMBER", type=int, help="as `report list` shows it")
    for command in (listing, done):
        _with_config(command)


def _key(commands: Any) -> None:
    key = _new(
        commands.add_parser,
        "key",
        help="The signing key: rotate.",
        description="The key that this server signs with.",
    )
    actions = key.add_subparsers(title="commands", metavar="COMMAND", required=True)
    rotate = _command(
        actions,
        "rotate",
        "keys:rotate",
        "Replace the signing key by a new one.",
        "For a key that others may have seen. The server must not run. What was signed with the\n"
        "old key stays valid; other servers learn of the new one by themselves.",
    )
    _with_config(rotate)


def _settings(commands: Any) -> None:
    _command(
        commands,
        "settings",
        "setting_up:settings",
        "Print a configuration file with every setting, its default and meaning.",
    )
