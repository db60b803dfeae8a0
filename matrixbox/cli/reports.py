"""`matrixbox report`: what users have reported, through the running server or on the database."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from matrixbox.cli.common import Refused, settings_of, tell
from matrixbox.cli.users import call_server
from matrixbox.config import EXIT_CONFIG
from matrixbox.core.json import Json


def show(options: argparse.Namespace) -> int:
    """List reports."""
    return _run(options, "report.list", {})


def done(options: argparse.Namespace) -> int:
    """Forget a report that was dealt with."""
    return _run(options, "report.done", {"number": options.number})


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
        for report in result:
            assert isinstance(report, dict)
            _print(report)
        if not result:
            tell("There are no reports.")
    else:
        print(f"Report {options.number} is done with.")
    return 0


def _print(report: dict[str, Json]) -> None:
    made = datetime.fromtimestamp(int(str(report["made_ms"])) / 1000, UTC)
    print(f"{report['number']}  {made:%Y-%m-%d %H:%M}  reported by {report['by']}")
    for key, word in (("user_id", "user"), ("room_id", "room"), ("event_id", "event")):
        if report[key]:
            print(f"    {word}: {report[key]}")
    # What somebody wrote must not steer the terminal that shows it.
    reason = "".join(c if c.isprintable() else " " for c in str(report["reason"]))
    if reason.strip():
        print(f"    reason: {reason}")
