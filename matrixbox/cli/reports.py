"""`matrixbox report`: what users have reported."""

from __future__ import annotations

import argparse

from matrixbox.cli import calling
from matrixbox.core.json import Json


def show(options: argparse.Namespace) -> int:
    """List reports."""

    def show_all(reports: Json) -> None:
        calling.print_each(reports, _print, "There are no reports.")

    return calling.run(options, "report.list", {}, show_all)


def done(options: argparse.Namespace) -> int:
    """Forget a report that was dealt with."""

    def show_done(_: Json) -> None:
        print(f"Report {options.number} is done with.")

    return calling.run(options, "report.done", {"number": options.number}, show_done)


def _print(report: dict[str, Json]) -> None:
    made = calling.moment(report["made_ms"])
    print(f"{report['number']}  {made:%Y-%m-%d %H:%M}  reported by {report['by']}")
    for key, word in (("user_id", "user"), ("room_id", "room"), ("event_id", "event")):
        if report[key]:
            print(f"    {word}: {report[key]}")
    reason = calling.printable(report["reason"])
    if reason.strip():
        print(f"    reason: {reason}")
