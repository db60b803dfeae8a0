"""`matrixbox room`: rooms that take no events any more, through the running server or without."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from matrixbox.cli.common import Refused, settings_of, tell
from matrixbox.cli.users import call_server
from matrixbox.config import EXIT_CONFIG
from matrixbox.core.json import Json


def parked(options: argparse.Namespace) -> int:
    """List rooms that take no events of other servers."""
    return _run(options, "room.parked", {})


def retry(options: argparse.Namespace) -> int:
    """Let a room take events again."""
    return _run(options, "room.retry", {"room_id": options.room})


def _run(options: argparse.Namespace, name: str, arguments: dict[str, Json]) -> int:
    settings = settings_of(options)
    if settings is None:
        return EXIT_CONFIG
    try:
        result = call_server(settings, name, arguments)
    except Refused as error:
        tell(str(error))
        return error.exit_code
    if isinstance(result, list):
        for room in result:
            assert isinstance(room, dict)
            _print(room)
        if not result:
            tell("All rooms take events.")
    else:
        print(f"{result} takes events again.")
    return 0


def _print(room: dict[str, Json]) -> None:
    since = datetime.fromtimestamp(int(str(room["since_ms"])) / 1000, UTC)
    # What somebody called a room must not steer the terminal that shows it.
    name = "".join(c if c.isprintable() else " " for c in str(room["name"] or ""))
    print(f"{room['room_id']}  since {since:%Y-%m-%d %H:%M}  {name}".rstrip())
    print(f"    {room['reason']}")
    print(f"    try again: matrixbox room retry '{room['room_id']}'; or leave it with a client")
