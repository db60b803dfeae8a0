"""`matrixbox user`: accounts, through the running server or directly on the database."""

from __future__ import annotations

import argparse
import getpass
import sys

from matrixbox.cli import calling
from matrixbox.cli.calling import Argument
from matrixbox.cli.common import Refused, tell
from matrixbox.core.json import Json


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

    def show_all(accounts: Json) -> None:
        calling.print_each(accounts, _print, "")

    return calling.run(options, "user.list", {}, show_all)


def _run(options: argparse.Namespace, name: str, done: str, **arguments: Argument) -> int:
    """Call the function for the account that is named and tell how it went."""

    def show_done(result: Json) -> None:
        print(done.format(result))

    return calling.run(options, name, {"name": options.name, **arguments}, show_done)


def _new_password() -> str:
    """From the terminal, twice, or one line of standard input. Raises Refused."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != password:
        raise Refused("The two were not the same; nothing was changed.")
    return password


def _print(account: dict[str, Json]) -> None:
    made = calling.moment(account["created_ms"])
    notes = [word for word in ("admin", "deactivated") if account[word] is True]
    print(f"{account['user_id']}  {made:%Y-%m-%d}  {' '.join(notes)}".rstrip())
