"""`matrixbox room`: rooms that take no events any more."""

from __future__ import annotations

import argparse

from matrixbox.cli import calling
from matrixbox.core.json import Json


def parked(options: argparse.Namespace) -> int:
    """List rooms that take no events of other servers."""

    def show(rooms: Json) -> None:
        calling.print_each(rooms, _print, "All rooms take events.")

    return calling.run(options, "room.parked", {}, show)


def retry(options: argparse.Namespace) -> int:
    """Let a room take events again."""

    def show(room_id: Json) -> None:
        print(f"{room_id} takes events again.")

    return calling.run(options, "room.retry", {"room_id": options.room}, show)


def _print(room: dict[str, Json]) -> None:
    since, name = calling.moment(room["since_ms"]), calling.printable(room["name"])
    print(f"{room['room_id']}  since {since:%Y-%m-%d %H:%M}  {name}".rstrip())
    print(f"    {room['reason']}")
    print(f"    try again: matrixbox room retry '{room['room_id']}'; or leave it with a client")
